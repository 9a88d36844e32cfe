"""Pictures with boxes around what sounds: VGG-SS (Chen et al. 2021), Flickr-SoundNet (Senocak et al. 2018), IS3 (Senocak et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from imagebind_cli.documents import entry_fault
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.clips import Segment, find_clips
from imagebind_cli.evaluation.suites.payloads import VideoFrame
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.grounding.suites.scenes import SIDE, BoxTruth, MaskTruth, Scene, SceneContents

VGGSS_SECONDS, VGGSS_FRAME = 10, 5.0  # of a clip, and where in it the annotated frame is: the 125th of 25 a second
FLICKR_SIDE = 256  # pixels of a side, in which Flickr-SoundNet has its boxes
FLICKR_AGREE = 2  # annotators


def vggss_scenes(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> SceneContents:
    """Read the rows of `vggss.json`, with frames and sounds in folders of their own, or with both from the clips of VGGSound."""
    path = tree.find("vggss.json", "metadata/vggss.json")
    rows: list[tuple[Segment, str, BoxTruth]] = []
    empty = 0
    for number, row in enumerate(_entries(tree, path), start=1):
        try:
            name, boxes = str(row["file"]), tuple(tuple(map(float, box)) for box in row["bbox"])
            segment, kind = Segment(name[:11], float(name[12:]), float(name[12:]) + VGGSS_SECONDS), str(row["class"])
            if any(len(box) != 4 for box in boxes):
                raise ValueError("a box of not four numbers")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: entry {number}: not a file YTID_SECONDS with its class and boxes: {entry_fault(error)}") from None
        truth = BoxTruth(boxes)
        empty += not truth().any()
        if truth().any():
            rows.append((segment, kind, truth))
    segments = [segment for segment, _, _ in rows]
    notes = [f"entries without a box, left out: {empty:,}"] if empty else []
    folders = tree.has("frames") and tree.has("audio")
    if folders:
        frames, more = find_clips(tree, segments, "frames")
        sounds, others = find_clips(tree, segments, "audio")
        notes += [f"frames: {note}" for note in more] + [f"sounds: {note}" for note in others]
    else:
        sounds, more = find_clips(tree, segments, options["clips"])
        frames, notes = sounds, [*notes, *more, f"the frame at {VGGSS_FRAME:g} s of each clip"]
    scenes = [
        Scene(
            f"{segment.id}_{int(segment.start):06d}",
            str(frames[segment]) if folders else VideoFrame(frames[segment], VGGSS_FRAME),
            str(sounds[segment]),
            kind,
            truth,
        )
        for segment, kind, truth in rows
        if segment in frames and segment in sounds
    ]
    return SceneContents(scenes, notes=notes)


def flickr_scenes(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> SceneContents:
    """Read the annotated pictures: those of the test list, or all of them."""
    annotations, frames, sounds = tree.find("Annotations"), tree.find("frames"), tree.find("audio")
    listed = ["flickr_test.csv", "metadata/flickr_test.csv"]
    if any(map(tree.has, listed)):
        names = [Path(line.split(",")[0].strip()).name for line in tree.text(tree.find(*listed)).splitlines() if line.strip()]
        notes = []
    else:
        names = sorted(path.stem for path in annotations.glob("*.xml"))
        notes = ["no flickr_test.csv: every annotated picture is taken, and the published figures are of the 250 that it lists"]
    there = [name for name in names if (frames / f"{name}.jpg").exists() and (sounds / f"{name}.wav").exists()]
    if names and not there:
        raise UserError(
            f"{tree.suite}: none of its {len(names):,} pictures is in {frames} with a sound in {sounds}, as {names[0]}.jpg and .wav"
        )
    if len(there) < len(names):
        notes.append(f"{len(names) - len(there):,} of {len(names):,} pictures or their sounds are missing")
    scenes = []
    for name in there:
        truth = BoxTruth(_flickr_boxes(annotations / f"{name}.xml"), FLICKR_AGREE)
        if truth().any():
            scenes.append(Scene(name, str(frames / f"{name}.jpg"), str(sounds / f"{name}.wav"), name, truth))
    if len(scenes) < len(there):
        notes.append(f"pictures without a box, left out: {len(there) - len(scenes):,}")
    return SceneContents(scenes, notes=notes)


def _flickr_boxes(path: Path) -> tuple[tuple[float, ...], ...]:
    """Read every annotator's boxes, whose last four entries are left, top, right and bottom in pixels of 256."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
        boxes = [[float(entry.text or "") / FLICKR_SIDE for entry in list(box)[-4:]] for box in root.iter("bbox")]
        if any(len(box) != 4 for box in boxes):
            raise ValueError("a bbox of fewer than four numbers")
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise UserError(f"{path}: not an annotation of Flickr-SoundNet: {entry_fault(error)}") from None
    return tuple(map(tuple, boxes))


def is3_scenes(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> SceneContents:
    """Read the entries of `IS3_annotation.json`: each picture has two, and each of them a sound and a box or a mask."""
    path, images, sounds = tree.find("IS3_annotation.json"), tree.find("images"), tree.find("audio_wav", "audio_waw", "audio")
    masks = tree.clips("gt_segmentation") if options["truth"] == "masks" else {}
    scenes = []
    for number, row in enumerate(_entries(tree, path), start=1):
        try:
            picture, sound = Path(str(row["image"])).name, Path(str(row["audio"])).name
            box = tuple(float(edge) / SIDE for edge in row["gt_box"])
            if len(box) != 4 or not 0 <= box[0] < box[2] <= 1 or not 0 <= box[1] < box[3] <= 1:
                raise ValueError(f"gt_box {row['gt_box']} is not left, top, right, bottom in pixels of {SIDE}")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: entry {number}: not an image and audio with a gt_box: {entry_fault(error)}") from None
        stem = Path(picture).stem
        if options["truth"] == "masks" and stem not in masks:
            raise UserError(f"{tree.suite}: no mask {stem} in {tree.root / 'gt_segmentation'}")
        truth = MaskTruth(masks[stem]) if options["truth"] == "masks" else BoxTruth((box,))
        scenes.append(Scene(stem, str(images / picture), str(sounds / sound), stem.rpartition("_")[2], truth))
    tree.all_there(Path(place) for scene in scenes for place in (scene.picture, scene.query))
    return SceneContents(scenes)


def _entries(tree: Tree, path: Path) -> list[dict[str, Any]]:
    entries = tree.json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: a list of objects is needed")
    return entries
