"""NPY files to NumPy arrays, and the first bytes of any file. Nothing is unpickled."""

from __future__ import annotations

import os

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding

MAX_VALUES = 200_000_000
"""An NPY header that promises more is refused before anything is unpacked."""


def read_npy(source: Source, most: int = MAX_VALUES) -> np.ndarray:
    """An NPY file's array, at most `most` numbers; object arrays are refused."""
    check_file(source)
    with decoding("NPY file"), open(source, "rb") if isinstance(source, str | os.PathLike) else source as file:
        file.seek(0)
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, _, dtype = reader(file)
        except ValueError as error:
            raise ValueError(f"not a readable NPY file: {str(error).partition('.')[0]}") from None
        if min(shape, default=0) < 0 or np.prod(shape, dtype=float) > most:
            raise ValueError(f"promises {shape} values; at most {most:,} are unpacked")
        if dtype.hasobject or dtype.kind not in "biuf":
            raise ValueError(f"holds {dtype}; numbers are needed")
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
