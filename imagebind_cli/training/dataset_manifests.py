"""Manifests for the recipes' datasets, from the folders in which their authors distribute them.

    python -m imagebind_cli.training.dataset_manifests sunrgbd SUN-RGBD -o sunrgbd.jsonl --split train

Each line is a pair: `id`, a path for each modality relative to the manifest's folder, and where known `label`, `group`, and `start` and `end`,
the seconds of a part of a long recording. Missing files are reported. The splits are those of the evaluation suites (ImageBind appendix A).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites import open_suite
from imagebind_cli.evaluation.suites.clips import Segment, find_clips
from imagebind_cli.evaluation.suites.payloads import CLIP_SECONDS
from imagebind_cli.evaluation.suites.rooms import sun_samples
from imagebind_cli.evaluation.suites.tree import Tree, number
from imagebind_cli.files import write_text
from imagebind_cli.printable import escaped

Row = dict[str, Any]  # paths as `Path`, everything else unchanged

AUDIOSET = {"train": "unbalanced_train_segments.csv", "balanced": "balanced_train_segments.csv", "test": "eval_segments.csv"}
CLOTHO = {"train": "development", "val": "validation", "test": "evaluation"}


def audioset_rows(root: Path, split: str) -> Iterator[Row]:
    """Yield clips, each the video and the sound of a row; with `image` where the folder `frames` has a picture of the clip."""
    tree = Tree(root, "audioset", [AUDIOSET[split], "clips with YTID_START.mp4 or YTID.mp4, anywhere below"])
    rows = tree.rows(tree.find(AUDIOSET[split]), ["id", "start", "end", "labels"], header=False, comment="#")
    segments = [Segment(row["id"], number(place, "start", row["start"]), number(place, "end", row["end"])) for place, row in rows]
    tree.find("clips")
    files, notes = find_clips(tree, segments, "clips")
    frames, frame_notes = find_clips(tree, segments, "frames") if tree.has("frames") else ({}, [])
    print_lines(*notes, *(f"frames: {note}" for note in frame_notes))
    for segment, path in files.items():
        yield {"id": str(segment), "video": path, "audio": path, **({"image": frames[segment]} if segment in frames else {})}


def sunrgbd_rows(root: Path, split: str) -> Iterator[Row]:
    """Yield pictures with their in-filled depth maps, and the scene as label."""
    tree = Tree(root, "sunrgbd", ["SUNRGBD", "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"])
    samples, names = sun_samples(tree, split)
    for name in names:
        pictures, maps = (
            sorted((samples / name / folder).glob(f"*.{ending}")) for folder, ending in (("image", "jpg"), ("depth_bfx", "png"))
        )
        if not pictures or not maps:
            raise UserError(f"sunrgbd: no image/*.jpg or no depth_bfx/*.png in {samples / name}")
        scene = (samples / name / "scene.txt").read_text(encoding="utf-8", errors="replace").strip()
        yield {"id": name, "image": pictures[0], "depth": maps[0], "label": scene.replace("_", " ")}


def llvip_rows(root: Path, split: str) -> Iterator[Row]:
    """Yield pairs of visible and infrared pictures, taken through one lens."""
    tree = Tree(root, "llvip", [f"visible/{split}", f"infrared/{split}"])
    pictures = sorted(tree.find(f"visible/{split}").glob("*.jpg"))
    thermal = tree.find(f"infrared/{split}")
    tree.all_there(thermal / picture.name for picture in pictures)
    for picture in pictures:
        yield {"id": f"{split}/{picture.stem}", "image": picture, "thermal": thermal / picture.name}


def ego4d_rows(root: Path, split: str) -> Iterator[Row]:
    """Yield five seconds around each narration, of a video and its motion sensor."""
    suite = open_suite("ego4d", root, {"split": split})
    tree = Tree(root, "ego4d", ["v2/full_scale, v2/video_540ss or v2/clips"])
    videos = tree.find("v2/full_scale", "v2/video_540ss", "v2/clips", "full_scale", "clips")
    missing = 0
    for item, truth, _ in suite.items():
        recording, centre = item.payload.path, item.payload.centre
        video = videos / f"{recording.stem}.mp4"
        if not video.exists():
            missing += 1
            continue
        if recording.with_suffix(".h5").exists():  # the same, and faster to read
            recording = recording.with_suffix(".h5")
        start = max(0.0, centre - CLIP_SECONDS / 2)
        label = suite.classes[truth[0]][0]
        yield {"id": item.id, "video": video, "imu": recording, "start": start, "end": start + CLIP_SECONDS, "label": label}
    if missing:
        print_lines(f"{missing:,} of {suite.count:,} clips are of videos that are not in {videos}")


def clotho_rows(root: Path, split: str) -> Iterator[Row]:
    """Yield captions with the sound they describe; the five captions of a sound are one group."""
    tree = Tree(root, "clotho", [f"clotho_captions_{CLOTHO[split]}.csv", CLOTHO[split]])
    folder = tree.find(CLOTHO[split])
    for _, row in tree.rows(tree.find(f"clotho_captions_{CLOTHO[split]}.csv"), ["file_name"]):
        name = row["file_name"]
        places = (tree.named(folder, spelt) for spelt in (name, name.replace(" ", "_")))
        sound = next((path for path in places if path.exists()), None)
        if sound is None:
            raise UserError(f"clotho: no {name} in {folder}")
        for column, caption in row.items():
            if column and column.startswith("caption_") and caption:
                yield {"id": f"{name}#{column.removeprefix('caption_')}", "text": caption, "audio": sound, "group": name}


DATASETS: dict[str, tuple[Callable[[Path, str], Iterator[Row]], tuple[str, ...]]] = {
    "audioset": (audioset_rows, tuple(AUDIOSET)),
    "sunrgbd": (sunrgbd_rows, ("train", "test")),
    "llvip": (llvip_rows, ("train", "test")),
    "ego4d": (ego4d_rows, ("train", "test")),
    "clotho": (clotho_rows, tuple(CLOTHO)),
}  # the reader of each dataset, and its splits


def write_manifest(rows: Iterator[Row], out: Path) -> int:
    """Write a manifest atomically, and return the number of its rows."""
    lines = []
    for row in rows:
        plain = {key: os.path.relpath(value, out.parent) if isinstance(value, Path) else value for key, value in row.items()}
        lines.append(json.dumps(plain) + "\n")
    write_text(out, "".join(lines))
    return len(lines)


def print_lines(*lines: str) -> None:
    """Print lines on stderr."""
    for line in lines:
        sys.stderr.write(f"{escaped(line)}\n")


def prepare_manifest() -> None:
    """Run `python -m imagebind_cli.training.dataset_manifests`."""
    parser = argparse.ArgumentParser(
        prog="python -m imagebind_cli.training.dataset_manifests", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("root", type=Path, help="the folder it was unpacked into")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--split", default="train", help="train, or test; see docs/recipes")
    arguments = parser.parse_args()
    read, splits = DATASETS[arguments.dataset]
    if arguments.split not in splits:
        parser.error(f"{arguments.dataset} has no split {arguments.split!r}; choose from {', '.join(splits)}")
    try:
        count = write_manifest(read(arguments.root, arguments.split), arguments.output)
    except (UserError, OSError) as error:
        sys.exit(escaped(f"{arguments.dataset}: {error}" if isinstance(error, OSError) else str(error)))
    print_lines(f"{arguments.output}: {count:,} pairs")


if __name__ == "__main__":
    prepare_manifest()
