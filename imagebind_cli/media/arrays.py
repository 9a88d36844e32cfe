"""NPY files to NumPy arrays, and the first bytes of any file. Nothing is unpickled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding

MAX_VALUES = 200_000_000
"""An NPY header that promises more is refused before anything is unpacked."""


@dataclass(frozen=True)
class Header:
    """What an NPY file says of its array. size: in numbers, or in 8 bytes where one element is larger."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> float:
        return float(np.prod(self.shape, dtype=float)) * max(1, self.dtype.itemsize / 8)


def read_header(file: IO[bytes]) -> Header:
    """The header at a file's place.

    Raises:
        ValueError: there is none that makes sense.
    """
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = reader(file)
    except ValueError as error:
        raise ValueError(f"not a readable NPY file: {str(error).partition('.')[0]}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"promises {shape} values")
    return Header(shape, dtype)


def read_npy(source: Source, most: int = MAX_VALUES) -> np.ndarray:
    """An NPY file's array, at most `most` numbers; object arrays are refused."""
    check_file(source)
    with decoding("NPY file"), open(source, "rb") if isinstance(source, str | os.PathLike) else source as file:
        file.seek(0)
        header = read_header(file)
        if header.size > most:
            raise ValueError(f"promises {header.shape} values; at most {most:,} are unpacked")
        if header.dtype.hasobject or header.dtype.kind not in "biuf":
            raise ValueError(f"holds {header.dtype}; numbers are needed")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def head(source: Source, count: int) -> bytes:
    """The first bytes of a file, which tell its format more truly than its name."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read(count)
    data = source.read(count)
    source.seek(0)
    return data
