"""Find when a query occurs in recordings: `find_moments` for one query, `MomentFinder` for many. No torch where queries are vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.grounding.curves import MomentOptions, ScoreCurve, find_runs, relative_scores, score_curve
from imagebind_cli.grounding.recordings import WindowedItem, embed_windows, split_inputs, windowed_items
from imagebind_cli.retrieval.finder import Strict
from imagebind_cli.retrieval.queries import QueryEncoder
from imagebind_cli.retrieval.requests import QueryRequest, combined_request, read_requests, request_batches
from imagebind_cli.retrieval.search import Query
from imagebind_cli.retrieval.vector_files import holds_vectors
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store

if TYPE_CHECKING:
    from imagebind_cli.model import Model
    from imagebind_cli.sources import Failure

HOP = 1.0  # seconds between the windows of files
HELD = 1 << 25  # scores held at once: 268 MB


@dataclass(frozen=True)
class MomentHit:
    """A moment that answers a query.

    rank: from 1, over all recordings. start, end: seconds of the recording. score: the mean of its seconds' scores.
    best: the second that scores highest, by when it begins, and best_score its score.
    """

    item: WindowedItem
    rank: int
    start: float
    end: float
    score: float
    best: float
    best_score: float

    def as_json(self, query: str) -> dict[str, Any]:
        """Return the line that `imagebind moments` prints."""
        row = int(self.item.rows[0])
        meta = self.item.store.meta(row)
        clock, clock_end = self.item.clock(self.start), self.item.clock(self.end)
        return {
            "query": query,
            "rank": self.rank,
            "id": self.item.id,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            **({} if clock is None else {"clock": clock, "clock_end": clock_end}),
            "score": round(self.score, 9),
            "best": round(self.best, 6),
            "best_score": round(self.best_score, 9),
            "modality": self.item.store.modality,
            **({"meta": meta} if meta else {}),
        }


@dataclass(frozen=True)
class MomentAnswer:
    """The answer to a query: its moments, best first, and the curve of every recording, in the order of the recordings."""

    query: Query
    hits: list[MomentHit]
    curves: list[tuple[WindowedItem, ScoreCurve]]


def find_moments(
    recordings: Sequence[str | Path] | str | Path,
    *,
    modality: str | None = None,
    hop: float = HOP,
    threshold: float | None = None,
    min_length: float = 1.0,
    join: float = 0.0,
    k: int = 10,
    against: Sequence[str] = (),
    weights: Sequence[float] | None = None,
    model: Model | str | None = None,
    **query: str | Path,
) -> list[MomentHit]:
    """Find when a query occurs in some recordings, best first.

    Args:
        recordings: stores of windows, or files, which are embedded first. modality: what files are read as; by default by their names.
        hop: seconds between the windows of files. model: what encodes files, sentences and names; the stores' own if not given.
        threshold, min_length, join, k: see `MomentOptions`. against: other names; scores are then relative to them.
        weights, query: as `retrieval.finder.find` takes them.
    Raises:
        UserError: no such store or file, a store without windows, or a query that cannot be read.
    """
    parts = tuple((kind, str(value)) for kind, value in query.items())
    if not parts:
        raise UserError("a query is needed, as in text='a dog'")
    given = [recordings] if isinstance(recordings, str | Path) else recordings
    with MomentFinder(given, space=Space(model), modality=modality, hop=hop, against=against) as finder:
        (answer,) = finder.answer([combined_request(parts, weights)], MomentOptions(threshold, min_length, join, k))
    return answer.hits


class MomentFinder:
    """Recordings that stay open for many queries. Use it as a context manager: vectors of files are kept in a temporary folder until it ends.

    Args:
        recordings: stores of windows, or files; or stores of the space that are open. space: decides the model; those of the stores by default.
        modality: what files are read as; by default by their names. hop: seconds between the windows of files.
        against: names that scores are relative to. options: reading options of files and of queries, by name.
        keep: a store that the vectors of files are written to, and read from by the next call; for files of one modality.
        listener: receives what happens to files, and to queries; by default what fails raises.
    Raises:
        UserError: no such store or file, stores of several models, or a store without windows.
    """

    def __init__(
        self,
        recordings: Sequence[str | Path | StoreReader],
        *,
        space: Space | None = None,
        modality: str | None = None,
        hop: float = HOP,
        against: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        keep: Path | str | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.space, self.listener = space or Space(), listener or Strict()
        self._folder: TemporaryDirectory[str] | None = None
        chosen = dict(options or {})
        opened = [recording for recording in recordings if isinstance(recording, StoreReader)]
        paths, files = split_inputs([str(path) for path in recordings if not isinstance(path, StoreReader)], modality)
        if keep is not None and len(files) != 1:
            raise UserError(f"{keep}: keeps the windows of files of one modality; there are files of {', '.join(files) or 'none'}")
        self.stores = [*opened, *(self.space.admit(open_store(path)) for path in paths)]
        windowed_items(self.stores)  # refuses a store without windows before anything is embedded
        try:
            for kind, of_kind in files.items():
                self.stores.append(self.space.admit(self._embed(kind, of_kind, keep, hop, chosen)))
        except BaseException:
            self.__exit__()
            raise
        if not self.stores:
            raise UserError("a recording or a store of windows is needed")
        self.items = windowed_items(self.stores)
        self._options = {name: value for name, value in chosen.items() if name != "hop"}
        self.against = tuple(against)
        self._others = self._name_vectors()

    def __enter__(self) -> MomentFinder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def score_name(self) -> str:
        """Describe in words what a score is."""
        return "cosine less the largest with another name" if self.against else "cosine"

    def encoder(self) -> QueryEncoder:
        """Return the encoder that turns requests into queries on these recordings."""
        return QueryEncoder(self.space, self.stores, self._options, self.listener)

    def answer(
        self,
        requests: Iterable[QueryRequest | Failure],
        options: MomentOptions | None = None,
        *,
        waiting: bool = False,
        within: Callable[[Query], Sequence[WindowedItem]] | None = None,
    ) -> Iterator[MomentAnswer]:
        """Answer requests, in order.

        Args:
            waiting: each at once, for a source that may wait for the answer before its next request.
            within: the recordings that a query is about; all by default.
        """
        return self._answer(map(self.encoder().encode, request_batches(requests, waiting)), options or MomentOptions(), within)

    def answer_file(self, path: Path, options: MomentOptions | None = None, exhibits: bool = False) -> Iterator[MomentAnswer]:
        """Answer every query of a file: lines of sentences or JSON objects, a table, a store, an array; `-` for lines on stdin.

        exhibits: whether a page shows the queries.
        """
        if str(path) == "-" or not holds_vectors(path):
            return self.answer(read_requests(path, self.space.note), options, waiting=str(path) == "-")
        return self._answer(self.encoder().encode_rows(path, exhibits), options or MomentOptions())

    def _embed(self, modality: str, files: Sequence[str], keep: Path | str | None, hop: float, chosen: Mapping[str, Any]) -> StoreReader:
        if keep is not None:
            return embed_windows(self.space, modality, files, Path(keep), hop, chosen, self.listener)
        self._folder = self._folder or TemporaryDirectory(prefix="imagebind-moments-")
        place = Path(self._folder.name) / f"{modality}.h5"
        store = embed_windows(self.space, modality, files, place, hop, chosen, self.listener)
        store.path = Path(f"the {modality} files")  # messages name what was given
        return store

    def _name_vectors(self) -> np.ndarray:
        """Return the vectors (names, dim) of the names that scores are relative to."""
        vectors = [*self.space.sentences(list(self.against), self.listener)] if self.against else []
        return np.stack(vectors) if vectors else np.empty((0, self.stores[0].dim), np.float32)

    def _answer(
        self,
        batches: Iterable[list[Query]],
        options: MomentOptions,
        within: Callable[[Query], Sequence[WindowedItem]] | None = None,
    ) -> Iterator[MomentAnswer]:
        rows = sum(map(len, self.stores))
        together = max(1, HELD // max(1, rows))
        for batch in batches:
            for first in range(0, len(batch), together):
                queries = batch[first : first + together]
                scores = self._scores(np.stack([query.vector for query in queries]))
                for number, query in enumerate(queries):
                    items = self.items if within is None else within(query)
                    answer = _moments(query, items, [of_store[number] for of_store in scores], options)
                    if not answer.curves and query.rows:
                        self.listener.failure(
                            query.id, "every window of the recordings belongs to this query, which cannot be its own answer"
                        )
                        continue
                    yield answer
                    self.listener.succeeded(query.id)

    def _scores(self, queries: np.ndarray) -> list[np.ndarray]:
        """Return the scores of all rows of each store, (queries, rows) each."""
        scores = []
        for store in self.stores:
            blocks = []
            for block in store.blocks():
                vectors = np.asarray(block, np.float32)
                cosines = queries.astype(np.float32) @ vectors.T
                if self.against:
                    cosines = relative_scores(cosines, (self._others.astype(np.float32) @ vectors.T)[:, None])
                blocks.append(cosines)
            scores.append(np.concatenate(blocks, axis=1) if blocks else np.empty((len(queries), 0), np.float32))
        return scores


def _moments(query: Query, items: Sequence[WindowedItem], scores: Sequence[np.ndarray], options: MomentOptions) -> MomentAnswer:
    """Return the moments of a query. scores: of all rows (n,), for each store."""
    hits: list[MomentHit] = []
    curves = []
    for whole in items:
        item = whole.without(query.rows)
        if item is None:
            continue
        curve = score_curve(item.spans, scores[item.number][item.rows].astype(np.float64))
        curves.append((item, curve))
        times = curve.times()
        for first, stop in find_runs(curve, options):
            seconds = curve.scores[first:stop]
            best = int(np.nanargmax(seconds))
            score, highest = float(np.nanmean(seconds)), float(seconds[best])
            hits.append(MomentHit(item, 0, float(times[first]), float(times[stop]), score, float(times[first + best]), highest))
    hits.sort(key=lambda hit: (-hit.score, hit.item.id, hit.start))
    return MomentAnswer(query, [replace(hit, rank=rank) for rank, hit in enumerate(hits[: options.k], start=1)], curves)
