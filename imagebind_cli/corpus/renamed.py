"""Items of a store by the content of their files, so that renamed and copied files need not be embedded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imagebind_cli.boxes import BOX, box_of
from imagebind_cli.sources import Item, kept_beside, whole_source
from imagebind_cli.store import Row, StoreReader


class StoredContents:
    """The files of a store by the hashes of their contents, as they were when it was opened. Takes about 50 bytes of memory a row."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._hashes = np.ascontiguousarray(reader.stamps["hash"]).view("<u8").reshape(-1, 2)
        self._order = np.argsort(self._hashes[:, 0], kind="stable")
        self._sorted = self._hashes[self._order, 0]

    def find(self, item: Item) -> list[Row]:
        """Return the rows of a stored item whose file has the same content and suffix as an item's, under its id; [] if there is none.

        Args:
            item: a file, with a stamp that has the hash of its content.
        """
        hash = np.frombuffer(item.stamp.hash, "<u8")
        first, stop = np.searchsorted(self._sorted, hash[0], "left"), np.searchsorted(self._sorted, hash[0], "right")
        suffix = _suffix(whole_source(item.payload))
        for row in self._order[first:stop].tolist():
            if (self._hashes[row] == hash).all() and _suffix(self.file(row)) == suffix:
                return self._rows(row, item)
        return []

    def file(self, row: int) -> str:
        """Return the path of a row's file."""
        return str(self._reader.meta(row).get(self._reader.modality, self._reader.id(row)))

    def _rows(self, first: int, item: Item) -> list[Row]:
        keys, spans, stop = self._reader.stamps["key"], self._reader.spans, first
        while stop < len(keys) and keys[stop] == keys[first]:
            stop += 1
        meta, vectors = kept_beside(item, (self._reader.modality,)), self._reader.rows(range(first, stop))
        seconds = [None] * len(vectors) if spans is None or np.isnan(spans[first]).any() else list(map(tuple, spans[first:stop].tolist()))
        metas = [meta if (box := box_of(self._reader.meta(row))) is None else meta | {BOX: box} for row in range(first, stop)]  # of tiles
        return [
            Row(item.id, vector, span, len(vectors), meta, item.stamp, self._reader.clock(row))
            for row, vector, span, meta in zip(range(first, stop), vectors, seconds, metas, strict=True)
        ]


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()
