"""The folder store, `NAME.store/`, for the largest: parts that are only ever appended to, of formats that everybody reads.

    made.json               how it was made, and how many rows a part has
    vectors-00000.npy       float32 or float16 (rows, dim)
    rows-00000.jsonl        the id of each row and what belongs to it
    index-00000.npy         the same in records of fixed length (`INDEX`), to look up a million rows at once
    replaced-00000.npy      numbers of rows that do not count any more, because their input changed and was embedded again
    commits                 a record for each commit: how much of all these is valid

What lies behind the last commit is passed over by readers and cut off by the next writer, so that there is nothing to repair.
Compacting writes new parts behind the old ones; the commit that counts from them on is one record.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store.growing import HEADER, mapped
from imagebind_cli.store.row import STAMP
from imagebind_cli.store.source import Views

INDEX = np.dtype([*STAMP.descr, ("start", "<f8"), ("end", "<f8"), ("line", "<i8")])
"""A row's `STAMP`, its span, and where its line starts in its part's `rows`."""
RECORD = struct.Struct("<QQQQI")


@dataclass(frozen=True)
class Commit:
    """How much is valid: rows from part `first` on, bytes of the last part's lines, and replaced rows."""

    first: int = 0
    rows: int = 0
    line_bytes: int = 0
    replaced: int = 0

    def pack(self) -> bytes:
        """As a record of `commits`."""
        values = (self.first, self.rows, self.line_bytes, self.replaced)
        return RECORD.pack(*values, zlib.crc32(RECORD.pack(*values, 0)))


def last_commit(path: Path) -> tuple[Commit, int]:
    """The last whole record of `commits`, and where the next one goes."""
    with open(path, "rb") as file:
        records = file.seek(0, os.SEEK_END) // RECORD.size
        while records:
            file.seek((records - 1) * RECORD.size)
            *values, _ = RECORD.unpack(found := file.read(RECORD.size))
            if Commit(*values).pack() == found:
                return Commit(*values), records * RECORD.size
            records -= 1
    return Commit(), 0


@dataclass(frozen=True)
class Names:
    """A folder store's files."""

    folder: Path

    def part(self, kind: str, number: int) -> Path:
        """One part of `vectors`, `rows`, `index` or `replaced`."""
        return self.folder / f"{kind}-{number:05}.{'jsonl' if kind == 'rows' else 'npy'}"

    @property
    def made(self) -> Path:
        """How it was made."""
        return self.folder / "made.json"

    @property
    def commits(self) -> Path:
        """What is valid; the file that a writer locks."""
        return self.folder / "commits"


def read_made(names: Names) -> tuple[dict[str, Any], int]:
    """How a folder store was made, and how many rows a part has.

    Raises:
        UserError: it does not say so.
    """
    try:
        made = json.loads(names.made.read_text())
        return made, int(made.pop("part_rows"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{names.folder}: not a store of imagebind embed: {names.made.name}: {error}") from None


class FolderSource:
    """A folder store being read, also while another process writes to it; `Source` says what its methods do."""

    def __init__(self, path: Path) -> None:
        self._names = Names(path)
        self.made, self._part_rows = read_made(self._names)
        self._commit = last_commit(self._names.commits)[0]
        self.count, self._first = self._commit.rows, self._commit.first
        self._dtype, self._dim = np.dtype(self.made["array"]), int(self.made["dim"])
        self._check_sizes()
        self.hidden = np.sort(self._mapped("replaced", self._first, self._commit.replaced, np.int64))

    def ids(self, start: int, stop: int) -> list[str]:
        return [row["id"] for row in self._rows(start, stop)]

    def metas(self, start: int, stop: int) -> list[dict[str, Any]]:
        return [row.get("meta", {}) for row in self._rows(start, stop)]

    def spans(self, start: int, stop: int) -> np.ndarray:
        spans = [np.stack([index["start"], index["end"]], axis=1) for _, index, _ in self._stretches(start, stop)]
        return np.concatenate([*spans, np.empty((0, 2))])

    def stamps(self, start: int, stop: int) -> np.ndarray:
        stamps, at = np.empty(stop - start, STAMP), 0
        for _, index, _ in self._stretches(start, stop):
            for name in STAMP.names or ():
                stamps[name][at : at + len(index)] = index[name]
            at += len(index)
        return stamps

    def blocks(self) -> Iterator[np.ndarray]:
        return self._views.blocks()

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self._views.rows(indices)

    @cached_property
    def _views(self) -> Views:
        return Views([self._mapped("vectors", part, rows, self._dtype, (self._dim,)) for part, rows in self._parts()], self._dim)

    def _rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for part, index, end in self._stretches(start, stop):
            with open(self._names.part("rows", part), "rb") as file:
                file.seek(index["line"][0])
                yield from map(json.loads, file.read(end - index["line"][0]).splitlines())

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray, int]]:
        """Some rows, by part: its number, their records, and where the last one's line ends."""
        for part, rows in self._parts():
            before = (part - self._first) * self._part_rows
            first, last = max(start - before, 0), min(stop - before, rows)
            if first < last:
                index = self._mapped("index", part, rows, INDEX)
                yield part, index[first:last], int(index["line"][last]) if last < rows else self._line_bytes(part)

    def _line_bytes(self, part: int) -> int:
        last = self._first + max(0, self.count - 1) // self._part_rows
        return self._commit.line_bytes if part == last else self._names.part("rows", part).stat().st_size

    def _parts(self) -> Iterator[tuple[int, int]]:
        """The number of each part, and how many rows count of it."""
        for before in range(0, self.count, self._part_rows):
            yield self._first + before // self._part_rows, min(self._part_rows, self.count - before)

    def _mapped(self, kind: str, part: int, rows: int, dtype: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
        try:
            return mapped(self._names.part(kind, part), rows, dtype, shape)
        except (OSError, ValueError) as error:
            raise UserError(f"{self._names.folder}: not a whole store: {self._names.part(kind, part).name}: {error}") from None

    def _check_sizes(self) -> None:
        """That all is there that was committed; a copy may have been broken off."""
        for part, rows in self._parts():
            for kind, wanted in (
                ("vectors", HEADER + rows * self._dim * self._dtype.itemsize),
                ("index", HEADER + rows * INDEX.itemsize),
                ("rows", self._line_bytes(part)),
            ):
                path = self._names.part(kind, part)
                there = path.stat().st_size if path.exists() else 0
                if there < wanted:
                    raise UserError(f"{self._names.folder}: not a whole store: {path.name} has {there:,} bytes of {wanted:,}")
