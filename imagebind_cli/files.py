"""Write every file of the program: all or nothing, synced to the disk, and by one process at a time.

A file or folder is built in a folder `.NAME.RANDOM.partial` beside its destination and then renamed. Its writer holds a lock in that folder while it
lives, so that the next writer there can recognise and remove the files of a killed one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from imagebind_cli.checksums import seal
from imagebind_cli.descriptors import NO_LINK, lock, open_descriptor, remove_locked, sync
from imagebind_cli.errors import InUseError, UserError, writing

BUILDING = re.compile(r"\..+\.[0-9a-f]{16}\.partial", re.DOTALL)  # names of the folders in which files are built
LOCK = ".imagebind.lock"  # the file in such a folder that its writer keeps locked


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to build a file or folder at, and move it to `path` once the block has ended without an error.

    Until then an old file is not touched. Files that the block writes beside the yielded path are moved beside `path`, before it. The target
    of a symbolic link is replaced, not the link. A device or pipe, such as `/dev/stdout`, is yielded itself.

    Raises:
        UserError: `path` is a folder, or its folder does not exist. OSError: the disk is full or refuses otherwise; it names `path`.
    """
    if _is_special(path):
        with writing(path):
            yield path
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UserError(f"{path}: is a folder; a file name is needed")
    if not target.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    sweep(target.parent)
    try:
        folder, held = _building_folder(target)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with _naming(path, folder):
            yield folder / path.name
            _put_all_in_place(folder, target, path.name)
    finally:
        _remove(folder, held)


def _put_all_in_place(folder: Path, target: Path, name: str) -> None:
    """Put what was built in a folder beside a target, then the target. If that fails before it, what was new beside it is removed."""
    new: list[Path] = []
    try:
        for built in folder.iterdir():
            if built.name not in (LOCK, name):
                beside = target.with_name(built.name)
                new += [beside] * (not os.path.lexists(beside))
                put_in_place(built, beside)
        put_in_place(folder / name, target)
    except BaseException:
        if os.path.lexists(folder / name):
            for beside in new:
                beside.unlink(missing_ok=True)
        raise


def leaves_folder(name: str) -> bool:
    """Check whether a path that a file names may lead out of the folder that it is joined to: absolute, with `..`, or not a path at all."""
    path = PureWindowsPath(name)  # understands both kinds of separators
    return bool(path.anchor) or ".." in path.parts or "\0" in name


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Replace a file by text in UTF-8, as `replacing`. errors: what to do with characters that UTF-8 lacks, as in `str.encode`."""
    with replacing(path) as place:
        place.write_text(text, encoding="utf-8", errors=errors, newline="\n")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Replace a file by JSON and a newline, as `replacing`."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_sealed_json(path: Path, record: Mapping[str, Any]) -> None:
    """Replace a file by a JSON object with its checksum, as `replacing`; `documents.read_sealed_object` reads it."""
    write_text(path, seal(json.dumps(record, indent=2)) + "\n")


def put_in_place(built: Path, path: Path) -> None:
    """Rename a file or folder to `path` once all of it is on the disk; a file that was there is replaced at once."""
    for each in [*built.rglob("*"), built] if built.is_dir() else [built]:
        sync(each)
    os.replace(built, path)
    sync(path.parent)


def sweep(folder: Path) -> None:
    """Remove the partial files that killed writers left in a folder. Files that may belong to a running writer stay."""
    with suppress(OSError), os.scandir(folder) as entries:  # a folder that may be written to but not listed
        for entry in entries:
            if BUILDING.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_unlocked(Path(entry.path))


def open_locked(path: Path, busy: str | None, flags: int = 0) -> int:
    """Open a file for reading and writing, create it where it is missing, and lock it until it is closed.

    The lock belongs to the process and ends with it, so that no stale lock remains.

    Args:
        busy: the message where another process holds it; None waits for that process. flags: more of them, as `NO_LINK`.
    Returns:
        The file descriptor.
    Raises:
        InUseError: another process holds the lock.
    """
    while True:
        descriptor = open_descriptor(path, os.O_RDWR | os.O_CREAT | flags)
        try:
            try:
                lock(descriptor, wait=busy is None)
            except BlockingIOError:
                raise InUseError(busy or "") from None
            if _is_still(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock of a file that exists only for this. busy: as for `open_locked`."""
    descriptor = open_locked(path, busy, NO_LINK)
    try:
        yield
    finally:
        os.close(descriptor)


def open_no_link(path: str, flags: int) -> int:
    """Open a file whose name others can guess, as the `opener` of `open`. A symbolic link in its place is refused."""
    return open_descriptor(path, flags | NO_LINK)


def being_written(path: Path) -> str:
    """Return the message for a store or shard that another process has locked."""
    return f"{path}: another run is writing to it; wait for that one, or write to another file"


def _is_still(descriptor: int, path: Path) -> bool:
    """Check whether a path still names an open file: whoever held the lock before may have removed or replaced it."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)


def _is_special(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _building_folder(target: Path) -> tuple[Path, int]:
    """Create a folder to build `target` in, which only this user may enter, and lock it. Returns it and the lock's descriptor."""
    name = target.name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "ignore") or "file"  # a name has at most 255 bytes
    while True:
        folder = target.with_name(f".{name}.{secrets.token_hex(8)}.partial")
        folder.mkdir(0o700)
        with suppress(FileNotFoundError, UserError):  # swept by another process before it was locked
            return folder, open_locked(folder / LOCK, "", NO_LINK)


def _remove_unlocked(folder: Path) -> None:
    try:
        held = open_descriptor(folder / LOCK, os.O_RDWR | NO_LINK)
    except FileNotFoundError:  # killed before the lock was made, or about to make it, which then takes another name
        with suppress(OSError):
            folder.rmdir()
        return
    except OSError:  # of another user
        return
    try:
        if lock(held):
            _remove(folder, held)
            return
    except BlockingIOError:  # its writer is alive
        pass
    os.close(held)


def _remove(folder: Path, held: int) -> None:
    """Remove a folder in which a file was built; its lock goes last, so that a kill in between leaves what can be swept. held: the lock."""
    with suppress(OSError):
        try:
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != LOCK:
                    os.unlink(entry)
        except BaseException:
            os.close(held)
            raise
        remove_locked(folder / LOCK, held)
        folder.rmdir()


@contextmanager
def _naming(path: Path, folder: Path) -> Iterator[None]:
    """Name `path` in errors, instead of the path in `folder` where it is built."""
    try:
        with writing(path):
            yield
    except UserError as error:
        raise type(error)(str(error).replace(str(folder / path.name), str(path))) from error.__cause__
    except OSError as error:
        if str(error.filename or "").startswith(str(folder)):
            error.filename, error.filename2 = str(path), None
        raise
