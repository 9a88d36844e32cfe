"""The figures of a run, each with its interval and what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.evaluation.tally import Tally

LEVEL, SEED = 0.95, 0
AT_ONCE = 200
"""Bootstrap draws of average precision held in memory together."""


def measure(tally: Tally, draws: int = 1000) -> dict[str, Any]:
    """What a tally with truth comes to, in JSON's types.

    Returns:
        `scores`: by metric, `value`, `low` and `high` (a 95 % bootstrap interval over items, unless draws is 0) and `chance`, all as
        fractions of 1. `classes`: for each its items and its own score, None where no item has it. `confusion`, for `top1`: how many items
        of each class (row) were given each class. `folds`, where there are folds: the top-1 of each, and their mean.
    """
    found = _top1(tally, draws) if tally.metric == "top1" else _average_precision(tally, draws)
    return found | {"bootstrap": bootstrap(draws, "items")}


def bootstrap(draws: int, over: str) -> dict[str, Any]:
    """What a report says about its intervals; over: what was drawn."""
    return {"draws": draws, "level": LEVEL, "seed": SEED, "over": over}


def retrieval_scores(values: Mapping[str, np.ndarray], draws: int = 1000) -> dict[str, Any]:
    """The scores of queries, as `metrics.retrieval` gives them, with intervals over queries."""
    found = {name.replace("AP", "map"): _score(own, None, draws) for name, own in values.items() if name != "rank"}
    return found | {"median_rank": _score(values["rank"], None, draws, np.median)}


def _top1(tally: Tally, draws: int) -> dict[str, Any]:
    true, ranks, count = tally.true(), tally.ranks(), len(tally.classes)
    correct = (ranks == 0).astype(np.float64)
    scores = {"top1": _score(correct, 1 / count, draws)}
    if count > 5:
        scores["top5"] = _score((ranks < 5).astype(np.float64), 5 / count, draws)
    pairs = np.column_stack([correct, true])
    scores["mean_per_class"] = _score(pairs, 1 / count, draws, lambda rows: metrics.mean_per_class(rows[:, 0], rows[:, 1].astype(np.int64)))
    found = {
        "scores": scores,
        "classes": _classes(tally.classes, np.bincount(true, minlength=count), "recall", metrics.per_class(correct, true, count)),
        "confusion": metrics.confusion(true, tally.predicted(), count).tolist(),
    }
    if any(fold is not None for fold in tally.folds):
        folds = np.array([str(fold) for fold in tally.folds])
        means = {str(fold): float(correct[folds == fold].mean()) for fold in np.unique(folds)}
        found["folds"] = {"top1": means, "mean": float(np.mean(list(means.values())))}
    return found


def _average_precision(tally: Tally, draws: int) -> dict[str, Any]:
    scores, relevant = tally.scores(), tally.true()
    own = metrics.average_precision(scores, relevant)
    there = ~np.isnan(own)
    random, items = np.random.default_rng(SEED), len(scores)
    drawn: list[np.ndarray] = []
    for start in range(0, draws, AT_ONCE):
        some = range(min(AT_ONCE, draws - start))
        counts = np.stack([np.bincount(random.integers(0, items, items), minlength=items) for _ in some])  # as `metrics.interval` draws
        drawn.append(np.nanmean(metrics.average_precision(scores[:, there], relevant[:, there], counts), axis=1))
    score = {"value": float(own[there].mean())}
    if drawn:
        score["low"], score["high"] = metrics.quantiles(np.concatenate(drawn), LEVEL)
    score["chance"] = float(relevant[:, there].mean())
    return {"scores": {"map": score}, "classes": _classes(tally.classes, relevant.sum(axis=0), "average_precision", own)}


def _score(values: np.ndarray, chance: float | None, draws: int, statistic: Callable[[np.ndarray], Any] = np.mean) -> dict[str, float]:
    score = {"value": float(statistic(values))}
    if draws:
        score["low"], score["high"] = metrics.interval(values, statistic, draws, SEED, LEVEL)
    return score if chance is None else {**score, "chance": chance}


def _classes(names: Sequence[str], items: np.ndarray, name: str, own: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"class": label, "items": int(count), name: None if np.isnan(value) else float(value)}
        for label, count, value in zip(names, items, own, strict=True)
    ]


def summary(scores: Mapping[str, Mapping[str, float]], published: Mapping[str, float] | None = None) -> str:
    """The scores on one line, in percent: `top1 66.5 % (64.4 to 68.6), chance 2.0, published 66.9`."""
    parts = []
    for name, score in scores.items():
        text = f"{name} {shown(name, score['value'])}{'' if is_rank(name) else ' %'}"
        if "low" in score:
            text += f" ({shown(name, score['low'])} to {shown(name, score['high'])})"
        if "chance" in score:
            text += f", chance {shown(name, score['chance'])}"
        if name in (published or {}):
            text += f", published {(published or {})[name]:.1f}"
        parts.append(text)
    return "; ".join(parts)


def shown(name: str, value: float) -> str:
    """A score of this name for people: in percent, or a rank as it is."""
    return f"{value if is_rank(name) else 100 * value:.1f}"


def is_rank(name: str) -> bool:
    """Whether a score of this name is a rank, and no fraction of 1."""
    return name.startswith("median_rank")
