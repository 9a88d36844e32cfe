"""Ego4D (Grauman et al. 2022): what a person is doing, by five seconds of a head-worn motion sensor."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.payloads import RecordingClip
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Contents, LabelledItem
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.sources import Item

TEST_SHARE = 68_865 / (510_142 + 68_865)
PASSES = {"both": ("narration_pass_1", "narration_pass_2"), "1": ("narration_pass_1",), "2": ("narration_pass_2",)}


def ego4d_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read clips around the narrations of videos that have one scenario and a motion sensor: a random share of them, or the rest."""
    folder = tree.find("v2/imu", "v1/imu", "imu")
    scenarios = _scenarios(tree)
    narrations = tree.json(tree.find("v2/annotations/narration.json", "v1/annotations/narration.json", "narration.json"))
    if not isinstance(narrations, dict):
        raise UserError(f"{tree.files[-1]}: an object of narrations by video is needed")
    recorded = {path.stem for path in folder.glob("*.csv")}
    times = {video: _times(tree, narrations[video], options["passes"]) for video in sorted(scenarios.keys() & narrations.keys() & recorded)}
    times = {video: moments for video, moments in times.items() if moments}
    chosen = _split([(video, time) for video, moments in times.items() for time in moments], options)
    numbers = {name: number for number, name in enumerate(sorted({scenarios[video] for video in times}))}
    items: list[LabelledItem] = [
        (Item(f"{video}@{time:.3f}", RecordingClip(folder / f"{video}.csv", time)), (numbers[scenarios[video]],), None)
        for video, time in chosen
    ]
    return Contents(items, [(name, [name]) for name in numbers], notes=[f"{len(times):,} videos of one scenario; the paper has 7,485"])


def _scenarios(tree: Tree) -> dict[str, str]:
    """Return the scenario of each video that has exactly one, and a motion recording."""
    path = tree.find("ego4d.json", "v2/ego4d.json", "v1/ego4d.json")
    about = tree.json(path)
    try:
        videos = [(video["video_uid"], list(video["scenarios"]), video["has_imu"]) for video in about["videos"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: a list of videos is needed, with video_uid, scenarios and has_imu: {error}") from None
    return {uid: scenarios[0] for uid, scenarios, has_imu in videos if has_imu and len(scenarios) == 1}


def _times(tree: Tree, narrated: Any, passes: str) -> list[float]:
    """Return the times of a video's narrations in seconds, each once."""
    try:
        entries = [entry for name in PASSES[passes] for entry in narrated.get(name, {}).get("narrations", [])]
        return sorted({round(float(entry["timestamp_sec"]), 3) for entry in entries})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{tree.files[-1]}: a narration without timestamp_sec: {error}") from None


def _split(clips: list[tuple[str, float]], options: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the clips of the test share, or of the rest, in order; they are drawn by clip or by video."""
    units: list[Any] = [clip if options["split_by"] == "clips" else clip[0] for clip in clips]  # what is drawn for each clip
    pool = list(dict.fromkeys(units))
    drawn = set(Random(options["seed"]).sample(pool, round(len(pool) * TEST_SHARE)))
    return [clip for clip, unit in zip(clips, units, strict=True) if (unit in drawn) == (options["split"] == "test")]
