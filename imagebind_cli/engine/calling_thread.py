"""Read items in the thread that takes their samples: a sentence is read sooner than it is handed to another thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from imagebind_cli.encoder import Read, Sample


class CallingThread:
    """Reads each item when its samples are taken. The items must be at hand, and reading one must be short: nothing ends it."""

    workers = 0

    def __init__(self, read: Read) -> None:
        self._read = read

    def submit(self, payload: Any, name: str = "") -> Iterator[Sample]:
        """Return the samples of an item; see `Engine`."""
        return self._read(payload)

    def close(self) -> None:
        """Do nothing: nothing is read in the background."""
