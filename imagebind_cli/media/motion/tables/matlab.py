"""MATLAB 5 files of readings: their variables of real numbers. Cells, structures and text are left out.

This reader exists because SciPy allocates what a damaged file claims, and can crash on one.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from imagebind_cli.media.decoding import Source, decoding, opened
from imagebind_cli.media.motion.tables.columns_of import choose_arrays, table_of_arrays
from imagebind_cli.media.motion.tables.table import Table, TextMemory, check_size

MATLAB5_MAGIC = b"MATLAB 5.0"

HEADER_BYTES = 128  # the last two give the byte order
MATRIX, COMPRESSED = 14, 15  # types of elements
NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # of elements
NUMBER_CLASSES = range(6, 16)  # of arrays: double, single, and whole numbers
COMPLEX = 0x08  # flag of an array
MAX_HEADING_BYTES = 65_536  # of an array's flags, dimensions and name, each


class Readable(Protocol):
    """What the parts of an element are read from."""

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""


class Inflated:
    """The bytes of a compressed element, inflated only as far as they are read."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length
        self._inflater = zlib.decompressobj()

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        parts = []
        while count and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._file.read(min(self._left, 65_536))
                self._left -= len(packed)
            part = self._inflater.decompress(packed, count)
            if not packed and not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Variable:
    """An array of real numbers, and where it is. start, length: of its element's content in the file. compressed: whether that is."""

    start: int
    length: int
    compressed: bool
    shape: tuple[int, ...]
    numeric: bool

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def read_matlab_table(source: Source, dataset: str | None) -> Table:
    """Read the variables of real numbers that share a length, or the one named."""
    with decoding("MATLAB file"), opened(source) as file:
        order = "<" if file.read(HEADER_BYTES)[-2:] == b"IM" else ">"
        chosen = choose_arrays(_variables(file, order), dataset)
        check_size(sum(variable.count for variable in chosen.values()), "; --dataset names a part")
        arrays = {name: _read_numbers(file, variable, order) for name, variable in chosen.items() if variable.numeric and variable.count}
    return table_of_arrays(arrays, TextMemory())


def _variables(file: BinaryIO, order: str) -> dict[str, Variable]:
    """List a file's arrays, of which nothing but the headings is read."""
    found: dict[str, Variable] = {}
    position = HEADER_BYTES
    file.seek(position)
    while len(tag := file.read(8)) == 8:
        kind, length = struct.unpack(f"{order}II", tag)
        start = position + 8
        if start + length > file.seek(0, io.SEEK_END):
            raise ValueError("not a readable MATLAB file: it ends early")
        if kind in (MATRIX, COMPRESSED):
            content = _content(file, start, length, kind == COMPRESSED, order)
            name, shape, numeric = _heading(content, order)
            found[name] = Variable(start, length, kind == COMPRESSED, shape, numeric)
        elif kind not in NUMBER_TYPES:
            raise ValueError(f"not a readable MATLAB file: a part of the unknown type {kind}")
        position = start + length
        file.seek(position)
    return found


def _content(file: BinaryIO, start: int, length: int, compressed: bool, order: str) -> Readable:
    """Return what a matrix holds, from its beginning."""
    file.seek(start)
    if not compressed:
        return file
    inflated = Inflated(file, length)
    if len(tag := inflated.read(8)) < 8 or struct.unpack(f"{order}II", tag)[0] != MATRIX:
        raise ValueError("not a readable MATLAB file: a compressed part holds no array")
    return inflated


def _heading(content: Readable, order: str) -> tuple[str, tuple[int, ...], bool]:
    """Read an array's name and shape, and whether its values are real numbers."""
    flags = _part(content, order, MAX_HEADING_BYTES)[1]
    shape = np.frombuffer(_part(content, order, MAX_HEADING_BYTES)[1], f"{order}i4").tolist()
    name = _part(content, order, MAX_HEADING_BYTES)[1].decode("latin-1")
    if len(flags) < 4 or min(shape, default=-1) < 0:
        raise ValueError("not a readable MATLAB file: an array has no class or no shape")
    word = struct.unpack(f"{order}I", flags[:4])[0]
    return name, tuple(shape), word & 0xFF in NUMBER_CLASSES and not (word >> 8) & COMPLEX


def _part(content: Readable, order: str, most: int) -> tuple[int, bytes]:
    """Read the type and the bytes of an array's next part, which takes a multiple of 8 bytes."""
    tag = content.read(8)
    if len(tag) < 8:
        raise ValueError("not a readable MATLAB file: it ends early")
    kind, length = struct.unpack(f"{order}II", tag)
    if kind >> 16:  # a small element is inside its tag
        return kind & 0xFFFF, tag[4 : 4 + min(kind >> 16, 4)]
    if length > most:
        raise ValueError(f"not a readable MATLAB file: a part of {length:,} bytes where at most {most:,} are expected")
    data = content.read(length)
    if len(data) < length:
        raise ValueError("not a readable MATLAB file: it ends early")
    content.read(-length % 8)
    return kind, data


def _read_numbers(file: BinaryIO, variable: Variable, order: str) -> np.ndarray:
    """Read an array in the type that it is stored in."""
    content = _content(file, variable.start, variable.length, variable.compressed, order)
    _heading(content, order)
    kind, data = _part(content, order, 8 * variable.count)
    if kind not in NUMBER_TYPES:
        raise ValueError(f"not a readable MATLAB file: an array of the unknown type {kind}")
    numbers = np.frombuffer(data, f"{order}{NUMBER_TYPES[kind]}", len(data) // np.dtype(NUMBER_TYPES[kind]).itemsize)
    if len(numbers) != variable.count:
        raise ValueError(f"not a readable MATLAB file: {len(numbers):,} numbers in an array of {variable.count:,}")
    return numbers.reshape(variable.shape, order="F")
