"""Guard every decoder: check what a reader is given, and turn a decoder's exceptions into one kind."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

Source = str | os.PathLike[str] | BinaryIO  # a path, or an open binary file that can seek


class RefusedFile(ValueError):
    """A file that a library refuses; the message says why, and `decoding` adds what the file was read as."""


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Turn whatever is raised on a bad file into `ValueError("not a readable KIND: …")`. As a decorator it guards a whole function.

    Three kinds of exception pass: the readers' own, which are plain `ValueError`s or classes of this package; the system's `OSError`s (no
    such file, no permission, a broken disk), whose words are better; and `MemoryError`.
    """
    try:
        yield
    except Exception as error:
        if _is_telling(error):
            raise
        raise ValueError(f"not a readable {kind}: {_first_line(error)}") from error


def _is_telling(error: Exception) -> bool:
    """Check whether an exception's own words are for the user."""
    if isinstance(error, OSError) and error.errno and type(error).__module__ == "builtins":
        return True
    if isinstance(error, RefusedFile):
        return False
    return type(error) is ValueError or isinstance(error, MemoryError) or type(error).__module__.startswith("imagebind_cli.")


def _first_line(error: Exception) -> str:
    """Return an exception's reason without the name of the file, which the caller adds."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "of no known kind"
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def check_file(source: Source) -> None:
    """Refuse files that no decoder should be given: an empty file, a folder, a pipe that would block.

    Raises:
        OSError: the file cannot be reached. ValueError: it is not a regular file, or is empty.
    """
    if not isinstance(source, str | os.PathLike):
        return
    status = Path(source).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if status.st_size == 0 and not os.fspath(source).startswith("/proc/"):
        raise ValueError("the file is empty")


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """Open a file at its first byte. A file that was open already stays open, at its first byte."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield file
    else:
        source.seek(0)
        yield source
        source.seek(0)


def first_bytes(source: Source, count: int) -> bytes:
    """Read the first bytes of a file, which reveal its format more reliably than its name."""
    with opened(source) as file:
        return file.read(count)
