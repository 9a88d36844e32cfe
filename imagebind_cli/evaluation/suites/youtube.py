"""Classes of YouTube clips: AudioSet (Gemmeke et al. 2017), VGGSound (Chen et al. 2020), Kinetics-400 (Kay et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.clips import Segment, find_clips
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Classes, Contents
from imagebind_cli.evaluation.suites.tree import Tree, number
from imagebind_cli.sources import Item

VGGSOUND_SECONDS = 10  # its list has only the start

Labelling = tuple[Segment, tuple[int, ...]]  # a clip and the numbers of its classes


def audioset_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the segments of `eval_segments.csv`, each with all of its labels."""
    names = {row["mid"]: row["display_name"] for _, row in tree.rows(tree.find("class_labels_indices.csv"), ["mid", "display_name"])}
    numbers = {mid: index for index, mid in enumerate(names)}
    labelled: list[Labelling] = []
    columns = ["id", "start", "end", "labels"]
    for place, row in tree.rows(tree.find("eval_segments.csv"), columns, header=False, comment="#"):
        labels = row["labels"].split(",")
        unknown = [label for label in labels if label not in numbers]
        if unknown:
            raise UserError(f"{place}: label {unknown[0]!r} is not in class_labels_indices.csv")
        segment = Segment(row["id"], number(place, "start", row["start"]), number(place, "end", row["end"]))
        labelled.append((segment, tuple(sorted({numbers[label] for label in labels}))))
    split = options["synonyms"] == "split"
    classes = [(name, list(dict.fromkeys(part.strip() for part in name.split(","))) if split else [name]) for name in names.values()]
    return _contents(tree, labelled, classes, options["clips"])


def vggsound_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the test rows of `vggsound.csv`."""
    rows = list(tree.rows(tree.find("vggsound.csv"), ["id", "start", "label", "split"], header=False))
    numbers = _numbers([row["label"] for _, row in rows])
    labelled = []
    for place, row in rows:
        if row["split"] == "test":
            start = number(place, "start", row["start"])
            labelled.append((Segment(row["id"], start, start + VGGSOUND_SECONDS), (numbers[row["label"]],)))
    return _contents(tree, labelled, [(label, [label]) for label in numbers], options["clips"])


def kinetics400_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the rows of the validation list."""
    path = tree.find("annotations/val.csv", "val.csv", "validate.csv", "kinetics400/validate.csv")
    rows = list(tree.rows(path, ["label", "youtube_id", "time_start", "time_end"]))
    numbers = _numbers([row["label"] for _, row in rows])
    labelled = []
    for place, row in rows:
        start, end = (number(place, name, row[name]) for name in ("time_start", "time_end"))
        labelled.append((Segment(row["youtube_id"], start, end), (numbers[row["label"]],)))
    return _contents(tree, labelled, [(label, [label]) for label in numbers], options["clips"])


def _numbers(labels: Sequence[str]) -> dict[str, int]:
    """Number the labels in alphabetical order."""
    return {label: index for index, label in enumerate(sorted(set(labels)))}


def _contents(tree: Tree, labelled: Sequence[Labelling], classes: Classes, folder: str) -> Contents:
    files, notes = find_clips(tree, [segment for segment, _ in labelled], folder)
    items = [(Item(str(segment), str(files[segment])), truth, None) for segment, truth in labelled if segment in files]
    return Contents(list(items), classes, notes=notes)
