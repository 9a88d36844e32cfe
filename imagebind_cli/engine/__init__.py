"""Read many items at once: threads and processes behind one protocol. A further engine is one more file here and one more case in `open_engine`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from imagebind_cli.engine.item_timeout import ITEM_SECONDS

if TYPE_CHECKING:
    from imagebind_cli.encoder import Read, Sample
    from imagebind_cli.engine.processes import Processes


class Engine(Protocol):
    """Reads items in the background.

    One thread submits items; another may take their samples, item by item in the order of submission, each item to its end.
    """

    workers: int  # items that are read at a time; 0 if the calling thread reads them

    def submit(self, payload: Any, name: str = "") -> Iterator[Sample]:
        """Begin to read an item. The iterator gives its samples and raises what reading raised; only the next few are read ahead.

        name: of the item, for the report of a crash.
        """

    def close(self) -> None:
        """Stop at once, whatever is being read."""


def open_engine(read: Read, workers: int, processes: Processes | None = None, timeout: float = ITEM_SECONDS) -> Engine:
    """Return threads that read, or, where `processes` are given, an engine that changes over to these once they are worth their start-up.

    Args:
        read: for `processes` a function of a module, or a `partial` of one.
        workers: items to read at a time.
        timeout: seconds that reading one item may take, as far as it is waited for; one that takes longer fails. 0 for no limit.
    """
    timeout = timeout or math.inf
    if processes is None or workers == 1:
        from imagebind_cli.engine.threads import ThreadEngine

        return ThreadEngine(read, workers, timeout)
    from imagebind_cli.engine.processes import ProcessEngine

    return ProcessEngine(read, workers, processes, timeout)


def default_workers(most: int = 8) -> int:
    """Return the default number of items to read at a time: one per core this process may use, but at most `most`."""
    return min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
