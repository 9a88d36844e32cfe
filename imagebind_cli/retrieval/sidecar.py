"""Files that are derived from a store and kept beside it: each has a record of the state of the store it was made from.

NAME.hnsw.faiss         the derived file, here an index
NAME.hnsw.faiss.json    its record, written last: without one the file is not used
"""

from __future__ import annotations

import glob
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.documents import read_object
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_json
from imagebind_cli.store import StoreReader

RECORD = ".json"


def sidecar_path(store: StoreReader, ending: str) -> Path:
    """Return the path of a store's derived file: the store's name with another ending.

    Raises:
        UserError: the store is a pattern of several.
    """
    if not store.path.exists():
        raise UserError(f"{store.path}: an index belongs to one store, and this is a pattern of several; merge them: imagebind store merge")
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
    """Write the record of a derived file, with the file's checksum, once that is complete."""
    write_json(record_path(path), record | {"file": file_checksum(path)}, indent=None)


def sidecar_findings(store: Path) -> Iterator[str]:
    """Yield a line for each file derived from a store that is not as it was written: searches with it could miss rows.

    Files without a record are not used, and those of earlier versions have no checksum; neither is reported.
    """
    for path in sorted(store.parent.glob(f"{glob.escape(store.name)}.*{RECORD}")):
        derived = path.with_name(path.name.removesuffix(RECORD))
        record = read_sidecar(derived)
        if record is not None and record.get("file", checksum := file_checksum(derived)) != checksum:
            yield f"{derived.name}: damaged; delete it, and the next search makes it again"


def file_checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def record_path(path: Path) -> Path:
    """Return the path of the record of a derived file."""
    return path.with_name(f"{path.name}{RECORD}")


def is_current(record: dict[str, Any], store: StoreReader) -> bool:
    """Check whether a file was made from the store's present state. Vectors are read only if the store's files were touched."""
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
