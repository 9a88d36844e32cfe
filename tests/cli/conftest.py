"""Fixtures that tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Finished, Run


@pytest.fixture
def here(imagebind: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`imagebind` in an empty folder, where `run("embed image a.png")` may also be one string."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, **options: object) -> Finished:
        words = str(arguments[0]).split() if len(arguments) == 1 else arguments
        return imagebind(*words, **options)

    return run
