"""One row of a store, as a line of JSON and as a record of fixed length, by which a million rows are looked up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from imagebind_cli.checksums import checksum, seal

KEY = np.dtype("<u8")
STAMP = np.dtype([("key", KEY), ("size", "<i8"), ("mtime", "<i8"), ("hash", "V16")])
# A row's id as a hash, and its input's `Stamp`; -1 and zeros where that is not known.
NO_HASH = bytes(16)
VECTOR_SUM = "vector_crc32"  # in a line of JSON: the checksum of the row's vector, which is elsewhere


class Stamp(NamedTuple):
    """What an input was when it was embedded.

    size, mtime: bytes and time of change in nanoseconds of a file, -1 for other inputs. hash: of its content, empty if that was not computed.
    """

    size: int = -1
    mtime: int = -1
    hash: bytes = b""

    def is_of(self, other: Stamp, by_content: bool = False) -> bool:
        """Check whether two stamps are of the same input. A field that one lacks is ignored; with `by_content` a missing hash means different."""
        if self.hash and other.hash:
            return self.hash == other.hash
        if by_content:
            return False
        return self.size < 0 or other.size < 0 or (self.size, self.mtime) == (other.size, other.mtime)


UNKNOWN = Stamp()


@dataclass(frozen=True)
class Row:
    """A unit vector (dim,) float32 and what is stored with it.

    span: its seconds, where each window has a row. windows: how many rows the item has, of windows or regions; 0 where nobody knows yet,
    as of a stream.
    meta: the other columns of its manifest row. stamp: what its input was. clock: when it began, in ISO 8601, where the file states it.
    """

    id: str
    vector: np.ndarray
    span: tuple[float, float] | None = None
    windows: int = 1
    meta: Mapping[str, Any] = field(default_factory=dict)
    stamp: Stamp = UNKNOWN
    clock: str | None = None


def content_hash(data: Any) -> bytes:
    """Return the hash of an input's content: BLAKE2b in 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def encode_id(id: str) -> bytes:
    """Return an id as bytes; for a file name that is not valid UTF-8, the original bytes."""
    return id.encode("utf-8", "surrogateescape")


def decode_id(id: bytes) -> str:
    """Return the id of these bytes."""
    return id.decode("utf-8", "surrogateescape")


def id_hash(id: str) -> int:
    """Return an id's hash: BLAKE2b in 8 bytes. Two of a billion ids share one with a chance of 3 %; of a million, 1 in 37 million."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def stamp_record(id: str, stamp: Stamp) -> tuple[int, int, int, bytes]:
    """Return a record of `STAMP`."""
    return id_hash(id), stamp.size, stamp.mtime, stamp.hash.ljust(16, b"\0")


def stamp_of(record: np.void) -> Stamp:
    """Return the stamp in a record of `STAMP`."""
    hash = record["hash"].tobytes()
    return Stamp(int(record["size"]), int(record["mtime"]), b"" if hash == NO_HASH else hash)


def json_line(row: Row, modality: str) -> bytes:
    """Return a line of JSON with its newline. Numbers have the 9 digits that give the same float32 back; any file name survives."""
    return vector_line({"id": row.id, "modality": modality} | _times(row) | _meta(row), row.vector)


def stored_line(row: Row, modality: str) -> bytes:
    """Return `json_line` with the stamp and a checksum, as a store keeps it."""
    return _sealed(vector_line({"id": row.id, "modality": modality} | _beside(row), row.vector))


def row_line(row: Row) -> bytes:
    """Return what a store keeps with a row's vector, as a line of JSON."""
    return json.dumps({"id": row.id} | _beside(row)).encode() + b"\n"


def sealed_row_line(row: Row, vector: np.ndarray) -> bytes:
    """Return `row_line` with checksums of the vector, as it is stored, and of the line."""
    return _sealed(json.dumps({"id": row.id} | _beside(row) | {VECTOR_SUM: f"{checksum([vector]):08x}"}).encode())


def row_stamp(row: Mapping[str, Any]) -> Stamp:
    """Return the stamp in a row's JSON.

    Raises:
        AttributeError, TypeError, ValueError: it is not one.
    """
    stamp = Stamp(row.get("size", -1), row.get("mtime", -1), bytes.fromhex(row.get("hash", "")))
    if not (-1 <= stamp.size < 1 << 63 and -1 << 63 <= stamp.mtime < 1 << 63 and len(stamp.hash) in (0, len(NO_HASH))):
        raise ValueError(f"not the size, time and hash of an input: {stamp}")
    return stamp


def vector_line(head: dict[str, Any], vector: np.ndarray) -> bytes:
    """Return a line of JSON that holds a head and then a vector, with its newline; see `json_line`."""
    numbers = ("%.9g," * len(vector) % tuple(vector.tolist()))[:-1]
    return f'{json.dumps(head)[:-1]}, "embedding": [{numbers}]}}\n'.encode()


def _sealed(line: bytes) -> bytes:
    return seal(line.decode()).encode() + b"\n"


def _beside(row: Row) -> dict[str, Any]:
    stamp = row.stamp
    file = {} if stamp.size < 0 else {"size": stamp.size, "mtime": stamp.mtime}
    hash = {"hash": stamp.hash.hex()} if stamp.hash else {}
    return _times(row) | file | hash | _meta(row)


def _times(row: Row) -> dict[str, Any]:
    seconds = {} if row.span is None else {"start": row.span[0], "end": row.span[1]}
    if row.span is not None or row.windows > 1:  # of regions there are several without seconds
        seconds["windows"] = row.windows
    return seconds | ({"clock": row.clock} if row.clock else {})


def _meta(row: Row) -> dict[str, Any]:
    return {"meta": dict(row.meta)} if row.meta else {}
