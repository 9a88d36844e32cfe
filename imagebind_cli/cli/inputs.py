"""The inputs of a command: files, folders, patterns, sentences, stdin, a manifest."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import column_names
from imagebind_cli.cli.talk import say
from imagebind_cli.errors import UsageError
from imagebind_cli.file_kinds import Others
from imagebind_cli.registry import TEXT

if TYPE_CHECKING:
    from imagebind_cli.sources import Inputs


def command_inputs(
    modality: str,
    arguments: Sequence[str] | None,
    manifest: Path | None,
    column: Sequence[str] | None,
    nul: bool,
    others: Others,
    boxes: Path | None = None,
    pictures: Path | None = None,
) -> Inputs:
    """Return the inputs that a command's arguments and flags name: those on stdin where there are no arguments, no manifest and no boxes.

    Raises:
        UsageError: nothing to read, both inputs and a manifest, or a wrong --column. UserError: as `sources.read_boxes`.
    """
    from imagebind_cli.sources import Inputs, read_boxes

    columns = column_names(column, manifest or boxes)
    if pictures is not None and boxes is None:
        refuse_useless("--pictures", "--pictures goes with a list of detections; give the list as --boxes FILE")
    regions = None if boxes is None else read_boxes(boxes, modality, pictures, {} if manifest else columns)
    if manifest is not None and arguments:
        raise UsageError("give inputs or --manifest, not both")
    # A handle of its own: at exit a thread may still wait here for a line, and must not hold the lock of sys.stdin.
    stdin = open(os.dup(0), "rb") if sys.stdin else None  # noqa: SIM115 - lives as long as the process
    if manifest is None and not arguments and boxes is None:
        if stdin is None or stdin.isatty():
            raise UsageError("no inputs: give files, folders or sentences, or pipe names to stdin")
        arguments = ["-"]
    if stdin is None and "-" in (arguments or ()):
        raise UsageError("- stands for stdin, which is closed")
    if modality == TEXT:
        for argument in arguments or ():
            if argument != "-" and os.path.isfile(argument):
                say(
                    f"{argument!r} is embedded as a sentence, though a file has this name; to embed its lines: imagebind embed text < {argument}"
                )
    given = Inputs(tuple(arguments or ()), manifest, columns, nul=nul, others=others, warn=say, boxes=regions)
    return given if stdin is None else replace(given, stdin=stdin)
