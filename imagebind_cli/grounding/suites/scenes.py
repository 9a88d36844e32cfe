"""A suite of localisation: pictures, the queries of each, and their places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 224  # rows and columns on which maps and truths are compared, as in the published evaluations

# Returns how far annotators agree that the thing is at each place, (SIDE, SIDE) from 0 to 1.
Truth = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """A picture, what is asked in it, and where that is.

    picture: a path, or a function that reads it. query: the path of a sound, or empty where the picture itself decides which class is asked.
    kind: of what is asked; a query of another kind is a wrong one. Each scene is of a kind of its own where kinds are not known.
    """

    id: str
    picture: Any
    query: str
    kind: str
    truth: Truth


@dataclass(frozen=True)
class SceneContents:
    """The contents that a layout read from a dataset's folder.

    classes: the names of the classes, where queries are names. notes: about this copy.
    """

    scenes: list[Scene]
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LocationSuite:
    """A dataset of scenes on disk, ready to be run; the fields that it shares with `evaluation.suites.Suite` are described there.

    metric: `ciou`, `masks` or `segmentation`. modality, reading: of the pictures. classes: their names, where pictures are asked by class.
    references: figures of other models, each with its `model`, `values` in percent and `source`; `published` are those of ImageBind itself.
    """

    name: str
    about: str
    metric: str
    modality: str
    scenes: list[Scene]
    classes: list[str]
    reading: dict[str, Any]
    references: list[dict[str, Any]]
    published: dict[str, float]
    source: str
    notes: list[str]
    options: dict[str, Any]
    files: list[Path]
    protocol: str

    @property
    def query_modality(self) -> str:
        """Return the modality of the queries: sentences where classes have names, else sounds."""
        return "text" if self.classes else "audio"


@dataclass(frozen=True)
class BoxTruth:
    """Boxes, as (left, top, right, bottom) in shares of the picture's width and height. agree: how many must overlap to count fully."""

    boxes: tuple[tuple[float, ...], ...]
    agree: int = 1

    def __call__(self) -> np.ndarray:
        """Draw them."""
        drawn = np.zeros((SIDE, SIDE))
        for box in self.boxes:
            left, top, right, bottom = (int(edge * SIDE) for edge in np.clip(box, 0, 1))
            drawn[top:bottom, left:right] += 1
        return np.minimum(drawn / self.agree, 1)


@dataclass(frozen=True)
class MaskTruth:
    """A picture in which all that is not black is the thing."""

    path: Path

    def __call__(self) -> np.ndarray:
        """Read it.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        from imagebind_cli.media.image import open_image

        return nearest(np.asarray(open_image(self.path).convert("L")) > 0)


def nearest(mask: np.ndarray) -> np.ndarray:
    """Scale a mask (h, w) to (SIDE, SIDE), each cell the nearest of its pixels."""
    rows, columns = (((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64) for length in mask.shape)
    scaled: np.ndarray = mask[np.ix_(rows, columns)].astype(np.float64)
    return scaled
