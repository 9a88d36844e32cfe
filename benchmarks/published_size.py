"""Every input by the command line on weights of the published size, made by rule: `embed` of all seven, `retrieve --text`, `zeroshot`.

    python -m benchmarks.published_size [--work build/huge]

`make huge` runs it before a release. The 4.8 GB `.pth` is written once; a folder converted from it is removed in the end. Fails if a command
does, if a vector is not of length 1, or if `.pth` and folder differ in a vector or a fingerprint. Prints seconds and peak memory of each
command; the file is mapped, so that peaks contain those of its pages that were read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from benchmarks.cold_start import huge_weights, measured
from benchmarks.machine import machine
from imagebind_cli.demo import SAMPLES

INPUTS = {
    "image": SAMPLES / "image" / "house.png",
    "video": SAMPLES / "video" / "walk-in-the-rain.mp4",
    "text": "a dog barking",
    "audio": SAMPLES / "audio" / "guitar.mp3",
    "depth": SAMPLES / "depth" / "chair.png",
    "thermal": SAMPLES / "thermal" / "cat.png",
    "imu": SAMPLES / "imu" / "walking.csv",
}


def run(*arguments: object) -> list[dict[str, object]]:
    """The rows that `imagebind` prints; its time and memory are printed here."""
    words = [str(argument) for argument in arguments]
    seconds, gigabytes, printed = measured([sys.executable, "-m", "imagebind_cli", *words])
    shown = " ".join(Path(word).name if "/" in word else f"'{word}'" if " " in word else word for word in words)
    print(f"| `imagebind {shown}` | {seconds:.1f} | {gigabytes:.2f} |", flush=True)
    return [json.loads(line) for line in printed.splitlines()]


def check_embeddings(model: Path) -> dict[str, list[float]]:
    """A unit vector of every input."""
    vectors = {}
    for modality, given in INPUTS.items():
        (row,) = run("embed", modality, given, "--model", model)
        vectors[modality] = row["embedding"]
        assert len(vectors[modality]) == 1024, modality
        assert abs(np.linalg.norm(vectors[modality]) - 1) < 1e-5, modality
    return vectors


def fingerprints(model: Path) -> dict[str, str]:
    """Of each encoder, as `weights info` has it."""
    (about,) = run("weights", "info", model, "--json")
    return {name: encoder["fingerprint"] for name, encoder in about["encoders"].items()}


def check_commands(model: Path, work: Path) -> None:
    """A store, gone on with; a search by a sentence; classification by names."""
    for store in work.glob("*.h5"):
        store.unlink()
    for modality in ("image", "audio"):
        run("embed", modality, SAMPLES / modality, "-o", work / f"{modality}.h5", "--model", model)
    run("embed", "image", SAMPLES / "image", "-o", work / "image.h5", "--model", model)
    hits = run("retrieve", work / "image.h5", work / "audio.h5", "--text", "rain", "-k", "3", "--model", model)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    classified = run("zeroshot", "audio", SAMPLES / "audio", "--labels", "guitar,rain,baby,dog", "--model", model)
    assert len(classified) == len(list((SAMPLES / "audio").iterdir()))
    (again,) = run("zeroshot", "image", work / "image.h5", "--labels", "a house,a tree", "-k", "1", "--model", model)[:1]
    assert 0 <= again["top"][0]["probability"] <= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build") / "huge", help="10 GB are needed")
    work = parser.parse_args().work
    weights, folder = huge_weights(work), work / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{machine('torch')}\n\n| command | seconds | peak GB |\n|---|---|---|")
    vectors, prints = check_embeddings(weights), fingerprints(weights)
    check_commands(weights, work)
    measured([sys.executable, "-m", "imagebind_cli", "weights", "convert", str(weights), str(folder)])
    try:
        assert fingerprints(folder) == prints
        again = check_embeddings(folder)
        apart = max(float(np.abs(np.subtract(again[modality], vectors[modality])).max()) for modality in INPUTS)
        assert apart < 1e-6  # not to the bit: a sum's order depends on where the file puts a tensor in memory
    finally:
        shutil.rmtree(folder)
    print(f"\nfingerprints of {weights.name} and of the converted folder are equal, vectors within {apart:.1e}: {prints}")


if __name__ == "__main__":
    main()
