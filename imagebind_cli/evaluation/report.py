"""The report of a run: its scores, each with its interval and the score of chance, and what they were made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.evaluation.tally import Tally

LEVEL, SEED = 0.95, 0
# The figures of retrieval under their names in a report: `median_rank`, `map`.
RETRIEVAL_SCORES = {name.replace(" ", "_").replace("mAP", "map"): figure for name, figure in metrics.RETRIEVAL_FIGURES.items()}
RANKS = tuple(name for name, figure in RETRIEVAL_SCORES.items() if figure.is_rank)
AT_ONCE = 200  # bootstrap draws of average precision held in memory together


class ReportedScore(TypedDict, total=False):
    """A score as a fraction of 1, or a rank; its 95 % bootstrap interval, unless there were no draws; and what chance gives."""

    value: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Report:
    """The scores of a run, and what they were made from.

    document: everything, in JSON's types, as `imagebind zeroshot --report` writes it; docs/zeroshot.md describes the keys.
    """

    document: dict[str, Any]

    @property
    def title(self) -> str:
        """The kind of run, as `audio zero-shot`."""
        return str(self.document["title"])

    @property
    def scores(self) -> dict[str, ReportedScore]:
        """The scores by metric."""
        return dict(self.document["scores"])

    @property
    def classes(self) -> list[str]:
        """The class names; empty for captions."""
        return [row["class"] for row in self.document.get("classes", [])]

    @property
    def confusion(self) -> np.ndarray | None:
        """How many items of each class (row) were predicted as each class (column), (c, c); None where items have several labels."""
        return np.array(self.document["confusion"]) if "confusion" in self.document else None

    @property
    def is_complete(self) -> bool:
        """Whether every id of the truth belongs to an item."""
        return not self.document["items"].get("truth_without_item")

    def summary(self) -> str:
        """Return the scores in one line, in percent."""
        scores = summary(self.document["scores"], self.document.get("published"))
        return f"{self.title}: {self.document['items']['scored']:,} items, {scores}"

    def as_json(self) -> str:
        """Return the document as JSON text."""
        return json.dumps(self.document, indent=1) + "\n"


def measure(tally: Tally, draws: int = 1000) -> dict[str, Any]:
    """Compute the scores of a tally with truth, in JSON's types.

    Returns:
        `scores`: a `ReportedScore` by metric. `classes`: for each its items and its own score, None where no item has it. `confusion`, for
        `top1`: how many items of each class (row) were predicted as each class. `folds`, where there are folds: the top-1 of each, and
        their mean.
    """
    measured = _top_k(tally, draws) if tally.metric == "top1" else _average_precision(tally, draws)
    return measured | {"bootstrap": bootstrap(draws, "items")}


def bootstrap(draws: int, over: str) -> dict[str, Any]:
    """Return a report's entry on its intervals. over: what was drawn."""
    return {"draws": draws, "level": LEVEL, "seed": SEED, "over": over}


def retrieval_scores(values: Mapping[str, np.ndarray], draws: int = 1000) -> dict[str, Any]:
    """Average the values of queries, as `metrics.retrieval` returns them, with intervals over queries."""
    figures = sorted(RETRIEVAL_SCORES.items(), key=lambda entry: entry[1].is_rank)  # fractions first
    return {name: _score(values[figure.source], None, draws, figure.statistic) for name, figure in figures}


def draw_counts(items: int, draws: int) -> Iterator[np.ndarray]:
    """Yield how often each item is drawn, (up to `AT_ONCE`, items), in the draws that `metrics.interval` makes."""
    random = np.random.default_rng(SEED)
    for start in range(0, draws, AT_ONCE):
        count = min(AT_ONCE, draws - start)
        yield np.stack([np.bincount(random.integers(0, items, items), minlength=items) for _ in range(count)])


def _top_k(tally: Tally, draws: int) -> dict[str, Any]:
    true, ranks, count = tally.true(), tally.ranks(), len(tally.classes)
    correct = (ranks == 0).astype(np.float64)
    scores = {f"top{k}": _score((ranks < k).astype(np.float64), k / count, draws) for k in metrics.TOPS if k == 1 or k < count}
    pairs = np.column_stack([correct, true])
    scores["mean_per_class"] = _score(pairs, 1 / count, draws, lambda rows: metrics.mean_per_class(rows[:, 0], rows[:, 1].astype(np.int64)))
    measured = {
        "scores": scores,
        "classes": _classes(tally.classes, np.bincount(true, minlength=count), "recall", metrics.per_class(correct, true, count)),
        "confusion": metrics.confusion(true, tally.predicted(), count).tolist(),
    }
    if any(fold is not None for fold in tally.folds):
        folds = np.array([str(fold) for fold in tally.folds])
        means = {str(fold): float(correct[folds == fold].mean()) for fold in np.unique(folds)}
        measured["folds"] = {"top1": means, "mean": float(np.mean(list(means.values())))}
    return measured


def _average_precision(tally: Tally, draws: int) -> dict[str, Any]:
    scores, relevant = tally.scores(), tally.true()
    precisions = metrics.average_precision(scores, relevant)
    there = ~np.isnan(precisions)
    drawn = [
        np.nanmean(metrics.average_precision(scores[:, there], relevant[:, there], counts), axis=1)
        for counts in draw_counts(len(scores), draws)
    ]
    score = {"value": float(precisions[there].mean())}
    if drawn:
        score["low"], score["high"] = metrics.quantiles(np.concatenate(drawn), LEVEL)
    score["chance"] = float(relevant[:, there].mean())
    return {"scores": {"map": score}, "classes": _classes(tally.classes, relevant.sum(axis=0), "average_precision", precisions)}


def _score(values: np.ndarray, chance: float | None, draws: int, statistic: Callable[[np.ndarray], Any] = np.mean) -> dict[str, float]:
    score = {"value": float(statistic(values))}
    if draws:
        score["low"], score["high"] = metrics.interval(values, statistic, draws, SEED, LEVEL)
    return score if chance is None else {**score, "chance": chance}


def _classes(names: Sequence[str], items: np.ndarray, name: str, values: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"class": label, "items": int(count), name: None if np.isnan(value) else float(value)}
        for label, count, value in zip(names, items, values, strict=True)
    ]


def summary(scores: Mapping[str, Mapping[str, float]], published: Mapping[str, float] | None = None) -> str:
    """Return the scores in one line, in percent: `top1 66.5 % (64.4 to 68.6), chance 2.0, published 66.9`."""
    parts = []
    for name, score in scores.items():
        text = f"{name} {format_score(name, score['value'])}{'' if is_rank(name) else ' %'}"
        if "low" in score:
            text += f" ({format_score(name, score['low'])} to {format_score(name, score['high'])})"
        if "chance" in score:
            text += f", chance {format_score(name, score['chance'])}"
        if name in (published or {}):
            text += f", published {(published or {})[name]:.1f}"
        parts.append(text)
    return "; ".join(parts)


def format_score(name: str, value: float) -> str:
    """Format a score: in percent, or a rank unchanged."""
    return f"{value if is_rank(name) else 100 * value:.1f}"


def is_rank(name: str) -> bool:
    """Check whether a score of this name is a rank, and not a fraction of 1."""
    return name.startswith(RANKS)
