"""Read a recipe from a TOML file or from the package, and apply changes to it. The error for an unknown key names the nearest known one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imagebind_cli import registry
from imagebind_cli.documents import parse_toml, read_toml
from imagebind_cli.errors import UsageError, UserError, nearest_hint
from imagebind_cli.training.recipe import (
    AnchorRecipe,
    AugmentRecipe,
    EncoderRecipe,
    OptimizerRecipe,
    PairRecipe,
    Recipe,
    RecipeError,
    RunRecipe,
    TeacherRecipe,
    ZeroShotRecipe,
)

RECIPES = resources.files("imagebind_cli") / "recipes"


def recipe_names() -> list[str]:
    """List the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in RECIPES.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str | None, changes: Iterable[str] = (), **replacements: Any) -> Recipe:
    """Read a recipe from a TOML file or from the package, and apply changes to it.

    Args:
        name: a file, or one of `recipe_names()`; None for the defaults.
        changes: `optimizer.lr=1e-4`, `pairs.0.batch=512`: the path of a key, and a TOML value (a bare word is a string).
        replacements: top-level keys to replace; None keeps the recipe's own.
    Raises:
        UserError: the recipe does not exist, is not TOML, has an unknown key (the nearest is named) or a value that does not fit.
        UsageError: one of the changes is malformed, or sets a value that does not fit.
    """
    changes = tuple(changes)
    values: dict[str, Any] = {}
    if name is not None:
        path = Path(name)
        is_file, is_packaged = os.path.isfile(name), name in recipe_names()
        if not is_file and not is_packaged:
            known = recipe_names()
            raise UserError(f"no recipe {name!r}: it is neither a file nor one of {', '.join(known)}{nearest_hint(name, known)}")
        values = read_toml(path if is_file else Path(str(RECIPES / f"{name}.toml")))
    values |= {key: value for key, value in replacements.items() if value is not None}
    for change in changes:
        _apply_change(values, change)
    try:
        recipe = Recipe.model_validate(values)
        _check_rounds(recipe, changes)
        return recipe
    except ValidationError as error:
        kind = UsageError if _is_changed(tuple(map(str, error.errors()[0]["loc"])), changes) else UserError
        raise kind(f"{name or 'recipe'}: {_explain(error)}") from None


def _apply_change(values: dict[str, Any], change: str) -> None:
    key_path, equals, text = change.partition("=")
    if not equals:
        raise UsageError(f"--set {change!r}: KEY=VALUE is needed, as in optimizer.lr=1e-4")
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text
    try:
        _set_key(values, key_path, value)
    except LookupError:
        raise UsageError(f"--set {change!r}: the recipe has no {key_path}") from None


def _set_key(values: dict[str, Any], key_path: str, value: Any) -> None:
    """Set the value at `pairs.0.batch` in nested tables and lists.

    Raises:
        LookupError: there is no such place.
    """
    *parents, last = key_path.split(".")
    table: Any = values
    try:
        for key in parents:
            table = table[int(key)] if isinstance(table, list) else table.setdefault(key, {})
        if isinstance(table, list):
            table[int(last)] = value
        else:
            table[last] = value
    except (IndexError, ValueError, AttributeError, TypeError):
        raise LookupError(key_path) from None


def rounds(recipe: Recipe, place: Path) -> Iterator[tuple[Recipe, Path]]:
    """Yield the recipe and folder of each round, or of the recipe if it has none. The last folder is `place`, those before it PLACE.round-N."""
    if not recipe.rounds:
        yield recipe, place
        return
    before: Path | None = None
    for number in range(len(recipe.rounds)):
        last = number == len(recipe.rounds) - 1
        folder = place if last else place.with_name(f"{place.name}.round-{number + 1}")
        yield _round_recipe(recipe, number, str(before) if before else None), folder
        before = folder


def _entries(table: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `run.steps` and its value, for every value in nested tables."""
    for key, value in table.items():
        path = f"{place}.{key}" if place else key
        if isinstance(value, Mapping):
            yield from _entries(value, path)
        else:
            yield path, value


def _round_recipe(recipe: Recipe, number: int, init: str | None) -> Recipe:
    """Return the recipe of one round.

    Args:
        number: 0 for the first.
        init: the model whose weights its trained encoders start from; None for the recipe's own.
    Raises:
        UserError: the round changes a key that the recipe does not have, or to a value that does not fit.
    """
    values = recipe.model_dump(mode="json", exclude_unset=True, exclude={"rounds"})
    if init is not None:
        tables = values.setdefault("encoders", {})
        others = {registry.face(pair.modalities[1]).encoder for pair in recipe.pairs}
        for name in sorted(others | set(tables)):
            if tables.get(name, {}).get("train", "all" if name in others else "none") != "none":
                tables[name] = {key: value for key, value in tables.get(name, {}).items() if key != "init_blocks"} | {"init": init}
    try:
        for key, value in _entries(recipe.rounds[number]):
            _set_key(values, key, value)
        return Recipe.model_validate(values)
    except LookupError as error:
        raise UserError(f"rounds.{number}: the recipe has no {error.args[0]}") from None
    except ValidationError as error:
        raise UserError(f"rounds.{number}: {_explain(error)}") from None


def _check_rounds(recipe: Recipe, changes: Iterable[str]) -> None:
    """Check that no change is overridden by a round.

    Raises:
        UsageError: one is.
    """
    for number, table in enumerate(recipe.rounds):
        for key, _ in _entries(table):
            if any(change.partition("=")[0] == key for change in changes):
                raise UsageError(f"--set {key}: a round of the recipe sets it; change rounds.{number}.{key}")


def _is_changed(place: Sequence[str], changes: Iterable[str]) -> bool:
    """Check whether a key is at, below or above one that was changed."""
    keys = (change.partition("=")[0].split(".") for change in changes)
    return any(all(one == other for one, other in zip(place, key, strict=False)) for key in keys)


@contextmanager
def refuse_changes(recipe: Recipe, changes: Iterable[str]) -> Iterator[None]:
    """Turn the error of a setting that does not fit into a usage error if it is one of the changes made to the recipe.

    Raises:
        UsageError: in place of its `RecipeError`.
    """
    try:
        yield
    except RecipeError as error:
        numbers = {pair.name: str(number) for number, pair in enumerate(recipe.pairs)}
        if _is_changed([numbers.get(part, part) for part in error.key.split(".")], changes):
            raise UsageError(str(error)) from None
        raise


def _explain(error: ValidationError) -> str:
    """Describe the first mistake; for an unknown key, name the nearest known one."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg'].removeprefix('Value error, ')}" if place else first["msg"].removeprefix("Value error, ")
    key = str(first["loc"][-1])
    tables = (Recipe, PairRecipe, AnchorRecipe, TeacherRecipe, AugmentRecipe, EncoderRecipe, ZeroShotRecipe, OptimizerRecipe, RunRecipe)
    elsewhere = [f"{name}.{key}" for name, table in (("run", RunRecipe), ("optimizer", OptimizerRecipe)) if key in table.model_fields]
    known = sorted({name for table in tables for name in table.model_fields})
    near = elsewhere or difflib.get_close_matches(key, known, n=1, cutoff=0.5)  # finds lr for rl
    return f"unknown key {place!r}" + (f"; did you mean {near[0]!r}?" if near else "")
