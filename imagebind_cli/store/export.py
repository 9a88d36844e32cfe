"""Export a store to a new file: to the formats that `Store` writes, and with pyarrow to Parquet and the folder of clip-retrieval and autofaiss."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.files import replacing
from imagebind_cli.store.maintenance import merge
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.row import Row
from imagebind_cli.store_formats import FORMATS

GROUP_ROWS = 16384
PART_ROWS = 1_000_000


def export(reader: StoreReader, path: Path, array: str, clip_retrieval: bool = False) -> None:
    """Write a store to a new file or folder, in the format that its ending names. It appears once it is whole.

    Args:
        array: number type of the vectors. clip_retrieval: write the folder that clip-retrieval and autofaiss take.
    Raises:
        UserError: `path` exists, or a file beside it that would be taken for part of it; pyarrow is needed and not installed.
        UsageError: an unknown ending.
    """
    beside = [path.with_suffix(ending) for ending in (".npy", ".jsonl") if path.suffix in (".npy", ".jsonl")]
    if there := next((each for each in (path, *beside) if os.path.lexists(each)), None):
        raise UserError(f"{there}: exists; name another, or remove it")
    if clip_retrieval:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif path.suffix not in FORMATS | EXPORTS:
        raise UsageError(f"{path}: unknown ending {path.suffix!r}; choose from {', '.join(FORMATS | EXPORTS)}")
    with replacing(path) as place:
        if clip_retrieval:
            _write_clip_retrieval(reader, place, array)
        elif path.suffix in FORMATS:
            merge([reader], place, array)
        else:
            EXPORTS[path.suffix](reader, place, array)


def _write_parquet(reader: StoreReader, path: Path, array: str) -> None:
    """Write columns `id`, `modality`, `start`, `end`, `meta` (JSON) and `embedding`, a list of fixed length; the metadata holds the provenance.

    A column `clock` comes last where a row has one.
    """
    arrow, parquet = import_pyarrow()
    numbers = arrow.list_(arrow.from_numpy_dtype(array), reader.dim)
    text, seconds = arrow.string(), arrow.float64()
    fields = [("id", text), ("modality", text), ("start", seconds), ("end", seconds), ("meta", text), ("embedding", numbers)]
    fields += [("clock", text)] if any(reader.clocks) else []
    schema = arrow.schema(fields, metadata={"made": json.dumps(reader.provenance)})
    every = (row for item in reader.items() for row in item)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(every, GROUP_ROWS)):
            vectors = np.stack([row.vector for row in rows]).astype(array)
            spans = [row.span or (None, None) for row in rows]
            columns = [
                [valid_text(row.id) for row in rows],
                [reader.modality] * len(rows),
                [start for start, _ in spans],
                [end for _, end in spans],
                [json.dumps(dict(row.meta)) if row.meta else None for row in rows],
                arrow.FixedSizeListArray.from_arrays(vectors.reshape(-1), reader.dim),
                [row.clock for row in rows],
            ]
            writer.write_table(arrow.table(dict(zip(schema.names, columns, strict=False)), schema=schema))


def _write_clip_retrieval(reader: StoreReader, folder: Path, array: str) -> None:
    """Write the folder that `clip-retrieval index` takes: `img_emb/img_emb_0.npy` (`text_emb/` for text) and `metadata/metadata_0.parquet`."""
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
            for done in range(0, count, GROUP_ROWS):
                some = list(islice(rows, min(GROUP_ROWS, count - done)))
                vectors.write(np.stack([row.vector for row in some]).astype(dtype).data)
                writer.write_table(arrow.Table.from_pylist([_about(row, reader.modality) for row in some], schema))


# Forms that a store can be written in, but not continued or read: by ending, a function (reader, path, number type).
EXPORTS: dict[str, Callable[[StoreReader, Path, str], None]] = {".parquet": _write_parquet}


def _about(row: Row, modality: str) -> dict[str, Any]:
    span = {} if row.span is None else {"start": row.span[0], "end": row.span[1]}
    clock = {"clock": row.clock} if row.clock else {}
    recorded = row.meta.get(modality)
    source = valid_text(recorded if isinstance(recorded, str) else row.id)
    path, caption = (None, source) if modality == "text" else (source, row.meta.get("caption", row.meta.get("text")))
    return {"image_path": path, "caption": caption, "metadata": json.dumps({**row.meta, **span, **clock})}


def valid_text(id: str) -> str:
    """Return a text as Unicode, as Arrow requires; invalid bytes of a file name become escapes."""
    return id.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
