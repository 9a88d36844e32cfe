"""Pixels without a value, filled with the nearest one that has one."""

from __future__ import annotations

import numpy as np

from imagebind_cli.media.image import middle

LONGEST_SIDE = 32_768  # of a longer map, only the middle that an encoder sees is filled
REACH = 128  # cells that values spread at one size of cell; what lies farther is filled in larger cells
COARSER = 4  # times the side of a cell that the next larger one has
NOWHERE = -1


def fill_nearest(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a map (h, w) in which every pixel that is not known (h, w; bool) has the value of the nearest known one.

    At least one pixel must be known. The nearest is found to within a fraction of a pixel, or, more than `REACH` pixels from any known one,
    to within a tenth of its distance. The time grows with the number of pixels, however far they are from a known one.

    Of a map with a side longer than `LONGEST_SIDE`, the part outside `image.middle` is not changed, and the middle is filled from known pixels
    within it, or where it has none from the one nearest to it.
    """
    if max(values.shape) <= LONGEST_SIDE:
        return _filled(values, known)
    window = middle(*values.shape), middle(*values.shape[::-1])
    filled = values.copy()
    if known[window].any():
        filled[window] = _filled(values[window], known[window])
    else:
        rows, columns = np.nonzero(known)
        long, centre = (rows, values.shape[0] / 2) if values.shape[0] > values.shape[1] else (columns, values.shape[1] / 2)
        nearest = np.abs(long - centre).argmin()
        filled[window] = values[rows[nearest], columns[nearest]]
    return filled


def _filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    origins = np.arange(known.size, dtype=np.int32).reshape(known.shape)
    origins[~known] = NOWHERE
    filled, flat = np.empty_like(values), values.ravel()
    for row, origin in zip(filled, _spread(origins, 1, known.shape[1]), strict=True):  # of a whole map, NumPy would copy the indices
        row[:] = flat[origin]
    return filled


def _spread(origins: np.ndarray, size: int, width: int) -> np.ndarray:
    """Give every cell (h, w) that is `NOWHERE` the origin of a near cell, preferably the origin nearest to it.

    Origins spread from neighbour to neighbour, each kept where it is nearer than the one before. Of two as near, the one that arrives first
    stays: neighbours arrive in the order of `steps`.

    Args:
        origins: flat positions in a map of `width` columns. size: side of a cell in pixels of that map.
    """
    height, across = origins.shape
    stride = across + 2  # a border of one cell, at distance 0, that nothing spreads into
    seed = np.pad(origins, 1, constant_values=NOWHERE).ravel()
    hole = np.zeros((height + 2, stride), bool)
    hole[1:-1, 1:-1] = origins == NOWHERE
    del origins
    edge = np.zeros_like(hole)  # known cells beside a hole
    for down in range(3):
        for right in range(3):
            edge[1:-1, 1:-1] |= hole[down : down + height, right : right + across]
    edge[1:-1, 1:-1] &= ~hole[1:-1, 1:-1]
    front = np.flatnonzero(edge)
    farther = (size * (height + across)) ** 2  # than any cell, squared
    distance = hole.ravel() * (np.int32 if farther < 2**31 else np.int64)(farther)
    del hole, edge
    steps = (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1)
    while front.size:
        reached = []
        for step in steps:
            target = front + step
            inside = np.not_equal(distance[target], 0)
            target, origin = target[inside], seed[front[inside]]
            (row, column), (from_row, from_column) = np.divmod(target, stride), np.divmod(origin, width)
            gap = ((row - 1) * size + size // 2 - from_row) ** 2 + ((column - 1) * size + size // 2 - from_column) ** 2
            nearer = gap < np.minimum(distance[target], (REACH * size) ** 2)
            target = target[nearer]
            distance[target], seed[target] = gap[nearer], origin[nearer]
            reached.append(target)
        front = np.unique(np.concatenate(reached))
    spread = seed.reshape(height + 2, stride)[1:-1, 1:-1]
    if (spread != NOWHERE).all():
        return spread
    del distance
    blocks = np.pad(spread, ((0, -height % COARSER), (0, -across % COARSER)), constant_values=NOWHERE)
    blocks = blocks.reshape(blocks.shape[0] // COARSER, COARSER, -1, COARSER).max(axis=(1, 3))
    coarse = _spread(blocks, size * COARSER, width).repeat(COARSER, 0).repeat(COARSER, 1)[:height, :across]
    return np.where(spread == NOWHERE, coarse, spread)
