"""Prepared samples, written once by `preprocess` and read by `embed` and `train`: tar shards, on disk or through a pipe, or one HDF5 file.

Reading in order: `read_shard`, `read_hdf5`. By number, in any order: `index`. Writing: `open_writer`.
"""

from imagebind_cli.prepared.entries import Entry, Part, Prepared, key_of
from imagebind_cli.prepared.files import Writer, index, is_own, open_writer
from imagebind_cli.prepared.hdf5 import HDF5Writer, is_foreign_hdf5, is_hdf5, read_hdf5
from imagebind_cli.prepared.tar import ShardWriter, is_shard, read_shard

__all__ = [
    "Entry",
    "HDF5Writer",
    "Part",
    "Prepared",
    "ShardWriter",
    "Writer",
    "index",
    "is_foreign_hdf5",
    "is_hdf5",
    "is_own",
    "is_shard",
    "key_of",
    "open_writer",
    "read_hdf5",
    "read_shard",
]
