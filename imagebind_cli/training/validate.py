"""Validation: retrieval on pairs that were not trained on, and zero-shot classification through a modality that was never paired.

Every process validates everything, so that all take the same steps. Embeddings of frozen encoders are computed once. Batches have fixed
sizes, so the scores of a run that was killed and continued equal those of an unbroken one to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import metrics, registry
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.training.data import PairData
from imagebind_cli.training.plan import Plan
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.start import Components
from imagebind_cli.training.towers import Tower
from imagebind_cli.training.zeroshot import ZeroShotTest

QUERIES = 512  # scored at once


@dataclass(frozen=True)
class Score:
    """A figure between 0 and 1, its 95 % bootstrap interval, and the score of guessing."""

    value: float
    low: float
    high: float
    chance: float


def score_names(recipe: Recipe) -> list[str]:
    """List the scores of a recipe's validation.

    `image-depth/R@1`: a picture finds its own depth map first. `audio/accuracy`: zero-shot classification.
    """
    ways = [way for pair in recipe.pairs if pair.is_validated for way in (pair.name, "-".join(reversed(pair.modalities)))]
    return [f"{way}/{recall}" for way in ways for recall in metrics.RECALLS] + [f"{test.modality}/accuracy" for test in recipe.zeroshot]


class Validation:
    """Scores a run's encoders in their present state."""

    def __init__(self, plan: Plan, components: Components, listener: Listener) -> None:
        self._plan, self._components, self._listener = plan, components, listener
        self._frozen: dict[object, np.ndarray] = {}

    @torch.no_grad()
    def __call__(self) -> dict[str, Score]:
        """Return every score by name; see `score_names`."""
        for tower in self._components.towers.values():
            tower.eval()
        scores: dict[str, Score] = {}
        for number, pair in enumerate(self._plan.recipe.pairs):
            if pair.is_validated and self._plan.val is not None:
                scores |= self._retrieval(number, self._plan.val)
        for test in self._plan.tests:
            scores[f"{test.modality}/accuracy"] = self._accuracy(test)
        for tower in self._components.towers.values():
            tower.train()
        return scores

    def _retrieval(self, number: int, val: PairData) -> dict[str, Score]:
        names = self._plan.recipe.pairs[number].modalities
        pairs = embed_pairs(self._components.pair_towers(self._plan.recipe, number), val, number)
        scores = {}
        for way, queries, candidates in ((names, pairs.anchor, pairs.other), (names[::-1], pairs.other, pairs.anchor)):
            ranks = list(group_ranks(queries, candidates, pairs.groups))
            values = metrics.retrieval(ranks)
            for recall, k in zip(metrics.RECALLS, metrics.CUTOFFS, strict=True):
                chance = np.mean([_chance_of_hit(len(relevant), len(candidates), k) for relevant in ranks])
                scores[f"{'-'.join(way)}/{recall}"] = _bootstrap(values[recall], float(chance))
        return scores

    def _accuracy(self, test: ZeroShotTest) -> Score:
        text, tower = (self._components.towers[name] for name in (registry.TEXT, registry.face(test.modality).encoder))
        names = self._embed_once(text, (id(test), "names"), lambda: test.class_vectors(text, self._listener))
        rows = self._embed_once(tower, (id(test), "items"), lambda: test.item_vectors(tower, self._listener))
        readable = np.isfinite(rows).all(axis=1)
        if not readable.any():
            raise UserError(f"zero-shot {test.modality}: none of its items can be read")
        return _bootstrap(metrics.accuracy(rows[readable] @ names.T, np.array(test.truth)[readable]), 1 / len(names))

    def _embed_once(self, tower: Tower, key: object, embed: Callable[[], np.ndarray]) -> np.ndarray:
        """Compute embeddings, once where their encoder is frozen."""
        if tower.trained:
            return embed()
        if key not in self._frozen:
            self._frozen[key] = embed()
        return self._frozen[key]


@dataclass(frozen=True)
class EmbeddedPairs:
    """Unit vectors (n, e) float32 of both modalities, and groups (n,): rows of one group are correct answers to each other."""

    anchor: np.ndarray
    other: np.ndarray
    groups: np.ndarray


def embed_pairs(towers: tuple[Tower, Tower], data: PairData, pair: int, rows: Iterable[int] | None = None) -> EmbeddedPairs:
    """Embed pairs without augmentation; those that cannot be read are left out.

    Raises:
        UserError: none can be read.
    """
    vectors: tuple[list[Tensor], list[Tensor]] = ([], [])
    groups: list[Tensor] = []
    for batch in data.samples(pair, range(data.counts[pair]) if rows is None else list(rows)):
        for tower, inputs, parts in zip(towers, batch.inputs, vectors, strict=True):
            parts.append(tower.call(inputs).cpu())
        groups.append(batch.groups)
    if not groups:
        raise UserError(f"pair {pair}: none of its samples can be read")
    return EmbeddedPairs(torch.cat(vectors[0]).numpy(), torch.cat(vectors[1]).numpy(), torch.cat(groups).numpy())


def group_ranks(queries: np.ndarray, candidates: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield, for each query (n, e), the sorted 0-based ranks of its group's rows among the candidates (n, e)."""
    for first in range(0, len(queries), QUERIES):
        scores = queries[first : first + QUERIES] @ candidates.T  # (k, n)
        orders = np.argsort(-scores, axis=1, kind="stable")
        for group, order in zip(groups[first : first + QUERIES], orders, strict=True):
            yield np.flatnonzero(groups[order] == group)


def _chance_of_hit(relevant: int, among: int, top: int) -> float:
    """Return the probability that one of `relevant` is in the first `top` of `among` in random order."""
    misses = [max(0, among - relevant - i) / (among - i) for i in range(min(top, among))]
    return 1 - float(np.prod(misses))


def _bootstrap(values: np.ndarray, chance: float) -> Score:
    low, high = metrics.interval(values)
    return Score(float(values.mean()), low, high, chance)
