"""Prepared samples, written by `preprocess` and read by `embed` and `train`: tar shards, on disk or through a pipe, or one HDF5 file.

Reading in order: `read_shard`, `read_hdf5`. By number, in any order: `index`. Writing: `open_writer`.
"""

from imagebind_cli.prepared.check import is_prepared, sample_findings
from imagebind_cli.prepared.entries import BESIDE, Entry, Member, Prepared, as_seconds, member_key
from imagebind_cli.prepared.files import Writer, belongs_to, index, open_writer
from imagebind_cli.prepared.hdf5 import PreparedHDF5Writer, is_foreign_hdf5, is_hdf5, read_hdf5
from imagebind_cli.prepared.tar import ShardWriter, is_shard, read_shard

__all__ = [
    "BESIDE",
    "Entry",
    "Member",
    "Prepared",
    "PreparedHDF5Writer",
    "ShardWriter",
    "Writer",
    "as_seconds",
    "belongs_to",
    "index",
    "is_foreign_hdf5",
    "is_hdf5",
    "is_prepared",
    "is_shard",
    "member_key",
    "open_writer",
    "read_hdf5",
    "read_shard",
    "sample_findings",
]
