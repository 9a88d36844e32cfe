"""Audio front end: sounds to the encoder's input, beside `torchaudio.compliance.kaldi.fbank` called per window, as published.

    python -m benchmarks.audio_front_end [--windows 1536] [--turns 9] [--threads 2] [FILE ...]

First windows at 16 kHz in memory, on one thread and on several; then whole files, decoded by soundfile in both and resampled by
`torchaudio.functional.resample` in theirs. Ours runs as `embed` runs it: each file on a thread of its own, and where there are many, in a
process. Theirs may take the threads within each operation or side by side; both are shown. The sides take turns. Also printed: how far both
are from torchaudio's filterbank computed in float64, in the encoder's normalised input. Without FILEs, 5-second sounds of sweeps beside noise
are made.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import Sample
from imagebind_cli.encoders.audio import RATE, WINDOW_SECONDS, read_audio, spectrograms
from imagebind_cli.engine.processes import Processes
from imagebind_cli.media.windows import windows
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.readers import read_source
from imagebind_cli.registry import face
from imagebind_cli.weights import model_config

CONFIG = model_config.packaged_config("huge").encoders["audio"]
LENGTH = RATE * WINDOW_SECONDS
WINDOWS_A_FILE = 3  # of 5 seconds
AHEAD = 16


def make_sounds(folder: Path, count: int) -> list[Path]:
    """Sweeps with noise far below them, another for each file: 5 seconds, 44.1 kHz, stereo, 16 bits."""
    rate, random = 44_100, np.random.default_rng(0)
    at = np.arange(5 * rate) / rate
    paths = []
    for i in range(count):
        sweep = 0.4 * np.sin(2 * np.pi * (100 + 40 * i * at) * at)[:, None]
        noise = 10 ** -random.uniform(1, 4) * random.standard_normal((len(at), 2))
        paths.append(folder / f"{i}.wav")
        soundfile.write(paths[-1], sweep + noise, rate)
    return paths


def published_waveform(path: Path) -> Tensor:
    """(channels, samples) at 16 kHz."""
    from torchaudio.functional import resample

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(torch.from_numpy(samples.T.copy()), rate, RATE)


def published_windows(path: Path) -> list[Tensor]:
    """The first channel of each window, less the window's mean."""
    waveform = published_waveform(path)
    clips = [waveform[:, int(start * RATE) : int(end * RATE)] for start, end in windows(waveform.shape[1] / RATE, WINDOW_SECONDS)]
    return [(clip - clip.mean())[0] for clip in clips]


def published_input(waveforms: list[Tensor]) -> Tensor:
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


def side_by_side(call: Callable[[object], object], parts: list[object], threads: int) -> None:
    """Every part through a call, on threads with one core each."""
    own = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(call, parts):  # what is made is let go of, as in `one_by_one`: fresh memory for all of it would be timed, too
            pass
    torch.set_num_threads(own)


def in_processes(processes: Processes, files: list[Path]) -> None:
    """Every file through the workers, handed out by a thread, as `pipeline.decode` has it."""
    under_way: queue.Queue[Iterator[Sample] | None] = queue.Queue(AHEAD)

    def hand_out() -> None:
        for path in files:
            while (samples := processes.submit(path)) is None:  # none is up yet, in the round that does not count
                time.sleep(0.1)
            under_way.put(samples)
        under_way.put(None)

    threading.Thread(target=hand_out, daemon=True).start()
    while (samples := under_way.get()) is not None:
        for _ in samples:
            pass


def one_by_one(call: Callable[[object], object], parts: list[object], threads: int) -> None:
    """Every part through a call, each of its operations on all threads."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    for part in parts:
        call(part)
    torch.set_num_threads(own)


def seconds(run: Callable[..., None], *arguments: object) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def compare(name: str, sides: dict[str, tuple[Callable[..., None], ...]], count: int, turns: int) -> dict[str, list[float]]:
    """The windows a second of each side in each turn. They are printed, and ours over each of the others, turn by turn. Ours is the last one."""
    for run in sides.values():
        seconds(*run)
    taken = [{side: seconds(*run) for side, run in sides.items()} for _ in range(turns)]
    ours = list(sides)[-1]
    print(f"\n| {name} | windows a second, median | from | to | ours over it, median | from | to |\n|---|---|---|---|---|---|---|")
    for side in sides:
        rates = [count / turn[side] for turn in taken]
        ratios = [turn[side] / turn[ours] for turn in taken]
        shown = [f"{value:.0f}" for value in (statistics.median(rates), min(rates), max(rates))]
        shown += [f"{value:.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios))]
        print(f"| {side} | {' | '.join(shown)} |")
    return {side: [round(count / turn[side]) for turn in taken] for side in sides}


def differences(waveforms: list[Tensor]) -> dict[str, str]:
    """The largest difference between ours, theirs, and theirs in float64, which has a lower floor of its own."""
    ours, theirs = spectrograms(waveforms, CONFIG), published_input(waveforms)
    floor = (np.log(torch.finfo(torch.float32).eps) - CONFIG.mean[0]) / CONFIG.std[0]
    exact = published_input([waveform.double() for waveform in waveforms]).clamp(min=floor)
    pairs = {"ours to float64": (ours, exact), "torchaudio to float64": (theirs, exact), "ours to torchaudio": (ours, theirs)}
    return {name: f"{(a - b).abs().max().item():.1e}" for name, (a, b) in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--windows", type=int, default=1536)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    threads, turns = arguments.threads, arguments.turns
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or make_sounds(Path(folder), -(-arguments.windows // WINDOWS_A_FILE))
        sounds = [published_windows(path) for path in files]
        count = sum(map(len, sounds))
        print(f"{count} windows of {len(files)} files, torch {torch.__version__}, {turns} turns")

        def ours(waveforms: list[Tensor]) -> Tensor:
            return spectrograms(waveforms, CONFIG)

        def read_file(path: Path) -> None:
            list(read_audio(path, CONFIG, AudioOptions()))

        def published_file(path: Path) -> None:
            published_input(published_windows(path))

        made = {}
        for many in dict.fromkeys((1, threads)):
            sides = {"torchaudio": (one_by_one, published_input, sounds, many)}
            if many > 1:
                sides["torchaudio, windows side by side"] = (side_by_side, published_input, sounds, many)
            name = f"windows, {many} thread{'s' * (many > 1)}"
            made[name] = compare(name, sides | {"ours": (side_by_side, ours, sounds, many)}, count, turns)
        with Processes(["audio"]) as processes:
            processes.begin(partial(read_source, face("audio"), config=CONFIG, options=face("audio").options()), threads)
            sides = {
                "soundfile and torchaudio": (one_by_one, published_file, files, threads),
                "soundfile and torchaudio, files side by side": (side_by_side, published_file, files, threads),
                "ours, in threads": (side_by_side, read_file, files, threads),
                "ours, in processes": (in_processes, processes, files),
            }
            made[f"files, {threads} cores"] = compare(f"files, {threads} cores", sides, count, turns)
        far = differences([window for sound in sounds for window in sound])
        print("\nLargest differences in the normalised input:", json.dumps(far))
    result = {"torch": torch.__version__, "windows": count, "windows_a_second": made, "differences": far}
    (Path(__file__).parent / "audio_front_end.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
