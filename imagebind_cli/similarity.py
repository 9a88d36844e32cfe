"""Combine unit vectors, find the exact top k of any number of rows, and rank known answers. numpy alone.

Rows come as a stream of blocks, so that a store larger than memory is searched without holding it. They are scored in float32, at the speed of
memory for one query and of the matrix units for many; whatever float32 cannot rule out is scored again in float64, so the answer is that
of float64 throughout.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

PIECE = 4096  # rows scored at once: large enough that Python's time does not matter, small enough to stay bounded with any block
PRODUCT = 8192  # rows in one matrix product of many queries: with a store's blocks of 1,024 the matrix units lose a third of their speed
GROUP = 256  # queries scored at once
FEW = 8  # up to this many queries, reading the rows is the bottleneck, and threads that read are faster than a matrix product
TOGETHER = 4  # pieces that a thread reads at a time: each handover waits for the interpreter
TIED = 1e-12  # scores this close are equal when many are ranked: a float64 matrix product may give equal rows sums that differ by 1e-13
MERGED = 512  # rows that wait until they are sorted into the best: sorting costs much the same for one as for all of these
HELD = 1 << 25  # scores held at once when many are ranked

Blocks = Iterable[np.ndarray]
Names = Callable[[np.ndarray], Sequence[str]]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (…, dim) to length 1, float64.

    Raises:
        ValueError: one of them has no direction: it is zero, or not finite.
    """
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 1e-12)).all():
        raise ValueError("a vector that is zero or not finite has no direction")
    return vectors / lengths


def combine(vectors: np.ndarray, weights: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Combine vectors (n, dim) into one unit vector (dim,) float64: the weighted sum of their unit vectors, scaled to length 1.

    weights: n numbers, below 0 to subtract; equal if not given. Raises ValueError if the sum is zero.
    """
    units = unit(vectors)
    return unit(np.ones(len(units)) @ units if weights is None else np.asarray(weights, np.float64) @ units)


def top_k(blocks: Blocks, queries: np.ndarray, k: int, names: Names | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the k rows with the highest inner product with each query, best first.

    Args:
        blocks: arrays (rows, dim), unit vectors in float32 or float16; read once, one after the other.
        queries: (queries, dim).
        names: row numbers to their ids. Among equal scores the first by id comes first, or the first row if this is not given.
    Returns:
        Row numbers int64 and scores float64, (queries, k) each; k is smaller where there are fewer rows.
    """
    queries = np.asarray(queries, np.float64)
    groups = [_Best(queries[start : start + GROUP], k, names) for start in range(0, len(queries), GROUP)]
    rows = 0
    for start, piece, scores in _score(blocks, [group.queries.astype(np.float32) for group in groups]):
        for group, group_scores in zip(groups, scores, strict=True):
            group.add(start, piece, group_scores)
        rows = start + len(piece)
    for group in groups:
        group.merge()
    k = min(k, rows)
    if not groups:
        return np.empty((0, k), np.int64), np.empty((0, k))
    return np.concatenate([group.rows[:, :k] for group in groups]), np.concatenate([group.scores[:, :k] for group in groups])


def positions_by_id(ids: Sequence[str]) -> np.ndarray:
    """Return the position of each row when rows are sorted by id, those of one id in their own order: int64 (rows,)."""
    place = np.empty(len(ids), np.int64)
    place[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return place


def ranks(blocks: Callable[[], Blocks], queries: np.ndarray, relevant: Sequence[np.ndarray], place: np.ndarray) -> list[np.ndarray]:
    """Rank the relevant rows of each query among all rows: ranks from 0, in rising order.

    Args:
        blocks: gives the rows from the first, each time it is called: once for every `HELD` scores.
        queries: (queries, dim). relevant: row numbers for each, at least one. place: of each row, as `positions_by_id` gives it: of two rows
            of equal score the one with the lower place comes first.
    """
    size = min(GROUP, max(1, HELD // max(1, len(place))))
    ranked: list[np.ndarray] = []
    for first in range(0, len(queries), size):
        group = np.asarray(queries[first : first + size], np.float64)
        scores = np.empty((len(group), len(place)))
        for start, piece in _pieces(blocks()):
            scores[:, start : start + len(piece)] = group @ piece.astype(np.float64).T
        ranked += [_ranks(row, rows, place) for row, rows in zip(scores, relevant[first : first + size], strict=True)]
    return ranked


def _ranks(scores: np.ndarray, relevant: np.ndarray, place: np.ndarray) -> np.ndarray:
    above = np.flatnonzero(scores >= scores[relevant].min() - TIED)  # the rest cannot matter
    above = above[np.argsort(-scores[above], kind="stable")]
    level = np.cumsum(np.diff(scores[above], prepend=np.inf) < -TIED)  # equal scores are one level
    return np.flatnonzero(np.isin(above[np.lexsort((place[above], level))], relevant))


class _Best:
    """The best k rows so far of some queries, exact in float64.

    rows, scores: (queries, k), as of the last `merge`, which `add` calls when enough has come together.
    """

    def __init__(self, queries: np.ndarray, k: int, names: Names | None) -> None:
        self.queries, self.k, self.names = queries, k, names
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.scores = np.full((len(queries), k), -np.inf)
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # queries, rows and scores (n,)
        # What a float32 sum of dim products can be wrong by, whatever its order, and as much again for the rounded query.
        self.doubt = 2 * queries.shape[1] * 2.0**-24 * np.linalg.norm(queries, axis=1)

    def add(self, start: int, piece: np.ndarray, scores: np.ndarray) -> None:
        """Add rows from number `start` on: piece (rows, dim), with their float32 scores (rows, queries), which are overwritten."""
        least = (self.scores[:, -1] - self.doubt).astype(np.float32)
        hits = scores >= least
        if not hits.any():
            return
        if len(piece) > self.k and np.count_nonzero(hits) > 4 * self.k * len(least):  # the first rows, or ever better ones
            scores[~np.isfinite(scores)] = -np.inf
            among = np.partition(scores, len(piece) - self.k, axis=0)[len(piece) - self.k]
            hits &= scores >= (among - 2 * self.doubt).astype(np.float32)
        places, queries = np.divmod(np.flatnonzero(hits), len(least))  # nonzero itself takes ten times as long
        for first in range(0, len(places), 2 * MERGED):  # rows that are all alike are all hits
            place, query = places[first : first + 2 * MERGED], queries[first : first + 2 * MERGED]
            # The same sum for equal rows wherever they are, which a matrix product does not promise.
            exact = np.einsum("nd,nd->n", piece[place].astype(np.float64), self.queries[query])
            self._waiting.append((query, start + place, np.where(np.isfinite(exact), exact, -np.inf)))
            if sum(len(query) for query, _, _ in self._waiting) >= min(MERGED, self.scores.size):
                self.merge()

    def merge(self) -> None:
        """Merge the waiting rows into the best."""
        if not self._waiting:
            return
        query, rows, scores = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting = []
        asking, column = np.unique(query, return_inverse=True)
        queries = np.concatenate([np.repeat(np.arange(len(asking)), self.k), column])
        rows, scores = np.concatenate([self.rows[asking].ravel(), rows]), np.concatenate([self.scores[asking].ravel(), scores])
        order = np.lexsort((rows, -scores, queries))
        ranked, owner = scores[order], queries[order]
        same = (ranked[1:] == ranked[:-1]) & (owner[1:] == owner[:-1]) & (ranked[1:] > -np.inf)
        if self.names is not None and same.any():
            tied = order[np.append(same, False) | np.append(False, same)]
            order = np.lexsort((self._by_name(rows, tied), -scores, queries))
        first = np.searchsorted(owner, np.arange(len(asking)))
        best = order[first[:, None] + np.arange(self.k)]
        self.rows[asking], self.scores[asking] = rows[best], scores[best]

    def _by_name(self, rows: np.ndarray, tied: np.ndarray) -> np.ndarray:
        """Return a key that sorts the tied entries by name; rows of one name, as the windows of a sound, by number."""
        assert self.names is not None
        which, entry = np.unique(rows[tied], return_inverse=True)
        names = self.names(which)
        rank = np.empty(len(which), np.int64)
        rank[sorted(range(len(which)), key=lambda i: names[i])] = np.arange(len(which))
        key = rows.copy()
        key[tied] = rank[entry]
        return key


def _pieces(blocks: Blocks) -> Iterator[tuple[int, np.ndarray]]:
    """Cut the blocks into at most `PIECE` rows each, with the number of their first row."""
    start = 0
    for block in blocks:
        for at in range(0, len(block), PIECE):
            piece = block[at : at + PIECE]
            yield start, piece
            start += len(piece)


def _score(blocks: Blocks, groups: list[np.ndarray]) -> Iterator[tuple[int, np.ndarray, Iterable[np.ndarray]]]:
    """Yield pieces of rows with their first row's number and, for each group of queries (queries, dim), their float32 scores (rows, queries)."""
    if len(groups) == 1 and len(groups[0]) <= FEW:
        # A product for each row and query releases the interpreter and reads memory at full speed; a matrix-vector product does not.
        pieces = _pieces(blocks)
        together = iter(lambda: list(islice(pieces, TOGETHER)), [])
        for scored in in_threads(lambda pieces: [(*piece, [_dots(piece[1], groups[0])]) for piece in pieces], together):
            yield from scored
    else:
        scores = np.empty((PRODUCT, max(map(len, groups), default=0)), np.float32)
        for start, rows in _ahead(_gather(blocks)):
            yield start, rows, (_quiet(np.matmul, rows, group.T, out=scores[: len(rows), : len(group)]) for group in groups)


def _gather(blocks: Blocks) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rows as float32, `PRODUCT` at a time, with the number of the first; each array is reused for the one after the next."""
    start = filled = 0
    gathered, other = np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)
    for _, piece in _pieces(blocks):
        if not gathered.size:
            gathered, other = np.empty((2, PRODUCT, piece.shape[1]), np.float32)
        if filled + len(piece) > PRODUCT:
            yield start, gathered[:filled]
            start, filled, gathered, other = start + filled, 0, other, gathered
        gathered[filled : filled + len(piece)] = _widen(piece)
        filled += len(piece)
    if filled:
        yield start, gathered[:filled]


def _dots(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return _quiet(np.vecdot, _widen(rows)[:, None], queries)


def _quiet(product: Callable[..., np.ndarray], left: np.ndarray, right: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a row that is not numbers has no score
        return product(left, right, out=out)


T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], entries: Iterable[T]) -> Iterator[R]:
    """Apply a function to every entry, in order; entries are taken as they are needed, since each may hold memory."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(count) as threads:
        for entry in entries:
            waiting.append(threads.submit(function, entry))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _ahead(entries: Iterator[T]) -> Iterator[T]:
    """Yield the entries, each made in another thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, entries, None)
        while (entry := coming.result()) is not None:
            coming = thread.submit(next, entries, None)
            yield entry


def _widen(piece: np.ndarray) -> np.ndarray:
    """Convert rows to float32. Finite float16 takes a third of the time of numpy's conversion: its bits in place, then the exponent put right."""
    if piece.dtype != np.float16:
        return np.asarray(piece, np.float32)
    wide = np.empty(piece.shape, np.float32)
    for at in range(0, len(piece), 128):  # small enough for the cache
        bits = wide[at : at + 128].view(np.int32)
        bits[:] = piece[at : at + 128].view(np.int16)  # with the sign in every bit above
        bits <<= 13
        bits &= -0x70002000  # sign, five bits of exponent, ten of mantissa
        wide[at : at + 128] *= np.float32(2.0**112)
    return wide
