"""Score a heat map against the truth of its scene, and turn the scores of all scenes into figures, by the metric of the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from imagebind_cli import metrics
from imagebind_cli.evaluation.report import LEVEL, SEED
from imagebind_cli.grounding.suites.scenes import SIDE

ENOUGH = 0.5  # of overlap, for a thing to count as found


@dataclass(frozen=True)
class LocationMetric:
    """A metric of localisation.

    row: the numbers of one scene, from its heat map and truth, both (SIDE, SIDE). values: the names of the first of them, which every scene's
    line has. figures: by name the numbers that a figure is made of, and how; all are fractions of 1.
    """

    row: Callable[[np.ndarray, np.ndarray], np.ndarray]
    values: tuple[str, ...]
    figures: Mapping[str, tuple[slice, Callable[[np.ndarray], float]]]

    def scores(self, rows: np.ndarray, draws: int = 1000) -> dict[str, Any]:
        """Return the figures of scenes (n, …), each with its 95 % interval over draws of scenes, unless there are no draws."""
        scores = {}
        for name, (columns, statistic) in self.figures.items():
            values = rows[:, columns]
            score = {"value": float(statistic(values))}
            if draws:
                score["low"], score["high"] = metrics.interval(values, statistic, draws, SEED, LEVEL)
            scores[name] = score
        return scores


def compared_map(heat: np.ndarray) -> np.ndarray:
    """Scale a heat map (rows, columns) over a whole picture to the size at which it is compared, (SIDE, SIDE) float64."""
    scaled = Image.fromarray(heat.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(scaled, np.float64)


def centre_map() -> np.ndarray:
    """Return a map that is highest in the middle of every picture, (SIDE, SIDE): what is known without looking."""
    away = np.abs((np.arange(SIDE) + 0.5) / SIDE - 0.5)
    return -np.hypot(away[:, None], away[None])


def _consensus_row(heat: np.ndarray, truth: np.ndarray) -> np.ndarray:
    scores = metrics.localisation([heat], [truth])
    return np.array([scores[name][0] for name in ("cIoU", "adaptive cIoU", "pointing")])


def _mask_row(heat: np.ndarray, truth: np.ndarray) -> np.ndarray:
    scores = metrics.mask_overlap(heat, truth > 0)
    return np.concatenate([[scores[name] for name in ("IoU", "adaptive IoU", "pointing")], metrics.f_curve(heat, truth > 0)])


def _segmentation_row(heat: np.ndarray, truth: np.ndarray) -> np.ndarray:
    scores = metrics.segmentation(heat, truth > 0)
    return np.array([scores["correct"] / scores["cells"], *scores.values()])


def _found(values: np.ndarray) -> float:
    return float((values >= ENOUGH).mean())


def _area(values: np.ndarray) -> float:
    return metrics.success_area(values[:, 0])


def _best_f(curves: np.ndarray) -> float:
    return float(np.nanmean(curves, axis=0).max())


def _pixel_accuracy(counts: np.ndarray) -> float:
    return float(counts[:, 0].sum() / counts[:, 1].sum())


def _mean_iou(counts: np.ndarray) -> float:
    common, joint, common_rest, joint_rest = counts.sum(axis=0)
    return float((common / joint + common_rest / joint_rest) / 2)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


LOCATION_METRICS = {
    "ciou": LocationMetric(
        _consensus_row,
        ("cIoU", "adaptive cIoU", "pointing"),
        {
            "cIoU@0.5": (slice(0, 1), _found),
            "AUC": (slice(0, 1), _area),
            "adaptive cIoU@0.5": (slice(1, 2), _found),
            "adaptive AUC": (slice(1, 2), _area),
            "pointing": (slice(2, 3), _mean),
        },
    ),
    "masks": LocationMetric(
        _mask_row,
        ("IoU", "adaptive IoU", "pointing"),
        {
            "mIoU": (slice(0, 1), _mean),
            "F-score": (slice(3, None), _best_f),
            "adaptive mIoU": (slice(1, 2), _mean),
            "pointing": (slice(2, 3), _mean),
        },
    ),
    "segmentation": LocationMetric(
        _segmentation_row,
        ("pixel accuracy", "AP"),
        {
            "pixel accuracy": (slice(2, 4), _pixel_accuracy),
            "mIoU": (slice(4, 8), _mean_iou),
            "mAP": (slice(1, 2), _mean),
        },
    ),
}


def value_line(metric: LocationMetric, row: Sequence[float]) -> dict[str, float | None]:
    """Return a scene's own numbers by name, None where one is undefined."""
    return {name: None if np.isnan(value) else float(value) for name, value in zip(metric.values, row, strict=False)}
