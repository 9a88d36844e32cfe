"""NPY and NPZ files to NumPy arrays, and the first bytes of any file. Nothing is unpickled."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
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


def read_npz(source: Source, name: str | None, usual: Sequence[str], most: int = MAX_VALUES) -> np.ndarray:
    """One array of an NPZ file, at most `most` numbers.

    Args:
        name: which one; if not given, the first of the `usual` names that it has, or the only one.
    Raises:
        OSError, ValueError: the file cannot be read, is another ZIP archive, or has no such array.
    """
    check_file(source)
    with decoding("NPZ file"), zipfile.ZipFile(source) as archive:
        arrays = {member.removesuffix(".npy"): member for member in archive.namelist() if member.endswith(".npy")}
        if not arrays:
            raise ValueError("a ZIP archive without arrays; unpack it, or save the numbers as NPY")
        with archive.open(arrays[choose(arrays, name, usual)]) as member:
            return read_npy(member, most)  # type: ignore[arg-type]  # a ZipExtFile seeks and reads as any binary file


def choose(names: Iterable[str], name: str | None, usual: Sequence[str]) -> str:
    """Return which of a file's arrays is meant: the one named, else the first that has a usual name, else the only one.

    Raises:
        ValueError: there is no such array, or several may be meant.
    """
    there = list(names)
    chosen = name or next((each for each in usual if each in there), there[0] if len(there) == 1 else None)
    if chosen is None:
        raise ValueError(f"holds {', '.join(there[:12]) or 'no dataset'}; choose one with --dataset")
    if chosen not in there:
        raise ValueError(f"no dataset {chosen}; it holds {', '.join(there[:12]) or 'nothing'}")
    return chosen


def head(source: Source, count: int) -> bytes:
    """The first bytes of a file, which tell its format more truly than its name."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read(count)
    data = source.read(count)
    source.seek(0)
    return data
