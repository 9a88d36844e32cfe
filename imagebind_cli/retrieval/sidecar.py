"""Files that are derived from a store and kept beside it: each has a record of the state of the store it was made from.

NAME.hnsw.faiss         the derived file, here an index
NAME.hnsw.faiss.json    its record, written last: without one the file is not used
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.documents import read_object
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_json
from imagebind_cli.store import StoreReader


def sidecar_path(store: StoreReader, ending: str) -> Path:
    """Return where a store's derived file is: its own name with another ending.

    Raises:
        UserError: the store is a pattern of several.
    """
    if not store.path.exists():
        raise UserError(f"{store.path}: an index is beside one store, and this is a pattern of several; merge them: imagebind store merge")
    return store.path.with_name(f"{store.path.name}.{ending}")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the record of a derived file; None where either is missing or the record is not one."""
    try:
        record = read_object(record_path(path))
    except UserError:
        return None
    return record if path.exists() and {"store", "digest"} <= record.keys() else None


def new_sidecar(store: StoreReader) -> dict[str, Any]:
    """Return the record of a file that is about to be made from a store: the store's present state."""
    return {"store": _state(store), "digest": _digest(store)}


def write_sidecar(path: Path, record: dict[str, Any]) -> None:
    """Write the record of a derived file, once that is complete."""
    write_json(record_path(path), record, indent=None)


def record_path(path: Path) -> Path:
    """Return where the record of a derived file is."""
    return path.with_name(f"{path.name}.json")


def is_current(record: dict[str, Any], store: StoreReader) -> bool:
    """Check whether a file was made from the store's present state. Vectors are read only where the store's files were touched."""
    return record["store"] == _state(store) or record["digest"] == _digest(store)


def _state(store: StoreReader) -> list[int]:
    """Return the number of rows, and size and time of change of the store's files."""
    files = [store.path] if store.path.is_file() else [path for path in store.path.iterdir() if path.is_file()]
    stats = [path.stat() for path in files]
    return [len(store), sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def _digest(store: StoreReader) -> int:
    """Return a checksum of all vectors in their order."""
    checksum = len(store)
    for block in store.blocks():
        checksum = zlib.crc32(np.ascontiguousarray(block).view(np.uint8).data, checksum)
    return checksum
