"""The folder store, `NAME.store/`, for the largest stores: append-only parts in common formats.

    made.json               its provenance, and how many rows a part has
    vectors-00000.npy       float32 or float16 (rows, dim)
    rows-00000.jsonl        the id of each row and what belongs to it
    index-00000.npy         the same as records of fixed length (`INDEX`), to look up a million rows at once
    sums-00000.npy          the checksums of each row (`SUMS`)
    replaced-00000.npy      numbers of replaced rows: their input changed and was embedded again
    commits                 a record for each commit: how much of all these is valid

Readers ignore what comes after the last commit, and the next writer cuts it off, so that nothing needs repair.
Compacting writes new parts after the old ones; one commit then makes them the first that count.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.descriptors import remove_unused, sync, write_all
from imagebind_cli.errors import UserError
from imagebind_cli.files import being_written, open_locked, write_sealed_json
from imagebind_cli.store.growing import HEADER, GrowingLines, GrowingNPY, has_header, map_npy
from imagebind_cli.store.provenance import check_resumable, parse_provenance
from imagebind_cli.store.row import STAMP, Row, row_line, stamp_record
from imagebind_cli.store.source import Views
from imagebind_cli.store.sums import FIRST, SUMS, check_running, new_sums, row_states, running_sum

INDEX = np.dtype([*STAMP.descr, ("start", "<f8"), ("end", "<f8"), ("line", "<i8")])
# A row's `STAMP`, its span, and where its line starts in its part's `rows`.
RECORD = struct.Struct("<QQQQI")


def is_folder_store(path: Path, head: bytes) -> bool:
    """Check whether a folder holds the files of a store."""
    return (path / "commits").exists() and (path / "made.json").exists()


@dataclass(frozen=True)
class Commit:
    """How much of a store is valid: rows from part `first` on, bytes of the last part's lines, and replaced rows."""

    first: int = 0
    rows: int = 0
    line_bytes: int = 0
    replaced: int = 0

    def pack(self) -> bytes:
        """Return the record of `commits`."""
        values = (self.first, self.rows, self.line_bytes, self.replaced)
        return RECORD.pack(*values, zlib.crc32(RECORD.pack(*values, 0)))


def last_commit(path: Path) -> tuple[Commit, int]:
    """Read the last whole record of `commits`, and where the next one goes."""
    with open(path, "rb") as file:
        records = file.seek(0, os.SEEK_END) // RECORD.size
        while records:
            file.seek((records - 1) * RECORD.size)
            *values, _ = RECORD.unpack(found := file.read(RECORD.size))
            if Commit(*values).pack() == found:
                return Commit(*values), records * RECORD.size
            records -= 1
    return Commit(), 0


def count_damaged_commits(path: Path) -> int:
    """Count the records of `commits` that are not whole; those before the last whole one no longer count."""
    data = path.read_bytes()
    records = (data[start : start + RECORD.size] for start in range(0, len(data), RECORD.size))
    return sum(len(record) < RECORD.size or Commit(*RECORD.unpack(record)[:-1]).pack() != record for record in records)


@dataclass(frozen=True)
class FolderFiles:
    """A folder store's files."""

    folder: Path

    def part(self, kind: str, number: int) -> Path:
        """Return a part of `vectors`, `rows`, `index`, `sums` or `replaced`."""
        return self.folder / f"{kind}-{number:05}.{'jsonl' if kind == 'rows' else 'npy'}"

    @property
    def provenance(self) -> Path:
        """The file of its provenance."""
        return self.folder / "made.json"

    @property
    def commits(self) -> Path:
        """The file of commits, which a writer locks."""
        return self.folder / "commits"


def read_provenance(names: FolderFiles) -> tuple[dict[str, Any], int, bool]:
    """Read the provenance of a folder store, how many rows a part has, and whether the record has a checksum.

    Raises:
        UserError: it cannot be read.
    """
    try:
        provenance, sealed = parse_provenance(names.provenance.read_bytes())
        if not (isinstance(rows := provenance.pop("part_rows"), int) and 0 < rows < 1 << 40):
            raise ValueError(f"parts of {rows!r} rows")
        return provenance, rows, sealed
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{names.folder}: not a store of imagebind embed: {names.provenance.name}: {error}") from None


class FolderSource:
    """A folder store being read, also while another process writes to it; `Source` describes the methods."""

    def __init__(self, path: Path) -> None:
        self._names = FolderFiles(path)
        self.provenance, self._part_rows, self.sealed = read_provenance(self._names)
        self._commit = last_commit(self._names.commits)[0]
        self.count, self._first = self._commit.rows, self._commit.first
        self._dtype, self._dim = np.dtype(self.provenance["array"]), int(self.provenance["dim"])
        self._check_sizes()
        self._replaced = self._mapped("replaced", self._first, self._commit.replaced, np.int64)
        self.hidden = np.sort(self._replaced)
        for part, rows in list(self._parts())[-1:]:
            check_running(self._sums(part, rows)[-1:], replaced=self._replaced)

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

    def check_inputs(self) -> None:
        """Compare the records of inputs with their checksums.

        Raises:
            ValueError: they do not match.
        """
        for part, rows in self._parts():
            check_running(self._sums(part, rows)[-1:], inputs=self._mapped("index", part, rows, INDEX))

    def faults(self) -> Iterator[str]:
        """Yield what reading does not rely on, and other programs or the next run do: damaged headers, and records of commits."""
        for part, rows in self._parts():
            for kind, dtype, shape in (("vectors", self._dtype, (self._dim,)), ("index", INDEX, ()), ("sums", SUMS, ())):
                path = self._names.part(kind, part)
                if path.exists() and not has_header(path, rows, dtype, shape):
                    yield f"{path.name}: its header is damaged"
        path = self._names.part("replaced", self._first)
        if path.exists() and not has_header(path, self._commit.replaced, np.dtype(np.int64), ()):
            yield f"{path.name}: its header is damaged"
        if bad := count_damaged_commits(self._names.commits):
            yield f"{self._names.commits.name}: {bad:,} records are damaged, or were not written in full"

    def states(self, start: int, vectors: np.ndarray) -> np.ndarray:
        states, at, stop = [], 0, start + len(vectors)
        for (part, index, _), lines in zip(self._stretches(start, stop), self._lines(start, stop), strict=True):
            first = start + at - (part - self._first) * self._part_rows
            sums = np.concatenate([FIRST[first:], self._sums(part, first + len(index))[max(0, first - 1) :]])
            states.append(row_states(sums, vectors[at : at + len(index)], ([line] for line in lines), index, self._replaced))
            at += len(index)
        return np.concatenate(states)

    def _sums(self, part: int, rows: int) -> np.ndarray:
        """Return the `SUMS` of the first rows of a part; zeros where an earlier version wrote it."""
        path = self._names.part("sums", part)
        return self._mapped("sums", part, rows, SUMS) if path.exists() else np.zeros(rows, SUMS)

    def clocks(self, start: int, stop: int) -> list[str | None]:
        lines = (line for some in self._lines(start, stop) for line in some)
        return [json.loads(line).get("clock") if b'"clock": ' in line else None for line in lines]

    def blocks(self) -> Iterator[np.ndarray]:
        return self._views.blocks()

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self._views.rows(indices)

    @cached_property
    def _views(self) -> Views:
        return Views([self._mapped("vectors", part, rows, self._dtype, (self._dim,)) for part, rows in self._parts()], self._dim)

    def _rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for lines in self._lines(start, stop):
            yield from map(json.loads, lines)

    def _lines(self, start: int, stop: int) -> Iterator[list[bytes]]:
        for part, index, end in self._stretches(start, stop):
            with open(self._names.part("rows", part), "rb") as file:
                file.seek(index["line"][0])
                yield file.read(end - index["line"][0]).splitlines()

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray, int]]:
        """Yield a range of rows by part: its number, their records, and where the last one's line ends."""
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
        """Yield the number of each part, and how many of its rows are valid."""
        for before in range(0, self.count, self._part_rows):
            yield self._first + before // self._part_rows, min(self._part_rows, self.count - before)

    def _mapped(self, kind: str, part: int, rows: int, dtype: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
        try:
            return map_npy(self._names.part(kind, part), rows, dtype, shape)
        except (OSError, ValueError) as error:
            raise UserError(f"{self._names.folder}: not a whole store: {self._names.part(kind, part).name}: {error}") from None

    def _check_sizes(self) -> None:
        """Check that everything that was committed exists; a copy may have been interrupted."""
        last = self._first + max(0, self.count - 1) // self._part_rows
        for part, rows in self._parts():
            for kind, wanted in (
                ("vectors", HEADER + rows * self._dim * self._dtype.itemsize),
                ("index", HEADER + rows * INDEX.itemsize),
                ("rows", self._line_bytes(part)),
                ("sums", HEADER + rows * SUMS.itemsize),
            ):
                path = self._names.part(kind, part)
                if kind == "sums" and not path.exists() and not (self.sealed and part == last):  # an earlier version wrote this part
                    continue
                there = path.stat().st_size if path.exists() else 0
                if there < wanted:
                    raise UserError(f"{self._names.folder}: not a whole store: {path.name} has {there:,} bytes of {wanted:,}")


PART_BYTES = 1 << 30


class FolderPart:
    """The files of one part, being appended to."""

    def __init__(self, names: FolderFiles, number: int, provenance: Mapping[str, Any]) -> None:
        self.number, self._array = number, np.dtype(provenance["array"])
        self._vectors = GrowingNPY(names.part("vectors", number), self._array, (int(provenance["dim"]),))
        self._index = GrowingNPY(names.part("index", number), INDEX)
        self._sums = GrowingNPY(names.part("sums", number), SUMS)
        self._lines = GrowingLines(names.part("rows", number))
        self._mapped_index = partial(map_npy, names.part("index", number), dtype=INDEX)
        self._inputs_sum = 0

    @property
    def rows(self) -> int:
        """Rows in it."""
        return self._index.rows

    @property
    def line_bytes(self) -> int:
        """Bytes of its lines."""
        return self._lines.length

    def truncate(self, rows: int, line_bytes: int) -> None:
        """Keep this many rows, and bytes of lines. Sums, which an earlier version did not write, become zeros."""
        for file in (self._vectors, self._index, self._sums):
            file.truncate(rows)
        self._lines.truncate(line_bytes)
        self._inputs_sum = running_sum(self._mapped_index(rows))

    def append(self, rows: list[Row], replaced_sum: int) -> None:
        """Add rows. replaced_sum: of all numbers of replaced rows."""
        lines = [row_line(row) for row in rows]
        starts = self.line_bytes + np.cumsum([0, *map(len, lines)])[:-1]
        records = [
            (*stamp_record(row.id, row.stamp), *(row.span or (np.nan, np.nan)), start) for row, start in zip(rows, starts, strict=True)
        ]
        vectors, index = np.stack([row.vector for row in rows]).astype(self._array), np.array(records, INDEX)
        sums = new_sums(vectors, ([line[:-1]] for line in lines), index, self._inputs_sum, replaced_sum)
        self._vectors.append(vectors)
        self._index.append(index)
        self._sums.append(sums)
        self._lines.append(b"".join(lines))
        self._inputs_sum = int(sums["inputs"][-1])

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        for file in (self._vectors, self._index, self._sums, self._lines):
            file.sync()

    def close(self) -> None:
        """Close its files."""
        for file in (self._vectors, self._index, self._sums, self._lines):
            file.close()


class FolderWriter:
    """A folder store being appended to; `Format` describes the methods."""

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        self.files, self._names, self._provenance = [path], FolderFiles(path), provenance
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: exists and is not a folder; write to another")
        if path.is_dir() and not self._names.provenance.exists() and {entry.name for entry in path.iterdir()} - {self._names.commits.name}:
            raise UserError(f"{path}: exists and was not made by imagebind embed; write to another folder")
        path.mkdir(exist_ok=True)
        self._opened: list[GrowingNPY | FolderPart] = []  # the replaced rows, then the last part
        self._replaced: GrowingNPY
        self._replaced_sum: int
        self._lock = open_locked(self._names.commits, being_written(path))
        try:
            if self._names.provenance.exists():
                before, self._part_rows, self._sealed = read_provenance(self._names)
                check_resumable(path, before, provenance)
            else:
                self._part_rows = max(1, PART_BYTES // (int(provenance["dim"]) * np.dtype(provenance["array"]).itemsize))
                self.describe(provenance)
            self._commit, self._place = last_commit(self._names.commits)
            self._restore()
            source = FolderSource(path)
            source.check_inputs()
            self.stamps, self.hidden = source.stamps(0, source.count), source.hidden
        except BaseException as error:
            self.release()
            if isinstance(error, ValueError):
                raise UserError(f"{path}: {error}") from None
            raise

    def describe(self, provenance: Mapping[str, Any]) -> None:
        write_sealed_json(self._names.provenance, {**provenance, "part_rows": self._part_rows})
        self._sealed = True

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        if not self._sealed:
            self.describe(self._provenance)
        try:
            self._append(rows, replaced)
            self._record()
        except OSError:
            self._restore()
            raise

    def rewrite(self, batches: Iterable[list[Row]]) -> None:
        """Make these the store's only rows: in new parts after the old ones, which are removed once the new ones are complete."""
        try:
            self._move_to(Commit(first=self._part.number + 1))
            for rows in batches:
                self._append(rows, [])
            self._record()
        finally:
            self._restore()

    def close(self) -> None:
        """Do nothing: every commit is whole."""

    def release(self) -> None:
        self._close_to(0)
        os.close(self._lock)

    def _append(self, rows: list[Row], replaced: list[int]) -> None:
        numbers = np.array(replaced, np.int64)
        self._replaced.append(numbers)
        self._replaced_sum = running_sum(numbers, self._replaced_sum)
        while rows:
            room = self._part_rows - self._part.rows
            if room == 0:
                self._part.sync()
                self._open_part(self._part.number + 1, 0, 0)
            else:
                self._part.append(rows[:room], self._replaced_sum)
                rows = rows[room:]

    def _record(self) -> None:
        """Commit what was appended."""
        self._part.sync()
        self._replaced.sync()
        rows = (self._part.number - self._first) * self._part_rows + self._part.rows
        commit = Commit(self._first, rows, self._part.line_bytes, self._replaced.rows)
        write_all(self._lock, commit.pack(), self._place)
        os.fsync(self._lock)
        self._commit, self._place = commit, self._place + RECORD.size

    def _restore(self) -> None:
        """Open the parts that the last commit counts, and remove the others."""
        os.ftruncate(self._lock, self._place)
        self._move_to(self._commit)
        for path in self._names.folder.iterdir():
            kind, _, number = path.stem.partition("-")
            if number.isdecimal() and not self._first <= int(number) <= (self._first if kind == "replaced" else self._part.number):
                remove_unused(path)

    def _move_to(self, commit: Commit) -> None:
        self._close_to(0)
        self._first = commit.first
        self._replaced = GrowingNPY(self._names.part("replaced", commit.first), np.int64)
        self._opened.append(self._replaced)
        self._replaced.truncate(commit.replaced)
        self._replaced_sum = running_sum(map_npy(self._names.part("replaced", commit.first), commit.replaced, np.int64))
        last = max(0, commit.rows - 1) // self._part_rows
        self._open_part(commit.first + last, commit.rows - last * self._part_rows, commit.line_bytes)

    def _open_part(self, number: int, rows: int, line_bytes: int) -> None:
        self._close_to(1)
        self._part = FolderPart(self._names, number, self._provenance)
        self._opened.append(self._part)
        self._part.truncate(rows, line_bytes)
        sync(self._names.folder)

    def _close_to(self, count: int) -> None:
        while len(self._opened) > count:
            self._opened.pop().close()
