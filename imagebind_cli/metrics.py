"""Metrics of classification, retrieval and localisation, as the field defines them, with bootstrap intervals; numpy alone, in float64.

Each function returns a value per item, query or class, and the caller averages, because an interval needs the single values. Ties: of classes
with equal scores the first wins, as in `argmax`; in average precision, items of equal score enter together, as in scikit-learn. `retrieval`
takes ranks, so its caller breaks the ties.

To add a cutoff, extend `CUTOFFS` (R@k) or `TOPS` (top-k accuracy): searches, suites and the validation of a training run report it. To add
another retrieval metric, return it from `retrieval` and name it in `RETRIEVAL_FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

CUTOFFS = (1, 5, 10)  # k of R@k
RECALLS = tuple(f"R@{k}" for k in CUTOFFS)
TOPS = (1, 5)  # k of top-k accuracy
DEPTH = 10  # results that nDCG looks at
NDCG = f"nDCG@{DEPTH}"


class RetrievalFigure(NamedTuple):
    """A figure made from the values of queries.

    source: the values of `retrieval` it is made from. statistic: of them; one of `evaluation.outcomes.STATISTICS`.
    is_rank: it is a rank, and not a fraction of 1, which is printed in percent.
    """

    source: str
    statistic: Callable[[np.ndarray], float] = np.mean
    is_rank: bool = False


RETRIEVAL_FIGURES = {  # what `imagebind retrieve --pairs` reports, by name
    **{name: RetrievalFigure(name) for name in RECALLS},
    "median rank": RetrievalFigure("rank", np.median, is_rank=True),
    "mAP": RetrievalFigure("AP"),
    NDCG: RetrievalFigure(NDCG),
}


def retrieval(ranks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the metrics of each query, float64 (queries,).

    Args:
        ranks: for each query the 0-based ranks of all its relevant items, in rising order; at least one each.
    Returns:
        `R@k` of each cutoff: 1 if a relevant item is among the first k, else 0. `rank`: of the first relevant item, from 1; its median is
        the median rank. `AP`: average precision; its mean is mAP. `nDCG@10`: every relevant item counts 1.
    Raises:
        ValueError: a query without a relevant item, or ranks that do not rise.
    """
    counts = np.array([len(of_query) for of_query in ranks], np.int64)
    if not counts.all():
        raise ValueError(f"query {int(np.argmin(counts))} has no relevant item")
    places = np.concatenate([*ranks, np.empty(0, np.int64)]).astype(np.int64)  # of all queries, one after the other
    starts = np.cumsum(counts) - counts
    number = np.arange(len(places)) - np.repeat(starts, counts)  # 0 for a query's first relevant item, 1 for its second
    if (places < number).any() or ((np.diff(places, prepend=-1) <= 0) & (number > 0)).any():
        raise ValueError("the ranks of a query must rise, from 0")
    gains = 1 / np.log2(np.arange(DEPTH) + 2)
    gain = np.where(places < DEPTH, gains[np.minimum(places, DEPTH - 1)], 0)
    best = np.cumsum(gains)[np.minimum(counts, DEPTH) - 1]
    first = places[starts]
    scores = {name: (first < k).astype(np.float64) for name, k in zip(RECALLS, CUTOFFS, strict=True)}
    scores["rank"] = first + 1.0
    scores["AP"] = _sums((number + 1) / (places + 1), starts) / counts
    scores[NDCG] = _sums(gain, starts) / best
    return scores


def class_ranks(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute the 0-based rank of each item's true class, int64 (n,), from scores (n, c) and the true class of each, (n,)."""
    true_scores = scores[np.arange(len(scores)), truth][:, None]  # (n, 1)
    before = np.arange(scores.shape[1]) < np.asarray(truth)[:, None]  # (n, c)
    return ((scores > true_scores) | ((scores == true_scores) & before)).sum(axis=1)


def accuracy(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """Return 1 for each item whose true class is among its k highest scores, else 0: float64 (n,).

    scores: (n, c). truth: the class of each item, (n,).
    """
    return (class_ranks(scores, truth) < k).astype(np.float64)


def per_class(correct: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Compute the recall of each class, the mean of `correct` (n,) over its items, float64 (classes,). NaN for a class without items."""
    items = np.bincount(truth, minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(truth, correct, classes) / items


def mean_per_class(correct: np.ndarray, truth: np.ndarray) -> float:
    """Compute balanced accuracy: the mean of `per_class` over the classes that have items."""
    return float(np.nanmean(per_class(correct, truth, int(np.max(truth)) + 1)))


def average_precision(scores: np.ndarray, relevant: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Compute the average precision of each class, float64 (c,), NaN for a class without items. The mean over classes is mAP.

    Args:
        scores: (n, c). relevant: which classes each item has, bool (n, c).
        counts: how often each item is drawn, (..., n), as in a bootstrap; the result is then (..., c). Once each if None.
    """
    times = np.ones(len(scores)) if counts is None else counts
    return np.stack([_precision_of(scores[:, c], relevant[:, c], times) for c in range(scores.shape[1])], axis=-1)


def _precision_of(scores: np.ndarray, relevant: np.ndarray, times: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last item of each run of equal scores; NaN differs from all
    drawn = np.cumsum(times[..., order], axis=-1, dtype=np.float64)[..., ends]
    hits = np.cumsum(times[..., order] * relevant[order], axis=-1, dtype=np.float64)[..., ends]
    precision = np.divide(hits, drawn, out=np.zeros_like(hits), where=drawn > 0)
    with np.errstate(invalid="ignore"):
        return (np.diff(hits, prepend=0, axis=-1) * precision).sum(axis=-1) / hits[..., -1]


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count how many items of each true class (row) were predicted as each class (column): int64 (classes, classes)."""
    return np.bincount(np.asarray(truth) * classes + predicted, minlength=classes * classes).reshape(classes, classes)


IOU_OF_MOMENTS = (0.5, 0.7)  # that the first moment must reach for R@1, as papers print it
IOU_OF_PRECISION = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # over which mAP of moments is averaged


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute intersection over union of stretches of time, (m, n), from their starts and ends, (m, 2) and (n, 2); 0 where they only touch."""
    one, other = (np.asarray(spans, np.float64).reshape(-1, 2) for spans in (one, other))
    common = np.minimum(one[:, None, 1], other[None, :, 1]) - np.maximum(one[:, None, 0], other[None, :, 0])
    whole = np.maximum(one[:, None, 1], other[None, :, 1]) - np.minimum(one[:, None, 0], other[None, :, 0])
    return np.where(common > 0, common / np.where(whole > 0, whole, 1), 0.0)


def moment_retrieval(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compute the metrics of one query of moment retrieval, as QVHighlights' own evaluation does.

    Args:
        found: start and end of the moments found, best first, (m, 2). truth: those that are right, (n, 2), n at least 1.
    Returns:
        `R@1 IoU x`: 1 if the first moment reaches x with one of the truth. `mAP@0.5`, `mAP@0.75` and `mAP`, the mean over `IOU_OF_PRECISION`.
    """
    shared = overlaps(found, truth)
    first = float(shared[0].max()) if len(shared) else 0.0
    precisions = {least: _moment_precision(shared, least) for least in IOU_OF_PRECISION}
    return {
        **{f"R@1 IoU {least}": float(first >= least) for least in IOU_OF_MOMENTS},
        "mAP@0.5": precisions[0.5],
        "mAP@0.75": precisions[0.75],
        "mAP": float(np.mean(list(precisions.values()))),
    }


HIGHLIGHT = 4  # the least rating of a clip that counts as a highlight: "very good"


def highlight_detection(predicted: np.ndarray, saliency: np.ndarray) -> dict[str, float]:
    """Compute the metrics of one query of highlight detection, as QVHighlights' own evaluation does.

    Args:
        predicted: a score for each clip, (clips,); missing ones count 0. saliency: the ratings of each clip, 0 to 4, (clips, raters).
    Returns:
        `HIT@1`: 1 if any rater finds the clip with the highest score very good. `highlight mAP`: the mean over raters of interpolated AP.
    """
    scores = np.zeros(len(saliency))
    scores[: len(predicted)] = predicted[: len(scores)]
    right = saliency >= HIGHLIGHT
    precisions = [_highlight_precision(scores, of_rater) for of_rater in right.T]
    return {"HIT@1": float(right[int(np.argmax(scores))].any()), "highlight mAP": float(np.mean(precisions))}


def _highlight_precision(scores: np.ndarray, right: np.ndarray) -> float:
    """Compute interpolated average precision of one rater's highlights; clips of equal score enter together. 0 without a highlight."""
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))
    hits = np.cumsum(right[order])[ends]
    reached = np.maximum.accumulate((hits / (ends + 1))[::-1])[::-1]
    return float((np.diff(hits / right.sum(), prepend=0) * reached).sum())


def _moment_precision(shared: np.ndarray, least: float) -> float:
    """Compute interpolated average precision. Each moment found takes the free one of the truth that it shares most with. shared: (m, n)."""
    taken: set[int] = set()
    right = np.zeros(len(shared))
    for number, row in enumerate(shared):
        free = [one for one in np.argsort(-row, kind="stable").tolist() if row[one] >= least and one not in taken]
        if free:
            taken.add(free[0])
            right[number] = 1
    recall, precision = right.cumsum() / shared.shape[1], right.cumsum() / (np.arange(len(right)) + 1)
    reached = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    return float((np.diff(recall, prepend=0) * reached).sum())


def interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute a percentile bootstrap interval: the range that holds `level` of the statistic over draws of n values with replacement.

    Args:
        values: (n, …), drawn along the first axis.
    Raises:
        ValueError: there are none.
    """
    if not len(values):
        raise ValueError("no values to draw from")
    random = np.random.default_rng(seed)
    return quantiles(np.array([statistic(values[random.integers(0, len(values), len(values))]) for _ in range(draws)]), level)


def quantiles(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the range that holds the middle `level` of drawn values, without draws in which the statistic is undefined (NaN)."""
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)


def localisation(heats: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Compare heat maps with the places of things, float64 (items,) each.

    Consensus IoU is that of Senocak et al., arXiv 1803.03849, as VGG-SS and Flickr-SoundNet report it: what is marked of the truth, over the
    truth and what is marked outside it. Its published threshold is the median, so that half of every picture is marked and a small thing cannot
    be found, however exact the map is; hence the second one.

    Args:
        heats: one for each item, (rows, columns). truths: of the same shapes, 0 to 1: how far annotators agree that the thing is there.
    Returns:
        `cIoU`: the half with the largest values is marked. `adaptive cIoU`: as many cells as the truth has. `pointing`: 1 if the largest value
        is in the truth, else 0.
    Raises:
        ValueError: shapes differ, or nothing is true of an item.
    """
    scores: dict[str, list[float]] = {"cIoU": [], "adaptive cIoU": [], "pointing": []}
    for number, (heat, truth) in enumerate(zip(heats, truths, strict=True)):
        if heat.shape != truth.shape or not (truth > 0).any():
            raise ValueError(f"item {number}: a heat map {heat.shape} and a truth {truth.shape} of {np.count_nonzero(truth)} cells")
        values, weights = heat.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
        order = np.argsort(-values, kind="stable")
        largest = np.zeros(len(values), bool)
        largest[order[: np.count_nonzero(weights)]] = True
        scores["cIoU"].append(_consensus(values > np.median(values), weights))
        scores["adaptive cIoU"].append(_consensus(largest, weights))
        scores["pointing"].append(float(weights[order[0]] > 0))
    return {name: np.array(each) for name, each in scores.items()}


def _consensus(marked: np.ndarray, truth: np.ndarray) -> float:
    return float(truth[marked].sum() / (truth.sum() + np.count_nonzero(marked & (truth == 0))))


def success_area(overlaps: np.ndarray) -> float:
    """Return the area under the share of items whose overlap reaches a threshold, over thresholds from 0 to 1 in steps of 0.05 (AUC of VGG-SS)."""
    thresholds = np.linspace(0, 1, 21)
    return float(np.trapezoid([(overlaps >= threshold - 1e-12).mean() for threshold in thresholds], thresholds))


F_THRESHOLDS = np.linspace(0, 1 - 1e-10, 255)  # of a map from 0 to 1, over which AVSBench looks for the best F-score
F_BETA2 = 0.3  # weight of recall in it


def mask_overlap(heat: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare a heat map with a mask, as AVSBench does (Zhou et al., arXiv 2207.05042) with its outputs.

    Args:
        heat: (rows, columns); it is scaled to 0 to 1. truth: bool, of the same shape.
    Returns:
        `IoU`: what is above 0.5 is marked; where nothing is true, the share of cells that are not marked. `adaptive IoU`: as many cells as
        the truth has are marked. `pointing`: 1 if the largest value is in the truth, else 0. The last two are NaN where nothing is true.
    """
    truth, marked = truth.astype(bool), unit_range(heat) > 0.5
    if not truth.any():
        return {"IoU": float(1 - marked.mean()), "adaptive IoU": np.nan, "pointing": np.nan}
    order = np.argsort(-heat.astype(np.float64).ravel(), kind="stable")
    largest = np.zeros(truth.size, bool)
    largest[order[: np.count_nonzero(truth)]] = True
    return {
        "IoU": _consensus(marked.ravel(), truth.ravel().astype(np.float64)),
        "adaptive IoU": _consensus(largest, truth.ravel().astype(np.float64)),
        "pointing": float(truth.ravel()[order[0]]),
    }


def f_curve(heat: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute the F-score of a heat map, scaled to 0 to 1, at each of `F_THRESHOLDS`, (255,); NaN where nothing is true.

    AVSBench's F-score is the largest value of the mean over pictures.
    """
    truth, values = truth.astype(bool).ravel(), unit_range(heat).ravel()
    if not truth.any():
        return np.full(len(F_THRESHOLDS), np.nan)
    marked, right = (len(some) - np.searchsorted(np.sort(some), F_THRESHOLDS) for some in (values, values[truth]))
    precision, recall = right / np.maximum(marked, 1), right / np.count_nonzero(truth)
    weight = F_BETA2 * precision + recall
    return np.divide((1 + F_BETA2) * precision * recall, weight, out=np.zeros(len(F_THRESHOLDS)), where=weight > 0)


def segmentation(heat: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Compare a heat map with a mask of foreground, as evaluations on ImageNet-Segmentation do (Chefer et al., arXiv 2012.09838).

    Values below 0 count as 0. What is above the mean of the map is foreground.

    Args:
        heat: (rows, columns). truth: bool, of the same shape.
    Returns:
        `AP`: average precision of both classes' cells together, background by 1 less the map. `correct` and `cells`; `common` and `joint`
        cells of foreground and `common rest`, `joint rest` of background: sums over pictures make pixel accuracy and mIoU.
    """
    values, truth = unit_range(np.maximum(heat, 0)).ravel(), truth.astype(bool).ravel()
    marked = values > values.mean()
    scores, relevant = np.concatenate([1 - values, values]), np.concatenate([~truth, truth])
    return {
        "AP": float(average_precision(scores[:, None], relevant[:, None])[0]),
        "correct": float(np.count_nonzero(marked == truth)),
        "cells": float(truth.size),
        "common": float(np.count_nonzero(marked & truth)),
        "joint": float(np.count_nonzero(marked | truth)),
        "common rest": float(np.count_nonzero(~(marked | truth))),
        "joint rest": float(np.count_nonzero(~(marked & truth))),
    }


def unit_range(values: np.ndarray) -> np.ndarray:
    """Scale values linearly so that the smallest is 0 and the largest 1, float64; all 0 where they are equal."""
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    return (values - low) / ((high - low) or 1.0)
