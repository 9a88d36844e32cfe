"""The safetensors store: tensors `embeddings` (n, dim) and `rows`, the rest of each row as bytes of JSON; metadata `made`, its provenance.

It is held in memory and written at the end. `rows` is a tensor because a header has room for some 100 MB only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.checksums import seal
from imagebind_cli.descriptors import NO_LINK, remove_locked
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.files import being_written, open_locked, replacing
from imagebind_cli.store.provenance import check_resumable, parse_provenance
from imagebind_cli.store.row import STAMP, Row, row_stamp, sealed_row_line, stamp_record
from imagebind_cli.store.source import RowTable, TableSource, Views
from imagebind_cli.store.sums import check_states

DTYPES = {"F32": "<f4", "F16": "<f2", "U8": "|u1"}


class SafetensorsWriter:
    """A `.safetensors` file that is written at the end; `Format` describes the methods."""

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        if path.is_dir():
            raise IsADirectoryError("is a folder")
        self._path, self._lock_path = path, path.with_name(f".{path.name}.lock")
        self.files = [path]
        self._lock = open_locked(self._lock_path, being_written(path), NO_LINK)
        try:
            self._rows = list(_embeddings(path, provenance)) if path.exists() else []
        except BaseException:
            self.release()
            raise
        self._provenance: Mapping[str, Any] = provenance
        self._replaced: set[int] = set()
        self.stamps = np.array([stamp_record(row.id, row.stamp) for row in self._rows], STAMP)
        self.hidden = np.empty(0, np.int64)

    def describe(self, provenance: Mapping[str, Any]) -> None:
        self._provenance = provenance

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        self._rows += rows
        self._replaced.update(replaced)

    def rewrite(self, batches: Iterable[list[Row]]) -> None:
        """Make these the store's only rows."""
        self._rows, self._replaced = [row for rows in batches for row in rows], set()

    def close(self) -> None:
        rows = [row for number, row in enumerate(self._rows) if number not in self._replaced]
        dtype = np.dtype(self._provenance["array"])
        vectors = np.stack([row.vector for row in rows]).astype(dtype) if rows else np.empty((0, self._provenance["dim"]), dtype)
        beside = np.frombuffer(b"[" + b",".join(map(sealed_row_line, rows, vectors)) + b"]", np.uint8)
        with replacing(self._path) as place, open(place, "wb") as file:
            for data in (_header({"embeddings": vectors, "rows": beside}, self._provenance), vectors.data, beside.data):
                file.write(data)

    def release(self) -> None:
        remove_locked(self._lock_path, self._lock)


def open_tensors(path: Path) -> TableSource:
    """Open a `.safetensors` file to read.

    Raises:
        Exception: it is not a store, or not whole.
    """
    return _open(path)[0]


def _open(path: Path) -> tuple[TableSource, list[dict[str, Any]]]:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size:
            raise ValueError("not a safetensors file")
        header = parse_json(file.read(length))
    made = header["__metadata__"]["made"]
    provenance, sealed = parse_provenance(made)
    vectors, beside = (_tensor(path, header[name], 8 + length) for name in ("embeddings", "rows"))
    text, table = beside.tobytes(), RowTable()
    rows = parse_json(text)
    for line in text[1:-1].split(b"\n,") if rows else ():
        table.add(line, f"{path}: row {len(table)}")
    if len(table) != len(vectors):
        raise ValueError(f"it has {len(table)} ids for {len(vectors)} vectors")
    return TableSource(provenance, sealed, table, Views([vectors], int(provenance["dim"]))), rows


def _tensor(path: Path, entry: Mapping[str, Any], base: int) -> np.ndarray:
    start, stop = entry["data_offsets"]
    if base + stop > path.stat().st_size:
        raise ValueError(f"it has {path.stat().st_size:,} bytes of {base + stop:,}")
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    return np.memmap(path, dtype, "r", base + start, shape) if stop > start else np.empty(shape, dtype)


def _embeddings(path: Path, provenance: dict[str, Any]) -> Iterator[Row]:
    try:
        source, rows = _open(path)
    except UserError:
        raise
    except Exception:  # of what other files hold
        raise UserError(f"{path}: exists and was not made by imagebind embed; write to another file") from None
    check_resumable(path, source.provenance, provenance)
    vectors = source.rows(np.arange(source.count))
    check_states(path, 0, source.states(0, vectors))
    for row, vector in zip(rows, vectors, strict=True):
        span = (row["start"], row["end"]) if "start" in row else None
        yield Row(row["id"], vector, span, row.get("windows", 1), meta=row.get("meta", {}), stamp=row_stamp(row), clock=row.get("clock"))


def _header(tensors: Mapping[str, np.ndarray], provenance: Mapping[str, Any]) -> bytes:
    """Return the format's header: its length in 8 bytes, then JSON, padded so that the tensors start at a multiple of 8."""
    entries: dict[str, Any] = {"__metadata__": {"made": seal(json.dumps(provenance))}}
    start = 0
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, tensor in tensors.items():
        stop = start + tensor.nbytes
        entries[name] = {"dtype": names[tensor.dtype.str], "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text
