"""What a format's reader offers; `StoreReader` does the rest. Rows are counted as they lie in the file, those that do not count any more included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

BLOCK_ROWS = 8192
"""The most rows of a block, where the format does not say."""


class Source(Protocol):
    """A store's file, open for reading.

    made: how it was made. count: how many rows it has. hidden: which of them were replaced by later ones, in rising order.
    """

    made: dict[str, Any]
    count: int
    hidden: np.ndarray

    def ids(self, start: int, stop: int) -> list[str]:
        """Ids of a stretch of rows."""

    def spans(self, start: int, stop: int) -> np.ndarray:
        """Their seconds, float64 (n, 2), NaN where a row has none."""

    def stamps(self, start: int, stop: int) -> np.ndarray:
        """Their inputs, `STAMP` (n,)."""

    def metas(self, start: int, stop: int) -> list[dict[str, Any]]:
        """What their manifest said besides."""

    def blocks(self) -> Iterator[np.ndarray]:
        """All vectors in order, float32 or float16 (k, dim), as they lie in the file where that can be."""

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Some vectors, (k, dim)."""


class Views:
    """The vectors of a file as memory-mapped arrays (k, dim) that follow one another."""

    def __init__(self, arrays: Sequence[np.ndarray], dim: int) -> None:
        self._arrays, self._dim = arrays, dim
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])

    def blocks(self) -> Iterator[np.ndarray]:
        """Each array, cut into pieces of at most `BLOCK_ROWS`."""
        for array in self._arrays:
            for start in range(0, len(array), BLOCK_ROWS):
                yield array[start : start + BLOCK_ROWS]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Copies of some rows, (k, dim)."""
        found = np.empty((len(indices), self._dim), self._arrays[0].dtype if self._arrays else np.float32)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(which):
            mine = which == number
            found[mine] = self._arrays[number][indices[mine] - self._starts[number]]
        return found
