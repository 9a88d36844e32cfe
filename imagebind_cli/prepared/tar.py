"""Tar shards in WebDataset's naming, on disk or through a pipe.

A sample's members share a key: `KEY.audio.npy` (clips, *shape), `KEY.audio.0001.npy` and on for further stretches of a long item, and last
`KEY.json` with its id, spans, notes and checksums; a key without its JSON is incomplete. `__made__` is the shard's provenance. Members are read in
place; nothing is unpacked to disk.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from imagebind_cli.checksums import SEALED, check_seal, seal
from imagebind_cli.descriptors import NO_LINK, WINDOWS
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import InUseError, UsageError, UserError
from imagebind_cli.files import being_written, open_locked, put_in_place
from imagebind_cli.prepared.entries import Entry, Member, Stretched, array_sum, check_prepared_alike, stretch_of

MADE = "__made__"  # WebDataset skips names like this
BLOCK = tarfile.BLOCKSIZE
END = 2 * BLOCK  # zeros that end an archive
MAX_MEMBER = 4 << 30  # bytes; a larger member is refused


class _Header(tarfile.TarInfo):
    """A member's header. A broken or torn one is an error; `tarfile` itself takes it for the archive's end, unless it is the first."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        return cls._plain(buf, encoding, errors) or cls._any(buf, encoding, errors)

    @classmethod
    def _plain(cls, header: bytes | bytearray, encoding: str, errors: str) -> Self | None:
        """Parse the header of an ordinary file, of which only name and size matter, in a fraction of the time; None for any other."""
        name, size, check, kind, prefix = header[:100], header[124:136], header[148:156], header[156:157], header[345:346]
        try:
            plain = kind == tarfile.REGTYPE and prefix == b"\0" and sum(header) - sum(check) + 256 == int(check.rstrip(b"\0 "), 8)
            member = cls(name.partition(b"\0")[0].decode(encoding, errors)) if plain else None
            if member is not None:
                member.size = int(size.rstrip(b"\0 "), 8)
        except ValueError:
            return None
        return member

    @classmethod
    def _any(cls, header: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(header, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(header):  # the archive's end
                raise
            raise tarfile.ReadError(f"bad header: {error}") from None


def is_shard(head: bytes) -> bool:
    """Check whether a file's first 512 bytes are those of a tar archive."""
    return head[257:262] == b"ustar"


def read_shard(stream: BinaryIO, place: str) -> Iterator[Entry]:
    """Yield the entries of a tar archive, one key after another.

    Args:
        stream: the archive. If it is the file named `place`, only headers are read and members stay in it; else members are read into
            memory as they come.
        place: for messages.
    Raises:
        UserError: it is torn or not a tar, or a member has more than `MAX_MEMBER` bytes.
    """
    path = place if stream.seekable() and os.path.isfile(place) else None
    entry: Entry | None = None
    names: set[int] = set()  # hashes, since there may be millions
    provenance: Mapping[str, Any] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:" if path else "r|", tarinfo=_Header) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or an endless stream would fill the memory with headers
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER:
                    raise UserError(f"{place}: member {member.name!r} promises {member.size:,} bytes; at most {MAX_MEMBER:,} are read")
                if member.name == MADE:
                    provenance = _read_provenance(_content(archive, member), place)
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                ending = ending.lower()
                if base.startswith("."):  # .DS_Store, and the ._NAME that macOS puts beside every file
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if entry is None or entry.key != key:
                    if entry is not None:
                        yield entry
                    entry = Entry(key, provenance=provenance)
                where = (path, member.offset_data, member.size) if path is not None else _content(archive, member)
                if hash(member.name) in names:
                    entry.fault = f"member {member.name} is in the archive twice; keep one"
                elif ending in entry.parts:
                    entry.fault = f"members {entry.parts[ending].name} and {member.name} are the same part of it; keep one"
                names.add(hash(member.name))
                entry.parts.setdefault(ending, Member(member.name, where))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{place}: not a complete tar archive: {error}") from None
    if entry is not None:
        yield entry


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    held = archive.extractfile(member)
    return held.read() if held else b""


def _read_provenance(data: bytes, place: str) -> dict[str, Any]:
    provenance = parse_json(data)
    if not isinstance(provenance, dict) or not isinstance(provenance.get("inputs", {}), dict):
        raise UserError(f"{place}: its {MADE} does not say how it was made")
    if check_seal(data):
        del provenance[SEALED]
    return provenance


class ShardWriter:
    """Shards being written, each `NAME.partial` until it is complete. Use it as a context manager.

    ids: of the samples in complete shards, with the stretch of each. A killed run loses the shard that it was writing, and the next one writes
    it again, the same to the byte. A complete single shard is rewritten, with the new samples after the others.

    Args:
        pattern: `out-%06d.tar` for numbered shards, `out.tar` for a single one, `-` for one on `stream`.
        made: how the samples are made, written into every shard.
        shard_bytes: a shard is closed once it holds this many.
    Raises:
        UserError: existing shards have another provenance, or the pattern is malformed; later, another run writes the same shard.
    """

    def __init__(self, pattern: str, provenance: Mapping[str, Any], shard_bytes: int, stream: BinaryIO | None = None) -> None:
        self._pattern, self._provenance, self._limit, self._stream = pattern, dict(provenance), shard_bytes, stream
        self._numbered = "%" in pattern
        if self._numbered and not re.fullmatch(r"[^%]*%0?\d*d[^%]*", pattern):
            raise UsageError(f"{pattern}: one number such as %06d is needed")
        self._file: BinaryIO | None = None
        self._number = 0
        self._written = self._began = self._whole = 0  # bytes of this shard: all; before this sample; of samples that are finished
        self._sums: dict[str, list[int]] = {}  # of this sample, by modality, as in `Prepared`
        self._closer = ThreadPoolExecutor(1, "shard")  # the disk may take seconds, in which the next shard begins
        self._closing: Future[None] | None = None
        self.ids: dict[str, Stretched] = {}
        if stream is None:
            self._find_whole()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._file is not None:
            if kind is None and (self._whole or self._stream is not None):
                self._close()
            elif self._stream is None:
                self._file.close()  # stays .partial: the next run rewrites it
                if kind is None:  # every sample for it failed midway
                    Path(f"{self._path(self._number)}.partial").unlink()
        self._closer.shutdown()
        if self._closing is not None and kind is None:
            self._closing.result()

    def shards(self) -> Iterator[Path]:
        """Yield the complete shards, in order."""
        for number in range(self._number):
            yield self._path(number)

    def add(self, key: str, modality: str, array: np.ndarray) -> None:
        """Add the next stretch (clips, *shape) of one modality of a sample."""
        if not self._sums:
            self._open()
            self._began = self._written
        sums = self._sums.setdefault(modality, [])
        number, array = len(sums), np.ascontiguousarray(array)
        sums.append(array_sum(array, sums[-1] if sums else 0))
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
        ending = f"{modality}.{number:04d}.npy" if number else f"{modality}.npy"
        self._member(f"{key}.{ending}", header.getvalue(), array.reshape(-1).view(np.uint8).data)

    def finish(self, key: str, about: Mapping[str, Any]) -> None:
        """End a sample. about: its id, spans and notes."""
        self._member(f"{key}.json", seal(json.dumps({**about, "sums": self._sums})).encode())
        self.ids[about["id"]] = stretch_of(about)
        self._sums, self._whole = {}, self._written
        if self._numbered and self._written >= self._limit:
            self._close()

    def cut(self) -> None:
        """Close the current shard with the samples that are finished, without the one that has begun."""
        if self._file is not None and self._whole:
            self._back_to(self._whole)
            self._close()

    def drop(self) -> None:
        """Remove the parts already written of a failed sample. On a pipe it stays, without its JSON, and readers skip it."""
        if self._sums and self._stream is None and self._file is not None:
            self._back_to(self._began)
        self._sums = {}

    def _back_to(self, written: int) -> None:
        assert self._file is not None
        self._file.seek(written)
        self._file.truncate()
        self._written = written

    def _find_whole(self) -> None:
        while (path := self._path(self._number)).exists():
            with open(path, "rb") as file:
                for entry in read_shard(file, str(path)):
                    check_prepared_alike(path, entry.provenance, self._provenance)
                    about = entry.about()
                    self.ids[about["id"]] = stretch_of(about)
            self._number += 1
            if not self._numbered:
                break

    def _path(self, number: int) -> Path:
        return Path(self._pattern % number if self._numbered else self._pattern)

    def _open(self) -> None:
        if self._file is not None:
            return
        self._file = self._new_file() if self._stream is None else self._stream
        self._written = self._whole = self._file.tell() if self._stream is None else 0
        if not self._written:
            self._member(MADE, seal(json.dumps(self._provenance)).encode())

    def _new_file(self) -> BinaryIO:
        path, building = self._path(self._number), Path(f"{self._path(self._number)}.partial")
        try:
            file = open(open_locked(building, being_written(path), NO_LINK), "wb")  # noqa: SIM115 - closed in _close
        except OSError as error:
            raise UserError(f"{building}: {error.strerror}") from None
        file.truncate(0)
        if path.exists():
            if self._numbered or not self._number:
                file.close()
                building.unlink()
                raise InUseError(f"{path}: another run has written it meanwhile; start this one again")
            with open(path, "rb") as whole:
                shutil.copyfileobj(whole, file)
            file.seek(-END, os.SEEK_END)
            file.truncate()
        return file

    def _member(self, name: str, *blocks: bytes | memoryview) -> None:
        information = tarfile.TarInfo(name)
        information.size, information.mode = sum(map(len, blocks)), 0o644
        self._put(information.tobuf(tarfile.PAX_FORMAT), *blocks, bytes(-information.size % BLOCK))

    def _put(self, *blocks: bytes | memoryview) -> None:
        assert self._file is not None
        for block in blocks:
            self._file.write(block)
            self._written += len(block)

    def _close(self) -> None:
        assert self._file is not None
        self._put(bytes(END))
        if self._stream is not None:
            self._stream.flush()
        else:
            if self._closing is not None:
                self._closing.result()  # raises what went wrong with the shard before
            self._closing = self._closer.submit(_put_in_place, self._file, self._path(self._number))
            self._number += 1
        self._file = None


def _put_in_place(file: BinaryIO, path: Path) -> None:
    """Close a shard and give it its name."""
    with file:
        file.flush()
        if WINDOWS:  # which renames no open file
            file.close()
        put_in_place(Path(f"{path}.partial"), path)
