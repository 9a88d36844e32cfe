"""Audio front end: 2-second windows at 16 kHz to the encoder's input, beside `torchaudio.compliance.kaldi.fbank` called per window.

    python -m benchmarks.audio_front_end [--windows 256] [--repeats 9] [FILE ...]

The two take turns in one process. Prints windows a second, their ratio in each turn, and how far both are from torchaudio's filterbank
computed in float64, in the encoder's normalised input. Without files the windows are noise beside sweeps; with files, stretches of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli import model_config
from imagebind_cli.encoders.audio import RATE, WINDOW_SECONDS, spectrograms
from imagebind_cli.media.audio import Sound
from imagebind_cli.media.resampling import Resampled

LENGTH = RATE * WINDOW_SECONDS
CONFIG = model_config.named("huge").encoders["audio"]


def made(count: int) -> list[Tensor]:
    """Sweeps with noise far below them, another for each window."""
    time_of = np.arange(LENGTH) / RATE
    random = np.random.default_rng(0)
    sweeps = [0.4 * np.sin(2 * np.pi * (100 + 40 * (i % 50) * time_of) * time_of) for i in range(count)]
    return [torch.from_numpy(sweep + 10 ** -random.uniform(1, 4) * random.standard_normal(LENGTH)).float() for sweep in sweeps]


def recorded(files: list[Path], count: int) -> list[Tensor]:
    """Windows of real recordings, half of each overlapping the next, repeated until there are enough."""
    windows = []
    for file in files:
        with Sound(file) as sound:
            resampled = Resampled(
                lambda start, stop, sound=sound: torch.from_numpy(sound.read(start, stop)), sound.length, sound.rate, RATE
            )
            waveform = resampled.read(0, resampled.length)
        windows += [window - window.mean() for window in waveform[0].unfold(0, LENGTH, LENGTH // 2)]
    return (windows * -(-count // len(windows)))[:count]


def torchaudio_input(waveforms: list[Tensor]) -> Tensor:
    """The published preprocessing: one call per window, padded, normalised."""
    from torchaudio.compliance.kaldi import fbank

    _, bins, frames = CONFIG.shape
    clips = []
    for waveform in waveforms:
        mel = fbank(
            waveform[None], htk_compat=True, sample_frequency=RATE, use_energy=False, window_type="hanning", num_mel_bins=bins, dither=0.0
        ).T
        clips.append((F.pad(mel, (0, frames - mel.shape[1])) - CONFIG.mean[0]) / CONFIG.std[0])
    return torch.stack(clips).unsqueeze(1)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    waveforms = recorded(arguments.files, arguments.windows) if arguments.files else made(arguments.windows)

    ours, theirs = spectrograms(waveforms, CONFIG), torchaudio_input(waveforms)
    exact = torchaudio_input([waveform.double() for waveform in waveforms])
    exact = exact.clamp(
        min=(np.log(torch.finfo(torch.float32).eps) - CONFIG.mean[0]) / CONFIG.std[0]
    )  # float64 has a lower floor of its own
    differences = {name: (a - b).abs().max().item() for name, a, b in (
        ("ours to torchaudio in float64", ours, exact), ("torchaudio to torchaudio in float64", theirs, exact), ("ours to torchaudio", ours, theirs)
    )}  # fmt: skip
    turns = [
        (seconds(lambda: torchaudio_input(waveforms)), seconds(lambda: spectrograms(waveforms, CONFIG))) for _ in range(arguments.repeats)
    ]
    rates = [[len(waveforms) / turn[side] for turn in turns] for side in (0, 1)]
    ratios = [theirs / ours for theirs, ours in turns]
    print(f"{len(waveforms)} windows, {torch.get_num_threads()} threads, torch {torch.__version__}, {arguments.repeats} turns\n")
    print("| | windows a second, median | from | to |\n|---|---|---|---|")
    for name, values in zip(("torchaudio, per window", "ours"), rates, strict=True):
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |")
    print(f"| ratio, turn by turn | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |\n")
    print("Largest differences in the normalised input:", json.dumps({name: f"{value:.1e}" for name, value in differences.items()}))


if __name__ == "__main__":
    main()
