"""Captions that look for their items, and items for their captions: the retrieval suites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.similarity import positions_by_id, ranks, top_k


@dataclass(frozen=True)
class Side:
    """What is asked, or searched: ids, unit vectors (n, dim), and for each the rows of the other side that belong to it."""

    ids: list[str]
    vectors: np.ndarray
    partners: list[np.ndarray]


def sides(item_ids: Sequence[str], items: np.ndarray, captions: Sequence[tuple[str, str, str]], texts: np.ndarray) -> tuple[Side, Side]:
    """Items (n, dim) and captions (m, dim) as two sides. captions: id, text and the id of its item, for each row of `texts`.

    Captions of items that are not there are left out, and items without a caption as well.
    """
    described = {item for _, _, item in captions}
    rows = [row for row, id in enumerate(item_ids) if id in described]
    place = {item_ids[row]: number for number, row in enumerate(rows)}
    kept = [number for number, (_, _, item) in enumerate(captions) if item in place]
    of_item: list[list[int]] = [[] for _ in rows]
    of_caption = [np.array([place[captions[number][2]]]) for number in kept]
    for row, partners in enumerate(of_caption):
        of_item[partners[0]].append(row)
    return (
        Side([item_ids[row] for row in rows], items[rows], [np.array(own) for own in of_item]),
        Side([captions[number][0] for number in kept], texts[kept], of_caption),
    )


def ask(queries: Side, gallery: Side) -> dict[str, np.ndarray]:
    """Scores of each query, as `metrics.retrieval` gives them. Among equal scores the first by id comes first."""
    return metrics.retrieval(ranks(lambda: [gallery.vectors], queries.vectors, queries.partners, positions_by_id(gallery.ids)))


def answers(queries: Side, gallery: Side, k: int) -> Iterator[dict[str, Any]]:
    """For each query what it finds, best first, and what it should."""
    rows, scores = top_k([gallery.vectors], queries.vectors, k, lambda rows: [gallery.ids[row] for row in rows])
    for id, partners, found, own in zip(queries.ids, queries.partners, rows, scores, strict=True):
        top = [{"id": gallery.ids[row], "score": float(f"{score:.9g}")} for row, score in zip(found, own, strict=True)]
        yield {"id": id, "top": top, "truth": [gallery.ids[row] for row in partners]}
