"""The samples in a tar shard or a prepared HDF5 file as items."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import archive, is_npz, may_be_zip
from imagebind_cli.object_storage import is_object, open_object
from imagebind_cli.prepared import BESIDE, Entry, Prepared, is_foreign_hdf5, is_hdf5, is_shard, read_hdf5, read_shard
from imagebind_cli.sources.items import (
    Failure,
    Item,
    Modalities,
    payload_of,
    reason,
    stretched,
    whole_source,
)


def from_shard(stream: BinaryIO, modalities: Modalities, place: str) -> Iterator[Item | Failure]:
    """Yield an item for each sample of a tar shard: prepared arrays, or media files in WebDataset's naming. A torn archive ends in a `Failure`."""
    yield from _samples(read_shard(stream, place), modalities, place)


def _samples(entries: Iterable[Entry], modalities: Modalities, place: str) -> Iterator[Item | Failure]:
    empty = True
    try:
        for entry in entries:
            empty = False
            yield _sample(entry, modalities, place)
    except UserError as error:
        yield Failure(place, str(error).removeprefix(f"{place}: "))
    else:
        if empty:
            yield Failure(place, "holds no samples")


def _sample(entry: Entry, modalities: Modalities, place: str) -> Item | Failure:
    try:
        about = entry.about()
        id = str(about.get("id", entry.key))
        given = {modality: entry.payload(modality, about) for modality in modalities}
        given = {modality: payload and stretched(payload, modality, about) for modality, payload in given.items()}
    except ValueError as error:
        return Failure(entry.key, f"this sample of {place}: {error}")
    missing = [modality for modality, payload in given.items() if payload is None]
    if missing:
        return Failure(id, f"no {missing[0]} in this sample of {place}; it has {', '.join(entry.parts)}")
    if not about and any(isinstance(whole_source(payload), Prepared) for payload in given.values()):
        return Failure(entry.key, f"this sample of {place} is incomplete")
    return Item(id, payload_of(given), {key: value for key, value in about.items() if key not in ("id", *BESIDE)})


def expand_archives(items: Iterable[Item | Failure], modalities: Modalities) -> Iterator[Item | Failure]:
    """Yield files unchanged, and the samples in place of a tar shard or a prepared HDF5 file."""
    for item in items:
        if isinstance(item, Item) and (samples := samples_of(item.payload, modalities)) is not None:
            yield from samples
        elif isinstance(item, Item) and len(modalities) > 1:
            yield Item(item.id, dict.fromkeys(modalities, item.payload), item.meta)  # one file for all, such as a video with its sound
        else:
            yield item


def samples_of(path: str, modalities: Modalities) -> Iterator[Item | Failure] | None:
    """Return the samples in a file of samples, or a failure for an archive of another kind; None for any other file."""
    if is_object(path):
        return _samples_of_object(path, modalities) if path.lower().endswith(".tar") else None
    head = read_head(path)
    samples = samples_in(path, head, modalities)
    is_input = is_npz(head) or (may_be_zip(modalities) and head.startswith(b"PK"))  # an app's export may be a ZIP file
    fault = None if is_input else archive_fault(path, head, modalities)
    return samples or (iter([Failure(path, fault)]) if fault else None)


def _samples_of_object(address: str, modalities: Modalities) -> Iterator[Item | Failure]:
    """Yield the samples of a tar shard as it is downloaded."""
    try:
        with open_object(address) as stream:
            yield from from_shard(stream, modalities, address)
    except OSError as error:
        yield Failure(address, reason(error))


def samples_in(path: str, head: bytes, modalities: Modalities) -> Iterator[Item | Failure] | None:
    """Yield the samples in a tar shard or a prepared HDF5 file."""
    if is_shard(head):
        return _samples(_entries_of_shard(path), modalities, path)
    return _samples(read_hdf5(path), modalities, path) if is_hdf5(head) and not is_foreign_hdf5(path) else None


def read_head(path: str) -> bytes:
    """Return the first bytes of a file; none for what is not a file or cannot be opened, which its reader reports."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(512)
    except OSError:
        return b""


def archive_fault(path: str, head: bytes, modalities: Modalities) -> str | None:
    return archive(head, path, f"imagebind embed {modalities[0]} -")


def _entries_of_shard(path: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        yield from read_shard(file, path)
