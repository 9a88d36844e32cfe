"""`origin.json`, the record beside downloaded files: their address, when they came, and size and SHA-256 of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypeVar

from typing_extensions import TypedDict

from imagebind_cli.documents import read_json
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_json

ORIGIN = "origin.json"


class FileRecord(TypedDict):
    """A file's size and hash. encoder: in a training run's folder, whose weights it holds."""

    size: int
    sha256: str
    encoder: NotRequired[str]


class OriginRecord(TypedDict, total=False):
    """The content of `origin.json`."""

    address: str
    mirror: str
    revision: str
    fetched: str
    files: dict[str, FileRecord]


class PartRecord(TypedDict, total=False):
    """The content of the record beside a partial download."""

    source: str
    validator: str | None
    size: int | None
    sha256: str | None
    part: FileRecord


T = TypeVar("T", OriginRecord, PartRecord)


def write_origin(folder: Path, about: Mapping[str, str], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the record of a folder, last of all: a folder that has one is complete.

    Args:
        about: where the files are from. files: `size` and `sha256` of each, by name.
    """
    write_json(folder / ORIGIN, {**about, "fetched": datetime.now(UTC).isoformat(timespec="seconds"), "files": files})


def is_fetched(folder: Path, address: str, sha256: str | None = None) -> bool:
    """Check whether a folder holds all that came from an address, with the recorded sizes. sha256: what the record must state, if given."""
    record = read_record(folder / ORIGIN, OriginRecord)
    files = record.get("files", {})
    return (
        record.get("address") == address
        and bool(files)
        and all(
            (folder / name).is_file() and file_size(folder / name) == stated["size"] and sha256 in (None, stated["sha256"])
            for name, stated in files.items()
        )
    )


def read_origin(folder: Path) -> dict[str, Any]:
    """Return where a fetched model is from: address, revision and time, as far as they are recorded; {} for a folder that was not fetched."""
    record = read_record(folder / ORIGIN, OriginRecord)
    return {key: value for key, value in record.items() if key in ("address", "revision", "fetched")}


def recorded_files(folder: Path) -> dict[str, FileRecord]:
    """Return the records of a fetched model's files, by name; {} for a folder that was not fetched."""
    return read_record(folder / ORIGIN, OriginRecord).get("files", {})


def count_files(folder: Path) -> int:
    """Return how many files of a fetched model have a record; 0 for a folder that was not fetched."""
    return len(recorded_files(folder))


def check_origin(folder: Path) -> list[str]:
    """Read every file that the record lists, and return a line for each that differs: `NAME: reason`.

    Raises:
        UserError: no readable record exists.
    """
    files = recorded_files(folder)
    if not files:
        raise UserError(f"{folder}: no {ORIGIN} to check against")
    return [f"{name}: {fault}" for name, stated in files.items() if (fault := file_fault(folder / name, stated))]


def file_fault(path: Path, record: FileRecord) -> str:
    """Read a file, and return in words how it differs from its record; "" if it does not."""
    if not path.is_file():
        return "missing"
    if file_size(path) != record["size"]:
        return f"{file_size(path)} bytes, not {record['size']}"
    sha256 = file_hash(path)
    return "" if sha256 == record["sha256"] else f"SHA-256 {sha256}, not {record['sha256']}"


def read_record(path: Path, kind: type[T]) -> T:
    """Read a record; {} where there is none, or none that can be read."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(read_json(path), strict=True)
    except (UserError, ValidationError):
        return kind()


def file_record(path: Path) -> FileRecord:
    """Return what a record says of a file."""
    return {"size": file_size(path), "sha256": file_hash(path)}


def file_size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
