"""From unit vectors to an answer: scores of classes, probabilities, and the best classes of each item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.registry import face
from imagebind_cli.similarity import unit
from imagebind_cli.store import StoreReader


@dataclass(frozen=True)
class Classifier:
    """Anything that scores classes: prototypes, or a trained probe.

    score: unit vectors (k, dim) to float64 (k, c). scale: what scores are multiplied with before a softmax. record: what a report says of it.
    """

    classes: list[str]
    score: Callable[[np.ndarray], np.ndarray]
    scale: float
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Some items: ids, what their manifest said besides, unit vectors (k, dim) float32, and where windows are kept apart their seconds."""

    ids: list[str]
    metas: list[Mapping[str, Any]]
    vectors: np.ndarray
    spans: list[tuple[float, float] | None]

    def take(self, numbers: Sequence[int] | np.ndarray) -> Batch:
        """Some of its items."""
        return Batch(
            [self.ids[n] for n in numbers], [self.metas[n] for n in numbers], self.vectors[numbers], [self.spans[n] for n in numbers]
        )


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one.

    Raises:
        UserError: there are none.
    """
    if not batches:
        raise UserError("none of the inputs could be used")
    return Batch(
        [id for batch in batches for id in batch.ids],
        [meta for batch in batches for meta in batch.metas],
        np.concatenate([batch.vectors for batch in batches]),
        [span for batch in batches for span in batch.spans],
    )


def stored(reader: StoreReader, windows: bool = False, metas: bool = False) -> Iterator[Batch]:
    """The items of a store. Windows of an item are averaged to one unit vector, unless `windows` asks for each.

    metas: whether what the manifest said is wanted; looking it up takes time.
    """
    ids, spans, start = reader.ids, reader.spans, 0
    for block in _whole_items(reader, spans is not None and not windows):
        names = ids[start : start + len(block)]
        seconds: list[tuple[float, float] | None] = [None] * len(block)
        if spans is not None and windows:
            seconds = [None if np.isnan(low) else (float(low), float(high)) for low, high in spans[start : start + len(block)]]
        about: list[Mapping[str, Any]] = [reader.meta(start + n) if metas else {} for n in range(len(block))]
        vectors = unit(block) if block.dtype == np.float16 else block  # rounded to halves, a vector is no longer of length 1
        batch = Batch(names, about, np.asarray(vectors, np.float32), seconds)
        start += len(block)
        yield batch if spans is None or windows else _averaged(batch)


def _whole_items(reader: StoreReader, together: bool) -> Iterator[np.ndarray]:
    """The blocks of a store; with `together`, cut so that no item's windows lie in two."""
    if not together:
        yield from reader.blocks()
        return
    ids, end = reader.ids, 0
    held = np.empty((0, reader.dim), np.float32)
    for block in reader.blocks():
        held = np.concatenate([held, block])
        end += len(block)
        last = end - 1
        while last > end - len(held) and ids[last - 1] == ids[end - 1]:
            last -= 1
        cut = len(held) if end == len(reader) else last - (end - len(held))
        if cut:
            yield held[:cut]
        held = held[cut:]


def _averaged(batch: Batch) -> Batch:
    firsts = [n for n, id in enumerate(batch.ids) if n == 0 or batch.ids[n - 1] != id]
    if len(firsts) == len(batch.ids):
        return batch
    sums = np.add.reduceat(batch.vectors.astype(np.float64), firsts, axis=0)
    return Batch([batch.ids[n] for n in firsts], [batch.metas[n] for n in firsts], unit(sums).astype(np.float32), [None] * len(firsts))


def pair_scale(item_made: Mapping[str, Any], class_made: Mapping[str, Any]) -> float:
    """What cosines are multiplied with before a softmax: the logit scale of the items' modality, or that of the classes' for vision.

    Every modality was trained against vision, at its own scale, and vision has none: it is the scale of a pair with vision in it. For other
    pairs no scale was ever trained.
    """
    return float((item_made if face(item_made["modality"]).scaled else class_made).get("scale", 1))


def probabilities(scores: np.ndarray, scale: float) -> np.ndarray:
    """Softmax over classes of scores (k, c) times the scale, in float64."""
    logits = scores * scale
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def best(classifier: Classifier, scores: np.ndarray, k: int) -> list[list[dict[str, Any]]]:
    """For each item its k best classes with probability and score, best first; of equal scores the class that comes first."""
    shares = probabilities(scores, classifier.scale)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [
        [{"class": classifier.classes[c], "probability": _short(share[c]), "score": _short(score[c])} for c in own]
        for own, share, score in zip(order, shares, scores, strict=True)
    ]


def _short(value: float) -> float:
    return float(f"{value:.9g}")
