"""Appending to a folder store; `folder` says what lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.files import being_written, open_locked, sync, write_all, write_json
from imagebind_cli.store.folder import INDEX, RECORD, Commit, FolderSource, Names, last_commit, read_made
from imagebind_cli.store.growing import GrowingLines, GrowingNPY
from imagebind_cli.store.made import check_same
from imagebind_cli.store.row import Row, row_line, stamp_record

PART_BYTES = 1 << 30


class Part:
    """The files of one part, being appended to."""

    def __init__(self, names: Names, number: int, made: Mapping[str, Any]) -> None:
        self.number = number
        self._vectors = GrowingNPY(names.part("vectors", number), made["array"], (int(made["dim"]),))
        self._index = GrowingNPY(names.part("index", number), INDEX)
        self._lines = GrowingLines(names.part("rows", number))

    @property
    def rows(self) -> int:
        """Rows in it."""
        return self._index.rows

    @property
    def line_bytes(self) -> int:
        """Bytes of its lines."""
        return self._lines.length

    def truncate(self, rows: int, line_bytes: int) -> None:
        """Keep so much."""
        self._vectors.truncate(rows)
        self._index.truncate(rows)
        self._lines.truncate(line_bytes)

    def append(self, rows: list[Row]) -> None:
        """Add rows."""
        lines = [row_line(row) for row in rows]
        starts = self.line_bytes + np.cumsum([0, *map(len, lines)])[:-1]
        records = [
            (*stamp_record(row.id, row.stamp), *(row.span or (np.nan, np.nan)), start) for row, start in zip(rows, starts, strict=True)
        ]
        self._vectors.append(np.stack([row.vector for row in rows]))
        self._index.append(np.array(records, INDEX))
        self._lines.append(b"".join(lines))

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        for file in (self._vectors, self._index, self._lines):
            file.sync()

    def close(self) -> None:
        """Close its files."""
        for file in (self._vectors, self._index, self._lines):
            file.close()


class FolderWriter:
    """A folder store being appended to; `Format` says what its methods do."""

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        self.files, self._names, self._made = [path], Names(path), made
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: exists and is no folder; write to another")
        if path.is_dir() and not self._names.made.exists() and {entry.name for entry in path.iterdir()} - {self._names.commits.name}:
            raise UserError(f"{path}: exists and was not made by imagebind embed; write to another folder")
        path.mkdir(exist_ok=True)
        self._opened: list[GrowingNPY | Part] = []  # the replaced rows, then the last part
        self._lock = open_locked(self._names.commits, being_written(path))
        try:
            if self._names.made.exists():
                before, self._part_rows = read_made(self._names)
                check_same(path, before, made)
            else:
                self._part_rows = max(1, PART_BYTES // (int(made["dim"]) * np.dtype(made["array"]).itemsize))
                self.describe(made)
            self._commit, self._place = last_commit(self._names.commits)
            self._restore()
            source = FolderSource(path)
            self.stamps, self.hidden = source.stamps(0, source.count), source.hidden
        except BaseException:
            self.release()
            raise

    def describe(self, made: Mapping[str, Any]) -> None:
        write_json(self._names.made, {**made, "part_rows": self._part_rows})

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        try:
            self._append(rows, replaced)
            self._record()
        except OSError:
            self._restore()
            raise

    def rewrite(self, batches: Iterable[list[Row]]) -> None:
        """Make these the store's only rows: in new parts behind the old ones, which go once all is there."""
        try:
            self._move_to(Commit(first=self._part.number + 1))
            for rows in batches:
                self._append(rows, [])
            self._record()
        finally:
            self._restore()

    def close(self) -> None:
        """Nothing: every commit is whole."""

    def release(self) -> None:
        self._close_to(0)
        os.close(self._lock)

    def _append(self, rows: list[Row], replaced: list[int]) -> None:
        self._replaced.append(np.array(replaced, np.int64))
        while rows:
            room = self._part_rows - self._part.rows
            if room == 0:
                self._part.sync()
                self._open_part(self._part.number + 1, 0, 0)
            else:
                self._part.append(rows[:room])
                rows = rows[room:]

    def _record(self) -> None:
        """Make what was appended count."""
        self._part.sync()
        self._replaced.sync()
        rows = (self._part.number - self._first) * self._part_rows + self._part.rows
        commit = Commit(self._first, rows, self._part.line_bytes, self._replaced.rows)
        write_all(self._lock, commit.pack(), self._place)
        os.fsync(self._lock)
        self._commit, self._place = commit, self._place + RECORD.size

    def _restore(self) -> None:
        """Open what the last commit counts, and remove what it does not."""
        os.ftruncate(self._lock, self._place)
        self._move_to(self._commit)
        for path in self._names.folder.iterdir():
            kind, _, number = path.stem.partition("-")
            if number.isdecimal() and not self._first <= int(number) <= (self._first if kind == "replaced" else self._part.number):
                path.unlink()

    def _move_to(self, commit: Commit) -> None:
        self._close_to(0)
        self._first = commit.first
        self._replaced = GrowingNPY(self._names.part("replaced", commit.first), np.int64)
        self._opened.append(self._replaced)
        self._replaced.truncate(commit.replaced)
        last = max(0, commit.rows - 1) // self._part_rows
        self._open_part(commit.first + last, commit.rows - last * self._part_rows, commit.line_bytes)

    def _open_part(self, number: int, rows: int, line_bytes: int) -> None:
        self._close_to(1)
        self._part = Part(self._names, number, self._made)
        self._opened.append(self._part)
        self._part.truncate(rows, line_bytes)
        sync(self._names.folder)

    def _close_to(self, count: int) -> None:
        while len(self._opened) > count:
            self._opened.pop().close()
