"""Pixels without a value, filled with the nearest one that has one."""

from __future__ import annotations

import numpy as np

from imagebind_cli.media.image import middle

LONGEST_SIDE = 32_768  # of a longer map, only the middle that an encoder sees is filled: the time grows with distance as with area


def fill_nearest(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a map (h, w) in which every pixel that is not known (h, w; bool) has the value of the nearest known one.

    At least one pixel must be known. Of a map with a side longer than `LONGEST_SIDE`, the part outside `image.middle` is not changed, and
    the middle is filled from known pixels within it, or where it has none from the one nearest to it.
    """
    if max(values.shape) <= LONGEST_SIDE:
        return _spread(values, known)
    window = middle(*values.shape), middle(*values.shape[::-1])
    filled = values.copy()
    if known[window].any():
        filled[window] = _spread(values[window], known[window])
    else:
        rows, columns = np.nonzero(known)
        long, centre = (rows, values.shape[0] / 2) if values.shape[0] > values.shape[1] else (columns, values.shape[1] / 2)
        nearest = np.abs(long - centre).argmin()
        filled[window] = values[rows[nearest], columns[nearest]]
    return filled


def _spread(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill a map by spreading the positions of known pixels from neighbour to neighbour, each kept where it is nearer than the one before.

    The nearest is found to within a fraction of a pixel. Of two as near, the one that arrives first stays: neighbours arrive in the order
    of `steps`. The time grows with the area of the holes, and with the largest distance.
    """
    height, width = values.shape
    stride = width + 2  # a border of one pixel, at distance 0, that nothing spreads into
    hole = np.zeros((height + 2, stride), bool)
    hole[1:-1, 1:-1] = ~known
    edge = np.zeros_like(hole)  # known pixels beside a hole
    for down in range(3):
        for across in range(3):
            edge[1:-1, 1:-1] |= hole[down : down + height, across : across + width]
    edge[1:-1, 1:-1] &= known
    front = np.flatnonzero(edge).astype(np.int32)
    farther = (height + width) ** 2  # than any pixel, squared
    distance = np.where(hole, farther, np.int64(0)).astype(np.int32 if farther < 2**31 else np.int64).ravel()
    seed = np.arange(distance.size, dtype=np.int32)
    steps = (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1)
    while front.size:
        reached = []
        for step in steps:
            target = front + step
            inside = np.not_equal(distance[target], 0)
            target, origin = target[inside], seed[front[inside]]
            (row, column), (from_row, from_column) = np.divmod(target, stride), np.divmod(origin, stride)
            gap = (row - from_row) ** 2 + (column - from_column) ** 2
            nearer = gap < distance[target]
            target = target[nearer]
            distance[target], seed[target] = gap[nearer], origin[nearer]
            reached.append(target)
        front = np.unique(np.concatenate(reached))
    rows, columns = np.divmod(seed.reshape(height + 2, stride)[1:-1, 1:-1], stride)
    return values[rows - 1, columns - 1]
