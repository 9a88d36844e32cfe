"""The nearest rows of several stores, which are searched as one: exact or by an index, of all modalities together or of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any

import numpy as np

from imagebind_cli.boxes import BOX, box_of, box_overlaps
from imagebind_cli.media.windows import TOUCHING_SECONDS
from imagebind_cli.retrieval.stored_items import Exhibit, RowPlace, window_seconds
from imagebind_cli.similarity import top_k
from imagebind_cli.store import StoreReader

MORE = 4  # times as many rows are looked at in turn, until enough of them do not overlap

# An index: (store, queries (queries, dim), k) to row numbers int64 (queries, k), padded with -1, and their scores.
Nearest = Callable[[StoreReader, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Query:
    """A query with its vector.

    vector: (dim,), of length 1. exhibits: its parts as a page shows them.
    rows: rows of the searched stores that are the query itself; they are not answers.
    """

    id: str
    vector: np.ndarray
    exhibits: tuple[Exhibit, ...] = ()
    rows: frozenset[RowPlace] = frozenset()


@dataclass(frozen=True)
class Hit:
    """An answer: a row of a store. rank: from 1. score: the cosine, from -1 to 1.

    stretch: rows in the order of time, where neighbouring windows were joined; `row` is then the best of them.
    """

    store: StoreReader
    row: int
    rank: int
    score: float
    stretch: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """The item's id."""
        return self.store.id(self.row)

    @property
    def span(self) -> tuple[float, float] | None:
        """Start and end in seconds, if the row is a window of its item, or if windows were joined of the whole stretch."""
        spans = [span for row in self.stretch or (self.row,) if (span := window_seconds(self.store, row)) is not None]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None

    @property
    def box(self) -> list[float] | None:
        """The box of a region: x, y, width and height in pixels of its picture; None for a whole input."""
        return box_of(self.store.meta(self.row))

    @property
    def clock(self) -> str | None:
        """When it began, in ISO 8601, if its file states that."""
        return self.store.clock(self.stretch[0] if self.stretch else self.row)

    def as_json(self, query: str) -> dict[str, Any]:
        """Return the line that `imagebind retrieve` prints."""
        span, box, meta = self.span, self.box, self.store.meta(self.row)
        meta = meta if box is None else {key: value for key, value in meta.items() if key != BOX}
        return {
            "query": query,
            "rank": self.rank,
            "id": self.id,
            "score": round(self.score, 9),
            "modality": self.store.modality,
            **({} if span is None else {"start": span[0], "end": span[1]}),
            **({"windows": len(self.stretch)} if self.stretch else {}),
            **({} if box is None else {BOX: box}),
            **({} if self.clock is None else {"clock": self.clock}),
            "store": str(self.store.path),
            **({"meta": meta} if meta else {}),
        }


def search(
    stores: Sequence[StoreReader],
    queries: Sequence[Query],
    k: int,
    *,
    per_modality: bool = False,
    threshold: float = -np.inf,
    nms: float | None = None,
    nearest: Nearest | None = None,
) -> list[list[Hit]]:
    """Find the k nearest rows for each query, best first; among equal scores the first by id.

    Args:
        stores: of one model. per_modality: k of each modality, ranked separately, in the order of the stores.
        threshold: the lowest score of an answer. nms: as `suppress_overlaps` takes it, which leaves k answers. nearest: an index; exact if not given.
    """
    numbered = list(enumerate(stores))
    kinds = dict.fromkeys(store.modality for store in stores) if per_modality else [None]
    answers: list[list[Hit]] = [[] for _ in queries]
    for kind in kinds:
        group = [(number, store) for number, store in numbered if kind in (None, store.modality)]
        found = _search(group, queries, k, threshold, nearest) if nms is None else _search_apart(group, queries, k, threshold, nearest, nms)
        for hits, more in zip(answers, found, strict=True):
            hits.extend(more)
    return answers


def suppress_overlaps(hits: Sequence[Hit], most: float) -> list[Hit]:
    """Leave out regions that overlap a better answer in the same picture (non-maximum suppression).

    most: the intersection over union with an answer that is left, beyond which one goes. hits: one ranking, best first.
    """
    left: list[Hit] = []
    boxes: dict[tuple[str, str], list[list[float]]] = {}
    for hit in hits:
        if (box := hit.box) is not None:
            better = boxes.setdefault((hit.store.modality, hit.id), [])
            if better and box_overlaps([box], better).max() > most:
                continue
            better.append(box)
        left.append(replace(hit, rank=len(left) + 1))
    return left


def join_windows(hits: Sequence[Hit]) -> list[Hit]:
    """Join neighbouring windows of one recording among the answers to a query into stretches, best first in each ranking.

    A stretch has the score of its best window. Answers that are whole items are stretches of their own. Windows that touch or overlap are neighbours.
    """
    rankings: list[list[Hit]] = []
    for hit in hits:  # modalities ranked separately follow one another
        if hit.rank == 1:
            rankings.append([])
        rankings[-1].append(hit)
    joined: list[Hit] = []
    for ranking in rankings:
        of_items = groupby(sorted(ranking, key=_place), key=lambda hit: (id(hit.store), hit.id))
        stretches = [stretch for _, windows in of_items for stretch in _stretches(windows)]
        stretches.sort(key=lambda hit: hit.rank)
        joined += [replace(hit, rank=rank) for rank, hit in enumerate(stretches, start=1)]
    return joined


def _place(hit: Hit) -> tuple[int, str, float]:
    return id(hit.store), hit.id, hit.span[0] if hit.span else 0.0


def _stretches(windows: Iterable[Hit]) -> Iterator[Hit]:
    """Yield the stretches of one item's windows, which come in the order of time."""
    neighbours: list[Hit] = []
    end = 0.0
    for hit in windows:
        if neighbours and (hit.span is None or hit.span[0] > end + TOUCHING_SECONDS):
            yield _joined(neighbours)
            neighbours, end = [], 0.0
        neighbours.append(hit)
        end = max(end, hit.span[1]) if hit.span else 0.0
    yield _joined(neighbours)


def _joined(windows: Sequence[Hit]) -> Hit:
    best = min(windows, key=lambda hit: hit.rank)
    return best if best.span is None else replace(best, stretch=tuple(hit.row for hit in windows))


def _search_apart(
    group: list[tuple[int, StoreReader]], queries: Sequence[Query], k: int, threshold: float, nearest: Nearest | None, nms: float
) -> list[list[Hit]]:
    """Return the k nearest rows that are left by `suppress_overlaps`: search for more of them until there are k, or no more rows."""
    fetched, rows = k, sum(len(store) for _, store in group)
    while True:
        fetched = min(MORE * fetched, rows)
        ranked = list(_search(group, queries, fetched, threshold, nearest))
        left = [suppress_overlaps(hits, nms)[:k] for hits in ranked]
        if fetched == rows or all(len(some) == k or len(hits) < fetched for some, hits in zip(left, ranked, strict=True)):
            return left


def _search(
    group: list[tuple[int, StoreReader]], queries: Sequence[Query], k: int, threshold: float, nearest: Nearest | None
) -> Iterator[list[Hit]]:
    stores = [store for _, store in group]
    first = np.cumsum([0, *map(len, stores)])

    def place(row: int) -> tuple[int, int]:
        number = int(np.searchsorted(first, row, side="right")) - 1
        return number, int(row - first[number])

    def names(rows: np.ndarray) -> list[str]:
        return [stores[number].id(inside) for number, inside in map(place, rows.tolist())]

    vectors = np.stack([query.vector for query in queries])
    wanted = min(k + max(len(query.rows) for query in queries), int(first[-1]))
    if nearest is None:
        ranked: Iterable[Any] = zip(*top_k(chain.from_iterable(store.blocks() for store in stores), vectors, wanted, names), strict=True)
    else:
        ranked = _merged([nearest(store, vectors, wanted) for store in stores], first, names)
    for query, (rows, scores) in zip(queries, ranked, strict=True):
        hits: list[Hit] = []
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            number, inside = place(row)
            if len(hits) < k and score >= threshold and np.isfinite(score) and (group[number][0], inside) not in query.rows:
                cosine = max(-1.0, min(1.0, score))  # a rounded row is a little longer or shorter than 1
                hits.append(Hit(stores[number], inside, len(hits) + 1, cosine))
        yield hits


def _merged(
    parts: list[tuple[np.ndarray, np.ndarray]], first: np.ndarray, names: Callable[[np.ndarray], list[str]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Join the rows of several stores, for each query the best first."""
    merged = []
    for query in range(len(parts[0][0])):
        rows = np.concatenate(
            [np.where(rows[query] < 0, -1, rows[query] + start) for (rows, _), start in zip(parts, first[:-1], strict=True)]
        )
        scores = np.concatenate([scores[query] for _, scores in parts])[rows >= 0]
        rows = rows[rows >= 0]
        ids = names(rows)
        order = sorted(range(len(rows)), key=lambda i: (-scores[i], ids[i], rows[i]))
        merged.append((rows[order], scores[order]))
    return merged
