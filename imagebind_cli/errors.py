"""Errors that are not our bugs: exceptions whose message is meant for the user, and refusals of the operating system."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """A request that cannot be carried out, with a reason the user can act on.

    `run_command_line` prints it as one line on stderr and exits 1. Raise it for a bad request (a model, a store, a whole
    command); a single bad input file raises `OSError` or `ValueError` in its reader instead, and the run continues.
    """


class UsageError(UserError):
    """A request that is worded wrongly: a value outside a fixed list, a malformed one, options that exclude each other.

    `run_command_line` prints it as one line on stderr, with a hint, and exits 2. What is looked for and not found (a file, a model, a store) is a
    plain `UserError`: it may be there tomorrow.
    """


class OptionError(UsageError):
    """A wrong reading option. `names`: those of options in the message, as in Python."""

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)

    def as_flags(self) -> str:
        """Return the message with options spelled as flags."""
        return re.sub(r"\w+", lambda word: word[0].replace("_", "-") if word[0] in self.names else word[0], str(self))


class InUseError(UserError):
    """Another process is writing to the same file."""


def first_line(error: BaseException) -> str:
    """Return the text of an error in one line: the first of its lines, or its type if it has no text."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def is_broken_pipe(error: OSError) -> bool:
    """Check whether a write failed because the reader of the pipe has gone away, which Windows reports as an invalid argument."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


@contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """Add the name of what is written to an error of the operating system, which does not name an open file."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(place)
        raise


def nearest_hint(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean NAME?` with the known name nearest to a word, for the end of a message; nothing if none is near.

    cutoff: the least similarity, from 0 to 1, as `difflib.get_close_matches` takes it.
    """
    near = get_close_matches(word, known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
