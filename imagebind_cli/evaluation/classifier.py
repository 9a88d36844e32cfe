"""From unit vectors to predictions: scores of classes, probabilities, and the best classes of each item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from imagebind_cli.boxes import BOX, box_of, suppress
from imagebind_cli.evaluation.vectors import ItemVectors
from imagebind_cli.media.windows import TOUCHING_SECONDS
from imagebind_cli.registry import face

NO_SCALE = 1.0  # what the record of an encoder without a logit scale says


@dataclass(frozen=True)
class Classifier:
    """Anything that scores classes: prototypes, or a trained probe.

    score: unit vectors (k, dim) to float64 (k, c). scale: the factor on scores before a softmax.
    """

    classes: list[str]
    score: Callable[[np.ndarray], np.ndarray]
    scale: float


class ClassScore(NamedTuple):
    """A class with its probability and its score: the cosine, or a probe's logit."""

    name: str
    probability: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of an item, or of one window of it.

    span: start and end of the window in seconds. top: best first. truth: the item's labels, None where they are not known.
    clock: when it began, in ISO 8601, None where the file does not say. windows: how many were joined. meta: what is stored with it besides.
    """

    id: str
    top: list[ClassScore]
    truth: list[str] | None = None
    span: tuple[float, float] | None = None
    clock: str | None = None
    windows: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def box(self) -> list[float] | None:
        """The box of a region: x, y, width and height in pixels of its picture; None for a whole item."""
        return box_of(self.meta)

    def as_json(self) -> dict[str, Any]:
        """Return the row that `imagebind zeroshot` writes."""
        times: dict[str, Any] = {"start": self.span[0], "end": self.span[1]} if self.span else {}
        times |= {"windows": self.windows} if self.windows else {}
        times |= {"clock": self.clock} if self.clock else {}
        top = [{"class": entry.name, "probability": entry.probability, "score": entry.score} for entry in self.top]
        times |= {} if self.box is None else {BOX: self.box}
        return {"id": self.id, **times, "top": top, **({} if self.truth is None else {"truth": self.truth})}


def pair_scale(item_made: Mapping[str, Any], class_made: Mapping[str, Any]) -> float:
    """Return the factor on cosines before a softmax: one logit scale, `Encoder.scale` of the items' modality or of the classes', as recorded.

    Scales are trained for pairs with one modality that is common to all of them. ImageBind's is vision, which has no scale (1 in a
    record); LanguageBind's is text, the scale of which is only that of whichever pair its tower was published with. So text's counts
    against vision without one alone. No scale was trained for other pairs: the items' is taken.
    """
    item, others = (float(made.get("scale", 1)) for made in (item_made, class_made))
    is_of_text = face(item_made["modality"]).text and not face(class_made["modality"]).text
    first, second = (others, item) if is_of_text else (item, others)
    return first if first != NO_SCALE else second


def probabilities(scores: np.ndarray, scale: float) -> np.ndarray:
    """Compute the softmax over classes of scores (k, c) times the scale, in float64."""
    logits = scores * scale
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def predictions(
    classifier: Classifier, batch: ItemVectors, scores: np.ndarray, truths: Sequence[Sequence[str] | None], k: int
) -> Iterator[Prediction]:
    """Yield the k best classes of each item by its scores (n, c). Of equal scores, the class that comes first wins.

    Args:
        truths: the labels of each item, None where they are not known.
    """
    shares = probabilities(scores, classifier.scale)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    for row, places in enumerate(order):
        top = [ClassScore(classifier.classes[place], _short(shares[row, place]), _short(scores[row, place])) for place in places]
        truth = truths[row]
        labels = None if truth is None else list(truth)
        yield Prediction(batch.ids[row], top, labels, batch.spans[row], batch.clocks[row], meta=batch.metas[row])


def suppress_predictions(rows: Sequence[Prediction], most: float) -> list[Prediction]:
    """Leave out regions that overlap a more certain one of the same best class in the same picture (non-maximum suppression).

    most: the intersection over union with one that is left, beyond which a row goes. Rows keep their order; those without a box all stay.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows):
        if row.box is not None:
            groups.setdefault((row.id, row.top[0].name), []).append(number)
    gone: set[int] = set()
    for members in groups.values():
        best_first = sorted(members, key=lambda number: -rows[number].top[0].probability)
        left = suppress([rows[number].box or () for number in best_first], most)
        gone.update(set(members) - {best_first[place] for place in left})
    return [row for number, row in enumerate(rows) if number not in gone]


def best_classes(classifier: Classifier, vector: np.ndarray, k: int) -> list[ClassScore]:
    """Return the k best classes of one unit vector (dim,), as `predictions` does."""
    scores = classifier.score(vector[None])
    shares, order = probabilities(scores, classifier.scale)[0], np.argsort(-scores[0], kind="stable")[:k]
    return [ClassScore(classifier.classes[place], _short(shares[place]), _short(scores[0, place])) for place in order]


def join_predictions(windows: Iterable[Prediction]) -> Iterator[Prediction]:
    """Join windows in the order of time that touch or overlap, are of one item and have the same best class.

    A stretch has the classes of the window that is most certain of it.
    """
    pending: Prediction | None = None
    for row in (window if window.span is None else replace(window, windows=1) for window in windows):
        if pending is not None and _continues(pending, row):
            pending = _with_next(pending, row)
            continue
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending


def _continues(one: Prediction, other: Prediction) -> bool:
    if one.span is None or other.span is None or one.id != other.id:
        return False
    return one.top[0].name == other.top[0].name and other.span[0] <= one.span[1] + TOUCHING_SECONDS


def _with_next(one: Prediction, other: Prediction) -> Prediction:
    assert one.span is not None
    assert other.span is not None
    top = max(one.top, other.top, key=lambda top: top[0].probability)
    return replace(one, top=top, span=(min(one.span[0], other.span[0]), max(one.span[1], other.span[1])), windows=(one.windows or 1) + 1)


def _short(value: float) -> float:
    return float(f"{value:.9g}")
