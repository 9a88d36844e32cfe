"""A file that changes in whole steps or not at all, for libraries that take a file object: plain HDF5 files do not survive a kill during a write.

It works like SQLite's rollback journal. Writes wait in memory as pages. A commit saves the file's length and the old content of the pages that it
will change in `NAME.journal`, changes the file, and marks the journal as done. A whole journal that is not done is played back; a torn one means
that the file was not touched yet. The journal is also the writer's lock, and is removed when the file is closed.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebind_cli.descriptors import NO_LINK, open_descriptor, read_at, remove_locked, sync, write_all
from imagebind_cli.files import being_written, open_locked

PAGE = 4096
MAGIC = b"imagebind undo 1"
HEADER = struct.Struct("<16sQ?QQII")
# Magic, number of the commit, whether it is under way, the file's length before it, how many pages are saved, their CRC, the header's own.


@dataclass(frozen=True)
class Undo:
    """The data that restore a file to its last commit: its length then, and the old content of pages by their number."""

    length: int
    pages: dict[int, bytes]


def journal_of(path: Path) -> Path:
    """Return the path of a file's journal."""
    return path.with_name(f"{path.name}.journal")


def read_journal(descriptor: int) -> tuple[int, Undo | None]:
    """Return the number of the commit that a journal was last used for, and how to undo it; None where there is nothing to undo."""
    header = read_at(descriptor, HEADER.size, 0)
    if len(header) < HEADER.size or zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
        return 0, None
    magic, number, under_way, length, count, check, _ = HEADER.unpack(header)
    if magic != MAGIC or not under_way:
        return number, None
    body = read_at(descriptor, count * (8 + PAGE), HEADER.size)
    if len(body) < count * (8 + PAGE) or zlib.crc32(body) != check:
        return number, None
    numbers, images = struct.unpack(f"<{count}Q", body[: 8 * count]), body[8 * count :]
    return number, Undo(length, {page: images[PAGE * i : PAGE * (i + 1)] for i, page in enumerate(numbers)})


class JournaledFile:
    """A file object for reading and writing in which nothing changes on disk until `commit`.

    Raises:
        UserError: another process has it open. OSError: it cannot be opened, or its journal cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, -1
        self._journal = open_locked(journal_of(path), being_written(path), NO_LINK)
        try:
            self._file = open_descriptor(path, os.O_RDWR | os.O_CREAT)
            self._number, undo = read_journal(self._journal)
            if undo is not None and undo.length <= os.fstat(self._file).st_size:  # else the journal outlived another file of this name
                self._roll_back(undo)
            sync(path.parent)  # else a power cut may lose the journal's name and keep what it should undo
        except BaseException:
            self._release()
            raise
        self._length = self._end = os.fstat(self._file).st_size
        self._place = 0
        self._pages: dict[int, bytearray] = {}

    @property
    def length(self) -> int:
        """Bytes as of the last commit."""
        return self._length

    # What HDF5 needs of a file object

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._end - self._place)]
        self._place += _read(self._file, self._length, self._pages, self._place, view)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        buffer = bytearray(self._end - self._place if size < 0 else size)
        return bytes(buffer[: self.readinto(buffer)])

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, start, stop, at in _pieces(self._place, len(view)):
            if page not in self._pages:
                self._pages[page] = bytearray(PAGE) if stop - start == PAGE else bytearray(self._on_disk(page))
            self._pages[page][start:stop] = view[at : at + stop - start]
        self._place += len(view)
        self._end = max(self._end, self._place)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = max(self._length, self._place if size is None else size)  # a commit never shortens what was there
        return self._end

    def flush(self) -> None:
        """Do nothing: HDF5 flushes at any time, and half a change is not a commit."""

    # How it stays consistent

    def commit(self) -> None:
        """Write everything to the disk in one step.

        Raises:
            OSError: the disk is full or broken. The file is unchanged.
        """
        old = {page: self._on_disk(page) for page in self._pages if page * PAGE < self._length}
        new = {page: bytes(data) for page, data in sorted(self._pages.items()) if page * PAGE < self._end}
        changed = {page: data for page, data in new.items() if data != old.get(page, bytes(PAGE))}  # zeros stay a hole
        if not changed and self._end == self._length:
            self._pages.clear()
            return
        undo = Undo(self._length, {page: old[page] for page in changed if page in old})
        self._number += 1
        try:
            self._begin(undo)
        except OSError:
            os.ftruncate(self._journal, 0)
            self.discard()
            raise
        try:
            os.ftruncate(self._file, self._end)
            self._apply(sorted(changed.items(), reverse=True))  # the new end first: if the disk is full, no old data was touched
            os.fsync(self._file)
        except OSError:
            self._roll_back(undo)
            self.discard()
            raise
        self._mark(False, 0, b"")
        self._length = self._end
        self._pages.clear()

    def discard(self) -> None:
        """Forget what was written since the last commit."""
        self._pages.clear()
        self._end = self._length

    def close(self) -> None:
        """Close without a commit, and remove the journal, unless it is still needed."""
        try:
            if read_journal(self._journal)[1] is None:
                journal, self._journal = self._journal, -1
                remove_locked(journal_of(self._path), journal)
        finally:
            self._release()

    def _on_disk(self, page: int) -> bytes:
        return read_at(self._file, max(0, min(PAGE, self._length - page * PAGE)), page * PAGE).ljust(PAGE, b"\0")

    def _begin(self, undo: Undo) -> None:
        count = len(undo.pages)
        body = struct.pack(f"<{count}Q", *undo.pages) + b"".join(undo.pages.values())
        write_all(self._journal, body, HEADER.size)
        self._mark(True, count, body)
        os.fsync(self._journal)

    def _mark(self, under_way: bool, count: int, body: bytes) -> None:
        header = HEADER.pack(MAGIC, self._number, under_way, self._length, count, zlib.crc32(body), 0)[:-4]
        write_all(self._journal, header + zlib.crc32(header).to_bytes(4, "little"), 0)

    def _apply(self, pages: Iterable[tuple[int, bytes]]) -> None:
        for page, data in pages:
            write_all(self._file, data[: self._end - page * PAGE], page * PAGE)

    def _roll_back(self, undo: Undo) -> None:
        """Restore the file; a second call does the same."""
        os.ftruncate(self._file, undo.length)  # first, since it frees room on a full disk
        for page, image in undo.pages.items():
            old = image[: undo.length - page * PAGE]
            if read_at(self._file, len(old), page * PAGE) != old:
                write_all(self._file, old, page * PAGE)
        os.fsync(self._file)
        self._length = undo.length
        self._mark(False, 0, b"")

    def _release(self) -> None:
        for descriptor in (self._file, self._journal):
            if descriptor >= 0:
                os.close(descriptor)


class Snapshot:
    """A journaled file as of its last commit, as a file object for reading; a writer neither disturbs it nor waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_descriptor(path, os.O_RDONLY)
        try:
            self._state, undo = self._look()
        except BaseException:
            os.close(self._file)
            raise
        self._length = os.fstat(self._file).st_size if undo is None else undo.length
        self._pages = {} if undo is None else undo.pages
        self._place = 0

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)

    @property
    def length(self) -> int:
        """Bytes as of the last commit."""
        return self._length

    def fileno(self) -> int:
        return self._file

    def disturbed(self) -> bool:
        """Check whether there was a commit since this was opened, so that what was read may be from both sides of it."""
        return self._look()[0] != self._state

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._place)]
        self._place += _read(self._file, self._length, self._pages, self._place, view)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        buffer = bytearray(max(0, self._length - self._place) if size < 0 else size)
        return bytes(buffer[: self.readinto(buffer)])

    def flush(self) -> None:
        """Do nothing: nothing is written."""

    def _look(self) -> tuple[object, Undo | None]:
        named = os.stat(self._path)
        state = (named.st_ino, named.st_size, named.st_mtime_ns)
        try:
            journal = open_descriptor(journal_of(self._path), os.O_RDONLY)
        except FileNotFoundError:
            return (state, None), None
        try:
            number, undo = read_journal(journal)
            return (state, os.fstat(journal).st_ino, number, undo is None), undo
        finally:
            os.close(journal)


def _read(file: int, length: int, pages: Mapping[int, bytes | bytearray], place: int, view: memoryview) -> int:
    """Fill `view` with the bytes from `place` on: from pages in memory, else from the file, zeros past its end. Returns their number."""
    inside = max(0, min(len(view), length - place))
    data = read_at(file, inside, place) if inside else b""  # a damaged file may point to no place that a system knows
    view[: len(data)] = data
    view[len(data) :] = bytes(len(view) - len(data))
    if pages:
        for page, start, stop, at in _pieces(place, len(view)):
            if page in pages:
                view[at : at + stop - start] = pages[page][start:stop]
    return len(view)


def _pieces(place: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the pages that a range of bytes covers: number, start and stop in the page, and which of the bytes comes first there."""
    at = 0
    while at < length:
        page, start = divmod(place + at, PAGE)
        stop = min(PAGE, start + length - at)
        yield page, start, stop, at
        at += stop - start
