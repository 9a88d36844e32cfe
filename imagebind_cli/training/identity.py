"""What a run is. A folder goes on only with the recipe, data and weights it was begun with; anything else is refused, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.files import write_json
from imagebind_cli.fingerprint import is_earlier
from imagebind_cli.training.augment import RULES
from imagebind_cli.training.gather import rank
from imagebind_cli.training.setup import Design, Machinery
from imagebind_cli.weights.run_folder import RUN

FREE = ("recipe.about", "recipe.run.workers", "recipe.run.checkpoint_minutes", "recipe.run.keep")
"""Keys that change nothing in the result."""


def check(folder: Path, plan: Design) -> None:
    """Whether a folder can take this run: a new one, or one begun with the same.

    Raises:
        UserError: it was begun with something else, which is named, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a run needs a folder")
    if not (folder / RUN).exists():
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no run; choose another --out")
        return
    _compare(folder, _made(plan))


def settle(folder: Path, plan: Design, machinery: Machinery) -> None:
    """Write down what the run is, or compare its weights with those it was begun with."""
    weights = {name: dict(start.base) if start.base else "fresh" for name, start in machinery.starts.items()}
    made = _made(plan) | {"weights": weights}
    if (folder / RUN).exists():
        _compare(folder, made)
    elif rank() == 0:
        write_json(folder / RUN, made, indent=1)


def threads(folder: Path) -> int | None:
    """Return how many threads a run was begun with on a CPU, where that is written down."""
    return json.loads((folder / RUN).read_text()).get("threads")


def write_threads(folder: Path, count: int) -> None:
    """Write down how many threads a run computes with."""
    made = json.loads((folder / RUN).read_text()) | {"threads": count}
    write_json(folder / RUN, made, indent=1)


def _made(plan: Design) -> dict[str, Any]:
    data = {
        pair.name: {
            "pairs": plan.data.counts[number],
            "groups": int(plan.data.groups(number).bincount().count_nonzero()),
            "rows": plan.data.reader(number).data.digest(),
        }
        for number, pair in enumerate(plan.recipe.pairs)
    }
    varied = any(pair.augment for pair in plan.recipe.pairs)
    return {"recipe": plan.recipe.model_dump(mode="json"), "data": data, "augmentation": RULES if varied else None}


def _compare(folder: Path, made: Mapping[str, Any]) -> None:
    before = json.loads((folder / RUN).read_text())
    theirs, ours = (dict(_flat({key: values[key] for key in made if key in values}, "")) for values in (before, made))
    for key in dict.fromkeys([*theirs, *ours]):
        if theirs.get(key) != ours.get(key) and key not in FREE:
            if key == "augmentation":
                raise UserError(f"{folder} was begun by a version of imagebind that augments otherwise; choose another --out")
            had, has = theirs.get(key, "nothing"), ours.get(key, "nothing")
            if key.startswith("weights.") and is_earlier(had):
                raise UserError(
                    f"{folder} was begun by an earlier version of imagebind, whose fingerprints of weights cannot be compared; "
                    f"if the weights are still the same, write {has!r} for {had!r} into its {RUN}, else choose another --out"
                )
            raise UserError(f"{folder} was begun with {key.removeprefix('recipe.')} = {had}, not {has}; choose another --out")


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """`a.0.b` and its value, for every value in nested tables and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        yield place, value
        return
    for key, below in entries:
        yield from _flat(below, f"{place}.{key}" if place else str(key))
