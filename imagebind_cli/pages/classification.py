"""A classification as a page: its report, and its regions over their pictures; and its confusion matrix as a picture."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.report import format_score
from imagebind_cli.files import replacing
from imagebind_cli.pages.base import boxed, escape, table, write_page

if TYPE_CHECKING:
    from imagebind_cli.evaluation.classifier import Prediction
    from imagebind_cli.evaluation.comparison import Comparison

MATRIX_CLASSES = 60  # classes up to which the page has the whole confusion matrix
MOST_PICTURES = 100  # with regions that a page shows
CONFUSED = 30  # pairs of classes that the list of confusions has at most


class RegionCards:
    """The classified regions of pictures, for a page: those of the first `MOST_PICTURES`.

    modality: of the pictures.
    """

    def __init__(self, modality: str) -> None:
        self._modality = modality
        self._rows: dict[str, list[Prediction]] = {}
        self._pictures = 0
        self._last = ""

    def __len__(self) -> int:
        return self._pictures

    def add(self, rows: Iterable[Prediction]) -> None:
        """Take rows as they come, those of one picture one after the other; rows without a box are left out."""
        for row in rows:
            if row.box is None:
                continue
            self._pictures += row.id != self._last
            self._last = row.id
            if row.id in self._rows or len(self._rows) < MOST_PICTURES:
                self._rows.setdefault(row.id, []).append(row)

    def section(self, options: Mapping[str, Any]) -> str:
        """Return the part of a page that shows them. options: how the pictures were read."""
        colours: dict[str, int] = {}
        cards = [self._card(id, rows, colours, options) for id, rows in self._rows.items()]
        rest = f"<p>The first {len(cards):,} of {self._pictures:,} pictures.</p>" if self._pictures > len(cards) else ""
        words = "<p>Each region with its best class, the probability of that, and its box: x, y, width and height in pixels.</p>"
        return f'<h2>Regions</h2>{words}{rest}<ol class="cards">{"".join(cards)}</ol>'

    def _card(self, id: str, rows: Sequence[Prediction], colours: dict[str, int], options: Mapping[str, Any]) -> str:
        from imagebind_cli.pages.pictures import picture  # only here: a report needs no Pillow
        from imagebind_cli.sources import reason

        path = rows[0].meta.get(self._modality, id)
        marks = [
            (row.box or (), str(number), colours.setdefault(row.top[0].name, len(colours))) for number, row in enumerate(rows, start=1)
        ]
        try:
            shown = picture(self._modality, str(path), None, options)
            image = f'<img src="{shown.image}" alt="{escape(f"{id} with {len(rows)} regions")}">'
            image = image if shown.size is None else boxed(image, shown.size, marks)
        except (OSError, ValueError) as error:
            image = f"<small>cannot be shown: {escape(reason(error))}</small>"
        lines = (
            f"<div><strong>{number}.</strong> {escape(row.top[0].name)} {row.top[0].probability:.2f} "
            f"<small>{', '.join(f'{side:g}' for side in row.box or ())}</small></div>"
            for number, row in enumerate(rows, start=1)
        )
        return f"<li>{image}<div>{escape(id)}</div>{''.join(lines)}</li>"


def write_region_page(path: Path, regions: RegionCards, made: Mapping[str, Any]) -> None:
    """Write classified regions over their pictures as a page. made: how their vectors were made.

    Raises:
        UserError, OSError: as `write_page`.
    """
    write_page(path, "imagebind zeroshot", regions.section(made.get("options", {})) + _made_from(made))


def write_report_page(path: Path, report: Mapping[str, Any], regions: RegionCards | None = None) -> None:
    """Write a report, as `imagebind zeroshot --report` has it, as a page. regions: to show as well.

    Raises:
        UserError, OSError: as `write_page`.
    """
    parts = [f"<p>{report['items']['scored']:,} items.</p>", _scores(report)]
    parts += [f"<p><strong>Not a held-out score: {escape(report['seen'])}.</strong></p>"] if "seen" in report else []
    parts += [f"<p>{escape(note)}</p>" for note in report.get("notes", [])]
    if "confusion" in report:
        parts.append(_confusion(np.array(report["confusion"]), [row["class"] for row in report["classes"]]))
    if "classes" in report:
        parts.append(_classes(report["classes"]))
    if regions:
        parts.append(regions.section(report["made"][0].get("options", {})))
    rest = {key: value for key, value in report.items() if key not in ("classes", "confusion", "title")}
    parts.append(_made_from(rest))
    write_page(path, report["title"], "".join(parts))


def write_comparison_page(path: Path, comparison: Comparison) -> None:
    """Write the scores of several models, and their differences, as a page.

    Raises:
        UserError, OSError: as `write_page`.
    """
    document = comparison.document
    parts = [
        f"<p>{escape(report['model'])}: {report['items']['scored']:,} items{_published(report)}.</p>" for report in document["reports"]
    ]
    parts += [
        f"<p><strong>{escape(report['model'])}: not a held-out score: {escape(report['seen'])}.</strong></p>"
        for report in document["reports"]
        if "seen" in report
    ]
    intervals = f", with {document['bootstrap']['level']:.0%} intervals" if document["bootstrap"]["draws"] else ""
    parts.append(f"<h2>Scores and differences, in percent{intervals}</h2>")
    parts.append(f'<div class="wide">{table(["", *comparison.columns()], comparison.rows(), kind="scores")}</div>')
    parts += [f"<p>{escape(line)}.</p>" for line in comparison.gaps()]
    shown = {
        **document,
        "reports": [{key: report[key] for key in report if key not in ("classes", "confusion")} for report in document["reports"]],
    }
    parts.append(_made_from(shown))
    write_page(path, document["title"], "".join(parts))


def _published(report: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{name} {value:.1f}" for name, value in report.get("published", {}).items())
    return f", published {escape(figures)}" if figures else ""


def _made_from(record: Mapping[str, Any]) -> str:
    return f"<h2>What it was made from</h2><pre>{escape(json.dumps(record, indent=1, ensure_ascii=False))}</pre>"


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
    return "<h2>Scores, in percent</h2>" + table(["", "value", "95 % interval", "chance", "published"], rows, kind="scores")


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    score = "recall" if "recall" in classes[0] else "average_precision"
    rows = [[row["class"], f"{row['items']:,}", _percent(row[score])] for row in classes]
    return "<h2>Classes</h2>" + table(["class", "items", score.replace("_", " ")], rows, kind="classes")


def _confusion(matrix: np.ndarray, classes: Sequence[str]) -> str:
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    most = [divmod(int(cell), len(matrix)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED] if wrong.flat[cell]]
    rows = [[classes[true], classes[given], f"{matrix[true, given]:,}"] for true, given in most]
    pairs = "<h2>Most often confused</h2>" + table(["class", "taken for", "items"], rows, words=(0, 1), kind="confused")
    if len(classes) > MATRIX_CLASSES:
        return pairs
    head = "".join(f"<th>{escape(name)}</th>" for name in classes)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_cell(count, share) for count, share in zip(counts, shares, strict=True))}</tr>"
        for name, counts, shares in zip(classes, matrix, matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), strict=True)
    )
    whole = f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<h2>Confusion: a row for each true class, a column for each predicted one</h2><div class="wide">{whole}</div>{pairs}'


def _cell(count: int, share: float) -> str:
    colour = f"background: rgba(31, 90, 180, {share:.2f}); color: {'#fff' if share > 0.5 else 'inherit'}"
    return f'<td style="{colour}">{count or ""}</td>'


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def check_plot() -> None:
    """Check that the confusion matrix can be drawn.

    Raises:
        UserError: matplotlib, an extra, is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib; install it with: pip install 'imagebind-cli[plot]'")


def plot(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix (c, c) to a picture file: each row as shares of its class, with the names of up to 120 classes.

    Raises:
        UserError: the file cannot be written, or its ending names no format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(4 + 0.22 * count, 30)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if count <= 120:
        names = [escape(name).replace("$", r"\$") for name in classes]  # a dollar would start a formula
        axes.set_xticks(range(count), names, rotation=90, fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(picture, label="share of the class", shrink=0.8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters the font does not have
            with replacing(path) as place:
                figure.savefig(place, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: a file ending it has no format for
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
