"""The table of store formats: everything that other files need to know about each. It imports no format, so that help can list them quickly.

A new format also needs its module in `store/` and a row in docs/outputs.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class StoreFormat:
    """A format of stores.

    module: the file in `store/` that defines the next three. writer: a class, a `writer.Format`. reader: a function or class that returns a
    `source.Source`. recognise: a function that checks a path and its first bytes, where `start` does not suffice. start: a regular expression
    that the first bytes match. folder: whether a store is a folder. rewritable: whether a new store can replace it, as one file or by a
    `writer.Rewritable`.
    """

    module: str
    writer: str
    reader: str
    recognise: str = ""
    start: bytes = b""
    folder: bool = False
    rewritable: bool = True

    def load(self, name: str) -> Any:
        """Import the module, and return the object of this name."""
        return getattr(import_module(f"imagebind_cli.store.{self.module}"), name)

    def begins(self, head: bytes) -> bool:
        """Check whether a file with these first bytes may be a store of this format."""
        return re.match(self.start, head, re.DOTALL) is not None


# By ending. Of the formats that match a file's first bytes, the last decides whether it is a store.
FORMATS = {
    ".jsonl": StoreFormat("lines", "JSONLinesWriter", "open_lines", "is_lines"),
    ".npy": StoreFormat("lines", "NPYWriter", "open_npy", "is_described", start=rb"\x93NUMPY", rewritable=False),
    ".safetensors": StoreFormat("tensors", "SafetensorsWriter", "open_tensors", start=rb'.{8}\{"__metadata__": \{"made": '),
    ".h5": StoreFormat("hdf5", "StoreHDF5Writer", "HDF5Source", "is_hdf5_store", start=rb"\x89HDF\r\n\x1a\n"),
    ".store": StoreFormat("folder", "FolderWriter", "FolderSource", "is_folder_store", folder=True),
}
FOLDERS = tuple(ending for ending, format in FORMATS.items() if format.folder)
IN_WORDS = " or ".join(", ".join(sorted(FORMATS)).rsplit(", ", 1))  # for help
