"""Stores of vectors from nowhere, for commands that need no model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import safe_open

from imagebind_cli.store import Row, Store

DIM = 16
MADE: dict[str, Any] = {
    "model": "made",
    "weights": "by hand",
    "untrained": False,
    "licence": "",
    "dim": DIM,
    "scale": 1.0,
    "dtype": "float32",
    "pool": "mean",
    "options": {},
    "version": "0",
    "array": "float32",
}


def read_plainly(path: Path) -> tuple[list[str], np.ndarray, list[tuple[float, float] | None], dict[str, Any]]:
    """Ids, vectors, spans and how it was made of a store in any of our formats, read with the format's own library and nothing of ours."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            ids = [id.decode("utf-8", "surrogateescape") for id in file["ids"][:]]
            spans = [None if np.isnan(span).any() else tuple(span) for span in file["spans"][:]]
            return ids, file["embeddings"][:], spans, _unsealed(file.attrs["made"])
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            rows, made = json.loads(file.get_tensor("rows").tobytes()), _unsealed(file.metadata()["made"])
            vectors = file.get_tensor("embeddings")
    elif path.suffix == ".store":
        parts = sorted(path.glob("vectors-*.npy"))
        rows = [json.loads(line) for part in sorted(path.glob("rows-*.jsonl")) for line in part.read_bytes().splitlines()]
        made = _unsealed((path / "made.json").read_text())
        del made["part_rows"]
        vectors = np.concatenate([np.load(part) for part in parts])
    else:
        rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_bytes().splitlines()]
        made = _unsealed(path.with_suffix(".made.json").read_text())
        vectors = np.load(path) if path.suffix == ".npy" else np.array([row["embedding"] for row in rows], np.float32)
    return [row["id"] for row in rows], vectors, [(row["start"], row["end"]) if "start" in row else None for row in rows], made


def _unsealed(text: str) -> dict[str, Any]:
    """A record without its last key, the checksum."""
    made = json.loads(text)
    assert made.popitem()[0] == "crc32"
    return made


def rewrite_record(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the record of how a store was made, wherever the format keeps it."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["made"] = json.dumps(change(json.loads(file.attrs["made"])))
    elif path.suffix == ".safetensors":
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header["__metadata__"]["made"] = json.dumps(change(json.loads(header["__metadata__"]["made"])))
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    else:
        record = path / "made.json" if path.is_dir() else path.with_suffix(".made.json")
        record.write_text(json.dumps(change(json.loads(record.read_text()))))


def unit_rows(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, dim) float32 in random directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def store(
    path: Path,
    modality: str,
    ids: Sequence[str],
    vectors: np.ndarray | None = None,
    spans: Sequence[tuple[float, float]] | None = None,
    metas: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
    **made: Any,
) -> Path:
    """A store of these ids in the format its name ends in. vectors: random if not given. made: what is to be said of how it was made."""
    rows = unit_rows(len(ids), seed=seed) if vectors is None else vectors
    entries = [
        Row(id, rows[row], spans[row] if spans else None, windows=list(ids).count(id) if spans else 1, meta=metas[row] if metas else {})
        for row, id in enumerate(ids)
    ]
    items: dict[str, list[Row]] = {}
    for entry in entries:
        items.setdefault(entry.id, []).append(entry)
    with Store(path, {**MADE, "dim": rows.shape[1], "modality": modality, **made}) as written:
        for item in items.values():
            written.append(item)
    return path


def without_checksums(path: Path) -> Path:
    """Make a store one of an earlier version, which had no checksums; not for `.safetensors`."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            made = json.loads(file.attrs["made"])
            del made["crc32"], file["sums"]
            file.attrs["made"] = json.dumps(made)
        return path
    for file in (path / "made.json", path.with_suffix(".jsonl"), path.with_suffix(".made.json")):
        if file.is_file():
            file.write_text(re.sub(r', "(vector_)?crc32": "[0-9a-f]{8}"', "", file.read_text()))
    for file in path.glob("sums-*.npy"):
        file.unlink()
    return path
