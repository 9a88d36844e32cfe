"""Turn requests into queries: a unit vector for each, from sentences and files through the model, items of the stores, and vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.options import EXCLUSIVE, both_values
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.retrieval.requests import BATCH, LIKE, VECTOR, QueryRequest, describe
from imagebind_cli.retrieval.search import Query
from imagebind_cli.retrieval.stored_items import Exhibit, QueryPart, RowPlace, stored_exhibit, stored_item
from imagebind_cli.retrieval.vector_files import WantedVectors, note_assumed_model, read_vector, vector_blocks
from imagebind_cli.similarity import combine, unit
from imagebind_cli.sources import Failure, Item, Stretch, as_sentence
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, is_store, open_store

# The vectors (dim,) of sentences and files, by modality and source.
Embedded = Mapping[tuple[str, str | Stretch], np.ndarray | Failure]


class QueryEncoder:
    """Turns requests into queries.

    Args:
        space: has admitted the stores, and loads the model when a request needs it.
        stores: those that a query may be an item of; () for none.
        chosen: reading options by name; any other is as the stores' files were read.
        listener: receives requests that fail, and assumptions made in reading others.
    """

    def __init__(self, space: Space, stores: Sequence[StoreReader], chosen: Mapping[str, Any], listener: Listener) -> None:
        self._space, self._stores, self._chosen, self._listener = space, stores, chosen, listener

    def encode(self, requests: Sequence[QueryRequest | Failure]) -> list[Query]:
        """Turn requests into queries, in order. One that cannot be read is reported and left out.

        Raises:
            UserError: an item that is not in the stores, or a file of vectors that cannot be used.
        """
        embedded = self._embed([request for request in requests if isinstance(request, QueryRequest)])
        queries = []
        for request in requests:
            if isinstance(request, Failure):
                self._listener.failure(request.id, request.reason)
                continue
            try:
                queries.append(self._query(request, embedded))
            except (OSError, ValueError) as error:
                self._listener.failure(request.id, str(error))
        return queries

    def encode_rows(self, path: Path, exhibits: bool) -> Iterator[list[Query]]:
        """Turn every row of a store, or of a plain .npy file, into a query; a row of a searched store is not an answer to itself.

        Args:
            exhibits: whether a page shows the queries, so that the source of each row must be looked up.
        """
        store = open_store(path) if exhibits and is_store(path) else None
        rows: dict[str, list[RowPlace]] = {}
        for number, searched in enumerate(self._stores):
            if searched.path.resolve() == path.resolve():
                for row, id in enumerate(searched.ids):
                    rows.setdefault(id, []).append((number, row))
        first = 0
        for ids, vectors in vector_blocks(path, self._space, self._wanted, self._listener):
            for start in range(0, len(ids), BATCH):
                try:
                    units = unit(vectors[start : start + BATCH])
                except ValueError as error:
                    raise UserError(f"{path}: {ids[start]!r}, or one of the {BATCH} rows from it on: {error}") from None
                shown = [(stored_exhibit(store, row),) if store else () for row in range(first, first + len(units))]
                first += len(units)
                batch = zip(ids[start : start + BATCH], units, shown, strict=True)
                yield [Query(id, vector, exhibit, frozenset(rows.get(id, ()))) for id, vector, exhibit in batch]

    @property
    def _wanted(self) -> WantedVectors:
        if self._stores:
            first = self._stores[0]
            return WantedVectors(first.dim, str(first.path), first.provenance.get("model"))
        return WantedVectors(self._space.loaded.dim, "the model", self._space.loaded.name)

    def _query(self, request: QueryRequest, embedded: Embedded) -> Query:
        parts = [self._part(kind, source, embedded) for kind, source in request.parts]
        vectors = [part.vector for part in parts]
        if request.vector is not None:
            note_assumed_model("a line with an embedding", self._wanted.model, self._listener)
            vectors = [np.array(request.vector)]
        for vector in vectors:
            if vector.shape != (self._wanted.dim,):
                raise ValueError(f"a vector of {vector.size} numbers; those of {self._wanted.place} have {self._wanted.dim}")
        rows = frozenset[RowPlace]().union(*(part.rows for part in parts))
        return Query(request.id, combine(np.stack(vectors), request.weights), tuple(part.exhibit for part in parts), rows)

    def _part(self, kind: str, source: str | Stretch, embedded: Embedded) -> QueryPart:
        if kind == LIKE:
            return stored_item(self._stores, str(source))
        if kind == VECTOR:
            return read_vector(Path(str(source)), self._space, self._wanted, self._listener)
        vector = embedded[kind, source]
        if isinstance(vector, Failure):
            raise ValueError(vector.reason)
        return QueryPart(Exhibit(kind, source), vector)

    def _embed(self, requests: Sequence[QueryRequest]) -> Embedded:
        """Embed every sentence and file of some requests, each once."""
        wanted = dict.fromkeys(part for request in requests for part in request.parts if part[0] not in (LIKE, VECTOR))
        embedded: dict[tuple[str, str | Stretch], np.ndarray | Failure] = {}
        for modality in dict.fromkeys(modality for modality, _ in wanted):
            sources = [source for kind, source in wanted if kind == modality]
            face = registry.face(modality)
            if face.text:
                embedded |= {(modality, text): empty for text in sources if isinstance(empty := as_sentence(str(text)), Failure)}
                sources = [text for text in sources if (modality, text) not in embedded]
            settings: dict[str, Any] = {"batch_size": self._space.batch_size, "workers": self._space.workers}
            settings |= {"item_timeout": self._space.item_timeout}
            options = face.read_options(self.reading_options(modality))
            items = (Item(describe([(modality, source)]), source) for source in sources)
            for item, result in self._space.loaded.embed_items(modality, items, options=options, **settings):
                if isinstance(result, Failure):
                    embedded[modality, item.payload] = result
                    continue
                self._listener.remarks(item.id, result.notes, result.warnings)
                vectors = [part.vector for part in result.embeddings]  # several of tiles
                embedded[modality, item.payload] = combine(np.stack(vectors)) if len(vectors) > 1 else vectors[0]
        return embedded

    def reading_options(self, modality: str) -> dict[str, Any]:
        """Return how files of a modality are read: as the stores' files were, if there are any, except for the chosen options."""
        known = registry.face(modality).options.names()
        alike = [store for store in self._stores if store.modality == modality]
        stored: Mapping[str, Any] = alike[0].provenance.get("options", {}) if alike else {}
        for other in alike[1:]:
            self._compare(alike[0], other, {name for name in known if name not in (*self._chosen, *REGION_OPTIONS)})
        chosen = {name: value for name, value in self._chosen.items() if name in known}
        # `centres` are times in the stores' recordings, which mean nothing in a query. A query of tiled pictures is a whole one.
        unfit = {"centres", *REGION_OPTIONS}.union(*(group for group in EXCLUSIVE if group & chosen.keys()))
        return {name: value for name, value in stored.items() if name in known and name not in unfit} | chosen

    def _compare(self, first: StoreReader, other: StoreReader, names: set[str]) -> None:
        """Report options by which the files of two stores were read differently: a query can be read in one way only."""
        firsts, others = (registry.with_default_options(store.modality, store.provenance.get("options", {})) for store in (first, other))
        for name in sorted(names):
            if firsts.get(name) != others.get(name):
                its, others_value = both_values(name, firsts.get(name), others.get(name))
                remark = f"queries read as {first.path} was, with {its}; {other.path} was read with {others_value}"
                self._listener.remarks(str(other.path), [remark], ())
