"""stdout as data: bytes out, and a reader that has gone away told from every other error."""

from __future__ import annotations

import sys

from imagebind_cli.errors import writing


class StdoutClosed(BaseException):
    """The reader of stdout has gone away, as `head` does. Not an OSError, which typer would turn into exit code 1."""


def write(*lines: bytes) -> None:
    """Write to stdout and flush.

    Raises:
        StdoutClosed: nobody reads any more.
    """
    try:
        with writing("stdout"):
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise StdoutClosed from None
