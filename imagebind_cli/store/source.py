"""The interface of each format's reader: the `Source` protocol, and sources whose rows are held in memory as columns.

Rows are counted as they are in the file, replaced ones included; `StoreReader` leaves those out.
"""

from __future__ import annotations

import json
import mmap
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import maxsize
from typing import Any, Protocol

import numpy as np

from imagebind_cli.checksums import DAMAGE, SEALED, check_seal
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.store.row import STAMP, VECTOR_SUM, row_stamp, stamp_record
from imagebind_cli.store.sums import DAMAGED, INTACT, UNSUMMED, each_sum

BLOCK_ROWS = 8192  # most rows of a block, where the format does not say


class Source(Protocol):
    """The file of a store, open for reading.

    provenance: how its vectors were made. sealed: whether that has a checksum. count: how many rows it has. hidden: numbers of the replaced
    rows, in rising order.
    """

    provenance: dict[str, Any]
    sealed: bool
    count: int
    hidden: np.ndarray

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the ids of a range of rows."""

    def spans(self, start: int, stop: int) -> np.ndarray:
        """Return their seconds, float64 (n, 2), NaN where a row has none."""

    def stamps(self, start: int, stop: int) -> np.ndarray:
        """Return the stamps of their inputs, `STAMP` (n,)."""

    def metas(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return the other columns of their manifest rows."""

    def clocks(self, start: int, stop: int) -> list[str | None]:
        """Return when they began, in ISO 8601; None where that is not known."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all vectors in order, float32 or float16 (k, dim), mapped from the file where possible."""

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, (k, dim)."""

    def states(self, start: int, vectors: np.ndarray) -> np.ndarray:
        """Compare the rows from `start` on, which have these vectors, with their checksums: `INTACT`, `UNSUMMED` or `DAMAGED` for each, (n,)."""


class Views:
    """The vectors of a file as consecutive memory-mapped arrays (k, dim)."""

    def __init__(self, arrays: Sequence[np.ndarray], dim: int) -> None:
        self._arrays, self._dim = arrays, dim
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield each array in pieces of at most `BLOCK_ROWS`."""
        for vectors in self._arrays:
            for start in range(0, len(vectors), BLOCK_ROWS):
                yield vectors[start : start + BLOCK_ROWS]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return copies of some rows, (k, dim)."""
        found = np.empty((len(indices), self._dim), self._arrays[0].dtype if self._arrays else np.float32)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(which):
            mine = which == number
            found[mine] = self._arrays[number][indices[mine] - self._starts[number]]
        return found


def release(rows: np.ndarray) -> None:
    """Release the memory of rows that are mapped from a file; they are read again when they are needed."""
    behind: object = rows
    while behind is not None and not isinstance(behind, mmap.mmap):
        behind = behind.obj if isinstance(behind, memoryview) else getattr(behind, "base", None)
    if behind is not None and hasattr(mmap, "MADV_DONTNEED"):
        behind.madvise(mmap.MADV_DONTNEED)


VECTOR = b', "embedding": ['
# Where a line's vector begins; only a checksum follows it, so that the rest can be read without it.
KEYS = {"id", "modality", "start", "end", "windows", "clock", "size", "mtime", "hash", "meta"}  # of a row without checksums


RECORD = struct.Struct("<Qqq16s")  # the bytes of one `STAMP`
NO_SUM = -1


@dataclass
class RowTable:
    """Rows as columns, in plain numbers where they can be: as objects they take four times the memory.

    spans: start and end of each row, one after the other. records: a `STAMP` of each. metas: JSON. sums: of their vectors; 0 where there is only
    that of the whole line, `NO_SUM` where there is neither.
    """

    ids: list[str] = field(default_factory=list)
    spans: array[float] = field(default_factory=lambda: array("d"))
    windows: array[int] = field(default_factory=lambda: array("q"))
    records: bytearray = field(default_factory=bytearray)
    metas: dict[int, bytes] = field(default_factory=dict)
    clocks: dict[int, str] = field(default_factory=dict)
    sums: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, line: bytes, place: str, verify: bool = True) -> None:
        """Add a row from a line of JSON.

        Args:
            place: of the line, for messages. verify: compare it with its checksum.
        Raises:
            UserError: it is not a row, or does not match its checksum.
        """
        try:
            sealed, cut = verify and check_seal(line), line.rfind(VECTOR)
            row = parse_json(line if cut < 0 else line[:cut] + b"}")
            sealed = sealed or (not verify and SEALED in row)
            if not sealed and (not row.keys() <= KEYS or (cut >= 0 and not line.endswith((b"]}", b"]}\n")))):
                raise ValueError
            windows, meta, clock = int(row.get("windows", 1)), row.get("meta", {}), row.get("clock", "")
            span = float(row.get("start", np.nan)), float(row.get("end", np.nan))
            if windows < 0 or not isinstance(meta, dict) or not isinstance(clock, str):
                raise ValueError
            record = RECORD.pack(*stamp_record(row["id"], row_stamp(row)))
            vector_sum = int(row.get(VECTOR_SUM, "0"), 16) if sealed else NO_SUM
            self.windows.append(windows)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = error if str(error).startswith(DAMAGE) else "not a row of imagebind embed"
            raise UserError(f"{place} is {reason}") from None
        self.ids.append(row["id"])
        self.spans.extend(span)
        self.records += record
        self.sums.append(vector_sum)
        if meta:
            self.metas[len(self) - 1] = json.dumps(meta).encode()
        if clock:
            self.clocks[len(self) - 1] = clock

    def truncate(self, rows: int) -> None:
        """Keep this many rows."""
        del self.ids[rows:], self.spans[2 * rows :], self.windows[rows:], self.records[RECORD.size * rows :], self.sums[rows:]
        self.metas = {row: meta for row, meta in self.metas.items() if row < rows}
        self.clocks = {row: clock for row, clock in self.clocks.items() if row < rows}

    def items(self) -> Iterator[range]:
        """Yield the rows of each item; those of the last may be fewer than its windows."""
        row = 0
        while row < len(self):
            count = max(1, self.windows[row])
            yield range(row, min(len(self), row + count))
            row += count

    def count_whole(self) -> int:
        """Count the rows without those of a last item of which some windows are missing."""
        return next((item.start for item in self.items() if len(item) < self.windows[item.start]), len(self))

    def hidden(self) -> np.ndarray:
        """Return the rows that a later item of the same id replaces. The windows of a stream continue each other."""
        if len(set(self.ids)) == sum(1 for _ in self.items()):
            return np.empty(0, np.int64)
        latest: dict[str, list[int]] = {}
        hidden: list[int] = []
        for item in self.items():
            before = latest.setdefault(self.ids[item.start], [])
            if before and self.windows[before[-1]] + self.windows[item.start] > 0:
                hidden += before
                before.clear()
            before += item
        return np.array(sorted(hidden), np.int64)

    def stamps(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the stamps of the inputs of a range of rows, `STAMP` (n,)."""
        return np.frombuffer(self.records[start * RECORD.size : None if stop is None else stop * RECORD.size], STAMP)


def read_row_table(path: Path, at_most: int = maxsize, verify: bool = True) -> tuple[RowTable, np.ndarray]:
    """Read the rows of a file of JSON lines, and where each line starts, with the end of the last, (n + 1,).

    Torn ends of a killed run are left out: a last line without its newline, and an item that lacks some windows.

    Args:
        verify: compare each line with its checksum.
    Raises:
        UserError: a line is not a row, or does not match its checksum.
    """
    table, ends = RowTable(), array("q", [0])
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or len(table) == at_most:
                break
            table.add(line, f"{path}: line {len(table) + 1}", verify)
            ends.append(ends[-1] + len(line))
    rows = table.count_whole()
    table.truncate(rows)
    return table, np.array(ends[: rows + 1], np.int64)


class Vectors(Protocol):
    """Where a store's vectors are read from."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all vectors in order, (k, dim)."""

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return some vectors, (k, dim)."""


class SealedLines:
    """The lines of a file, each compared with its checksum when its row is first used: all at once take long to compare."""

    def __init__(self, path: Path, starts: np.ndarray) -> None:
        """starts: of the lines in the file, and the end of the last, (n + 1,)."""
        self._path, self._starts = path, starts
        self._bytes = np.memmap(path, np.uint8, "r").view(np.ndarray) if starts[-1] else np.empty(0, np.uint8)
        self._intact = np.zeros(len(starts) - 1, bool)

    def check(self, start: int, stop: int) -> None:
        """Compare a range of lines.

        Raises:
            UserError: one does not match.
        """
        for row in np.flatnonzero(~self._intact[start:stop]) + start:
            try:
                check_seal(self._bytes[self._starts[row] : self._starts[row + 1]].tobytes())
            except ValueError as error:
                raise UserError(f"{self._path}: line {row + 1} is {error}") from None
        self._intact[start:stop] = True
        release(self._bytes)


class TableSource:
    """A store whose table is in memory; `Source` describes the methods. lines: of rows that were not compared with their checksums."""

    def __init__(
        self, provenance: dict[str, Any], sealed: bool, table: RowTable, vectors: Vectors, lines: SealedLines | None = None
    ) -> None:
        self.provenance, self.sealed = provenance, sealed
        self.count, self.hidden = len(table), table.hidden()
        self.blocks, self.rows = vectors.blocks, vectors.rows
        self._table, self._lines = table, lines

    def _check(self, start: int, stop: int) -> None:
        if self._lines is not None:
            self._lines.check(start, stop)

    def ids(self, start: int, stop: int) -> list[str]:
        self._check(start, stop)
        return self._table.ids[start:stop]

    def spans(self, start: int, stop: int) -> np.ndarray:
        return np.array(self._table.spans[2 * start : 2 * stop], np.float64).reshape(-1, 2)

    def stamps(self, start: int, stop: int) -> np.ndarray:
        return self._table.stamps(start, stop)

    def metas(self, start: int, stop: int) -> list[dict[str, Any]]:
        self._check(start, stop)
        return [json.loads(self._table.metas.get(row, b"{}")) for row in range(start, stop)]

    def clocks(self, start: int, stop: int) -> list[str | None]:
        self._check(start, stop)
        return [self._table.clocks.get(row) for row in range(start, stop)]

    def states(self, start: int, vectors: np.ndarray) -> np.ndarray:
        self._check(start, start + len(vectors))
        recorded = self._table.sums[start : start + len(vectors)].tolist()
        computed = each_sum(vectors).tolist() if max(recorded, default=0) > 0 else recorded
        return np.array(
            [UNSUMMED if sum == NO_SUM else INTACT if sum in (0, found) else DAMAGED for sum, found in zip(recorded, computed, strict=True)]
        )
