"""The public training API: docs/python.md's example runs, its names exist, and the recipes keep to public names of the package."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagebind_cli import training
from imagebind_cli.training import recipe

ROOT = Path(__file__).parents[2]
PAGE = re.search(r"^## Building on the training code\n(.*?)^## ", (ROOT / "docs" / "python.md").read_text(), re.DOTALL | re.MULTILINE)[1]  # type: ignore[index]
PROGRAMS = sorted((ROOT / "recipes").rglob("*.py"))


def test_the_page_s_example_learns_and_becomes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    values: dict[str, Any] = {}
    exec(compile(code[1], "docs/python.md", "exec"), values)
    cosines = (values["vectors"] * values["wanted"]).sum(dim=1)
    assert cosines.mean() > 0.5
    assert (tmp_path / "imitation" / "imu.safetensors").exists()


def test_every_public_name_stands_on_the_page_and_has_a_docstring() -> None:
    for name in training.__all__:
        assert getattr(training, name).__doc__, name
    functions = {name for name in training.__all__ if name.islower()}
    assert functions == set(re.findall(r"`(\w+)\(", PAGE)) & functions
    with pytest.raises(AttributeError, match="no attribute 'raise_tower'"):
        _ = training.raise_tower


def test_every_setting_of_a_recipe_is_described() -> None:
    """In its table's docstring; those of a run also on their page."""
    page = (ROOT / "docs" / "train.md").read_text()
    tables = [table for table in vars(recipe).values() if isinstance(table, type) and recipe.RecipeTable in table.__mro__[1:]]
    assert {"PairRecipe", "RunRecipe"} <= {table.__name__ for table in tables}
    for table in tables:
        assert [name for name in table.model_fields if not re.search(rf"\b{name}\b[:,]", table.__doc__)] == [], table.__name__
    assert [name for name in recipe.RunRecipe.model_fields if f"run.{name}" not in page] == []


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, full name and bound name of everything that a program imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names)


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Imports of private names of the package, and private attributes of anything that is neither `self`, `cls` nor another library's."""
    foreign = {"self", "cls"}
    for line, name, bound in imports(tree):
        if name.split(".")[0] != "imagebind_cli":
            foreign.add(bound)
        elif any(map(private, name.split("."))):
            yield f"line {line}: {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if not (isinstance(root, ast.Name) and root.id in foreign):
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_recipes_touch_no_private_name_of_the_package(path: Path) -> None:
    assert not list(private_uses(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", [path for path in PROGRAMS if "mini" in path.parts], ids=lambda path: path.name)
def test_programs_of_mini_use_only_what_the_page_documents(path: Path) -> None:
    tree = ast.parse(path.read_text())
    documented = set(re.findall(r"[A-Za-z_]\w*", " ".join(re.findall(r"`([^`]+)`", PAGE))))
    own = [(name, bound) for _, name, bound in imports(tree) if name.split(".")[0] == "imagebind_cli"]
    modules = {bound for name, bound in own if name == "imagebind_cli.weights.checkpoint"}
    used = {name.rpartition(".")[2] for name, _ in own}
    used |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    assert used <= documented
    assert {name.rpartition(".")[2] for name, _ in own if name.startswith("imagebind_cli.training.")} <= set(training.__all__)


@pytest.mark.parametrize(
    "line",
    [
        "from imagebind_cli.encoders.text import _vocabulary",
        "from imagebind_cli import _inner",
        "import imagebind_cli._inner",
        "from imagebind_cli._inner import read",
        "from imagebind_cli.training import start; start._initialise(1)",
        "import imagebind_cli as ib; ib._PUBLIC",
        "import imagebind_cli.training.start; imagebind_cli.training.start._initialise",
        "import imagebind_cli as ib; ib.load('tiny')._encoders",
    ],
)
def test_a_private_name_would_be_seen(line: str) -> None:
    assert list(private_uses(ast.parse(line)))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_recipes_import_what_the_package_has(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "imagebind_cli":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
