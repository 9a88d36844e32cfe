"""Separate what a query names from a recording: a sentence, a picture or another sound.

    python recipes/separate/separate.py MIX --text rain -o rain.wav [--network FILE]
    python recipes/separate/separate.py MIX --audio bark.wav -o dog.wav --rest rest.wav

MIX is any sound that `imagebind embed audio` reads; channels are averaged. The result has 16 kHz and is as long. A line of JSON says how far below
the mixture its level is. FILE is `network.safetensors` of train.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from network import RATE, MaskNetwork, load_network, separated
from torch import Tensor

import imagebind_cli as ib
from imagebind_cli import UserError
from imagebind_cli.errors import UsageError
from imagebind_cli.files import replacing
from imagebind_cli.media.audio.sound import Sound
from imagebind_cli.media.resampling import Resampled
from imagebind_cli.similarity import combine

NETWORK = Path("build/mini/separate-4/network.safetensors")
HALF = (
    5 * RATE // 2
)  # samples: a long recording is separated in windows of 5 seconds, as in training's tests, which fade over into each other
MODALITIES = ("text", "image", "audio")


def read_halves(sound: Sound) -> Iterator[Tensor]:
    """Yield a sound at `RATE`, its channels averaged, in parts of `HALF` samples, the last of which may be shorter."""
    resampled = Resampled(
        lambda start, stop: torch.from_numpy(sound.read(start, stop)).mean(dim=0, keepdim=True), sound.length, sound.rate, RATE
    )
    for start in range(0, resampled.length, HALF):
        yield resampled.read(start, min(start + HALF, resampled.length))[0]


def separate(network: MaskNetwork, halves: Iterator[Tensor], query: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Separate a sound by a unit vector (d,), window by window; of each two neighbours the half that they share fades over.

    Args:
        halves: waveforms of `HALF` samples; only the last may be shorter.
    Yields:
        What the query names in each half, and the half (s,).
    """

    def keep(window: Tensor) -> Tensor:
        return separated(network, window[None], torch.from_numpy(query).float()[None, None])[0, 0]

    before, fading, now = next(halves), None, None
    for now in halves:
        named = keep(torch.cat([before, now]))
        rise = torch.linspace(0, 1, HALF)
        yield named[:HALF] if fading is None else fading * (1 - rise) + named[:HALF] * rise, before
        before, fading = now, named[HALF:]
    yield keep(before) if fading is None else fading, before


def query_vector(model: ib.Model, parts: list[tuple[str, str]]) -> np.ndarray:
    """Embed the parts of a query, modality and source, and return their normalised sum (d,)."""
    vectors = np.stack([model.embed(modality, [source])[0] for modality, source in parts])
    return combine(vectors)


def run(mix: Path, parts: list[tuple[str, str]], out: Path, rest: Path | None, network_file: Path) -> dict[str, Any]:
    """Separate a file into one or two others; return what the line of JSON says.

    Raises:
        UserError: the network, a query or the recording cannot be read, or a result cannot be written.
    """
    for path in filter(None, (out, rest)):
        if path.suffix[1:].upper() not in soundfile.available_formats():
            raise UsageError(f"{path}: its name ends in no sound format that can be written; use .wav or .flac")
    if out == rest:
        raise UsageError(f"{out}: is given for both results; name two files")
    network, about = load_network(network_file)
    query = query_vector(ib.load(about["model"], device="cpu"), parts)
    if len(query) != network.shape.dim:
        raise UserError(f"{network_file}: takes vectors of {network.shape.dim} numbers; {about['model']} has {len(query)}")
    kept = total = samples = 0.0
    try:
        with ExitStack() as stack:
            sound = stack.enter_context(Sound(mix))
            for warning in sound.warnings:
                print(f"separate: {mix}: {warning}", file=sys.stderr)
            if sound.channels > 1:
                print(f"separate: {mix}: the mean of its {sound.channels} channels is separated", file=sys.stderr)
            files = [
                stack.enter_context(soundfile.SoundFile(stack.enter_context(replacing(path)), "w", RATE, 1)) if path else None
                for path in (out, rest)
            ]
            for named, half in separate(network, read_halves(sound), query):
                for file, part in zip(files, (named, half - named), strict=True):
                    if file:
                        file.write(part.clamp(-1, 1).numpy())
                kept, total, samples = kept + float(named.square().sum()), total + float(half.square().sum()), samples + len(half)
    except (OSError, ValueError, soundfile.LibsndfileError) as error:
        place, reason = (error.filename, error.strerror) if isinstance(error, OSError) and error.filename else (mix, str(error))
        raise UserError(f"{place}: {reason.removeprefix(f'{mix}: ')}") from None
    level = round(10 * float(np.log10(max(kept, 1e-10 * total) / total)), 1) if total else None
    return {"id": str(mix), "query": " + ".join(source for _, source in parts), "out": str(out), "seconds": samples / RATE, "level": level}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mix", type=Path, help="the recording")
    for modality in MODALITIES:
        parser.add_argument(f"--{modality}", action="append", default=[], help="what to separate; several are added up to one query")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the file for what the query names")
    parser.add_argument("--rest", type=Path, help="a file for all else")
    parser.add_argument("--network", type=Path, default=NETWORK, help="of train.py (default: %(default)s)")
    given = parser.parse_args()
    parts = [(modality, source) for modality in MODALITIES for source in getattr(given, modality)]
    if not parts:
        parser.error("what to separate is not given: use --text, --image or --audio")
    try:
        print(json.dumps(run(given.mix, parts, given.out, given.rest, given.network)))
    except UserError as error:
        print(f"separate: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
