"""What each item, or each query, adds to the scores of a run: enough to compare two runs over the same items.

A score is a function of these values and of how often each item is drawn, so that two runs can be scored on the same draws of items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.evaluation.report import LEVEL, RETRIEVAL_SCORES, draw_counts
from imagebind_cli.evaluation.tally import Tally

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]  # values (n, …) and how often each is drawn (draws, n) to scores (draws,)


@dataclass(frozen=True)
class Outcomes:
    """The values that one score is made of.

    ids: of the items or queries, (n,). values: of each, (n, …). statistic: computes the score of each draw of them.
    """

    ids: Sequence[str]
    values: np.ndarray
    statistic: Statistic

    def take(self, rows: Sequence[int]) -> Outcomes:
        """Select items by number."""
        return Outcomes([self.ids[row] for row in rows], self.values[list(rows)], self.statistic)

    def score(self) -> float:
        """Compute the score of all items, each once."""
        return float(self.statistic(self.values, np.ones((1, len(self.values)), np.int64))[0])


class Difference(NamedTuple):
    """The difference between the scores of two runs, on the items of both.

    low, high: the range that holds 95 % of the differences over draws of items; None without draws. items: those of both runs.
    left_out: those of one run alone, as an input that failed in the other.
    """

    value: float
    low: float | None
    high: float | None
    items: int
    left_out: int


def item_outcomes(tally: Tally) -> dict[str, Outcomes]:
    """Return the outcomes of classified items by score: those of `report.measure`."""
    if tally.metric != "top1":
        values = np.hstack([tally.scores(), tally.true()])
        return {"map": Outcomes(tally.ids, values, _mean_average_precision)}
    ranks, true = tally.ranks(), tally.true()
    tops = {f"top{k}": (ranks < k).astype(np.float64) for k in metrics.TOPS if k == 1 or k < len(tally.classes)}
    outcomes = {name: Outcomes(tally.ids, correct, _mean) for name, correct in tops.items()}
    return outcomes | {"mean_per_class": Outcomes(tally.ids, np.column_stack([tops["top1"], true]), _mean_per_class)}


def query_outcomes(ids: Sequence[str], values: Mapping[str, np.ndarray]) -> dict[str, Outcomes]:
    """Return the outcomes of queries by score: those of `report.retrieval_scores`. values: as `metrics.retrieval` returns them."""
    return {name: Outcomes(ids, values[figure.source], STATISTICS[figure.statistic]) for name, figure in RETRIEVAL_SCORES.items()}


def paired_difference(one: Outcomes, other: Outcomes, draws: int) -> Difference:
    """Compute how much higher `one` scores than `other`, with a paired bootstrap interval: both are scored on the same draws of items.

    Args:
        draws: of the items that both have, with replacement; 0 for no interval.
    Raises:
        ValueError: they have no item in common.
    """
    rows, others = _numbered(one.ids), _numbered(other.ids)
    common = [key for key in rows if key in others]
    if not common:
        raise ValueError("no item has a result in both")
    left_out = len(rows) + len(others) - 2 * len(common)
    one, other = one.take([rows[key] for key in common]), other.take([others[key] for key in common])
    low = high = None
    if draws:
        drawn = [one.statistic(one.values, counts) - other.statistic(other.values, counts) for counts in draw_counts(len(common), draws)]
        low, high = metrics.quantiles(np.concatenate(drawn), LEVEL)
    return Difference(one.score() - other.score(), low, high, len(common), left_out)


def _numbered(ids: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return the row of each id, with how often it came before: an id may be there several times."""
    seen: dict[str, int] = {}
    rows = {}
    for row, id in enumerate(ids):
        rows[id, seen.setdefault(id, 0)] = row
        seen[id] += 1
    return rows


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts @ values / counts.sum(axis=1))


def _median(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[:, order], axis=1)  # (draws, n)
    total = reached[:, -1:]
    middle = [values[order][(reached > place).argmax(axis=1)] for place in ((total - 1) // 2, total // 2)]
    return np.asarray((middle[0] + middle[1]) / 2)


# What a statistic of a `metrics.RetrievalFigure` is over draws.
STATISTICS: dict[Callable[[np.ndarray], Any], Statistic] = {np.mean: _mean, np.median: _median}


def _mean_per_class(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average the recall of the classes that a draw has. values: (n, 2), whether an item is right, and its class."""
    order = np.argsort(values[:, 1], kind="stable")
    starts = np.flatnonzero(np.diff(values[order, 1], prepend=np.nan))
    sums = partial(np.add.reduceat, indices=starts, axis=1)
    drawn = counts[:, order]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nanmean(sums(drawn * values[order, 0]) / sums(drawn), axis=1))


def _mean_average_precision(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average the average precision of the classes that a draw has. values: (n, 2 c), the scores and which classes an item has."""
    scores, relevant = np.hsplit(values, 2)
    there = relevant.any(axis=0)
    return np.asarray(np.nanmean(metrics.average_precision(scores[:, there], relevant[:, there].astype(bool), counts), axis=1))
