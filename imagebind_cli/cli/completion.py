"""What a shell completes behind options: names of models, suites, recipes and the like. Fast, since it runs at every press of Tab: no torch."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imagebind_cli import additions, registry

PACKAGE = Path(__file__).parent.parent


def complete(parameter: Any, command: str) -> None:
    """Let a parameter of a command complete to the values known for its name; where nothing is known, shells complete files."""
    values = VALUES.get(f"{command} {parameter.name}") or VALUES.get(parameter.name)
    if values is not None:
        parameter._custom_shell_complete = lambda context, parameter, typed: [value for value in values(typed) if value.startswith(typed)]


def _models(typed: str) -> Iterable[str]:
    from imagebind_cli.weights import download

    named = [path.stem for path in PACKAGE.glob("models/*.json")] + [path.parent.name for path in PACKAGE.glob("models/*/config.json")]
    return sorted({*named, *_published(), *download.pulled_addresses()})


def _published() -> Iterator[str]:
    """Yield the names under which families publish models: the keys beside `Publication(…)` in their files, whose import would take seconds."""
    elsewhere = [entry.module for entry in additions.additions(additions.FAMILIES).values()]
    for module in [*registry.FAMILIES.values(), *elsewhere]:
        with suppress(ImportError, OSError, SyntaxError, ValueError):  # a broken package is reported where it is used
            found = find_spec(module)
            tree = ast.parse(Path(found.origin).read_text(encoding="utf-8")) if found and found.origin else ast.Module([], [])
            for table in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
                for key, value in zip(table.keys, table.values, strict=True):
                    made = value.func if isinstance(value, ast.Call) else None
                    if isinstance(key, ast.Constant) and getattr(made, "id", getattr(made, "attr", "")) == "Publication":
                        yield str(key.value)


def _suites(command: str, typed: str) -> Iterable[str]:
    from imagebind_cli.evaluation.suites.recipe import suite_names

    return suite_names(command)


def _recipes(typed: str) -> Iterable[str]:
    return sorted(path.stem for path in PACKAGE.glob("recipes/*.toml"))


def _templates(typed: str) -> Iterable[str]:
    return sorted(path.stem for path in PACKAGE.glob("evaluation/templates/*.txt"))


def _pairs(typed: str) -> Iterable[str]:
    return [f"{anchor}-{other}" for anchor in registry.MODALITIES for other in registry.MODALITIES if other != anchor]


def _devices(typed: str) -> Iterable[str]:
    return ["auto", "cpu", "cuda", "mps"]


def _modalities(typed: str) -> Iterable[str]:
    before = typed[: typed.rfind(",") + 1]
    return [before + name for name in registry.MODALITIES if name not in before.split(",")]


VALUES: dict[str, Callable[[str], Iterable[str]]] = {
    "model": _models,
    "init": _models,
    "weights pull name": _models,
    "weights convert places": _models,
    "zeroshot suite": partial(_suites, "zeroshot"),
    "locate suite": partial(_suites, "locate"),
    "moments suite": partial(_suites, "moments"),
    "recipe": _recipes,
    "train pairs": _pairs,
    "templates": _templates,
    "device": _devices,
    "modality": _modalities,
}  # by the name of the parameter, where needed with its command
