"""Search over several stores as over one: exact, or through an index; all together, or so many of each modality."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from imagebind_cli.similarity import top_k
from imagebind_cli.sources import Stretch, stretched
from imagebind_cli.store import StoreReader

Nearest = Callable[[StoreReader, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""What an index does: of a store the rows nearest to queries (queries, dim), int64 (queries, k), -1 for none, and their scores."""


class Part(NamedTuple):
    """One thing as a page shows it. kind: its modality, or `vector`. source: its path or sentence, or a `Stretch` of a file. name: what it is
    called, where that is something else. span: the seconds of a window.
    """

    kind: str
    source: str | Stretch
    name: str = ""
    span: tuple[float, float] | None = None


def stored_part(store: StoreReader, row: int) -> Part:
    """A row of a store: of the file that its record names, else of its id."""
    id, meta, span = store.id(row), store.meta(row), row_span(store, row)
    path = meta.get(store.modality)
    source = path if isinstance(path, str) else id
    with suppress(ValueError):  # columns that are no seconds, in a store of before
        source = stretched(source, store.modality, meta)
    return Part(store.modality, source, id, span)


def row_span(store: StoreReader, row: int) -> tuple[float, float] | None:
    """The seconds that a row stands for, if it is a window of its item."""
    spans = store.spans
    if spans is None or np.isnan(spans[row]).any():
        return None
    return float(spans[row][0]), float(spans[row][1])


@dataclass(frozen=True)
class Query:
    """What is searched for. vector: (dim,), of length 1. parts: what it was made from.

    own: rows of the searched stores that are the query itself, by number of the store and row; they are no answers.
    """

    id: str
    vector: np.ndarray
    parts: tuple[Part, ...] = ()
    own: frozenset[tuple[int, int]] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Hit:
    """One answer: a row of a store. rank: from 1. score: the cosine, from -1 to 1."""

    store: StoreReader
    row: int
    rank: int
    score: float

    @property
    def id(self) -> str:
        """Of the item."""
        return self.store.id(self.row)

    @property
    def span(self) -> tuple[float, float] | None:
        """The seconds it stands for, if it is a window of the item."""
        return row_span(self.store, self.row)

    def as_json(self, query: str) -> dict[str, Any]:
        """The line that says it."""
        span, meta = self.span, self.store.meta(self.row)
        return {
            "query": query,
            "rank": self.rank,
            "id": self.id,
            "score": round(self.score, 9),
            "modality": self.store.modality,
            **({} if span is None else {"start": span[0], "end": span[1]}),
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
    nearest: Nearest | None = None,
) -> list[list[Hit]]:
    """The best k rows for each query, best first; among equal scores the first by id.

    Args:
        stores: of one model. per_modality: k of each modality, ranked apart, in the order in which the modalities first come.
        threshold: no answer has a lower score. nearest: an index; exact if not given.
    """
    numbered = list(enumerate(stores))
    kinds = dict.fromkeys(store.modality for store in stores) if per_modality else [None]
    groups = [[entry for entry in numbered if kind in (None, entry[1].modality)] for kind in kinds]
    found: list[list[Hit]] = [[] for _ in queries]
    for group in groups:
        for hits, more in zip(found, _search(group, queries, k, threshold, nearest), strict=True):
            hits.extend(more)
    return found


def _search(
    group: list[tuple[int, StoreReader]], queries: Sequence[Query], k: int, threshold: float, nearest: Nearest | None
) -> Iterator[list[Hit]]:
    stores = [store for _, store in group]
    first = np.cumsum([0, *map(len, stores)])

    def place(row: int) -> tuple[int, int]:
        number = int(np.searchsorted(first, row, side="right")) - 1
        return number, int(row - first[number])

    def names(rows: np.ndarray) -> list[str]:
        return [stores[number].id(own) for number, own in map(place, rows.tolist())]

    vectors = np.stack([query.vector for query in queries])
    wanted = min(k + max(len(query.own) for query in queries), int(first[-1]))
    if nearest is None:
        found: Iterable[Any] = zip(*top_k(chain.from_iterable(store.blocks() for store in stores), vectors, wanted, names), strict=True)
    else:
        found = _merged([nearest(store, vectors, wanted) for store in stores], first, names)
    for query, (rows, scores) in zip(queries, found, strict=True):
        hits: list[Hit] = []
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            number, inside = place(row)
            if len(hits) < k and score >= threshold and np.isfinite(score) and (group[number][0], inside) not in query.own:
                cosine = max(-1.0, min(1.0, score))  # a rounded row is a little longer or shorter than 1
                hits.append(Hit(stores[number], inside, len(hits) + 1, cosine))
        yield hits


def _merged(
    parts: list[tuple[np.ndarray, np.ndarray]], first: np.ndarray, names: Callable[[np.ndarray], list[str]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of several stores with their scores, for each query the best first."""
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
