"""Stores in the forms that other programs read: Parquet, and the folder that clip-retrieval and autofaiss take. These need pyarrow.

The formats that `Store` writes are exported by merging into them.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.row import Row

GROUP_ROWS = 16384
PART_ROWS = 1_000_000


def to_parquet(reader: StoreReader, path: Path, array: str) -> None:
    """One Parquet file: `id`, `start`, `end`, `meta` (JSON) and `embedding`, a list of fixed length; how it was made is in its metadata.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    numbers = arrow.list_(arrow.from_numpy_dtype(array), reader.dim)
    text, seconds = arrow.string(), arrow.float64()
    fields = [("id", text), ("modality", text), ("start", seconds), ("end", seconds), ("meta", text), ("embedding", numbers)]
    schema = arrow.schema(fields, metadata={"made": json.dumps(reader.made)})
    building = path.with_name(f".{path.name}.partial")
    every = (row for item in reader.items() for row in item)
    with parquet.ParquetWriter(building, schema) as writer:
        while rows := list(islice(every, GROUP_ROWS)):
            vectors = np.stack([row.vector for row in rows]).astype(array)
            spans = [row.span or (None, None) for row in rows]
            columns = [
                [_valid(row.id) for row in rows],
                [reader.modality] * len(rows),
                [start for start, _ in spans],
                [end for _, end in spans],
                [json.dumps(dict(row.meta)) if row.meta else None for row in rows],
                arrow.FixedSizeListArray.from_arrays(vectors.reshape(-1), reader.dim),
            ]
            writer.write_table(arrow.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
    building.replace(path)


def to_clip_retrieval(reader: StoreReader, folder: Path, array: str) -> None:
    """The folder that `clip-retrieval index` takes: `img_emb/img_emb_0.npy` (`text_emb/` for text) and `metadata/metadata_0.parquet`.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    kind = "text_emb" if reader.modality == "text" else "img_emb"
    for name in (kind, "metadata"):
        (folder / name).mkdir(parents=True)
    rows = (row for item in reader.items() for row in item)
    starts = range(0, max(1, len(reader)), PART_ROWS)
    schema = arrow.schema([(name, arrow.string()) for name in ("image_path", "caption", "metadata")])
    for number, start in enumerate(starts):
        digits, count = f"{number:0{len(str(len(starts) - 1))}}", min(PART_ROWS, len(reader) - start)
        vectors = np.lib.format.open_memmap(folder / kind / f"{kind}_{digits}.npy", "w+", array, shape=(count, reader.dim))
        with parquet.ParquetWriter(folder / "metadata" / f"metadata_{digits}.parquet", schema) as writer:
            for done in range(0, count, GROUP_ROWS):
                some = list(islice(rows, min(GROUP_ROWS, count - done)))
                vectors[done : done + len(some)] = np.stack([row.vector for row in some])
                writer.write_table(arrow.Table.from_pylist([_about(row, reader.modality) for row in some], schema))
        vectors.flush()


def _about(row: Row, modality: str) -> dict[str, Any]:
    span = {} if row.span is None else {"start": row.span[0], "end": row.span[1]}
    recorded = row.meta.get(modality)
    source = _valid(recorded if isinstance(recorded, str) else row.id)
    path, caption = (None, source) if modality == "text" else (source, row.meta.get("caption", row.meta.get("text")))
    return {"image_path": path, "caption": caption, "metadata": json.dumps({**row.meta, **span})}


def _valid(id: str) -> str:
    """An id as Unicode, which Arrow's strings must be; bytes of a file name that are none become escapes."""
    return id.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pyarrow() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("Parquet is written by pyarrow, which is not installed: pip install pyarrow") from None
    return pyarrow, parquet
