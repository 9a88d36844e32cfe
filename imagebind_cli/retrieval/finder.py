"""Search stores as `imagebind retrieve` does, from Python: `find` for one query, `Finder` for many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.boxes import box_of, holds_boxes
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.retrieval.queries import QueryEncoder
from imagebind_cli.retrieval.requests import QueryRequest, combined_request, read_requests, request_batches
from imagebind_cli.retrieval.search import Hit, Nearest, Query, search
from imagebind_cli.retrieval.stored_items import window_seconds
from imagebind_cli.retrieval.vector_files import holds_vectors
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store

if TYPE_CHECKING:
    from imagebind_cli.model import Model
    from imagebind_cli.sources import Failure


class Strict(LogListener):
    """Raises the error of a query that fails, and logs what was assumed to read another."""

    def failure(self, id: str, reason: str) -> None:
        raise UserError(f"{id}: {reason}")


def find(
    stores: Sequence[str | Path],
    *,
    k: int = 10,
    weights: Sequence[float] | None = None,
    per_modality: bool = False,
    threshold: float = float("-inf"),
    nms: float | None = None,
    model: Model | str | None = None,
    **query: str | Path | Sequence[str | Path],
) -> list[Hit]:
    """Find the rows of some stores that are nearest to one query, best first, exactly.

    Args:
        stores: of one model. model: what encodes sentences and files; the stores' own if not given.
        k, weights, per_modality, threshold, nms, query: as `Finder.find` takes them.
    Raises:
        UserError: no such store, stores of different models, or a query that cannot be read.
    """
    return Finder(stores, space=Space(model)).find(k=k, weights=weights, per_modality=per_modality, threshold=threshold, nms=nms, **query)


class Finder:
    """Stores of one joint space that are searched as one.

    Args:
        stores: paths, of which a pattern is one store; or stores of the space that are open.
        space: holds the model, and how it runs; by default the stores' own model. Its `note` receives lines on empty stores and on indexes.
        modalities: search only the stores of these; `vision` means pictures and videos.
        index: `int8`, to search exactly by codes beside each store; `flat`, `hnsw` or `ivfpq`, by a FAISS index there; exact if not given.
        options: how files of queries are read, by name (`clips=3`); by default as the stores' files were.
    Raises:
        UserError: no such store, stores of different models, none of the modalities, or FAISS is not installed.
        UsageError: an option has a wrong value, or a store is named twice.
    """

    def __init__(
        self,
        stores: Sequence[str | Path | StoreReader],
        *,
        space: Space | None = None,
        modalities: Sequence[str] = (),
        index: str | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        for face in map(registry.face, registry.MODALITIES):
            face.read_options({name: options[name] for name in face.option_names() if name in options})
        self.space, self.options = space or Space(), options
        opened = [store if isinstance(store, StoreReader) else self.space.admit(open_store(store)) for store in stores]
        places = [os.path.realpath(store.path) for store in opened]
        for number, place in enumerate(places):
            if place in places[:number]:
                raise UsageError(f"{opened[number].path} is named twice: every answer in it would come twice")
        self.stores = _of_modalities(opened, modalities)
        self._nearest = _index(index, self.space) if index is not None else None

    def find(
        self,
        *,
        k: int = 10,
        weights: Sequence[float] | None = None,
        per_modality: bool = False,
        threshold: float = float("-inf"),
        nms: float | None = None,
        **query: str | Path | Sequence[str | Path],
    ) -> list[Hit]:
        """Find the rows nearest to one query, best first.

        Args:
            k: answers. per_modality: `k` of each modality instead of all together. threshold: the lowest cosine of an answer.
            nms: leave out regions whose intersection over union with a better answer in their picture is more than this.
            query: by modality a sentence or a file (`text="snow"`, `image="dog.jpg"`), `like=` the id of an item of the stores, `vector=` a
                file of one vector; or a list of these (`text=["snow", "night"]`). Several are combined: the normalised weighted sum of
                their unit vectors.
            weights: a number for each part of the query, in their order; below 0 to subtract it.
        Raises:
            UserError: a query that cannot be read.
        """
        parts = tuple((kind, str(part)) for kind, given in query.items() for part in ([given] if isinstance(given, str | Path) else given))
        if not parts:
            raise UserError("a query is needed, as in text='a dog'")
        request = combined_request(parts, weights)
        ((_, hits),) = self.answer([request], k, per_modality=per_modality, threshold=threshold, nms=nms)
        return hits

    def answer(
        self,
        requests: Iterable[QueryRequest | Failure],
        k: int = 10,
        *,
        per_modality: bool = False,
        threshold: float = float("-inf"),
        nms: float | None = None,
        listener: Listener | None = None,
        waiting: bool = False,
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Answer requests, in order.

        Args:
            k, per_modality, threshold, nms: as in `find`.
            listener: receives requests that fail, which are then left out; by default a failure raises.
            waiting: answer each request at once, for a source that may wait for the answer before its next request.
        """
        listener = listener or Strict()
        batches = map(self.encoder(listener).encode, request_batches(requests, waiting))
        return self._answer(batches, k, per_modality, threshold, nms, listener)

    def answer_file(
        self,
        path: Path,
        k: int = 10,
        *,
        per_modality: bool = False,
        threshold: float = float("-inf"),
        nms: float | None = None,
        listener: Listener | None = None,
        exhibits: bool = False,
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Answer every query of a file: lines of sentences or JSON objects, a table, a store, an array; `-` for lines on stdin.

        Args:
            k, per_modality, threshold, nms, listener: as in `answer`. exhibits: whether a page shows the queries.
        """
        listener = listener or Strict()
        if str(path) == "-" or not holds_vectors(path):
            requests = read_requests(path, self.space.note)
            return self.answer(
                requests, k, per_modality=per_modality, threshold=threshold, nms=nms, listener=listener, waiting=str(path) == "-"
            )
        return self._answer(self.encoder(listener).encode_rows(path, exhibits), k, per_modality, threshold, nms, listener)

    def encoder(self, listener: Listener) -> QueryEncoder:
        """Return the encoder that turns requests into queries on these stores."""
        return QueryEncoder(self.space, self.stores, self.options, listener)

    def _answer(
        self, batches: Iterable[list[Query]], k: int, per_modality: bool, threshold: float, nms: float | None, listener: Listener
    ) -> Iterator[tuple[Query, list[Hit]]]:
        if nms is not None and not any(holds_boxes(store.provenance) for store in self.stores):
            raise UsageError("nms is for overlapping regions, and none of these stores has any: embed with --boxes or --tiles")
        for store in self.stores:
            if not len(store):
                self.space.note(f"{store.path}: holds nothing yet")
        rows = sum(map(len, self.stores))
        for queries in filter(None, batches):
            answers = search(self.stores, queries, k, per_modality=per_modality, threshold=threshold, nms=nms, nearest=self._nearest)
            for query, hits in zip(queries, answers, strict=True):
                if query.rows and len(query.rows) == rows:
                    hint = self._one_window(query)
                    listener.failure(query.id, f"the stores hold only this item{hint}")
                    continue
                yield query, hits
                listener.succeeded(query.id)

    def _one_window(self, query: Query) -> str:
        """Return a hint to query one window or region of an item that has several, so that the others can be answers."""
        number, row = min(query.rows)
        store = self.stores[number]
        span, box = window_seconds(store, row), box_of(store.meta(row))
        if len(query.rows) == 1 or (span is None and box is None):
            return ""
        if span is None:
            return f"; one of its regions: --like '{store.id(row)}#{','.join(f'{number:g}' for number in box or ())}'"
        return f"; one of its windows: --like '{store.id(row)}#{span[0]:.10g}-{span[1]:.10g}'"


def _of_modalities(stores: list[StoreReader], modalities: Sequence[str]) -> list[StoreReader]:
    if not modalities:
        return stores
    chosen = [store for store in stores if store.modality in modalities or registry.face(store.modality).encoder in modalities]
    if not chosen:
        there = ", ".join(dict.fromkeys(store.modality for store in stores))
        raise UserError(f"no store of {', '.join(modalities)} among these; they hold {there}")
    return chosen


def _index(kind: str, space: Space) -> Nearest:
    if kind == "int8":
        from imagebind_cli.retrieval.codes import CodeSearch

        return CodeSearch(space.note)
    from imagebind_cli.retrieval.index import Indexes

    return Indexes(kind, space.note)
