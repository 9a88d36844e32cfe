"""Whether a run learns what it is for: retrieval on pairs it has not seen, and classification through a modality it never met.

Every process validates everything, so that all take the same steps. Embeddings of frozen encoders are made once. Batches have fixed sizes: the
figures of a run that was killed and went on are those of an unbroken one, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import metrics, registry
from imagebind_cli.errors import UserError
from imagebind_cli.training.data import PairData
from imagebind_cli.training.parallel import Tower
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.setup import Design, Machinery
from imagebind_cli.training.zeroshot import Labelled

ROWS = 512
"""Queries that are scored at once."""


@dataclass(frozen=True)
class Score:
    """A figure between 0 and 1, its 95 % bootstrap interval, and what guessing gives."""

    value: float
    low: float
    high: float
    chance: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, by chance {self.chance:.3f})"


def score_names(recipe: Recipe) -> list[str]:
    """What a validation of this recipe gives: `image-depth/R@1` is a picture's own depth map found first, `audio/accuracy` zero-shot."""
    ways = [way for pair in recipe.pairs if pair.val for way in (pair.name, "-".join(reversed(pair.modalities)))]
    return [f"{way}/{recall}" for way in ways for recall in metrics.RECALLS] + [f"{test.modality}/accuracy" for test in recipe.zeroshot]


def told(scores: Mapping[str, Score]) -> Iterator[str]:
    """Scores in words, a line for each way of asking."""
    for way, names in groupby(scores, key=lambda name: name.partition("/")[0]):
        yield f"{way} " + ", ".join(f"{name.partition('/')[2]} {scores[name]}" for name in names)


class Validation:
    """Scores a run's encoders as they are."""

    def __init__(self, plan: Design, machinery: Machinery, say: Callable[[str], None]) -> None:
        self._plan, self._machinery, self._say = plan, machinery, say
        self._kept: dict[object, np.ndarray] = {}

    @torch.no_grad()
    def __call__(self) -> dict[str, Score]:
        """Every score by name; see `score_names`."""
        for tower in self._machinery.towers.values():
            tower.eval()
        scores: dict[str, Score] = {}
        for number, pair in enumerate(self._plan.recipe.pairs):
            if pair.val and self._plan.val is not None:
                scores |= self._retrieval(number, self._plan.val)
        for test in self._plan.tests:
            scores[f"{test.modality}/accuracy"] = self._accuracy(test)
        for tower in self._machinery.towers.values():
            tower.train()
        return scores

    def _retrieval(self, number: int, val: PairData) -> dict[str, Score]:
        names = self._plan.recipe.pairs[number].modalities
        pairs = embed_pairs(self._machinery.sides(self._plan.recipe, number), val, number)
        scores = {}
        for way, asked, found in ((names, pairs.anchor, pairs.other), (names[::-1], pairs.other, pairs.anchor)):
            ranks = list(ranks_of(asked, found, pairs.groups))
            values = metrics.retrieval(ranks)
            for recall, k in zip(metrics.RECALLS, metrics.CUTOFFS, strict=True):
                chance = np.mean([_guessed(len(own), len(found), k) for own in ranks])
                scores[f"{'-'.join(way)}/{recall}"] = _score(values[recall], float(chance))
        return scores

    def _accuracy(self, test: Labelled) -> Score:
        text, tower = (self._machinery.towers[name] for name in ("text", registry.encoder_name(test.modality)))
        names = self._once(text, (id(test), "names"), lambda: test.class_vectors(text, self._say))
        rows = self._once(tower, (id(test), "items"), lambda: test.item_vectors(tower, self._say))
        read = np.isfinite(rows).all(axis=1)
        if not read.any():
            raise UserError(f"zero-shot {test.modality}: none of its items can be read")
        return _score(metrics.accuracy(rows[read] @ names.T, np.array(test.truth)[read]), 1 / len(names))

    def _once(self, tower: Tower, key: object, made: Callable[[], np.ndarray]) -> np.ndarray:
        """Embeddings, kept where their encoder is frozen."""
        if tower.trained:
            return made()
        if key not in self._kept:
            self._kept[key] = made()
        return self._kept[key]


@dataclass(frozen=True)
class EmbeddedPairs:
    """Unit vectors (n, e) float32 of both sides, and groups (n,); what shares a group belongs together."""

    anchor: np.ndarray
    other: np.ndarray
    groups: np.ndarray


def embed_pairs(sides: tuple[Tower, Tower], data: PairData, pair: int, rows: Iterable[int] | None = None) -> EmbeddedPairs:
    """Pairs without augmentation, as the encoders are now; those that cannot be read are left out.

    Raises:
        UserError: none can.
    """
    vectors: tuple[list[Tensor], list[Tensor]] = ([], [])
    groups: list[Tensor] = []
    for batch in data.samples(pair, range(data.counts[pair]) if rows is None else list(rows)):
        for tower, inputs, own in zip(sides, batch.inputs, vectors, strict=True):
            own.append(tower.call(inputs).cpu())
        groups.append(batch.groups)
    if not groups:
        raise UserError(f"pair {pair}: none of its samples can be read")
    return EmbeddedPairs(torch.cat(vectors[0]).numpy(), torch.cat(vectors[1]).numpy(), torch.cat(groups).numpy())


def ranks_of(queries: np.ndarray, found: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """For each row of queries (n, e) the sorted 0-based ranks, among `found` (n, e), of the rows of its group."""
    for first in range(0, len(queries), ROWS):
        scores = queries[first : first + ROWS] @ found.T  # (k, n)
        order = np.argsort(-scores, axis=1, kind="stable")
        for group, own in zip(groups[first : first + ROWS], order, strict=True):
            yield np.flatnonzero(groups[own] == group)


def _guessed(relevant: int, among: int, top: int) -> float:
    """The chance that one of `relevant` is in the first `top` of `among` in random order."""
    misses = [max(0, among - relevant - i) / (among - i) for i in range(min(top, among))]
    return 1 - float(np.prod(misses))


def _score(values: np.ndarray, chance: float) -> Score:
    low, high = metrics.interval(values)
    return Score(float(values.mean()), low, high, chance)
