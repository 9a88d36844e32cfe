"""Describe what a store holds, how it was made, and how much space it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.store.reader import StoreReader


def describe_store(reader: StoreReader) -> dict[str, Any]:
    """Return the counts and sizes of a store, and how its vectors were made."""
    block = next(reader.blocks(), np.empty((0, reader.dim), np.float32))
    keys = reader.stamps["key"]
    return {
        "store": str(reader.path),
        "rows": len(reader),
        "items": int(np.count_nonzero(keys[1:] != keys[:-1])) + bool(len(keys)),
        "replaced": reader.replaced,
        "array": str(block.dtype),
        "windows": reader.spans is not None,
        "bytes": sum(bytes_on_disk(part) for part in reader.paths),
        "made": {key: value for key, value in reader.provenance.items() if key != "array"},
    }


def bytes_on_disk(path: Path) -> int:
    """Return the space a file or a folder takes on the disk, in bytes."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files)
