"""The items behind a command's arguments: files, folders, patterns, sentences, stdin, a manifest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from imagebind_cli.cli.talk import say
from imagebind_cli.errors import UsageError

if TYPE_CHECKING:
    from imagebind_cli.file_kinds import Others
    from imagebind_cli.sources import Failure, Item, Passes


def find_items(
    modalities: tuple[str, ...],
    inputs: list[str],
    manifest: Path | None,
    nul: bool,
    frames: bool = False,
    others: Others | None = None,
    columns: Mapping[str, str] | None = None,
) -> Callable[[Passes | None], Iterator[Item | Failure]]:
    """Return a function that yields the items of a command's arguments, or of stdin where there are none.

    The returned function takes `passes`, as `sources.from_arguments` does.

    Args:
        manifest: read the items from this file; `columns` says which of its columns are meant, see `sources.from_manifest`.
        nul: entries on stdin end with a NUL byte.
        frames, others: see `sources.from_arguments`.
    Raises:
        UsageError: nothing to read, or both inputs and a manifest.
    """
    from imagebind_cli import sources

    # A handle of its own: at exit a thread may still wait here for a line, and must not hold the lock of sys.stdin.
    stdin = open(os.dup(0), "rb") if sys.stdin else None  # noqa: SIM115 - lives as long as the process

    if manifest is not None:
        if inputs:
            raise UsageError("give inputs or --manifest, not both")
        return lambda _: sources.from_manifest(manifest, modalities, columns)
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
    return lambda passes: sources.from_arguments(inputs, modalities, stdin, nul, passes, frames, others, say)  # type: ignore[arg-type]
