"""What several commands take as inputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imagebind_cli.cli.talk import Talk, say

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


def new_items(items: Iterable[Item | Failure], stored: set[str], talk: Talk) -> Iterator[Item | Failure]:
    """The items that are not in a store yet. An id that comes again with another input is a failure, since one of the two would be lost."""
    from imagebind_cli.sources import Failure

    came: dict[str, int] = {}
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        print_of = hash(str(item.payload))
        if "\0" in item.id:
            yield Failure(item.id, "a NUL in its id, which no store can hold")
        elif came.setdefault(item.id, print_of) != print_of:
            yield Failure(item.id, "this id came before with another input; give each its own")
        elif item.id in stored:
            talk.skipped += 1
        else:
            stored.add(item.id)
            yield item


def first_of(items: Iterator[Item | Failure]) -> tuple[Item | Failure | None, Iterator[Item | Failure]]:
    """The first item, and all of them again."""
    first = next(items, None)
    return first, items if first is None else chain([first], items)
