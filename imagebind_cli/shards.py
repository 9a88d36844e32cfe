"""Tar shards in WebDataset's naming: samples written once by `preprocess`, read by `embed` and `train`, on disk or through a pipe.

A sample's members share a key: `KEY.audio.npy` (clips, *shape), `KEY.audio.0001.npy` and on for further stretches of a long item, and last
`KEY.json` with its id, spans and notes; a key without its JSON is not whole. `__made__` says how the shard was made. Tar members are read
where they lie; nothing is ever unpacked to disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from imagebind_cli.errors import UserError

MADE = "__made__"  # WebDataset passes over names like this
BLOCK = tarfile.BLOCKSIZE
MAX_MEMBER = 4 << 30
"""Bytes; a member that promises more is refused."""

ENDINGS = {
    "image": "jpg jpeg png webp bmp gif tif tiff ppm",
    "audio": "wav flac ogg opus mp3 m4a aac",
    "video": "mp4 mkv webm mov avi",
    "text": "txt",
}
BY_ENDING = {ending: modality for modality, endings in ENDINGS.items() for ending in endings.split()}


@dataclass(frozen=True)
class Part:
    """Bytes of a tar member: in memory where they came through a pipe, else where they lie."""

    name: str
    place: bytes | tuple[str, int, int]

    def read(self) -> bytes:
        """The member's bytes."""
        if isinstance(self.place, bytes):
            return self.place
        path, offset, size = self.place
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True)
class Prepared:
    """One modality of a sample as its encoder takes it: arrays (clips, *shape) in time order, their spans, and how they were made."""

    parts: list[Part]
    spans: list[Any]
    notes: tuple[str, ...]
    made: Mapping[str, Any]

    def arrays(self) -> Iterator[np.ndarray]:
        """Each stretch as float32 (text: integers).

        Raises:
            ValueError: a part is no array of numbers.
        """
        for part in self.parts:
            try:
                array = np.lib.format.read_array(io.BytesIO(part.read()), allow_pickle=False)
            except Exception as error:
                raise ValueError(f"member {part.name}: not a readable array: {error}") from error
            if array.dtype.kind not in "fiu":
                raise ValueError(f"member {part.name} holds {array.dtype}; numbers are needed")
            yield array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)


@dataclass
class Entry:
    """All members of one key."""

    key: str
    parts: dict[str, Part] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """The sample's JSON; empty where it has none.

        Raises:
            ValueError: it cannot be read.
        """
        if "json" not in self.parts:
            return {}
        try:
            value = json.loads(self.parts["json"].read())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its JSON is broken: {error}") from None
        return value if isinstance(value, dict) else {}

    def payload(self, modality: str, about: Mapping[str, Any]) -> Prepared | io.BytesIO | str | None:
        """One modality of this sample: prepared arrays, a media file in memory, or for text the sentence; None where it has none.

        Raises:
            ValueError: its spans or its sentence are broken.
        """
        ours = [part for name, part in sorted(self.parts.items()) if re.fullmatch(rf"{modality}(\.\d+)?\.npy", name)]
        if ours and modality in self.made.get("inputs", {}):
            spans, notes = (_listed(about, name, modality) for name in ("spans", "notes"))
            if not all(span is None or (isinstance(span, list) and len(span) == 2) for span in spans):
                raise ValueError("its spans are broken")
            return Prepared(ours, spans, tuple(map(str, notes)), self.made)
        for name, part in self.parts.items():
            if name.startswith(f"{modality}.") or BY_ENDING.get(name) == modality:
                data = part.read()
                return _sentence(data) if modality == "text" else io.BytesIO(data)
        return None


def _listed(about: Mapping[str, Any], name: str, modality: str) -> list[Any]:
    found = about.get(name, {})
    found = found.get(modality, []) if isinstance(found, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"its {name} are broken")
    return found


def _sentence(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


class _Member(tarfile.TarInfo):
    """A member's header. One that is broken or torn is an error; `tarfile` itself takes it for the archive's end, except the first."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):  # the archive's end
                raise
            raise tarfile.ReadError(f"bad header: {error}") from None


def is_shard(head: bytes) -> bool:
    """Whether a file's first 512 bytes are those of a tar archive."""
    return head[257:262] == b"ustar"


def read_shard(stream: BinaryIO, place: str) -> Iterator[Entry]:
    """The entries of a tar archive, one key after another.

    Args:
        stream: the archive; where it has a `name` that is a file, members are left in it, else they are taken into memory as they come by.
        place: for messages.
    Raises:
        UserError: torn or no tar, or a member of more than `MAX_MEMBER` bytes.
    """
    path = place if stream.seekable() and os.path.isfile(place) else None
    entry: Entry | None = None
    made: Mapping[str, Any] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:" if path else "r|", tarinfo=_Member) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER:
                    raise UserError(f"{place}: member {member.name!r} promises {member.size:,} bytes; at most {MAX_MEMBER:,} are read")
                held = archive.extractfile(member)
                if member.name == MADE:
                    made = json.loads(held.read() if held else b"")
                    if not isinstance(made, dict) or not isinstance(made.get("inputs", {}), dict):
                        raise UserError(f"{place}: its {MADE} does not say how it was made")
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if entry is None or entry.key != key:
                    if entry is not None:
                        yield entry
                    entry = Entry(key, made=made)
                if path is not None:
                    where: bytes | tuple[str, int, int] = (path, member.offset_data, member.size)
                else:
                    where = held.read() if held else b""
                entry.parts[ending.lower()] = Part(member.name, where)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise UserError(f"{place}: not a whole tar archive: {error}") from None
    if entry is not None:
        yield entry


class ShardWriter:
    """Shards being written, each `NAME.partial` until it is whole. Use it as a context manager.

    ids: what the whole shards hold already. A run that was killed loses the shard it was in, and the next one writes it again, the same
    to the byte.

    Args:
        pattern: `out-%06d.tar` for numbered shards, `out.tar` for a single one, `-` for one on `stream`.
        made: how the samples are made, written into every shard.
        shard_bytes: a shard is closed once it holds this many.
    Raises:
        UserError: shards that are there were made otherwise, or the pattern cannot be one.
    """

    def __init__(self, pattern: str, made: Mapping[str, Any], shard_bytes: int, stream: BinaryIO | None = None) -> None:
        self._pattern, self._made, self._limit, self._stream = pattern, dict(made), shard_bytes, stream
        self._numbered = "%" in pattern
        if self._numbered and not re.fullmatch(r"[^%]*%0?\d*d[^%]*", pattern):
            raise UserError(f"{pattern}: one number such as %06d is needed")
        self._file: BinaryIO | None = None
        self._number = 0
        self._written = self._began = 0
        self._stretches: dict[str, int] = {}
        self.ids: set[str] = set()
        if stream is None:
            self._find_whole()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._file is not None:
            if kind is None:
                self._close()
            elif self._stream is None:
                self._file.close()  # stays .partial: the next run makes it anew

    def add(self, key: str, modality: str, array: np.ndarray) -> None:
        """The next stretch (clips, *shape) of one modality of a sample."""
        if not self._stretches:
            self._open()
            self._began = self._written
        number = self._stretches.get(modality, 0)
        self._stretches[modality] = number + 1
        data = io.BytesIO()
        np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
        self._member(f"{key}.{modality}{f'.{number:04d}' if number else ''}.npy", data.getvalue())

    def finish(self, key: str, about: Mapping[str, Any]) -> None:
        """The sample is whole. `about`: its id, spans and notes."""
        self._member(f"{key}.json", json.dumps(about).encode())
        self.ids.add(about["id"])
        self._stretches = {}
        if self._numbered and self._written >= self._limit:
            self._close()

    def drop(self) -> None:
        """The sample broke midway: take back what is there of it. On a pipe it stays, without its JSON, and readers pass over it."""
        if self._stretches and self._stream is None and self._file is not None:
            self._file.seek(self._began)
            self._file.truncate()
            self._written = self._began
        self._stretches = {}

    def _find_whole(self) -> None:
        while (path := self._path()).exists():
            with open(path, "rb") as file:
                for entry in read_shard(file, str(path)):
                    if {**entry.made, "version": None} != {**self._made, "version": None}:
                        raise UserError(f"{path}: made otherwise than this run would; write to other shards")
                    self.ids.add(entry.about()["id"])
            self._number += 1
            if not self._numbered:
                break

    def _path(self) -> Path:
        return Path(self._pattern % self._number if self._numbered else self._pattern)

    def _open(self) -> None:
        if self._file is not None:
            return
        if self._stream is not None:
            self._file = self._stream
        else:
            path = self._path()
            if path.exists():
                raise UserError(f"{path}: is whole already; name shards like {path.stem}-%06d{path.suffix} to add to them")
            self._file = open(f"{path}.partial", "wb")  # noqa: SIM115 - closed in _close
        self._written = 0
        self._member(MADE, json.dumps(self._made).encode())

    def _member(self, name: str, data: bytes) -> None:
        assert self._file is not None
        information = tarfile.TarInfo(name)
        information.size, information.mode = len(data), 0o644
        self._put(information.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % BLOCK))

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._written += len(data)

    def _close(self) -> None:
        assert self._file is not None
        self._put(bytes(2 * BLOCK))
        self._file.flush()
        if self._stream is None:
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(f"{self._path()}.partial", self._path())
            self._number += 1
        self._file = None


def key_of(id: str) -> str:
    """A member key for an id: its last letters and digits, for people, and a hash, so that no two ids share one."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(id).stem)[-40:].strip("-")
    return f"{readable}-{hashlib.sha256(id.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}".strip("-")
