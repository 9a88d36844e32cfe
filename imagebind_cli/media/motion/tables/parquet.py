"""Parquet files of readings, with pyarrow, which is an extra."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import numpy as np

from imagebind_cli.media.decoding import Source, decoding
from imagebind_cli.media.isolation import call_apart
from imagebind_cli.media.motion.tables.columns_of import table_of_arrays
from imagebind_cli.media.motion.tables.table import MAX_TEXT_BYTES, MAX_VALUES, Table, TextMemory, check_size

PARQUET_MAGIC = b"PAR1"


def read_parquet_table(source: Source) -> Table:
    """Read the columns of numbers, times and text, in a separate process; nested ones are left out.

    Raises:
        ValueError: pyarrow is missing, or the columns unpack to more than a recording may have.
    """
    if find_spec("pyarrow") is None:
        raise ValueError("a Parquet file; pip install pyarrow reads it")
    table: Table = call_apart("imagebind_cli.media.motion.tables.parquet:_read", source)
    return table


def _read(source: Source) -> Table:
    from pyarrow import parquet

    with decoding("Parquet file"):
        metadata = parquet.read_metadata(source)
        check_size(metadata.num_rows * metadata.num_columns)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        unpacked = sum(group.column(number).total_uncompressed_size for group in groups for number in range(group.num_columns))
        if unpacked > 8 * MAX_VALUES + MAX_TEXT_BYTES:
            raise ValueError(f"unpacks to {unpacked:,} bytes; at most {8 * MAX_VALUES + MAX_TEXT_BYTES:,} are read")
        columns = [field for field in metadata.schema.to_arrow_schema() if not _is_left_out(field.type)]
        # Text stays a dictionary: each of its words is unpacked once, however many rows repeat it.
        file = parquet.ParquetFile(source, read_dictionary=[field.name for field in columns if _is_text(field.type)])
        table = file.read(columns=[field.name for field in columns])
        memory = TextMemory()
        arrays: dict[str, np.ndarray] = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            values = _text(column, memory) if _is_text(column.type) else _numbers(column, memory)
            arrays |= {name: values} if values.dtype.kind in "biufOmM" else {}
        return table_of_arrays(arrays, memory)


def _is_text(kind: Any) -> bool:
    """Check whether an Arrow type is text or bytes of any length, perhaps as a dictionary."""
    return re.search(r"string|(?<!fixed_size_)binary", str(getattr(kind, "value_type", kind))) is not None


def _is_left_out(kind: Any) -> bool:
    """Check whether an Arrow type is nested, or bytes of a fixed length."""
    return re.match(r"list|large_list|fixed_size|struct|map|union|extension", str(kind)) is not None


def _text(column: Any, memory: TextMemory) -> np.ndarray:
    """Return a column of text (rows,), None where there is none."""
    memory.reserve(0, 16 * len(column))
    cells = np.empty(len(column), object)
    start = 0
    for chunk in column.chunks:
        memory.reserve(len(chunk.dictionary), chunk.dictionary.nbytes)
        words = np.array([*chunk.dictionary.to_pylist(), None], object)
        cells[start : start + len(chunk)] = words[chunk.indices.fill_null(len(words) - 1).to_numpy()]
        start += len(chunk)
    return cells


def _numbers(column: Any, memory: TextMemory) -> np.ndarray:
    """Return a column of numbers or times (rows,), masked where large whole numbers are missing; decimals come as Python objects."""
    if re.match(r"decimal|time(32|64)|null|bool", str(column.type)):
        memory.reserve(len(column))
    values = column.to_numpy()
    if column.null_count and str(column.type) in ("int64", "uint64"):  # which came as float64
        values = np.ma.masked_array(column.fill_null(0).to_numpy(), np.isnan(values))
    return values
