"""`report.html`: a run's curves in one file that needs nothing else, drawn from `metrics.jsonl`.

A series of its own for each pair; each score beside the one before the first step, which is the untrained or original model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebind_cli.files import write_text
from imagebind_cli.pages.base import document, escape, table
from imagebind_cli.pages.curves import Point, chart
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.records import read_metrics

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
    """Draw the report of a run folder anew. plan: lines that say what the run does."""
    lines = read_metrics(folder)
    done = max((line["step"] for line in lines), default=0)
    skipped = sum("skipped" in line for line in lines)
    about = f"{', '.join(pair.name for pair in recipe.pairs)}: step {done:,} of {steps:,}" + (f", {skipped:,} skipped" if skipped else "")
    planned = "".join(f"<li>{escape(line)}</li>" for line in plan)
    parts = [f"<p>{escape(about)}</p><ul>{planned}</ul>", _scores(lines), *_validations(lines), *_trainings(lines)]
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
    """One chart for each way of asking, its recalls together."""
    ways: dict[str, dict[str, list[Point]]] = {}
    for line in lines:
        for name, value in line.get("validation", {}).items():
            way, _, score = name.partition("/")
            ways.setdefault(way, {}).setdefault(score, []).append((float(line["step"]), value))
    return [chart(f"Validation: {way}", series) for way, series in ways.items()]


def _scores(lines: Sequence[Line]) -> str:
    """Each score before the first step, at its best, and last."""
    found: list[tuple[int, dict[str, float], dict[str, list[float]]]] = [
        (line["step"], line["validation"], line["ranges"]) for line in lines if "validation" in line
    ]
    if not found:
        return ""
    rows = []
    for name in found[0][1]:
        best = max(found, key=lambda entry: entry[1][name])
        first, highest, last = (
            f"{scores[name]:.3f} ({ranges[name][0]:.3f} to {ranges[name][1]:.3f})" for _, scores, ranges in (found[0], best, found[-1])
        )
        rows.append([name, f"{found[0][2][name][2]:.3f}", first, f"{highest} at step {best[0]:,}", last])
    return table(["score", "by chance", "before training", "best", "last"], rows)
