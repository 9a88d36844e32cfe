"""What the formats need of the file system: one writer at a time, writes that are whole, files that are replaced at once."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError


def open_locked(path: Path, store: Path) -> int:
    """Open a file of a store for reading and writing, made if it is not there, and lock it until it is closed. The lock is the
    process's own and dies with it, so that none is ever left behind.

    Raises:
        UserError: another process holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, store)
            if _is_still(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, store: Path) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise UserError(f"{store}: another run is writing to it; wait for that one, or write to another file") from None
        # Else a file system without locks, as some clusters have: nothing to be had there.


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether a path still names the file that was opened: whoever had the lock before us may have removed or replaced it."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)


def write_all(descriptor: int, data: bytes | memoryview, place: int) -> None:
    """Write all of some bytes from a place in a file on; the system may take them in parts."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file of JSON, whole or not at all."""
    building = path.with_name(f".{path.name}.partial")
    building.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(building, path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
