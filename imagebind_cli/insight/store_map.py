"""A map of what is in stores: two coordinates and a group for each item, `map_stores`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.truth import FOLDER, open_truth
from imagebind_cli.events import log_note
from imagebind_cli.insight.cells import cluster_centres, nearest_cells
from imagebind_cli.insight.item_vectors import MEMORY, StoredVectors, item_vectors
from imagebind_cli.insight.projection import CentredItems, check_umap, principal_axes, project, umap_places
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store

PCA, UMAP = METHODS = ("pca", "umap")
LABEL, STORE, CLUSTER = "label", "store", "cluster"  # what the colours stand for
CLUSTERS = 10
SAMPLED = 1000  # items for each cluster from which the clusters are made
NO_LABEL = "no label"


@dataclass(frozen=True)
class StoreMap:
    """A map of the items of some stores.

    stores: their names, and modalities. ids: of the items, store after store. store: the number of the store of each, int16 (n,).
    places: x and y of each, float32 (n, 2). by: what the groups are, `store`, `cluster` or `label:COLUMN`. groups: their names, the largest first;
    of stores in their order. group: the number of each item's group, int32 (n,). method: `pca` or `umap`. shares: of PCA the share of the
    variance along each axis.
    """

    stores: list[str]
    modalities: list[str]
    ids: list[str]
    store: np.ndarray
    places: np.ndarray
    by: str
    groups: list[str]
    group: np.ndarray
    method: str = PCA
    shares: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def about(self) -> str:
        """Describe in words how the map was made."""
        axes = f": the axes have {' and '.join(f'{share:.1%}' for share in self.shares)} of the variance" if self.shares else ""
        means = "; each store is centred on its own mean" if len(self.stores) > 1 else ""
        return f"{len(self):,} items of {', '.join(self.stores)} by {self.method.upper()}{axes}{means}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a line for each item."""
        for start in range(0, len(self), 65536):
            part = slice(start, start + 65536)
            columns = (
                self.ids[part],
                self.store[part].tolist(),
                self.places[part].astype(np.float64).round(6).tolist(),
                self.group[part].tolist(),
            )
            for id, store, (x, y), group in zip(*columns, strict=True):
                yield {
                    "id": id,
                    "store": self.stores[store],
                    "modality": self.modalities[store],
                    "x": x,
                    "y": y,
                    "group": self.groups[group],
                }


def map_stores(
    stores: Sequence[str | Path | StoreReader],
    method: str = PCA,
    colour: str | None = None,
    clusters: int = CLUSTERS,
    memory: int = MEMORY,
    seed: int = 0,
) -> StoreMap:
    """Lay out the items of stores in two dimensions. An item with several windows counts as the mean of its windows.

    Args:
        stores: one or several, of one model. method: `pca`, or `umap`, an extra.
        colour: what groups items: `store`, `cluster`, or `label:` and a column, a file or `folder` as `classify` takes them; by default the stores
            where there are several, else clusters.
        clusters: how many, around directions of the centred items. memory: bytes for vectors, ids aside. seed: of clusters and UMAP.
    Raises:
        UsageError: an unknown method or colour. UserError: stores of several models, an empty one, no item has a label, no umap-learn.
    """
    by, _, column = parse_colour(colour or (STORE if len(stores) > 1 else CLUSTER)).partition(":")
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    if not stores:
        raise UsageError("a map needs at least one store")
    if method == UMAP:
        check_umap()
    space = Space(note=log_note)
    readers = [space.admit(each if isinstance(each, StoreReader) else open_store(each)) for each in stores]
    total = max(1, sum(map(len, readers)))
    with ExitStack() as stack:
        parts = [stack.enter_context(item_vectors(reader, memory * len(reader) // total)) for reader in readers]
        items = CentredItems(parts)
        axes, shares = principal_axes(items, 2) if method == PCA else (None, None)
        places = umap_places(items, seed) if axes is None else _two_columns(project(items, axes))
        of_store = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part) for part in parts])
        names = [str(reader.path) for reader in readers]
        if by == LABEL:
            groups, group = _by_label(readers, parts, column)
        elif by == CLUSTER:
            groups, group = _by_cluster(items, clusters, seed)
        else:
            groups, group = names, of_store.astype(np.int32)
        ids = [id for part in parts for id in part.ids]
        modalities = [reader.modality for reader in readers]
        variances = [] if shares is None else [float(share) for share in shares]
        return StoreMap(names, modalities, ids, of_store, places, f"{by}:{column}" if column else by, groups, group, method, variances)


def parse_colour(text: str) -> str:
    """Return what colours stand for, checked.

    Raises:
        UsageError: it is not `store`, `cluster` or `label:COLUMN`.
    """
    word, _, column = text.partition(":")
    if (word == LABEL) is not bool(column) or word not in (LABEL, STORE, CLUSTER):
        raise UsageError(f"unknown colour {text!r}; choose from {LABEL}:COLUMN, {STORE}, {CLUSTER}")
    return text


def _two_columns(places: np.ndarray) -> np.ndarray:
    """Return places (n, 1 or 2) as (n, 2): vectors of one number have no second axis."""
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def _by_label(readers: Sequence[StoreReader], parts: Sequence[StoredVectors], column: str) -> tuple[list[str], np.ndarray]:
    """Return the labels, those of most items first, and the number of each item's."""
    truth = open_truth(column)
    numbers: dict[str, int] = {}
    of_item = []
    for reader, part in zip(readers, parts, strict=True):
        for id, row in zip(part.ids, part.first.tolist(), strict=True):
            labels = truth.of(id, reader.meta(row) if truth.needs_metas else {}) or ()
            of_item.append(numbers.setdefault("|".join(labels) or NO_LABEL, len(numbers)))
    if numbers.keys() == {NO_LABEL}:
        hint = "; by `folder` they are the names of the folders in the ids" if truth.how == FOLDER else ""
        raise UserError(f"{', '.join(str(reader.path) for reader in readers)}: no labels by {truth.how}{hint}")
    return _largest_first(list(numbers), np.array(of_item, np.int32))


def _by_cluster(items: CentredItems, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return names of clusters, those of most items first, and the number of each item's."""
    count = max(1, min(count, len(items)))
    sample = np.sort(np.random.default_rng(seed).choice(len(items), min(len(items), SAMPLED * count), replace=False))
    centres = cluster_centres(_unit(items.items(sample)), count, seed, SAMPLED)
    cell = np.empty(len(items), np.int32)
    for start, block in items.blocks():
        cell[start : start + len(block)] = nearest_cells(_unit(block), centres, 1)[:, 0]
    _, group = _largest_first([""] * count, cell)
    return [f"cluster {number + 1}" for number in range(int(group.max()) + 1)], group


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _largest_first(names: Sequence[str], group: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Number groups anew, those of most items first and those without any left out."""
    sizes = np.bincount(group, minlength=len(names))
    order = [number for number in np.argsort(-sizes, kind="stable").tolist() if sizes[number]]
    anew = np.full(len(names), -1, np.int32)
    anew[order] = np.arange(len(order), dtype=np.int32)
    return [names[number] for number in order], anew[group]
