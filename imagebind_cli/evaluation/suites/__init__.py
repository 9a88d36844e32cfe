"""The evaluation suites: each knows its dataset's layout on disk, split, class names and protocol (ImageBind, tables 1 to 4, appendices A and B).

A suite is a recipe, data in TOML, and a layout, the function that reads the dataset's own files: the one that the recipe names, which other
suites may share, or the one of the suite's name. A recipe also has the protocols of other families of models. Inputs are decoded when they
are needed, and torch is not imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.prompts import DEFAULT as DEFAULT_TEMPLATES
from imagebind_cli.evaluation.prompts import read_templates
from imagebind_cli.evaluation.suites import captioned, ego4d, esc, llvip, pictures, rooms, youtube
from imagebind_cli.evaluation.suites.recipe import (
    DEFAULT_PROTOCOL,
    Figures,
    Protocol,
    SuiteRecipe,
    chosen_options,
    read_suite_recipe,
    suite_names,
)
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


def open_suite(name: str, root: str | Path, options: Mapping[str, Any] | None = None, protocol: str | None = None) -> Suite:
    """Open a suite over a dataset's folder, read its labels and check that its files exist.

    Args:
        name: one of `suite_names()`, or a `.toml` recipe of your own. options: of the suite, by name; see its recipe.
        protocol: the family whose protocol to follow; None for that of the model that `run_suite` runs, ImageBind's until then.
    Raises:
        UserError: no such suite, option or protocol; a file, folder or column is missing; there are no items.
    """
    recipe = read_suite_recipe(name)
    if protocol is not None and protocol not in recipe.protocol_names:
        raise UsageError(f"suite {name} has no protocol {protocol!r}; it has {', '.join(recipe.protocol_names)}")
    suite = _open(name, recipe, Path(root), options or {}, protocol or DEFAULT_PROTOCOL)
    if protocol is not None:
        return suite

    def of_family(family: str) -> Suite:
        if family in recipe.protocols:
            return _open(name, recipe, Path(root), options or {}, family)
        unknown = (
            [] if family == DEFAULT_PROTOCOL else [f"{family} has no protocol of its own here; that of {DEFAULT_PROTOCOL} is followed"]
        )
        return replace(suite, notes=[*suite.notes, *unknown])

    return replace(suite, of_family=of_family)


def _open(name: str, recipe: SuiteRecipe, root: Path, options: Mapping[str, Any], family: str) -> Suite:
    protocol = recipe.protocol(family)
    layout = recipe.layout or Path(name).stem
    if layout not in LAYOUTS:
        raise UserError(f"{name}: unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    chosen = chosen_options(name, recipe, {**protocol.options, **options})
    tree = Tree(root, name, recipe.tree)
    contents = LAYOUTS[layout](tree, recipe, chosen)
    first: dict[str, LabelledItem] = {}
    for labelled in contents.items:
        first.setdefault(labelled[0].id, labelled)
    items = list(first.values())
    if not items:
        raise UserError(f"{name}: nothing to run in {root}; it takes {', '.join(recipe.tree)}")
    classes = _renamed(name, contents.classes or recipe.named_classes(chosen), protocol)
    figures = [figures for figures in protocol.figures if figures.when.items() <= chosen.items()]
    return Suite(
        name=name,
        about=recipe.about,
        modality=contents.modality or recipe.modality,
        metric=recipe.metric,
        items=lambda: iter(items),
        count=len(items),
        classes=classes,
        names_rule=str(chosen.get("names_rule", recipe.names_rule)),
        templates=_templates(protocol),
        captions=contents.captions,
        directions=protocol.directions or recipe.directions,
        weights=contents.weights,
        reading=dict(recipe.reading if protocol.reading is None else protocol.reading),
        published=dict(figures[0].values) if figures else {},
        source=figures[0].source if figures else "",
        notes=[
            *protocol.assumed,
            *contents.notes,
            *_repeated(len(contents.items) - len(items)),
            *_differences(protocol, len(items), len(classes), figures),
        ],
        options=chosen,
        files=tree.files,
        protocol=family,
        cleaned=protocol.cleaned,
    )


def _templates(protocol: Protocol) -> list[str] | None:
    """Return a protocol's templates; None for the default set as it is."""
    if protocol.templates is None and protocol.photo is None:
        return None
    named = isinstance(protocol.templates, str) or protocol.templates is None
    lines = read_templates(str(protocol.templates or DEFAULT_TEMPLATES)).lines if named else tuple(protocol.templates or ())
    return [line.replace("photo", protocol.photo or "photo") for line in lines]


def _renamed(name: str, classes: Classes, protocol: Protocol) -> Classes:
    """Return the classes with a protocol's names in place of theirs."""
    known = [label for label, _ in classes]
    unknown = next((label for label in protocol.names if label not in known), None)
    if unknown is not None:
        nearest = difflib.get_close_matches(unknown, known, 1, cutoff=0.0)[0]
        raise UserError(f"{name}: the protocol has names for {unknown!r}, which is not a class; the nearest is {nearest!r}")
    return [(label, protocol.names.get(label, names)) for label, names in classes]


def _repeated(count: int) -> list[str]:
    return [f"rows with an item that came before, left out: {count:,}"] if count else []


def _differences(protocol: Protocol, items: int, classes: int, figures: Sequence[Figures]) -> list[str]:
    """Describe how the counts of this copy differ from the paper's, and which figures are published besides the first."""
    notes = [
        f"{count:,} {what} here; the paper has {paper:,}"
        for what, count, paper in (("items", items, protocol.paper_items), ("classes", classes, protocol.paper_classes))
        if paper is not None and count != paper
    ]
    if protocol.figures and not figures:
        notes.append("no figure is published for these options")
    if any(each.model for each in figures):
        notes.append(f"published: {'; '.join(each.describe() for each in figures)}")
    return notes
