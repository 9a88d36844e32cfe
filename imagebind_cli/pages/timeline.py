"""Answers of `imagebind moments` as one page, a timeline for each recording, and the curves as a picture."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.grounding.curves import MomentOptions, ScoreCurve
from imagebind_cli.grounding.moments import MomentAnswer, MomentFinder, MomentHit
from imagebind_cli.grounding.recordings import WindowedItem
from imagebind_cli.pages.base import PageFile, escape
from imagebind_cli.pages.curves import downsample
from imagebind_cli.pages.pictures import picture
from imagebind_cli.pages.strips import STRIPS, WIDTH, strip
from imagebind_cli.registry import PAGE_PICTURES

HEIGHT, BOTTOM = 120, 18  # of the curve above a strip of the recording, and of its labels
TICKS = 8
SHOWN = 20  # recordings of an answer at most; those with the best moments first
CURVE, SHADE = "#2563eb", "#d97706"


class TimelinePage(PageFile):
    """A page of queries, with a timeline of each recording that has a moment among the answers. Written query by query.

    Args:
        about: how the scores were made, in words. root: where relative paths among the ids start. options: what counted as a moment.
    """

    def __init__(self, path: Path, about: str, root: Path, options: MomentOptions) -> None:
        super().__init__(path, "imagebind moments")
        self._root, self._options, self._queries, self._beside = root, options, 0, path.parent
        self.write(f"<p>{escape(about)}</p>\n")

    @classmethod
    def of(cls, path: Path, finder: MomentFinder, options: MomentOptions | None = None, root: Path = Path()) -> TimelinePage:
        """Return a page for the answers of a finder, as `imagebind moments --html` writes it."""
        made = finder.stores[0].provenance
        scores = f"A second's score is the mean of the windows over it: the {finder.score_name}."
        against = f" The other names: {', '.join(finder.against)}." if finder.against else ""
        model = f" Model {made.get('model')}{', untrained' if made.get('untrained') else ''}."
        return cls(path, scores + against + model, root, options or MomentOptions())

    def add(self, answer: MomentAnswer) -> None:
        """Add a query and its answer."""
        self._queries += 1
        self.write(f"<section><h2>{escape(answer.query.id)}</h2>\n")
        if not answer.hits:
            self.write("<p>No moment found.</p>")
        curves = {id(item): curve for item, curve in answer.curves}
        of_items: dict[int, list[MomentHit]] = {}
        for hit in answer.hits:
            of_items.setdefault(id(hit.item), []).append(hit)
        for hits in list(of_items.values())[:SHOWN]:
            self._recording(hits[0].item, curves[id(hits[0].item)], hits)
        if len(of_items) > SHOWN:
            self.write(f"<p>{len(of_items) - SHOWN:,} further recordings have moments.</p>")
        self.write("</section>\n")

    def _recording(self, item: WindowedItem, curve: ScoreCurve, hits: Sequence[MomentHit]) -> None:
        path = os.path.join(self._root, item.path)
        self.write(timeline_figure(item, path, curve, hits, curve.level(self._options), self._anchor))
        self.write(f'<ol class="cards">{"".join(self._card(item, path, hit) for hit in hits)}</ol>\n')

    def _anchor(self, hit: MomentHit) -> str:
        return f"q{self._queries}m{hit.rank}"

    def _card(self, item: WindowedItem, path: str, hit: MomentHit) -> str:
        """Return a moment with a picture and a player of its own, and a link that opens the recording there."""
        modality, body, about = item.store.modality, "", ""
        if modality in PAGE_PICTURES:
            span = (hit.best, min(hit.best + 1, hit.end)) if modality in ("video", "vision") else (hit.start, hit.end)
            try:
                shown = picture(modality, path, span, item.store.provenance.get("options", {}))
            except (OSError, ValueError) as error:
                about = f"cannot be shown: {getattr(error, 'strerror', None) or error}"
            else:
                body = f'<img src="{shown.image}" alt="{escape(f"moment {hit.rank} of {item.id}")}">'
                player = shown.sound or (_sound_of(path, hit) if modality in ("video", "vision") else None)
                if player:
                    label = escape(f"play moment {hit.rank} of {item.id}")
                    body += f'<audio controls preload="metadata" src="{player}" aria-label="{label}"></audio>'
        times = f"{_time(hit.start)} to {_time(hit.end)}"
        clock = item.clock(hit.start)
        facts = (f"best at {_time(hit.best)}: {hit.best_score:.4f}", *([clock] if clock else []), *([about] if about else []))
        if modality in ("audio", "video", "vision"):  # a browser's own player goes to the second behind `t=`
            address = quote(os.path.relpath(path, self._beside)) + f"#t={hit.start:.2f},{hit.end:.2f}"
            times = f'<a href="{escape(address)}">{times}</a>'
        words = f"<strong>{hit.rank}.</strong> {hit.score:.4f} {times} <small>{'<br>'.join(map(escape, facts))}</small>"
        return f'<li id="{self._anchor(hit)}">{body}{words}</li>\n'


def timeline_figure(
    item: WindowedItem,
    path: str,
    curve: ScoreCurve,
    hits: Sequence[MomentHit],
    level: float,
    anchor: Callable[[MomentHit], str],
) -> str:
    """Return a recording over time as a figure of a page: its curve with its moments shaded, over a strip of the recording.

    Args:
        path: of the recording. level: the score that the seconds of a moment reach.
        anchor: returns the id of the element that a moment links to.
    """
    about, shown = "", ""
    if item.store.modality in STRIPS:
        try:
            shown = strip(item.store.modality, path, (curve.start, curve.end))
        except (OSError, ValueError) as error:
            about = f" (cannot be shown: {getattr(error, 'strerror', None) or error})"
    picture_below = f'<img src="{shown}" alt="{escape(item.id)} over time" width="{WIDTH}">' if shown else ""
    caption = f"<figcaption>{escape(item.id)}<small>{escape(about)}</small></figcaption>"
    return f'<figure class="wide">{caption}{_chart(item, curve, hits, level, anchor)}{picture_below}</figure>'


def _chart(item: WindowedItem, curve: ScoreCurve, hits: Sequence[MomentHit], level: float, anchor: Callable[[MomentHit], str]) -> str:
    """Return the curve with its moments shaded."""
    known = curve.scores[np.isfinite(curve.scores)]
    low, high = min(float(known.min()), level), max(float(known.max()), level)
    length = curve.end - curve.start

    def x(time: float) -> str:
        return f"{(time - curve.start) / length * WIDTH:.1f}"

    def y(score: float) -> str:
        return f"{4 + (high - score) / ((high - low) or 1) * (HEIGHT - 8):.1f}"

    parts = []
    for hit in hits:
        label = f"moment {hit.rank}: {hit.start:.2f} to {hit.end:.2f} s"
        parts.append(
            f'<a href="#{anchor(hit)}" aria-label="{escape(label)}"><rect x="{x(hit.start)}" y="0" '
            f'width="{float(x(hit.end)) - float(x(hit.start)):.1f}" height="{HEIGHT}" fill="{SHADE}" fill-opacity=".35">'
            f"<title>{escape(label)}</title></rect></a>"
        )
    parts.append(f'<path d="M0 {y(level)}H{WIDTH}" stroke="currentColor" stroke-opacity=".4" stroke-dasharray="4 4"/>')
    middles = (curve.times()[:-1] + curve.times()[1:]) / 2
    for part in np.split(np.arange(len(middles)), np.flatnonzero(np.isnan(curve.scores))):
        points = downsample([(float(middles[i]), float(curve.scores[i])) for i in part if np.isfinite(curve.scores[i])])
        if points:
            places = " ".join(f"{x(time)},{y(score)}" for time, score in points)
            parts.append(f'<polyline points="{places}" fill="none" stroke="{CURVE}" stroke-width="1.6" pointer-events="none"/>')
    for tick in range(TICKS + 1):
        time = curve.start + length * tick / TICKS
        alignment = "start" if tick == 0 else "end" if tick == TICKS else "middle"
        parts.append(f'<text x="{x(time)}" y="{HEIGHT + BOTTOM - 4}" text-anchor="{alignment}">{_time(time)}</text>')
    title = f"scores of {item.id} over time, from {low:.3f} to {high:.3f}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + BOTTOM}" width="{WIDTH}" font-size="11" fill="currentColor" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _sound_of(path: str, hit: MomentHit) -> str | None:
    """Return the `data:` address of a video's sound during a moment, if it has any."""
    with suppress(OSError, ValueError):
        return picture("audio", path, (hit.start, hit.end)).sound
    return None


def _time(seconds: float) -> str:
    """Return a time as a clock shows it: `4:07.5`, `1:02:03`."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


def check_curve_plot() -> None:
    """Check that curves can be drawn.

    Raises:
        UserError: matplotlib, an extra, is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib; install it with: pip install 'imagebind-cli[plot]'")


def plot_curves(answer: MomentAnswer, options: MomentOptions, path: Path) -> None:
    """Draw the curves of an answer to a picture file, with its moments shaded: of up to `SHOWN` recordings, those with the best moments first.

    Raises:
        UserError: the file cannot be written, or its ending names no format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = {id(hit.item): -hit.rank for hit in reversed(answer.hits)}
    curves = sorted(answer.curves, key=lambda entry: -order.get(id(entry[0]), -len(answer.hits) - 1))[:SHOWN]
    figure = Figure(figsize=(12, 1 + 2 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (item, curve) in enumerate(curves):
        axes = figure.add_subplot(len(curves), 1, place + 1)
        axes.stairs(np.nan_to_num(curve.scores, nan=float(np.nanmin(curve.scores))), curve.times(), baseline=None, color=CURVE)
        axes.axhline(curve.level(options), color="grey", linestyle=":")
        for hit in answer.hits:
            if hit.item is item:
                axes.axvspan(hit.start, hit.end, color=SHADE, alpha=0.35)
        axes.set_title(escape(item.id).replace("$", r"\$"), fontsize=9, loc="left")  # a dollar would start a formula
        axes.set_xlim(curve.start, curve.end)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters the font does not have
            with replacing(path) as place_of_file:
                figure.savefig(place_of_file, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: a file ending it has no format for
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
