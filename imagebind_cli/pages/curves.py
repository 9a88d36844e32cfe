"""Line charts as SVG, which need no picture file beside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imagebind_cli.pages.base import escape

Point = tuple[float, float]

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 560, 260, 64, 10, 34, 12
POINTS = 400  # points of a curve at most; each is the mean of its stretch
MARKED = 40  # a curve of fewer points has a dot at each
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


def chart(title: str, series: Mapping[str, Sequence[Point]]) -> str:
    """Return a line chart with its title and key, or "" where there is nothing to draw. series: the points (step, value) of each curve."""
    series = {name: downsample(points) for name, points in series.items() if points}
    if not series:
        return ""
    xs, ys = ([point[axis] for points in series.values() for point in points] for axis in (0, 1))
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + (abs(y0) or 1) * 0.1)

    def place(point: Point) -> tuple[str, str]:
        x = LEFT + (point[0] - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        y = TOP + (y1 - point[1]) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f}", f"{y:.1f}"

    drawn = []
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        _, y = place((x0, value))
        drawn.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:.3g}</text>')
    for step, anchor in ((x0, "start"), (x1, "end")):
        drawn.append(f'<text x="{place((step, y0))[0]}" y="{HEIGHT - 12}" text-anchor="{anchor}">step {step:,.0f}</text>')
    key = []
    for number, (name, points) in enumerate(series.items()):
        colour, places = COLOURS[number % len(COLOURS)], [place(point) for point in points]
        drawn.append(f'<polyline points="{" ".join(map(",".join, places))}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        drawn += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in places if len(places) < MARKED]
        key.append(f'<span><i style="background:{colour}"></i>{escape(name)}: {points[-1][1]:.4g}</span>')
    image = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12" fill="currentColor" role="img">{"".join(drawn)}</svg>'
    return f'<figure><figcaption>{escape(title)}</figcaption>{image}<div class="key">{"".join(key)}</div></figure>'


def downsample(points: Sequence[Point]) -> list[Point]:
    """Return at most `POINTS` points, each the mean of as many neighbours."""
    size = -(-len(points) // POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
