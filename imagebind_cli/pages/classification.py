"""A report to look at: one self-contained HTML page, and a picture of the confusion matrix."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.report import format_score

SHOWN = 60
"""Classes up to which the page has the whole confusion matrix, as a table."""
CONFUSED = 30
"""Pairs of classes that the list of confusions shows."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # nothing that a name might smuggle in is loaded or run
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c1c1c; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .15rem .6rem; text-align: left; vertical-align: bottom }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr:nth-child(even) > * { background: #f5f5f5 }
.wide { overflow-x: auto }
.confusion { font-size: 12px }
.confusion tr > td { background: none; min-width: 2em; height: 2em; padding: 0; text-align: center; vertical-align: middle }
.confusion tr > td { border: 1px solid #e4e4e4 }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem 0; font-weight: normal }
.confusion tbody th { background: none; font-weight: normal; text-align: right; vertical-align: middle; white-space: nowrap }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: 1rem }
"""


def page(report: Mapping[str, Any]) -> str:
    """The HTML of a report, as `measure` and the command made it. Every name is escaped; nothing is loaded from elsewhere."""
    title = _text(report["title"])
    parts = [f"<h1>{title}</h1>", f"<p>{report['items']['scored']:,} items.</p>", _scores(report)]
    parts += [f"<p><strong>Not a held-out score: {_text(report['seen'])}.</strong></p>"] if "seen" in report else []
    parts += [f"<p>{_text(note)}</p>" for note in report.get("notes", [])]
    if "confusion" in report:
        parts.append(_confusion(np.array(report["confusion"]), [row["class"] for row in report["classes"]]))
    if "classes" in report:
        parts.append(_classes(report["classes"]))
    rest = {key: value for key, value in report.items() if key not in ("classes", "confusion", "title")}
    parts.append(f"<h2>What it was made from</h2><pre>{_text(json.dumps(rest, indent=1, ensure_ascii=False))}</pre>")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    head += f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head>'
    return f"{head}<body>{''.join(parts)}</body></html>\n"


def _scores(report: Mapping[str, Any]) -> str:
    published = report.get("published", {})
    rows = [
        [
            name,
            format_score(name, score["value"]),
            f"{format_score(name, score['low'])} to {format_score(name, score['high'])}" if "low" in score else "",
            format_score(name, score["chance"]) if "chance" in score else "",
            f"{published[name]:.1f}" if name in published else "",
        ]
        for name, score in report["scores"].items()
    ]
    return "<h2>Scores, in percent</h2>" + _table("scores", ["", "value", "95 % interval", "chance", "published"], rows)


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    own = "recall" if "recall" in classes[0] else "average_precision"
    rows = [[row["class"], f"{row['items']:,}", _percent(row[own])] for row in classes]
    return "<h2>Classes</h2>" + _table("classes", ["class", "items", own.replace("_", " ")], rows)


def _confusion(matrix: np.ndarray, classes: Sequence[str]) -> str:
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    most = [divmod(int(cell), len(matrix)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED] if wrong.flat[cell]]
    rows = [[classes[true], classes[given], f"{matrix[true, given]:,}"] for true, given in most]
    pairs = "<h2>Most often confused</h2>" + _table("confused", ["class", "taken for", "items"], rows)
    if len(classes) > SHOWN:
        return pairs
    head = "".join(f"<th>{_text(name)}</th>" for name in classes)
    body = "".join(
        f"<tr><th>{_text(name)}</th>{''.join(_cell(count, share) for count, share in zip(counts, shares, strict=True))}</tr>"
        for name, counts, shares in zip(classes, matrix, matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), strict=True)
    )
    table = f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<h2>Confusion: rows are what is true, columns what was said</h2><div class="wide">{table}</div>{pairs}'


def _cell(count: int, share: float) -> str:
    colour = f"background: rgba(31, 90, 180, {share:.2f}); color: {'#fff' if share > 0.5 else '#1c1c1c'}"
    return f'<td style="{colour}">{count or ""}</td>'


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    number = ["" if place == 0 or word == "taken for" else ' class="number"' for place, word in enumerate(head)]
    top = "".join(f"<th{kind}>{_text(word)}</th>" for kind, word in zip(number, head, strict=True))
    body = "".join(f"<tr>{''.join(f'<td{kind}>{_text(cell)}</td>' for kind, cell in zip(number, row, strict=True))}</tr>" for row in rows)
    return f'<table class="{name}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _text(value: str) -> str:
    return html.escape(value.encode("utf-8", "backslashreplace").decode())


def check_plot() -> None:
    """Refuse to draw where that cannot be done: matplotlib is an extra."""
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib; install it with: pip install 'imagebind-cli[plot]'")


def plot(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix (c, c) to a picture file: each row as shares of its class, with names where there is room for them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(4 + 0.22 * count, 30)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if count <= 120:
        names = [_text(name).replace("$", r"\$") for name in classes]  # a dollar would start a formula
        axes.set_xticks(range(count), names, rotation=90, fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
    axes.set_xlabel("said")
    axes.set_ylabel("true")
    figure.colorbar(picture, label="share of the class", shrink=0.8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters the font does not have
            figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: a file ending it has no format for
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
