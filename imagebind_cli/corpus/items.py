"""The items of a job: where they come from, each id once, those that are not stored yet, and how many there are."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from imagebind_cli import registry
from imagebind_cli.events import Listener
from imagebind_cli.file_kinds import is_included, is_other
from imagebind_cli.prepared.entries import Stretched, stretch_of
from imagebind_cli.sources import Failure, Item, Passes, from_arguments, from_manifest

# Files, folders, patterns or sentences; or a function that yields items, which asks of each file in a folder whether to skip it.
Inputs = Iterable[str | Path] | Callable[[Passes], Iterator[Item | Failure]]


def open_items(
    modalities: tuple[str, ...],
    inputs: Inputs,
    manifest: Path | str | None,
    columns: Mapping[str, str] | None,
    passes: Passes,
    frames: bool,
) -> Iterator[Item | Failure]:
    """Yield the items of a job: the rows of its manifest if there is one, else those of its inputs.

    frames: a folder among them is one item, see `options.folders_are_frames`; a function that yields items decides for itself.
    """
    if manifest is not None:
        return from_manifest(Path(manifest), modalities, columns)
    return inputs(passes) if callable(inputs) else from_arguments(map(str, inputs), modalities, io.BytesIO(), passes=passes, frames=frames)


def new_items(
    items: Iterable[Item | Failure], stored: Mapping[str, Stretched], listener: Listener, timed: bool
) -> Iterator[Item | Failure]:
    """Yield the items whose ids are not stored yet, as `distinct` does. An id that is stored with another stretch is a failure.

    timed: whether they may have stretches; in other manifests `start` and `end` are ordinary columns.
    """
    for item in distinct(items, listener):
        if isinstance(item, Failure) or item.id not in stored:
            yield item
        elif timed and stored[item.id] != stretch_of(item.meta):
            yield Failure(item.id, "this id is there already, of another stretch; give each its own")
        else:
            listener.skipped += 1


def distinct(items: Iterable[Item | Failure], listener: Listener, came: dict[int, int] | None = None) -> Iterator[Item | Failure]:
    """Yield each item once. An id that comes again with another input, or that no store can hold, is a failure.

    came: hashes of ids to hashes of their inputs, since there may be millions; a removed one may come again.
    """
    came = {} if came is None else came
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        id, input = hash(item.id), hash(str(item.payload))
        if not _is_storable(item.id):
            yield Failure(item.id, "its id is not text that a store can hold")
        elif id not in came:
            came[id] = input
            yield item
        elif came[id] == input:
            listener.skipped += 1
        else:
            yield Failure(item.id, "this id came before with another input; give each its own")


def _is_storable(id: str) -> bool:
    try:
        return "\0" not in id and id.encode("utf-8", "surrogateescape") is not None
    except UnicodeEncodeError:  # half of a pair, from JSON
        return False


def count_items(modality: str, inputs: list[str], manifest: Path | None, frames: bool = False, include: Sequence[str] = ()) -> int | None:
    """Estimate the number of items, where that is possible without reading them: None for stdin and archives.

    Args:
        modality: one, or several joined by commas.
        frames: a folder is one item, the frames of a video.
        include: patterns of which a file in a folder must match one, see `file_kinds.is_included`.
    """
    if manifest is not None:
        if not manifest.is_file():  # a pipe
            return None
        with open(manifest, "rb") as file:
            return sum(1 for line in file if line.strip()) - (manifest.suffix.lower() in (".csv", ".tsv"))
    if not inputs or any(name == "-" or name.endswith((".tar", ".h5")) for name in inputs):
        return None
    count, modalities = 0, modality.split(",")
    if all(registry.face(name).text for name in modalities):
        return len(inputs)
    for name in inputs:
        there = os.path.lexists(name)
        for path in [name] if there else glob.iglob(name, recursive=True):
            if frames or not os.path.isdir(path):
                count += there or (is_included(path, include) and not is_other(path, modalities))
                continue
            for _, folders, files in os.walk(path):
                folders[:] = [name for name in folders if not name.startswith(".")]
                wanted = (file for file in files if is_included(file, include) and not file.startswith("."))
                count += sum(not is_other(file, modalities) for file in wanted)
    return count


def first_of(items: Iterator[Item | Failure]) -> tuple[Item | Failure | None, Iterator[Item | Failure]]:
    """Return the first item, and an iterator over all of them."""
    first = next(items, None)
    return first, items if first is None else chain([first], items)
