"""Write data to stdout: bytes, JSON or tables. A reader that has gone away raises its own exception."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.errors import UserError, is_broken_pipe, writing
from imagebind_cli.files import write_text
from imagebind_cli.printable import escaped

if TYPE_CHECKING:
    from imagebind_cli.evaluation import Comparison, Report
    from imagebind_cli.publishing import Upload

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]


STDOUT = Path("-")  # as the name of a file


class StdoutClosed(BaseException):
    """The reader of stdout has gone away, as `head` does. It is not an OSError, which typer would turn into exit code 1."""


def write(*lines: bytes) -> None:
    """Write to stdout and flush.

    Raises:
        StdoutClosed: its reader has gone away.
    """
    try:
        with writing("stdout"):
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except OSError as error:
        if not is_broken_pipe(error):
            raise
        raise StdoutClosed from None


def write_json_line(document: Any) -> None:
    """Write one JSON document on one line."""
    write(json.dumps(document).encode() + b"\n")


def write_lines(lines: Iterable[str]) -> None:
    """Write lines of text for people, with control characters escaped."""
    write(*(f"{escaped(line)}\n".encode() for line in lines))


def write_upload(upload: Upload, as_json: bool) -> None:
    """Write what was uploaded, or of a dry run what would be: its address, or its files and its card."""
    if as_json:
        write_json_line(asdict(upload))
    elif upload.address:
        write_lines([upload.address])
    else:
        write_lines([*(f"{size:>14,}  {name}" for name, size in upload.sizes.items()), "", *upload.card.splitlines()])


def check_output_file(path: Path) -> None:
    """Refuse a file that could not be written at the end of a run; `-` is stdout.

    Raises:
        UserError: its folder does not exist, or it cannot be written to.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if path != STDOUT and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        raise UserError(f"{path}: cannot be written to")


def write_report_file(report: Report | Comparison, path: Path | None) -> None:
    """Write a report as JSON to a file, or to stdout for `-`; nowhere for None.

    Raises:
        UserError: it cannot be written.
    """
    if path == STDOUT:
        write(report.as_json().encode())
    elif path is not None:
        write_text(path, report.as_json())


def open_standard_streams() -> None:
    """Open what the caller closed (`2>&-`, a daemon): else the next file would get its number, and its output.

    A closed stdin stays None, a closed stdout refuses writes, and output to a closed stderr is lost.
    """
    for number, (name, flags) in enumerate({"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free, which is this one
            if name != "stdin":  # whoever reads it asks whether there is one
                setattr(sys, name, os.fdopen(number, "w"))
