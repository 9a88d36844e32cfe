"""Tables in a zip file, and NPZ files. Nothing is unpacked to disk."""

from __future__ import annotations

import zipfile
from typing import BinaryIO, cast

import numpy as np

from imagebind_cli.media.arrays import ZIP_MAGIC
from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes
from imagebind_cli.media.motion.tables.numpy_files import read_npz_table
from imagebind_cli.media.motion.tables.table import MAX_VALUES, Table
from imagebind_cli.media.motion.tables.text import read_text_table

SUFFIXES = ".csv", ".tsv", ".txt"
MAX_BYTES = 20 * MAX_VALUES  # of a table, unpacked
MAX_RATIO, FREE_BYTES = 200, 10_000_000  # how many times its packed size a table may unpack to, beyond a size that takes no time


@decoding("zip file")
def read_zipped_table(source: Source, dataset: str | None) -> Table:
    """Read an NPZ file, or a table in a zip file. dataset: which one."""
    with zipfile.ZipFile(source) as archive:
        names = _members(archive)
        if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
            raise ValueError("is an Excel workbook; save the sheet as CSV")
        if "content.xml" in names and "mimetype" in names:
            raise ValueError("is an OpenDocument file; save the sheet as CSV")
        if names and all(name.endswith(".npy") for name in names):
            return read_npz_table(archive, dataset)
        tables = [name for name in names if name.lower().endswith(SUFFIXES)]
        if dataset is not None and dataset not in tables:
            raise ValueError(f"no table {dataset!r}; it has {', '.join(tables[:12]) or 'none'}")
        if dataset is None and len(tables) != 1:
            what = f"several tables, {', '.join(tables[:6])}; --dataset names one" if tables else "no table that ends in .csv, .tsv or .txt"
            raise ValueError(f"is a zip file of {what}")
        info = archive.getinfo(dataset or tables[0])
        if info.file_size > MAX_BYTES:
            raise ValueError(f"{info.filename} unpacks to {info.file_size:,} bytes; at most {MAX_BYTES:,} are read")
        if info.file_size > max(FREE_BYTES, MAX_RATIO * info.compress_size):
            raise ValueError(f"{info.filename} unpacks to more than {MAX_RATIO} times its size; unpack it and give the table")
        with archive.open(info) as member:
            return read_text_table(cast(BinaryIO, member))


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of a zip file's files, without those that a Mac adds."""
    return [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]


@decoding("zip file")
def zipped_tables(source: Source | np.ndarray) -> list[str]:
    """Return the names of the tables in a zip file; none if it is another file."""
    if isinstance(source, np.ndarray):
        return []
    check_file(source)
    if not first_bytes(source, 20).startswith(ZIP_MAGIC):
        return []
    with zipfile.ZipFile(source) as archive:
        return [name for name in _members(archive) if name.lower().endswith(SUFFIXES)]
