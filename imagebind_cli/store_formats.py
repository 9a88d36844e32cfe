"""The formats of stores, a line for each, with all that other files need to know about them. Imports nothing, since help lists them.

A further one also needs its module in `store/` and a row in docs/outputs.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class StoreFormat:
    """A format of stores.

    module: in `store/`, with the class `writer` (a `writer.Format`), the function or class `reader`, which returns a `source.Source`, and the
    function `recognise`, which checks a path and its first bytes, if these do not suffice. start: the expression that they match.
    folder: such a store is a folder. rewritable: another can be written beside it and put in its place, or it has a `writer.Rewritable`.
    """

    module: str
    writer: str
    reader: str
    recognise: str = ""
    start: bytes = b""
    folder: bool = False
    rewritable: bool = True

    def load(self, name: str) -> Any:
        """Import one of its names."""
        return getattr(import_module(f"imagebind_cli.store.{self.module}"), name)

    def begins(self, head: bytes) -> bool:
        """Check whether the first bytes of a file may be such a store's."""
        return re.match(self.start, head, re.DOTALL) is not None


# By ending. Of those that a file's first bytes match, the last is asked whether it is a store.
FORMATS = {
    ".jsonl": StoreFormat("lines", "JSONLinesWriter", "open_lines", "is_lines"),
    ".npy": StoreFormat("lines", "NPYWriter", "open_npy", "is_described", start=rb"\x93NUMPY", rewritable=False),
    ".safetensors": StoreFormat("tensors", "SafetensorsWriter", "open_tensors", start=rb'.{8}\{"__metadata__": \{"made": '),
    ".h5": StoreFormat("hdf5", "StoreHDF5Writer", "HDF5Source", "is_hdf5_store", start=rb"\x89HDF\r\n\x1a\n"),
    ".store": StoreFormat("folder", "FolderWriter", "FolderSource", "is_folder_store", folder=True),
}
FOLDERS = tuple(ending for ending, format in FORMATS.items() if format.folder)
IN_WORDS = " or ".join(", ".join(sorted(FORMATS)).rsplit(", ", 1))  # for help
