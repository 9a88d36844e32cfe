"""Clusters of rows by direction: spherical k-means on a sample, and the nearest clusters of every row."""

from __future__ import annotations

import numpy as np

SAMPLE, STEPS = 32, 8  # sampled rows for each cluster, and steps of k-means
BLOCK = 4096  # rows at a time


def cluster_centres(rows: np.ndarray, count: int, seed: int = 0, sampled: int = SAMPLE) -> np.ndarray:
    """Find `count` unit vectors (count, dim) float32 around which rows (n, dim) gather, by k-means on a sample that starts from rows.

    A cluster that loses all its rows keeps its centre. sampled: rows of the sample for each cluster.
    """
    random = np.random.default_rng(seed)
    sample = rows[np.sort(random.choice(len(rows), min(len(rows), sampled * count), replace=False))].astype(np.float32)
    centres = sample[np.sort(random.choice(len(sample), min(count, len(sample)), replace=False))]
    for _ in range(STEPS):
        nearest = nearest_cells(sample, centres, 1)[:, 0]
        order = np.argsort(nearest, kind="stable")
        present, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = centres.copy()
        centres[present] = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), centres[present])
    return centres


def nearest_cells(rows: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of the `count` nearest centres of each row, the nearest first: int32 (n, count)."""
    count = min(count, len(centres))
    cells = np.empty((len(rows), count), np.int32)
    for start in range(0, len(rows), BLOCK):
        scores = rows[start : start + BLOCK].astype(np.float32) @ centres.T
        if count == 1:
            cells[start : start + BLOCK, 0] = scores.argmax(axis=1)
            continue
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        cells[start : start + BLOCK] = np.take_along_axis(best, order, axis=1)
    return cells
