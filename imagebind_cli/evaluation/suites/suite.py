"""What an evaluation suite is: a dataset's inputs with their truth, the names to tell apart, and how the result is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagebind_cli.sources import Item

Labelled = tuple[Item, tuple[int, ...], str | None]
"""An item; the numbers of its classes, none in a retrieval suite; and the fold it belongs to, where there are folds."""

Classes = list[tuple[str, list[str]]]
"""For each class what it is called, and the names that stand for it in prompts."""

Caption = tuple[str, str, str]
"""A caption's id, its text, and the id of the item it describes."""


@dataclass(frozen=True)
class Suite:
    """A dataset on disk, ready to be run.

    name, about: of its recipe. modality: what every item is; where `weights` is not empty, an item's payload is a dict by modality, and
    its vector the weighted sum of theirs, each of length 1, made a unit vector again. reading: options for the modality's reader.
    classes, names_rule: see `Classes`; whether a class scores by the `max` or the `mean` of its names. templates: None for the default set.
    items: gives them in order, as often as it is called. A payload may be a function that reads it when its turn comes. count: how many.
    captions, directions: of a retrieval suite: `text->audio` has the captions as queries.
    metric: `top1` (the mean over folds where there are any), `map` (several classes an item) or `recall`.
    published: figures in percent, by metric (`top1`, `map`, `R@1`), and `source`, where they stand; empty where none is published.
    notes: in words: what was assumed, what the paper leaves open (NOT STATED), how this copy differs from the paper's.
    options: every option of the suite with its value. files: those that the labels were read from.
    """

    name: str
    about: str
    modality: str
    metric: str
    items: Callable[[], Iterator[Labelled]]
    count: int
    classes: Classes = field(default_factory=list)
    names_rule: str = "max"
    templates: list[str] | None = None
    captions: list[Caption] = field(default_factory=list)
    directions: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""
    notes: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Contents:
    """What a layout found in a dataset's folder; where it says nothing, the recipe holds.

    notes: what is special about this copy.
    """

    items: list[Labelled]
    classes: Classes = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    modality: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
