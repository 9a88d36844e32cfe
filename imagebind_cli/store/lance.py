"""A store as a table of LanceDB, and such a table as a store to read: `photos.lance` is the table `photos` of the database that is its folder.

It has the columns of a Parquet export, and the provenance as metadata `made` of its schema. Both directions need lancedb, the extra of that name.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.store.parquet import table_batches, table_schema
from imagebind_cli.store.provenance import parse_provenance
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.source import RowTable, TableSource, Views
from imagebind_cli.store.table_columns import TableColumns

COLUMNS = ("id", "start", "end", "meta", "clock", "embedding")  # that are read back
NEEDED = ("id", "embedding")


def write_lance(reader: StoreReader, path: Path, columns: TableColumns) -> None:
    """Write columns to a new table; types as in a Parquet file.

    Raises:
        UserError: lancedb is not installed.
    """
    lancedb, arrow = _lancedb()
    schema = table_schema(reader, columns, arrow)
    schema = schema.with_metadata({"made": json.dumps(reader.provenance | {"array": columns.array})})
    batches = arrow.RecordBatchReader.from_batches(schema, table_batches(reader, columns, schema, arrow))
    lancedb.connect(path.parent).create_table(path.stem, batches, schema=schema)


def open_lance(path: Path) -> TableSource:
    """Open a table to read; its rows are held in memory.

    Raises:
        UserError: lancedb is not installed, or the table was not exported from a store, or without a needed column.
    """
    lancedb, _ = _lancedb()
    table = lancedb.connect(path.parent).open_table(path.stem)
    made = (table.schema.metadata or {}).get(b"made")
    if made is None:
        raise UserError(f"{path}: not exported from a store: it does not say how its vectors were made")
    if lacking := [name for name in NEEDED if name not in table.schema.names]:
        raise UserError(f"{path}: no column {lacking[0]}; it was exported with other names (--columns)")
    provenance, sealed = parse_provenance(made)
    columns = table.to_arrow().select([name for name in COLUMNS if name in table.schema.names])
    flat = columns["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.astype(provenance["array"], copy=False).reshape(columns.num_rows, int(provenance["dim"]))
    return TableSource(provenance, sealed, _row_table(columns, path), Views([vectors] if len(vectors) else [], int(provenance["dim"])))


def _row_table(columns: Any, path: Path) -> RowTable:
    """Return the columns beside the vectors. Rows of one id that follow each other are the windows of one item."""
    table, number = RowTable(), 0
    for _, item in groupby(columns.drop_columns("embedding").to_pylist(), lambda row: row["id"]):
        rows = list(item)
        for row in rows:
            record = {name: row[name] for name in ("id", "start", "end", "clock") if row.get(name) is not None}
            meta = {"meta": parse_json(row["meta"])} if row.get("meta") else {}
            table.add(json.dumps({**record, **meta, "windows": len(rows)}).encode(), f"{path}: row {number}")
            number += 1
    return table


def is_lance(path: Path, head: bytes) -> bool:
    """Check whether a folder is a table of LanceDB."""
    return path.suffix == ".lance" and (path / "_versions").is_dir()


def _lancedb() -> tuple[Any, Any]:
    try:
        import lancedb
        import pyarrow
    except ImportError:
        raise UserError("LanceDB's tables need lancedb, which is not installed: pip install 'imagebind-cli[lancedb]'") from None
    return lancedb, pyarrow
