"""An item of the stores as part of a query, by its id, or some of its rows: windows by `ID#START-END` or `ID@SECONDS`, a region by `ID#X,Y,W,H`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from imagebind_cli.boxes import box_of
from imagebind_cli.errors import UserError
from imagebind_cli.media.windows import within
from imagebind_cli.similarity import combine
from imagebind_cli.sources import Stretch, stretched
from imagebind_cli.store import StoreReader

SAME_WINDOW_SECONDS = 0.006  # people see and type the seconds of a window in hundredths
SIMILAR_AMONG = 20_000  # ids that are compared with an unknown one, to name similar ones

# The number of a searched store, and the number of a row in it.
RowPlace = tuple[int, int]


class Exhibit(NamedTuple):
    """A query or an answer as a page shows it.

    kind: the modality, or `vector`. source: a path or sentence, or a `Stretch` of a file. name: its name, if not its source.
    span: the seconds of a window. box: x, y, width and height of a region in pixels of its picture.
    """

    kind: str
    source: str | Stretch
    name: str = ""
    span: tuple[float, float] | None = None
    box: list[float] | None = None


class QueryPart(NamedTuple):
    """One part of a query: its exhibit, its vector (dim,), and the rows of the stores that are the part itself."""

    exhibit: Exhibit
    vector: np.ndarray
    rows: frozenset[RowPlace] = frozenset()


def stored_exhibit(store: StoreReader, row: int) -> Exhibit:
    """Return the exhibit of a row: the file that its record names, else the one that its id names."""
    return recorded_exhibit(store.modality, store.id(row), store.meta(row), window_seconds(store, row))


def recorded_exhibit(modality: str, id: str, meta: Mapping[str, Any], span: tuple[float, float] | None) -> Exhibit:
    """Return the exhibit of what is recorded of a row: its id, the other columns of its manifest, and the seconds of its window."""
    path = meta.get(modality)
    source: str | Stretch = path if isinstance(path, str) else id
    with suppress(ValueError):  # earlier versions stored `start` and `end` columns that are not seconds
        source = stretched(str(source), modality, meta)
    return Exhibit(modality, source, id, span, box_of(meta))


def window_seconds(store: StoreReader, row: int) -> tuple[float, float] | None:
    """Return start and end of a row's window; None for a row of a whole item."""
    spans = store.spans
    if spans is None or np.isnan(spans[row]).any():
        return None
    return float(spans[row][0]), float(spans[row][1])


def stored_item(stores: Sequence[StoreReader], id: str) -> QueryPart:
    """Return an item of the stores as part of a query; its vector is the mean of its windows or regions, where it has several.

    Raises:
        UserError: no such item, with similar ids, or no such window or region of it.
    """
    places = rows_of(stores, id) or _rows_of_window(stores, id) or _rows_at(stores, id) or _rows_of_region(stores, id)
    if not places:
        raise UserError(f"no item {id!r} in {', '.join(str(store.path) for store in stores)}{_similar(stores, id)}")
    exhibit = stored_exhibit(stores[places[0][0]], places[0][1])
    if len(places) > 1:
        exhibit = exhibit._replace(span=None, box=None)
    exhibit = exhibit._replace(name=id)
    vectors = [stores[number].rows(np.array([row]))[0] for number, row in places]
    return QueryPart(exhibit, combine(np.stack(vectors)), frozenset(places))


def rows_of(stores: Sequence[StoreReader], id: str) -> list[RowPlace]:
    """Return all rows of an item. One of the folder `.` has the id `./x.jpg`, and is found by `x.jpg`, too."""
    for known in (id, f"./{id}"):
        places = [(number, row) for number, store in enumerate(stores) for row, name in enumerate(store.ids) if name == known]
        if places:
            return places
    return []


def _rows_of_window(stores: Sequence[StoreReader], name: str) -> list[RowPlace]:
    """Return the rows of `ID#START-END`: the window of these seconds, else those whose middles are between them.

    Raises:
        UserError: the item has windows, but none there.
    """
    asked = re.fullmatch(r"(.+)#([\d.]+)-([\d.]+)", name, re.DOTALL)
    rows = rows_of(stores, asked[1]) if asked else []
    spans = {place: span for place in rows if (span := window_seconds(stores[place[0]], place[1])) is not None}
    if asked is None or not spans:
        return []
    try:
        start, end = float(asked[2]), float(asked[3])
        same = [place for place, span in spans.items() if max(abs(span[0] - start), abs(span[1] - end)) < SAME_WINDOW_SECONDS]
        between = set() if same else set(within(spans.values(), (start, end)))
    except ValueError:
        examples = ", ".join(f"{start:.10g}-{end:.10g}" for start, end in islice(spans.values(), 3))
        raise UserError(f"{asked[1]}: no window {asked[2]}-{asked[3]} in it; its {len(spans):,} are {examples}, …") from None
    return same or [place for place, span in spans.items() if span in between]


def _rows_at(stores: Sequence[StoreReader], name: str) -> list[RowPlace]:
    """Return the rows of `ID@SECONDS`: the windows over that time.

    Raises:
        UserError: the item has windows, but none there.
    """
    asked = re.fullmatch(r"(.+)@(\d+\.?\d*|\.\d+)", name, re.DOTALL)
    rows = rows_of(stores, asked[1]) if asked else []
    spans = {place: span for place in rows if (span := window_seconds(stores[place[0]], place[1])) is not None}
    if asked is None or not spans:
        return []
    time = float(asked[2])
    if there := [place for place, (start, end) in spans.items() if start <= time < end]:
        return there
    first, last = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    raise UserError(f"{asked[1]}: no window over {asked[2]} s; its {len(spans):,} are between {first:.10g} and {last:.10g} s")


def _rows_of_region(stores: Sequence[StoreReader], name: str) -> list[RowPlace]:
    """Return the rows of `ID#X,Y,W,H`: the regions with that box.

    Raises:
        UserError: the item has regions, but none there.
    """
    asked = re.fullmatch(r"(.+)#(\d+,\d+,\d+,\d+)", name, re.DOTALL)
    rows = rows_of(stores, asked[1]) if asked else []
    boxes = {place: box for place in rows if (box := box_of(stores[place[0]].meta(place[1]))) is not None}
    if asked is None or not boxes:
        return []
    wanted = list(map(int, asked[2].split(",")))
    if there := [place for place, box in boxes.items() if box == wanted]:
        return there
    examples = ", ".join(",".join(f"{number:g}" for number in box) for box in islice(boxes.values(), 3))
    raise UserError(f"{asked[1]}: no region {asked[2]} in it; its {len(boxes):,} are {examples}, …")


def _similar(stores: Sequence[StoreReader], id: str) -> str:
    """Return a hint with ids of the same file name, or of similar spelling."""
    ids = [name for store in stores for name in store.ids]
    similar = list(islice((name for name in ids if os.path.basename(name) == os.path.basename(id) or id in name), 3))
    similar = similar or difflib.get_close_matches(id, ids[:SIMILAR_AMONG], n=3)
    return f"; near are {', '.join(map(repr, similar))}" if similar else ""
