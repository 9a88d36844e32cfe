"""Writing a folder store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.descriptors import remove_unused, sync, write_all
from imagebind_cli.errors import UserError
from imagebind_cli.files import being_written, open_locked, write_sealed_json
from imagebind_cli.store.folder.files import INDEX, RECORD, Commit, FolderFiles, last_commit, read_provenance
from imagebind_cli.store.folder.source import FolderSource
from imagebind_cli.store.growing import GrowingLines, GrowingNPY, map_npy
from imagebind_cli.store.provenance import check_resumable
from imagebind_cli.store.row import Row, row_line, stamp_record
from imagebind_cli.store.sums import SUMS, new_sums, running_sum

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
        """Keep this many rows, and bytes of lines. Checksums that an earlier version did not write become zeros."""
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
            raise UserError(f"{path}: exists and is not a folder; write to another path")
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
        """Do nothing: every commit is complete."""

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
