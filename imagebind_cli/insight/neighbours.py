"""The nearest neighbours of every row among all rows.

Up to `EXACT` rows every pair is compared. Beyond that, rows are sorted into cells around 2 sqrt(n) centres, and each row is compared with all rows of
its `PROBES` nearest cells, so that a million rows take 16 million cells' products and not 10^12 cosines. A copy is in the same cell or in one of the
nearest; of other neighbours a few may be missed, which the caller is told as `exact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from imagebind_cli.insight.cells import cluster_centres, nearest_cells
from imagebind_cli.similarity import in_threads
from imagebind_cli.store.source import release

EXACT = 20_000  # rows of which all pairs are compared unless asked otherwise
PROBES = 16  # cells that a row is compared with
SCORES = 1 << 21  # cosines held at once by a thread: 8 MB, and twice as much to sort them
BLOCK = 1 << 20  # entries at a time
LARGE = 8  # a cell of more than so many times the mean has rows that are all alike; each row is compared with a random part of it


class Neighbours(NamedTuple):
    """Of each row the k nearest others, nearest first.

    rows: their numbers, int32 (n, k). cosines: float32 (n, k). exact: whether all pairs were compared.
    """

    rows: np.ndarray
    cosines: np.ndarray
    exact: bool


class _Task(NamedTuple):
    """Rows to be compared with candidates, both as numbers."""

    queries: np.ndarray
    candidates: np.ndarray


def find_neighbours(rows: np.ndarray, k: int, exact: bool | None = None, seed: int = 0) -> Neighbours:
    """Find the k nearest other rows of each row.

    Args:
        rows: unit vectors (n, dim), float32 or float16. k: smaller where there are fewer rows.
        exact: compare all pairs; by default up to `EXACT` rows.
    """
    count = len(rows)
    k = min(k, count - 1)
    exact = count <= EXACT if exact is None else exact
    best, cosines = np.full((count, k), -1, np.int32), np.full((count, k), -np.inf, np.float32)
    if k < 1:
        return Neighbours(best, cosines, True)

    def compare(task: _Task) -> tuple[_Task, np.ndarray, np.ndarray]:
        scores = rows[task.queries].astype(np.float32) @ rows[task.candidates].astype(np.float32).T
        scores[task.queries[:, None] == task.candidates] = -np.inf
        if scores.shape[1] > k:
            places = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
            return task, task.candidates[places].astype(np.int32), np.take_along_axis(scores, places, axis=1)
        return task, np.broadcast_to(task.candidates.astype(np.int32), scores.shape), scores

    for number, (task, found, scores) in enumerate(in_threads(compare, _all_pairs(count) if exact else _by_cells(rows, seed))):
        asked = task.queries
        among, their = np.concatenate([best[asked], found], axis=1), np.concatenate([cosines[asked], scores], axis=1)
        kept = np.argpartition(their, their.shape[1] - k, axis=1)[:, -k:]
        best[asked], cosines[asked] = np.take_along_axis(among, kept, axis=1), np.take_along_axis(their, kept, axis=1)
        if number % 4 == 0:
            release(rows)
    for start in range(0, count, 65536):
        part = slice(start, start + 65536)
        order = np.lexsort((best[part], -cosines[part]))
        best[part], cosines[part] = np.take_along_axis(best[part], order, axis=1), np.take_along_axis(cosines[part], order, axis=1)
    return Neighbours(best, cosines, exact)


def _all_pairs(count: int) -> Iterator[_Task]:
    side = int(SCORES**0.5)
    for start in range(0, count, side):
        queries = np.arange(start, min(count, start + side))
        for first in range(0, count, side):
            yield _Task(queries, np.arange(first, min(count, first + side)))


def _by_cells(rows: np.ndarray, seed: int) -> Iterator[_Task]:
    centres = cluster_centres(rows, max(1, int(2 * len(rows) ** 0.5)), seed)
    probes = nearest_cells(rows, centres, PROBES)
    release(rows)
    random = np.random.default_rng(seed)
    members, width = _grouped(probes[:, 0], len(centres)), probes.shape[1]
    asking = _grouped(probes.ravel(), len(centres))
    del probes
    most = max(64, LARGE * len(rows) // len(centres))
    for inside, entries in zip(members, asking, strict=True):
        if not len(inside):
            continue
        queries = entries // width
        for part in np.array_split(queries, -(-len(queries) * min(len(inside), most) // SCORES) or 1):
            yield _Task(part, inside if len(inside) <= most else np.sort(random.choice(inside, most, replace=False)))


def _grouped(cells: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the numbers of the entries of each cell."""
    short = cells.astype(np.uint16) if count < 1 << 16 else cells
    order = np.argsort(short, kind="stable").astype(np.int32)  # 16 bits are sorted by radix; entries are less than 2^31
    sizes = np.zeros(count, np.int64)
    for start in range(0, len(short), BLOCK):  # bincount converts what it counts to int64
        sizes += np.bincount(short[start : start + BLOCK], minlength=count)
    return np.split(order, np.cumsum(sizes)[:-1])
