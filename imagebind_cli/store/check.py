"""Check a store row by row for every known fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imagebind_cli.boxes import holds_boxes
from imagebind_cli.descriptors import open_descriptor
from imagebind_cli.errors import UserError
from imagebind_cli.store.folder import FolderSource
from imagebind_cli.store.journal import journal_of, read_journal
from imagebind_cli.store.reader import StoreReader, lacks_vectors, open_store
from imagebind_cli.store.row import id_hash
from imagebind_cli.store.source import read_row_table
from imagebind_cli.store.sums import DAMAGED, UNSUMMED
from imagebind_cli.store_formats import TABLES

WANTED = ("modality", "model", "weights", "dim", "pool")
CLOSE = {"float32": 1e-4, "float16": 2e-3}  # how far from 1 the length of a row may be, by number type
NAMED = 5  # rows that are named for each kind of finding; the others are counted


def findings(path: Path, note: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """Yield a line for each finding; none for a store that is complete and undamaged. The `.jsonl` beside a `.npy` means that store.

    Args:
        note: called with remarks that are not faults: that rows have no checksums.
    """
    try:
        if path.suffix == ".jsonl" and path.is_file() and (vectors := lacks_vectors(path)) and vectors.exists():
            path = vectors
        reader = open_store(path)
        yield from _torn(path)
        yield from _unnamed(reader)
        yield from _damaged(reader, note)
        yield from _bad_vectors(reader)
        yield from _bad_rows(reader)
    except UserError as error:
        yield str(error).removeprefix(f"{path}: ")


def _torn(path: Path) -> Iterator[str]:
    """Yield what a killed run left behind; the next run repairs it."""
    journal = journal_of(path)
    if journal.exists():
        file = open_descriptor(journal, os.O_RDONLY)
        if read_journal(file)[1] is not None:
            yield f"{journal.name}: the last write was interrupted; the next run undoes it"
        os.close(file)
    if path.is_dir() and path.suffix not in TABLES:
        yield from FolderSource(path).faults()
    lines = path.with_suffix(".jsonl")
    if path.suffix in (".jsonl", ".npy") and path.is_file():
        table, starts = read_row_table(lines)
        if starts[-1] < lines.stat().st_size:
            yield f"{lines.name}: ends in the middle of an item after {len(table):,} rows; the next run cuts that off"
        elif path.suffix == ".npy" and len(table) != (rows := len(np.load(path, mmap_mode="r"))):
            yield f"{rows:,} vectors and {len(table):,} ids; the next run cuts off rows that lack either"


def _unnamed(reader: StoreReader) -> Iterator[str]:
    for key in WANTED:
        if key not in reader.provenance:
            yield f"does not say with what {key} it was made"


def _damaged(reader: StoreReader, note: Callable[[str], None]) -> Iterator[str]:
    """Yield rows that do not match their checksums."""
    unsummed = total = 0
    for start, states in reader.states():
        unsummed += int((states == UNSUMMED).sum())
        for row in np.flatnonzero(states == DAMAGED):
            total += 1
            if total <= NAMED:
                yield f"row {start + row}: damaged: it does not match its checksum"
    if total > NAMED:
        yield f"{total - NAMED:,} more rows like these"
    count = len(reader) + reader.replaced
    if unsummed:
        note(f"{unsummed:,} of {count:,} rows have no checksum, as of an earlier version; damage to them may go unnoticed")
    if unsummed < count and not reader.sealed:
        yield "its provenance has no checksum, though its rows have"


def _bad_vectors(reader: StoreReader) -> Iterator[str]:
    start, total = 0, 0
    for block in reader.blocks():
        if block.shape[1] != reader.dim:
            yield f"vectors of {block.shape[1]} numbers; it says {reader.dim}"
            return
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(block.astype(np.float32), axis=1)
        close = CLOSE[reader.provenance["array"]]
        for row in np.flatnonzero(~(np.abs(lengths - 1) < close)):
            total += 1
            if total <= NAMED:
                what = f"length {lengths[row]:.6g}, not 1" if np.isfinite(lengths[row]) else "no finite number in its vector"
                yield f"row {start + row} ({reader.id(start + int(row))!r}): {what}"
        start += len(block)
    if total > NAMED:
        yield f"{total - NAMED:,} more rows like these"
    if start != len(reader):
        yield f"{start:,} vectors for {len(reader):,} rows"


def _bad_rows(reader: StoreReader) -> Iterator[str]:
    """Yield ids and windows that come twice, windows that end before they start, and ids whose hash is wrong."""
    ids, keys = reader.ids, reader.stamps["key"]
    spans = np.full((len(ids), 2), -1.0) if reader.spans is None else np.nan_to_num(reader.spans, nan=-1.0)
    bad = [f"row {row} ({id!r}): its hash is another id's" for row, id in enumerate(ids) if id_hash(id) != keys[row]]
    items = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    bad += [f"{ids[items[place]]!r} comes {times} times" for place, times in _repeated(keys[items])]
    numbers = np.searchsorted(items, np.arange(len(ids)), side="right")
    regions = np.arange(len(ids)) if holds_boxes(reader.provenance) else np.zeros(len(ids), np.int64)  # boxes may come twice in their file
    windows = np.rec.fromarrays([numbers, spans[:, 0], spans[:, 1], regions])
    bad += [f"row {row} ({ids[row]!r}): its window comes {times} times" for row, times in _repeated(windows)]
    bad += [f"row {row} ({ids[row]!r}): its window ends before it starts" for row in np.flatnonzero(spans[:, 1] < spans[:, 0])]
    yield from bad[:NAMED]
    if len(bad) > NAMED:
        yield f"{len(bad) - NAMED:,} more rows like these"


def _repeated(values: np.ndarray) -> list[tuple[int, int]]:
    """Return the first position and the count of each value that comes more than once."""
    _, first, count = np.unique(values, return_index=True, return_counts=True)
    return [(int(place), int(times)) for place, times in zip(first, count, strict=True) if times > 1]
