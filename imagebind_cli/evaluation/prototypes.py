"""Class vectors in the joint space: unit vectors of a class's names in prompts, or of examples of it in any modality.

As in CLIP, a name's vector is the mean of the unit vectors of its prompts, made a unit vector again. Where a class has several vectors, its
score is their highest cosine (`max`, as the paper scores NYU's "other"), or they are averaged in the same way (`mean`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.labels import Label
from imagebind_cli.evaluation.prompts import Templates
from imagebind_cli.evaluation.truth import labels_of
from imagebind_cli.evaluation.vectors import ItemVectors
from imagebind_cli.similarity import unit
from imagebind_cli.store import FORMATS, Row, Store

DECIMALS = 12  # of a cosine


@dataclass(frozen=True)
class Prototypes:
    """Classes as vectors.

    classes: the name of each. vectors: unit rows (m, dim) float32. owners: the number of each row's class, (m,), in rising order.
    names: the class name or the example of each row. made: how the vectors were made, as a store records it.
    """

    classes: list[str]
    vectors: np.ndarray
    owners: np.ndarray
    names: list[str]
    made: dict[str, Any]

    def scores(self, items: np.ndarray) -> np.ndarray:
        """Compute the cosine of unit vectors (k, dim) with each class, float64 (k, c): the highest where a class has several rows."""
        # The last digits of a product depend on its place in the matrix; without them, equal vectors have equal scores.
        cosines = np.round(items.astype(np.float64) @ self.vectors.T.astype(np.float64), DECIMALS).clip(-1, 1)  # (k, m)
        if len(self.owners) == len(self.classes):
            return cosines
        return np.maximum.reduceat(cosines, np.searchsorted(self.owners, np.arange(len(self.classes))), axis=1)

    def averaged(self) -> Prototypes:
        """Return one row for each class: the mean of its rows, made a unit vector again."""
        sums = np.zeros((len(self.classes), self.vectors.shape[1]))
        np.add.at(sums, self.owners, self.vectors)
        return Prototypes(self.classes, unit(sums).astype(np.float32), np.arange(len(self.classes)), self.classes, self.made)

    def sha256(self) -> str:
        """Hash the classes and their vectors."""
        digest = hashlib.sha256()
        for owner, vector in zip(self.owners, self.vectors, strict=True):
            digest.update(self.classes[owner].encode("utf-8", "surrogatepass") + b"\0" + vector.tobytes())
        return digest.hexdigest()


def from_rows(rows: Iterable[tuple[str, str, np.ndarray]], made: dict[str, Any]) -> Prototypes:
    """Build prototypes from (class, name of the row, unit vector), the classes in the order in which they first appear."""
    places: dict[str, int] = {}
    owned = [(places.setdefault(label, len(places)), name, vector) for label, name, vector in rows]
    owned.sort(key=lambda row: row[0])  # stable: rows of a class keep their order
    vectors = np.stack([vector for _, _, vector in owned]).astype(np.float32)
    return Prototypes(list(places), vectors, np.array([owner for owner, _, _ in owned]), [name for _, name, _ in owned], made)


def from_prompts(
    labels: Sequence[Label],
    templates: Templates,
    embed: Callable[[list[str]], Iterator[np.ndarray]],
    made: dict[str, Any],
) -> Prototypes:
    """Build prototypes from class names: a row for each name, the mean over its prompts.

    embed: turns sentences into their unit vectors, in order. It is given each sentence once, also where names share it.
    """
    owners: dict[str, list[str]] = {}  # sentence -> the names whose mean it belongs to
    sums: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for label in labels for name in label.names):
        for sentence in templates.fill(name):
            owners.setdefault(sentence, []).append(name)
    for names, vector in zip(owners.values(), embed(list(owners)), strict=True):
        for name in names:
            sums[name] = sums.get(name, 0) + vector.astype(np.float64)
    return from_rows(((label.name, name, unit(sums[name])) for label in labels for name in label.names), made)


def from_examples(batches: Iterable[ItemVectors], by: str | None, made: dict[str, Any], place: Path | str) -> Prototypes:
    """Build prototypes from examples, a row for each.

    Args:
        by: how the class of a row is found, as `labels_of` takes it; None for the column `class`, else the id. place: named in errors.
    Raises:
        UserError: an example has no class, or there are fewer than two classes.
    """
    rows = []
    for batch in batches:
        for id, meta, vector in zip(batch.ids, batch.metas, batch.vectors, strict=True):
            labels = labels_of(by or ("class" if "class" in meta else "id"), id, meta)
            if not labels:
                raise UserError(f"{place}: {id} has no {by!r} to name its class; it has {', '.join(meta) or 'nothing'} beside its id")
            rows += [(label, id, vector) for label in labels]
    count = len({label for label, _, _ in rows})
    if count < 2:
        raise UserError(f"{place}: {count} classes in it; at least two are needed. --class-by says how they are named")
    return from_rows(rows, made)


def check_new_store(path: Path) -> None:
    """Refuse a path that class vectors cannot be written to: other rows in the store would be mixed with them.

    Raises:
        UserError: it exists. UsageError: its ending is not that of a store.
    """
    if os.path.lexists(path):
        raise UserError(f"{path}: exists already")
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS)}")


def save_prototypes(prototypes: Prototypes, path: Path) -> None:
    """Write class vectors to a store, the class of each row in its column `class`."""
    with Store(path, prototypes.made) as store:
        for owner, name, vector in zip(prototypes.owners, prototypes.names, prototypes.vectors, strict=True):
            label = prototypes.classes[owner]
            id = label if name == label else f"{label}={name}"  # as it would be typed; two classes may share a name
            store.append([Row(id, vector, meta={"class": label})])
