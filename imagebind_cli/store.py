"""Embeddings on disk and on the wire: JSON Lines, NPY with its ids beside it, safetensors, HDF5. Never imports torch.

Every file carries how it was made. Opening one that exists goes on where it stopped; one made with another model, modality or choice is
refused.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imagebind_cli.errors import UserError

FLUSH_ROWS, FLUSH_SECONDS = 256, 2.0


@dataclass(frozen=True)
class Embedding:
    """One unit vector (dim,) float32.

    span: the seconds it stands for, where windows are kept apart. windows: how many of them the item has. notes: what was
    assumed to read it. warnings: what was lost of this item.
    """

    id: str
    vector: np.ndarray
    span: tuple[float, float] | None = None
    windows: int = 1
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def json_line(embedding: Embedding, modality: str) -> bytes:
    """One line of JSON, newline included. Numbers have the 9 digits that give the same float32 back; any file name survives."""
    head = {"id": embedding.id, "modality": modality} | _span_fields(embedding)
    vector = ("%.9g," * len(embedding.vector) % tuple(embedding.vector.tolist()))[:-1]
    return f'{json.dumps(head)[:-1]}, "embedding": [{vector}]}}\n'.encode()


class Format(Protocol):
    """What each file format does; `Store` does the rest."""

    ids: set[str]

    def write(self, embeddings: list[Embedding]) -> None: ...
    def close(self, made: Mapping[str, Any]) -> None: ...


class Store:
    """A file of embeddings being written. Use it as a context manager.

    ids: what it holds already. made: how it was made, as `made` given at the start plus the assumptions met on the way.

    Raises:
        UserError: the ending is none of `FORMATS`; the file exists and was made otherwise, or not by this program.
    """

    def __init__(self, path: Path, made: Mapping[str, Any]) -> None:
        if path.suffix not in FORMATS:
            raise UserError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS)}")
        if not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}")
        self.made = dict(made) | {"assumptions": []}
        try:
            self._format: Format = FORMATS[path.suffix](path, self.made)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        self.ids = self._format.ids
        self._pending: list[Embedding] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        with _undisturbed():
            self._flush()
            self._format.close(self.made)

    def append(self, embeddings: Iterable[Embedding]) -> None:
        """Add one item's rows. They reach the disk within `FLUSH_ROWS` rows or `FLUSH_SECONDS` of further calls, or on leaving."""
        for embedding in embeddings:
            self._pending.append(embedding)
            self.made["assumptions"] += [note for note in embedding.notes if note not in self.made["assumptions"]]
        if len(self._pending) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            with _undisturbed():
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._format.write(self._pending)
        self._pending, self._flushed = [], time.monotonic()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until a write is whole: an exception in its middle would leave rows twice, or ids without vectors."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class _JSONLines:
    """A line per embedding; how it was made in NAME.made.json."""

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        if path.with_suffix(".npy").exists():
            raise UserError(f"{path}: holds the ids of {path.with_suffix('.npy')}; write to another file")
        _resume_beside(path, made)
        self._beside, self._modality = _beside(path), made["modality"]
        self._file = open(path, "ab")  # noqa: SIM115 - closed in close
        rows, length = _whole_rows(path)
        os.truncate(path, length)
        self.ids = set(rows)

    def write(self, embeddings: list[Embedding]) -> None:
        self._file.write(b"".join(json_line(embedding, self._modality) for embedding in embeddings))
        self._file.flush()

    def close(self, made: Mapping[str, Any]) -> None:
        self._file.close()
        _write_json(self._beside, made)


class _NPY:
    """float32 (n, dim) for numpy.load; NAME.jsonl has the id of each row, NAME.made.json how it was made."""

    HEADER = 128

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        ids = path.with_suffix(".jsonl")
        if ids.exists() and not path.exists():
            raise UserError(f"{ids}: exists, and would hold the ids of {path}; write to another file")
        _resume_beside(path, made)
        self._beside, self._dim = _beside(path), int(made["dim"])
        self._file, self._ids = open(path, "ab"), open(ids, "ab")  # noqa: SIM115 - closed in close
        # Vectors are written before ids: what has an id is whole, what has none is forgotten.
        rows, length = _whole_rows(ids, at_most=max(0, (path.stat().st_size - self.HEADER) // (4 * self._dim)))
        self.ids, self._rows = set(rows), len(rows)
        os.truncate(path, self.HEADER + 4 * self._dim * self._rows)
        os.truncate(ids, length)
        self._write_header()

    def write(self, embeddings: list[Embedding]) -> None:
        self._file.write(np.stack([embedding.vector for embedding in embeddings]).astype("<f4").tobytes())
        self._file.flush()
        for embedding in embeddings:
            self._ids.write(json.dumps({"id": embedding.id} | _span_fields(embedding)).encode() + b"\n")
        self._ids.flush()
        self._rows += len(embeddings)
        self._write_header()

    def _write_header(self) -> None:
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self._rows}, {self._dim}), }}"
        header = b"\x93NUMPY\x01\x00" + (self.HEADER - 10).to_bytes(2, "little") + text.ljust(self.HEADER - 11).encode() + b"\n"
        with open(self._file.name, "r+b") as file:  # an append handle cannot write at the front
            file.write(header)

    def close(self, made: Mapping[str, Any]) -> None:
        self._file.close()
        self._ids.close()
        _write_json(self._beside, made)


class _Safetensors:
    """Tensors `embeddings` (n, dim) and `rows`, the ids and spans as bytes of JSON; metadata `made`. Written whole at the end.

    `rows` is a tensor because a header has room for some 100 MB only.
    """

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        self._path = path
        self._rows: list[Embedding] = []
        if path.exists():
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(path, framework="numpy") as file:
                    metadata, vectors = file.metadata() or {}, file.get_tensor("embeddings")
                    _check_same(path, json.loads(metadata["made"]), made)
                    rows = json.loads(file.get_tensor("rows").tobytes())
            except (SafetensorError, KeyError, ValueError):
                raise UserError(f"{path}: exists and was not made by imagebind embed; write to another file") from None
            self._rows = [
                Embedding(row["id"], vector, (row["start"], row["end"]) if "start" in row else None, row.get("windows", 1))
                for row, vector in zip(rows, vectors, strict=True)
            ]
        self.ids = {row.id for row in self._rows}

    def write(self, embeddings: list[Embedding]) -> None:
        self._rows += embeddings

    def close(self, made: Mapping[str, Any]) -> None:
        from safetensors.numpy import save

        vectors = np.stack([row.vector for row in self._rows]) if self._rows else np.empty((0, made["dim"]), np.float32)
        rows = [{"id": row.id} | _span_fields(row) for row in self._rows]
        building = self._path.with_name(f".{self._path.name}.partial")
        tensors = {"embeddings": vectors, "rows": np.frombuffer(json.dumps(rows).encode(), np.uint8)}
        building.write_bytes(save(tensors, {"made": json.dumps(made)}))
        os.replace(building, self._path)


class _HDF5:
    """Datasets `embeddings` (n, dim) float32, `ids`, and `spans` (n, 2) in seconds, NaN where there is none; attribute `made`."""

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        import h5py

        if path.exists():
            try:
                self._file = h5py.File(path, "r+")
                _check_same(path, json.loads(self._file.attrs["made"]), made)
            except (OSError, KeyError, ValueError) as error:
                raise UserError(f"{path}: not a store of imagebind embed, or not whole: {str(error).splitlines()[0]}") from None
        else:
            self._file = h5py.File(path, "x")
            self._file.create_dataset("embeddings", (0, made["dim"]), "f4", maxshape=(None, made["dim"]), chunks=(256, made["dim"]))
            self._file.create_dataset("ids", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(1024,))
            self._file.create_dataset("spans", (0, 2), "f8", maxshape=(None, 2), chunks=(1024, 2))
            self._file.attrs["made"] = json.dumps(made)
            self._file.flush()
        rows = min(len(self._file[name]) for name in ("embeddings", "spans", "ids"))
        for name in ("embeddings", "spans", "ids"):  # a run that was killed may have written some of them only
            self._file[name].resize(rows, axis=0)
        self.ids = {id.decode("utf-8", "surrogateescape") for id in self._file["ids"][:]}

    def write(self, embeddings: list[Embedding]) -> None:
        columns = {
            "embeddings": np.stack([embedding.vector for embedding in embeddings]),
            "spans": [embedding.span or (np.nan, np.nan) for embedding in embeddings],
            "ids": [embedding.id.encode("utf-8", "surrogateescape") for embedding in embeddings],
        }
        for name, values in columns.items():
            data = self._file[name]
            data.resize(len(data) + len(embeddings), axis=0)
            data[-len(embeddings) :] = values
        self._file.flush()

    def close(self, made: Mapping[str, Any]) -> None:
        self._file.attrs["made"] = json.dumps(made)
        self._file.close()


FORMATS: dict[str, Any] = {".jsonl": _JSONLines, ".npy": _NPY, ".safetensors": _Safetensors, ".h5": _HDF5}
"""File ending to format."""


def _span_fields(embedding: Embedding) -> dict[str, Any]:
    if embedding.span is None:
        return {}
    return {"start": embedding.span[0], "end": embedding.span[1], "windows": embedding.windows}


def _beside(path: Path) -> Path:
    return path.with_suffix(".made.json")


def _resume_beside(path: Path, made: dict[str, Any]) -> None:
    """Check, or start, the record beside a file that has no room for it inside."""
    beside = _beside(path)
    if path.exists() and path.stat().st_size:
        if not beside.exists():
            raise UserError(f"{path}: exists and was not made by imagebind embed; write to another file")
        try:
            before = json.loads(beside.read_text())
        except ValueError:
            raise UserError(f"{beside}: not JSON; without it {path} cannot be gone on with") from None
        _check_same(path, before, made)
    _write_json(beside, made)


def _check_same(path: Path, before: Mapping[str, Any], made: dict[str, Any]) -> None:
    """Refuse to go on with a file made otherwise; take over the assumptions it records."""
    for key, value in made.items():
        if key not in ("assumptions", "version") and before.get(key) != value:
            raise UserError(f"{path}: made with {key} {before.get(key)!r}; this run has {value!r}; write to another file")
    made["assumptions"] = list(before.get("assumptions", []))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    building = path.with_name(f".{path.name}.partial")
    building.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(building, path)


def _whole_rows(path: Path, at_most: int = sys.maxsize) -> tuple[list[str], int]:
    """The ids of the rows of a file of JSON lines, and how many bytes they take.

    Left out is what a killed run left torn: a last line without its newline, and an item of which only some windows are there.
    """
    rows: list[str] = []
    ends = [0]
    last: dict[str, Any] = {}
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or len(rows) == at_most:
                break
            try:
                last = json.loads(line)
                rows.append(last["id"])
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}: line {len(rows) + 1} is not a row of imagebind embed") from None
            ends.append(ends[-1] + len(line))
    written = len(list(takewhile(lambda id: id == last["id"], reversed(rows))))
    if written % last.get("windows", 1):
        del rows[-written:]
    return rows, ends[len(rows)]
