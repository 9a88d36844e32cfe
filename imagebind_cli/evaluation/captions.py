"""Captions that search for their items, and items for their captions: the retrieval suites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.similarity import positions_by_id, ranks, top_k


@dataclass(frozen=True)
class Gallery:
    """Items or captions, to search with or to be searched.

    ids: of each row. vectors: rows (n, dim), unit vectors or shorter. partners: for each row, the rows of the other gallery that belong to it.
    longest: the length that 1 stands for, where vectors have lengths of their own.
    """

    ids: list[str]
    vectors: np.ndarray
    partners: list[np.ndarray]
    longest: float = 1.0

    def shortened(self) -> Gallery:
        """Divide the vectors by the length of the longest, which changes no ranking; searches are exact for rows of at most length 1."""
        longest = float(np.linalg.norm(self.vectors.astype(np.float64), axis=1).max(initial=0)) or 1.0
        return replace(self, vectors=(self.vectors / longest).astype(np.float32), longest=longest)


@dataclass(frozen=True)
class CaptionMatch:
    """The targets that a caption found, or an item in the other direction.

    direction: as `text->audio`. top: ids and cosines, or dot products, best first. truth: the ids that belong to it.
    """

    direction: str
    id: str
    top: list[tuple[str, float]]
    truth: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the row that `imagebind zeroshot` writes."""
        top = [{"id": id, "score": score} for id, score in self.top]
        return {"direction": self.direction, "id": self.id, "top": top, "truth": self.truth}


def galleries(
    item_ids: Sequence[str], items: np.ndarray, captions: Sequence[tuple[str, str, str]], texts: np.ndarray
) -> tuple[Gallery, Gallery]:
    """Build the galleries of items (n, dim) and of captions (m, dim).

    Captions without their item, and items without a caption, are left out.

    Args:
        captions: id, text and the id of its item, for each row of `texts`.
    """
    described = {item for _, _, item in captions}
    rows = [row for row, id in enumerate(item_ids) if id in described]
    place = {item_ids[row]: number for number, row in enumerate(rows)}
    present = [number for number, (_, _, item) in enumerate(captions) if item in place]
    captions_of_item: list[list[int]] = [[] for _ in rows]
    item_of_caption = [np.array([place[captions[number][2]]]) for number in present]
    for row, partners in enumerate(item_of_caption):
        captions_of_item[partners[0]].append(row)
    return (
        Gallery([item_ids[row] for row in rows], items[rows], [np.array(numbers) for numbers in captions_of_item]),
        Gallery([captions[number][0] for number in present], texts[present], item_of_caption),
    )


def retrieval_values(queries: Gallery, targets: Gallery) -> dict[str, np.ndarray]:
    """Compute the scores of each query, as `metrics.retrieval` gives them. Of equal cosines, the first id comes first."""
    return metrics.retrieval(ranks(lambda: [targets.vectors], queries.vectors, queries.partners, positions_by_id(targets.ids)))


def caption_matches(direction: str, queries: Gallery, targets: Gallery, k: int) -> Iterator[CaptionMatch]:
    """Yield for each query the k nearest targets, best first, and those it should find."""
    rows, scores = top_k([targets.vectors], queries.vectors, k, lambda rows: [targets.ids[row] for row in rows])
    scores = scores * (queries.longest * targets.longest)
    for id, partners, nearest, cosines in zip(queries.ids, queries.partners, rows, scores, strict=True):
        top = [(targets.ids[row], float(f"{score:.9g}")) for row, score in zip(nearest, cosines, strict=True)]
        yield CaptionMatch(direction, id, top, [targets.ids[row] for row in partners])
