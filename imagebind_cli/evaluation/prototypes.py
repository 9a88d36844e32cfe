"""What a class looks like in the joint space: unit vectors of its names in prompts, or of examples of it in any modality.

As CLIP does it, a name's vector is the mean of the unit vectors of its prompts, made a unit vector again. Where a class has several vectors,
its score is the highest cosine of them (`max`, as the paper has it for NYU's "other"), or they are averaged in the same way (`mean`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagebind_cli.evaluation.labels import Label
from imagebind_cli.evaluation.prompts import Templates
from imagebind_cli.similarity import unit

DECIMALS = 12


@dataclass(frozen=True)
class Prototypes:
    """Classes by their vectors.

    classes: what each is called. vectors: unit rows (m, dim) float32. owners: the class of each row, (m,), in rising order. names: what
    each row stands for. made: how the vectors were made, as a store says it.
    """

    classes: list[str]
    vectors: np.ndarray
    owners: np.ndarray
    names: list[str]
    made: dict[str, Any]

    def scores(self, items: np.ndarray) -> np.ndarray:
        """Cosine of unit vectors (k, dim) and each class, float64 (k, c): the highest where a class has several rows."""
        # A product's last digits depend on the place in the matrix; cut off, equal vectors have equal scores.
        cosines = np.round(items.astype(np.float64) @ self.vectors.T.astype(np.float64), DECIMALS).clip(-1, 1)  # (k, m)
        if len(self.owners) == len(self.classes):
            return cosines
        return np.maximum.reduceat(cosines, np.searchsorted(self.owners, np.arange(len(self.classes))), axis=1)

    def averaged(self) -> Prototypes:
        """One row for each class: the mean of its rows, made a unit vector again."""
        sums = np.zeros((len(self.classes), self.vectors.shape[1]))
        np.add.at(sums, self.owners, self.vectors)
        return Prototypes(self.classes, unit(sums).astype(np.float32), np.arange(len(self.classes)), self.classes, self.made)

    def sha256(self) -> str:
        """A hash of the classes and their vectors."""
        digest = hashlib.sha256()
        for owner, vector in zip(self.owners, self.vectors, strict=True):
            digest.update(self.classes[owner].encode("utf-8", "surrogatepass") + b"\0" + vector.tobytes())
        return digest.hexdigest()


def from_rows(rows: Iterable[tuple[str, str, np.ndarray]], made: dict[str, Any]) -> Prototypes:
    """Prototypes of (class, name of the row, unit vector), the classes in the order in which they first come."""
    places: dict[str, int] = {}
    found = [(places.setdefault(label, len(places)), name, vector) for label, name, vector in rows]
    found.sort(key=lambda row: row[0])  # stable: rows of a class stay in their order
    vectors = np.stack([vector for _, _, vector in found]).astype(np.float32)
    return Prototypes(list(places), vectors, np.array([owner for owner, _, _ in found]), [name for _, name, _ in found], made)


def from_prompts(
    labels: Sequence[Label],
    templates: Templates,
    embed: Callable[[list[str]], Iterator[np.ndarray]],
    made: dict[str, Any],
) -> Prototypes:
    """Prototypes of class names: a row for each name, the mean over its prompts.

    embed: sentences to their unit vectors, in order. Each sentence is given to it once, though names share it.
    """
    wanted: dict[str, list[str]] = {}  # sentence -> the names whose mean it belongs to
    sums: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for label in labels for name in label.names):
        for sentence in templates.fill(name):
            wanted.setdefault(sentence, []).append(name)
    for names, vector in zip(wanted.values(), embed(list(wanted)), strict=True):
        for name in names:
            sums[name] = sums.get(name, 0) + vector.astype(np.float64)
    return from_rows(((label.name, name, unit(sums[name])) for label in labels for name in label.names), made)
