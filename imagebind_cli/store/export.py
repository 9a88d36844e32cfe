"""Export a store to a new file: to the formats that `Store` writes, to Parquet, and to the folder of clip-retrieval and autofaiss."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.files import replacing
from imagebind_cli.store.lance import write_lance
from imagebind_cli.store.maintenance import merge
from imagebind_cli.store.parquet import write_clip_retrieval, write_parquet
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.table_columns import TableColumns, Thumbnail, choose_columns
from imagebind_cli.store_formats import FORMATS

# Forms that a store can be written in, but not continued: by ending, a function (reader, path, columns).
EXPORTS: dict[str, Callable[[StoreReader, Path, TableColumns], None]] = {".parquet": write_parquet, ".lance": write_lance}


def export(
    reader: StoreReader,
    path: Path,
    array: str,
    clip_retrieval: bool = False,
    *,
    columns: str | None = None,
    thumbnail: Thumbnail | None = None,
) -> None:
    """Write a store to a new file or folder, in the format that its ending names. It appears once it is whole.

    Args:
        array: number type of the vectors. clip_retrieval: write the folder that clip-retrieval and autofaiss take.
        columns: of a table, as `choose_columns` reads them. thumbnail: draws its column `thumbnail`, as `pages.thumbnails.thumbnails` does.
    Raises:
        UserError: `path` exists, or a file beside it that would be taken for part of it; pyarrow is needed and not installed.
        UsageError: an unknown ending or column, or columns for a format that is not a table.
    """
    is_table = path.suffix in EXPORTS and not clip_retrieval
    if not clip_retrieval and path.suffix not in FORMATS | EXPORTS:
        raise UsageError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS | EXPORTS)}")
    if not is_table and (given := "--columns" if columns else "--media" if thumbnail else None):
        raise UsageError(f"{path}: {given} is for tables: {', '.join(EXPORTS)}")
    chosen = choose_columns(columns, array, thumbnail, any(reader.clocks)) if is_table else None
    if there := next((each for each in _places_needed(path) if os.path.lexists(each)), None):
        raise UserError(f"{there}: exists; name another, or remove it")
    if clip_retrieval:
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place:
        if clip_retrieval:
            write_clip_retrieval(reader, place, array)
        elif chosen:
            EXPORTS[path.suffix](reader, place, chosen)
        else:
            merge([reader], place, array)


def _places_needed(path: Path) -> list[Path]:
    """List what must not exist: the files of a store of this path, and stores that would share one of them, as `a.npy` and `a.jsonl` do."""
    files = FORMATS[path.suffix].files(path) if path.suffix in FORMATS else (path,)
    stores = {path.with_suffix(ending): format for ending, format in FORMATS.items()}
    return [*files, *(store for store, format in stores.items() if not set(format.files(store)).isdisjoint(files))]
