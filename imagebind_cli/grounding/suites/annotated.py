"""Recordings with annotated moments: QVHighlights (Lei et al. 2021), Charades-STA (Gao et al. 2017), CASTELLA (Munakata et al. 2025), UnAV-100
(Geng et al. 2023) and AVE (Tian et al. 2018).

Each file of annotations may also be in the form of Lighthouse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.documents import entry_fault
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.grounding.lighthouse import MomentTruth, read_moment_truth

Windows = list[tuple[float, float]]


@dataclass(frozen=True)
class MomentContents:
    """The contents that a layout read from a dataset's folder.

    truths: those whose recording is there. recordings: the files, by `vid`. modality: what they are read as, if not the recipe's.
    """

    truths: list[MomentTruth]
    recordings: dict[str, Path]
    modality: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MomentSuite:
    """A dataset of recordings on disk, ready to be run; other fields are those of `LocationSuite`.

    truths, recordings: as in `MomentContents`. reading: options for the recordings, with `hop`, the seconds from one window to the next.
    """

    name: str
    about: str
    modality: str
    truths: list[MomentTruth]
    recordings: dict[str, Path]
    reading: dict[str, Any]
    references: list[dict[str, Any]]
    published: dict[str, float]
    source: str
    notes: list[str]
    options: dict[str, Any]
    files: list[Path]
    protocol: str


def qvhighlights_moments(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> MomentContents:
    """Read one split; the annotations of the test split were published later than the others, in a file of another name."""
    name = "highlight_test_with_gt.jsonl" if options["split"] == "test" else f"highlight_{options['split']}_release.jsonl"
    return _contents(tree, _annotations(tree, name, f"annotations/{name}", f"data/{name}"), str(options["clips"]))


def charades_moments(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> MomentContents:
    """Read the sentences of one split, a moment each."""
    split = options["split"]
    names = [f"charades_sta_{split}.txt", f"annotations/charades_sta_{split}.txt", f"charades_sta_{split}_release.jsonl"]
    return _contents(tree, _annotations(tree, *names), str(options["clips"]))


def castella_moments(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> MomentContents:
    """Read the local captions of one split in one language, each with all of its moments."""
    split, language = options["split"], options["language"]
    names = [f"json/{language}/{split}.json", f"{language}/{split}.json", f"castella_{split}_release.jsonl"]
    path = tree.find(*names)
    if path.suffix == ".jsonl":
        return _contents(tree, _annotations(tree, *names), str(options["clips"]))
    truths = []
    try:
        for entry in tree.json(path):
            for number, moment in enumerate(entry["moments"]):
                vid, caption = str(entry["yid"]), str(moment["local_caption"])
                truths.append(_truth(f"{vid}/{number}", caption, vid, [(float(start), float(end)) for start, end in moment["timestamps"]]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a list of recordings with a yid and moments: {entry_fault(error)}") from None
    return _contents(tree, truths, str(options["clips"]))


def unav100_moments(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> MomentContents:
    """Read the events of one split: a query for each class that a video has, with all of its segments."""
    names = ["unav100_annotations.json", "annotations/unav100_annotations.json", f"unav100_{options['split']}_release.jsonl"]
    path = tree.find(*names)
    if path.suffix == ".jsonl":
        return _contents(tree, _annotations(tree, *names), str(options["clips"]), str(options["modality"]))
    events: dict[tuple[str, str], Windows] = {}
    try:
        for vid, about in tree.json(path)["database"].items():
            for event in about["annotations"] if about["subset"] == options["split"] else ():
                start, end = event["segment"]
                events.setdefault((str(vid), str(event["label"]).strip()), []).append((float(start), float(end)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a database of videos with a subset and annotations: {entry_fault(error)}") from None
    return _contents(tree, _of_events(events), str(options["clips"]), str(options["modality"]))


def ave_moments(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> MomentContents:
    """Read the lines `CATEGORY&YTID&QUALITY&START&END` of one split: a query for each category that a video has."""
    path = tree.find("Annotations.txt" if options["split"] == "all" else f"{options['split']}Set.txt")
    events: dict[tuple[str, str], Windows] = {}
    empty = 0
    for number, line in enumerate(tree.text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("Category&"):
            continue
        try:
            category, vid, _, start, end = line.strip().split("&")
            window = float(start), float(end)
        except ValueError:
            raise UserError(f"{path}:{number}: CATEGORY&YTID&QUALITY&START&END is needed; it has {line[:60]!r}") from None
        if window[0] < window[1]:
            events.setdefault((vid, category), []).append(window)
        else:
            empty += 1
    notes = [f"events without a length, left out: {empty:,}"] if empty else []
    return _contents(tree, _of_events(events), str(options["clips"]), str(options["modality"]), notes)


def _annotations(tree: Tree, *names: str) -> list[MomentTruth]:
    """Read the first of these files that exists, in Lighthouse's form or that of Charades-STA."""
    path = tree.find(*names)
    tree.files.append(path)
    return read_moment_truth(path)


def _of_events(events: Mapping[tuple[str, str], Windows]) -> list[MomentTruth]:
    return [_truth(f"{vid}/{label}", label, vid, windows) for (vid, label), windows in events.items()]


def _truth(qid: str, query: str, vid: str, windows: Sequence[tuple[float, float]]) -> MomentTruth:
    return MomentTruth(qid, query, vid, np.array(windows, float).reshape(-1, 2), np.empty((0, 0)))


def _contents(tree: Tree, truths: list[MomentTruth], folder: str, modality: str = "", notes: Iterable[str] = ()) -> MomentContents:
    """Find the recordings, which are called as their `vid`, or with a Y before it, as some downloaders name them."""
    there = tree.clips(folder)
    vids = list(dict.fromkeys(truth.vid for truth in truths))
    files = {vid: there.get(vid) or there.get(f"Y{vid}") for vid in vids}
    found = {vid: path for vid, path in files.items() if path is not None}
    if vids and not found:
        raise UserError(f"{tree.suite}: none of its {len(vids):,} recordings is below {tree.root / folder}; the first is called {vids[0]}")
    missing = [vid for vid in vids if vid not in found]
    more = [f"{len(missing):,} of {len(vids):,} recordings are missing, as {missing[0]}"] if missing else []
    return MomentContents([truth for truth in truths if truth.vid in found], found, modality, [*notes, *more])
