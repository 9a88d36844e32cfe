"""`report.html`: a run's curves in one file that works offline, drawn from `metrics.jsonl`.

Each pair has its own curve. Each score is shown beside that before the first step, of the untrained or original model.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagebind_cli.files import write_text
from imagebind_cli.training.log import read_metrics
from imagebind_cli.training.recipe import Recipe

Line = Mapping[str, Any]
Point = tuple[float, float]
Series = Mapping[str, Sequence[Point]]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 260, 64, 34, 12
POINTS = 400  # of a curve, at most
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
CURVES = {
    "loss": "Loss",
    "temperature": "Temperature",
    "alignment": "Alignment: mean cosine of pairs",
    "spread": "Mean cosine of different anchors",
    "other_spread": "Mean cosine of different others",
    "norm": "Norm of the gradient",
    "learning_rate": "Learning rate",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#111;background:#fff}
figure{display:inline-block;margin:0 1em 1.5em 0;vertical-align:top}figcaption{font-weight:600}table{border-collapse:collapse;margin:1em 0}
td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}
.key{font-size:13px}.key span{margin-right:1em;white-space:nowrap}.key i{display:inline-block;width:14px;height:3px;margin-right:4px}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}td,th{border-color:#444}}"""


def write_report(folder: Path, recipe: Recipe, steps: int, plan: Sequence[str]) -> None:
    """Write the report of a run folder.

    Args:
        steps: of the whole run.
        plan: the plan in words.
    """
    lines = read_metrics(folder)
    done = max((line["step"] for line in lines), default=0)
    skipped = sum("skipped" in line for line in lines)
    title = html.escape(folder.resolve().name)
    about = f"{', '.join(pair.name for pair in recipe.pairs)}: step {done:,} of {steps:,}" + (f", {skipped:,} skipped" if skipped else "")
    planned = "".join(f"<li>{html.escape(line)}" for line in plan)
    parts = [f"<h1>{title}</h1><p>{html.escape(about)}</p><ul>{planned}</ul>", _table(lines), *_validations(lines), *_trainings(lines)]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>{"".join(parts)}</html>\n'
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
    scores: list[tuple[int, dict[str, float], dict[str, list[float]]]] = [
        (line["step"], line["validation"], line["ranges"]) for line in lines if "validation" in line
    ]
    if not scores:
        return ""
    rows = []
    for name in scores[0][1]:
        best = max(scores, key=lambda entry: entry[1][name])
        cells = [
            f"{entry[1][name]:.3f} <small>({entry[2][name][0]:.3f} to {entry[2][name][1]:.3f})</small>"
            for entry in (scores[0], best, scores[-1])
        ]
        row = [html.escape(name), f"{scores[0][2][name][2]:.3f}", cells[0], f"{cells[1]} at step {best[0]:,}", cells[2]]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in ("score", "by chance", "before training", "best", "last"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def chart(title: str, series: Series) -> str:
    """Draw a line chart as SVG, with its title and legend; an empty string without points."""
    series = {name: downsample(points) for name, points in series.items() if points}
    if not series:
        return ""
    xs, ys = ([point[axis] for points in series.values() for point in points] for axis in (0, 1))
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + (abs(y0) or 1) * 0.1)

    def place(point: Point) -> str:
        x = LEFT + (point[0] - x0) / (x1 - x0) * (WIDTH - LEFT - 10)
        y = TOP + (y1 - point[1]) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    drawn = []
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        y = place((x0, value)).split(",")[1]
        drawn.append(f'<path d="M{LEFT} {y}H{WIDTH - 10}" stroke="currentColor" stroke-opacity=".15"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:.3g}</text>')
    for x, anchor in ((x0, "start"), (x1, "end")):
        drawn.append(f'<text x="{place((x, y0)).split(",")[0]}" y="{HEIGHT - 12}" text-anchor="{anchor}">step {x:,.0f}</text>')
    keys = []
    for (name, points), colour in zip(series.items(), COLOURS * (1 + len(series) // len(COLOURS)), strict=False):
        line = " ".join(map(place, points))
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        drawn += [
            f'<circle cx="{at.split(",")[0]}" cy="{at.split(",")[1]}" r="2.5" fill="{colour}"/>' for at in line.split() if len(points) < 40
        ]
        keys.append(f'<span><i style="background:{colour}"></i>{html.escape(name)}: {points[-1][1]:.4g}</span>')
    image = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12" fill="currentColor" role="img">{"".join(drawn)}</svg>'
    return f'<figure><figcaption>{html.escape(title)}</figcaption>{image}<div class="key">{"".join(keys)}</div></figure>'


def downsample(points: Sequence[Point]) -> list[Point]:
    """Reduce a curve to at most `POINTS` points, each the mean of neighbours."""
    size = -(-len(points) // POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
