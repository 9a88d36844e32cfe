"""Two coordinates for each item of one or several stores: PCA, or UMAP (McInnes et al. 2018) of the first components. numpy alone for PCA.

Each store is centred on its own mean, so that the gap between modalities (Liang et al., NeurIPS 2022) is not the first axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.insight.item_vectors import StoredVectors
from imagebind_cli.store.source import release

BLOCK = 8192  # items at a time
COMPONENTS = 50  # of which UMAP makes its neighbourhoods
FITTED = 20_000  # items that UMAP places; all others go between the nearest of them
UMAP_NEIGHBOURS, NEAREST = 15, 3


class CentredItems:
    """The items of several stores one after the other, each store centred on its own mean, without holding them all."""

    def __init__(self, parts: Sequence[StoredVectors]) -> None:
        self._parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        self.means = [part.mean().astype(np.float32) for part in parts]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return int(self._parts[0].rows.shape[1])

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all items in order, float32 (k, dim), each block with the number of its first item."""
        for part, first, mean in zip(self._parts, self.starts.tolist(), self.means, strict=False):
            for start in range(0, len(part), BLOCK):
                yield first + start, part.rows[start : start + BLOCK].astype(np.float32) - mean
                release(part.rows)

    def items(self, numbers: np.ndarray) -> np.ndarray:
        """Return some items, float32 (k, dim). numbers: sorted."""
        edges = np.searchsorted(numbers, self.starts)
        return np.concatenate(
            [
                part.rows[numbers[begin:end] - first].astype(np.float32) - mean
                for part, first, mean, begin, end in zip(self._parts, self.starts.tolist(), self.means, edges, edges[1:], strict=False)
            ]
        )


def principal_axes(items: CentredItems, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the directions in which the items vary most.

    Returns:
        Unit vectors (dim, count) float32, the one of most variance first; the largest number of each is positive, so that a second run has the
        same signs. The share of the variance along each, float64 (count,), 0 where there is none.
    """
    products = np.zeros((items.dim, items.dim))
    for _, block in items.blocks():
        products += block.T @ block
    values, vectors = np.linalg.eigh(products)
    count = min(count, items.dim)
    values, vectors = values[::-1], vectors[:, ::-1][:, :count]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    total = values.clip(0).sum()
    shares = values[:count].clip(0) / total if total > 1e-9 * max(len(items), 1) else np.zeros(count)
    return (vectors * np.where(largest < 0, -1, 1)).astype(np.float32), shares


def project(items: CentredItems, axes: np.ndarray) -> np.ndarray:
    """Return the coordinates of all items along some axes (dim, k): float32 (items, k)."""
    places = np.empty((len(items), axes.shape[1]), np.float32)
    for start, block in items.blocks():
        places[start : start + len(block)] = block @ axes
    return places


def check_umap() -> None:
    """Check that UMAP can be run.

    Raises:
        UserError: umap-learn, an extra, is not installed.
    """
    if find_spec("umap") is None:
        raise UserError("UMAP needs umap-learn; install it with: pip install 'imagebind-cli[map]'; PCA needs nothing")


def umap_places(items: CentredItems, seed: int = 0) -> np.ndarray:
    """Place items by UMAP of their first principal components: float32 (items, 2).

    At most `FITTED` items, chosen at random, are placed by UMAP itself; each other one goes to the mean of its `NEAREST` neighbours among them,
    weighted by nearness.

    Raises:
        UserError: there are too few items.
    """
    if len(items) <= UMAP_NEIGHBOURS:
        raise UserError(f"{len(items)} items; UMAP needs at least {UMAP_NEIGHBOURS + 1}: --method pca takes any number")
    axes, _ = principal_axes(items, COMPONENTS)
    chosen = np.sort(np.random.default_rng(seed).choice(len(items), min(len(items), FITTED), replace=False))
    fitted = items.items(chosen) @ axes
    with warnings.catch_warnings(action="ignore"):  # it advises on its own options
        from umap import UMAP

        placed = UMAP(n_neighbors=UMAP_NEIGHBOURS, random_state=seed, n_jobs=1).fit_transform(fitted).astype(np.float32)
    if len(chosen) == len(items):
        return np.asarray(placed)
    places = np.empty((len(items), 2), np.float32)
    for start, block in items.blocks():
        places[start : start + len(block)] = _between(block @ axes, fitted, placed)
    places[chosen] = placed
    return places


def _between(rows: np.ndarray, fitted: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """Return where rows (n, k) go among fitted ones (m, k) that have places (m, 2)."""
    distances = (fitted * fitted).sum(axis=1) - 2 * rows @ fitted.T  # squared, less the row's own length: (n, m)
    nearest = np.argpartition(distances, NEAREST - 1, axis=1)[:, :NEAREST]
    squared = np.take_along_axis(distances, nearest, axis=1) + (rows * rows).sum(axis=1, keepdims=True)
    weights = 1 / np.sqrt(np.maximum(squared, 1e-9))
    return np.einsum("nk,nkd->nd", weights / weights.sum(axis=1, keepdims=True), placed[nearest])
