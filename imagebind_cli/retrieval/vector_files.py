"""Queries that are vectors already: rows of a store or of a plain .npy array, and lines of JSON as `imagebind embed` prints them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.retrieval.requests import BATCH, VECTOR, QueryRequest, read_requests
from imagebind_cli.retrieval.stored_items import Exhibit, QueryPart, stored_exhibit
from imagebind_cli.space import Space
from imagebind_cli.store import is_store, open_store


class WantedVectors(NamedTuple):
    """Vectors that queries are compared with: their width, what has them, and the name of their model."""

    dim: int
    place: str
    model: str | None


def holds_vectors(path: Path) -> bool:
    """Check whether a file of queries holds vectors alone: a store, or an array. Lines of JSON are read one by one."""
    return not _is_lines(path) and (path.suffix == ".npy" or is_store(path))


def read_vector(path: Path, space: Space, wanted: WantedVectors, listener: Listener) -> QueryPart:
    """Read the one vector of a file as part of a query. The arguments are those of `vector_blocks`.

    Raises:
        UserError: there is no vector in the file, or several; and as `vector_blocks`.
    """
    if _is_lines(path):
        lines = (request for request in read_requests(path) if isinstance(request, QueryRequest) and request.vector is not None)
        rows: Iterator[Any] = (np.array(line.vector) for line in lines)
    else:
        rows = (row for _, block in vector_blocks(path, space, wanted, listener) for row in block)
    vectors = list(islice(rows, 2))
    if len(vectors) != 1:
        raise UserError(f"{path}: {'no vector' if not vectors else 'several vectors'} in it; for a query each: --queries {path}")
    exhibit = stored_exhibit(open_store(path), 0) if is_store(path) else Exhibit(VECTOR, str(path))
    return QueryPart(exhibit, vectors[0])


def vector_blocks(path: Path, space: Space, wanted: WantedVectors, listener: Listener) -> Iterator[tuple[list[str], np.ndarray]]:
    """Read ids and vectors (n, dim) of a store, or of a plain .npy file, block by block.

    Args:
        space: what a store of queries must belong to. wanted: an array must have this width.
        listener: receives the assumption about an array, which does not name the model of its vectors.
    Raises:
        UserError: neither a store nor an array of such vectors, or a store of another model.
    """
    if is_store(path):
        store = space.admit(open_store(path))
        start = 0
        for block in store.blocks():
            yield store.ids[start : start + len(block)], block
            start += len(block)
        return
    try:
        rows = np.atleast_2d(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: neither a store nor an array: {getattr(error, 'strerror', None) or error}") from None
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] != wanted.dim:
        needed = f"(n, {wanted.dim}) of floats, as in {wanted.place}"
        raise UserError(f"{path}: vectors of shape {rows.shape} of {rows.dtype}; {needed}, are needed")
    note_assumed_model(str(path), wanted.model, listener)
    for start in range(0, len(rows), BATCH):
        yield [str(number) for number in range(start, min(start + BATCH, len(rows)))], rows[start : start + BATCH]


def note_assumed_model(what: str, model: str | None, listener: Listener) -> None:
    """Report that vectors which do not name their model are assumed to be of the named one."""
    listener.remarks(what, [f"{what} does not say which model its vectors are from; model {model!r} is assumed"], ())


def _is_lines(path: Path) -> bool:
    """Check whether a file has lines of JSON and is not a store in that format, which has a record beside it."""
    return path.suffix in (".jsonl", ".json") and not path.with_suffix(".made.json").exists()
