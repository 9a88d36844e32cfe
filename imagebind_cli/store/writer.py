"""`Store`: embeddings being written, to a format that the ending names.

Every store carries how it was made. Opening one that exists goes on where it stopped; one made with another model, modality or choice is
refused, and so is a second writer.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from imagebind_cli.errors import UsageError, UserError, writing
from imagebind_cli.store.row import NO_HASH, Row, Stamp, id_hash

FLUSH_ROWS, FLUSH_SECONDS = 1024, 2.0

FORMATS = {
    ".jsonl": "lines:JSONLinesWriter",
    ".npy": "lines:NPYWriter",
    ".safetensors": "tensors:SafetensorsWriter",
    ".h5": "hdf5:StoreHDF5Writer",
    ".store": "folder:FolderWriter",
}
"""File ending to the module and class that writes it."""


class Format(Protocol):
    """What the writer of each format does; `Store` does the rest. It is made from a path and how its rows are made.

    files: what it makes. stamps: `STAMP` of the rows that are there. hidden: those of them that do not count any more.
    """

    files: list[Path]
    stamps: np.ndarray
    hidden: np.ndarray

    def describe(self, provenance: Mapping[str, Any]) -> None:
        """Say anew how it is made; with the next rows."""

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        """Add rows, all or, where that fails, none; rows of these numbers do not count any more."""

    def close(self) -> None:
        """Bring to the disk what is not there yet."""

    def release(self) -> None:
        """Let go of the files and the lock."""


class Store:
    """A store of embeddings being written. Use it as a context manager.

    format: what writes its files. made: how it was made, as `made` given at the start plus the assumptions met on the way; `array` in it
    is the number type, float32 or float16.

    Raises:
        UserError: see `check_writable`; the store exists and was made otherwise, or not by this program; another process
            is writing to it.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        check_writable(path)
        self.path, self.provenance = path, {"array": "float32"} | dict(provenance) | {"assumptions": []}
        self._is_new = not path.exists()
        try:
            self.format = _writer(path.suffix)(path, self.provenance)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        self._finished = StoredIds(self.format.stamps, self.format.hidden)
        self._pending: list[Row] = []
        self._replaced: list[int] = []
        self._ever_replaced: set[int] = set()
        self._described = json.dumps(self.provenance)
        self._grew = False
        self._failure: BaseException | None = None
        self._writing, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> Store:
        threading.Thread(target=self._flush_now_and_then, name="flush", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._over.set()
        with _undisturbed(), self._writing:
            try:
                self._flush()
                with writing(self.path):
                    self.format.close()
            finally:
                self.format.release()
                if kind is not None and self._is_new and not self._grew:
                    self._remove()

    @property
    def stored(self) -> int:
        """How many rows counted when it was opened."""
        return len(self._finished)

    def stamp(self, id: str) -> Stamp | None:
        """What an id's input was when it was embedded; None if the store did not hold the id when it was opened."""
        return self._finished.stamp(id)

    def assume(self, notes: Iterable[str]) -> None:
        """Record what was assumed to read inputs; it goes to the disk with the next rows."""
        self.provenance["assumptions"] += dict.fromkeys(note for note in notes if note not in self.provenance["assumptions"])

    def append(self, rows: Iterable[Row], notes: Iterable[str] = ()) -> None:
        """Add one item's rows; those that the store had of it do not count any more. notes: what was assumed to read it.

        They reach the disk within `FLUSH_SECONDS` or `FLUSH_ROWS` rows, or on leaving.

        Raises:
            OSError: the disk is full. What was flushed before is whole; nothing more can be added.
        """
        rows = [self._rounded(row) for row in rows]
        with _undisturbed(), self._writing:
            for id in dict.fromkeys(row.id for row in rows):
                before = set(self._finished.rows(id)) - self._ever_replaced
                self._ever_replaced |= before
                self._replaced += sorted(before)
            self.assume(notes)
            self._pending += rows
            if len(self._pending) >= FLUSH_ROWS:
                self._flush()

    def _rounded(self, row: Row) -> Row:
        array = np.dtype(self.provenance["array"])
        return row if row.vector.dtype == array else replace(row, vector=row.vector.astype(array))

    def _flush_now_and_then(self) -> None:
        """Thread: rows reach the disk also while the next input is waited for."""
        while not self._over.wait(FLUSH_SECONDS):
            with self._writing, suppress(Exception):  # the next call raises it
                self._flush()

    def _flush(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            with writing(self.path):
                described = json.dumps(self.provenance)
                if described != self._described:
                    self.format.describe(self.provenance)
                    self._described = described
                if self._pending:
                    self.format.write(self._pending, self._replaced)
                    self._grew = True
        except BaseException as error:
            self._failure = error
            raise
        self._pending, self._replaced = [], []

    def _remove(self) -> None:
        for path in self.format.files:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a path that no store can be written to.

    Raises:
        UserError: its ending is none of `FORMATS`, or its folder is not there.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")


def _writer(ending: str) -> Callable[[Path, dict[str, Any]], Format]:
    module, _, name = FORMATS[ending].partition(":")
    return getattr(import_module(f"imagebind_cli.store.{module}"), name)


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


class StoredIds:
    """The rows of a store by their ids' hashes.

    Args:
        stamps: `STAMP` records of all rows. hidden: rows that do not count any more.
    """

    def __init__(self, stamps: np.ndarray, hidden: np.ndarray) -> None:
        self._count = len(stamps) - len(hidden)
        live = np.setdiff1d(np.arange(len(stamps)), hidden, assume_unique=True)
        order = live[np.argsort(stamps["key"][live], kind="stable")]
        # Keys are spread evenly, so that their first bits lead to a bucket of about one.
        self._shift = 64 - max(1, len(live)).bit_length()
        buckets = np.arange(2 ** (64 - self._shift) + 1, dtype=np.uint64)
        starts = np.searchsorted(stamps["key"][order] >> np.uint64(self._shift), buckets)
        # Single values of numpy's own arrays take ten times as long.
        columns = (starts, order, *(stamps[name] for name in ("key", "size", "mtime")))
        self._starts, self._order, self._keys, self._sizes, self._mtimes = (
            memoryview(np.ascontiguousarray(column))  # type: ignore[arg-type]
            for column in columns
        )
        self._hashes = stamps["hash"].tobytes()
        self._hidden = set(hidden.tolist())
        self._next = 0

    def __len__(self) -> int:
        return self._count

    def rows(self, id: str) -> list[int]:
        """The rows of an id, its windows."""
        key = id_hash(id)
        bucket = key >> self._shift
        return [row for row in self._order[self._starts[bucket] : self._starts[bucket + 1]] if self._keys[row] == key]

    def stamp(self, id: str) -> Stamp | None:
        """What an id's input was; None if the store does not have it."""
        key, row = id_hash(id), self._next
        if not (row < len(self._keys) and self._keys[row] == key and row not in self._hidden):  # mostly they come in the old order
            row = self._first(key)
            if row < 0:
                return None
        self._next = row + 1
        hash = self._hashes[16 * row : 16 * row + 16]
        return Stamp(self._sizes[row], self._mtimes[row], b"" if hash == NO_HASH else hash)

    def _first(self, key: int) -> int:
        """The first row of a key, -1 if there is none."""
        bucket = key >> self._shift
        for place in range(self._starts[bucket], self._starts[bucket + 1]):
            if self._keys[self._order[place]] == key:
                return self._order[place]
        return -1
