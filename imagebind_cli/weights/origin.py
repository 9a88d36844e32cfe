"""`origin.json`, the record beside downloaded files: their address, when they came, and size and SHA-256 of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.files import write_json

ORIGIN = "origin.json"


def write_origin(folder: Path, about: Mapping[str, str], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the record of a folder, last of all: a folder that has one is complete.

    Args:
        about: where the files are from. files: `size` and `sha256` of each, by name.
    """
    write_json(folder / ORIGIN, {**about, "fetched": datetime.now(UTC).isoformat(timespec="seconds"), "files": files})


def is_fetched(folder: Path, address: str, sha256: str | None = None) -> bool:
    """Check whether a folder holds all that came from an address, with the recorded sizes. sha256: what the record must state, if given."""
    record = read_record(folder / ORIGIN)
    return record.get("address") == address and all(
        (folder / name).is_file() and file_size(folder / name) == stated["size"] and sha256 in (None, stated["sha256"])
        for name, stated in record["files"].items()
    )


def read_origin(folder: Path) -> dict[str, Any]:
    """Return where a fetched model is from: address, revision and time, as far as they are recorded; {} for a folder that was not fetched."""
    record = read_record(folder / ORIGIN)
    return {key: record[key] for key in ("address", "revision", "fetched") if key in record}


def count_files(folder: Path) -> int:
    """Return how many files of a fetched model have a record; 0 for a folder that was not fetched."""
    return len(read_record(folder / ORIGIN).get("files", ()))


def check_origin(folder: Path) -> list[str]:
    """Read every file that the record lists, and return a line for each that differs: `NAME: reason`.

    Raises:
    UserError: no readable record exists.
    """
    files = read_record(folder / ORIGIN).get("files")
    if not files:
        raise UserError(f"{folder}: no {ORIGIN} to check against")
    problems = []
    for name, stated in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif file_size(path) != stated["size"]:
            problems.append(f"{name}: {file_size(path)} bytes, not {stated['size']}")
        elif (sha256 := file_hash(path)) != stated["sha256"]:
            problems.append(f"{name}: SHA-256 {sha256}, not {stated['sha256']}")
    return problems


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} where there is none, or none that can be read."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def file_size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
