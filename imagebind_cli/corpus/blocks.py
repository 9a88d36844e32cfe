"""The inputs of a job on a cluster, listed once by a thread and handed out in blocks, each of one share."""

from __future__ import annotations

import io
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Failure, Item, whole_source
from imagebind_cli.store import id_hash

BLOCK_ITEMS = 1024  # at most in one block
WAITING_BYTES = 256 << 20  # of listed inputs that no actor has yet; the listing waits for these
ITEM_BYTES = 600  # roughly, of an item that names a file


@dataclass(frozen=True)
class ShareBlock:
    """Inputs of one share that an actor takes at once.

    share: its number, from 0. losses: how often an actor ended while it had them.
    """

    share: int
    items: tuple[Item | Failure, ...]
    losses: int = 0

    def halves(self) -> list[ShareBlock]:
        """Return the two halves of a block; one of them holds the input that ends actors."""
        middle = len(self.items) // 2
        return [replace(self, items=items, losses=1) for items in (self.items[:middle], self.items[middle:])]


class Blocks:
    """Inputs as they are listed, divided among shares by their ids. Use it as a context manager.

    An id always belongs to the same share, whoever lists it and whenever; see `Share.holds`.
    """

    def __init__(self, items: Iterable[Item | Failure], shares: int) -> None:
        self._items, self._listed, self._bytes = items, False, 0
        self._waiting: list[list[Item | Failure]] = [[] for _ in range(shares)]
        self._returned: list[ShareBlock] = []
        self._changed = threading.Condition()
        self._over, self._error = False, None  # type: tuple[bool, BaseException | None]

    def __enter__(self) -> Blocks:
        threading.Thread(target=self._list, name="list", daemon=True).start()
        return self

    def __exit__(self, *rest: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def take(self, busy: Collection[int]) -> ShareBlock | None:
        """Return the largest waiting block of a share that is not busy; None if there is none yet.

        Raises:
            UserError: the inputs cannot be listed.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            for place, block in enumerate(self._returned):
                if block.share not in busy:
                    return self._returned.pop(place)
            share = max((number for number in range(len(self._waiting)) if number not in busy), key=self._count, default=None)
            if share is None or not self._waiting[share]:
                return None
            items, self._waiting[share] = self._waiting[share][:BLOCK_ITEMS], self._waiting[share][BLOCK_ITEMS:]
            self._bytes -= sum(map(_bytes, items))
            self._changed.notify_all()
            return ShareBlock(share, tuple(items))

    def put_back(self, blocks: Iterable[ShareBlock]) -> None:
        """Put blocks that were taken at the front of the queue."""
        with self._changed:
            self._returned += blocks

    @property
    def waiting(self) -> int:
        """Count the waiting blocks, approximately."""
        with self._changed:
            return len(self._returned) + sum(-(-len(items) // BLOCK_ITEMS) for items in self._waiting)

    @property
    def are_done(self) -> bool:
        """Check whether all inputs are listed and taken.

        Raises:
            UserError: they cannot be listed.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            return self._listed and not self._returned and not any(self._waiting)

    def _count(self, share: int) -> int:
        return len(self._waiting[share])

    def _list(self) -> None:
        try:
            for item in self._items:
                share = id_hash(item.id) % len(self._waiting)
                with self._changed:
                    self._waiting[share].append(item)
                    self._bytes += _bytes(item)
                    while self._bytes > WAITING_BYTES and not self._over:
                        self._changed.wait()
                    if self._over:
                        return
        except BaseException as error:  # raised again in the thread that takes blocks
            self._error = error
        self._listed = True


def _bytes(item: Item | Failure) -> int:
    """Estimate the bytes of memory that an item takes."""
    payload = getattr(item, "payload", None)
    parts = payload.values() if isinstance(payload, dict) else [payload]
    return ITEM_BYTES + sum(map(_payload_bytes, parts))


def _payload_bytes(payload: Any) -> int:
    payload = whole_source(payload)
    if isinstance(payload, io.BytesIO):
        return payload.getbuffer().nbytes
    if isinstance(payload, Prepared):
        held = (getattr(part, "place", None) for part in payload.parts)
        return sum(len(place) for place in held if isinstance(place, bytes))
    return 0
