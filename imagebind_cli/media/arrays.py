"""NPY and NPZ files to NumPy arrays, checked before memory is reserved for them. Nothing is unpickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding, opened

MAX_VALUES = 200_000_000  # of an array, where a reader sets no lower limit
NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04", b"PK\x05\x06"  # the second is of an empty archive


@dataclass(frozen=True)
class Header:
    """What an NPY file states about its array. end: where its numbers begin in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    end: int

    @property
    def count(self) -> float:
        """Elements; as a float, since a hostile shape may be beyond any integer type."""
        return float(np.prod(self.shape, dtype=float))

    @property
    def size(self) -> float:
        """Numbers of 8 bytes that it fills, at least one for each element."""
        return self.count * max(1, self.dtype.itemsize / 8)


def read_header(file: IO[bytes]) -> Header:
    """Read the header that begins at a file's position.

    Raises:
        ValueError: there is none, or it makes no sense.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except ValueError as error:
        raise ValueError(f"not a readable NPY file: {str(error).partition('.')[0]}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"promises {shape} values")
    return Header(shape, dtype, file.tell())


def read_array(file: IO[bytes], length: int) -> np.ndarray:
    """Read the array of an NPY file of `length` bytes, which must hold as much as its header states.

    Raises:
        ValueError: the file ends early, or holds Python objects.
    """
    file.seek(0)
    header = read_header(file)
    if header.dtype.hasobject:
        raise ValueError(f"holds {header.dtype}; numbers are needed")
    if header.count * header.dtype.itemsize > length - header.end:
        raise ValueError(f"not a readable NPY file: it ends before the {header.shape} values that its header promises")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


@decoding("NPY file")
def read_npy(source: Source, most: int = MAX_VALUES) -> np.ndarray:
    """Read an NPY file's array of at most `most` numbers."""
    check_file(source)
    with opened(source) as file:
        return _read_numbers(file, file.seek(0, io.SEEK_END), most)


def _read_numbers(file: IO[bytes], length: int, most: int) -> np.ndarray:
    file.seek(0)
    header = read_header(file)
    if header.size > most:
        raise ValueError(f"promises {header.shape} values; at most {most:,} are unpacked")
    if header.dtype.hasobject or header.dtype.kind not in "biuf":
        raise ValueError(f"holds {header.dtype}; numbers are needed")
    return read_array(file, length)


def npz_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the arrays of an NPZ file by name."""
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}


@decoding("NPZ file")
def read_npz(source: Source, name: str | None, usual: Sequence[str], most: int = MAX_VALUES) -> np.ndarray:
    """Read one array of an NPZ file, of at most `most` numbers.

    Args:
        name: which one; if not given, the first of the `usual` names that it has, or the only one.
    Raises:
        OSError, ValueError: the file cannot be read, is another ZIP archive, or has no such array.
    """
    check_file(source)
    with zipfile.ZipFile(source) as archive:
        members = npz_members(archive)
        if not members:
            raise ValueError("a ZIP archive without arrays; unpack it, or save the numbers as NPY")
        info = members[choose_dataset(members, name, usual)]
        with archive.open(info) as member:
            return _read_numbers(member, info.file_size, most)


def choose_dataset(names: Iterable[str], name: str | None, usual: Sequence[str]) -> str:
    """Choose one of a file's arrays: the one named, else the first that has a usual name, else the only one.

    Raises:
        ValueError: no such array exists, or several may be meant.
    """
    present = list(names)
    chosen = name or next((each for each in usual if each in present), present[0] if len(present) == 1 else None)
    if chosen is None:
        raise ValueError(f"holds {', '.join(present[:12]) or 'no dataset'}; choose one with --dataset")
    if chosen not in present:
        raise ValueError(f"no dataset {chosen}; it holds {', '.join(present[:12]) or 'nothing'}")
    return chosen
