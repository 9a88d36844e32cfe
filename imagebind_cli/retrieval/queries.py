"""What `retrieve` searches for: sentences and files through the model, items of the stores, vectors; one by one or combined."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.options import EXCLUSIVE
from imagebind_cli.retrieval.requests import BATCH, LIKE, VECTOR, Request, named, read_requests
from imagebind_cli.space import Space

if TYPE_CHECKING:
    import numpy as np

    from imagebind_cli.retrieval.search import Part, Query
    from imagebind_cli.sources import Failure, Stretch
    from imagebind_cli.store import StoreReader

ALIKE_SECONDS = 0.006
"""Windows are named as people see them, in hundredths of a second."""

NEAR_NAMES = 20_000
"""Ids looked through for those that resemble an unknown one."""


class QueryEncoder:
    """Turns requests into queries on some stores.

    space: has admitted the stores, and loads the model when a request needs it. chosen: reading flags by name. shown: whether a page shows
    the queries, so that what each row of a store is must be looked up.
    """

    def __init__(
        self, space: Space, stores: Sequence[StoreReader], chosen: Mapping[str, Any], listener: Listener, shown: bool = False
    ) -> None:
        self._space, self._stores, self._chosen, self._listener, self._shown = space, stores, chosen, listener, shown

    def queries(self, requests: Sequence[Request | Failure]) -> list[Query]:
        """The queries of some requests, in order. One that cannot be read is said, and left out."""
        embedded = self._embedded([request for request in requests if isinstance(request, Request)])
        found = []
        for request in requests:
            if not isinstance(request, Request):
                self._listener.failure(request.id, request.reason)
                continue
            try:
                found.append(self._query(request, embedded))
            except (OSError, ValueError) as error:
                self._listener.failure(request.id, str(error))
        return found

    def _query(self, request: Request, embedded: Mapping[tuple[str, str | Stretch], np.ndarray | Failure]) -> Query:
        import numpy as np

        from imagebind_cli.retrieval.search import Part, Query
        from imagebind_cli.similarity import combine

        vectors: list[np.ndarray] = []
        parts: list[Part] = []
        own: set[tuple[int, int]] = set()
        if request.vector is not None:
            self._assume_model("a line with an embedding")
            vectors.append(np.array(request.vector))
        for kind, value in request.parts:
            part, given = Part(kind, value), embedded.get((kind, value))
            if kind == LIKE:
                part, given, same = self._like(str(value))
                own |= same
            elif kind == VECTOR:
                part, given = self._vector(Path(str(value)))
            if not isinstance(given, np.ndarray):
                raise ValueError(given.reason if given else f"{value}: not embedded")
            vectors.append(given)
            parts.append(part)
        wanted = self._stores[0].dim
        for vector in vectors:
            if vector.shape != (wanted,):
                raise ValueError(f"a vector of {vector.size} numbers; those of {self._stores[0].path} have {wanted}")
        return Query(request.id, combine(np.stack(vectors), request.weights), tuple(parts), frozenset(own))

    def _embedded(self, requests: Sequence[Request]) -> dict[tuple[str, str | Stretch], np.ndarray | Failure]:
        """Every sentence and file of some requests through the model, once."""
        from imagebind_cli.sources import Failure, Item, as_sentence

        wanted = dict.fromkeys(part for request in requests for part in request.parts if part[0] not in (LIKE, VECTOR))
        found: dict[tuple[str, str | Stretch], np.ndarray | Failure] = {}
        for modality in dict.fromkeys(modality for modality, _ in wanted):
            values = [value for kind, value in wanted if kind == modality]
            face = registry.face(modality)
            if face.text:
                found |= {(modality, text): empty for text in values if isinstance(empty := as_sentence(str(text)), Failure)}
                values = [text for text in values if (modality, text) not in found]
            settings: dict[str, Any] = {"batch_size": self._space.batch_size, "workers": self._space.workers}
            options = face.read_options(self.options(modality))
            items = (Item(named([(modality, value)], None), value) for value in values)
            for item, result in self._space.loaded.embed_items(modality, items, options=options, **settings):
                if isinstance(result, Failure):
                    found[modality, item.payload] = result
                    continue
                self._listener.remarks(item.id, result.notes, result.warnings)
                found[modality, item.payload] = result.embeddings[0].vector
        return found

    def options(self, modality: str) -> dict[str, Any]:
        """Return how files of a modality are read: as the stores' were, where they hold any, but for what the flags say."""
        known = registry.face(modality).options.names()
        alike = [store for store in self._stores if store.modality == modality]
        made: Mapping[str, Any] = alike[0].provenance.get("options", {}) if alike else {}
        for other in alike[1:]:
            self._compare(alike[0], other, {name for name in known if name not in self._chosen})
        chosen = {name: value for name, value in self._chosen.items() if name in known}
        # `centres` are times of the recordings in the store, and not of a query.
        unfit = {"centres"}.union(*(group for group in EXCLUSIVE if group & chosen.keys()))
        return {name: value for name, value in made.items() if name in known and name not in unfit} | chosen

    def _compare(self, first: StoreReader, other: StoreReader, names: set[str]) -> None:
        """Report an option by which two stores' files were read differently: a query can only be read in one way."""
        ours, theirs = (registry.with_default_options(store.modality, store.provenance.get("options", {})) for store in (first, other))
        for name in sorted(names):
            if ours.get(name) != theirs.get(name):
                flag = f"--{name.replace('_', '-')}"
                self._listener.remarks(
                    str(other.path),
                    [f"queries read as {first.path} was, with {flag} {ours.get(name)}; {other.path} was read with {theirs.get(name)}"],
                    (),
                )

    def _like(self, id: str) -> tuple[Part, np.ndarray, set[tuple[int, int]]]:
        """An item of the stores, or one's window `ID#START-END`: as a page shows it, its vector, the mean of its windows where it has
        several, and where its rows are.
        """
        import numpy as np

        from imagebind_cli.retrieval.search import stored_part
        from imagebind_cli.similarity import combine

        own = self._rows(id) or self._windows(id)
        if not own:
            raise UserError(f"no item {id!r} in {', '.join(str(store.path) for store in self._stores)}{self._near(id)}")
        number, row = own[0]
        part = stored_part(self._stores[number], row)
        part = part._replace(name=id, span=part.span if len(own) == 1 else None)
        return part, combine(np.stack([self._stores[number].rows(np.array([row]))[0] for number, row in own])), set(own)

    def _rows(self, id: str) -> list[tuple[int, int]]:
        return [(number, row) for number, store in enumerate(self._stores) for row, name in enumerate(store.ids) if name == id]

    def _windows(self, name: str) -> list[tuple[int, int]]:
        """The rows of `ID#START-END`: the window of these seconds, else those whose middles lie between them.

        Raises:
            UserError: the item has windows, but none there.
        """
        from imagebind_cli.media.windows import within
        from imagebind_cli.retrieval.search import row_span

        asked = re.fullmatch(r"(.+)#([\d.]+)-([\d.]+)", name, re.DOTALL)
        rows = self._rows(asked[1]) if asked else []
        spans = {place: span for place in rows if (span := row_span(self._stores[place[0]], place[1])) is not None}
        if asked is None or not spans:
            return []
        try:
            times = float(asked[2]), float(asked[3])
            same = [place for place, span in spans.items() if max(abs(span[0] - times[0]), abs(span[1] - times[1])) < ALIKE_SECONDS]
            wanted = set() if same else set(within(spans.values(), times))
        except ValueError:
            some = ", ".join(f"{start:.10g}-{end:.10g}" for start, end in islice(spans.values(), 3))
            raise UserError(f"{asked[1]}: no window {asked[2]}-{asked[3]} in it; its {len(spans):,} are {some}, …") from None
        return same or [place for place, span in spans.items() if span in wanted]

    def _near(self, id: str) -> str:
        """Ids that resemble one: of the same file name, or spelt alike."""
        import difflib

        ids = [name for store in self._stores for name in store.ids]
        near = list(islice((name for name in ids if os.path.basename(name) == os.path.basename(id) or id in name), 3))
        near = near or difflib.get_close_matches(id, ids[:NEAR_NAMES], n=3)
        return f"; near are {', '.join(map(repr, near))}" if near else ""

    def _vector(self, path: Path) -> tuple[Part, np.ndarray]:
        """The one vector of a file, and what a page shows of it."""
        import numpy as np

        from imagebind_cli.retrieval.search import Part, stored_part
        from imagebind_cli.store import is_store, open_store

        if _is_lines(path):
            lines = (request for request in read_requests(path) if isinstance(request, Request) and request.vector is not None)
            rows: Iterator[Any] = (np.array(line.vector) for line in lines)
        else:
            rows = (row for _, block in self.stored(path) for row in block)
        found = list(islice(rows, 2))
        if len(found) != 1:
            raise UserError(f"{path}: {'no vector' if not found else 'several vectors'} in it; for a query each: --queries {path}")
        return stored_part(open_store(path), 0) if is_store(path) else Part(VECTOR, str(path)), found[0]

    def stored_queries(self, path: Path) -> Iterator[list[Query]]:
        """Every row of a store, or of a plain .npy file, as a query; a row of a store that is searched is no answer to itself."""
        from imagebind_cli.retrieval.search import Query, stored_part
        from imagebind_cli.similarity import unit
        from imagebind_cli.store import is_store, open_store

        store = open_store(path) if self._shown and is_store(path) else None
        same = [number for number, store in enumerate(self._stores) if store.path.resolve() == path.resolve()]
        rows: dict[str, list[tuple[int, int]]] = {}
        for number in same:
            for row, id in enumerate(self._stores[number].ids):
                rows.setdefault(id, []).append((number, row))
        number = 0
        for ids, vectors in self.stored(path):
            for start in range(0, len(ids), BATCH):
                try:
                    units = unit(vectors[start : start + BATCH])
                except ValueError as error:
                    raise UserError(f"{path}: {ids[start]!r}, or one of the {BATCH} rows from it on: {error}") from None
                parts = [(stored_part(store, row),) if store else () for row in range(number, number + len(units))]
                number += len(units)
                yield [
                    Query(id, vector, part, frozenset(rows.get(id, ())))
                    for id, vector, part in zip(ids[start:], units, parts, strict=False)
                ]

    def stored(self, path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
        """Ids and vectors (n, dim) of a store, or of a plain .npy file, block by block."""
        import numpy as np

        from imagebind_cli.store import is_store, open_store

        if is_store(path):
            store = self._space.admit(open_store(path))
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
        self._listener.remarks(
            what, [f"the vectors in {what}, which does not say so, are of model {self._stores[0].provenance['model']!r}"], ()
        )


def is_vectors(path: Path) -> bool:
    """Check whether a file of queries holds vectors alone: a store, or an array. Lines are read one by one."""
    from imagebind_cli.store import is_store

    return not _is_lines(path) and (path.suffix == ".npy" or is_store(path))


def _is_lines(path: Path) -> bool:
    """Check whether a path is what `imagebind embed` writes to stdout: lines that nothing beside them explains."""
    return path.suffix in (".jsonl", ".json") and not path.with_suffix(".made.json").exists()
