"""Files that are appended to: lines, and NPY with a header of fixed length, which is rewritten so that `numpy.load` reads it at any time."""

from __future__ import annotations

import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from imagebind_cli.descriptors import open_descriptor, read_at, write_all
from imagebind_cli.errors import UserError
from imagebind_cli.files import being_written, open_locked

HEADER = 256
HEAD = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")


class GrowingNPY:
    """An NPY file being appended to, created if it does not exist.

    Args:
        dtype: of its values; may be a record. shape: of a row. lock_for: the store whose lock this file is; None locks nothing.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...] = (), lock_for: Path | None = None) -> None:
        self._dtype, self._shape = np.dtype(dtype), shape
        self._row_bytes = self._dtype.itemsize * int(np.prod(shape, dtype=int))
        self._file = _opened(path, lock_for)
        size = os.fstat(self._file).st_size
        if size > HEADER and read_at(self._file, len(HEAD), 0) != HEAD:
            os.close(self._file)
            raise UserError(f"{path}: exists and was not made by imagebind embed; write to another file")
        self.rows = max(0, size - HEADER) // self._row_bytes

    def truncate(self, rows: int) -> None:
        """Keep this many rows."""
        os.ftruncate(self._file, HEADER + rows * self._row_bytes)
        self.rows = rows
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        """Add rows. On a full disk, what was written of them does not count."""
        data = np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8).data
        write_all(self._file, data, HEADER + self.rows * self._row_bytes)
        self.rows += len(values)
        self._write_header()

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file, which ends its lock."""
        os.close(self._file)

    def _write_header(self) -> None:
        shape = (self.rows, *self._shape)
        text = f"{{'descr': {np.lib.format.dtype_to_descr(self._dtype)!r}, 'fortran_order': False, 'shape': {shape}, }}"
        write_all(self._file, HEAD + text.ljust(HEADER - 11).encode() + b"\n", 0)


class GrowingLines:
    """A file of lines being appended to, created if it does not exist. lock_for: as for `GrowingNPY`."""

    def __init__(self, path: Path, lock_for: Path | None = None) -> None:
        self._file = _opened(path, lock_for)
        self.length = os.fstat(self._file).st_size

    def truncate(self, length: int) -> None:
        """Keep this many bytes."""
        os.ftruncate(self._file, length)
        self.length = length

    def append(self, data: bytes) -> None:
        """Add lines. On a full disk, what was written of them does not count."""
        write_all(self._file, data, self.length)
        self.length += len(data)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _opened(path: Path, lock_for: Path | None) -> int:
    return open_locked(path, being_written(lock_for)) if lock_for else open_descriptor(path, os.O_RDWR | os.O_CREAT)


def has_header(path: Path, rows: int, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Check that an NPY file has the header by which other programs read at least this many rows."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, SyntaxError, TypeError, TokenError):
        return False
    return values.dtype == dtype and values.shape[1:] == shape and len(values) >= rows


def map_npy(path: Path, rows: int, dtype: Any, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Map the first rows of an NPY file with such a header."""
    return np.memmap(path, dtype, "r", HEADER, (rows, *shape)) if rows else np.empty((0, *shape), dtype)
