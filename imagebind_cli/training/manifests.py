"""Manifests for the recipes' datasets, from the trees in which their authors give them out.

    python -m imagebind_cli.training.manifests sunrgbd SUN-RGBD -o sunrgbd.jsonl --split train

A line a pair: `id`, a path for each modality from the manifest's folder, and where it is known `label`, `group`, and the seconds `start` and
`end` of a long recording. What the tree lacks is said. The splits are those of the evaluation suites (ImageBind appendix A).
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

Row = dict[str, Any]
"""Paths are `Path`s, sentences and the rest are not."""

AUDIOSET = {"train": "unbalanced_train_segments.csv", "balanced": "balanced_train_segments.csv", "test": "eval_segments.csv"}
CLOTHO = {"train": "development", "val": "validation", "test": "evaluation"}


def audioset(root: Path, split: str) -> Iterator[Row]:
    """Clips with their sound, which are one file; where `frames` has a picture of a clip, the column `image`."""
    tree = Tree(root, "audioset", [AUDIOSET[split], "clips with YTID_START.mp4 or YTID.mp4, anywhere below"])
    rows = tree.rows(tree.find(AUDIOSET[split]), ["id", "start", "end", "labels"], header=False, comment="#")
    segments = [Segment(row["id"], number(place, "start", row["start"]), number(place, "end", row["end"])) for place, row in rows]
    tree.find("clips")
    files, notes = find_clips(tree, segments, "clips")
    frames, frame_notes = find_clips(tree, segments, "frames") if tree.has("frames") else ({}, [])
    say(*notes, *(f"frames: {note}" for note in frame_notes))
    for segment, path in files.items():
        yield {"id": str(segment), "video": path, "audio": path, **({"image": frames[segment]} if segment in frames else {})}


def sunrgbd(root: Path, split: str) -> Iterator[Row]:
    """Pictures with their in-filled depth, and the scene as label."""
    tree = Tree(root, "sunrgbd", ["SUNRGBD", "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"])
    samples, names = sun_samples(tree, split)
    for name in names:
        pictures, maps = (
            sorted((samples / name / folder).glob(f"*.{ending}")) for folder, ending in (("image", "jpg"), ("depth_bfx", "png"))
        )
        if not pictures or not maps:
            raise UserError(f"sunrgbd: no image/*.jpg or no depth_bfx/*.png in {samples / name}")
        scene = (samples / name / "scene.txt").read_text(errors="replace").strip()
        yield {"id": name, "image": pictures[0], "depth": maps[0], "label": scene.replace("_", " ")}


def llvip(root: Path, split: str) -> Iterator[Row]:
    """Pictures by visible and by infrared light, taken through one lens."""
    tree = Tree(root, "llvip", [f"visible/{split}", f"infrared/{split}"])
    pictures = sorted(tree.find(f"visible/{split}").glob("*.jpg"))
    thermal = tree.find(f"infrared/{split}")
    tree.all_there(thermal / picture.name for picture in pictures)
    for picture in pictures:
        yield {"id": f"{split}/{picture.stem}", "image": picture, "thermal": thermal / picture.name}


def ego4d(root: Path, split: str) -> Iterator[Row]:
    """Five seconds around each narration, of a video and its motion sensor."""
    suite = open_suite("ego4d", root, {"split": split})
    tree = Tree(root, "ego4d", ["v2/full_scale, v2/video_540ss or v2/clips"])
    videos = tree.find("v2/full_scale", "v2/video_540ss", "v2/clips", "full_scale", "clips")
    gone = 0
    for item, truth, _ in suite.items():
        recording, centre = item.payload.path, item.payload.centre
        video = videos / f"{recording.stem}.mp4"
        if not video.exists():
            gone += 1
            continue
        if recording.with_suffix(".h5").exists():  # the same, and read without being parsed
            recording = recording.with_suffix(".h5")
        start = max(0.0, centre - CLIP_SECONDS / 2)
        label = suite.classes[truth[0]][0]
        yield {"id": item.id, "video": video, "imu": recording, "start": start, "end": start + CLIP_SECONDS, "label": label}
    if gone:
        say(f"{gone:,} of {suite.count:,} clips are of videos that are not in {videos}")


def clotho(root: Path, split: str) -> Iterator[Row]:
    """Captions with the sound they describe: five of each, which are one group."""
    tree = Tree(root, "clotho", [f"clotho_captions_{CLOTHO[split]}.csv", CLOTHO[split]])
    folder = tree.find(CLOTHO[split])
    for _, row in tree.rows(tree.find(f"clotho_captions_{CLOTHO[split]}.csv"), ["file_name"]):
        name = row["file_name"]
        sound = next((path for path in (folder / name, folder / name.replace(" ", "_")) if path.exists()), None)
        if sound is None:
            raise UserError(f"clotho: no {name} in {folder}")
        for column, caption in row.items():
            if column and column.startswith("caption_") and caption:
                yield {"id": f"{name}#{column.removeprefix('caption_')}", "text": caption, "audio": sound, "group": name}


DATASETS: dict[str, tuple[Callable[[Path, str], Iterator[Row]], tuple[str, ...]]] = {
    "audioset": (audioset, tuple(AUDIOSET)),
    "sunrgbd": (sunrgbd, ("train", "test")),
    "llvip": (llvip, ("train", "test")),
    "ego4d": (ego4d, ("train", "test")),
    "clotho": (clotho, tuple(CLOTHO)),
}
"""What reads each dataset, and its splits."""


def write(rows: Iterator[Row], out: Path) -> int:
    """A manifest, all at once or not at all; how many rows it has."""
    lines = []
    for row in rows:
        plain = {key: os.path.relpath(value, out.parent) if isinstance(value, Path) else value for key, value in row.items()}
        lines.append(json.dumps(plain) + "\n")
    write_text(out, "".join(lines))
    return len(lines)


def say(*lines: str) -> None:
    """To stderr."""
    for line in lines:
        sys.stderr.write(f"{line}\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m imagebind_cli.training.manifests", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("root", type=Path, help="the folder it was unpacked into")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--split", default="train", help="train, or test; see docs/recipes")
    given = parser.parse_args()
    read, splits = DATASETS[given.dataset]
    if given.split not in splits:
        parser.error(f"{given.dataset} has no split {given.split!r}; choose from {', '.join(splits)}")
    try:
        count = write(read(given.root, given.split), given.output)
    except (UserError, OSError) as error:
        sys.exit(f"{given.dataset}: {error}" if isinstance(error, OSError) else str(error))
    say(f"{given.output}: {count:,} pairs")


if __name__ == "__main__":
    main()
