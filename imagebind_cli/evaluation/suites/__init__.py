"""The evaluation suites: each knows its dataset's layout on disk, split, class names and protocol (ImageBind, tables 1 to 4, appendices A and B).

A suite is a recipe, data in TOML, and a layout, the code that reads the dataset's own files. Nothing is decoded before its turn comes, and
no torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites import captioned, ego4d, esc, llvip, pictures, rooms, youtube
from imagebind_cli.evaluation.suites.recipe import Recipe, Value, chosen_options, names, read_recipe
from imagebind_cli.evaluation.suites.suite import Caption, Classes, Contents, Labelled, Suite
from imagebind_cli.evaluation.suites.tree import Tree

__all__ = ["LAYOUTS", "Caption", "Classes", "Labelled", "Recipe", "Suite", "names", "open_suite", "read_recipe"]

Layout = Callable[[Tree, Recipe, Mapping[str, Any]], Contents]

LAYOUTS: dict[str, Layout] = {
    "audiocaps": captioned.audiocaps,
    "audioset": youtube.audioset,
    "clotho": captioned.clotho,
    "ego4d": ego4d.ego4d,
    "esc10": esc.esc10,
    "esc50": esc.esc50,
    "imagenet": pictures.imagenet,
    "kinetics400": youtube.kinetics400,
    "llvip": llvip.llvip,
    "msrvtt": captioned.msrvtt,
    "nyud": rooms.nyud,
    "places365": pictures.places365,
    "sunrgbd": rooms.sunrgbd,
    "vggsound": youtube.vggsound,
}


def open_suite(name: str, root: str | Path, options: Mapping[str, Any] | None = None) -> Suite:
    """A suite over a dataset's folder, checked: its labels are read, and its files are there.

    Args:
        name: one of `names()`, or a `.toml` recipe of one's own. options: of the suite, by name; see its recipe.
    Raises:
        UserError: no such suite or option; a file, folder or column is missing; nothing to run.
    """
    recipe = read_recipe(name)
    if recipe.layout not in LAYOUTS:
        raise UserError(f"{name}: unknown layout {recipe.layout!r}; choose from {', '.join(LAYOUTS)}")
    chosen = chosen_options(name, recipe, options or {})
    tree = Tree(Path(root), name, recipe.tree)
    found = LAYOUTS[recipe.layout](tree, recipe, chosen)
    first: dict[str, Labelled] = {}
    for labelled in found.items:
        first.setdefault(labelled[0].id, labelled)
    items = list(first.values())
    if not items:
        raise UserError(f"{name}: nothing to run in {root}; it takes {', '.join(recipe.tree)}")
    classes = found.classes or recipe.named_classes(chosen)
    figures = recipe.figures_for(chosen)
    return Suite(
        name=name,
        about=recipe.about,
        modality=found.modality or recipe.modality,
        metric=recipe.metric,
        items=lambda: iter(items),
        count=len(items),
        classes=classes,
        names_rule=str(chosen.get("names_rule", recipe.names_rule)),
        templates=recipe.templates,
        captions=found.captions,
        directions=recipe.directions,
        weights=found.weights,
        reading=dict(recipe.reading),
        published=dict(figures.values) if figures else {},
        source=figures.source if figures else "",
        notes=[
            *recipe.assumed,
            *found.notes,
            *_twice(len(found.items) - len(items)),
            *_differences(recipe, len(items), len(classes), chosen),
        ],
        options=chosen,
        files=tree.files,
    )


def _twice(count: int) -> list[str]:
    return [f"rows with an item that came before, left out: {count:,}"] if count else []


def _differences(recipe: Recipe, items: int, classes: int, options: Mapping[str, Value]) -> list[str]:
    """How this copy differs in number from the paper's, in words."""
    notes = [
        f"{count:,} {what} here; the paper has {paper:,}"
        for what, count, paper in (("items", items, recipe.paper_items), ("classes", classes, recipe.paper_classes))
        if paper is not None and count != paper
    ]
    if recipe.figures and recipe.figures_for(options) is None:
        notes.append("no figure is published for these options")
    return notes
