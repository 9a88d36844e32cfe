"""`report.html`: a run's curves in one file that works offline, drawn from `metrics.jsonl`.

Each pair has its own curve. Each score is shown beside that before the first step, of the untrained or original model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebind_cli.files import write_text
from imagebind_cli.pages.base import document, escape, table
from imagebind_cli.pages.curves import Point, chart
from imagebind_cli.training.log import read_metrics
from imagebind_cli.training.recipe import Recipe

Line = Mapping[str, Any]

CURVES = {
    "loss": "Loss",
    "temperature": "Temperature",
    "alignment": "Alignment: mean cosine of pairs",
    "spread": "Mean cosine of different anchors",
    "other_spread": "Mean cosine of different others",
    "norm": "Norm of the gradient",
    "learning_rate": "Learning rate",
}


def write_report(folder: Path, recipe: Recipe, steps: int, plan: Sequence[str]) -> None:
    """Write the report of a run folder.

    Args:
        steps: of the whole run.
        plan: the plan in words.
    """
    lines = read_metrics(folder)
    done = max((line["step"] for line in lines), default=0)
    skipped = sum("skipped" in line for line in lines)
    about = f"{', '.join(pair.name for pair in recipe.pairs)}: step {done:,} of {steps:,}" + (f", {skipped:,} skipped" if skipped else "")
    planned = "".join(f"<li>{escape(line)}</li>" for line in plan)
    parts = [f"<p>{escape(about)}</p><ul>{planned}</ul>", _table(lines), *_validations(lines), *_trainings(lines)]
    page = document(folder.resolve().name, "".join(parts))
    write_text(folder / "report.html", page)


def _trainings(lines: Sequence[Line]) -> list[str]:
    return [chart(title, _by_pair(lines, key)) for key, title in CURVES.items()]


def _by_pair(lines: Sequence[Line], key: str) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for line in lines:
        if key in line:
            series.setdefault(str(line["pair"]), []).append((float(line["step"]), float(line[key])))
    return series


def _validations(lines: Sequence[Line]) -> list[str]:
    """Draw a chart for each direction of retrieval and each test."""
    ways: dict[str, dict[str, list[Point]]] = {}
    for line in lines:
        for name, value in line.get("validation", {}).items():
            way, _, score = name.partition("/")
            ways.setdefault(way, {}).setdefault(score, []).append((float(line["step"]), value))
    return [chart(f"Validation: {way}", series) for way, series in ways.items()]


def _table(lines: Sequence[Line]) -> str:
    """Make a table of each score before the first step, at its best, and last."""
    validations: list[tuple[int, dict[str, float], dict[str, list[float]]]] = [
        (line["step"], line["validation"], line["ranges"]) for line in lines if "validation" in line
    ]
    if not validations:
        return ""
    rows = []
    for name in validations[0][1]:
        best = max(validations, key=lambda entry: entry[1][name])
        first, highest, last = (
            f"{scores[name]:.3f} ({ranges[name][0]:.3f} to {ranges[name][1]:.3f})"
            for _, scores, ranges in (validations[0], best, validations[-1])
        )
        rows.append([name, f"{validations[0][2][name][2]:.3f}", first, f"{highest} at step {best[0]:,}", last])
    return table(["score", "by chance", "before training", "best", "last"], rows)
