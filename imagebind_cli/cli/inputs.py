"""What several commands take as inputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imagebind_cli.cli.talk import say

if TYPE_CHECKING:
    from imagebind_cli.sources import Failure, Item


def find_items(modalities: tuple[str, ...], inputs: list[str], manifest: Path | None, nul: bool) -> Iterator[Item | Failure]:
    """The items behind a command's arguments, or stdin where there are none.

    Raises:
        typer.BadParameter: nothing to read, or two places to read from.
    """
    from imagebind_cli import sources

    # Its own handle: a thread may wait here for a line when the process ends, and must hold no lock of sys.stdin.
    stdin = open(os.dup(0), "rb") if sys.stdin else None  # noqa: SIM115 - lives as long as the process

    if manifest is not None:
        if inputs:
            raise typer.BadParameter("give inputs or --manifest, not both")
        return sources.from_manifest(manifest, modalities)
    if not inputs:
        if stdin is None or stdin.isatty():
            raise typer.BadParameter("no inputs: give files, folders or sentences, or pipe names to stdin")
        inputs = ["-"]
    if stdin is None and "-" in inputs:
        raise typer.BadParameter("- stands for stdin, which is closed")
    if modalities == ("text",):
        for argument in inputs:
            if argument != "-" and os.path.isfile(argument):
                say(f"{argument!r} is embedded as a sentence, though a file has this name; its lines: imagebind embed text < {argument}")
    return sources.from_arguments(inputs, modalities, stdin, nul)  # type: ignore[arg-type]
