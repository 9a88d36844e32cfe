"""The files in a folder, or of a pattern, as items."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import Others, is_included, is_other
from imagebind_cli.object_storage import list_objects
from imagebind_cli.sources.archives import archive_fault, expand_archives, read_head, samples_in
from imagebind_cli.sources.items import (
    Failure,
    Item,
    Modalities,
    Skips,
    reason,
)
from imagebind_cli.store import is_store
from imagebind_cli.store_formats import FOLDERS, FORMATS

SEPARATORS = f"/{os.sep}"  # between the parts of a path


def with_slashes(path: str) -> str:
    """Return a path that was found in a folder with `/` between its parts, as Windows takes it too: the same files have the same ids everywhere."""
    return path if os.sep == "/" else path.replace(os.sep, "/")


def from_files(
    name: str, paths: Iterable[str], modalities: Modalities, skips: Skips | None, frames: bool, others: Others
) -> Iterator[Item | Failure]:
    """Yield the files that a folder's name or a pattern means, without those plainly of another kind, unless they are failures.

    frames: a folder is one item.
    """
    excluded, skipped, first, nothing = 0, 0, "", True
    for path in paths:
        walked = os.path.isdir(path) and not frames
        plain = path.rstrip(SEPARATORS) or path if os.path.isdir(path) else path  # a shell writes a folder with the slash or without
        for item in _below(path) if walked else [Item(with_slashes(plain), with_slashes(plain))]:
            if isinstance(item, Item) and not is_included(item.id, others.include) and not (frames and os.path.isdir(item.id)):
                excluded += 1
                continue
            done = isinstance(item, Item) and skips is not None and skips(item.id)
            if isinstance(item, Item) and not done and _is_unmeant(item.id, walked, modalities):
                skipped, first = skipped + 1, first or item.id
                if others.strict:
                    yield Failure(item.id, f"by its name, not {' or '.join(modalities)}; without --strict it is skipped")
                else:
                    others.count += 1
                continue
            nothing = False
            if not done:
                yield from expand_archives([item], modalities)
    if skipped and nothing and not others.strict:
        others.count -= skipped
        fault = archive_fault(first, read_head(first), modalities)
        found = f"no {' or '.join(modalities)} among its files: {skipped:,} of other kinds, the first {first}"
        yield Failure(name, f"{found}: {fault}" if fault else found)
    elif excluded and nothing:
        yield Failure(name, f"none of its {excluded:,} files matches --include {' or '.join(others.include)}")


def from_objects(address: str, modalities: Modalities, skips: Skips | None, others: Others) -> Iterator[Item | Failure]:
    """Yield an object of object storage, or all below a prefix as `from_files` does those of a folder."""
    try:
        names = list_objects(address)
    except (OSError, UserError) as error:
        yield Failure(address, reason(error))
        return
    if names is None:
        yield from expand_archives([Item(address, address)], modalities)
    else:
        yield from from_files(address, names, modalities, skips, False, others)


def names_store(source: Any) -> bool:
    """Check whether a path is that of a store of vectors: arrays that might be taken for a map or a recording."""
    return isinstance(source, str | Path) and str(source).endswith(tuple(FORMATS)) and is_store(source)


def _is_unmeant(path: str, in_folder: bool, modalities: Modalities) -> bool:
    """Check whether a file is hidden, a store, or plainly of another kind and not an archive of samples."""
    if (in_folder and os.path.basename(path).startswith(".")) or names_store(path):
        return True
    is_meant = os.path.isdir(path) and not in_folder  # as the frames of a video
    return is_other(path, modalities) and not is_meant and samples_in(path, read_head(path), modalities) is None


def _below(folder: str) -> Iterator[Item | Failure]:
    """Yield every file below a folder, sorted, following links once, without folders whose names start with a dot."""
    seen: set[tuple[int, int]] = set()
    empty = True

    def walk(folder: str) -> Iterator[Item | Failure]:
        nonlocal empty
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            empty = False
            yield Failure(folder, error.strerror or str(error))
            return
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above it
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if not _is_folder(entry) or (entry.name.endswith(FOLDERS) and is_store(entry.path)):
                empty = False
                path = with_slashes(entry.path)
                yield Item(path, path)
            elif not entry.name.startswith("."):
                yield from walk(entry.path)

    yield from walk(folder)
    if empty:
        yield Failure(folder, "no file in this folder")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()  # almost free for a million files, where os.path.isdir asks the system for each
    except OSError:  # a link to itself
        return False
