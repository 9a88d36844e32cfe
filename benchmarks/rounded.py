"""Rounded weights: size, cosines, and one sound from a new process whose weights are not in the page cache, at the published size.

    python -m benchmarks.rounded [--runs 5] [--work DIR]

The `.pth` made by rule is converted to each smaller type. Before every run, the kernel is told to drop the pages of all weight files
(posix_fadvise); those of Python and PyTorch stay. The forms take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.cold_start import huge_weights, measured, noise
from benchmarks.machine import machine
from imagebind_cli.number_types import convert_rounded
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.model_config import Rounding

TYPES: tuple[Rounding, ...] = ("bf16", "fp16", "int8")


def drop(place: Path) -> None:
    """Drop a file's pages, or those of all files in a folder, from the page cache."""
    for path in [place] if place.is_file() else filter(Path.is_file, place.iterdir()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-benchmark", help="14 GB are needed")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    weights, sound = huge_weights(arguments.work), noise(arguments.work)
    forms = {".pth": weights} | {dtype: arguments.work / f"huge-{dtype}" for dtype in TYPES}
    for dtype in TYPES:
        if not forms[dtype].exists():
            convert_rounded(find_checkpoint(str(weights)), forms[dtype], {"from": "rule"}, dtype)
    rows: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(arguments.runs):
        for form, place in forms.items():
            drop(place)
            command = [sys.executable, "-m", "imagebind_cli", "embed", "audio", str(sound), "--model", str(place), "--clips", "3"]
            rows[form].append(measured(command)[0])
    result: dict[str, object] = {"machine": machine("torch"), "seconds": rows, "forms": {}}
    print(f"{'':<8}{'GB':>7}{'cold s':>9}{'over .pth':>11}   lowest mean and lowest cosine of all encoders")
    for form, place in forms.items():
        size = sum(path.stat().st_size for path in ([place] if place.is_file() else filter(Path.is_file, place.iterdir())))
        median = statistics.median(rows[form])
        ratio = statistics.median(own / whole for own, whole in zip(rows[form], rows[".pth"], strict=True))
        record = {} if place.is_file() else json.loads((place / "config.json").read_text())["rounded"]["cosines"]
        lowest = [min(row[key] for row in record.values()) for key in ("mean", "lowest")] if record else []
        print(f"{form:<8}{size / 1e9:>7.2f}{median:>9.2f}{ratio:>11.2f}   {' '.join(f'{value:.6f}' for value in lowest)}")
        result["forms"] |= {form: {"bytes": size, "median seconds": median, "over .pth": ratio, "cosines": record}}  # type: ignore[operator]
    (Path(__file__).parent / "rounded.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
