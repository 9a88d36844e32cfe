"""Answers of `locate`: the place of a query in a picture, in the windows of a video, or in a sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imagebind_cli.grounding.pieces import FILM, SOUND
from imagebind_cli.grounding.squares import peak_cell, region_box
from imagebind_cli.media.views import Box
from imagebind_cli.retrieval.search import Query

# How far up from the median to the peak what counts as connected with it must be; measured on drawings, where the mean overlap (IoU) of box and
# drawing is 0.41 by shares and 0.56 by both.
BOX_LEVEL = 0.3

Place = Callable[[float, float], tuple[float, float]]  # from shares of a heat map's width and height to the units of the input


@dataclass(frozen=True)
class Spot:
    """The place of a query in a picture, in a window of a video, or in a sound.

    peak: the place of the largest value; of a picture (x, y) in pixels of the file, upright; of a sound (seconds, Hz).
    box: around what is connected with the peak and not below `BOX_LEVEL` of the way to it from the median: left, top, right, bottom in pixels;
    of a sound start, lowest, end, highest. score: the value at the peak. span: the seconds of the window of a video.
    heat: all values, (rows, columns) float32, over the whole picture; of a sound low bands first.
    """

    peak: tuple[float, float]
    box: Box
    score: float
    heat: np.ndarray = field(repr=False)
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Located:
    """The answer to one query in one input.

    number: of the query among those of the input, from 0. size: width and height of the picture, upright; of a sound its first and last second.
    spots: one, or of a video one for each window, best first. whole: the cosine of the embedding of the whole input.
    floor: score and whole of an empty query in place of this one; None where the query is a vector.
    payload: the input itself. ground: what `pages.heat` draws on: (h, w, 3) uint8 of a picture, log energies (bands, frames) of a sound.
    """

    id: str
    query: Query
    number: int
    modality: str
    kind: str
    method: str
    size: tuple[float, float]
    spots: tuple[Spot, ...]
    whole: float
    floor: tuple[float, float] | None
    payload: Any = field(default=None, repr=False)
    ground: np.ndarray | None = field(default=None, repr=False)

    def as_json(self, box: bool = False, windows: int = 5) -> dict[str, Any]:
        """Return it as one line of output. box: whether boxes are wanted. windows: of a video, how many."""
        rounded = 3 if self.kind == SOUND else 1

        def about(spot: Spot) -> dict[str, Any]:
            place: dict[str, Any] = {} if spot.span is None else {"start": spot.span[0], "end": spot.span[1]}
            place["peak"] = [round(number, rounded) for number in spot.peak]
            if box:
                place["box"] = [round(number, rounded) for number in spot.box]
            return place | {"score": spot.score}

        row = {"id": self.id, "query": self.query.id, **about(self.spots[0]), "whole": self.whole}
        row["floor"] = None if self.floor is None else {"score": self.floor[0], "whole": self.floor[1]}
        if self.kind == FILM:
            row["windows"] = [about(spot) for spot in self.spots[:windows]]
        return row


def find_spot(heat: np.ndarray, span: tuple[float, float] | None, place: Place) -> Spot:
    """Return the spot of a heat map (rows, columns). place: turns shares of its width and of its height into the units of the input."""
    rows, columns = heat.shape
    row, column = cell = peak_cell(heat)
    score = float(heat[cell])
    median = float(np.median(heat))
    left, top, right, bottom = region_box(heat, cell, median + BOX_LEVEL * (score - median))
    box = (*place(left / columns, top / rows), *place(right / columns, bottom / rows))
    return Spot(place((column + 0.5) / columns, (row + 0.5) / rows), box, score, heat, span)
