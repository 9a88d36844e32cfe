"""The evaluation suites: each knows its dataset's layout on disk, split, class names and protocol (ImageBind, tables 1 to 4, appendices A and B).

A suite is a recipe, data in TOML, and a layout, the function that reads the dataset's own files: the one that the recipe names, which other
suites may share, or the one of the suite's name. A recipe also has the protocols of other families of models. Inputs are decoded when they
are needed, and torch is not imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.prompts import DEFAULT as DEFAULT_TEMPLATES
from imagebind_cli.evaluation.prompts import read_templates
from imagebind_cli.evaluation.suites import captioned, ego4d, esc, llvip, pictures, rooms, youtube
from imagebind_cli.evaluation.suites.opening import open_recipe, recipe_of_command
from imagebind_cli.evaluation.suites.recipe import DEFAULT_PROTOCOL, Protocol, SuiteRecipe, read_suite_recipe, suite_names
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
        name: one of `suite_names("zeroshot")`, or a `.toml` recipe of your own. options: of the suite, by name; see its recipe.
        protocol: the family whose protocol to follow; None for that of the model that `run_suite` runs, ImageBind's until then.
    Raises:
        UserError: no such suite, option or protocol; a file, folder or column is missing; there are no items.
    """
    recipe = recipe_of_command(name, "zeroshot")
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
    opening = open_recipe(name, recipe, root, options, family)
    contents = opening.layout(LAYOUTS)(opening.tree, recipe, opening.options)
    items = opening.once(contents.items, lambda labelled: labelled[0].id)
    protocol, chosen = opening.protocol, opening.options
    classes = _renamed(name, contents.classes or recipe.named_classes(chosen), protocol)
    return Suite(
        **opening.about(len(items), len(classes), [*contents.notes, *opening.repeated(len(contents.items) - len(items))]),
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
