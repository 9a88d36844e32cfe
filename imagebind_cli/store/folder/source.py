"""Reading a folder store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store.folder.files import INDEX, FolderFiles, count_damaged_commits, last_commit, read_provenance
from imagebind_cli.store.growing import HEADER, has_header, map_npy
from imagebind_cli.store.row import STAMP
from imagebind_cli.store.source import Views
from imagebind_cli.store.sums import FIRST, SUMS, check_running, row_states


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
        """Yield damage that does not affect reading, but other programs or the next run: to headers, and to records of commits."""
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
        lines = (line for part in self._lines(start, stop) for line in part)
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
            raise UserError(f"{self._names.folder}: not a complete store: {self._names.part(kind, part).name}: {error}") from None

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
                size = path.stat().st_size if path.exists() else 0
                if size < wanted:
                    raise UserError(
                        f"{self._names.folder}: not a complete store: {path.name} has {size:,} bytes of {wanted:,}; copy the store again"
                    )
