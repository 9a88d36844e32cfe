"""Published evaluations of localisation and of moments: recipes as those of `evaluation.suites`, and the layouts of their datasets.

scenes.py          what a suite of localisation holds, and truths as maps
sounding.py        VGG-SS, Flickr-SoundNet, IS3
outlined.py        AVSBench, ImageNet-Segmentation
annotated.py       what a suite of moments holds; QVHighlights, Charades-STA, CASTELLA, UnAV-100, AVE
scene_queries.py   what is asked in each scene, and the wrong queries beside it
scene_scores.py    what a heat map scores, by the suite's metric
run_scenes.py      `run_location_suite`
run_moments.py     `run_moment_suite`

Opening a suite imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imagebind_cli.evaluation.suites.opening import Opening, open_recipe, recipe_of_command
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.grounding.suites import annotated, outlined, sounding
from imagebind_cli.grounding.suites.annotated import MomentContents, MomentSuite
from imagebind_cli.grounding.suites.scenes import LocationSuite, SceneContents

T = TypeVar("T")

LOCATION_LAYOUTS: dict[str, Callable[[Tree, SuiteRecipe, Mapping[str, Any]], SceneContents]] = {
    "avsbench": outlined.avsbench_scenes,
    "flickr-soundnet": sounding.flickr_scenes,
    "imagenet-seg": outlined.imagenet_seg_scenes,
    "is3": sounding.is3_scenes,
    "vggss": sounding.vggss_scenes,
}
MOMENT_LAYOUTS: dict[str, Callable[[Tree, SuiteRecipe, Mapping[str, Any]], MomentContents]] = {
    "ave": annotated.ave_moments,
    "castella": annotated.castella_moments,
    "charades": annotated.charades_moments,
    "qvhighlights": annotated.qvhighlights_moments,
    "unav100": annotated.unav100_moments,
}


def open_location_suite(name: str, root: str | Path, options: Mapping[str, Any] | None = None, limit: int | None = None) -> LocationSuite:
    """Open a suite of localisation over a dataset's folder, read its annotations and check that its files exist.

    Args:
        name: one of `suite_names("locate")`, or a `.toml` recipe of your own. options: of the suite, by name; see its recipe.
        limit: take only so many scenes, the first.
    Raises:
        UserError: no such suite or option; a file or folder is missing; there are no scenes.
    """
    opening = _open(name, root, options, "locate")
    recipe, contents = opening.recipe, opening.layout(LOCATION_LAYOUTS)(opening.tree, opening.recipe, opening.options)
    scenes = opening.once(contents.scenes, lambda scene: scene.id)
    kept, notes = _first(scenes, limit)
    notes = [*contents.notes, *opening.repeated(len(contents.scenes) - len(scenes)), *notes]
    return LocationSuite(
        **_about(opening, len(scenes), len(contents.classes), notes),
        metric=recipe.metric,
        modality=recipe.modality,
        scenes=kept,
        classes=contents.classes,
        reading=dict(recipe.reading),
    )


def open_moment_suite(name: str, root: str | Path, options: Mapping[str, Any] | None = None, limit: int | None = None) -> MomentSuite:
    """Open a suite of moments over a dataset's folder, read its annotations and find its recordings.

    Args:
        name: one of `suite_names("moments")`, or a `.toml` recipe of your own. options: of the suite, by name; see its recipe.
        limit: take only so many queries, the first, and their recordings.
    Raises:
        UserError: no such suite or option; a file or folder is missing; there are no queries.
    """
    opening = _open(name, root, options, "moments")
    contents = opening.layout(MOMENT_LAYOUTS)(opening.tree, opening.recipe, opening.options)
    truths = opening.once(contents.truths, lambda truth: truth.qid)
    kept, notes = _first(truths, limit)
    notes = [*contents.notes, *opening.repeated(len(contents.truths) - len(truths)), *notes]
    asked = dict.fromkeys(truth.vid for truth in kept)
    return MomentSuite(
        **_about(opening, len(truths), 0, notes),
        modality=contents.modality or opening.recipe.modality,
        truths=kept,
        recordings={vid: contents.recordings[vid] for vid in asked},
        reading=dict(opening.recipe.reading),
    )


def _open(name: str, root: str | Path, options: Mapping[str, Any] | None, command: str) -> Opening:
    return open_recipe(name, recipe_of_command(name, command), Path(root), options or {})


def _about(opening: Opening, items: int, classes: int, notes: Sequence[str]) -> dict[str, Any]:
    """Return what an opened suite says of itself; figures of other models are references, which no score is printed beside."""
    references = [{"model": each.model, "values": each.values, "source": each.source} for each in opening.figures if each.model]
    about = opening.about(items, classes, notes)
    return about | {"references": references} | ({"published": {}, "source": ""} if references else {})


def _first(items: list[T], limit: int | None) -> tuple[list[T], list[str]]:
    if limit is None or limit >= len(items):
        return items, []
    return items[:limit], [f"only the first {limit:,} of {len(items):,}, so that no published figure compares"]
