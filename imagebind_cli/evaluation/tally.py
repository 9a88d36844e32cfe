"""The outcome of each item, kept as small as the metric allows, until the run is reported."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.truth import Truth
from imagebind_cli.evaluation.vectors import ItemVectors


class Tally:
    """Counts and scores of a run, with or without truth.

    metric: `top1` for one label an item, the best class wins; `map` for several, with average precision of each class. If None, `map` where
    the truth has several labels for an item. folds: the part of the dataset that an item belongs to, by id.

    Raises:
        UserError: the truth has a label that is none of the classes, or several for an item where `top1` is the metric.
    """

    def __init__(
        self, classes: Sequence[str], truth: Truth | None, metric: str | None = None, folds: Mapping[str, str | None] | None = None
    ) -> None:
        self.classes, self.truth = list(classes), truth
        self.metric = metric or ("map" if truth and truth.has_several else "top1")
        self.items = self.failed = self.without_truth = 0
        self.ids: list[str] = []  # of each item with truth
        self.folds: list[str | None] = []
        self._folds = folds or {}
        self._places = {name: place for place, name in enumerate(self.classes)}
        self._digest = hashlib.sha256()
        self._true: list[np.ndarray] = []
        self._ranks: list[np.ndarray] = []
        self._predicted: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        for id, labels in (truth.by_id or {} if truth else {}).items():  # refused before anything is embedded
            self.places(labels, id)

    def add(self, batch: ItemVectors, scores: np.ndarray) -> list[Sequence[str] | None]:
        """Add items with their scores (k, c) and return the labels of each, None where they are not known."""
        for id, vector in zip(batch.ids, batch.vectors, strict=True):
            self._digest.update(id.encode("utf-8", "surrogatepass") + b"\0" + vector.astype("<f4").tobytes())
        self.items += len(batch.ids)
        if self.truth is None:
            return [None] * len(batch.ids)
        labels = [self.truth.of(id, meta) for id, meta in zip(batch.ids, batch.metas, strict=True)]
        known = {row: self.places(of_item, batch.ids[row]) for row, of_item in enumerate(labels) if of_item is not None}
        self.without_truth += len(labels) - len(known)
        self.ids += [batch.ids[row] for row in known]
        self.folds += [self._folds.get(batch.ids[row]) for row in known]
        if known:
            self._count(scores[list(known)], list(known.values()))
        return labels

    def _count(self, scores: np.ndarray, known: list[list[int]]) -> None:
        if self.metric == "top1":
            true = np.array([numbers[0] for numbers in known])
            self._true.append(true)
            self._ranks.append(metrics.class_ranks(scores, true))
            self._predicted.append(scores.argmax(axis=1))
            return
        relevant = np.zeros((len(known), len(self.classes)), bool)
        for row, numbers in enumerate(known):
            relevant[row, numbers] = True
        self._true.append(relevant)
        self._scores.append(scores)

    def fail(self, id: str) -> None:
        """Add an item that could not be embedded, so that its truth does not count as missed."""
        self.failed += 1
        if self.truth:
            self.truth.of(id, {})

    def places(self, labels: Sequence[str], id: str) -> list[int]:
        """Return the numbers of an item's labels among the classes.

        Raises:
            UserError: a label is none of the classes, or the metric takes one label and the item has several.
        """
        for label in labels:
            if label not in self._places:
                near = difflib.get_close_matches(label, self.classes, 1)
                choices = ", ".join(self.classes[:8]) + (", …" if len(self.classes) > 8 else "")
                unlike = f"they are {choices}; --labels '{label}=NAME' gives a class that label"
                hint = f"the nearest is {near[0]!r}" if near else unlike
                raise UserError(f"{id}: its true label {label!r} is none of the {len(self.classes)} classes; {hint}")
        if self.metric == "top1" and len(labels) != 1:
            named = f"{len(labels)} labels ({', '.join(labels)})" if labels else "no label"
            raise UserError(f"{id}: has {named}; top-1 takes one; use --metric map")
        return [self._places[label] for label in labels]

    @property
    def scored(self) -> int:
        """The number of items with truth."""
        return len(self.ids)

    def true(self) -> np.ndarray:
        """Return for `top1` the class of each item, (n,); for `map` which classes each has, bool (n, c)."""
        return np.concatenate(self._true)

    def absent(self) -> list[str]:
        """List the classes that no item with truth has."""
        true = self.true()
        counts = np.bincount(true, minlength=len(self.classes)) if self.metric == "top1" else true.sum(axis=0)
        return [name for name, count in zip(self.classes, counts, strict=True) if not count]

    def ranks(self) -> np.ndarray:
        """Return for `top1` the rank of each item's class, (n,), from 0."""
        return np.concatenate(self._ranks)

    def predicted(self) -> np.ndarray:
        """Return for `top1` the best class of each item, (n,)."""
        return np.concatenate(self._predicted)

    def scores(self) -> np.ndarray:
        """Return for `map` the score of each item for each class, (n, c)."""
        return np.concatenate(self._scores)

    def sha256(self) -> str:
        """Hash the ids and vectors of all items, in their order."""
        return self._digest.hexdigest()
