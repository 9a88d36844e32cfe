"""File descriptors on Linux, macOS and Windows alike: open, lock, read and write at a place, sync, remove.

Windows has no `fcntl`, `pread` or `O_NOFOLLOW`, translates newlines unless told not to, opens no folder, and neither removes nor renames a file
that is open or mapped.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:
    WINDOWS = True  # every other system has it
else:
    WINDOWS = False

NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)  # refuses a symbolic link; on Windows only an administrator makes one
BINARY: int = getattr(os, "O_BINARY", 0)
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what some network file systems answer when asked to sync a folder
LOCKED_BYTE = 1 << 43  # beyond the end of any file: on Windows nobody else can read a locked byte
RETRY_SECONDS = 0.05
_moving = threading.Lock()


def open_descriptor(path: Path | str, flags: int) -> int:
    """Open a file as `os.open`, without translating newlines. Returns the descriptor, which child processes do not inherit."""
    return os.open(path, flags | BINARY, 0o666)


def lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file until it is closed or its process ends.

    Returns:
        False on a file system that has no locks, as those of some clusters.
    Raises:
        BlockingIOError: another process holds the lock, and `wait` is not set.
    """
    try:
        if WINDOWS:
            _lock_byte(descriptor, wait)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise BlockingIOError from None
        return False
    return True


def _lock_byte(descriptor: int, wait: bool) -> None:
    """Lock a file by one byte of it, as Windows does: the others stay readable to all."""
    windows: Any = import_module("msvcrt")
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        while True:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            try:
                windows.locking(descriptor, windows.LK_NBLCK, 1)
                return
            except PermissionError:
                if not wait:
                    raise
            time.sleep(RETRY_SECONDS)
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)


def read_at(descriptor: int, count: int, place: int) -> bytes:
    """Read up to `count` bytes at byte `place` of an open file."""
    if not WINDOWS:
        return os.pread(descriptor, count, place)
    with _moving:
        os.lseek(descriptor, place, os.SEEK_SET)
        return os.read(descriptor, count)


def write_all(descriptor: int, data: bytes | memoryview, place: int) -> None:
    """Write all of `data` at byte `place` of an open file; the system may take it in parts."""
    while data:
        written = _write_at(descriptor, data, place)
        data, place = data[written:], place + written


def _write_at(descriptor: int, data: bytes | memoryview, place: int) -> int:
    if not WINDOWS:
        return os.pwrite(descriptor, data, place)
    with _moving:
        os.lseek(descriptor, place, os.SEEK_SET)
        return os.write(descriptor, data)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Windows has no call for the names, and syncs only what may be written."""
    if WINDOWS and path.is_dir():
        return
    descriptor = open_descriptor(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove_locked(path: Path, descriptor: int) -> None:
    """Remove a file that this process has locked, and close it.

    It is removed first, so that no other process's file is. Windows has to close it first, and refuses to remove it once another process has
    opened it.
    """
    try:
        if not WINDOWS:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    if WINDOWS:
        remove_unused(path)


def remove_unused(path: Path) -> None:
    """Remove a file. On Windows one that a process still reads stays, until the next writer comes here."""
    with suppress(*((PermissionError,) if WINDOWS else ())):
        path.unlink(missing_ok=True)
