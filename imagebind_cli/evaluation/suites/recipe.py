"""A suite's recipe, a TOML file: class names, options with defaults, assumptions, published figures, and what differs for other families."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from imagebind_cli.documents import read_toml
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.suites.suite import Classes

DEFAULT_PROTOCOL = "imagebind"  # of families without one of their own, too
RECIPES = resources.files("imagebind_cli.evaluation.suites") / "recipes"
METRICS = {  # by the command that runs suites of them
    "zeroshot": ("top1", "map", "recall"),
    "locate": ("ciou", "masks", "segmentation"),
    "moments": ("moments",),
}

Value = bool | int | float | str


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Option(_Strict):
    """An option of a suite. The type of its default is that of its values. minimum: the smallest number allowed."""

    help: str
    default: int | float | str
    choices: list[str] = []
    minimum: float | None = None


class Figures(_Strict):
    """Published figures, in percent by metric, their source, and the options they are valid for.

    model: which of a family's models they are of, as its authors call it, where there are several.
    """

    source: str
    values: dict[str, float]
    when: dict[str, str] = {}
    model: str = ""

    def describe(self) -> str:
        """Return the values in words, with the model."""
        values = ", ".join(f"{name} {float(value)}" for name, value in self.values.items())
        return f"{values} ({self.model})" if self.model else values


class Protocol(_Strict):
    """The evaluation of a family of models on a suite.

    templates: a set by its name, or lines; None for the default set. photo: what they say in place of "photo".
    cleaned: texts are cleaned before they are embedded, see `prompts.cleaned_text`.
    names: names of classes in prompts, in place of the recipe's. options: other defaults of the suite's options.
    reading, directions, assumed, figures, paper_items, paper_classes: as in `SuiteRecipe`, in place of its own; the first two only if given.
    """

    templates: str | list[str] | None = None
    photo: str | None = None
    cleaned: bool = False
    names: dict[str, list[str]] = {}
    options: dict[str, Value] = {}
    reading: dict[str, Value] | None = None
    directions: list[str] = []
    assumed: list[str] = []
    figures: list[Figures] = []
    paper_items: int | None = None
    paper_classes: int | None = None


class SuiteRecipe(_Strict):
    """One suite; see `Suite`. Its own fields are ImageBind's protocol.

    metric: decides which command runs it, see `METRICS`.
    layout: which of `LAYOUTS` reads it; empty for the one of its own name. tree: the files its folder must hold.
    paper_items, paper_classes: the counts in the paper.
    classes: each class with its names, in order, where the dataset's own files do not name them.
    protocols: those of other families, by the family's name.
    """

    about: str
    layout: str = ""
    tree: list[str]
    modality: str
    metric: Literal["top1", "map", "recall", "ciou", "masks", "segmentation", "moments"]
    paper_items: int | None = None
    paper_classes: int | None = None
    names_rule: Literal["max", "mean"] = "max"
    templates: list[str] | None = None
    directions: list[str] = []
    reading: dict[str, Value] = {}
    options: dict[str, Option] = {}
    figures: list[Figures] = []
    assumed: list[str] = []
    classes: dict[str, list[str]] = {}
    protocols: dict[str, Protocol] = {}

    @property
    def command(self) -> str:
        """The command that runs the suite."""
        return next(command for command, metrics in METRICS.items() if self.metric in metrics)

    def protocol(self, name: str) -> Protocol:
        """Return the protocol of a family that has one here."""
        if name != DEFAULT_PROTOCOL:
            return self.protocols[name]
        own = ("templates", "assumed", "figures", "paper_items", "paper_classes")
        return Protocol(**{field: getattr(self, field) for field in own})

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """The families that have a protocol here."""
        return (DEFAULT_PROTOCOL, *self.protocols)

    def named_classes(self, options: Mapping[str, Value]) -> Classes:
        """Return the classes; with the option `names` at `dataset`, under the dataset's own names, with underscores."""
        if options.get("names") == "dataset":
            return [(name, [name]) for name in self.classes]
        return [(name, list(names)) for name, names in self.classes.items()]


def suite_names(command: str | None = None) -> list[str]:
    """List the suites in the package. command: only those that it runs."""
    names = sorted(entry.name.removesuffix(".toml") for entry in RECIPES.iterdir() if entry.name.endswith(".toml"))
    return names if command is None else [name for name in names if read_suite_recipe(name).command == command]


def read_suite_recipe(name: str) -> SuiteRecipe:
    """Read a recipe of the package by name, or a `.toml` file of the user's.

    Raises:
        UserError: no such recipe, not TOML, an unknown key (the message names the nearest known one), or a value of the wrong type.
    """
    is_file = name.endswith(".toml")
    if not is_file and name not in suite_names():
        raise UserError(f"unknown suite {name!r}; choose from {', '.join(suite_names())}, or give a .toml file")
    place = Path(name) if is_file else RECIPES / f"{name}.toml"
    try:
        return SuiteRecipe.model_validate(read_toml(Path(str(place))))
    except ValidationError as error:
        raise UserError(f"{name}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    faults = error.errors()
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])  # a misspelt key makes another one missing
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] != "extra_forbidden":
        return f"{where}: {fault['msg'].removeprefix('Value error, ')}"
    parts: dict[Any, type[BaseModel]] = {"options": Option, "figures": Figures, "protocols": Protocol}
    known = next((parts[key] for key in reversed(fault["loc"][:-1]) if key in parts), SuiteRecipe).model_fields
    nearest = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.0)
    return f"unknown key {where!r}; the nearest known one is {nearest[0]!r}"


def chosen_options(name: str, recipe: SuiteRecipe, given: Mapping[str, Any]) -> dict[str, Value]:
    """Return every option of a suite: the given value, which may be a string, else its default.

    Raises:
        UsageError: the suite has no such option, or a value is not one of its choices, not a number, or too small.
    """
    for option in given:
        if option not in recipe.options:
            raise UsageError(f"suite {name} has no option {option!r}; it has {', '.join(recipe.options) or 'none'}")
    return {option: _value(option, about, given.get(option, about.default)) for option, about in recipe.options.items()}


def _value(name: str, option: Option, given: Any) -> Value:
    kind = type(option.default)
    try:
        value: Value = kind(str(given))  # and not int(1.5)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {given!r}; a {'whole ' if kind is int else ''}number is needed") from None
    if option.choices and value not in option.choices:
        raise UsageError(f"unknown {name} {value!r}; choose from {', '.join(option.choices)}")
    if option.minimum is not None and not float(value) >= option.minimum:
        raise UsageError(f"{name} is {value}; at least {option.minimum:g} is needed")
    return value
