"""What several commands take as inputs."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UsageError

if TYPE_CHECKING:
    from imagebind_cli.file_kinds import Others
    from imagebind_cli.sources import Failure, Item


def find_items(
    modalities: tuple[str, ...],
    inputs: list[str],
    manifest: Path | None,
    nul: bool,
    passes: Callable[[str], bool] | None = None,
    frames: bool = False,
    others: Others | None = None,
) -> Iterator[Item | Failure]:
    """The items behind a command's arguments, or stdin where there are none. `passes`, `frames`, `others`: see `sources`.

    Raises:
        UsageError: nothing to read, or two places to read from.
    """
    from imagebind_cli import sources

    # Its own handle: a thread may wait here for a line when the process ends, and must hold no lock of sys.stdin.
    stdin = open(os.dup(0), "rb") if sys.stdin else None  # noqa: SIM115 - lives as long as the process

    if manifest is not None:
        if inputs:
            raise UsageError("give inputs or --manifest, not both")
        return sources.from_manifest(manifest, modalities)
    if not inputs:
        if stdin is None or stdin.isatty():
            raise UsageError("no inputs: give files, folders or sentences, or pipe names to stdin")
        inputs = ["-"]
    if stdin is None and "-" in inputs:
        raise UsageError("- stands for stdin, which is closed")
    if modalities == ("text",):
        for argument in inputs:
            if argument != "-" and os.path.isfile(argument):
                say(f"{argument!r} is embedded as a sentence, though a file has this name; its lines: imagebind embed text < {argument}")
    return sources.from_arguments(inputs, modalities, stdin, nul, passes, frames, others, say)  # type: ignore[arg-type]


def new_items(items: Iterable[Item | Failure], stored: Container[str], talk: Talk) -> Iterator[Item | Failure]:
    """The items whose ids are not stored yet, as `distinct` gives them."""
    from imagebind_cli.sources import Failure

    for item in distinct(items, talk):
        if not isinstance(item, Failure) and item.id in stored:
            talk.skipped += 1
        else:
            yield item


def distinct(items: Iterable[Item | Failure], talk: Talk, came: dict[int, int] | None = None) -> Iterator[Item | Failure]:
    """Each item once. An id that comes again with another input, or that no store can hold, is a failure.

    came: hashes of ids to those of their inputs, since there may be millions; one that is taken out may come again.
    """
    from imagebind_cli.sources import Failure

    came = {} if came is None else came
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        id, input = hash(item.id), hash(str(item.payload))
        if not _is_storable(item.id):
            yield Failure(item.id, "its id is no text that a store can hold")
        elif id not in came:
            came[id] = input
            yield item
        elif came[id] == input:
            talk.skipped += 1
        else:
            yield Failure(item.id, "this id came before with another input; give each its own")


def _is_storable(id: str) -> bool:
    try:
        return "\0" not in id and id.encode("utf-8", "surrogateescape") is not None
    except UnicodeEncodeError:  # half of a pair, from JSON
        return False


def count_items(modality: str, inputs: list[str], manifest: Path | None, frames: bool = False) -> int | None:
    """About how many items there are, where that can be told without reading them: None for stdin and archives.

    modality: one, or several with commas. frames: see `sources`.
    """
    from imagebind_cli.file_kinds import is_other

    if manifest is not None:
        if not manifest.is_file():  # a pipe
            return None
        with open(manifest, "rb") as file:
            return sum(1 for line in file if line.strip()) - (manifest.suffix.lower() in (".csv", ".tsv"))
    if not inputs or any(name == "-" or name.endswith((".tar", ".h5")) for name in inputs):
        return None
    if modality == "text":
        return len(inputs)
    count, modalities = 0, modality.split(",")
    for name in inputs:
        there = os.path.lexists(name)
        for path in [name] if there else glob.iglob(name, recursive=True):
            if frames or not os.path.isdir(path):
                count += there or not is_other(path, modalities)
                continue
            for _, folders, files in os.walk(path):
                folders[:] = [name for name in folders if not name.startswith(".")]
                count += sum(not (file.startswith(".") or is_other(file, modalities)) for file in files)
    return count


def first_of(items: Iterator[Item | Failure]) -> tuple[Item | Failure | None, Iterator[Item | Failure]]:
    """The first item, and all of them again."""
    first = next(items, None)
    return first, items if first is None else chain([first], items)
