"""Find the additions of other installed packages, by entry points: families, modalities and options of their readers.

Asking for entry points reads the records of all packages and takes longer than the rest of a short command. So a search of the records' bytes
comes first, which takes a few milliseconds, and finds nothing on most machines.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from imagebind_cli.errors import UserError, first_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FAMILIES, ENCODERS, OPTIONS = "imagebind.families", "imagebind.encoders", "imagebind.options"  # groups of entry points
HEADING = b"[imagebind."  # how the section of such a group begins in a package's record


@cache
def additions(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name; {} where no package has one."""
    if not _may_be_any():
        return {}
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def load_addition(entry: EntryPoint, attribute: str) -> Any:
    """Import the object that an entry point names: `module:attribute`, or a module that has the attribute.

    Raises:
        UserError: its package cannot be imported, or does not have it.
    """
    from importlib import import_module

    try:
        return getattr(import_module(entry.module), entry.attr or attribute)
    except Exception as error:  # whatever a package of others raises at its import
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{entry.name} of the package {package_of(entry)} cannot be loaded: {reason}") from error


def package_of(entry: EntryPoint) -> str:
    """Return the name and version of the package that an entry point belongs to."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


@cache
def _may_be_any() -> bool:
    """Check whether any package may have entry points for this one; a package inside an archive is not looked into, and may."""
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as entries:
                records = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except NotADirectoryError:
            return True
        except OSError:
            continue
        if any(HEADING in _bytes(os.path.join(record, "entry_points.txt")) for record in records):
            return True
    return False


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
