"""`Store`: embeddings being written, in the format of the name's ending.

Every store carries its provenance. Opening one that exists continues it; one of another model, modality or option is refused, and so is a
second writer.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from imagebind_cli.errors import UsageError, UserError, writing
from imagebind_cli.object_storage import refuse_object
from imagebind_cli.signals import heeded_signals
from imagebind_cli.store.row import NO_HASH, Row, Stamp, id_hash
from imagebind_cli.store_formats import FORMATS

FLUSH_ROWS, FLUSH_SECONDS = 1024, 2.0
MAX_ASSUMPTIONS = 1000  # in a provenance, which is written anew when it changes: notes with figures of their file are all different
FURTHER_ASSUMPTIONS = "further assumptions, which are not listed"


class Format(Protocol):
    """What the writer of each format does; `Store` does the rest. It is constructed from a path and the provenance.

    The constructor takes the lock (`files.open_locked`), which refuses a second writer; passes the provenance of an existing store to
    `provenance.check_resumable`; drops what a killed run left half written; and releases the lock if any of this fails. The record of the
    provenance has a checksum (`files.write_sealed_json`, `checksums.seal`), and so has each row: `row.sealed_row_line` or `sums.new_sums`,
    which `source.Source.states` compares.

    files: what it writes. stamps: `STAMP` of the existing rows. hidden: numbers of the replaced ones.
    """

    files: list[Path]
    stamps: np.ndarray
    hidden: np.ndarray

    def describe(self, provenance: Mapping[str, Any]) -> None:
        """Record a changed provenance, with the next rows at the latest."""

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        """Add all rows or, on an error, none, and mark the rows of some numbers as replaced."""

    def close(self) -> None:
        """Write what is still in memory to the disk."""

    def release(self) -> None:
        """Close the files and release the lock."""


@runtime_checkable
class Rewritable(Protocol):
    """A format that writes its rows anew by itself. Of any other, `compact` and `prune` write a second file and put it in its place."""

    def rewrite(self, batches: Iterable[list[Row]]) -> None:
        """Replace all rows by these. Until they are whole, the old ones count."""


class Store:
    """A store of embeddings being written. Use it as a context manager.

    format: what writes its files. keep_empty: leave a new store that got no row.
    provenance: as given, plus the assumptions made during the run; its `array` is the number type, float32 or float16.

    Raises:
        UserError: see `check_writable`; the store exists and has another provenance, or is not a store; another process is writing to it.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any], keep_empty: bool = True) -> None:
        check_writable(path)
        self._keep_empty = keep_empty
        self.path, self.provenance = path, {"array": "float32"} | dict(provenance) | {"assumptions": []}
        self._is_new = not path.exists()
        try:
            kind = FORMATS[path.suffix]
            self.format: Format = kind.load(kind.writer)(path, self.provenance)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}") from None
        self._finished = StoredIds(self.format.stamps, self.format.hidden)
        self._assumed = set(self.provenance["assumptions"])
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
                if self._is_new and not self._grew and (kind is not None or not self._keep_empty):
                    self._remove()

    @property
    def stored(self) -> int:
        """How many rows it had when it was opened, without replaced ones."""
        return len(self._finished)

    def stamp(self, id: str) -> Stamp | None:
        """Return what an id's input was when it was embedded; None if the store did not have the id when it was opened."""
        return self._finished.stamp(id)

    def assume(self, notes: Iterable[str]) -> None:
        """Record what was assumed when inputs were read, up to `MAX_ASSUMPTIONS`; it is written with the next rows."""
        for note in notes:
            listed = note if len(self._assumed) < MAX_ASSUMPTIONS else FURTHER_ASSUMPTIONS
            if note not in self._assumed and listed not in self._assumed:
                self._assumed.add(listed)
                self.provenance["assumptions"].append(listed)

    def append(self, rows: Iterable[Row], notes: Iterable[str] = ()) -> None:
        """Add one item's rows, replacing those that the store had of it. notes: what was assumed when it was read.

        They reach the disk within `FLUSH_SECONDS` or `FLUSH_ROWS` rows, or on leaving.

        Raises:
            OSError: the disk is full. What was flushed before is complete; nothing more can be added.
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
        """Flush every few seconds, in a thread, even while the next input is awaited."""
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
    """Refuse a path to which no store can be written.

    Raises:
        UserError: its ending is not in `FORMATS`, or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS)}")
    refuse_object(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP until a write is whole: an exception during it could leave rows twice, or ids without vectors."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in heeded_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class StoredIds:
    """Which inputs a store holds: sorted arrays, 64 MB for a million rows, asked one by one as the inputs come.

    Args:
        stamps: `STAMP` records of all rows. hidden: numbers of the replaced rows.
    """

    def __init__(self, stamps: np.ndarray, hidden: np.ndarray) -> None:
        self._count = len(stamps) - len(hidden)
        live = np.setdiff1d(np.arange(len(stamps)), hidden, assume_unique=True)
        order = live[np.argsort(stamps["key"][live], kind="stable")]
        # Hashes are spread evenly, so that their first bits lead to a bucket of about one.
        self._shift = 64 - max(1, len(live)).bit_length()
        buckets = np.arange(2 ** (64 - self._shift) + 1, dtype=np.uint64)
        starts = np.searchsorted(stamps["key"][order] >> np.uint64(self._shift), buckets)
        # Reading single values from numpy arrays takes ten times as long.
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
        """Return the rows of an id, one a window."""
        key = id_hash(id)
        bucket = key >> self._shift
        return [row for row in self._order[self._starts[bucket] : self._starts[bucket + 1]] if self._keys[row] == key]

    def stamp(self, id: str) -> Stamp | None:
        """Return the stamp of an id's input; None if the store does not have the id."""
        key, row = id_hash(id), self._next
        if not (row < len(self._keys) and self._keys[row] == key and row not in self._hidden):  # most come in the order of the last run
            row = self._first(key)
            if row < 0:
                return None
        self._next = row + 1
        hash = self._hashes[16 * row : 16 * row + 16]
        return Stamp(self._sizes[row], self._mtimes[row], b"" if hash == NO_HASH else hash)

    def _first(self, key: int) -> int:
        """Return the first row of a key, -1 if there is none."""
        bucket = key >> self._shift
        for place in range(self._starts[bucket], self._starts[bucket + 1]):
            if self._keys[self._order[place]] == key:
                return self._order[place]
        return -1
