"""Where in pictures, maps, videos and sounds a query is: what `imagebind locate` does, without a terminal.

A heat map is made of the shares that patches have in the embedding (`shares`), of cosines of squares cut out of the picture (`crops`), or of
both. Every place gets the mean over all squares that cover it. A map always has a largest value, whether or not the query is there: so the
cosine of the whole picture, and the same two numbers for an empty query, come with each answer.

Dimensions: b clips, q queries, p patches, e size of the joint space.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import pipeline, registry
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.encoders.audio import band_hertz
from imagebind_cli.engine import default_workers, open_engine
from imagebind_cli.errors import OptionError, UsageError
from imagebind_cli.events import Listener
from imagebind_cli.grounding.enlarged import with_size
from imagebind_cli.grounding.pieces import FILM, FRAME_SECONDS, SOUND, Pieces, kind_of, read_pieces
from imagebind_cli.grounding.shares import check_dense, dense
from imagebind_cli.grounding.squares import Axis, Canvas, map_axes, peak_cell, region_box
from imagebind_cli.media.views import Box
from imagebind_cli.options import REGION_OPTIONS, folders_are_frames
from imagebind_cli.readers import check_options
from imagebind_cli.retrieval.finder import Strict
from imagebind_cli.retrieval.queries import QueryEncoder
from imagebind_cli.retrieval.requests import QueryRequest, combined_request, request_of_row
from imagebind_cli.retrieval.search import Query
from imagebind_cli.similarity import combine
from imagebind_cli.sources import Failure, Inputs, Item
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.model import Model

SHARES, CROPS, BOTH = METHODS = ("shares", "crops", "both")
DIVISORS = {SHARES: (1,), CROPS: (1, 2, 3), BOTH: (1, 2, 3)}  # of the short side: the squares that a map is made of
# Of a share beside a cosine, measured on drawings: 0.25, 0.5 and 1 find 96, 93 and 91 % of the objects.
SHARE_WEIGHT = 0.5
# How far up from the median to the peak what counts as connected with it must be; measured on drawings, where the mean overlap (IoU) of box and
# drawing is 0.41 by shares and 0.56 by both.
BOX_LEVEL = 0.3
FILM_SHORT = 64  # cells along the short side of a video's maps, of which all windows are kept
ROWS = 32  # rows with queries of their own that are embedded together
PADDED_FRAMES = 2  # at the end of a window, where a frame of 25 ms would begin but not end
AHEAD = 2  # inputs read before their turn


@dataclass(frozen=True)
class Spot:
    """Locate a query in a picture, in a window of a video, or in a sound.

    peak: the place of the largest value; of a picture (x, y) in pixels of the file, upright; of a sound (seconds, Hz).
    box: around what is connected with the peak and not below `BOX_LEVEL` of the way to it from the median: left, top, right, bottom in pixels;
    of a sound start, lowest, end, highest. score: the value at the peak. span: the seconds of the window of a video.
    heat: all values, (rows, columns) float32, over the whole picture; of a sound low bands first.
    """

    peak: tuple[float, float]
    box: Box
    score: float
    heat: np.ndarray = field(repr=False)
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Located:
    """The answer to one query in one input.

    number: of the query among those of the input, from 0. size: width and height of the picture, upright; of a sound its first and last second.
    spots: one, or of a video one for each window, best first. whole: the cosine of the embedding of the whole input.
    floor: score and whole of an empty query in place of this one; None where the query is a vector.
    payload: the input itself. ground: what `pages.heat` draws on: (h, w, 3) uint8 of a picture, log energies (bands, frames) of a sound.
    """

    id: str
    query: Query
    number: int
    modality: str
    kind: str
    method: str
    size: tuple[float, float]
    spots: tuple[Spot, ...]
    whole: float
    floor: tuple[float, float] | None
    payload: Any = field(default=None, repr=False)
    ground: np.ndarray | None = field(default=None, repr=False)

    def as_json(self, box: bool = False, windows: int = 5) -> dict[str, Any]:
        """Return it as one line of output. box: whether boxes are wanted. windows: of a video, how many."""
        rounded = 3 if self.kind == SOUND else 1

        def about(spot: Spot) -> dict[str, Any]:
            place: dict[str, Any] = {} if spot.span is None else {"start": spot.span[0], "end": spot.span[1]}
            place["peak"] = [round(number, rounded) for number in spot.peak]
            if box:
                place["box"] = [round(number, rounded) for number in spot.box]
            return place | {"score": spot.score}

        row = {"id": self.id, "query": self.query.id, **about(self.spots[0]), "whole": self.whole}
        row["floor"] = None if self.floor is None else {"score": self.floor[0], "whole": self.floor[1]}
        if self.kind == FILM:
            row["windows"] = [about(spot) for spot in self.spots[:windows]]
        return row


def locate(
    inputs: Inputs | Iterable[str | Path],
    modality: str = "image",
    *,
    model: Model | Space | str | None = None,
    method: str = SHARES,
    size: int | None = None,
    weights: Sequence[float] | None = None,
    requests: Sequence[QueryRequest | Failure] | None = None,
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
        query: by modality a sentence or a file (`text="a dog"`, `audio="bark.wav"`); several are combined by `weights`.
        requests: queries in place of `query`. Without either, each row of the manifest has its own, in columns of other modalities or,
            as an object or a sentence, in `query`.
        manifest, manifest_columns: a JSONL, CSV or TSV file of the inputs, in place of `inputs`, as `corpus.embed` takes them.
        reading: how the inputs are read, by the names of the modality's options. Files of queries are read by default.
        ground: keep in the answers what `pages.heat` draws heat maps on.
        listener: receives inputs and queries that fail, which are left out; by default a failure raises.
    Raises:
        UsageError: a wrong method, size, option or modality, or an encoder without shares. UserError: no such model, or a failure without a listener.
    """
    if requests is not None and query:
        raise UsageError("give a query or requests, not both")
    listener = listener or Strict()
    face = registry.face(modality)
    options = face.read_options(reading)
    if options.chosen & set(REGION_OPTIONS):
        raise OptionError("locate looks at all of an input by itself; leave tiles and region_shape out", REGION_OPTIONS)
    space = Space.of(model, listener)
    if query:
        requests = [combined_request([(kind, str(value)) for kind, value in query.items()], weights)]
    locator = Locator(space, modality, method, size, listener)
    check_options(face, locator.config, options)
    given = Inputs.of(inputs, manifest, manifest_columns)
    frames = folders_are_frames(reading)
    fixed = locator.queries(requests) if requests is not None else None
    if fixed is not None and not fixed.queries:
        return
    items = given.items((modality,), None, frames)
    listener.begin(0, partial(given.count, (modality,), frames))
    read = partial(read_pieces, face=face, config=locator.config, options=options, divisors=DIVISORS[method], ground=ground)
    workers = workers or space.workers or default_workers()
    timeout = space.item_timeout if item_timeout is None else item_timeout
    folder = os.path.dirname(given.manifest) if given.manifest is not None else ""
    for batch, asked in _batches(items, fixed, locator, folder):
        work: _Work | None = None
        for item, outcome in _steps(batch, open_engine(read, workers, None, timeout)):
            work = work or _Work(item, locator, fixed or asked.get(id(item), locator.nothing), ground)
            if isinstance(outcome, Pieces):
                work.add(outcome)
                continue
            if outcome is not None or not work.seen:
                listener.failure(item.id, "holds nothing to look at" if outcome is None else outcome.reason)
            else:
                listener.remarks(item.id, tuple(work.notes), tuple(work.warnings))
                yield from work.answers()
                listener.succeeded(item.id)
            work = None


def _steps(items: Iterable[Item | Failure], engine: Any) -> Iterator[tuple[Item, Any]]:
    for step in pipeline.decode(items, engine, ahead=AHEAD):
        assert step is not None
        yield step


@dataclass(frozen=True)
class Asked:
    """Queries of an input, and the vectors (q, e) that it is compared with: those of the queries, then those of their empty queries.

    floors: for each query the number of its empty query's vector; None where it has none.
    """

    queries: tuple[Query, ...]
    vectors: Tensor
    floors: tuple[int | None, ...]


def _batches(
    items: Iterable[Item | Failure], fixed: Asked | None, locator: Locator, folder: str
) -> Iterator[tuple[Iterable[Item | Failure], dict[int, Asked]]]:
    """Yield all items at once where the queries are fixed; else some rows at a time with the query of each, by Python's `id` of the item."""
    if fixed is not None:
        yield items, {}
        return
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
        batch = [Failure(row.id, faults[number]) if number in faults else row for number, row in enumerate(rows)]
        yield batch, {id(rows[number]): own for number, own in asked.items()}


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


class _FailuresKept(Listener):
    """Keeps why queries failed, by their ids, and passes on what was assumed to read others."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self.reasons: dict[str, str] = {}

    def failure(self, id: str, reason: str) -> None:
        self.reasons[id] = reason

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        self._listener.remarks(id, notes, warnings)


class Locator:
    """A model that looks for queries in the inputs of one modality.

    Args: as `locate` takes them.
    Raises:
        UsageError: as `locate`.
    """

    def __init__(self, space: Space, modality: str, method: str, size: int | None, listener: Listener) -> None:
        if method not in METHODS:
            raise UsageError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
        self.space, self.face, self.method = space, registry.face(modality), method
        kind_of(self.face, space.local.config(modality))
        self.encoder = space.local.encoder(modality)
        self.kind = kind_of(self.face, self.config)
        if self.kind == SOUND and (method != SHARES or size is not None):
            raise UsageError(f"{modality} is located by shares, at the size of its spectrograms; leave the method and the size out")
        if size is not None:
            self.encoder = with_size(self.encoder, size)
        if method != CROPS:
            try:
                check_dense(self.encoder)
            except UsageError as error:
                raise UsageError(f"{error}{'' if self.kind == SOUND else '; --method crops does without shares'}") from None
        self._listener = listener
        self._empty: dict[str, np.ndarray] = {}
        self._batch = space.batch_size or max(1, self._tokens // self.config.tokens)

    @property
    def config(self) -> EncoderConfig:
        """The shape of the encoder, at the chosen size."""
        return self.encoder.config

    @property
    def _tokens(self) -> int:
        """Tokens to encode at once."""
        model = self.space.local
        return model.batch_size(self.face.name) * model.config(self.face.name).tokens

    @property
    def nothing(self) -> Asked:
        """No queries."""
        return Asked((), torch.empty(0), ())

    def queries(self, requests: Sequence[QueryRequest | Failure]) -> Asked:
        """Embed requests. One that cannot be embedded is reported and left out."""
        return self._asked(QueryEncoder(self.space, (), {}, self._listener).encode(requests))

    def own_queries(self, requests: Mapping[int, QueryRequest]) -> tuple[dict[int, Asked], dict[int, str]]:
        """Embed the requests of some rows together; return the query of each, and why others have none, by the row's number."""
        kept = _FailuresKept(self._listener)
        numbered = [replace(request, id=str(number)) for number, request in requests.items()]
        queries = QueryEncoder(self.space, (), {}, kept).encode(numbered)
        asked = {int(query.id): self._asked([replace(query, id=requests[int(query.id)].id)]) for query in queries}
        return asked, {int(number): why for number, why in kept.reasons.items()}

    def _asked(self, queries: Sequence[Query]) -> Asked:
        vectors, floors, places = [query.vector for query in queries], [], dict[tuple[str, ...], int]()
        for query in queries:
            kinds = tuple(dict.fromkeys(exhibit.kind for exhibit in query.exhibits))
            if kinds and kinds not in places:
                places[kinds] = len(vectors)
                vectors.append(combine(np.stack([self.empty_vector(kind) for kind in kinds])))
            floors.append(places.get(kinds))
        model = self.space.local
        stacked = np.stack(vectors).astype(np.float32) if vectors else np.empty((0, model.dim), np.float32)
        return Asked(tuple(queries), torch.from_numpy(stacked).to(model.device), tuple(floors))

    def empty_vector(self, modality: str) -> np.ndarray:
        """Return the vector (e,) of an empty query: a sentence without words, silence, or a picture or recording that is the same everywhere."""
        if modality not in self._empty:
            model, face = self.space.local, registry.face(modality)
            config = model.config(modality)
            if face.text:
                clips = next(model.read(modality, "")).tensor
            elif registry.modality(face.encoder, config).preview == "spectrogram":
                clips = next(model.read(modality, np.zeros(32_000, np.float32))).tensor
            else:
                clips = torch.zeros(1, *config.shape)
            self._empty[modality] = model.encode(modality, clips)[0].cpu().numpy()
        return self._empty[modality]

    def look(self, clips: Tensor, vectors: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Compare clips (b, *shape) with vectors (q, e).

        Returns:
            The clips' unit vectors (b, e), their cosines (b, q), and the shares (b, q, gh, gw), each times the number of patches, so that their
            mean over a clip is the cosine but for what is not of patches; None for `crops`.
        """
        results = []
        start = 0
        while start < len(clips):
            try:
                results.append(self._look_at_once(clips[start : start + self._batch], vectors))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if self._batch == 1 or not pipeline.out_of_memory(error):
                    raise
                self._batch //= 2
                continue
            start += len(results[-1][0])
        units, cosines, shares = zip(*results, strict=True)
        return np.concatenate(units), np.concatenate(cosines), None if shares[0] is None else np.concatenate(shares)

    @torch.inference_mode()
    def _look_at_once(self, clips: Tensor, vectors: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        x = clips.to(self.space.local.device, self.encoder.head.proj.weight.dtype)
        if self.method == CROPS:
            units = self.encoder(x)
            return units.cpu().numpy(), (units @ vectors.T).cpu().numpy(), None
        shares, rest = (part.float() for part in dense(self.encoder, x))  # (b, p, e), (b, e)
        output = shares.sum(dim=1) + rest
        length = output.norm(dim=1, keepdim=True)
        units = output / length
        parts = shares @ vectors.T / length[:, None] * shares.shape[1]  # (b, p, q)
        maps = parts.unflatten(1, (-1, *self.config.grid[-2:])).mean(dim=1)  # over the times of a clip
        return units.cpu().numpy(), (units @ vectors.T).cpu().numpy(), maps.permute(0, 3, 1, 2).cpu().numpy()


class _Work:
    """One input in progress."""

    def __init__(self, item: Item, locator: Locator, asked: Asked, ground: bool) -> None:
        self.item, self.locator, self.asked, self._keeps_ground = item, locator, asked, ground
        self.notes: dict[str, None] = {}
        self.warnings: list[str] = []
        self.seen = False
        self._axes = map_axes(locator.config)
        self._pixels = tuple(map(float, locator.config.shape[-2:]))
        self._own: list[np.ndarray] = []
        self._canvases: dict[tuple[float, float] | None, Canvas] = {}  # by window, in order
        self._last: Pieces | None = None
        self._heard: list[tuple[Box, np.ndarray, np.ndarray]] = []  # of a sound: box, shares and spectrogram of each window
        self._ground: np.ndarray | None = None
        self._seconds = float("inf")

    def add(self, pieces: Pieces) -> None:
        """Look at the next clips."""
        self.seen = True
        self.notes |= dict.fromkeys(pieces.notes)
        self.warnings += pieces.warnings
        units, cosines, shares = self.locator.look(pieces.tensor, self.asked.vectors)
        self._own += list(units[: pieces.own])
        if self.locator.kind == SOUND:
            assert shares is not None
            self._seconds = min(self._seconds, pieces.facts.get("seconds", float("inf")))
            for number, box in enumerate(pieces.boxes):
                assert box is not None
                self._heard.append((box, shares[number], pieces.tensor[number, 0].numpy() if self._keeps_ground else np.empty(0)))
            return
        span = pieces.spans[0]
        if span not in self._canvases:
            short = {"short": FILM_SHORT} if self.locator.kind == FILM else {}
            self._canvases[span] = Canvas(*pieces.covered, len(self.asked.vectors), **short)
        weight = SHARE_WEIGHT if self.locator.method == BOTH else 1.0
        for number, box in enumerate(pieces.boxes):
            if box is not None:
                level = np.zeros_like(cosines[number]) if self.locator.method == SHARES else cosines[number]
                maps = None if shares is None else weight * shares[number]
                self._canvases[span].add(box, level, maps, self._axes, self._pixels)  # type: ignore[arg-type]
        self._last, self._ground = pieces, pieces.ground if self._ground is None else self._ground

    def answers(self) -> Iterator[Located]:
        """Yield the answer to each query."""
        mean = np.stack(self._own).mean(axis=0)
        whole = self.asked.vectors.cpu().numpy() @ (mean / np.linalg.norm(mean))
        heats, place, size = self._hearing() if self.locator.kind == SOUND else self._sight()
        for number, (query, floor) in enumerate(zip(self.asked.queries, self.asked.floors, strict=True)):
            spots = sorted((_spot(heat[number], span, place) for span, heat in heats), key=lambda spot: -spot.score)
            low = None if floor is None else (max(float(heat[floor].max()) for _, heat in heats), float(whole[floor]))
            yield Located(
                self.item.id,
                query,
                number,
                self.locator.face.name,
                self.locator.kind,
                self.locator.method,
                size,
                tuple(spots),
                float(whole[number]),
                low,
                self.item.payload,
                self._ground,
            )

    def _sight(self) -> tuple[list[Any], Any, tuple[float, float]]:
        """Return the heat maps of each window, what turns shares of a map into pixels of the file, and the file's size."""
        assert self._last is not None
        (left, top), (width, height) = self._last.origin, self._last.covered
        heats = [(span, canvas.heat()) for span, canvas in self._canvases.items()]
        return heats, lambda x, y: (left + x * width, top + y * height), self._last.size

    def _hearing(self) -> tuple[list[Any], Any, tuple[float, float]]:
        """Return the heat map of a sound whose windows are stitched, what turns shares of it into seconds and Hz, and its two ends."""
        bands = self._pixels[0]
        first = min(box[0] for box, _, _ in self._heard)
        last = max(box[2] for box, _, _ in self._heard)
        last = min(last, self._seconds) if self._seconds > first else last
        frames = (last - first) / FRAME_SECONDS
        canvas = Canvas(frames, bands, len(self.asked.vectors))
        for (start, _, end, _), shares, _ in self._heard:
            box = ((start - first) / FRAME_SECONDS, 0.0, (end - first) / FRAME_SECONDS, bands)
            canvas.add(box, np.zeros(len(shares), np.float32), shares, self._axes, (bands, box[2] - box[0]))
        if self._keeps_ground:
            ground = Canvas(frames, bands, 1)
            for (start, _, end, _), _, spectrogram in self._heard:
                box = ((start - first) / FRAME_SECONDS, 0.0, (end - first) / FRAME_SECONDS, bands)
                whole = spectrogram[None, :, : max(1, int(box[2] - box[0]) - PADDED_FRAMES)]
                axes = Axis(1, 1, whole.shape[1]), Axis(1, 1, whole.shape[2])
                ground.add(box, np.zeros(1, np.float32), whole, axes, (bands, box[2] - box[0]))
            self._ground = ground.heat()[0]
        hertz = band_hertz(int(bands))

        def place(x: float, y: float) -> tuple[float, float]:
            return first + x * (last - first), float(np.interp(y * bands, np.arange(len(hertz)), hertz))

        return [(None, canvas.heat())], place, (first, last)


def _spot(heat: np.ndarray, span: tuple[float, float] | None, place: Any) -> Spot:
    """Return the spot of a heat map (rows, columns). place: turns shares of its width and height into the units of the input."""
    rows, columns = heat.shape
    row, column = cell = peak_cell(heat)
    score = float(heat[cell])
    median = float(np.median(heat))
    left, top, right, bottom = region_box(heat, cell, median + BOX_LEVEL * (score - median))
    box = (*place(left / columns, top / rows), *place(right / columns, bottom / rows))
    return Spot(place((column + 0.5) / columns, (row + 0.5) / rows), box, score, heat, span)
