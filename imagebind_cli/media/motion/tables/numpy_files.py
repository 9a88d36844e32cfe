"""NPY and NPZ files of readings. Arrays of objects are left out; nothing is unpickled."""

from __future__ import annotations

import zipfile

import numpy as np

from imagebind_cli.media.arrays import Header, npz_members, read_array, read_header, read_npy
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.motion.tables import table
from imagebind_cli.media.motion.tables.columns_of import choose_arrays, table_of_array, table_of_arrays
from imagebind_cli.media.motion.tables.table import Table, TextMemory, check_size


def read_npy_table(source: Source) -> Table:
    """Read an NPY file (t, channels) or (channels, t)."""
    return table_of_array(read_npy(source, table.MAX_VALUES))


def read_npz_table(archive: zipfile.ZipFile, dataset: str | None) -> Table:
    """Read the arrays of an NPZ file as columns."""
    members = npz_members(archive)
    headers: dict[str, Header] = {}
    for name, info in members.items():
        with archive.open(info) as member:
            header = read_header(member)
        if header.shape and not header.dtype.hasobject:
            headers[name] = header
    chosen = choose_arrays(headers, dataset)
    check_size(sum(header.size for header in chosen.values()), "; --dataset names a part")
    memory = TextMemory()
    arrays: dict[str, np.ndarray] = {}
    for name, header in chosen.items():
        if header.dtype.kind in "SU":
            memory.reserve(header.count, header.count * header.dtype.itemsize)
        with archive.open(members[name]) as member:
            values = read_array(member, members[name].file_size)
        arrays |= {field: values[field] for field in values.dtype.names} if values.dtype.names else {name: values}
    arrays = {name: values for name, values in arrays.items() if values.dtype.kind in "biufmMU"}
    if not arrays:
        raise ValueError("holds no arrays of numbers; objects are never unpickled")
    return table_of_arrays(arrays, memory)
