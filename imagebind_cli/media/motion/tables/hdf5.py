"""HDF5 files of readings, and MATLAB 7.3 files, which are HDF5. An attribute `units` of a dataset is taken for part of its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from imagebind_cli.media.decoding import Source
from imagebind_cli.media.hdf5 import check_dataset, open_hdf5, read_attribute
from imagebind_cli.media.isolation import call_apart
from imagebind_cli.media.motion.tables.columns_of import choose_arrays, table_of_arrays
from imagebind_cli.media.motion.tables.table import Table, TextMemory, check_size

if TYPE_CHECKING:
    import h5py

CELLS_AT_ONCE = 100_000_000  # bytes that strings read together may take; each may be as long as the file


def read_hdf5_table(source: Source, dataset: str | None) -> Table:
    """Read the datasets of one or two dimensions that share a length, of numbers, text or fields of these, in a separate process."""
    table: Table = call_apart("imagebind_cli.media.motion.tables.hdf5:_read", source, dataset)
    return table


def _read(source: Source, dataset: str | None) -> Table:
    with open_hdf5(source) as file:
        chosen = choose_arrays(dict(_datasets(file)), dataset)
        for entry in chosen.values():
            check_dataset(entry)
        check_size(sum(entry.size * max(1, entry.dtype.itemsize / 8) for entry in chosen.values()), "; --dataset names a part")
        memory = TextMemory()
        arrays: dict[str, np.ndarray] = {}
        for name, entry in chosen.items():
            if entry.dtype.names:
                arrays |= _fields(entry, memory)
            elif _is_read(entry.dtype):
                unit = next(
                    (unit for key in ("units", "unit") if key in entry.attrs and (unit := read_attribute(entry, key)) is not None), None
                )
                arrays[name.rpartition("/")[2] + ("" if unit is None else f" ({unit})")] = _values(entry, memory)
    return table_of_arrays(arrays, memory)


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Find the datasets that may be columns. Links are not followed."""
    import h5py

    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset) and entry.shape and entry.ndim in (1, 2) and entry.size and not name.startswith("#"):
            found.append((name, entry))

    file.visititems(visit)
    yield from found


def _is_read(kind: np.dtype) -> bool:
    """Check whether values of a type become columns: numbers and text do, but not enumerations, references and lists."""
    import h5py

    return bool(h5py.check_string_dtype(kind)) or (kind.kind in "biufSU" and kind.metadata is None)


def _fields(entry: h5py.Dataset, memory: TextMemory) -> dict[str, np.ndarray]:
    """Read those fields of a compound dataset that hold numbers or text."""
    kinds = {name: entry.dtype.fields[name][0].base for name in entry.dtype.names}
    return {name: _values(entry, memory, name) for name, kind in kinds.items() if kind.kind in "biufSU" or _is_read(kind)}


def _values(entry: h5py.Dataset, memory: TextMemory, field: str | None = None) -> np.ndarray:
    """Read a dataset, or a field of it. Text is counted first, and a piece at a time where its strings may be of any length."""
    kind = entry.dtype if field is None else entry.dtype.fields[field][0]
    view = entry if field is None else entry.fields(field)
    if kind.kind in "SU":
        memory.reserve(entry.size, entry.size * kind.itemsize)
    if not kind.hasobject:
        return np.asarray(view[()])
    memory.reserve(entry.size)
    width = entry.size // len(entry)
    rows = max(1, CELLS_AT_ONCE // (width * max(1, entry.file.id.get_filesize())))
    pieces = []
    for start in range(0, len(entry), rows):
        piece = np.asarray(view[start : start + rows], object)
        memory.reserve(0, sum(map(len, piece.ravel())))
        pieces.append(piece)
    return np.concatenate(pieces)
