"""Find where a query is in pictures, maps, videos and sounds: what `imagebind locate` does, without a terminal.

A map always has a largest value, whether or not the query is there: so the cosine of the whole picture, and the same two numbers for an empty
query, come with each answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imagebind_cli import pipeline, registry
from imagebind_cli.engine import default_workers, open_engine
from imagebind_cli.errors import OptionError, UsageError
from imagebind_cli.events import Listener
from imagebind_cli.grounding.heat_maps import HeatMaps
from imagebind_cli.grounding.located import Located
from imagebind_cli.grounding.locator import DIVISORS, SHARES, Asked, Locator
from imagebind_cli.grounding.pieces import Pieces, read_pieces
from imagebind_cli.options import ReadingOptions, folders_are_frames
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.readers import check_options
from imagebind_cli.retrieval.finder import Strict
from imagebind_cli.retrieval.requests import QueryRequest, combined_request, request_of_row
from imagebind_cli.sources import Failure, Inputs, Item
from imagebind_cli.space import Space
from imagebind_cli.store import open_store

if TYPE_CHECKING:
    from imagebind_cli.model import Model

ROWS = 32  # rows with queries of their own that are embedded together
AHEAD = 2  # inputs read before their turn


def locate(
    inputs: Inputs | Iterable[str | Path],
    modality: str = "image",
    *,
    model: Model | Space | str | None = None,
    method: str = SHARES,
    size: int | None = None,
    weights: Sequence[float] | None = None,
    requests: Sequence[QueryRequest | Failure] | None = None,
    stores: Sequence[str | Path] = (),
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
    reading: Mapping[str, Any] = MappingProxyType({}),
    workers: int | None = None,
    item_timeout: float | None = None,
    ground: bool = False,
    listener: Listener | None = None,
    **query: str | Path,
) -> Iterator[Located]:
    """Find where a query is in each input: yield an answer for each input and query, in order.

    Args:
        inputs: files or folders, or `sources.Inputs`. modality: what they are: `image`, `video`, `depth`, `thermal` or `audio`.
        model: a model, its name, or a `Space`. method: `shares`, `crops` or `both`; sounds have `shares` alone.
        size: pixels of a side that the encoder takes, in place of its own; its positions are interpolated.
        query: by modality a sentence or a file (`text="a dog"`, `audio="bark.wav"`), `like=` the id of an item of `stores`, `vector=` a file
            of one vector; several are combined by `weights`.
        requests: queries in place of `query`. Without either, each row of the manifest has its own, in columns of other modalities or,
            as an object or a sentence, in `query`.
        stores: where the items of `like` are.
        manifest, manifest_columns: a JSONL, CSV or TSV file of the inputs, in place of `inputs`, as `corpus.embed` takes them.
        reading: how the inputs are read, by the names of the modality's options. Files of queries are read by default.
        ground: keep in the answers what `pages.heat` draws heat maps on.
        listener: receives inputs and queries that fail, which are left out; by default a failure raises.
    Raises:
        UsageError: a wrong method, size, option or modality, or an encoder without shares. UserError: no such model, store or item in it, or a
            failure without a listener.
    """
    if requests is not None and query:
        raise UsageError("give a query or requests, not both")
    listener = listener or Strict()
    face = registry.face(modality)
    options = face.read_options(reading)
    if options.chosen & set(REGION_OPTIONS):
        raise OptionError("locate always searches the whole input; leave tiles and region_shape out", REGION_OPTIONS)
    space = Space.of(model, listener)
    if query:
        requests = [combined_request([(kind, str(value)) for kind, value in query.items()], weights)]
    searched = [space.admit(open_store(path)) for path in stores]
    locator = Locator(space, modality, method, size, listener, searched)
    check_options(face, locator.config, options)
    given = Inputs.of(inputs, manifest, manifest_columns)
    frames = folders_are_frames(reading)
    fixed = locator.queries(requests) if requests is not None else None
    if fixed is not None and not fixed.queries:
        return
    items = given.items((modality,), None, frames)
    listener.begin(0, partial(given.count, (modality,), frames))
    settings: dict[str, Any] = {"workers": workers, "item_timeout": item_timeout, "ground": ground, "listener": listener}
    if fixed is not None:
        yield from locate_items(items, lambda item: fixed, locator, options, **settings)
        return
    folder = os.path.dirname(given.manifest) if given.manifest is not None else ""
    for batch, asked in _batches(items, locator, folder):
        yield from locate_items(batch, asked, locator, options, **settings)


def locate_items(
    items: Iterable[Item | Failure],
    asked: Callable[[Item], Asked],
    locator: Locator,
    options: ReadingOptions,
    *,
    workers: int | None = None,
    item_timeout: float | None = None,
    ground: bool = False,
    listener: Listener,
) -> Iterator[Located]:
    """Find queries in items: yield an answer for each item and query, in order.

    Args:
        asked: returns the queries of an item. options: how items are read. The other arguments are those of `locate`.
    """
    space = locator.space
    read = partial(read_pieces, face=locator.face, config=locator.config, options=options, divisors=DIVISORS[locator.method], ground=ground)
    timeout = space.item_timeout if item_timeout is None else item_timeout
    engine = open_engine(read, workers or space.workers or default_workers(), None, timeout)
    maps: HeatMaps | None = None
    for step in pipeline.decode(items, engine, ahead=AHEAD):
        assert step is not None  # nobody is impatient
        item, outcome = step
        if isinstance(outcome, Pieces):
            maps = maps or HeatMaps(item, locator, asked(item), ground)
            maps.add(outcome)
            continue
        if outcome is not None or maps is None:
            listener.failure(item.id, outcome.reason if isinstance(outcome, Failure) else "holds nothing to look at")
        else:
            listener.remarks(item.id, tuple(maps.notes), tuple(maps.warnings))
            yield from maps.answers()
            listener.succeeded(item.id)
        maps = None


def _batches(
    items: Iterable[Item | Failure], locator: Locator, folder: str
) -> Iterator[tuple[Iterable[Item | Failure], Callable[[Item], Asked]]]:
    """Yield some rows at a time, with what returns the query that each has in its other columns; rows without one are failures."""
    items = iter(items)
    while rows := list(islice(items, ROWS)):
        requests: dict[int, QueryRequest] = {}
        faults: dict[int, str] = {}
        for number, row in enumerate(rows):
            if isinstance(row, Item):
                try:
                    requests[number] = _own_request(row, folder, locator.face)
                except ValueError as error:
                    faults[number] = str(error)
        asked, more = locator.own_queries(requests)
        faults |= more
        by_row = {id(rows[number]): own for number, own in asked.items()}
        yield [Failure(row.id, faults[number]) if number in faults else row for number, row in enumerate(rows)], _own(by_row)


def _own(by_row: Mapping[int, Asked]) -> Callable[[Item], Asked]:
    return lambda item: by_row[id(item)]


def _own_request(item: Item, folder: str, face: registry.Face) -> QueryRequest:
    """Return the query in an item's row: its other columns, or its `query`.

    Raises:
        ValueError: there is none, or it is not one.
    """
    own = item.meta.get("query")
    if isinstance(own, str):
        return QueryRequest(own, ((registry.TEXT, own),))
    row = own if isinstance(own, dict) else item.meta
    if face.timed and own is None:  # `start` and `end` are then of the input, and not of a query
        row = {key: value for key, value in row.items() if key not in ("start", "end")}
    if not any(key in registry.MODALITIES or key == "embedding" for key in row):
        raise ValueError("no query in this row: give a column of another modality, or one for all rows on the command line")
    return request_of_row(row, item.id, folder)
