"""Pair recordings with pictures of their class (for sounds.py and motion.py), and write rows as all programs of this folder do.

No package holds sounds or movements that were recorded together with a picture. So each recording is paired with drawings of its class, drawn at
random among those that the image encoder was trained on, and rows of one class are not negatives of each other.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNSEEN_SETS = ("fxemoji", "openmoji")  # sets of drawings that no encoder is trained on

IMAGE_TEXT = ("drawings/train.jsonl", "furniture/image-text.jsonl")  # manifests of pictures and words, under WORK/data

Row = dict[str, Any]  # a line of a manifest


def pictures_by_group(work: Path) -> dict[str, list[str]]:
    """Return the image encoder's training pictures by emoji code or stamp, as paths relative to a folder beside `data/drawings`.

    Raises:
        SystemExit: the drawings are not there yet.
    """
    manifest = work / "data" / "drawings" / "train.jsonl"
    if not manifest.exists():
        raise SystemExit(f"{manifest} is not there; run drawings.py first")
    pictures: dict[str, set[str]] = defaultdict(set)
    for line in manifest.open():
        row = json.loads(line)
        pictures[row["group"]].add(f"../drawings/{row['image']}")
    return {group: sorted(images) for group, images in pictures.items()}


def pictures_of(codes: Iterable[str], by_group: Mapping[str, Sequence[str]]) -> list[str]:
    """Return all pictures of the emoji with these codes.

    Raises:
        SystemExit: there are none, because the drawings have changed or these are held out.
    """
    codes = tuple(codes)
    pictures = [image for code in codes for image in by_group.get(code, ())]
    if not pictures:
        raise SystemExit(f"no training picture of {', '.join(codes)} among the drawings")
    return pictures


def pair_with_pictures(rows: Iterable[Row], pictures: Mapping[str, Sequence[str]], modality: str, seed: str) -> list[Row]:
    """Give each row a picture of its `label`; all pictures of a class come once before one comes again."""
    numbers = np.random.default_rng(list(seed.encode()))
    waiting: dict[str, list[str]] = defaultdict(list)
    pairs = []
    for row in rows:
        label = row["label"]
        if not waiting[label]:
            waiting[label] = list(numbers.permutation(np.array(pictures[label])))
        image = str(waiting[label].pop())
        pairs.append({"id": f"{row[modality]} {image}", "image": image, "group": label, **row})
    return pairs


def shuffle_pictures(rows: Sequence[Row], recording: str, seed: str) -> list[Row]:
    """Give each recording another one's pictures: a control from which nothing can be learnt.

    recording: the key that rows of one recording share. Pictures, with label and group, are dealt out to whole recordings; shuffling
    classes instead would leave the sounds of one class together, which could be learnt.
    """
    labels = {row[recording]: (row["label"], row["group"]) for row in rows}
    images: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        images[row["label"]].append(row["image"])
    numbers = np.random.default_rng(list(seed.encode()))
    dealt = dict(zip(labels, numbers.permutation(len(labels)), strict=True))
    all_labels = list(labels.values())
    pairs = []
    for row in rows:
        label, group = all_labels[dealt[row[recording]]]
        image = str(numbers.choice(images[label]))
        recording_fields = {key: value for key, value in row.items() if key not in ("id", "image", "group", "label")}
        pairs.append({"id": f"{row['id']} shuffled", "image": image, "group": group, "label": label, **recording_fields})
    return pairs


def ceiling_rows(work: Path, codes: Mapping[str, Sequence[str]], folder: Path) -> list[Row]:
    """Make test rows of the classes' drawings in the unseen sets: recordings bound to pictures can hardly do better than these."""
    rows = []
    for name in UNSEEN_SETS:
        for label, label_codes in sorted(codes.items()):
            for code in label_codes:
                image = work / "data" / "drawings" / name / f"{code}.png"
                if image.exists():
                    rows.append({"id": f"{name}/{code}", "image": os.path.relpath(image, folder), "label": label, "source": name})
    return rows


def stamp_sentence(path: Path) -> str:
    """Return the sentence that describes a Tux Paint stamp, from the text file beside its picture and sound."""
    return path.read_text(errors="replace").split("\n")[0].strip().rstrip(".")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines; the file appears only once it is complete."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    part.rename(path)
