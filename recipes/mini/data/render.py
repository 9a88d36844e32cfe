"""Render triangles with a z-buffer in NumPy: what each pixel of a pinhole camera sees, and how far away it is; furniture.py and thermal.py use it.

Coordinates are the camera's: x to the right, y down, z forward, in metres. A pixel's ray goes through its centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CANDIDATES = 1_000_000  # pairs of a pixel and a triangle that are tested at once
EDGE = 1e-6  # how far outside a triangle, in its own coordinates, a ray still hits it, so that neighbours leave no crack


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of size x size pixels with a focal length in pixels and the principal point in the middle."""

    size: int
    focal: float

    def rays(self) -> np.ndarray:
        """Return the rays through the pixels' centres (size, size, 3), one metre deep."""
        across = (np.arange(self.size) + 0.5 - self.size / 2) / self.focal
        x, y = np.meshgrid(across, across)
        return np.stack([x, y, np.ones_like(x)], axis=-1)


@dataclass(frozen=True)
class Rendering:
    """What the pixels see.

    depth: (size, size) in metres, infinite where nothing is. triangle: its number (size, size), -1 where nothing is.
    weights: of its corners at that place of the surface (size, size, 3).
    """

    depth: np.ndarray
    triangle: np.ndarray
    weights: np.ndarray


def plane_depth(camera: Camera, normal: np.ndarray, distance: float) -> np.ndarray:
    """Return the depth (size, size) of the plane `normal @ x = distance` in camera coordinates; infinite where no ray hits it."""
    slope = camera.rays() @ normal
    with np.errstate(divide="ignore"):
        depth = distance / slope
    return np.where(depth > 0, depth, np.inf)


def render(
    corners: np.ndarray, camera: Camera, solid: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None, nearest: float = 1e-3
) -> Rendering:
    """Find the nearest triangle of `corners` (n, 3, 3) at each pixel.

    Triangles with a corner nearer than `nearest` metres are left out. `solid` takes triangles (k,) and corner weights (k, 3) and says
    where the surface is solid: holes of a texture are seen through.
    """
    numbers = np.flatnonzero((corners[:, :, 2] > nearest).all(1))
    depths = corners[numbers, :, 2]
    flat = corners[numbers, :, :2] / depths[..., None] * camera.focal + camera.size / 2  # pixels; 0.5 is the first centre
    first = np.maximum(np.ceil(flat.min(1) - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(flat.max(1) - 0.5), camera.size - 1).astype(np.int64)
    span = np.maximum(last - first + 1, 0)
    a, b, c = flat[:, 0], flat[:, 1], flat[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    met = np.flatnonzero((span.prod(1) > 0) & (np.abs(area) > 1e-12))  # most triangles of a fine model lie between centres
    numbers, depths, first, span = numbers[met], depths[met], first[met], span[met]
    a, b, c, area = a[met], b[met], c[met], area[met]
    # Weights of the corners b and c are linear over the picture, and so is 1 / depth.
    to_b = np.stack([c[:, 1] - a[:, 1], a[:, 0] - c[:, 0]], 1) / area[:, None]
    to_c = np.stack([a[:, 1] - b[:, 1], b[:, 0] - a[:, 0]], 1) / area[:, None]
    near = 1 / depths

    nearness = np.zeros(camera.size**2, np.uint64)  # 1 / depth as ordered bits above, the triangle's row below
    counts = span.prod(1)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + CANDIDATES, "right")), begin + 1)
        row = np.repeat(np.arange(begin, end), counts[begin:end])
        place = np.arange(len(row)) - np.repeat(ends[begin:end] - counts[begin:end] - done, counts[begin:end])
        width = span[row, 0]
        x = first[row, 0] + place % width
        y = first[row, 1] + place // width
        weight_b, weight_c = _weights(x, y, a[row], to_b[row], to_c[row])
        inside = np.flatnonzero((weight_b >= -EDGE) & (weight_c >= -EDGE) & (weight_b + weight_c <= 1 + EDGE))
        row, x, y, weight_b, weight_c = row[inside], x[inside], y[inside], weight_b[inside], weight_c[inside]
        inverse = near[row, 0] + weight_b * (near[row, 1] - near[row, 0]) + weight_c * (near[row, 2] - near[row, 0])
        if solid is not None:
            there = solid(numbers[row], _on_surface(weight_b, weight_c, near[row], inverse))
            row, x, y, inverse = row[there], x[there], y[there], inverse[there]
        bits = inverse.astype(np.float32).view(np.uint32).astype(np.uint64)
        np.maximum.at(nearness, y * camera.size + x, bits << np.uint64(32) | (row + 1).astype(np.uint64))
        begin = end

    row = (nearness & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
    depth = np.full(len(row), np.inf)
    weights = np.zeros((len(row), 3))
    hit = np.flatnonzero(row >= 0)
    row_hit = row[hit]
    weight_b, weight_c = _weights(hit % camera.size, hit // camera.size, a[row_hit], to_b[row_hit], to_c[row_hit])
    inverse = near[row_hit, 0] + weight_b * (near[row_hit, 1] - near[row_hit, 0]) + weight_c * (near[row_hit, 2] - near[row_hit, 0])
    depth[hit] = 1 / inverse
    weights[hit] = _on_surface(weight_b, weight_c, near[row_hit], inverse)
    triangle = np.full(len(row), -1)
    triangle[hit] = numbers[row_hit]
    square = (camera.size, camera.size)
    return Rendering(depth.reshape(square), triangle.reshape(square), weights.reshape(*square, 3))


def _weights(x: np.ndarray, y: np.ndarray, a: np.ndarray, to_b: np.ndarray, to_c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights, in the picture, of the corners b and c at pixels x, y."""
    right, below = x + 0.5 - a[:, 0], y + 0.5 - a[:, 1]
    return right * to_b[:, 0] + below * to_b[:, 1], right * to_c[:, 0] + below * to_c[:, 1]


def _on_surface(weight_b: np.ndarray, weight_c: np.ndarray, near: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Turn weights in the picture into weights (n, 3) on the surface: perspective shrinks what is far away."""
    weights = np.stack([1 - weight_b - weight_c, weight_b, weight_c], 1)
    return weights * near / inverse[:, None]
