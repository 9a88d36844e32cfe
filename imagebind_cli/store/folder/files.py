"""The files of a folder store, and the record of each commit."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store.provenance import parse_provenance
from imagebind_cli.store.row import STAMP

INDEX = np.dtype([*STAMP.descr, ("start", "<f8"), ("end", "<f8"), ("line", "<i8")])
# A row's `STAMP`, its span, and where its line starts in its part's `rows`.
RECORD = struct.Struct("<QQQQI")


def is_folder_store(path: Path, head: bytes) -> bool:
    """Check whether a folder holds the files of a store."""
    return (path / "commits").exists() and (path / "made.json").exists()


@dataclass(frozen=True)
class Commit:
    """The valid part of a store: rows from part `first` on, bytes of the last part's lines, and replaced rows."""

    first: int = 0
    rows: int = 0
    line_bytes: int = 0
    replaced: int = 0

    def pack(self) -> bytes:
        """Return the record of `commits`."""
        values = (self.first, self.rows, self.line_bytes, self.replaced)
        return RECORD.pack(*values, zlib.crc32(RECORD.pack(*values, 0)))


def last_commit(path: Path) -> tuple[Commit, int]:
    """Read the last whole record of `commits`, and where the next one goes."""
    with open(path, "rb") as file:
        records = file.seek(0, os.SEEK_END) // RECORD.size
        while records:
            file.seek((records - 1) * RECORD.size)
            *values, _ = RECORD.unpack(record := file.read(RECORD.size))
            if Commit(*values).pack() == record:
                return Commit(*values), records * RECORD.size
            records -= 1
    return Commit(), 0


def count_damaged_commits(path: Path) -> int:
    """Count the records of `commits` that are not whole; those before the last whole one no longer count."""
    data = path.read_bytes()
    records = (data[start : start + RECORD.size] for start in range(0, len(data), RECORD.size))
    return sum(len(record) < RECORD.size or Commit(*RECORD.unpack(record)[:-1]).pack() != record for record in records)


@dataclass(frozen=True)
class FolderFiles:
    """A folder store's files."""

    folder: Path

    def part(self, kind: str, number: int) -> Path:
        """Return a part of `vectors`, `rows`, `index`, `sums` or `replaced`."""
        return self.folder / f"{kind}-{number:05}.{'jsonl' if kind == 'rows' else 'npy'}"

    @property
    def provenance(self) -> Path:
        """The file of its provenance."""
        return self.folder / "made.json"

    @property
    def commits(self) -> Path:
        """The file of commits, which a writer locks."""
        return self.folder / "commits"


def read_provenance(names: FolderFiles) -> tuple[dict[str, Any], int, bool]:
    """Read the provenance of a folder store, how many rows a part has, and whether the record has a checksum.

    Raises:
        UserError: it cannot be read.
    """
    try:
        provenance, sealed = parse_provenance(names.provenance.read_bytes())
        if not (isinstance(rows := provenance.pop("part_rows"), int) and 0 < rows < 1 << 40):
            raise ValueError(f"parts of {rows!r} rows")
        return provenance, rows, sealed
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{names.folder}: not a store of imagebind embed: {names.provenance.name}: {error}") from None
