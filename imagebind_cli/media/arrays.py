"""Numbers in files: 16-bit and floating-point pictures, NPY, CSV and TSV, to NumPy arrays. Nothing is unpickled."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding
from imagebind_cli.media.image import open_image

MAX_VALUES = 200_000_000
"""An NPY header that promises more is refused before anything is unpacked."""


def read_map(source: Source) -> np.ndarray:
    """One value per pixel (h, w) in the file's own type, from a picture with one channel (PNG, TIFF) or an NPY file.

    Raises:
        OSError, ValueError: the file cannot be read, or holds colours.
    """
    check_file(source)
    if head(source, 6) == b"\x93NUMPY":
        values = read_npy(source)
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
            values = values.reshape(values.shape[1:] if values.shape[0] == 1 else values.shape[:2])
    else:
        image = open_image(source)
        if image.mode == "P":
            image = image.convert("RGB")
        values = np.asarray(image)
        if values.ndim == 3:  # many programs save grey as three equal channels
            if (values[..., :3] != values[..., :1]).any():
                raise ValueError(f"a colour picture (mode {image.mode}); one value per pixel is needed")
            values = values[..., 0]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"shape {values.shape}; one value per pixel, (height, width), is needed")
    return values


def read_npy(source: Source) -> np.ndarray:
    """An NPY file's array, at most `MAX_VALUES` numbers; object arrays are refused."""
    check_file(source)
    with decoding("NPY file"), open(source, "rb") if isinstance(source, str | os.PathLike) else source as file:
        file.seek(0)
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)
        if np.prod(shape, dtype=float) > MAX_VALUES:
            raise ValueError(f"promises {shape} values; at most {MAX_VALUES:,} are unpacked")
        if dtype.hasobject or dtype.kind not in "biuf":
            raise ValueError(f"holds {dtype}; numbers are needed")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def read_table(source: Source) -> np.ndarray:
    """A CSV or TSV file of numbers, float64 (rows, columns). A first line that is no number is taken for column names.

    Raises:
        OSError, ValueError: the file cannot be read, a row is short, or a cell is no number (line and cell are named).
    """
    check_file(source)
    with decoding("table"):
        data = Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source.read()
        if b"\0" in data[:4096]:
            raise ValueError("not a text file")
        text = data.decode("utf-8-sig", errors="replace")
        dialect = csv.excel_tab if "\t" in text.partition("\n")[0] else csv.excel
        rows: list[list[float]] = []
        for number, row in enumerate(csv.reader(io.StringIO(text), dialect), start=1):
            if not row:
                continue
            try:
                rows.append([float(cell) for cell in row])
            except ValueError as error:
                if number > 1:
                    raise ValueError(f"line {number}: {error}") from None
            if rows and len(rows[-1]) != len(rows[0]):
                raise ValueError(f"line {number}: {len(rows[-1])} columns, {len(rows[0])} before")
    if not rows:
        raise ValueError("holds no rows of numbers")
    return np.array(rows)


def head(source: Source, count: int) -> bytes:
    """The first bytes of a file, which tell its format more truly than its name."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read(count)
    data = source.read(count)
    source.seek(0)
    return data
