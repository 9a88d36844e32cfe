"""Modules that tests import when they first use them: those that take a second and more would otherwise slow every process that collects."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest


class Later:
    """A module that is imported when one of its names is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks all that a test module holds for names of its own, such as `__test__`
            raise AttributeError(name)
        return getattr(import_module(self._name), name)


def needs(*packages: str) -> pytest.MarkDecorator:
    """Return a mark that skips tests where one of these top-level packages is not installed, without importing them."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")
