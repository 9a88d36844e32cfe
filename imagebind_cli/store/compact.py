"""A store written anew without the rows that do not count any more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.store.folder_writer import FolderWriter
from imagebind_cli.store.made import beside
from imagebind_cli.store.reader import StoreReader, open_store
from imagebind_cli.store.row import Row
from imagebind_cli.store.writer import FLUSH_ROWS, Store


def compact(path: Path) -> int:
    """Write a store anew without replaced rows, and give their number. Until all is there the old one counts; readers are not disturbed.

    Raises:
        UserError: it is no store of one file or folder, another process writes to it, or its format cannot be put in place at once.
    """
    made = open_store(path).made
    if path.suffix == ".npy":
        raise UserError(f"{path}: two files cannot be replaced at once; write another without these rows: imagebind store export")
    with Store(path, made) as store:  # no other writer now
        reader = open_store(path)
        if isinstance(store.format, FolderWriter):
            store.format.rewrite(_batches(reader))
        else:
            _replace(path, reader)
        return reader.replaced


def _replace(path: Path, reader: StoreReader) -> None:
    with replacing(path) as place:
        with Store(place, reader.made) as store:
            store.assume(reader.made.get("assumptions", []))
            for rows in reader.items():
                store.append(rows)
        beside(place).unlink(missing_ok=True)  # the record beside the old file is the same


def _batches(reader: StoreReader) -> Iterator[list[Row]]:
    items = reader.items()
    while some := [row for rows in islice(items, FLUSH_ROWS) for row in rows]:
        yield some
