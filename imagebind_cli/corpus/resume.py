"""Choose the inputs of a run of `embed`: those of its share that are not done yet, or have changed since."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.renamed import StoredContents
from imagebind_cli.corpus.share import Share
from imagebind_cli.events import Listener
from imagebind_cli.media.masks import PictureMask
from imagebind_cli.media.video.frame_folder import frame_names
from imagebind_cli.object_storage import fetch_object, is_object, object_stamp
from imagebind_cli.prepared import Prepared
from imagebind_cli.registry import Face, face
from imagebind_cli.sources import Failure, Item, Regions, Stretch, whole_source
from imagebind_cli.store import UNKNOWN, Row, Stamp, content_hash, open_store

CHANGED = "changed while it was read; the same command tries it again"


class Stored(Protocol):
    """A store that knows what its inputs were."""

    path: Path

    @property
    def stored(self) -> int:
        """How many rows it has."""

    def stamp(self, id: str) -> Stamp | None:
        """Return what an id's input was; None if the store does not hold it."""

    def append(self, rows: Iterable[Row]) -> None:
        """Add the rows of inputs whose content it holds under another name."""


@dataclass
class Resume:
    """The choice of inputs; each chosen one carries its stamp.

    modality: what they are. share: which of them are this run's. failures: those of earlier runs. retry: choose only these. verify: recognise
    changed and renamed files by content, and not by size and time. store: where rows go; None until it is open, and where there is none.
    """

    listener: Listener
    modality: str
    share: Share | None = None
    failures: FailureFile | None = None
    retry: bool = False
    verify: bool = False
    store: Stored | None = None
    _came: dict[int, int] = field(default_factory=dict)
    _said: bool = False
    _said_renamed: bool = False
    _contents: StoredContents | None = None

    def __post_init__(self) -> None:
        self._stamp = stamper(face(self.modality), self.verify)

    def skips(self, path: str) -> bool:
        """Check whether a file is done, before it is opened, and count it. Shares and retries are not considered: it may be an archive of others."""
        if self.store is None or not self._is_done(path, path):
            return False
        if self._is_asked(path) and hash(path) in self._came:
            self.listener.repeated += 1
        elif self._is_asked(path):
            self._came[hash(path)] = hash(path)
            self.listener.skipped += 1
        return True

    def choose(self, items: Iterable[Item | Failure]) -> Iterator[Item | Failure]:
        """Yield the inputs to embed, in order. Another thread may iterate."""
        asked = (item for item in items if self._is_asked(item.id))
        for item in asked if self.store is None else distinct(asked, self.listener, self._came):
            if isinstance(item, Failure):
                yield item
                continue
            if self.store is not None and self._is_done(item.id, item.payload):
                self.listener.skipped += 1
                continue
            stamped = replace(item, stamp=self._stamp(item.payload))
            if self._is_renamed(stamped):
                self.listener.skipped += 1
            elif self.failures and not self.retry and self.failures.failed_as(item.id, stamped.stamp):
                self.listener.failed_before += 1
            else:
                if self.failures:
                    self.failures.begin(item.id, stamped.stamp)
                yield stamped

    def failed(self, id: str) -> None:
        """Allow a failed item to be tried again: a file that is named a second time may be complete by then."""
        self._came.pop(hash(id), None)

    def _is_done(self, id: str, payload: Any) -> bool:
        """Check whether the store has exactly this input."""
        assert self.store is not None
        before = self.store.stamp(id)
        if before is None or not self._stamp(payload).is_of(before, by_content=self.verify):
            if self.verify and before and not before.hash and not self._said:
                self.listener.note(
                    f"{self.store.path} was written without --verify: inputs whose content it does not know are embedded again"
                )
                self._said = True
            return False
        if self.failures:
            self.failures.done(id)
        return True

    def _is_renamed(self, item: Item) -> bool:
        """Check whether the store has a file's content under another name; if so, add its vectors under this one."""
        path = whole_source(item.payload)
        if not (self.verify and self.store and self.store.stored and item.stamp.hash and isinstance(path, str)):
            return False
        if not face(self.modality).self_contained or isinstance(item.payload, Regions):
            return False
        if self._contents is None:
            self._contents = StoredContents(open_store(self.store.path))
        rows = self._contents.find(item)
        if not rows:
            return False
        self.store.append(rows)
        if self.failures:
            self.failures.done(item.id)
        if not self._said_renamed:
            self.listener.note(
                f"{item.id}: its content was embedded under another name; the vectors of such files are taken from the store"
            )
            self._said_renamed = True
        return True

    def _is_asked(self, id: str) -> bool:
        mine = self.share is None or self.share.holds(id)
        return mine and not (self.retry and self.failures and id not in self.failures)


def distinct(items: Iterable[Item | Failure], listener: Listener, came: dict[int, int] | None = None) -> Iterator[Item | Failure]:
    """Yield each item once, and count those that come again. An id that is repeated with another input, or that no store can hold, is a failure.

    came: hashes of ids to hashes of their inputs, since there may be millions; a removed one may come again.
    """
    came = {} if came is None else came
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        id, input = hash(item.id), hash(str(item.payload))
        if not _is_storable(item.id):
            yield Failure(item.id, "its id is not text that a store can hold")
        elif id not in came:
            came[id] = input
            yield item
        elif came[id] == input:
            listener.repeated += 1
        else:
            yield Failure(item.id, "this id was already used for another input; give each input its own id")


def has_changed(item: Item, faces: Sequence[Face]) -> bool:
    """Check whether a file has changed since the item got its stamp: what was read of it may be half old and half new.

    A file that was removed meanwhile has not: it was read whole.
    """
    now = glance(item.payload, faces) if item.stamp.size >= 0 else UNKNOWN
    return now.size >= 0 and now[:2] != item.stamp[:2]


def glance(payload: Any, faces: Sequence[Face]) -> Stamp:
    """Return the size and the time of change of the files of a payload: of several their total and the latest; `UNKNOWN` without a file."""
    parts = [(face, payload[face.name] if isinstance(payload, dict) else payload) for face in faces]
    named = (path for face, part in parts if not face.text and isinstance(path := whole_source(part), str))
    paths = [path for path in named if not is_object(path)]  # an object is read in one request, and never half old
    try:
        found = [_file_stamp(path, verify=False) for path in paths]
    except (OSError, ValueError):  # the reader reports why
        return UNKNOWN
    return Stamp(sum(stamp.size for stamp in found), max(stamp.mtime for stamp in found)) if found else UNKNOWN


def _is_storable(id: str) -> bool:
    try:
        return "\0" not in id and id.encode("utf-8", "surrogateescape") is not None
    except UnicodeEncodeError:  # half of a pair, from JSON
        return False


def stamper(face: Face, verify: bool) -> Callable[[Any], Stamp]:
    """Return a function from a payload to the stamp of what the input is now. Without one, the reader reports why."""

    def stamp(payload: Any) -> Stamp:
        if not isinstance(payload, Stretch | Regions):
            return whole_stamp(payload)
        file = whole_stamp(payload.source)  # another stretch of the same file is another input, as are other regions
        part = payload.label if isinstance(payload, Stretch) else f"{payload.regions} {masks_stamp(payload)}"
        return file._replace(hash=content_hash(f"{file.hash.hex() or file[:2]} {part}".encode()))

    def masks_stamp(payload: Regions) -> list[Stamp]:
        masks = (getattr(region, "mask", None) for region in payload.regions)
        return [whole_stamp(mask.path) for mask in masks if isinstance(mask, PictureMask)]

    def whole_stamp(payload: Any) -> Stamp:
        try:
            if isinstance(payload, str) and face.text:
                return Stamp(hash=content_hash(payload.encode("utf-8", "surrogatepass")))
            if isinstance(payload, str):
                return _file_stamp(payload, verify)
            if isinstance(payload, io.BytesIO):
                return Stamp(hash=content_hash(payload.getbuffer()))
            if isinstance(payload, Prepared):
                return Stamp(hash=content_hash(b"".join(part.read() for part in payload.parts)))
        except (OSError, ValueError):  # ValueError: a name with a NUL, or not a file name at all
            pass
        return Stamp()

    return stamp


def _file_stamp(path: str, verify: bool) -> Stamp:
    if is_object(path):
        return Stamp(*object_stamp(path), content_hash(fetch_object(path).getbuffer()) if verify else b"")
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        return _frames_stamp(path, verify)
    return Stamp(status.st_size, status.st_mtime_ns, _file_hash(path) if verify else b"")


def _frames_stamp(folder: str, verify: bool) -> Stamp:
    """Return the stamp of a folder of frames: their total bytes, the latest change of one or of the folder, and a hash of all names and contents."""
    names = frame_names(folder)
    paths = [os.path.join(folder, name) for name in names]
    found = [os.stat(path) for path in paths]
    latest = max(status.st_mtime_ns for status in (os.stat(folder), *found))
    contents = [part for name, path in zip(names, paths, strict=True) for part in (os.fsencode(name), _file_hash(path))] if verify else []
    return Stamp(sum(status.st_size for status in found), latest, content_hash(b"\0".join(contents)) if verify else b"")


def _file_hash(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
