"""Outputs in object storage, which has neither appending nor locks: written to this machine, and uploaded as whole objects when the run ends."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from imagebind_cli.documents import read_object
from imagebind_cli.errors import UserError
from imagebind_cli.files import locked, write_json
from imagebind_cli.object_storage import download_object, object_address, objects_below, upload_object
from imagebind_cli.store_formats import FORMATS
from imagebind_cli.weights.download import home

RECORD = ".uploaded.json"  # beside the local files: what the objects and the files were when they were last the same
LAST = "commits"  # of a `.store`, which says how much of its other files counts

Versions = dict[str, list[int]]  # size and time of change by name


@contextmanager
def uploaded(output: str | Path) -> Iterator[Path]:
    """Yield the path to write an output to: the path itself, or for an address a path on this machine, from which it is uploaded at the block's end.

    The objects that are there are downloaded first, unless this machine has what it uploaded last, or newer files of a run that was killed.
    After an error or a signal what was written is uploaded, too. Two machines must not write to one address: the last one's objects count.

    Raises:
        UserError: another run of this machine writes to the address; the storage refuses to read or write.
    """
    address = object_address(output)
    if address is None:
        yield Path(output)
        return
    if address.startswith("hf://"):
        raise UserError(f"{address}: every upload there is a commit; write to a disk, and publish the store: imagebind store push")
    base, _, name = address.rpartition("/")
    folder = home() / "outputs" / blake2b(address.encode(), digest_size=8).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"{address}: another run is writing to it"):
        try:
            _download(base, folder, name)
            try:
                yield folder / name
            finally:
                _upload(base, folder, name)
        except OSError as error:
            if not str(error.filename or "").startswith(base):
                raise
            raise UserError(f"{error.filename}: {error.strerror}; the output so far is in {folder}; the same command continues") from None


def _belonging(name: str) -> re.Pattern[str]:
    """Return what the names of an output's files match, below its base."""
    names = "\\d+".join(re.escape(part) for part in re.split(r"%0?\d*d", name))
    format = FORMATS.get(Path(name).suffix)
    beside = [re.escape(path.name) for path in format.files(Path(name))[1:]] if format else []
    return re.compile("|".join([rf"{names}(/[^.][^/]*)?", *beside]))


def _local(folder: Path, name: str) -> Versions:
    belonging = _belonging(name)
    paths = [path for path in folder.rglob("*") if path.is_file() and belonging.fullmatch(path.relative_to(folder).as_posix())]
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def _remote(base: str, name: str) -> Versions:
    belonging = _belonging(name)
    prefix = re.split(r"%0?\d*d", name)[0].rpartition(".")[0] or re.split(r"%0?\d*d", name)[0]
    return {key: list(version) for key, version in objects_below(base, prefix).items() if belonging.fullmatch(key)}


def _download(base: str, folder: Path, name: str) -> None:
    remote, record = _remote(base, name), _read(folder)
    if remote == record.get("objects", {}):
        return
    for key in _local(folder, name):
        (folder / key).unlink()
    shutil.rmtree(folder / name, ignore_errors=True)
    for key in remote:
        (folder / key).parent.mkdir(exist_ok=True)
        download_object(f"{base}/{key}", folder / key)
    _write(folder, remote, _local(folder, name))


def _upload(base: str, folder: Path, name: str) -> None:
    files, before = _local(folder, name), _read(folder).get("files", {})
    for key in sorted(files, key=lambda key: (key.endswith(f"/{LAST}"), key)):
        if files[key] != before.get(key):
            upload_object(folder / key, f"{base}/{key}")
    _write(folder, _remote(base, name), files)


def _read(folder: Path) -> dict[str, Versions]:
    path = folder / RECORD
    return read_object(path) if path.exists() else {}


def _write(folder: Path, objects: Versions, files: Versions) -> None:
    write_json(folder / RECORD, {"objects": objects, "files": files})
