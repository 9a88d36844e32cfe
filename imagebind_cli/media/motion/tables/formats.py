"""Choose the reader for a file of readings, by its first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from imagebind_cli.media.arrays import NPY_MAGIC, ZIP_MAGIC
from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes
from imagebind_cli.media.hdf5 import HDF5_MAGIC, MATLAB_MAGIC
from imagebind_cli.media.motion.tables.columns_of import table_of_array
from imagebind_cli.media.motion.tables.hdf5 import read_hdf5_table
from imagebind_cli.media.motion.tables.matlab import MATLAB5_MAGIC, read_matlab_table
from imagebind_cli.media.motion.tables.numpy_files import read_npy_table
from imagebind_cli.media.motion.tables.parquet import PARQUET_MAGIC, read_parquet_table
from imagebind_cli.media.motion.tables.table import Table
from imagebind_cli.media.motion.tables.text import read_text_table
from imagebind_cli.media.motion.tables.zipped import read_zipped_table

# Formats that hold several arrays or tables, of which `dataset` names a part; the others hold one.
OF_SEVERAL: dict[bytes, Callable[[Source, str | None], Table]] = {
    HDF5_MAGIC: read_hdf5_table,
    MATLAB_MAGIC: read_hdf5_table,
    MATLAB5_MAGIC: read_matlab_table,
    **dict.fromkeys(ZIP_MAGIC, read_zipped_table),
}
OF_ONE: dict[bytes, Callable[[Source], Table]] = {PARQUET_MAGIC: read_parquet_table, NPY_MAGIC: read_npy_table}

# First bytes of files that are not tables, and what to do with them.
FOREIGN = (
    (rb"#ROSBAG", "a ROS bag; write its imu topic as CSV (rostopic echo -b FILE -p /imu > imu.csv)"),
    (rb"\x89MCAP", "an MCAP file; write its imu topic as CSV"),
    (rb"SQLite format 3\0", "an SQLite database, such as ROS 2 bags are; write its readings as CSV"),
    (rb".{8}\.FIT", "a FIT file; write its accelerometer and gyroscope messages as CSV (FitCSVTool)"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as CSV"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "compressed; unpack it first"),
    (rb"ARROW1", "an Arrow or Feather file; save it as Parquet"),
    (rb"\x80[\x02-\x05]", "a pickle, which is never loaded; save it as CSV, Parquet or NPZ"),
)


@decoding("table")
def read_table(source: Source | np.ndarray, dataset: str | None = None) -> Table:
    """Read a table in any of the formats.

    Args:
        dataset: which array or group of an HDF5, MATLAB or NPZ file, or which table of a zip file; if not given, all arrays that
            share a length, or the only table.
    Raises:
        OSError, ValueError: the file cannot be read, a row is short, or the package that reads this format is missing.
    """
    if isinstance(source, np.ndarray):
        return table_of_array(source)
    check_file(source)
    start = first_bytes(source, 20)
    for magic, read_part in OF_SEVERAL.items():
        if start.startswith(magic):
            return read_part(source, dataset)
    if dataset:
        raise ValueError("--dataset is for HDF5, MATLAB, NPZ and zip files; this is none of them")
    for magic, read_whole in OF_ONE.items():
        if start.startswith(magic):
            return read_whole(source)
    for pattern, what in FOREIGN:
        if re.match(pattern, start, re.DOTALL):
            raise ValueError(f"is {what}")
    return read_text_table(source)
