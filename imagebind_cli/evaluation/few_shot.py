"""A linear classifier on frozen vectors from k examples of each class, by the paper's protocol (arXiv 2305.05665, B.2).

The paper states AdamW with, for sound, rate 1.6e-3, weight decay 0.05 and 50 epochs, and for depth 1e-2, 0 and 60. It does not state the batch
size, the number of draws of examples, the schedule (constant here), AdamW's betas (0.9 and 0.999 here, as PyTorch has them), nor whether
vectors carry their logit scale (they do not here). Weights start at zero, so that chance enters by the examples and their order alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagebind_cli.errors import UserError


@dataclass(frozen=True)
class Training:
    """How the classifier is trained. seed: which examples are drawn, and their order."""

    shots: int
    learning_rate: float = 1.6e-3
    weight_decay: float = 0.05
    epochs: int = 50
    batch_size: int = 16
    seed: int = 0

    def words(self) -> str:
        """All of it in a line."""
        return (
            f"{self.shots} {'example' if self.shots == 1 else 'examples'} a class, AdamW, rate {self.learning_rate:g}, "
            f"weight decay {self.weight_decay:g}, {self.epochs} epochs; "
            f"not published and assumed: batch {self.batch_size}, constant rate, one draw, of seed {self.seed}"
        )


def true_classes(places: Sequence[Sequence[int] | None]) -> np.ndarray:
    """The class of each item, (n,), -1 where it is not known."""
    return np.array([own[0] if own else -1 for own in places], np.int64)


def split(true: np.ndarray, classes: Sequence[str], how: Training, folds: Sequence[str | None], fold: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, `how.shots` of each class, and rows to test on: where there are folds that one, else all others.

    true: the class of each row, (n,), -1 where unknown. folds: of each row; empty if there are none.

    Raises:
        UserError: a class with fewer items to draw from, or no such fold.
    """
    tested = np.zeros(len(true), bool)
    if any(folds):
        tested = np.array([str(own) == fold for own in folds])
        if not tested.any():
            raise UserError(f"no item is in fold {fold!r}; choose from {', '.join(sorted({str(own) for own in folds}))}")
    random = np.random.default_rng(how.seed)
    learnt: list[np.ndarray] = []
    for place, name in enumerate(classes):
        own = np.flatnonzero((true == place) & ~tested)
        if len(own) < how.shots:
            raise UserError(f"class {name!r} has {len(own)} items to learn from; {how.shots} shots are asked for")
        learnt.append(random.permutation(own)[: how.shots])
    rows = np.concatenate(learnt)
    return rows, np.flatnonzero(tested) if tested.any() else np.setdiff1d(np.arange(len(true)), rows)


def others(ids: Sequence[str], examples: Sequence[str]) -> np.ndarray:
    """All rows of these ids.

    Raises:
        UserError: one of them is an example, which would be tested on what was learnt from it.
    """
    both = set(examples) & set(ids)
    if both:
        raise UserError(f"{len(both)} of the examples are among the inputs, as {min(both)!r}; --shots-from takes a store of other items")
    return np.arange(len(ids))


class Probe:
    """Softmax regression: scores are vectors @ weights.T + bias, (k, c). Train one with `train`."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        self.weights, self.bias = weights, bias

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Logits (k, c) of vectors (k, dim)."""
        return vectors @ self.weights.T + self.bias


def published(modality: str) -> Training:
    """The paper's numbers for a modality, with one shot; sound's for all but depth, of which it says nothing."""
    return Training(1, learning_rate=1e-2, weight_decay=0.0, epochs=60) if modality == "depth" else Training(1)


def train(vectors: np.ndarray, truth: np.ndarray, classes: int, how: Training) -> Probe:
    """A classifier of vectors (n, dim) into the classes of `truth` (n,), by AdamW on the cross-entropy, in float64."""
    vectors = np.asarray(vectors, np.float64)
    parameters = np.zeros((classes, vectors.shape[1] + 1))  # the last column is the bias
    inputs = np.column_stack([vectors, np.ones(len(vectors))])
    wanted = np.eye(classes)[truth]
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)  # moments
    random = np.random.default_rng(how.seed)
    step = 0
    for _ in range(how.epochs):
        order = random.permutation(len(inputs))
        for start in range(0, len(order), how.batch_size):
            batch = order[start : start + how.batch_size]
            logits = inputs[batch] @ parameters.T
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            errors = powers / powers.sum(axis=1, keepdims=True) - wanted[batch]
            gradient = errors.T @ inputs[batch] / len(batch)
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            parameters *= 1 - how.learning_rate * how.weight_decay
            size = how.learning_rate / (1 - 0.9**step)
            parameters -= size * first / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return Probe(parameters[:, :-1], parameters[:, -1])
