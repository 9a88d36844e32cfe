"""A linear classifier trained on the frozen vectors of k examples of each class, by the paper's protocol (arXiv 2305.05665, B.2).

The paper states AdamW with, for audio, rate 1.6e-3, weight decay 0.05 and 50 epochs, and for depth 1e-2, 0 and 60. It does not state the
batch size, the number of draws of examples, the schedule (constant here), AdamW's betas (0.9 and 0.999 here, PyTorch's defaults), nor
whether vectors are multiplied by their logit scale (they are not here). Weights start at zero, so that only the choice of examples and
their order are random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.options import ProbeOptions
from imagebind_cli.registry import face


@dataclass(frozen=True)
class ProbeTraining:
    """How the classifier is trained. seed: of the choice of examples and of their order."""

    shots: int
    learning_rate: float = 1.6e-3
    weight_decay: float = 0.05
    epochs: int = 50
    batch_size: int = 16
    seed: int = 0

    def describe(self) -> str:
        """Return all settings in one line, with those that the paper does not state."""
        return (
            f"{self.shots} {'example' if self.shots == 1 else 'examples'} a class, AdamW, rate {self.learning_rate:g}, "
            f"weight decay {self.weight_decay:g}, {self.epochs} epochs; "
            f"not published and assumed: batch {self.batch_size}, constant rate, one draw, of seed {self.seed}"
        )


def published_training(modality: str) -> ProbeTraining:
    """Return the paper's settings for a modality, with one shot: those for audio except for depth; it states no others."""
    return ProbeTraining(1, **dict(face(modality).probe))  # type: ignore[arg-type]


def probe_training(modality: str, options: ProbeOptions) -> ProbeTraining:
    """Return the published settings for a modality with those that the options set."""
    stated = {
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "epochs": options.epochs,
        "batch_size": options.shot_batch,
        "seed": options.seed,
    }
    return replace(
        published_training(modality),
        shots=options.shots or 1,
        **{name: value for name, value in stated.items() if value is not None},  # type: ignore[arg-type]
    )


def first_labels(places: Sequence[Sequence[int] | None]) -> np.ndarray:
    """Return the class of each item, int64 (n,), -1 where it is not known, from the numbers of its labels."""
    return np.array([numbers[0] if numbers else -1 for numbers in places], np.int64)


def draw_examples(
    true: np.ndarray, classes: Sequence[str], training: ProbeTraining, folds: Sequence[str | None], fold: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows to learn from, `training.shots` of each class, and return them with the rows to test on.

    Args:
        true: the class of each row, (n,), -1 where it is not known.
        folds: of each row; empty if there are none. fold: the one to test on. Without folds, all rows that are not learned from are tested.
    Raises:
        UserError: a class has fewer items than shots, or no item is in the fold.
    """
    tested = np.zeros(len(true), bool)
    if any(folds):
        tested = np.array([str(each) == fold for each in folds])
        if not tested.any():
            raise UserError(f"no item is in fold {fold!r}; choose from {', '.join(sorted({str(each) for each in folds}))}")
    random = np.random.default_rng(training.seed)
    examples: list[np.ndarray] = []
    for place, name in enumerate(classes):
        candidates = np.flatnonzero((true == place) & ~tested)
        if len(candidates) < training.shots:
            raise UserError(f"class {name!r} has {len(candidates)} items to learn from; {training.shots} shots are asked for")
        examples.append(random.permutation(candidates)[: training.shots])
    rows = np.concatenate(examples)
    return rows, np.flatnonzero(tested) if tested.any() else np.setdiff1d(np.arange(len(true)), rows)


def check_disjoint(ids: Sequence[str], examples: Sequence[str]) -> None:
    """Refuse examples that are among the tested items.

    Raises:
        UserError: an id is on both sides, and would be tested on what was learned from it.
    """
    both = set(examples) & set(ids)
    if both:
        raise UserError(f"{len(both)} of the examples are among the inputs, as {min(both)!r}; --shots-from takes a store of other items")


class Probe:
    """Softmax regression: scores are vectors @ weights.T + bias, (k, c). Train one with `train_probe`."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        self.weights, self.bias = weights, bias

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Compute the logits (k, c) of vectors (k, dim)."""
        return vectors @ self.weights.T + self.bias


def train_probe(vectors: np.ndarray, truth: np.ndarray, classes: int, training: ProbeTraining) -> Probe:
    """Train a classifier of vectors (n, dim) into the classes of `truth` (n,), by AdamW on the cross-entropy, in float64."""
    vectors = np.asarray(vectors, np.float64)
    parameters = np.zeros((classes, vectors.shape[1] + 1))  # the last column is the bias
    inputs = np.column_stack([vectors, np.ones(len(vectors))])
    targets = np.eye(classes)[truth]
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)  # moments
    random = np.random.default_rng(training.seed)
    step = 0
    for _ in range(training.epochs):
        order = random.permutation(len(inputs))
        for start in range(0, len(order), training.batch_size):
            batch = order[start : start + training.batch_size]
            logits = inputs[batch] @ parameters.T
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            errors = powers / powers.sum(axis=1, keepdims=True) - targets[batch]
            gradient = errors.T @ inputs[batch] / len(batch)
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            parameters *= 1 - training.learning_rate * training.weight_decay
            size = training.learning_rate / (1 - 0.9**step)
            parameters -= size * first / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return Probe(parameters[:, :-1], parameters[:, -1])
