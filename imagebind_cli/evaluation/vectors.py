"""The vectors that are classified, batch by batch: read from stores, or embedded as the items come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from imagebind_cli.boxes import holds_boxes
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.options import ReadingOptions
from imagebind_cli.similarity import combine, unit
from imagebind_cli.sources import Failure, Item, kept_beside
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, is_store, open_store


@dataclass(frozen=True)
class ItemVectors:
    """The vectors of several items.

    ids: of each row. metas: the other columns of its manifest row, and of a region what is known of it.
    vectors: rows (k, dim) float32, unit vectors unless lengths are wanted.
    spans: start and end in seconds where windows are kept apart, else None. clocks: when each began, in ISO 8601, None where its file does
    not say.
    """

    ids: list[str]
    metas: list[Mapping[str, Any]]
    vectors: np.ndarray
    spans: list[tuple[float, float] | None]
    clocks: list[str | None]

    def take(self, rows: Sequence[int] | np.ndarray) -> ItemVectors:
        """Select rows by number."""
        return ItemVectors(
            [self.ids[row] for row in rows],
            [self.metas[row] for row in rows],
            self.vectors[rows],
            [self.spans[row] for row in rows],
            [self.clocks[row] for row in rows],
        )


def concatenate_batches(batches: Sequence[ItemVectors]) -> ItemVectors:
    """Join several batches into one.

    Raises:
        UserError: there are none.
    """
    if not batches:
        raise UserError("none of the inputs could be used")
    return ItemVectors(
        [id for batch in batches for id in batch.ids],
        [meta for batch in batches for meta in batch.metas],
        np.concatenate([batch.vectors for batch in batches]),
        [span for batch in batches for span in batch.spans],
        [clock for batch in batches for clock in batch.clocks],
    )


def stored_vectors(reader: StoreReader, windows: bool = False, metas: bool = False) -> Iterator[ItemVectors]:
    """Read the items of a store in order.

    Args:
        windows: yield each window of an item, in place of their mean made a unit vector again.
        metas: look up the manifest columns of each row, which takes time; `{}` otherwise. Those of regions are looked up in any case.
    """
    ids, spans, start = reader.ids, reader.spans, 0
    regions = holds_boxes(reader.provenance)
    for block in _whole_items(reader, spans is not None or regions):
        block_ids = ids[start : start + len(block)]
        seconds: list[tuple[float, float] | None] = [None] * len(block)
        if spans is not None and windows:
            seconds = [None if np.isnan(low) else (float(low), float(high)) for low, high in spans[start : start + len(block)]]
        block_metas: list[Mapping[str, Any]] = [reader.meta(start + row) if metas or regions else {} for row in range(len(block))]
        vectors = unit(block) if block.dtype == np.float16 else block  # rounding to float16 changes a vector's length
        batch = ItemVectors(block_ids, block_metas, np.asarray(vectors, np.float32), seconds, reader.clocks[start : start + len(block)])
        start += len(block)
        yield batch if spans is None or windows else _average_windows(batch)


def _whole_items(reader: StoreReader, together: bool) -> Iterator[np.ndarray]:
    """Yield the blocks of a store; with `together`, cut so that all windows or regions of an item are in one block."""
    if not together:
        yield from reader.blocks()
        return
    ids, end = reader.ids, 0
    pending = np.empty((0, reader.dim), np.float32)
    for block in reader.blocks():
        pending = np.concatenate([pending, block])
        end += len(block)
        last = end - 1
        while last > end - len(pending) and ids[last - 1] == ids[end - 1]:
            last -= 1
        cut = len(pending) if end == len(reader) else last - (end - len(pending))
        if cut:
            yield pending[:cut]
        pending = pending[cut:]


def _average_windows(batch: ItemVectors) -> ItemVectors:
    firsts = [row for row, id in enumerate(batch.ids) if row == 0 or batch.ids[row - 1] != id]
    if len(firsts) == len(batch.ids):
        return batch
    sums = np.add.reduceat(batch.vectors.astype(np.float64), firsts, axis=0)
    return ItemVectors(
        [batch.ids[row] for row in firsts],
        [batch.metas[row] for row in firsts],
        unit(sums).astype(np.float32),
        [None] * len(firsts),
        [batch.clocks[row] for row in firsts],
    )


class VectorSource:
    """Vectors of one modality, from stores or from items to be embedded.

    Args:
        space: the joint space they belong to. readers: opened stores; if there are none, `items` are embedded.
        pool: `mean`, or `none` for a row for each window. options: of the modality's reader.
        weights: of each modality in an item's payload, where it has several. has_columns: whether items can have manifest columns.
        record: what the record of embedded vectors says besides, as `Inputs.record` returns it.
        lengths: give vectors the length that the encoder gave them, in place of unit vectors.
    Raises:
        UserError: a store holds another modality, or vectors of another model; lengths of vectors that are stored or weighted.
    """

    def __init__(
        self,
        space: Space,
        modality: str,
        readers: Sequence[StoreReader],
        items: Iterable[Item | Failure],
        pool: str = "mean",
        options: ReadingOptions | None = None,
        weights: Mapping[str, float] | None = None,
        has_columns: bool = True,
        record: Mapping[str, Any] = MappingProxyType({}),
        lengths: bool = False,
    ) -> None:
        if lengths and (readers or weights):
            what = f"{readers[0].path}: a store holds unit vectors" if readers else "a weighted sum of modalities is one of unit vectors"
            raise UserError(
                f"{what}, and dot products are of vectors with their lengths; --suite-option similarity=cosine compares unit vectors"
            )
        self.lengths = lengths
        self.space, self.modality, self.pool, self.options, self.weights = space, modality, pool, options, weights
        self.has_columns, self._record = has_columns, record
        self._readers = [space.admit(reader, modality) for reader in readers]
        self._items = items
        self._assumed: dict[str, None] = {}

    @property
    def is_stored(self) -> bool:
        """Whether the vectors are read from stores."""
        return bool(self._readers)

    @property
    def has_regions(self) -> bool:
        """Check whether any of the vectors are of regions."""
        tiles = getattr(self.options, "tiles", None) is not None
        return tiles or holds_boxes(self._record) or any(holds_boxes(reader.provenance) for reader in self._readers)

    def of_items(self, items: Iterable[Item | Failure]) -> VectorSource:
        """Return a source that embeds other items in the same way."""
        return VectorSource(self.space, self.modality, [], items, self.pool, self.options, self.weights)

    def made(self) -> list[dict[str, Any]]:
        """Return how the vectors were made: a record for each store, or for each modality."""
        if self._readers:
            return [dict(reader.provenance) for reader in self._readers]
        modalities = list(self.weights or [self.modality])
        besides = {**self._record, "assumptions": list(self._assumed)}
        return [self.space.made_of(name, self.pool, self._options_of(name)) | besides for name in modalities]

    def _options_of(self, modality: str) -> ReadingOptions | None:
        return self.options if modality == self.modality else None

    def batches(self, listener: Listener, failed: Callable[[str], object], metas: bool = False) -> Iterator[ItemVectors]:
        """Yield the items in order, as soon as their vectors are known.

        Args:
            listener: receives items that cannot be read. failed: is called with the id of each of them.
            metas: look up the manifest columns of a store's rows.
        """
        for reader in self._readers:
            yield from stored_vectors(reader, self.pool == "none", metas)
        if not self._readers:
            yield from self._weighted(listener, failed) if self.weights else self._embedded(self.modality, self._items, listener, failed)

    def _embedded(
        self, modality: str, items: Iterable[Item | Failure], listener: Listener, failed: Callable[[str], object]
    ) -> Iterator[ItemVectors]:
        settings: dict[str, Any] = {"pool": self.pool, "batch_size": self.space.batch_size, "workers": self.space.workers}
        settings |= {"item_timeout": self.space.item_timeout, "lengths": self.lengths}
        for item, result in self.space.loaded.embed_items(modality, items, options=self._options_of(modality), **settings):
            if isinstance(result, Failure):
                listener.failure(item.id, result.reason)
                failed(item.id)
                continue
            listener.remarks(item.id, result.notes, result.warnings)
            self._assumed |= dict.fromkeys(result.notes)
            parts = result.embeddings
            vectors, spans = np.stack([part.vector for part in parts]), [part.span for part in parts]
            vectors *= np.array([[part.length if self.lengths else 1] for part in parts], np.float32)
            beside = kept_beside(item, (modality,))
            metas: list[Mapping[str, Any]] = [{**beside, **(part.region or {})} for part in parts]
            yield ItemVectors([item.id] * len(parts), metas, vectors, spans, [part.clock for part in parts])

    def _weighted(self, listener: Listener, failed: Callable[[str], object]) -> Iterator[ItemVectors]:
        """Yield each item as the weighted sum of its vectors in several modalities. An item that fails in one of them fails."""
        assert self.weights is not None
        items = [item for item in self._items if isinstance(item, Item)]
        parts = []
        for modality in self.weights:
            inputs = [Item(item.id, item.payload[modality]) for item in items]
            parts.append({batch.ids[0]: batch.vectors[0] for batch in self._embedded(modality, inputs, listener, failed)})
            items = [item for item in items if item.id in parts[-1]]
        for item in items:
            vector = combine(np.stack([part[item.id] for part in parts]), list(self.weights.values()))
            yield ItemVectors([item.id], [item.meta], vector[None].astype(np.float32), [None], [None])


def open_stores(inputs: Sequence[str]) -> list[StoreReader]:
    """Open the inputs as stores; return an empty list if none of them is a store.

    Raises:
        UsageError: stores and other inputs together.
    """
    stores = [path for path in inputs if path != "-" and is_store(path)]
    if stores and len(stores) < len(inputs):
        other = next(path for path in inputs if path not in stores)
        raise UsageError(f"{stores[0]} is a store and {other} is not; give only stores or only files")
    return [open_store(path) for path in stores]
