"""Pixels without a value, and the nearest one that has one."""

from __future__ import annotations

import numpy as np


def fill_nearest(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A copy of a map (h, w) in which every pixel that is not known (h, w; bool) has the value of the nearest known one.

    Positions of known pixels spread from neighbour to neighbour, each kept where it is nearer than the one that came before. The
    nearest is found to within a fraction of a pixel, in time that grows with the holes' area. At least one pixel must be known.
    """
    height, width = values.shape
    stride = width + 2  # a border of one pixel, at distance 0, that nothing spreads into
    distance = np.zeros((height + 2, stride), np.int64)  # squared
    distance[1:-1, 1:-1] = np.where(known, 0, (height + width) ** 2)
    seed = np.arange(distance.size)
    front = seed.reshape(distance.shape)[1:-1, 1:-1][known]
    distance = distance.ravel()
    while front.size:
        reached = []
        for step in (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1):
            hole = distance[front + step] > 0
            target, origin = (front + step)[hole], seed[front[hole]]
            gap = (target // stride - origin // stride) ** 2 + (target % stride - origin % stride) ** 2
            nearer = gap < distance[target]
            distance[target[nearer]] = gap[nearer]
            seed[target[nearer]] = origin[nearer]
            reached.append(target[nearer])
        front = np.unique(np.concatenate(reached))
    row, column = np.divmod(seed.reshape(height + 2, stride)[1:-1, 1:-1], stride)
    return values[row - 1, column - 1]
