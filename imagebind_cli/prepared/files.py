"""Open prepared samples of either format: to write by name, to read by content."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import archive
from imagebind_cli.prepared.entries import Entry, Stretched
from imagebind_cli.prepared.hdf5 import PreparedHDF5, PreparedHDF5Writer, is_hdf5
from imagebind_cli.prepared.tar import ShardWriter, is_shard, read_shard

SHARD_BYTES = 500_000_000


class Writer(Protocol):
    """A writer of samples, piece by piece. ids: of its samples, each with the seconds of a recording that it covers."""

    ids: dict[str, Stretched]

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None: ...
    def add(self, key: str, modality: str, array: np.ndarray) -> None: ...
    def finish(self, key: str, about: Mapping[str, Any]) -> None: ...
    def drop(self) -> None: ...


def open_writer(output: str, provenance: Mapping[str, Any], shard_bytes: int | None = None, stream: BinaryIO | None = None) -> Writer:
    """Return a writer for `NAME.h5`, `out-%06d.tar`, `out.tar`, or `-`, one tar on `stream`.

    Raises:
        UserError: as the writers, or the folder does not exist.
    """
    if stream is None and not Path(output).parent.is_dir():
        raise UserError(f"{output}: there is no folder {Path(output).parent}")
    if output.endswith(".h5"):
        return PreparedHDF5Writer(Path(output), provenance)
    return ShardWriter(output, provenance, shard_bytes or SHARD_BYTES, stream)


def belongs_to(path: str, output: str) -> bool:
    """Check whether a file belongs to an output, as a shard or a part being built, and is not an input where both share a folder."""
    name = "\\d+".join(re.escape(part) for part in re.split(r"%0?\d*d", os.path.abspath(output)))
    return re.fullmatch(rf"{name}(\.partial(/.*)?)?", os.path.abspath(path)) is not None


def index(path: str | Path) -> Sequence[Entry]:
    """Return the samples of a tar shard or a prepared HDF5 file by number, for reading in any order. Arrays are read on access.

    Only the headers of a tar are read. The entries are valid as long as the file does not change.

    Raises:
        UserError: it is neither, or not whole.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            file.seek(0)
            if is_hdf5(head):
                return PreparedHDF5(path)
            if is_shard(head):
                return list(read_shard(file, str(path)))
            if fault := archive(head, str(path)):
                raise UserError(f"{path}: {fault}")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    raise UserError(f"{path}: neither a tar shard nor an HDF5 file of imagebind preprocess")
