"""The house: which module may import which, and what must not be imported at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "imagebind_cli"
# A module imports only from rows above its own.
ROWS = [
    ["errors", "events", "file_kinds", "fingerprint"],
    ["registry", "options", "tabular", "store", "media", "transformer", "similarity", "metrics"],
    ["prepared"],
    ["sources", "encoder"],
    ["weights", "encoders", "int8", "engine", "readers"],
    ["pipeline"],
    ["model"],
    ["corpus"],
    ["evaluation"],
    ["space"],
    ["retrieval"],
    ["pages"],
    ["demo", "installation"],
    ["training"],
    ["cli"],
    ["__main__"],
]
# Folders whose files may import each other.
INSIDE = {"media", "cli", "corpus", "store", "prepared", "evaluation", "retrieval", "training", "weights", "engine", "pages"}


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
        if imported == "encoder" and name == "registry":  # under TYPE_CHECKING
            continue
        allowed = row(imported) < row(name) or (name == imported and name in INSIDE)
        assert allowed, f"{path.name} imports {imported}"


def test_no_encoder_imports_another():
    for path in (PACKAGE / "encoders").glob("*.py"):
        assert "encoders" not in set(imports(path))


@pytest.mark.parametrize(
    "module", ["", ".store", ".sources", ".similarity", ".metrics", ".registry", ".errors", ".fingerprint", ".weights.download", ".cli"]
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
