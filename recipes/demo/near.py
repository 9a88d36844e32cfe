"""Prints what is near what among embeddings: a matrix of cosines, and every item's nearest neighbours.

    imagebind embed image photos/ > vectors.jsonl
    imagebind embed text "a dog on a beach" >> vectors.jsonl
    python recipes/demo/near.py vectors.jsonl

Input is what `imagebind embed` writes: a JSON object a line, with id, modality and embedding. Cosines are shown as they are: nothing is
centred or rescaled. Only the shades are.
"""

from __future__ import annotations

import argparse
import fileinput
import json
import math
import sys
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

WIDTH = 100
SHORTEST_NAME = 6
SHADES = " ░▒▓█"
COLOURS = np.array([(34, 30, 64), (48, 90, 140), (40, 150, 138), (140, 200, 80), (253, 231, 60)])
"""Dark to bright, evenly spaced."""
ALIKE = 0.99
"""Cosines that are all above this look the same in hundredths."""
UNTRAINED = (
    "Untrained model: nearness ACROSS modalities is chance. Only within one encoder (image and video share theirs) does it mean a little: "
    "similar inputs stay similar."
)


@dataclass(frozen=True)
class Item:
    """One embedding: its short name, and its unit vector (dim,)."""

    name: str
    modality: str
    vector: np.ndarray


def read(lines: fileinput.FileInput[str]) -> list[Item]:
    """The items of JSON lines, those of one modality together, modalities in the order they first appear.

    Raises:
        ValueError: a line holds no embedding, or one of another length than the first; the message says where.
    """
    items: list[Item] = []
    for line in lines:
        if not line.strip():
            continue
        place = f"{lines.filename()}:{lines.filelineno()}"
        try:
            row = json.loads(line)
            vector = np.array(row["embedding"], dtype=np.float64)
            with np.errstate(all="ignore"):  # an embedding of zeros is told of below
                item = Item(short_name(row), str(row["modality"]), vector / np.linalg.norm(vector))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{place}: not a JSON object with id, modality and embedding") from None
        if not np.isfinite(item.vector).all() or item.vector.ndim != 1:
            raise ValueError(f"{place}: the embedding has no direction")
        if items and len(vector) != len(items[0].vector):
            raise ValueError(f"{place}: {len(vector)} numbers, {len(items[0].vector)} before: made by another model?")
        items.append(item)
    order = list(dict.fromkeys(item.modality for item in items))
    return sorted(items, key=lambda item: order.index(item.modality))


def short_name(row: dict[str, object]) -> str:
    """A sentence whole, a path without folder and ending; and the start of its window, if it is one of several."""
    name = str(row["id"]) if row["modality"] == "text" else PurePath(str(row["id"])).stem
    if "start" in row:
        name = f"{name} {row['start']:g}s"
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def encoder(modality: str) -> str:
    """Image and video go through one encoder; every other modality has its own."""
    return "vision" if modality in ("image", "video") else modality


def spread(cosines: np.ndarray, modalities: np.ndarray, first: str, second: str) -> tuple[float, float]:
    """Lowest and highest cosine between two modalities, each item's with itself left out. (1, 1) where nothing is left."""
    rows, columns = np.flatnonzero(modalities == first), np.flatnonzero(modalities == second)
    block = cosines[np.ix_(rows, columns)][rows[:, None] != columns]
    return (float(block.min()), float(block.max())) if block.size else (1.0, 1.0)


def decimals(low: float, high: float) -> int:
    """How many digits tell the two apart, with one to spare; four at least."""
    return 4 if high <= low else min(8, max(4, 1 + math.ceil(-math.log10(high - low))))


def print_matrix(console: Console, items: list[Item], cosines: np.ndarray, untrained: bool) -> None:
    """The square matrix: numbers on colours where there are colours, else shades. Every pair of modalities has its own scale."""
    modalities = np.array([item.modality for item in items])
    names = list(dict.fromkeys(modalities.tolist()))
    coloured = console.color_system is not None and not console.no_color
    cell = 3 if coloured else 2
    digits = len(str(len(items)))
    beside = digits + 2 + cell * len(items) + len(names)
    name_width = min(console.width - beside, max(cell_len(item.name) for item in items))
    if console.width - beside < SHORTEST_NAME:
        wanted = beside + SHORTEST_NAME
        console.print(f"A matrix of {len(items)} by {len(items)} takes {wanted} columns, here are {console.width}: left out.")
        return

    def scale(first: str, second: str) -> tuple[float, float]:
        if untrained and encoder(first) != encoder(second):
            return 0.0, 1.0
        return spread(cosines, modalities, first, second)

    scales = {(first, second): scale(first, second) for first in names for second in names}
    header = Text(" " * (digits + name_width + 2))
    for column in range(len(items)):
        begins = column == 0 or modalities[column] != modalities[column - 1]
        header.append(" " * begins + f"{(column + 1) % 10 ** (cell - 1):>{cell - 1}} ", style="dim")
    console.print(header)
    for row, item in enumerate(items):
        if row == 0 or modalities[row - 1] != item.modality:
            low, high = spread(cosines, modalities, item.modality, item.modality)
            several = (modalities == item.modality).sum()
            places = decimals(low, high)
            among = {1: "", 2: f"  {low:.{places}f}"}.get(several, f"  {low:.{places}f} to {high:.{places}f} among themselves")
            console.print(Text(item.modality, style="bold").append(among, style="not bold"))
        line = Text(f"{row + 1:>{digits}} {set_cell_size(item.name, name_width)} ")
        for column, other in enumerate(items):
            if column == 0 or modalities[column] != modalities[column - 1]:
                line.append(" ")
            line.append(one_cell(cosines[row, column], row == column, scales[item.modality, other.modality], coloured))
        console.print(line)
    console.print(legend(items, cosines, modalities, coloured, untrained))


def one_cell(cosine: float, own: bool, scale: tuple[float, float], coloured: bool) -> Text:
    """One cosine, as hundredths on a colour or as a shade, between the lowest and the highest of its scale."""
    if own:
        return Text("  ·" if coloured else "· ", style="dim")
    low, high = scale
    position = min(max((cosine - low) / (high - low), 0.0), 1.0) if high > low else 1.0
    if not coloured:
        return Text(SHADES[min(int(position * len(SHADES)), len(SHADES) - 1)] * 2)
    stops = np.linspace(0, 1, len(COLOURS))
    red, green, blue = (float(np.interp(position, stops, channel)) for channel in COLOURS.T)
    ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 110 else "white"
    hundredths = round(100 * cosine)
    return Text(f"{hundredths:>3}" if hundredths > -100 else "-1.", style=Style(color=ink, bgcolor=Color.from_rgb(red, green, blue)))


def legend(items: list[Item], cosines: np.ndarray, modalities: np.ndarray, coloured: bool, untrained: bool) -> Text:
    """What the cells mean, and where they make small differences look large."""
    mark = (
        "Hundredths; the brighter, the nearer." if coloured else f"From far to near: blank, {', '.join(2 * shade for shade in SHADES[1:])}."
    )
    text = Text(f"{mark} Each pair of modalities has its own scale, from its lowest cosine to its highest")
    text.append("; 0 to 1 where it is chance." if untrained else ".")
    names = list(dict.fromkeys(modalities.tolist()))
    alike = [name for name in names if (modalities == name).sum() > 2 and spread(cosines, modalities, name, name)[0] > ALIKE]
    if alike:
        text.append(f" Within {' and '.join(alike)} every cosine is above {ALIKE}: there the scale magnifies small differences.")
    return text


def print_neighbours(console: Console, items: list[Item], cosines: np.ndarray, untrained: bool) -> None:
    """Every item's nearest neighbour in its own modality and in all others."""
    modalities = np.array([item.modality for item in items])
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for heading, width in (
        ("item", 27),
        ("nearest of its modality", 23),
        ("cosine", 9),
        ("nearest of the others", 27),
        ("cosine", 6),
        ("", 6),
    ):
        table.add_column(heading, max_width=width, no_wrap=True, overflow="ellipsis", justify="right" if heading == "cosine" else "left")
    for row, item in enumerate(items):
        begins = row == 0 or modalities[row - 1] != item.modality
        cells = [f"{item.modality if begins else '':<8}{item.name}"]
        places = decimals(*spread(cosines, modalities, item.modality, item.modality))
        kin = nearest(cosines[row], (modalities == item.modality) & (np.arange(len(items)) != row))
        cells += ["–", ""] if kin is None else [items[kin].name, f"{cosines[row, kin]:.{places}f}"]
        stranger = nearest(cosines[row], modalities != item.modality)
        chance = stranger is not None and untrained and encoder(items[stranger].modality) != encoder(item.modality)
        if stranger is None:
            cells += ["–", "", ""]
        else:
            found = items[stranger]
            cells += [f"{found.modality:<8}{found.name}", f"{cosines[row, stranger]:.4f}", "chance" if chance else ""]
        table.add_row(*(Text(cell, style="dim" if chance and number > 2 else "") for number, cell in enumerate(cells)))
    console.print(table)


def nearest(cosines: np.ndarray, allowed: np.ndarray) -> int | None:
    """The number of the highest among the allowed cosines (n,)."""
    return int(np.where(allowed, cosines, -np.inf).argmax()) if allowed.any() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="JSON lines from `imagebind embed`; - or nothing for stdin")
    parser.add_argument("--untrained", action="store_true", help="say that the model is untrained, and colour accordingly")
    options = parser.parse_args()
    try:
        with fileinput.input(options.files, encoding="utf-8") as lines:
            items = read(lines)
    except (OSError, ValueError) as error:
        sys.exit(f"near.py: {error}")
    if not items:
        sys.exit("near.py: no embeddings")
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # shades are in no older encoding
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    vectors = np.stack([item.vector for item in items])
    cosines = vectors @ vectors.T
    if options.untrained:
        console.print(UNTRAINED, style="yellow")
        console.print()
    print_matrix(console, items, cosines, options.untrained)
    console.print()
    print_neighbours(console, items, cosines, options.untrained)


if __name__ == "__main__":
    main()
