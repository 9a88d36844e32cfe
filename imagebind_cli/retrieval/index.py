"""Approximate search with FAISS: an index in a file beside its store, rebuilt when the store has changed.

    NAME.hnsw.faiss         the index, as FAISS writes it
    NAME.hnsw.faiss.json    what it was built from, its checksum, and its recall of the exact answers

An index only proposes rows. They are scored from the store itself, so that every score shown is exact.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.retrieval.sidecar import file_checksum, is_current, new_sidecar, read_sidecar, record_path, sidecar_path, write_sidecar
from imagebind_cli.similarity import top_k
from imagebind_cli.store import StoreReader

KINDS = ("flat", "ivfpq", "hnsw")
PROPOSED = 10  # rows that an index proposes for each answer, 100 at least
TRAINED = 9_984  # rows that a product quantiser needs to place its 256 centres: 39 each
LINKS, BUILD_BREADTH, SEARCH_BREADTH = 32, 200, 256  # of an HNSW graph
REPORT_SECONDS = 10.0  # between lines of progress while an index is built
SAMPLE, SAMPLE_K = 100, 10  # rows by which recall is measured, and answers to each


class Indexes:
    """The indexes of some stores, built where they are missing or outdated. Call it to search one of them.

    Args:
        kind: `flat` for all rows, `ivfpq` for the smallest, `hnsw` for the fastest.
        note: called with a line of text when an index is built, and with its recall.
    Raises:
        UserError: FAISS is not installed.
    """

    def __init__(self, kind: str, note: Callable[[str], None]) -> None:
        try:
            import faiss
        except ImportError:
            raise UserError("--index needs FAISS, which is not installed; fetch it with: pip install 'imagebind-cli[faiss]'") from None
        self._faiss, self._kind, self._note = faiss, kind, note
        self._opened: dict[Path, Any] = {}

    def __call__(self, store: StoreReader, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows nearest to queries (queries, dim): int64 (queries, k), padded with -1, and their scores, float64."""
        if not len(store):
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
        if store.path not in self._opened:
            self._opened[store.path] = self._open(store)
        return self._search(self._opened[store.path], store, queries, k)

    def _search(self, index: Any, store: StoreReader, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        proposed = index.search(queries.astype(np.float32), min(len(store), max(100, PROPOSED * k)))[1]
        which, place = np.unique(proposed, return_inverse=True)
        vectors = store.rows(np.maximum(which, 0)).astype(np.float64)
        found, exact = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf)
        for number, (query, rows, places) in enumerate(zip(queries, proposed, place.reshape(proposed.shape), strict=True)):
            scores = np.where(rows < 0, -np.inf, np.einsum("nd,d->n", vectors[places], query))
            best = np.lexsort((rows, -scores))[:k]
            found[number, : len(best)], exact[number, : len(best)] = rows[best], scores[best]
        return found, exact

    def _open(self, store: StoreReader) -> Any:
        path = sidecar_path(store, f"{self._kind}.faiss")
        record = read_sidecar(path)
        if record is None or not isinstance(record.get("recall"), float):
            record = None
            self._note(f"{path}: building it from {len(store):,} rows")
        elif not is_current(record, store):
            self._note(f"{path}: {store.path} has changed since; building it again from {len(store):,} rows")
            record = None
        index = self._read(path, record, store) if record is not None else None
        if index is None:
            if record is not None:
                self._note(f"{path}: incomplete; building it again")
            record = new_sidecar(store)
            index = self._build(store)
            record["recall"] = round(self._recall(index, store), 4)
            self._write(path, index, record)
        assert record is not None
        self._note(f"{path}: finds {record['recall']:.1%} of the exact 10 nearest, by {min(SAMPLE, len(store))} of its own rows")
        self._widen_search(index)
        return index

    def _read(self, path: Path, record: dict[str, Any], store: StoreReader) -> Any:
        """Read an index; None where it is damaged. FAISS crashes on some damage, so the file is compared with its record first."""
        try:
            if record.get("file", checksum := file_checksum(path)) != checksum:
                return None
            index = self._faiss.read_index(os.fspath(path))
        except Exception:  # FAISS raises whatever its C++ does, such as a MemoryError for a number that promises too much
            return None
        return index if (index.ntotal, index.d) == (len(store), store.dim) else None

    def _build(self, store: StoreReader) -> Any:
        faiss, dim, rows = self._faiss, store.dim, len(store)
        if self._kind == "flat":
            index = faiss.IndexFlatIP(dim)
        elif self._kind == "hnsw":
            index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = BUILD_BREADTH
        else:
            if rows < TRAINED:
                raise UserError(f"{store.path}: {rows:,} rows; an ivfpq index needs {TRAINED:,} to learn from; use --index flat, or none")
            lists = min(int(4 * math.sqrt(rows)), rows // 39)
            pieces = next(count for count in range(max(1, dim // 8), 0, -1) if dim % count == 0)
            index = faiss.index_factory(dim, f"IVF{lists},PQ{pieces}", faiss.METRIC_INNER_PRODUCT)
            chosen = np.random.default_rng(0).choice(rows, min(rows, 256 * lists, 100_000), replace=False)
            self._note(f"{store.path}: the index learns {lists:,} centres from {len(chosen):,} rows")
            index.train(store.rows(np.sort(chosen)))
        reported = time.monotonic()
        for block in store.blocks():
            index.add(np.ascontiguousarray(block, np.float32))
            if time.monotonic() - reported > REPORT_SECONDS:
                self._note(f"{store.path}: {index.ntotal:,} of {rows:,} rows are in the index")
                reported = time.monotonic()
        self._widen_search(index)
        return index

    def _widen_search(self, index: Any) -> None:
        if self._kind == "hnsw":
            index.hnsw.efSearch = SEARCH_BREADTH
        elif self._kind == "ivfpq":
            index.nprobe = max(8, index.nlist // 8)

    def _recall(self, index: Any, store: StoreReader) -> float:
        """Return the share of the exact 10 nearest of some rows, themselves left out, that the index finds."""
        sample = np.random.default_rng(0).choice(len(store), min(SAMPLE, len(store)), replace=False)
        queries = store.rows(sample).astype(np.float64)
        k = min(SAMPLE_K + 1, len(store))
        exact, _ = top_k(store.blocks(), queries, k)
        found, _ = self._search(index, store, queries, k)
        shares = [
            np.isin(np.setdiff1d(nearest, [row]), proposed).mean() if len(nearest) > 1 else 1.0
            for row, nearest, proposed in zip(sample, exact, found, strict=True)
        ]
        return float(np.mean(shares))

    def _write(self, path: Path, index: Any, record: dict[str, Any]) -> None:
        """Write an index, and its record last: without a record an index is not used."""
        try:
            record_path(path).unlink(missing_ok=True)
            with replacing(path) as place:
                self._faiss.write_index(index, os.fspath(place))
            write_sidecar(path, record)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or 'no room, or no right to'}") from None
