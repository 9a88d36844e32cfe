"""Gather what the mask network learns from and is tested with: recordings, notes, and the vectors of everything that asks for them.

    python recipes/separate/prepare.py WORK HELD_OUT [FOLDER]

WORK is the folder of `recipes/mini/mini.sh`, after its steps `fetch` and `prepare` with MINI_ESC10. HELD_OUT is the fold of ESC-10 to test with: a
number from 1 to 4. Writes FOLDER/data.safetensors, WORK/separate-HELD_OUT if it is not given.

Vectors are of `mini`, those of sounds of WORK/runs/audio-without-esc10-HELD_OUT-0 where `mini.sh audio` has made it: `mini` has heard all folds.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from network import RATE, read_tensor_file
from scipy.signal import resample_poly
from torch import Tensor

import imagebind_cli as ib
from imagebind_cli.weights.tensor_files import write_tensors

SECONDS = 5  # of every recording of ESC-10; notes are shorter, and silent at their end
SAMPLES = SECONDS * RATE
NOTES = 24  # training clips of each instrument
TEMPLATES = ("{}", "a {}", "a picture of {}", "the sound of {}")
# How a user may ask for the classes in other words. Only tests ask so.
OTHER_WORDS = {
    "chainsaw": "sawing wood with a motor saw", "clock tick": "a ticking clock", "crackling fire": "a fire burns", "crying baby": "a baby cries",
    "dog": "a dog barking", "helicopter": "a helicopter flying", "rain": "it is raining", "rooster": "a cock crows",
    "sea waves": "the waves of the ocean", "sneezing": "someone sneezes",
}  # fmt: skip


@dataclass(frozen=True)
class Vectors:
    """Unit vectors (n, d) that ask for things, and the label of each."""

    values: np.ndarray
    labels: tuple[str, ...]

    def of(self, label: str) -> np.ndarray:
        """Return the vectors of a label, (m, d)."""
        return self.values[[each == label for each in self.labels]]


@dataclass(frozen=True)
class Sounds:
    """Waveforms (n, s) at most 1 in size, their labels, the recording that each is cut from, its source, and its vector."""

    waves: Tensor
    labels: tuple[str, ...]
    recordings: tuple[str, ...]
    sources: tuple[str, ...]
    vectors: np.ndarray

    def where(self, label: str | None = None, source: str | None = None) -> list[int]:
        """Return the numbers of the sounds with a label, of a source."""
        pairs = enumerate(zip(self.labels, self.sources, strict=True))
        return [number for number, (one, other) in pairs if label in (None, one) and source in (None, other)]


@dataclass(frozen=True)
class Data:
    """The contents of `data.safetensors`. asking: vectors by kind: `text`, `image`, and for tests `other text` and `unseen image`."""

    train: Sounds
    test: Sounds
    asking: dict[str, Vectors]
    about: dict[str, Any]


def read_wave(path: Path) -> np.ndarray:
    """Read a sound file as `SAMPLES` samples at `RATE`, cut or padded with silence."""
    sound, rate = soundfile.read(path, always_2d=True)
    wave = resample_poly(sound.mean(axis=1), RATE, rate)[:SAMPLES]
    return np.pad(wave, (0, SAMPLES - len(wave)))


def read_rows(manifest: Path) -> list[dict[str, str]]:
    """Read a manifest of mini's data. Exit with what to run where it is not there."""
    if not manifest.exists():
        sys.exit(f"prepare: {manifest}: no such file; run recipes/mini/mini.sh fetch prepare with MINI_ESC10 first")
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def recording(row: dict[str, str]) -> str:
    """Return what clips cut from one recording share: ESC-10 names them FOLD-RECORDING-TAKE."""
    stem = Path(row["audio"]).stem
    return stem.rpartition("-")[0] if row["source"] == "ESC-10" else stem


def sounds(rows: Sequence[dict[str, str]], folder: Path, model: ib.Model) -> Sounds:
    """Read the sounds of rows and embed them."""
    paths = [folder / row["audio"] for row in rows]
    waves = torch.from_numpy(np.stack([read_wave(path) for path in paths]).clip(-1, 1).astype(np.float32))
    columns = ((row["label"], recording(row), row["source"]) for row in rows)
    labels, recordings, sources = zip(*columns, strict=True)
    return Sounds(waves, labels, recordings, sources, model.embed("audio", paths))


def first_of_each(rows: Iterable[dict[str, str]], count: int) -> list[dict[str, str]]:
    """Return the first `count` rows of each label."""
    taken: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if len(taken[row["label"]]) < count:
            taken[row["label"]].append(row)
    return [row for of_label in taken.values() for row in of_label]


def pictures(rows: Iterable[dict[str, str]], folder: Path, model: ib.Model) -> Vectors:
    """Embed the pictures of rows, each once."""
    labels = {row["image"]: row["label"] for row in rows}
    return Vectors(model.embed("image", [folder / image for image in labels]), tuple(labels.values()))


def sentences(texts: Iterable[tuple[str, str]], model: ib.Model) -> Vectors:
    """Embed sentences, given with their labels."""
    labels, lines = zip(*texts, strict=True)
    return Vectors(model.embed("text", list(lines)), labels)


def gather(work: Path, held_out: int) -> Data:
    """Read and embed everything from mini's folder."""
    manifests = work / "data" / "sounds"
    folds = [int(path.stem[-1]) for path in sorted(manifests.glob("test-esc10-?.jsonl"))]
    if held_out not in folds:
        sys.exit(f"prepare: fold {held_out} is not among the folds in {manifests}: {', '.join(map(str, folds)) or 'none'}")
    run = work / "runs" / f"audio-without-esc10-{held_out}-0"
    heard = not run.exists()
    if heard:
        print(f"prepare: {run} is not there, so sounds are embedded by mini, which has heard the held-out fold", file=sys.stderr)
    model = ib.load("mini", device="cpu")
    listener = model if heard else ib.load(run, device="cpu")
    training = [row for fold in folds if fold != held_out for row in read_rows(manifests / f"test-esc10-{fold}.jsonl")]
    training += first_of_each(read_rows(manifests / "instruments.jsonl"), NOTES)
    test = read_rows(manifests / f"test-esc10-{held_out}.jsonl") + read_rows(manifests / "test-soundfont.jsonl")
    drawn = [row for fold in folds for row in read_rows(manifests / f"esc10-{fold}.jsonl")] + read_rows(manifests / "instruments.jsonl")
    labels = sorted({row["label"] for row in training})
    unseen = [row for kind in ("esc10", "instruments") for row in read_rows(manifests / f"ceiling-{kind}.jsonl")]
    asking = {
        "text": sentences([(label, template.format(label)) for label in labels for template in TEMPLATES], model),
        "other text": sentences(OTHER_WORDS.items(), model),
        "image": pictures(drawn, manifests, model),
        "unseen image": pictures(unseen, manifests, model),
    }
    about = {"held_out": held_out, "sounds_heard": heard, "model": model.name}
    return Data(sounds(training, manifests, listener), sounds(test, manifests, listener), asking, about)


def save(data: Data, path: Path) -> None:
    """Write data to a safetensors file; waveforms as 16-bit numbers."""
    tensors, about = {}, dict(data.about)
    for name, part in (("train", data.train), ("test", data.test)):
        tensors[f"{name} waves"] = (part.waves * 32767).round().to(torch.int16)
        tensors[f"{name} vectors"] = torch.from_numpy(part.vectors)
        about[name] = {"labels": part.labels, "recordings": part.recordings, "sources": part.sources}
    for kind, vectors in data.asking.items():
        tensors[kind] = torch.from_numpy(vectors.values)
    about["asking"] = {kind: vectors.labels for kind, vectors in data.asking.items()}
    write_tensors(tensors, path, about)


def load(path: Path) -> Data:
    """Read what `save` has written.

    Raises:
        UserError: the file is missing, damaged, or another file.
    """
    tensors, about = read_tensor_file(path)
    if "asking" not in about:
        raise ib.UserError(f"{path}: is not the data of this recipe; prepare.py makes it")
    parts = {
        name: Sounds(
            tensors[f"{name} waves"].float() / 32767, *map(tuple, about.pop(name).values()), vectors=tensors[f"{name} vectors"].numpy()
        )
        for name in ("train", "test")
    }
    asking = {kind: Vectors(tensors[kind].numpy(), tuple(labels)) for kind, labels in about.pop("asking").items()}
    return Data(parts["train"], parts["test"], asking, about)


def main(work: Path, held_out: int, folder: Path | None = None) -> None:
    folder = folder or work / f"separate-{held_out}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data.safetensors").exists():
        data = gather(work, held_out)
        save(data, folder / "data.safetensors")
        print(f"prepare: {len(data.train.labels)} sounds to learn from, {len(data.test.labels)} to test with", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:]))
