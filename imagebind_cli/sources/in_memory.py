"""Payloads in memory as the readers take them: the bytes of a file, a row of a Hugging Face dataset, a picture that Pillow opened."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagebind_cli.registry import Face

AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow's modes that a PNG file holds as they are


def is_in_memory(payload: Any) -> bool:
    """Check whether a payload is one that `as_source` converts: bytes, a row or a picture."""
    return isinstance(payload, bytes | bytearray | memoryview | Mapping) or _is_picture(payload)


def as_source(payload: Any, face: Face) -> Any:
    """Convert a payload in memory to the form that the modality's reader takes.

    Args:
        payload: the bytes of a file; `{"bytes": …, "path": …}`, as a column of `datasets` gives it with `decode=False`, where bytes take
            precedence; `{"array": …, "sampling_rate": …}`, a decoded sound; or a Pillow image. Of text, bytes are UTF-8.
    Returns:
        An open file in memory, which is read with the limits of any file; a path, a sentence, an array, or (array, rate in Hz).
    Raises:
        ValueError: the bytes are empty or not UTF-8, or the row has other keys or holds neither bytes nor a path.
    """
    if isinstance(payload, Mapping):
        payload = _of_row(payload)
        if face.text and isinstance(payload, str):
            raise ValueError("a row that names a file; a sentence or its bytes are needed")
    if isinstance(payload, bytes | bytearray | memoryview):
        content = bytes(payload)
        if face.text:
            return _sentence(content)
        if not content:
            raise ValueError("the file is empty")
        return io.BytesIO(content)
    return _map_source(payload) if _is_picture(payload) and face.encoder in ("depth", "thermal") else payload


def path_of_row(payload: Any) -> str | None:
    """Return the path that a row of a dataset names, for messages; None for any other payload."""
    path = payload.get("path") if isinstance(payload, Mapping) else None
    return path if isinstance(path, str) and path else None


def _of_row(row: Mapping[str, Any]) -> Any:
    if "array" in row and "sampling_rate" in row:
        return np.asarray(row["array"]), row["sampling_rate"]
    if not row.keys() & {"bytes", "path"}:
        keys = ", ".join(map(str, row)) or "none"
        raise ValueError(f"a row with keys {keys}; bytes and path are needed, or array and sampling_rate of a sound")
    content = row.get("bytes")
    if content is None and not row.get("path"):
        raise ValueError("a row without bytes and path")
    return row["path"] if content is None else content


def _sentence(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


def _is_picture(payload: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")  # importing it for every sentence would only cost: who has a picture has imported it
    return pillow is not None and isinstance(payload, pillow.Image)


def _map_source(picture: Any) -> Any:
    """Return a map that Pillow opened as the PNG file of its pixels, so that it is read as that file would be, or as its array."""
    if picture.mode not in AS_PNG:
        return np.asarray(picture)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    file.seek(0)
    return file
