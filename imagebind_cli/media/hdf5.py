"""HDF5 files, opened so that none of them refers to another file or claims more than fits: for maps and recordings alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding

if TYPE_CHECKING:
    import h5py

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB_MAGIC = b"MATLAB 7.3"  # followed by HDF5
MAX_CHUNK_BYTES = 500_000_000  # of a dataset's piece, which the library unpacks whole
MAX_ATTRIBUTE_BYTES = 65_536  # of an attribute; longer ones are ignored


@contextmanager
def open_hdf5(source: Source) -> Iterator[h5py.File]:
    """Open an HDF5 or MATLAB 7.3 file; whatever the library raises meanwhile is a `ValueError`."""
    import h5py

    check_file(source)
    with decoding("HDF5 file"), h5py.File(source, "r") as file:
        yield file


def check_dataset(dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose values are in other files, or in chunks too large to unpack.

    Raises:
        ValueError: it is external or virtual, or its chunks are too large.
    """
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"dataset {dataset.name.strip('/')} lies in other files; the numbers themselves are needed")
    if math.prod(dataset.chunks or ()) * dataset.dtype.itemsize > MAX_CHUNK_BYTES:
        raise ValueError(f"dataset {dataset.name.strip('/')} has chunks of more than {MAX_CHUNK_BYTES // 1_000_000} MB")


def find_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of this file alone, by its path.

    Raises:
        ValueError: there is none, it is a link, or `check_dataset` refuses it.
    """
    import h5py

    node: Any = file
    for part in name.strip("/").split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) and part else None
        if link is None:
            raise ValueError(f"no dataset {name}; it holds {', '.join(file) or 'nothing'}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"dataset {name} is a link; the numbers themselves are needed")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"{name} is not a dataset; name one with --dataset")
    check_dataset(node)
    return node


def read_attribute(dataset: h5py.Dataset, name: str) -> Any:
    """Return the first value of an attribute, decoded if it is text; None where there is none, or where it is too large to be meant."""
    attribute = dataset.attrs.get_id(name)
    of_any_length = attribute.dtype.hasobject
    count = math.prod(attribute.shape)
    if not count or count * attribute.dtype.itemsize > MAX_ATTRIBUTE_BYTES or (of_any_length and count > 1):
        return None
    value = np.ravel(dataset.attrs[name])[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value
