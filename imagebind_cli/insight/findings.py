"""Copies, outliers, labels that are likely wrong, and pairs whose modalities disagree: `inspect_store`, `inspect_pairs`.

Every item has a score for each kind of finding, and a threshold that is proposed from the scores of the store itself (`proposals.py`) decides which
items are reported. Labels are judged as in confident learning (Northcutt et al. 2021), with the share of neighbours that have a label in place of a
classifier's probability.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.truth import FOLDER, Truth, open_truth
from imagebind_cli.insight.item_vectors import MEMORY, StoredVectors, item_vectors
from imagebind_cli.insight.neighbours import Neighbours, find_neighbours
from imagebind_cli.insight.pairing import pair_items
from imagebind_cli.insight.proposals import copy_threshold, mispairing_threshold, outlier_threshold
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store
from imagebind_cli.store.source import release

NEIGHBOURS = 15
COPIES, OUTLIERS, LABELS, PAIRS = "copies", "outliers", "labels", "pairs"  # kinds of findings
BLOCK = 16384  # items at a time


@dataclass(frozen=True)
class Finding:
    """One item, or several that are copies of each other.

    kind: `copies`, `outliers`, `labels` or `pairs`. ids: of the items. score: for copies the least cosine of one with its nearest; for an outlier
    its median cosine with its neighbours; for a label how much larger the share of neighbours with the suggested label is, -1 to 1; for a pair
    its score. label, suggested: of a label.
    """

    kind: str
    ids: tuple[str, ...]
    score: float
    label: str | None = None
    suggested: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the line that `imagebind store inspect` prints."""
        about = {"label": self.label, "suggested": self.suggested} if self.kind == LABELS else {}
        return {"finding": self.kind, "ids": list(self.ids), "score": self.score} | about


@dataclass(frozen=True)
class StoreInspection:
    """The result of an inspection.

    findings: the most striking of each kind first. thresholds: what decided, by kind; of labels the mean over the classes
    of the share of neighbours that it takes, or the margin that was given. items: how many were
    inspected, or pairs. scores: float32 (items,) by kind. ids: of the items; of pairs, of both. exact: whether all pairs of items were compared.
    notes: what was left out or could not be decided, in words.
    """

    findings: list[Finding]
    thresholds: dict[str, float]
    items: int
    scores: dict[str, np.ndarray]
    ids: Sequence[Any]
    exact: bool
    notes: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the scores of every item, as a line of `--scores`; None where it has none."""
        names, columns = list(self.scores), [self.scores[name].tolist() for name in self.scores]
        for number, id in enumerate(self.ids):
            values = (column[number] for column in columns)
            scores = {name: value if np.isfinite(value) else None for name, value in zip(names, values, strict=True)}
            yield ({"ids": list(id)} if isinstance(id, tuple) else {"id": id}) | scores


def inspect_store(
    store: str | Path | StoreReader,
    truth: str | Mapping[str, Any] | None = None,
    k: int = NEIGHBOURS,
    thresholds: Mapping[str, float] | None = None,
    exact: bool | None = None,
    memory: int = MEMORY,
) -> StoreInspection:
    """Find copies, outliers and, where labels are given, those that are likely wrong.

    Args:
        store: a path, a pattern, or a store. truth: the labels, as `classify` takes them: `folder`, a column, a file, or a mapping.
        k: neighbours of each item that are looked at. thresholds: in place of the proposed ones, by kind.
        exact: compare all pairs of items; by default up to 20,000 items. memory: bytes for vectors and distances, ids aside.
    Raises:
        UserError: no such store, it is empty or damaged, or no item has a label.
    """
    thresholds = _checked(thresholds, (COPIES, OUTLIERS, LABELS))
    reader = store if isinstance(store, StoreReader) else open_store(store)
    with item_vectors(reader, memory) as items:
        if len(items) < 3:
            raise UserError(f"{reader.path}: {len(items)} items; an inspection compares at least 3")
        labels = None if truth is None else _item_labels(reader, items, truth)
        near = find_neighbours(items.rows, k, exact)
        nearest, typical = near.cosines[:, 0], _typical(near)
        used = {
            COPIES: thresholds.get(COPIES, copy_threshold(nearest, items.rounding)),
            OUTLIERS: thresholds.get(OUTLIERS, outlier_threshold(typical, items.rounding)),
        }
        scores = {COPIES: nearest, OUTLIERS: typical}
        found = [*_copies(items, near, used[COPIES]), *_outliers(items, typical, used[OUTLIERS])]
        notes = []
        if labels is not None:
            margins, wrong, used[LABELS] = _judge(labels, near, thresholds.get(LABELS))
            scores[LABELS] = margins
            found += wrong(items.ids)
            if unlabelled := sum(not each for each in labels.of_item):
                notes.append(f"{unlabelled:,} items have no label")
        return StoreInspection(found, used, len(items), scores, items.ids, near.exact, notes)


def inspect_pairs(
    stores: Sequence[str | Path | StoreReader],
    pairs: str | Path = "ids",
    thresholds: Mapping[str, float] | None = None,
    columns: Mapping[str, str] | None = None,
    memory: int = MEMORY,
    seed: int = 0,
) -> StoreInspection:
    """Find pairs of items of two stores whose vectors disagree, such as a picture with the wrong sound.

    A pair's score is its cosine after the mean of each store is subtracted, because what all sounds have in common says nothing about one of them.

    Args:
        stores: two, of one model. pairs, columns: as in `pair_items`.
    Raises:
        UserError: as `pair_items`, or the stores are of two models.
    """
    thresholds = _checked(thresholds, (PAIRS,))
    if len(stores) != 2:
        raise UsageError(f"--pairs takes two stores; {len(stores)} are given")
    space = Space()
    first, second = (space.admit(each if isinstance(each, StoreReader) else open_store(each)) for each in stores)
    with item_vectors(first, memory // 2) as one, item_vectors(second, memory // 2) as other:
        paired = pair_items((first, second), (one.ids, other.ids), pairs, columns)
        means = [items.mean() for items in (one, other)]
        scores = paired_cosines(one.rows, other.rows, paired.numbers, means)
        shuffled = paired.numbers.copy()
        # Each with the partner of another: a shift of a shuffled order leaves nobody with their own.
        order = np.random.default_rng(seed).permutation(len(shuffled))
        shuffled[order, 1] = shuffled[np.roll(order, 1), 1]
        by_chance = paired_cosines(one.rows, other.rows, shuffled, means)
        proposed, share = mispairing_threshold(scores, by_chance)
        threshold = thresholds.get(PAIRS, proposed)
        names = [(one.ids[i], other.ids[j]) for i, j in paired.numbers.tolist()]
        low = np.flatnonzero(scores <= threshold)
        found = [Finding(PAIRS, names[i], float(scores[i])) for i in low[np.argsort(scores[low], kind="stable")].tolist()]
        notes = [f"about {share:.1%} of the pairs score as pairs put together by chance do"]
        if sum(map(len, paired.unpaired)):
            notes.append(
                f"without a partner: {len(paired.unpaired[0]):,} items of {first.path}, {len(paired.unpaired[1]):,} of {second.path}"
            )
        if paired.missing:
            notes.append(f"{paired.missing:,} pairs name an id that is not in the stores")
        if share > 0.5:
            notes.append("more than half of them: check that --pairs is right and that the model can tell such pairs apart")
        return StoreInspection(found, {PAIRS: threshold}, len(names), {PAIRS: scores.astype(np.float32)}, names, True, notes)


def _checked(thresholds: Mapping[str, float] | None, kinds: Sequence[str]) -> Mapping[str, float]:
    unknown = next((kind for kind in thresholds or {} if kind not in kinds), None)
    if unknown is not None:
        raise UsageError(f"no threshold {unknown!r} here; choose from {', '.join(kinds)}")
    return thresholds or {}


def _typical(near: Neighbours) -> np.ndarray:
    """Return the median cosine of each item with its neighbours, of which a copy or two do not change it."""
    typical: np.ndarray = near.cosines[:, near.cosines.shape[1] // 2]  # sorted; -inf never: probing always finds the own cell
    return np.where(np.isfinite(typical), typical, near.cosines[:, 0])


def _copies(items: StoredVectors, near: Neighbours, threshold: float) -> Iterator[Finding]:
    """Yield groups of items that are linked by cosines of at least the threshold, the largest groups first."""
    rows, columns = np.nonzero(near.cosines >= threshold)
    parents: dict[int, int] = {}

    def root(item: int) -> int:
        while parents.setdefault(item, item) != item:
            parents[item] = item = parents[parents[item]]
        return item

    for one, other in zip(rows.tolist(), near.rows[rows, columns].tolist(), strict=True):
        first, second = sorted((root(one), root(other)))
        parents[second] = first
    groups: dict[int, list[int]] = {}
    for item in sorted(parents):
        groups.setdefault(root(item), []).append(item)
    scored = [(members, float(near.cosines[members, 0].min())) for members in groups.values()]
    for members, score in sorted(scored, key=lambda group: (-len(group[0]), -group[1], group[0][0])):
        yield Finding(COPIES, tuple(items.ids[item] for item in members), score)


def _outliers(items: StoredVectors, typical: np.ndarray, threshold: float) -> Iterator[Finding]:
    far = np.flatnonzero(typical < threshold)
    for item in far[np.argsort(typical[far], kind="stable")].tolist():
        yield Finding(OUTLIERS, (items.ids[item],), float(typical[item]))


@dataclass(frozen=True)
class _Labels:
    """The labels of items, as numbers. of_item: of each; lists may be empty. main: the first of each, or -1."""

    names: list[str]
    of_item: list[tuple[int, ...]]
    main: np.ndarray


def _item_labels(store: StoreReader, items: StoredVectors, given: str | Mapping[str, Any]) -> _Labels:
    truth = given if isinstance(given, Truth) else open_truth(given)
    numbers: dict[str, int] = {}
    of_item = []
    for id, row in zip(items.ids, items.first.tolist(), strict=True):
        found = truth.of(id, store.meta(row) if truth.needs_metas and truth.by_id is None else {}) or ()
        of_item.append(tuple(numbers.setdefault(label, len(numbers)) for label in found))
    if len(numbers) < 2:
        hint = "" if truth.how != FOLDER else "; labels by `folder` are the names of the folders in the ids"
        raise UserError(
            f"{store.path}: {len(numbers) or 'no'} label{'' if len(numbers) == 1 else 's'} by {truth.how}; at least two are needed{hint}"
        )
    return _Labels(list(numbers), of_item, np.array([each[0] if each else -1 for each in of_item], np.int64))


def _judge(labels: _Labels, near: Neighbours, threshold: float | None) -> tuple[np.ndarray, Any, float]:
    """Return the margin of each item, a function of the ids that lists the wrong labels, and the threshold.

    The margin is the share of neighbours with the most frequent other label less that of neighbours with an own label. An item's label is likely
    wrong where the share of the other reaches what is usual for items that have that label. A given threshold is one of the margin.
    """
    count, classes = len(labels.main), len(labels.names)
    several = any(len(each) > 1 for each in labels.of_item)
    own, best, rival = np.zeros(count, np.float32), np.zeros(count, np.float32), np.full(count, -1, np.int64)
    for start in range(0, count, BLOCK):
        rows = near.rows[start : start + BLOCK]
        votes = np.where(rows >= 0, labels.main[rows], -1)  # (n, k)
        given = np.maximum((votes >= 0).sum(axis=1), 1)
        mine = votes == labels.main[start : start + BLOCK, None]
        if several:
            sets = [set(each) for each in labels.of_item[start : start + BLOCK]]
            mine = np.array([[bool(sets[i] & set(labels.of_item[j])) for j in row] for i, row in enumerate(rows.tolist())])
        mine &= votes >= 0
        others = np.where(mine, -1, votes)
        alike = ((others[:, :, None] == others[:, None, :]) & (others[:, :, None] >= 0)).sum(axis=2)  # (n, k): votes for the same label
        place = alike.argmax(axis=1)  # the first, which is the nearest neighbour's among equals
        line = np.arange(len(rows))
        part = slice(start, start + BLOCK)
        own[part], best[part] = mine.sum(axis=1) / given, alike[line, place] / given
        rival[part] = np.where(alike[line, place] > 0, others[line, place], -1)
    labelled = labels.main >= 0
    # What is usual for a label: the mean share of neighbours that agree with an item of it (Northcutt et al. 2021, equation 2).
    sizes = np.bincount(labels.main[labelled], minlength=classes)
    held = np.bincount(labels.main[labelled], own[labelled], classes) / np.maximum(sizes, 1)
    usual = held - np.sqrt(held * (1 - held) / near.rows.shape[1])  # less the standard error of a share of k neighbours
    margins = np.where(labelled, best - own, -np.inf).astype(np.float32)
    if threshold is None:
        wrong = labelled & (rival >= 0) & (best > own) & (best >= usual[rival])
    else:
        wrong = margins >= threshold
    listed = np.flatnonzero(wrong)
    listed = listed[np.argsort(-margins[listed], kind="stable")]

    def findings(ids: Sequence[str]) -> list[Finding]:
        return [
            Finding(
                LABELS,
                (ids[item],),
                float(margins[item]),
                "|".join(labels.names[label] for label in labels.of_item[item]),
                labels.names[rival[item]] if rival[item] >= 0 else None,
            )
            for item in listed.tolist()
        ]

    return margins, findings, float(usual[sizes > 0].mean()) if threshold is None else threshold


def paired_cosines(one: np.ndarray, other: np.ndarray, numbers: np.ndarray, means: Sequence[np.ndarray]) -> np.ndarray:
    """Return the cosine of each pair (n, 2) after the means are subtracted, float64 (n,); 0 for what is the mean itself."""
    cosines = np.empty(len(numbers))
    for start in range(0, len(numbers), BLOCK):
        part = numbers[start : start + BLOCK]
        sides = [rows[part[:, side]].astype(np.float64) - means[side] for side, rows in enumerate((one, other))]
        lengths = np.linalg.norm(sides[0], axis=1) * np.linalg.norm(sides[1], axis=1)
        cosines[start : start + BLOCK] = np.einsum("nd,nd->n", *sides) / np.maximum(lengths, 1e-12)
        release(one)
        release(other)
    return cosines
