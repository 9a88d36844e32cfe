"""Prepared samples in one HDF5 file, for reading in any order: every array contiguous and never compressed, so that it can be mapped.

`MODALITY/clips` (clips, *shape) holds the clips of all samples, those of sample i being [first[i], first[i + 1]) by `MODALITY/first`;
`about/text` the bytes of every sample's JSON, by `about/first` alike, with checksums of its clips. Attribute `made` says how the samples were
made.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from imagebind_cli.checksums import SEALED, check_seal, seal
from imagebind_cli.descriptors import NO_LINK, WINDOWS
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError, first_line
from imagebind_cli.files import being_written, open_locked, put_in_place
from imagebind_cli.media.hdf5 import find_dataset
from imagebind_cli.prepared.entries import Entry, Member, Rows, Stretched, check_prepared_alike, member_key, stretch_of
from imagebind_cli.prepared.tar import ShardWriter, read_shard

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
ALIGNMENT = 64
PART_BYTES = 64_000_000  # a killed run loses the part that it was writing


def is_hdf5(head: bytes) -> bool:
    """Check whether a file's first bytes are those of an HDF5 file."""
    return head.startswith(SIGNATURE)


def is_foreign_hdf5(path: str | Path) -> bool:
    """Check whether an HDF5 file is complete and holds something other than prepared samples."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return not isinstance(_provenance(file).get("inputs"), dict)
    except Exception:  # as above
        return False


def _provenance(file: h5py.File) -> dict[str, Any]:
    try:
        provenance = parse_json(file.attrs.get("made", "{}"))
    except Exception:  # h5py raises many kinds on a damaged file, whose reader names the fault
        return {}
    if not isinstance(provenance, dict):
        return {}
    provenance.pop(SEALED, None)
    return provenance


class PreparedHDF5(Sequence[Entry]):
    """The samples of a file by number, mapped into memory: opening reads no arrays.

    Raises:
        UserError: the file is incomplete, or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = Path(path)
        try:
            with h5py.File(path, "r") as file:
                self.provenance = _provenance(file)
                if not isinstance(self.provenance.get("inputs"), dict):
                    raise UserError(f"{path}: an HDF5 file, but not of imagebind preprocess")
                check_seal(file.attrs["made"])
                self._text = self._column(file, "about", "text")
                self._clips = {name: self._column(file, name, "clips") for name in self.provenance["inputs"]}
        except UserError:
            raise
        except Exception as error:  # h5py raises many kinds on a damaged file
            raise UserError(f"{path}: not a readable HDF5 file: {first_line(error)}") from None
        if len({len(first) for _, first in (self._text, *self._clips.values())}) != 1:
            raise UserError(f"{path}: its modalities have different numbers of samples")

    def _column(self, file: h5py.File, group: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Map all rows, and read where each sample's begin."""
        try:
            rows, first = find_dataset(file, f"{group}/{name}"), find_dataset(file, f"{group}/first")[:]
            offset = rows.id.get_offset()
            if offset is None or rows.dtype.kind not in "fiu":
                raise ValueError(f"{rows.dtype}, {'not ' if offset is None else ''}contiguous; contiguous numbers are needed")
            if (
                first.dtype.kind != "i"
                or first.ndim != 1
                or not len(first)
                or first[0] != 0
                or first[-1] != len(rows)
                or (np.diff(first) < 0).any()
            ):
                raise ValueError("first does not divide the rows among the samples")
            return np.memmap(self.path, rows.dtype, "r", offset, rows.shape).view(np.ndarray), first
        except Exception as error:  # as above
            raise UserError(f"{self.path}: {group}/{name} cannot be read: {first_line(error)}") from None

    def __len__(self) -> int:
        return len(self._text[1]) - 1

    def __getitem__(self, number: Any) -> Any:
        """Return the entry of this number; entries for a slice."""
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        number = range(len(self))[number]
        text = Member(f"sample {number}", _slice(self._text, number).tobytes())
        parts: dict[str, Member | Rows] = {
            f"{name}.npy": Rows(f"{name} of sample {number} of {self.path}", _slice(column, number)) for name, column in self._clips.items()
        }
        entry = Entry(text.name, parts | {"json": text}, self.provenance)
        with suppress(ValueError, KeyError):  # reported under its number when the sample is taken
            entry.key = member_key(entry.about()["id"])
        return entry

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))

    def ids(self) -> dict[str, Stretched]:
        """Return the ids of all samples, with the stretch of each.

        Raises:
            UserError: a sample has none.
        """
        try:
            return {about["id"]: stretch_of(about) for about in (entry.about() for entry in self)}
        except (ValueError, KeyError) as error:
            raise UserError(f"{self.path}: a sample without an id: {error}") from None


def _slice(column: tuple[np.ndarray, np.ndarray], number: int) -> np.ndarray:
    rows, first = column
    return rows[first[number] : first[number + 1]]


def read_hdf5(path: str | Path) -> Iterator[Entry]:
    """Yield the entries of a prepared HDF5 file in order; errors as `PreparedHDF5`."""
    yield from PreparedHDF5(path)


class PreparedHDF5Writer:
    """`NAME.h5` being written: tar shards in the folder `NAME.h5.partial` until all samples are written, then one file, moved into place at once.

    HDF5's own files do not survive a kill during a write, and one that grows consists of chunks, which cannot be mapped as one. Use it as a
    context manager; after an exception the samples stay in the folder, and the next run continues from there.

    Raises:
        UserError: the existing file has another provenance, or holds something else.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        self._path, self._provenance, self._folder = path, dict(provenance), Path(f"{path}.partial")
        self._stored = PreparedHDF5(path) if path.exists() else None
        if self._stored is not None:
            check_prepared_alike(path, self._stored.provenance, provenance)
        self._stored_ids = {} if self._stored is None else self._stored.ids()
        try:
            if self._folder.is_symlink():
                raise UserError(f"{self._folder}: is a link, and not the folder of an unfinished run; remove it")
            self._folder.mkdir(exist_ok=True)
            self._lock = open_locked(self._folder / "lock", being_written(path), NO_LINK)
        except OSError as error:
            raise UserError(f"{self._folder}: {error.strerror}") from None
        try:
            self._parts = ShardWriter(str(self._folder / "%06d.tar"), provenance, PART_BYTES)
        except BaseException:
            os.close(self._lock)
            raise
        self.ids = self._stored_ids | self._parts.ids
        self.add, self.drop = self._parts.add, self._parts.drop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is not None and not issubclass(kind, Exception):
                self._parts.cut()  # Ctrl-C loses nothing: where parts begin and end does not show in the file they become
            self._parts.__exit__(kind, *rest)
            if kind is None:
                self._join()
        finally:
            self._unlock()

    def _join(self) -> None:
        """Join the parts, and the samples before them, into one file."""
        if len(self.ids) > len(self._stored_ids):
            building = self._folder / "whole.h5"
            write_hdf5(building, self._provenance, self._entries)
            self._stored = None  # Windows replaces no mapped file
            put_in_place(building, self._path)
        for part in reversed(list(self._parts.shards())):  # the first last: a run that finds it finds all that are left
            part.unlink()
        if WINDOWS:  # which removes no open file
            self._unlock()
        shutil.rmtree(self._folder)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def finish(self, key: str, about: Mapping[str, Any]) -> None:
        """End a sample. about: its id, spans and notes."""
        self._parts.finish(key, about)
        self.ids[about["id"]] = stretch_of(about)

    def _entries(self) -> Iterator[Entry]:
        yield from self._stored or ()
        for part in self._parts.shards():
            with open(part, "rb") as file:
                for entry in read_shard(file, str(part)):
                    if entry.about()["id"] not in self._stored_ids:  # killed after the file was put in place
                        yield entry


def write_hdf5(path: Path, provenance: Mapping[str, Any], entries: Callable[[], Iterable[Entry]]) -> None:
    """Write a prepared HDF5 file of samples, in two passes: to count the clips, and to copy them."""
    firsts = {name: array("q", [0]) for name in ("about", *provenance["inputs"])}
    kinds = {"about": np.empty(0, np.uint8)}  # an empty array of each column's shape and type
    for entry in entries():
        spans = entry.about()["spans"]
        for name, first in firsts.items():
            first.append(first[-1] + len(_line(entry) if name == "about" else spans[name]))
            if name not in kinds:
                kinds[name] = entry.arrays(name)[0].array()[:0]
    places = _allocate(path, provenance, firsts, kinds)
    with open(path, "r+b") as file:
        for number, entry in enumerate(entries()):
            for name, (place, row_bytes) in places.items():
                file.seek(place + firsts[name][number] * row_bytes)
                for block in _blocks(entry, name):
                    file.write(block)


def _blocks(entry: Entry, name: str) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a sample's rows in a column."""
    if name == "about":
        yield _line(entry)
    else:
        for part in entry.arrays(name):
            yield np.ascontiguousarray(part.array()).reshape(-1).view(np.uint8).data


def _line(entry: Entry) -> bytes:
    """Return the sample's JSON with a newline, so that all of them are JSON Lines."""
    return entry.parts["json"].read().rstrip() + b"\n"


def _allocate(
    path: Path, provenance: Mapping[str, Any], firsts: Mapping[str, array[int]], kinds: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, int]]:
    """Create a file with room for all rows. Returns for each column where they go, and the bytes of one."""
    import h5py

    at_once = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    at_once.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    at_once.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    places = {}
    with h5py.File(path, "w", alignment_threshold=ALIGNMENT, alignment_interval=ALIGNMENT) as file:
        file.attrs["made"] = seal(json.dumps(provenance))
        for name, first in firsts.items():
            kind, rows_of = kinds[name], "text" if name == "about" else "clips"
            rows = file.create_dataset(f"{name}/{rows_of}", (first[-1], *kind.shape[1:]), kind.dtype, dcpl=at_once)
            file[f"{name}/first"] = np.asarray(first, np.int64)
            places[name] = rows.id.get_offset(), kind.dtype.itemsize * math.prod(kind.shape[1:])
    return places
