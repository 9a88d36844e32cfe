"""The table of a map: CSV, JSON Lines or Parquet, a row for each item."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

from imagebind_cli.files import replacing
from imagebind_cli.insight.store_map import StoreMap
from imagebind_cli.store.parquet import import_pyarrow
from imagebind_cli.store.table_columns import valid_text

COLUMNS = ("id", "store", "modality", "x", "y", "group")
GROUP_ROWS = 65536


def map_lines(map: StoreMap) -> Iterable[bytes]:
    """Yield the table as lines of JSON."""
    return (json.dumps(row).encode() + b"\n" for row in map.rows())


def write_map_table(map: StoreMap, path: Path) -> None:
    """Write the table in the format that a name ends in, one of `TABLES`; it appears once it is whole.

    Raises:
        UserError: Parquet needs pyarrow, which is not installed. OSError: the file cannot be written.
    """
    with replacing(path) as place:
        TABLES[path.suffix.lower()](map, place)


def _write_csv(map: StoreMap, path: Path) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row.values() for row in map.rows())


def _write_lines(map: StoreMap, path: Path) -> None:
    with open(path, "wb") as file:
        file.writelines(map_lines(map))


def _write_parquet(map: StoreMap, path: Path) -> None:
    arrow, parquet = import_pyarrow()
    fields = [(name, arrow.float64() if name in ("x", "y") else arrow.string()) for name in COLUMNS]
    schema, rows = arrow.schema(fields), map.rows()
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            writer.write_table(
                arrow.table(
                    {name: [valid_text(value) if isinstance(value := row[name], str) else value for row in group] for name in COLUMNS},
                    schema,
                )
            )


TABLES: Mapping[str, Callable[[StoreMap, Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_lines,
    ".parquet": _write_parquet,
}
