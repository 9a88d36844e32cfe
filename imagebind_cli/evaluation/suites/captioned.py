"""Captions that search for their clip: Clotho (Drossos et al. 2020), AudioCaps (Kim et al. 2019), MSR-VTT 1k-A (Xu et al. 2016, Yu et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.evaluation.suites.clips import Segment, find_clips
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Caption, Contents, LabelledItem
from imagebind_cli.evaluation.suites.tree import Tree, number
from imagebind_cli.sources import Item

CLOTHO_CAPTIONS = [f"caption_{n}" for n in range(1, 6)]
AUDIOCAPS_SECONDS = 10
MSRVTT_WEIGHTS = {"video": 0.95, "audio": 0.05}


def clotho_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the clips of the evaluation split, each with five captions."""
    folder = tree.find("evaluation", "clotho_audio_evaluation/evaluation", "clotho_audio_evaluation")
    items: list[LabelledItem] = []
    captions: list[Caption] = []
    for _, row in tree.rows(tree.find("clotho_captions_evaluation.csv"), ["file_name", *CLOTHO_CAPTIONS]):
        id = row["file_name"]
        plain = tree.named(folder, id.replace(" ", "_"))  # some copies have no spaces in file names
        items.append((Item(id, str(plain if plain.exists() else folder / id)), (), None))
        captions += [(f"{id}#{n}", row[column], id) for n, column in enumerate(CLOTHO_CAPTIONS, start=1)]
    tree.all_there(Path(item.payload) for item, _, _ in items)
    return Contents(items, captions=captions)


def audiocaps_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the clips of the test split, each with five captions, from the retrieval benchmark's list where it exists, else from AudioCaps'."""
    table = tree.find(*([options["list"]] if options["list"] else ["retrieval_test.csv", "test.csv"]))
    texts: dict[Segment, list[str]] = {}
    for place, row in tree.rows(table, ["youtube_id", "start_time", "caption"]):
        start = number(place, "start_time", row["start_time"])
        texts.setdefault(Segment(row["youtube_id"], start, start + AUDIOCAPS_SECONDS), []).append(row["caption"])
    files, notes = find_clips(tree, list(texts), options["clips"])
    items: list[LabelledItem] = [(Item(str(segment), str(path)), (), None) for segment, path in files.items()]
    captions = [(f"{segment}#{n}", text, str(segment)) for segment in files for n, text in enumerate(texts[segment], start=1)]
    return Contents(items, captions=captions, notes=[f"captions of {table.name}", *notes])


def msrvtt_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the 1,000 videos of the 1k-A list, each with one caption."""
    rows = [row for _, row in tree.rows(tree.find("MSRVTT_JSFUSION_test.csv", "msrvtt_test.csv"), ["video_id", "sentence"])]
    files = tree.clips(options["clips"])
    folder = tree.root / options["clips"]
    paths = {row["video_id"]: files.get(row["video_id"]) or tree.named(folder, f"{row['video_id']}.mp4") for row in rows}
    tree.all_there(paths.values())
    captions = [(f"{row['video_id']}#1", row["sentence"], row["video_id"]) for row in rows]
    if options["modalities"] == "video+audio":
        both: list[LabelledItem] = [(Item(id, dict.fromkeys(MSRVTT_WEIGHTS, str(path))), (), None) for id, path in paths.items()]
        return Contents(both, captions=captions, weights=dict(MSRVTT_WEIGHTS))
    one: list[LabelledItem] = [(Item(id, str(path)), (), None) for id, path in paths.items()]
    return Contents(one, captions=captions, modality=options["modalities"])
