"""Shade rendered surfaces: colour or texture of their material, holes of the texture, and light; furniture.py and thermal.py use it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from meshes import Mesh
from render import Rendering


def holes(mesh: Mesh) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return a test of where the surface is solid, for `render`; None if no texture has holes, since the test costs more than all the rest."""
    pierced = np.array([m.texture is not None and bool(m.texture[..., 3].min() < 0.5) for m in mesh.materials])
    if not pierced.any():
        return None

    def solid(triangles: np.ndarray, weights: np.ndarray) -> np.ndarray:
        solid_there = ~pierced[mesh.material[triangles]]
        look = np.flatnonzero(~solid_there)
        solid_there[look] = colours(mesh, triangles[look], weights[look])[:, 3] > 0.5
        return solid_there

    return solid


def colours(mesh: Mesh, triangles: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return colour and opacity (k, 4) in [0, 1] at places of the surface, given by triangles (k,) and corner weights (k, 3)."""
    colour = np.ones((len(triangles), 4))
    kinds = mesh.material[triangles]
    for kind in np.unique(kinds):
        material, here = mesh.materials[kind], kinds == kind
        colour[here, :3] = material.colour
        if material.texture is not None:
            places = np.einsum("kc,kcx->kx", weights[here], mesh.places[triangles[here]])
            known = np.isfinite(places).all(1)
            across, up = (np.where(known[:, None], places, 0) % 1).T
            h, w = material.texture.shape[:2]
            texels = material.texture[((1 - up) * (h - 1)).round().astype(int), (across * (w - 1)).round().astype(int)]
            colour[here] = np.where(known[:, None], texels, colour[here])
    return colour


def shade(mesh: Mesh, corners: np.ndarray, seen: Rendering, where: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the colours (k, 3) of what is seen at `where`; 45 % of the light comes from everywhere."""
    triangles = seen.triangle[where]
    return colours(mesh, triangles, seen.weights[where])[:, :3] * (0.45 + 0.55 * np.abs(normals(corners[triangles]) @ light))[:, None]


def normals(corners: np.ndarray) -> np.ndarray:
    """Return the unit normals (n, 3) of triangles (n, 3, 3), to either side."""
    a, b, c = corners.transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    return normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12)
