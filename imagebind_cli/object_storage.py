"""Objects of S3, Google Cloud Storage and the Hugging Face hub, named by address: `s3://bucket/photos/1.jpg`. Read, listed and written by fsspec.

Credentials, endpoints and regions come from each service's own variables and files and from fsspec's configuration, never from an address.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from imagebind_cli.errors import UserError, first_line

EXTRAS = {"s3": "s3", "gs": "gs", "hf": ""}  # scheme to the extra with its package
ADDRESS = re.compile(rf"({'|'.join(EXTRAS)})://(?!/)")
AS_PATH = re.compile(rf"({'|'.join(EXTRAS)}):/+")  # which `Path` makes of an address
MAX_OBJECT = 2 << 30  # bytes; a larger one is refused before it is read


def is_object(path: object) -> bool:
    """Check whether a path is the address of an object or of a prefix of objects."""
    return isinstance(path, str) and ADDRESS.match(path) is not None


def object_address(path: Path | str) -> str | None:
    """Return the address that a path was before `Path` took it for one of a folder; None for any other."""
    return AS_PATH.sub(r"\1://", str(path), count=1) if AS_PATH.match(str(path)) else None


def refuse_object(path: Path | str) -> None:
    """Refuse the address of an object as an output.

    Raises:
        UserError: it is one.
    """
    if AS_PATH.match(str(path)):
        raise UserError(f"{path}: is an address, and this command writes only to disks; write to a disk, and upload the result")


def join_path(folder: str, path: str) -> str:
    """Return a path that starts at a folder; an address as it is."""
    return path if is_object(path) else os.path.join(folder, path)


@cache
def file_system(scheme: str) -> Any:
    """Return fsspec's file system of a scheme.

    Raises:
        UserError: its package is not installed.
    """
    import fsspec

    try:
        return fsspec.filesystem(scheme)
    except ImportError:
        raise UserError(f"{scheme}:// needs a package that is not installed: pip install 'imagebind-cli[{EXTRAS[scheme]}]'") from None


def list_objects(address: str) -> list[str] | None:
    """Return the addresses of all objects below a prefix, sorted, without hidden ones; None where the address is that of one object.

    Raises:
        OSError: there is nothing, or it cannot be listed.
    """
    scheme, files = _split(address)
    with _described(address):
        found = files.find(address)
    names = [f"{scheme}://{name.removeprefix(f'{scheme}://')}" for name in found]
    if names == [address]:
        return None
    if not names:
        raise FileNotFoundError(2, "no such object, and none below it", address)
    prefix = f"{address.rstrip('/')}/"
    return sorted(name for name in names if not any(part.startswith(".") for part in name.removeprefix(prefix).split("/")))


def fetch_object(address: str) -> io.BytesIO:
    """Return an object's content.

    Raises:
        OSError: it cannot be read. ValueError: it has more than `MAX_OBJECT` bytes.
    """
    _, files = _split(address)
    with _described(address):
        size = int(files.info(address)["size"] or 0)
        if size > MAX_OBJECT:
            raise ValueError(f"{size:,} bytes; at most {MAX_OBJECT:,} are read of one object")
        return io.BytesIO(files.cat_file(address, start=0, end=size) if size else b"")


def object_stamp(address: str) -> tuple[int, int]:
    """Return an object's size in bytes and the time of its last change in nanoseconds; without one, a number that stands for its content.

    Raises:
        OSError: it cannot be asked for.
    """
    _, files = _split(address)
    with _described(address):
        return _version(files.info(address))


def objects_below(base: str, beginning: str) -> dict[str, tuple[int, int]]:
    """Return the stamps of all objects below a prefix whose names there begin so, as they are now, by these names.

    Raises:
        OSError: they cannot be listed.
    """
    scheme, files = _split(base)
    with _described(base):
        files.invalidate_cache()
        there = files.ls(base, detail=True) if files.exists(base) else []
        found = [entry for entry in there if str(entry["name"]).rpartition("/")[2].startswith(beginning)]
        inner = [files.find(entry["name"], detail=True) for entry in found if entry["type"] == "directory"]
        objects = {entry["name"]: entry for entry in found if entry["type"] == "file"}
        for more in inner:
            objects |= more
    start = len(f"{base.removeprefix(f'{scheme}://').rstrip('/')}/")
    return {name[start:]: _version(known) for name, known in objects.items()}


def download_object(address: str, path: Path) -> None:
    """Write an object to a file.

    Raises:
        OSError: it cannot be read.
    """
    _, files = _split(address)
    with _described(address):
        files.get_file(address, str(path))


def upload_object(path: Path, address: str) -> None:
    """Write a file to an object, whole or not at all.

    Raises:
        OSError: the storage refuses.
    """
    _, files = _split(address)
    with _described(address):
        files.put_file(str(path), address)


def _version(known: dict[str, Any]) -> tuple[int, int]:
    changed = next((known[key] for key in ("LastModified", "mtime", "updated", "last_modified") if known.get(key)), None)
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    tag = next((str(known[key]) for key in ("ETag", "etag", "blob_id", "sha") if known.get(key)), "")
    version = int.from_bytes(blake2b(tag.encode(), digest_size=7).digest()) if changed is None else round(changed.timestamp() * 1e9)
    return int(known.get("size") or 0), version


@contextmanager
def open_object(address: str) -> Iterator[BinaryIO]:
    """Open an object to read it from its start to its end.

    Raises:
        OSError: it cannot be read.
    """
    _, files = _split(address)
    with _described(address), files.open(address, "rb") as file:
        yield file


def _split(address: str) -> tuple[str, Any]:
    scheme = address.partition("://")[0]
    return scheme, file_system(scheme)


@contextmanager
def _described(address: str) -> Iterator[None]:
    """Turn what the packages raise for refused, missing and unreachable objects into errors of the operating system, in one line."""
    try:
        yield
    except (UserError, ValueError, FileNotFoundError, GeneratorExit):
        raise
    except Exception as error:  # each package has its own, and those of the network behind it
        raise OSError(5, first_line(error), address) from None
