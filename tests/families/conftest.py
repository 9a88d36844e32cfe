"""What tests of families share."""

from __future__ import annotations

import sys

import pytest

from imagebind_cli import registry
from tests.families import sketch


@pytest.fixture
def family(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family as a line of the registry, in this process."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "sketch_family.py").write_text(sketch.FILE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(registry.FAMILIES, "sketch", "sketch_family")
    sys.modules.pop("sketch_family", None)
