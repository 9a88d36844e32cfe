"""Which inputs a store holds: sorted arrays, 64 MB for a million of them, asked one by one as the inputs come."""

from __future__ import annotations

import numpy as np

from imagebind_cli.store.row import NO_HASH, Stamp, key_of


class Finished:
    """The rows of a store by their ids' hashes.

    Args:
        stamps: `STAMP` records of all rows. hidden: rows that do not count any more.
    """

    def __init__(self, stamps: np.ndarray, hidden: np.ndarray) -> None:
        self._count = len(stamps) - len(hidden)
        live = np.setdiff1d(np.arange(len(stamps)), hidden, assume_unique=True)
        order = live[np.argsort(stamps["key"][live], kind="stable")]
        # Keys are spread evenly, so that their first bits lead to a bucket of about one.
        self._shift = 64 - max(1, len(live)).bit_length()
        buckets = np.arange(2 ** (64 - self._shift) + 1, dtype=np.uint64)
        starts = np.searchsorted(stamps["key"][order] >> np.uint64(self._shift), buckets)
        # Single values of numpy's own arrays take ten times as long.
        columns = (starts, order, *(stamps[name] for name in ("key", "size", "mtime")))
        self._starts, self._order, self._keys, self._sizes, self._mtimes = (
            memoryview(np.ascontiguousarray(column))  # type: ignore[arg-type]
            for column in columns
        )
        self._hashes = stamps["hash"].tobytes()
        self._hidden = set(hidden.tolist())
        self._next = 0

    def __len__(self) -> int:
        return self._count

    def rows(self, id: str) -> list[int]:
        """The rows of an id, its windows."""
        key = key_of(id)
        bucket = key >> self._shift
        return [row for row in self._order[self._starts[bucket] : self._starts[bucket + 1]] if self._keys[row] == key]

    def stamp(self, id: str) -> Stamp | None:
        """What an id's input was; None if the store does not have it."""
        key, row = key_of(id), self._next
        if not (row < len(self._keys) and self._keys[row] == key and row not in self._hidden):  # mostly they come in the old order
            row = self._first(key)
            if row < 0:
                return None
        self._next = row + 1
        hash = self._hashes[16 * row : 16 * row + 16]
        return Stamp(self._sizes[row], self._mtimes[row], b"" if hash == NO_HASH else hash)

    def _first(self, key: int) -> int:
        """The first row of a key, -1 if there is none."""
        bucket = key >> self._shift
        for place in range(self._starts[bucket], self._starts[bucket + 1]):
            if self._keys[self._order[place]] == key:
                return self._order[place]
        return -1
