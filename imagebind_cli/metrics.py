"""Scores of classification and retrieval, as the field defines them; numpy alone, in float64.

Each gives a value per item, query or class, and the caller averages: an interval needs them one by one. Ties: where classes of one item have
equal scores, the one that comes first wins, as `argmax` has it; in average precision, items of equal score enter together, as in
scikit-learn. `retrieval` is given ranks, so whoever ranked has broken the ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

CUTOFFS = (1, 5, 10)
DEPTH = 10
"""How many results nDCG looks at."""


def retrieval(ranks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of each query, float64 (queries,).

    Args:
        ranks: for each query the 0-based ranks of all its relevant items, in rising order; at least one each.
    Returns:
        `R@1`, `R@5`, `R@10`: 1 if any relevant item is that near the top, else 0. `rank`: of the first relevant item, from 1; its median is
        the median rank. `AP`: average precision; its mean is mAP. `nDCG@10`: every relevant item counts 1.
    Raises:
        ValueError: a query without a relevant item, or ranks that do not rise.
    """
    counts = np.array([len(own) for own in ranks], np.int64)
    if not counts.all():
        raise ValueError(f"query {int(np.argmin(counts))} has no relevant item")
    places = np.concatenate([*ranks, np.empty(0, np.int64)]).astype(np.int64)  # every query's, one behind the other
    starts = np.cumsum(counts) - counts
    number = np.arange(len(places)) - np.repeat(starts, counts)  # 0 for a query's first relevant item, 1 for its second
    if (places < number).any() or ((np.diff(places, prepend=-1) <= 0) & (number > 0)).any():
        raise ValueError("the ranks of a query must rise, from 0")
    gains = 1 / np.log2(np.arange(DEPTH) + 2)
    gain = np.where(places < DEPTH, gains[np.minimum(places, DEPTH - 1)], 0)
    best = np.cumsum(gains)[np.minimum(counts, DEPTH) - 1]
    first = places[starts]
    scores = {f"R@{k}": (first < k).astype(np.float64) for k in CUTOFFS}
    scores["rank"] = first + 1.0
    scores["AP"] = _sums((number + 1) / (places + 1), starts) / counts
    scores["nDCG@10"] = _sums(gain, starts) / best
    return scores


def class_ranks(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The 0-based rank of each item's true class, int64 (n,), by scores (n, c) and the true class of each, (n,)."""
    own = scores[np.arange(len(scores)), truth][:, None]  # (n, 1)
    before = np.arange(scores.shape[1]) < np.asarray(truth)[:, None]  # (n, c)
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)


def accuracy(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """1 for each item whose true class is among its k highest scores, else 0: float64 (n,). scores: (n, c). truth: class of each, (n,)."""
    return (class_ranks(scores, truth) < k).astype(np.float64)


def per_class(correct: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """The mean of `correct` (n,) over the items of each class, float64 (classes,): its recall. NaN for a class that no item has."""
    items = np.bincount(truth, minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(truth, correct, classes) / items


def mean_per_class(correct: np.ndarray, truth: np.ndarray) -> float:
    """The mean of `per_class` over the classes that items have: balanced accuracy."""
    return float(np.nanmean(per_class(correct, truth, int(np.max(truth)) + 1)))


def average_precision(scores: np.ndarray, relevant: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Average precision of each class, float64 (c,); the mean over classes is mAP. NaN for a class that no item has.

    Args:
        scores: (n, c). relevant: which classes each item has, bool (n, c).
        counts: how often each item is taken, (..., n), as in a bootstrap; the result is then (..., c). Once each if not given.
    """
    times = np.ones(len(scores)) if counts is None else counts
    return np.stack([_precision_of(scores[:, c], relevant[:, c], times) for c in range(scores.shape[1])], axis=-1)


def _precision_of(scores: np.ndarray, relevant: np.ndarray, times: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last item of each run of equal scores; NaN differs from all
    taken = np.cumsum(times[..., order], axis=-1, dtype=np.float64)[..., ends]
    found = np.cumsum(times[..., order] * relevant[order], axis=-1, dtype=np.float64)[..., ends]
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    with np.errstate(invalid="ignore"):
        return (np.diff(found, prepend=0, axis=-1) * precision).sum(axis=-1) / found[..., -1]


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many items of each true class (row) were given each class (column): int64 (classes, classes)."""
    return np.bincount(np.asarray(truth) * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap: the range that holds `level` of the statistic over draws, with replacement, of as many values as there are.

    values: (n, …), drawn along the first axis. Raises ValueError if there are none.
    """
    if not len(values):
        raise ValueError("no values to draw from")
    random = np.random.default_rng(seed)
    return quantiles(np.array([statistic(values[random.integers(0, len(values), len(values))]) for _ in range(draws)]), level)


def quantiles(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of drawn values; draws in which the statistic is not defined (NaN) are left out."""
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)
