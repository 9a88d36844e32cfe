"""The columns of a store as a Parquet file, and the folder of Parquet and `.npy` files that clip-retrieval and autofaiss take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.row import Row
from imagebind_cli.store.table_columns import BLOCK_ROWS, TableColumns, valid_text

PART_ROWS = 1_000_000


def write_parquet(reader: StoreReader, path: Path, columns: TableColumns) -> None:
    """Write columns to a Parquet file, a row group for each block of rows. Its metadata holds the provenance under `made`.

    `id`, `modality`, `meta` (JSON), `clock` and `meta.KEY` are texts, `start` and `end` float64 seconds, `embedding` a list of fixed length,
    `thumbnail` bytes.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    schema = table_schema(reader, columns, arrow)
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in table_batches(reader, columns, schema, arrow):
            writer.write_table(arrow.Table.from_batches([batch]))


def table_schema(reader: StoreReader, columns: TableColumns, arrow: Any) -> Any:
    """Return the Arrow schema of the columns, with the provenance under `made`. arrow: the module pyarrow."""
    types = {
        "start": arrow.float64(),
        "end": arrow.float64(),
        "embedding": arrow.list_(arrow.from_numpy_dtype(columns.array), reader.dim),
        "thumbnail": arrow.binary(),
    }
    fields = [(name, types.get(column, arrow.string())) for column, name in columns.names.items()]
    return arrow.schema(fields, metadata={"made": json.dumps(reader.provenance)})


def table_batches(reader: StoreReader, columns: TableColumns, schema: Any, arrow: Any) -> Iterator[Any]:
    """Yield the columns as Arrow record batches, one for each block of rows."""
    for rows in columns.blocks(reader):
        values = {name: columns.values(rows, column, reader.modality) for column, name in columns.names.items()}
        if name := columns.names.get("embedding"):
            values[name] = arrow.FixedSizeListArray.from_arrays(values[name].reshape(-1), reader.dim)
        yield arrow.RecordBatch.from_arrays([arrow.array(values[field.name], field.type) for field in schema], schema=schema)


def write_clip_retrieval(reader: StoreReader, folder: Path, array: str) -> None:
    """Write the folder that `clip-retrieval index` takes: `img_emb/img_emb_0.npy` (`text_emb/` for text) and `metadata/metadata_0.parquet`.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow, parquet = import_pyarrow()
    kind = "text_emb" if reader.modality == "text" else "img_emb"
    for name in (kind, "metadata"):
        (folder / name).mkdir(parents=True)
    dtype = np.dtype(array)
    rows = (row for item in reader.items() for row in item)
    starts = range(0, max(1, len(reader)), PART_ROWS)
    schema = arrow.schema([(name, arrow.string()) for name in ("image_path", "caption", "metadata")])
    for number, start in enumerate(starts):
        digits, count = f"{number:0{len(str(len(starts) - 1))}}", min(PART_ROWS, len(reader) - start)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, reader.dim)}
        metadata = parquet.ParquetWriter(folder / "metadata" / f"metadata_{digits}.parquet", schema)
        with open(folder / kind / f"{kind}_{digits}.npy", "wb") as vectors, metadata as writer:
            np.lib.format.write_array_header_1_0(vectors, header)
            for done in range(0, count, BLOCK_ROWS):
                some = list(islice(rows, min(BLOCK_ROWS, count - done)))
                vectors.write(np.stack([row.vector for row in some]).astype(dtype).data)
                writer.write_table(arrow.Table.from_pylist([_about(row, reader.modality) for row in some], schema))


def _about(row: Row, modality: str) -> dict[str, Any]:
    span = {} if row.span is None else {"start": row.span[0], "end": row.span[1]}
    clock = {"clock": row.clock} if row.clock else {}
    recorded = row.meta.get(modality)
    source = valid_text(recorded if isinstance(recorded, str) else row.id)
    path, caption = (None, source) if modality == "text" else (source, row.meta.get("caption", row.meta.get("text")))
    return {"image_path": path, "caption": caption, "metadata": json.dumps({**row.meta, **span, **clock})}


def import_pyarrow() -> Any:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        UserError: pyarrow, an extra, is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet is written by pyarrow, which is not installed: pip install pyarrow") from None
    return pyarrow, parquet
