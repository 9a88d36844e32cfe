"""The items of a store as unit vectors: in memory as float32 or float16, or in a temporary file, as a memory limit allows."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store import StoreReader
from imagebind_cli.store.source import release

MEMORY = 1_000_000_000  # bytes, unless another limit is given
BLOCK = 8192  # items at a time
ROUNDING = {"float32": 1e-6, "float16": 4e-5}  # how far 1 - cosine of two equal vectors may be from 0 in this number type


@dataclass
class StoredVectors:
    """A unit vector for each item, in the order of their first rows. Use it as a context manager: a temporary file may be behind it.

    ids: of the items. first: the number of each item's first row in the store. rows: (items, dim), float32 or float16.
    """

    ids: list[str]
    first: np.ndarray
    rows: np.ndarray
    _stack: ExitStack

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def rounding(self) -> float:
        """Return how far 1 - cosine of two equal vectors may be from 0."""
        return ROUNDING[str(self.rows.dtype)]

    def mean(self) -> np.ndarray:
        """Return the mean of all items, float64 (dim,)."""
        total = np.zeros(self.rows.shape[1])
        for start in range(0, len(self), BLOCK):
            total += self.rows[start : start + BLOCK].sum(axis=0, dtype=np.float64)
            release(self.rows)
        return total / len(self)


def item_vectors(store: StoreReader, memory: int = MEMORY) -> StoredVectors:
    """Read a store's items. An item with several windows counts as the mean of its windows.

    memory: bytes for vectors and distances; the vectors take at most half of it, and are in a temporary file of float16 where even float16
    would take more.
    Raises:
        UserError: the store is empty, or a row is zero or not finite.
    """
    ids = store.ids
    if not ids:
        raise UserError(f"{store.path}: holds no rows")
    number: dict[str, int] = {}
    of_row = np.fromiter((number.setdefault(id, len(number)) for id in ids), np.int64, len(ids))
    first = np.full(len(number), len(ids), np.int64)
    np.minimum.at(first, of_row, np.arange(len(ids)))
    single = len(number) == len(ids)
    names = ids if single else list(number)
    del number
    stack = ExitStack()
    try:
        # Sums of windows are of float32; single rows may be held as float16, which changes a cosine by less than 0.0001.
        rows = _array(stack, (len(names), store.dim), memory, None if single else np.dtype(np.float32))
        start = 0
        for turn, block in enumerate(store.blocks()):
            wide = block.astype(np.float32)
            lengths = np.linalg.norm(wide, axis=1, keepdims=True)
            if not (np.isfinite(lengths) & (lengths > 0)).all():
                raise UserError(f"{store.path}: a vector is zero or not finite; `imagebind store check` names it")
            wide /= lengths
            if single:
                rows[start : start + len(wide)] = wide
            else:
                np.add.at(rows, of_row[start : start + len(wide)], wide)
            start += len(block)
            if turn % 16 == 0:
                release(rows)
                release(block)
        for at in range(0, 0 if single else len(rows), 4096):
            piece = rows[at : at + 4096]
            piece /= np.maximum(np.linalg.norm(piece, axis=1, keepdims=True), 1e-12)  # opposite windows have no mean: a zero row
        return StoredVectors(names, first, rows, stack)
    except BaseException:
        stack.close()
        raise


def _array(stack: ExitStack, shape: tuple[int, int], memory: int, dtype: np.dtype | None) -> np.ndarray:
    """Return zeros of a shape, in memory where they take at most half of it."""
    for kind in (np.dtype(np.float32), np.dtype(np.float16)) if dtype is None else (dtype,):
        if shape[0] * shape[1] * kind.itemsize <= memory // 2:
            return np.zeros(shape, kind)
    file = stack.enter_context(tempfile.TemporaryFile(prefix="imagebind-insight-"))  # noqa: SIM115 - the stack closes it
    return np.memmap(file, dtype or np.float16, "w+", shape=shape)
