"""What came of each item, kept as small as the metric allows, until there is something to report."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.classify import Batch
from imagebind_cli.evaluation.truth import Truth

METRICS = ("top1", "map")
"""One label per item and the best class wins; or several labels, and average precision of each class."""


class Tally:
    """Counts and scores of a run, with or without truth.

    metric: one of `METRICS`; by the truth's file if None, else `top1`. folds: the part of the data set an item belongs to, by id.

    Raises:
        UserError: the truth has a label that is none of the classes, or several for an item where `top1` is the metric.
    """

    def __init__(
        self, classes: Sequence[str], truth: Truth | None, metric: str | None = None, folds: Mapping[str, str | None] | None = None
    ) -> None:
        self.classes, self.truth = list(classes), truth
        self.metric = metric or ("map" if truth and truth.several else "top1")
        self.items = self.failed = self.without_truth = 0
        self.folds: list[str | None] = []  # of each item with truth
        self._folds = folds or {}
        self._places = {name: place for place, name in enumerate(self.classes)}
        self._digest = hashlib.sha256()
        self._true: list[np.ndarray] = []
        self._ranks: list[np.ndarray] = []
        self._predicted: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        for id, labels in (truth.by_id or {} if truth else {}).items():  # told before anything is embedded
            self.places(labels, id)

    def add(self, batch: Batch, scores: np.ndarray) -> list[Sequence[str] | None]:
        """Take in items with their scores (k, c); gives back the labels of each, None where unknown."""
        for id, vector in zip(batch.ids, batch.vectors, strict=True):
            self._digest.update(id.encode("utf-8", "surrogatepass") + b"\0" + vector.astype("<f4").tobytes())
        self.items += len(batch.ids)
        if self.truth is None:
            return [None] * len(batch.ids)
        labels = [self.truth.of(id, meta) for id, meta in zip(batch.ids, batch.metas, strict=True)]
        known = {row: self.places(own, batch.ids[row]) for row, own in enumerate(labels) if own is not None}
        self.without_truth += len(labels) - len(known)
        self.folds += [self._folds.get(batch.ids[row]) for row in known]
        if known:
            self._count(scores[list(known)], list(known.values()))
        return labels

    def _count(self, scores: np.ndarray, known: list[list[int]]) -> None:
        if self.metric == "top1":
            true = np.array([own[0] for own in known])
            self._true.append(true)
            self._ranks.append(metrics.class_ranks(scores, true))
            self._predicted.append(scores.argmax(axis=1))
            return
        relevant = np.zeros((len(known), len(self.classes)), bool)
        for row, own in enumerate(known):
            relevant[row, own] = True
        self._true.append(relevant)
        self._scores.append(scores)

    def fail(self, id: str) -> None:
        """Take in an item that could not be embedded: its id is known nonetheless."""
        self.failed += 1
        if self.truth:
            self.truth.of(id, {})

    def places(self, labels: Sequence[str], id: str) -> list[int]:
        """The numbers of an item's labels among the classes."""
        for label in labels:
            if label not in self._places:
                near = difflib.get_close_matches(label, self.classes, 1)
                some = ", ".join(self.classes[:8]) + (", …" if len(self.classes) > 8 else "")
                hint = f"the nearest is {near[0]!r}" if near else f"choose from {some}"
                raise UserError(f"{id}: its true label {label!r} is none of the {len(self.classes)} classes; {hint}")
        if self.metric == "top1" and len(labels) != 1:
            raise UserError(f"{id}: has {len(labels)} labels, {', '.join(labels) or 'none'}, and top-1 takes one; use --metric map")
        return [self._places[label] for label in labels]

    @property
    def scored(self) -> int:
        """Items with truth."""
        return len(self.folds)

    def true(self) -> np.ndarray:
        """`top1`: the class of each item, (n,). `map`: which classes each has, bool (n, c)."""
        return np.concatenate(self._true)

    def absent(self) -> list[str]:
        """Classes that no item with truth has."""
        true = self.true()
        counts = np.bincount(true, minlength=len(self.classes)) if self.metric == "top1" else true.sum(axis=0)
        return [name for name, count in zip(self.classes, counts, strict=True) if not count]

    def ranks(self) -> np.ndarray:
        """`top1`: the rank of each item's class, (n,), from 0."""
        return np.concatenate(self._ranks)

    def predicted(self) -> np.ndarray:
        """`top1`: the best class of each item, (n,)."""
        return np.concatenate(self._predicted)

    def scores(self) -> np.ndarray:
        """`map`: every item's score for every class, (n, c)."""
        return np.concatenate(self._scores)

    def sha256(self) -> str:
        """A hash of the ids and vectors of all items, in their order."""
        return self._digest.hexdigest()
