"""The plain formats: `.jsonl`, a line for each embedding, and `.npy` with lines beside it. Their provenance is in `NAME.made.json`.

An id that comes again later was embedded again, because its input had changed: the later rows count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.files import write_sealed_json
from imagebind_cli.store.growing import GrowingLines, GrowingNPY
from imagebind_cli.store.provenance import check_provenance_file, parse_provenance, provenance_path
from imagebind_cli.store.row import Row, sealed_row_line, stored_line
from imagebind_cli.store.source import VECTOR, SealedLines, TableSource, Views, read_row_table

BLOCK_LINES = 1024


def is_lines(path: Path, head: bytes) -> bool:
    """Check whether a file's first bytes are of lines with embeddings, or it will have such lines."""
    return (VECTOR in head and head.lstrip().startswith(b"{")) or (path.suffix == ".jsonl" and is_described(path, head))


def is_described(path: Path, head: bytes) -> bool:
    """Check whether a file's provenance is beside it."""
    return provenance_path(path).exists()


class JSONLinesWriter:
    """A `.jsonl` file being appended to; `Format` describes the methods."""

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        if path.with_suffix(".npy").exists():
            raise UserError(f"{path}: holds the ids of {path.with_suffix('.npy')}; write to another file")
        self.files = [path, provenance_path(path)]
        self._modality = provenance["modality"]
        self._lines = GrowingLines(path, lock_for=path)
        try:
            check_provenance_file(path, provenance)
            table, starts = read_row_table(path)
            self._lines.truncate(int(starts[-1]))
        except BaseException:
            self._lines.close()
            raise
        self.stamps, self.hidden = table.stamps(), table.hidden()

    def describe(self, provenance: Mapping[str, Any]) -> None:
        write_sealed_json(self.files[1], provenance)

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        length = self._lines.length
        try:
            self._lines.append(b"".join(stored_line(row, self._modality) for row in rows))
        except OSError:
            self._lines.truncate(length)
            raise

    def close(self) -> None:
        self._lines.sync()

    def release(self) -> None:
        self._lines.close()


class NPYWriter:
    """A `.npy` file being appended to, with its lines; `Format` describes the methods."""

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        lines = path.with_suffix(".jsonl")
        if lines.exists() and not path.exists():
            raise UserError(f"{lines}: exists, and would hold the ids of {path}; write to another file")
        self.files, self._array = [path, lines, provenance_path(path)], np.dtype(provenance["array"])
        self._vectors = GrowingNPY(path, provenance["array"], (int(provenance["dim"]),), lock_for=path)
        try:
            check_provenance_file(path, provenance)
            self._lines = GrowingLines(lines)
        except BaseException:
            self._vectors.close()
            raise
        try:
            # Vectors are written before their lines: a row with a line is whole, one without is dropped.
            table, starts = read_row_table(lines, self._vectors.rows)
            self._cut(len(table), int(starts[-1]))
        except BaseException:
            self.release()
            raise
        self.stamps, self.hidden = table.stamps(), table.hidden()

    def _cut(self, rows: int, length: int) -> None:
        self._vectors.truncate(rows)
        self._lines.truncate(length)

    def describe(self, provenance: Mapping[str, Any]) -> None:
        write_sealed_json(self.files[2], provenance)

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        whole, length = self._vectors.rows, self._lines.length
        try:
            vectors = np.stack([row.vector for row in rows]).astype(self._array)
            self._vectors.append(vectors)
            self._lines.append(b"".join(map(sealed_row_line, rows, vectors)))
        except OSError:
            self._cut(whole, length)
            raise

    def close(self) -> None:
        self._vectors.sync()
        self._lines.sync()

    def release(self) -> None:
        self._vectors.close()
        self._lines.close()


def open_lines(path: Path) -> TableSource:
    """Open a `.jsonl` file to read."""
    made = _made(path)
    (provenance, sealed), (table, starts) = parse_provenance(made), read_row_table(path)
    return TableSource(provenance, sealed, table, LineVectors(path, starts, int(provenance["dim"])))


def open_npy(path: Path) -> TableSource:
    """Open a `.npy` file to read."""
    made = _made(path)
    provenance, sealed = parse_provenance(made)
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    lines = path.with_suffix(".jsonl")
    table, starts = read_row_table(lines, len(vectors), verify=False)  # that would take a sixth of the time of a search
    return TableSource(provenance, sealed, table, Views([vectors[: len(table)]], int(provenance["dim"])), SealedLines(lines, starts))


def _made(path: Path) -> bytes:
    record = provenance_path(path)
    if not record.exists():
        raise ValueError(f"there is no {record.name} beside it, which would say how it was made; write it with -o")
    return record.read_bytes()


class LineVectors:
    """The vectors in lines of JSON, parsed a block at a time."""

    def __init__(self, path: Path, starts: np.ndarray, dim: int) -> None:
        self._starts, self._dim = starts, dim
        self._bytes = np.memmap(path, np.uint8, "r") if starts[-1] else np.empty(0, np.uint8)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all vectors in order, float32 (k, dim)."""
        for start in range(0, len(self._starts) - 1, BLOCK_LINES):
            yield self.rows(np.arange(start, min(start + BLOCK_LINES, len(self._starts) - 1)))

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, float32 (k, dim)."""
        lines = (self._bytes[self._starts[row] : self._starts[row + 1]].tobytes() for row in indices)
        vectors = [json.loads(line)["embedding"] for line in lines]
        return np.array(vectors, np.float32).reshape(len(indices), self._dim)
