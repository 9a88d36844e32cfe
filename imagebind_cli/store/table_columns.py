"""The columns of a store that is exported as a table, to Parquet or to a database: which there are, their names, their values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from imagebind_cli.errors import UsageError
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.row import Row

BLOCK_ROWS, MEDIA_ROWS = 16384, 1024  # rows held in memory at once, and with thumbnails
META = "meta."  # before the name of one of the manifest's other columns

# Returns a picture of a row's file as the bytes of a JPEG; None where it has none.
Thumbnail = Callable[[Row], bytes | None]

VALUES: dict[str, Callable[[Row], Any]] = {
    "id": lambda row: valid_text(row.id),
    "modality": lambda row: None,  # of the store, not of a row
    "start": lambda row: row.span[0] if row.span else None,
    "end": lambda row: row.span[1] if row.span else None,
    "meta": lambda row: json.dumps(_valid_json(dict(row.meta)), ensure_ascii=False) if row.meta else None,
    "embedding": lambda row: row.vector,
    "clock": lambda row: row.clock,
    "thumbnail": lambda row: None,  # drawn by the caller's function
}


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table, in their order, and how to fill them.

    names: the name in the table by that of the column, a key of `VALUES` or `meta.KEY`. array: number type of the vectors.
    thumbnail: draws the column `thumbnail`.
    """

    names: Mapping[str, str]
    array: str
    thumbnail: Thumbnail | None = None

    def values(self, rows: Sequence[Row], column: str, modality: str) -> Any:
        """Return a column of some rows of a store: `embedding` as an array (k, dim) of `array`, any other as a list of k."""
        if column == "embedding":
            return np.stack([row.vector for row in rows]).astype(self.array)
        if column == "modality":
            return [modality] * len(rows)
        if column == "thumbnail":
            return [self.thumbnail(row) if self.thumbnail else None for row in rows]
        if column.startswith(META):
            return [_as_text(row.meta.get(column.removeprefix(META))) for row in rows]
        return [VALUES[column](row) for row in rows]

    def blocks(self, reader: StoreReader) -> Iterator[list[Row]]:
        """Yield the rows of a store in blocks, so that no store is held in memory whole."""
        rows = (row for item in reader.items() for row in item)
        while block := list(islice(rows, MEDIA_ROWS if self.thumbnail else BLOCK_ROWS)):
            yield block


def choose_columns(text: str | None, array: str, thumbnail: Thumbnail | None = None, clock: bool = True) -> TableColumns:
    """Return the columns that a text asks for, as `id=uuid,embedding=vector,meta.caption`; without one all columns.

    clock: whether it is among all. A `thumbnail` that is not named comes last.

    Raises:
        UsageError: an unknown column, one that is named twice, or `thumbnail` without a function that draws it.
    """
    if text is None:
        names = {column: column for column in VALUES if column != "thumbnail" and (clock or column != "clock")}
    else:
        names = _parse(text)
    if thumbnail:
        names.setdefault("thumbnail", "thumbnail")
    elif "thumbnail" in names:
        raise UsageError("--columns: the column thumbnail needs --media")
    if twice := next((name for name in names.values() if list(names.values()).count(name) > 1), None):
        raise UsageError(f"--columns: two columns named {twice!r}")
    return TableColumns(names, array, thumbnail)


def _parse(text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for part in text.split(","):
        column, equals, name = (word.strip() for word in part.partition("="))
        if column not in VALUES and not (column.startswith(META) and column != META):
            raise UsageError(f"--columns: unknown column {column!r}; choose from {', '.join(VALUES)}, {META}KEY")
        if column in names:
            raise UsageError(f"--columns: {column} is named twice")
        if equals and not name:
            raise UsageError(f"--columns: {part.strip()!r} lacks a name; as id=uuid")
        names[column] = name or column.removeprefix(META)
    return names


def valid_text(text: str) -> str:
    """Return a text as tables hold it, Unicode without NUL: invalid bytes of a file name become escapes, `\\xe9`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _valid_json(value: Any) -> Any:
    """Return a value of JSON that every database reads: valid text, and numbers that JSON does not have as text."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(key): _valid_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_valid_json(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    return valid_text(value) if isinstance(value, str) else json.dumps(_valid_json(value), ensure_ascii=False)
