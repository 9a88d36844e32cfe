"""The evaluation suites: each knows its dataset's layout on disk, split, class names and protocol (ImageBind, tables 1 to 4, appendices A and B).

A suite is a recipe, data in TOML, and a layout, the function that reads the dataset's own files: the one that the recipe names, which other
suites may share, or the one of the suite's name. Inputs are decoded when they are needed, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites import captioned, ego4d, esc, llvip, pictures, rooms, youtube
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe, Value, chosen_options, read_suite_recipe, suite_names
from imagebind_cli.evaluation.suites.suite import Caption, Classes, Contents, LabelledItem, Suite
from imagebind_cli.evaluation.suites.tree import Tree

__all__ = ["LAYOUTS", "Caption", "Classes", "LabelledItem", "Suite", "SuiteRecipe", "open_suite", "read_suite_recipe", "suite_names"]

Layout = Callable[[Tree, SuiteRecipe, Mapping[str, Any]], Contents]

LAYOUTS: dict[str, Layout] = {
    "audiocaps": captioned.audiocaps_contents,
    "audioset": youtube.audioset_contents,
    "clotho": captioned.clotho_contents,
    "ego4d": ego4d.ego4d_contents,
    "esc10": esc.esc10_contents,
    "esc50": esc.esc50_contents,
    "imagenet": pictures.imagenet_contents,
    "kinetics400": youtube.kinetics400_contents,
    "llvip": llvip.llvip_contents,
    "msrvtt": captioned.msrvtt_contents,
    "nyud": rooms.nyud_contents,
    "places365": pictures.places365_contents,
    "sunrgbd": rooms.sunrgbd_contents,
    "vggsound": youtube.vggsound_contents,
}


def open_suite(name: str, root: str | Path, options: Mapping[str, Any] | None = None) -> Suite:
    """Open a suite over a dataset's folder, read its labels and check that its files exist.

    Args:
        name: one of `suite_names()`, or a `.toml` recipe of your own. options: of the suite, by name; see its recipe.
    Raises:
        UserError: no such suite or option; a file, folder or column is missing; there are no items.
    """
    recipe = read_suite_recipe(name)
    layout = recipe.layout or Path(name).stem
    if layout not in LAYOUTS:
        raise UserError(f"{name}: unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    chosen = chosen_options(name, recipe, options or {})
    tree = Tree(Path(root), name, recipe.tree)
    contents = LAYOUTS[layout](tree, recipe, chosen)
    first: dict[str, LabelledItem] = {}
    for labelled in contents.items:
        first.setdefault(labelled[0].id, labelled)
    items = list(first.values())
    if not items:
        raise UserError(f"{name}: nothing to run in {root}; it takes {', '.join(recipe.tree)}")
    classes = contents.classes or recipe.named_classes(chosen)
    figures = recipe.figures_for(chosen)
    return Suite(
        name=name,
        about=recipe.about,
        modality=contents.modality or recipe.modality,
        metric=recipe.metric,
        items=lambda: iter(items),
        count=len(items),
        classes=classes,
        names_rule=str(chosen.get("names_rule", recipe.names_rule)),
        templates=recipe.templates,
        captions=contents.captions,
        directions=recipe.directions,
        weights=contents.weights,
        reading=dict(recipe.reading),
        published=dict(figures.values) if figures else {},
        source=figures.source if figures else "",
        notes=[
            *recipe.assumed,
            *contents.notes,
            *_repeated(len(contents.items) - len(items)),
            *_differences(recipe, len(items), len(classes), chosen),
        ],
        options=chosen,
        files=tree.files,
    )


def _repeated(count: int) -> list[str]:
    return [f"rows with an item that came before, left out: {count:,}"] if count else []


def _differences(recipe: SuiteRecipe, items: int, classes: int, options: Mapping[str, Value]) -> list[str]:
    """Describe how the counts of this copy differ from the paper's."""
    notes = [
        f"{count:,} {what} here; the paper has {paper:,}"
        for what, count, paper in (("items", items, recipe.paper_items), ("classes", classes, recipe.paper_classes))
        if paper is not None and count != paper
    ]
    if recipe.figures and recipe.figures_for(options) is None:
        notes.append("no figure is published for these options")
    return notes
