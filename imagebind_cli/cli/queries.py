"""What `retrieve` searches for: sentences and files through the model, items of the stores, vectors; one by one or combined."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import reading, registry
from imagebind_cli.cli.requests import BATCH, LIKE, VECTOR, Request, read_requests
from imagebind_cli.cli.talk import Talk
from imagebind_cli.cli.vectors import Vectors
from imagebind_cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from imagebind_cli.retrieval.search import Query
    from imagebind_cli.sources import Failure
    from imagebind_cli.store import StoreReader

NEAR_NAMES = 20_000
"""Ids looked through for those that resemble an unknown one."""


class Asking:
    """Turns requests into queries on some stores.

    vectors: has admitted the stores, and loads the model when a request needs it. chosen: reading flags by name.
    """

    def __init__(self, vectors: Vectors, stores: Sequence[StoreReader], chosen: Mapping[str, Any], talk: Talk) -> None:
        self._vectors, self._stores, self._chosen, self._talk = vectors, stores, chosen, talk

    def queries(self, requests: Sequence[Request | Failure]) -> list[Query]:
        """The queries of some requests, in order. One that cannot be read is said, and left out."""
        embedded = self._embedded([request for request in requests if isinstance(request, Request)])
        found = []
        for request in requests:
            if not isinstance(request, Request):
                self._talk.failure(request.id, request.reason)
                continue
            try:
                found.append(self._query(request, embedded))
            except (OSError, ValueError) as error:
                self._talk.failure(request.id, str(error))
        return found

    def _query(self, request: Request, embedded: Mapping[tuple[str, str], np.ndarray | Failure]) -> Query:
        import numpy as np

        from imagebind_cli.retrieval.search import Query
        from imagebind_cli.similarity import combine

        vectors: list[np.ndarray] = []
        parts: list[tuple[str, str]] = []
        own: set[tuple[int, int]] = set()
        if request.vector is not None:
            self._assume_model("a line with an embedding")
            vectors.append(np.array(request.vector))
        for kind, value in request.parts:
            if kind == LIKE:
                vector, same = self._like(value)
                own |= same
                vectors.append(vector)
                parts.append((self._stores[min(same)[0]].modality, value))
                continue
            given = self._vector(Path(value)) if kind == VECTOR else embedded[kind, value]
            if not isinstance(given, np.ndarray):
                raise ValueError(given.reason)
            vectors.append(given)
            parts.append((kind, value))
        wanted = self._stores[0].dim
        for vector in vectors:
            if vector.shape != (wanted,):
                raise ValueError(f"a vector of {vector.size} numbers; those of {self._stores[0].path} have {wanted}")
        return Query(request.id, combine(np.stack(vectors), request.weights), tuple(parts), frozenset(own))

    def _embedded(self, requests: Sequence[Request]) -> dict[tuple[str, str], np.ndarray | Failure]:
        """Every sentence and file of some requests through the model, once."""
        from imagebind_cli.sources import Failure, Item

        wanted = dict.fromkeys(part for request in requests for part in request.parts if part[0] not in (LIKE, VECTOR))
        found: dict[tuple[str, str], np.ndarray | Failure] = {}
        for modality in dict.fromkeys(modality for modality, _ in wanted):
            values = [value for kind, value in wanted if kind == modality]
            settings = {"batch_size": self._vectors.batch_size, "workers": self._vectors.workers, **self.options(modality)}
            results = self._vectors.loaded.embed_items(modality, (Item(value, value) for value in values), **settings)
            for item, result in results:
                if isinstance(result, Failure):
                    found[modality, item.id] = result
                    continue
                self._talk.remarks(item.id, result.notes, result.warnings)
                found[modality, item.id] = result.embeddings[0].vector
        return found

    def options(self, modality: str) -> dict[str, Any]:
        """How files of a modality are read: as the stores' were, where they hold any, but for what the flags say."""
        known = reading.names(registry.encoder_name(modality))
        made: Mapping[str, Any] = next((store.made.get("options", {}) for store in self._stores if store.modality == modality), {})
        return {name: value for name, value in (dict(made) | dict(self._chosen)).items() if name in known}

    def _like(self, id: str) -> tuple[np.ndarray, set[tuple[int, int]]]:
        """The vector of an item of the stores, the mean of its windows where it has several, and where its rows are."""
        import numpy as np

        from imagebind_cli.similarity import combine

        own = {(number, row) for number, store in enumerate(self._stores) for row, name in enumerate(store.ids) if name == id}
        if not own:
            raise UserError(f"no item {id!r} in {', '.join(str(store.path) for store in self._stores)}{self._near(id)}")
        return combine(np.stack([self._stores[number].rows(np.array([row]))[0] for number, row in sorted(own)])), own

    def _near(self, id: str) -> str:
        """Ids that resemble one: of the same file name, or spelt alike."""
        import difflib

        ids = [name for store in self._stores for name in store.ids]
        near = list(islice((name for name in ids if os.path.basename(name) == os.path.basename(id) or id in name), 3))
        near = near or difflib.get_close_matches(id, ids[:NEAR_NAMES], n=3)
        return f"; near are {', '.join(map(repr, near))}" if near else ""

    def _vector(self, path: Path) -> np.ndarray:
        """The one vector of a file."""
        import numpy as np

        if _is_lines(path):
            lines = (request for request in read_requests(path) if isinstance(request, Request) and request.vector is not None)
            rows: Iterator[Any] = (np.array(line.vector) for line in lines)
        else:
            rows = (row for _, block in self.stored(path) for row in block)
        found = list(islice(rows, 2))
        if len(found) != 1:
            raise UserError(f"{path}: {'no vector' if not found else 'several vectors'} in it; for a query each: --queries {path}")
        return found[0]

    def stored_queries(self, path: Path) -> Iterator[list[Query]]:
        """Every row of a store, or of a plain .npy file, as a query; a row of a store that is searched is no answer to itself."""
        from imagebind_cli.retrieval.search import Query
        from imagebind_cli.similarity import unit

        same = [number for number, store in enumerate(self._stores) if store.path.resolve() == path.resolve()]
        rows: dict[str, list[tuple[int, int]]] = {}
        for number in same:
            for row, id in enumerate(self._stores[number].ids):
                rows.setdefault(id, []).append((number, row))
        for ids, vectors in self.stored(path):
            for start in range(0, len(ids), BATCH):
                try:
                    units = unit(vectors[start : start + BATCH])
                except ValueError as error:
                    raise UserError(f"{path}: {ids[start]!r}, or one of the {BATCH} rows from it on: {error}") from None
                yield [Query(id, vector, own=frozenset(rows.get(id, ()))) for id, vector in zip(ids[start:], units, strict=False)]

    def stored(self, path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
        """Ids and vectors (n, dim) of a store, or of a plain .npy file, block by block."""
        import numpy as np

        from imagebind_cli.store import is_store, open_store

        if is_store(path):
            store = self._vectors.admit(open_store(path))
            start = 0
            for block in store.blocks():
                yield store.ids[start : start + len(block)], block
                start += len(block)
            return
        try:
            rows = np.atleast_2d(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: neither a store nor an array: {getattr(error, 'strerror', None) or error}") from None
        if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] != self._stores[0].dim:
            wanted = f"(n, {self._stores[0].dim}) of floats, as in {self._stores[0].path}"
            raise UserError(f"{path}: vectors of shape {rows.shape} of {rows.dtype}; {wanted}, are needed")
        self._assume_model(str(path))
        for start in range(0, len(rows), BATCH):
            yield [str(number) for number in range(start, min(start + BATCH, len(rows)))], rows[start : start + BATCH]

    def _assume_model(self, what: str) -> None:
        self._talk.remarks(what, [f"the vectors in {what}, which does not say so, are of model {self._stores[0].made['model']!r}"], ())


def is_vectors(path: Path) -> bool:
    """Whether a file of queries holds vectors alone: a store, or an array. Lines are read one by one."""
    from imagebind_cli.store import is_store

    return not _is_lines(path) and (path.suffix == ".npy" or is_store(path))


def _is_lines(path: Path) -> bool:
    """Whether a path is what `imagebind embed` writes to stdout: lines that nothing beside them explains."""
    return path.suffix in (".jsonl", ".json") and not path.with_suffix(".made.json").exists()
