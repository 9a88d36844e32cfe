"""The house: which module may import which, and what must not be imported at all."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imagebind_cli"
# A module imports only from rows above its own.
ROWS = [
    ["checksums", "crashes", "descriptors", "errors", "fingerprint", "printable", "signals", "store_formats"],
    ["events", "files", "file_kinds", "documents", "additions", "boxes", "object_storage", "server_connection"],
    ["options"],
    ["registry"],
    ["libraries", "tabular", "store", "media", "transformer", "similarity", "metrics", "embedding"],
    ["prepared"],
    ["sources", "encoder"],
    ["region_samples"],
    ["weights", "encoders", "int8", "merging", "engine", "readers"],
    ["families", "cores"],
    ["pipeline"],
    ["model", "remote"],
    ["space"],
    ["corpus", "live", "number_types", "publishing"],
    ["evaluation", "retrieval"],
    ["grounding", "insight"],
    ["pages"],
    ["demo", "installation", "integrations", "server"],
    ["training"],
    ["cli"],
    ["__main__"],
]
# Folders whose files may import each other.
INSIDE = {
    "media",
    "options",
    "cli",
    "sources",
    "corpus",
    "store",
    "prepared",
    "evaluation",
    "retrieval",
    "training",
    "weights",
    "engine",
    "pages",
    "grounding",
    "insight",
    "families",
    "live",
    "integrations",
    "server",
}


def row(name):
    return next(number for number, names in enumerate(ROWS) if name in names)


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imports(path):
    """First component below the package of everything a file imports from it, type hints aside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("imagebind_cli"):
            below = node.module.split(".")[1:]
            yield from [below[0]] if below else [alias.name for alias in node.names]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_from_rows_above(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if name == "models":
        return
    for imported in imports(path):
        if imported in ("encoder", "weights") and name == "registry":  # under TYPE_CHECKING
            continue
        allowed = row(imported) < row(name) or (name == imported and name in INSIDE)
        assert allowed, f"{path.name} imports {imported}"


def test_no_encoder_imports_another():
    for path in (PACKAGE / "encoders").glob("*.py"):
        assert "encoders" not in set(imports(path))


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".store",
        ".sources",
        ".similarity",
        ".metrics",
        ".insight.findings",
        ".registry",
        ".errors",
        ".fingerprint",
        ".weights.download",
        ".cli",
    ],
)
def test_light_modules_import_no_torch(module):
    code = f"import sys, imagebind_cli{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_nothing_is_unpickled():
    for path in modules():
        text = path.read_text()
        assert "pickle.load" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path


def test_the_files_of_training_import_each_other_in_no_circle():
    """Type hints and imports inside functions count, too; the list at the head of `training` has every file once."""
    folder = PACKAGE / "training"
    names = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    imported = {
        name: {
            target
            for node in ast.walk(ast.parse((folder / f"{name}.py").read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imagebind_cli.training")
            for target in (node.module.split(".")[2:3] or [alias.name for alias in node.names])
        }
        for name in names
    }
    done = set()
    while len(done) < len(names):
        ready = {name for name in names if name not in done and imported[name] <= done}
        assert ready, f"a circle of imports among {sorted(set(names) - done)}"
        done |= ready
    described = [
        line.split()[0] for line in ast.get_docstring(ast.parse((folder / "__init__.py").read_text())).splitlines() if line[:4] == "    "
    ]
    assert sorted(described) == sorted(names)


def listed_files(package):
    """The files that a package's docstring lists, a line each, several by commas."""
    lines = re.findall(r"^\w+\.py\b(?:, \w+\.py)*", ast.get_docstring(ast.parse(package.read_text())) or "", re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


WINGS = [path.parent for path in sorted(PACKAGE.rglob("__init__.py")) if len(listed_files(path)) > 1]


@pytest.mark.parametrize("wing", WINGS, ids=[wing.name for wing in WINGS])
def test_a_wing_that_lists_its_files_lists_each_once(wing):
    assert sorted(listed_files(wing / "__init__.py")) == sorted(path.name for path in wing.glob("*.py") if path.name != "__init__.py")


def test_the_tree_of_the_architecture_is_the_package():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    tree = page[page.index("## The tree") : page.index("Beside the package:")]
    places = re.findall(r"`([^`]+)`", "".join(line.split("|")[1] for line in tree.splitlines() if line.startswith("| `")))
    folders = [f"{path.name}/" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert sorted(places) == sorted(folders + files)


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_import_circle_type_hints_included():
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("imagebind_cli"):
                for alias in node.names:
                    below = f"{node.module}.{alias.name}"
                    graph[name].add(below if below in files else node.module)
    sorter = graphlib.TopologicalSorter({name: needs - {name} for name, needs in graph.items()})
    sorter.prepare()  # raises CycleError, which names the circle


def test_no_two_public_classes_or_functions_share_a_name():
    places = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module_name(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_typer_is_imported_by_the_command_line_alone():
    for path in modules():
        if "cli" not in path.relative_to(PACKAGE).parts:
            assert not re.search(r"^\s*(import|from) (typer|click|rich)\b", path.read_text(), re.MULTILINE), path


def test_sections_of_docstrings_are_indented():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (ast.get_docstring(node) or "").splitlines()
                heads = (number for number, line in enumerate(lines, 1) if line.strip() in ("Args:", "Returns:", "Raises:", "Yields:"))
                depth = {number: len(lines[number - 1]) - len(lines[number - 1].lstrip()) for number in heads}
                wrong += [
                    (path.name, lines[number]) for number, column in depth.items() if not lines[number].startswith(" " * (column + 4))
                ]
    assert wrong == []
