"""Which inputs a run of `embed` takes up: those of its share that are not done yet, or have changed since."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.items import distinct
from imagebind_cli.corpus.share import Share
from imagebind_cli.events import Listener
from imagebind_cli.media.video.frame_folder import frame_names
from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Failure, Item, Stretch
from imagebind_cli.store import Stamp, content_hash


class Stored(Protocol):
    """A store that knows what its inputs were."""

    path: Path

    def stamp(self, id: str) -> Stamp | None:
        """Return what an id's input was; None if the store does not hold it."""


@dataclass
class Resume:
    """The choice of inputs; each that is taken up carries what it is now.

    modality: what they are. share: which of them are this run's. failures: those of earlier runs. retry: take only these. verify: tell a
    changed file by its content, and not by size and time. store: where rows go; None until it is open, and where there is none.
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

    def __post_init__(self) -> None:
        self._stamp = stamper(self.modality, self.verify)

    def passes(self, path: str) -> bool:
        """Whether a file is done, told before it is looked into. Whether it is asked for is not: it may be an archive of items that are."""
        if self.store is None or not self._is_done(path, path):
            return False
        self.listener.skipped += self._is_asked(path)
        return True

    def choose(self, items: Iterable[Item | Failure]) -> Iterator[Item | Failure]:
        """The items to do, in order. Another thread may draw them."""
        asked = (item for item in items if self._is_asked(item.id))
        for item in asked if self.store is None else distinct(asked, self.listener, self._came):
            if isinstance(item, Failure):
                yield item
                continue
            if self.store is not None and self._is_done(item.id, item.payload):
                self.listener.skipped += 1
                continue
            stamp = self._stamp(item.payload)
            if self.failures and not self.retry and self.failures.failed_as(item.id, stamp):
                self.listener.left += 1
            else:
                yield replace(item, stamp=stamp)

    def failed(self, id: str) -> None:
        """Let an item that failed come again: a file that is named a second time may be whole by then."""
        self._came.pop(hash(id), None)

    def _is_done(self, id: str, payload: Any) -> bool:
        """Whether the store has this very input."""
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

    def _is_asked(self, id: str) -> bool:
        mine = self.share is None or self.share.holds(id)
        return mine and not (self.retry and self.failures and id not in self.failures)


def stamper(modality: str, verify: bool) -> Callable[[Any], Stamp]:
    """What tells what an input is now, from its payload. Of one that cannot be looked at nothing is known; its reader says why."""

    def stamp(payload: Any) -> Stamp:
        if not isinstance(payload, Stretch):
            return whole_stamp(payload)
        file = whole_stamp(payload.source)  # another stretch of the same file is another input
        return file._replace(hash=content_hash(f"{file.hash.hex() or file[:2]} {payload.label}".encode()))

    def whole_stamp(payload: Any) -> Stamp:
        try:
            if isinstance(payload, str) and modality == "text":
                return Stamp(hash=content_hash(payload.encode("utf-8", "surrogatepass")))
            if isinstance(payload, str):
                status = os.stat(payload)
                if stat.S_ISDIR(status.st_mode):
                    return _frames_stamp(payload, verify)
                return Stamp(status.st_size, status.st_mtime_ns, _file_hash(payload) if verify else b"")
            if isinstance(payload, io.BytesIO):
                return Stamp(hash=content_hash(payload.getbuffer()))
            if isinstance(payload, Prepared):
                return Stamp(hash=content_hash(b"".join(part.read() for part in payload.parts)))
        except (OSError, ValueError):  # ValueError: a name with a NUL, or one that is no file name at all
            pass
        return Stamp()

    return stamp


def _frames_stamp(folder: str, verify: bool) -> Stamp:
    """Of a folder of frames: their bytes together, the latest change of one or of the folder, and a hash of all names and contents."""
    names = frame_names(folder)
    paths = [os.path.join(folder, name) for name in names]
    found = [os.stat(path) for path in paths]
    latest = max(status.st_mtime_ns for status in (os.stat(folder), *found))
    contents = [part for name, path in zip(names, paths, strict=True) for part in (os.fsencode(name), _file_hash(path))] if verify else []
    return Stamp(sum(status.st_size for status in found), latest, content_hash(b"\0".join(contents)) if verify else b"")


def _file_hash(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
