"""Compare a weight file with its recorded SHA-256 when it is first used, once for each state of the file.

A state is the file's size, modification time and inode. `verified.json` in the folder of downloaded models remembers the states that matched, so
that gigabytes are not read at every start; `imagebind weights verify` reads them each time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagebind_cli.documents import read_object
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_json
from imagebind_cli.weights.download import home
from imagebind_cli.weights.origin import FileRecord, file_fault, recorded_files
from imagebind_cli.weights.tensor_files import damaged_part

VERIFIED = "verified.json"
PACKAGE = Path(__file__).parent.parent


def check_weight_file(path: Path, records: Mapping[str, FileRecord] | None = None) -> None:
    """Compare a weight file with its record, unless its state is known to match.

    Args:
        records: of the files in its folder, by name; by default those of `origin.json`. A file without a record is not compared.
    Raises:
        UserError: it differs; the message names the damaged tensor where the file has checksums of tensors.
    """
    record = (records or recorded_files(path.parent)).get(path.name)
    if record is None or not path.is_file():
        return
    state = [*_state(path), record["sha256"]]
    if _remembered().get(os.path.abspath(path)) == state:
        return
    if fault := weight_fault(path, record):
        raise UserError(f"{path}: damaged: {fault}; delete it and fetch, convert or train it again, or restore it from a copy")
    _remember(path, state)


def weight_fault(path: Path, record: FileRecord) -> str:
    """Read a weight file, and describe how it differs from its record, and in which tensor if that is known; "" if it matches."""
    fault = file_fault(path, record)
    part = damaged_part(path) if fault and path.is_file() else ""
    return f"{fault}; {part}" if part else fault


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _remembered() -> dict[str, Any]:
    try:
        return read_object(home() / VERIFIED)
    except UserError:
        return {}


def _remember(path: Path, state: list[Any]) -> None:
    """Remember a state, and forget files that are gone. The package's own files are small and are read each time, so they need no folder."""
    if PACKAGE in path.parents:
        return
    states = {name: known for name, known in _remembered().items() if os.path.exists(name)}
    with suppress(OSError, UserError):  # if the folder is not writable, the file is read again next time
        home().mkdir(parents=True, exist_ok=True)
        write_json(home() / VERIFIED, states | {os.path.abspath(path): state})
