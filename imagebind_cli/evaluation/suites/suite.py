"""What an evaluation suite holds: a dataset's inputs with their truth, the class names, and the metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from imagebind_cli.sources import Item

# An item; the numbers of its classes, none in a retrieval suite; and the fold it belongs to, where there are folds.
LabelledItem = tuple[Item, tuple[int, ...], str | None]

# The name of each class, and its names in prompts.
Classes = list[tuple[str, list[str]]]

Caption = tuple[str, str, str]  # a caption's id, its text, and the id of the item it describes


@dataclass(frozen=True)
class Suite:
    """A dataset on disk, ready to be run.

    name, about: of its recipe. modality: of every item; where `weights` is not empty, an item's payload is a dict by modality, and
    its vector the weighted sum of their unit vectors, made a unit vector again. reading: options for the modality's reader.
    classes, names_rule: see `Classes`; whether a class scores by the `max` or the `mean` of its names. templates: None for the default set.
    items: returns them in order, each time it is called. A payload may be a function that reads the input. count: the number of items.
    captions, directions: of a retrieval suite; in `text->audio` the captions are the queries.
    metric: `top1` (the mean over folds where there are any), `map` (several classes an item) or `recall`.
    published: figures in percent, by metric (`top1`, `map`, `R@1`), empty where none is published; source: where they are from.
    notes: what was assumed, what the paper leaves open (NOT STATED), and how this copy differs from the paper's.
    options: every option of the suite with its value. files: the files that the labels were read from.
    protocol: the family whose protocol it follows. cleaned: texts are cleaned before they are embedded, as `prompts.cleaned_text` does.
    of_family: opens it under the protocol of a family of models; None where the user chose a protocol.
    """

    name: str
    about: str
    modality: str
    metric: str
    items: Callable[[], Iterator[LabelledItem]]
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
    protocol: str = "imagebind"
    cleaned: bool = False
    of_family: Callable[[str], Suite] | None = field(default=None, compare=False, repr=False)

    @property
    def keeps_lengths(self) -> bool:
        """Whether captions and items are ranked by dot products of vectors of the length that the encoder gives them, and not by cosines."""
        return self.options.get("similarity") == "dot"

    def for_family(self, family: str) -> Suite:
        """Return the suite as models of a family are evaluated: under their protocol, and with published figures only if they are theirs."""
        suite = self.of_family(family) if self.of_family else self
        if suite.protocol == family or not suite.published:
            return suite
        figures = ", ".join(f"{name} {value:.1f}" for name, value in suite.published.items())
        note = f"published under this protocol, but for {suite.protocol} models: {figures}"
        return replace(suite, published={}, source="", notes=[*suite.notes, note])


class DescribedSuite(Protocol):
    """The facts of a suite in a report, whichever command runs it; see `Suite` for the fields."""

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def files(self) -> list[Path]: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def published(self) -> dict[str, float]: ...
    @property
    def source(self) -> str: ...


def suite_record(suite: DescribedSuite) -> dict[str, Any]:
    """Return a report's entry on a suite, in JSON's types."""
    return {
        "suite": suite.name,
        "about": suite.about,
        "protocol": suite.protocol,
        "options": suite.options,
        "files": [str(path) for path in suite.files],
        "notes": suite.notes,
        "published": suite.published,
        "published_in": suite.source,
    }


@dataclass(frozen=True)
class Contents:
    """What a layout read from a dataset's folder; a field that is empty is taken from the recipe.

    notes: about this copy.
    """

    items: list[LabelledItem]
    classes: Classes = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    modality: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
