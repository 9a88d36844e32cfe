"""A map of stores as a page and as a picture: a mark for each item, with its name, in the colour and the shape of its group.

A page has no scripts. Hovering names an item; each group has a checkbox that hides it and a list whose links mark an item in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagebind_cli.files import write_text
from imagebind_cli.insight.store_map import StoreMap
from imagebind_cli.pages.base import PageFile, escape, table
from imagebind_cli.pages.curves import COLOURS
from imagebind_cli.printable import counted, printable

DRAWN = 10_000  # marks at most: a browser moves these at once, and more hide each other
LEAST = 20  # marks of each group, if it has as many items
WIDTH, HEIGHT, EDGE, SIZE = 960, 720, 12, 3.2
LEGEND = 26  # pixels between the lines of a picture's legend
SHAPES = ("circle", "square", "triangle")
NAMED = len(COLOURS) * len(SHAPES)  # groups that have a look of their own
OTHER = "#888888"
STYLE = """<style>
.map { width: 100%; height: auto; border: 1px solid #8886; border-radius: 6px }
.map :target { fill-opacity: 1; stroke: currentColor; stroke-width: 3 }
.groups { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem }
.groups svg { width: 12px; height: 12px }
details ol { columns: 18rem; font-size: 13px; overflow-wrap: anywhere }
"""


def drawn_items(map: StoreMap, most: int = DRAWN, seed: int = 0) -> np.ndarray:
    """Choose the items that are drawn, by number, sorted: all, or so many at random, but `LEAST` of each group that has a look of its own."""
    if len(map) <= most:
        return np.arange(len(map))
    order = np.random.default_rng(seed).permutation(len(map))
    chosen = [order[:most]]
    shown = np.bincount(map.group[chosen[0]], minlength=len(map.groups))
    for group in np.flatnonzero(shown[:NAMED] < LEAST).tolist():
        chosen.append(order[map.group[order] == group][:LEAST])
    return np.unique(np.concatenate(chosen))


def write_map_page(map: StoreMap, path: Path, most: int = DRAWN, seed: int = 0) -> int:
    """Write a map as one HTML file that needs no network, and return how many items are drawn.

    Raises:
        UserError, OSError: as `PageFile`.
    """
    numbers = drawn_items(map, most, seed)
    looks = _looks(map)
    with PageFile(path, "imagebind store map") as page:
        page.write(f"<p>{escape(map.about)}. {_sampled(map, numbers)}</p>\n{STYLE}")
        page.write(
            "".join(f"body:has(#show{look}:not(:checked)) .look{look} {{ display: none }}\n" for look in range(len(looks))) + "</style>\n"
        )
        page.write(f'<fieldset><legend>{escape(_by(map))}</legend><ul class="groups">')
        for look, (name, size) in enumerate(looks):
            sign = f'<svg viewBox="-4 -4 8 8" aria-hidden="true">{_mark(look, 0, 0)}</svg>'
            page.write(
                f'<li><label><input type="checkbox" id="show{look}" checked> {sign} {escape(name)} <small>{size:,}</small></label></li>'
            )
        page.write("</ul></fieldset>\n")
        label = f"scatter plot of {counted(len(numbers), 'item')}; the lists below it have their names"
        page.write(f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">')
        for part in _marks(map, numbers, ids=True):
            page.write(part)
        page.write("</svg>\n<h2>Items</h2>\n<p>A link marks its item in the map. Places are in the map's own units.</p>\n")
        for look, (name, size) in enumerate(looks):
            _write_list(page, map, numbers[_look_of(map, numbers) == look], name, size)
        page.write(_summary(map, looks))
    return len(numbers)


def write_map_picture(map: StoreMap, path: Path, most: int = DRAWN, seed: int = 0) -> int:
    """Write a map as one SVG file with its legend, and return how many items are drawn.

    Raises:
        UserError, OSError: as `files.replacing`.
    """
    numbers = drawn_items(map, most, seed)
    looks = _looks(map)
    height = max(HEIGHT, LEGEND * (len(looks) + 2))
    legend = [f'<text x="{WIDTH + 10}" y="{LEGEND}" font-weight="bold">{escape(_by(map))}</text>']
    for look, (name, size) in enumerate(looks):
        y = LEGEND * (look + 2)
        legend.append(f'{_mark(look, WIDTH + 16, y - 4)}<text x="{WIDTH + 28}" y="{y}">{escape(_short(name))} ({size:,})</text>')
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 320} {height}" font-family="system-ui, sans-serif" font-size="13" role="img">'
        f"<title>{escape(map.about)}. {_sampled(map, numbers)}</title>"
        f'<rect width="100%" height="100%" fill="white"/>{"".join(_marks(map, numbers))}{"".join(legend)}</svg>\n',
    )
    return len(numbers)


def _by(map: StoreMap) -> str:
    return {"store": "Stores", "cluster": "Clusters"}.get(map.by, f"Labels by {map.by.partition(':')[2]}")


def _sampled(map: StoreMap, numbers: np.ndarray) -> str:
    return "" if len(numbers) == len(map) else f"Drawn are {len(numbers):,} of {len(map):,} items, chosen at random."


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 36 else f"…{name[-35:]}"


def _looks(map: StoreMap) -> list[tuple[str, int]]:
    """Return what a colour and shape stands for, and how many items have it: a group, or the last one for all further groups."""
    sizes = np.bincount(map.group, minlength=len(map.groups)).tolist()
    looks = [(printable(name), size) for name, size in zip(map.groups[:NAMED], sizes, strict=False)]
    further = len(map.groups) - NAMED
    return looks + ([(f"{counted(further, 'further group')}", sum(sizes[NAMED:]))] if further > 0 else [])


def _look_of(map: StoreMap, numbers: np.ndarray) -> np.ndarray:
    return np.minimum(map.group[numbers], NAMED)


def _marks(map: StoreMap, numbers: np.ndarray, ids: bool = False) -> Iterator[str]:
    """Yield the marks, named. ids: give each an anchor that links can name."""
    places = map.places[numbers].astype(np.float64)
    low, high = places.min(axis=0), places.max(axis=0)
    scale = min((side - 2 * EDGE) / spread for side, spread in zip((WIDTH, HEIGHT), np.maximum(high - low, 1e-9), strict=True))
    middle, looks = (low + high) / 2, _look_of(map, numbers).tolist()
    for number, look, (x, y) in zip(numbers.tolist(), looks, ((places - middle) * (scale, -scale)).tolist(), strict=True):
        name = f"{printable(map.ids[number])} ({printable(map.groups[map.group[number]])})"
        anchor = f' id="i{number}"' if ids else ""
        yield _mark(look, WIDTH / 2 + x, HEIGHT / 2 + y, f"<title>{escape(name)}</title>", f'{anchor} class="look{look}"')


def _mark(look: int, x: float, y: float, inside: str = "", attributes: str = "") -> str:
    colour = OTHER if look >= NAMED else COLOURS[look % len(COLOURS)]
    looks = f'{attributes} fill="{colour}" fill-opacity=".75"'
    shape = SHAPES[look // len(COLOURS)] if look < NAMED else SHAPES[0]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{SIZE}"{looks}>{inside}</circle>\n'
    if shape == "square":
        return f'<rect x="{x - SIZE:.1f}" y="{y - SIZE:.1f}" width="{2 * SIZE}" height="{2 * SIZE}"{looks}>{inside}</rect>\n'
    return f'<path d="M{x:.1f} {y - 1.3 * SIZE:.1f}l{1.3 * SIZE:.1f} {2.2 * SIZE:.1f}h{-2.6 * SIZE:.1f}z"{looks}>{inside}</path>\n'


def _write_list(page: PageFile, map: StoreMap, numbers: np.ndarray, name: str, size: int) -> None:
    """Write the drawn items of a group as links to their marks, by name."""
    drawn = f"{len(numbers):,} of {size:,}" if len(numbers) < size else f"{size:,}"
    page.write(f"<details><summary>{escape(name)}: {drawn}</summary><ol>")
    for number in sorted(numbers.tolist(), key=lambda number: map.ids[number]):
        x, y = map.places[number].tolist()
        page.write(f'<li><a href="#i{number}">{escape(printable(map.ids[number]))}</a> <small>{x:.3f}, {y:.3f}</small></li>\n')
    page.write("</ol></details>\n")


def _summary(map: StoreMap, looks: list[tuple[str, int]]) -> str:
    """Return a table of the groups: how many items, where their middle is, and the item nearest to it."""
    rows = []
    for group, (name, size) in enumerate(looks[: len(map.groups)][:NAMED]):
        members = np.flatnonzero(map.group == group)
        middle = map.places[members].mean(axis=0, dtype=np.float64)
        nearest = members[((map.places[members] - middle) ** 2).sum(axis=1).argmin()]
        rows.append((name, f"{size:,}", f"{middle[0]:.3f}", f"{middle[1]:.3f}", printable(map.ids[nearest])))
    return "<h2>Groups</h2>\n" + table((_by(map), "items", "x", "y", "nearest to the middle"), rows, words=(0, 4))
