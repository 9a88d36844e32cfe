"""Thresholds proposed from a store's own distribution. None of them is a fixed cosine, since cosines of two models have no common scale."""

from __future__ import annotations

import numpy as np

FENCE = 5.0  # robust standard deviations from the median: of a normal distribution, 3 of ten million values lie beyond

FALSE_COPIES = 0.1  # of the items reported as copies, those that may be near by chance


def robust_spread(values: np.ndarray, upper: bool = True) -> float:
    """Estimate a standard deviation from the quartile above or below the median, which values on the other side cannot move."""
    middle, quartile = np.quantile(values, (0.5, 0.75 if upper else 0.25))
    return float(abs(quartile - middle) / 0.6745)


def copy_threshold(nearest: np.ndarray, rounding: float) -> float:
    """Propose the cosine from which two items are copies: of those at least as near, at most `FALSE_COPIES` are expected to be near by chance.

    Distances to a nearest neighbour are extreme values, so their logarithms follow a Gumbel distribution. It is fitted to the median and the upper
    quartile, which copies do not move much while they are less than half of the items, and the expectation is that of Benjamini and Hochberg
    (1995). Equal vectors are always copies.

    Args:
        nearest: the cosine of each item with its nearest neighbour, (n,). rounding: how far 1 - cosine of equal vectors may be from 0.
    """
    distances = np.sort(np.log(np.maximum(1 - nearest.astype(np.float64), rounding)))
    equal = int(np.searchsorted(distances, np.log(rounding), side="right"))
    others = distances[equal:]  # equal vectors say nothing about how near the others are
    if not len(others):
        return 1 - rounding
    middle, quartile = np.quantile(others, (0.5, 0.75))
    scale = max((quartile - middle) / np.log(2), 1e-6)  # quantiles of a Gumbel distribution: ln ln 2 and ln ln 4
    chance = -np.expm1(-np.exp(np.minimum((distances - middle) / scale + np.log(np.log(2)), 700)))
    near = np.flatnonzero(len(distances) * chance <= FALSE_COPIES * np.arange(1, len(distances) + 1))
    if len(near):
        return 1 - float(np.exp(distances[near[-1]])) - 1e-7  # float32 of the last one itself
    # No item is nearer than chance explains: where one would be.
    return 1 - max(rounding, float(np.exp(middle - scale * (np.log(np.log(2)) - np.log(FALSE_COPIES / len(distances))))))


def outlier_threshold(typical: np.ndarray, rounding: float) -> float:
    """Propose the cosine below which an item is an outlier: `FENCE` deviations above the median of log distances to the neighbours.

    typical: of each item the median cosine with its neighbours, (n,).
    """
    distances = np.log(np.maximum(1 - typical.astype(np.float64), rounding))
    fence = float(np.exp(np.median(distances) + FENCE * max(robust_spread(distances), robust_spread(distances, upper=False))))
    return 1 - fence


def mispairing_threshold(paired: np.ndarray, shuffled: np.ndarray) -> tuple[float, float]:
    """Propose the score below which a pair is likely wrong, and estimate the share of wrong pairs.

    A wrong pair scores as two items that were put together by chance do. Twice the pairs below the median of such scores are therefore about as
    many as are wrong (Storey 2002, at 0.5). At the threshold a pair is as likely wrong as right: it maximises wrong less right pairs below.

    Args:
        paired: scores of the pairs, (n,). shuffled: scores of items put together by chance, (m,).
    Returns:
        The threshold, -inf where no pair looks wrong, and the estimated share.
    """
    paired, shuffled = np.sort(paired), np.sort(shuffled)
    share = min(1.0, 2 * float(np.mean(paired < np.median(shuffled))))
    below = np.arange(1, len(paired) + 1) / len(paired)  # of the pairs, up to each of them
    by_chance = np.searchsorted(shuffled, paired, side="right") / len(shuffled)
    gain = 2 * share * by_chance - below
    best = int(np.argmax(gain))
    # Chance alone puts a value or two below any level: it takes the estimate of one wrong pair to report any.
    return (float(paired[best]) if gain[best] > 0 and share * len(paired) >= 1 else -np.inf), share
