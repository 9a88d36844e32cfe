"""The fence around third-party decoders: whatever they raise on hostile bytes becomes one kind of error."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

Source = str | os.PathLike[str] | BinaryIO
"""A path, or an open binary file that can seek."""


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Turn anything a decoder raises on a bad file into `ValueError("not a readable KIND: …")`.

    `OSError` with an errno (no such file, permission, I/O error) passes: its own words are better. So do memory and interrupts.
    """
    try:
        yield
    except (MemoryError, ValueError) as error:
        if isinstance(error, MemoryError) or not type(error).__module__.startswith("av."):
            raise
        raise ValueError(f"not a readable {kind}: {_first_line(error)}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno and type(error).__module__ == "builtins":
            raise
        raise ValueError(f"not a readable {kind}: {_first_line(error)}") from error


def check_file(source: Source) -> None:
    """Refuse what no decoder should be given: an empty file, a folder, a pipe that would block.

    Raises:
        OSError: the file cannot be reached. ValueError: it is not a regular file, or holds nothing.
    """
    if not isinstance(source, str | os.PathLike):
        return
    status = Path(source).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if status.st_size == 0 and not os.fspath(source).startswith("/proc/"):
        raise ValueError("the file is empty")


def _first_line(error: Exception) -> str:
    """What went wrong, without the name of the file, which the caller says."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "of no known kind"
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
