"""The table of store formats: everything that other files need to know about each. It imports no format, so that help can list them quickly.

A new format also needs its module in `store/`, with a `writer.Format` and a `source.Source`, and a row in docs/outputs.md. Tests and
`reliability/` take every format from here. What they know by hand is in `tests/stores.py`: how a format is read without our code, and where
its record is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StoreFormat:
    """A format of stores.

    module: the file or folder in `store/` that defines the next three. writer: a class, a `writer.Format`. reader: a function or class that returns a
    `source.Source`. start: a regular expression that a file's first bytes match; None for a format of folders. recognise: a function that
    checks a path and its first bytes; needed where `start` also fits files that are not stores, such as a user's tables of motion.
    rewritable: whether a new store can replace it, as one file or by a `writer.Rewritable`. grows: whether rows reach the disk while the
    store is open; else the whole file is written at the end. beside: endings of the other files that are part
    of a store, in place of its own.

    Raises:
        ValueError: it would take every file, or every folder, for a store.
    """

    module: str
    writer: str
    reader: str
    start: bytes | None
    recognise: str = ""
    rewritable: bool = True
    grows: bool = True
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.start and not self.recognise:
            raise ValueError(f"{self.module}: a format without `start` needs `recognise`")

    @property
    def folder(self) -> bool:
        """Whether a store is a folder."""
        return self.start is None

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files that a store of this path consists of; a folder is one of them."""
        return (path, *(path.with_suffix(ending) for ending in self.beside))

    def load(self, name: str) -> Any:
        """Import the module, and return the object of this name."""
        return getattr(import_module(f"imagebind_cli.store.{self.module}"), name)

    def recognises(self, path: Path, head: bytes | None) -> bool:
        """Check whether a path is a store of this format. head: a file's first bytes; None for a folder."""
        if head is None or self.start is None:
            fits = head is None and self.start is None
        else:
            fits = re.match(self.start, head, re.DOTALL) is not None
        return fits and (not self.recognise or self.load(self.recognise)(path, head or b""))


# By ending. Of several that recognise a file, the last one counts.
FORMATS = {
    ".jsonl": StoreFormat("lines", "JSONLinesWriter", "open_lines", start=b"", recognise="is_lines", beside=(".made.json",)),
    ".npy": StoreFormat(
        "lines", "NPYWriter", "open_npy", start=rb"\x93NUMPY", recognise="is_described", rewritable=False, beside=(".jsonl", ".made.json")
    ),
    ".safetensors": StoreFormat("tensors", "SafetensorsWriter", "open_tensors", start=rb'.{8}\{"__metadata__": \{"made": ', grows=False),
    ".h5": StoreFormat("hdf5", "StoreHDF5Writer", "HDF5Source", start=rb"\x89HDF\r\n\x1a\n", recognise="is_hdf5_store"),
    ".store": StoreFormat("folder", "FolderWriter", "FolderSource", start=None, recognise="is_folder_store"),
}
# Tables of databases, which are written by `store export` and read, but not continued: the module is the same for both.
TABLES = {".lance": StoreFormat("lance", "write_lance", "open_lance", start=None, recognise="is_lance")}
GROWING = tuple(ending for ending, format in FORMATS.items() if format.grows)
FOLDERS = tuple(ending for ending, format in FORMATS.items() if format.folder)
IN_WORDS = " or ".join(", ".join(sorted(FORMATS)).rsplit(", ", 1))  # for help
