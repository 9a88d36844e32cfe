"""The recipe's z-buffer, by answers known beforehand."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PLACE = Path(__file__).parents[3] / "recipes" / "mini" / "data" / "render.py"


@pytest.fixture(scope="module")
def renderer():
    spec = importlib.util.spec_from_file_location("mini_render", PLACE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mini_render"] = module
    spec.loader.exec_module(module)
    return module


def square(half: float, depth: float) -> np.ndarray:
    """Two triangles that face the camera: a square of 2 * half metres at `depth`."""
    a, b, c, d = ((-half, -half), (half, -half), (half, half), (-half, half))
    return np.array([[(*p, depth) for p in triangle] for triangle in ((a, b, c), (a, c, d))])


def cube(half: float, middle: float) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half + [0, 0, middle]
    quads = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
    return np.array([signs[list(t)] for q in quads for t in ((q[0], q[1], q[2]), (q[0], q[2], q[3]))])


def test_square_has_its_distance_and_its_size(renderer):
    seen = renderer.render(square(0.5, 2.0), renderer.Camera(64, 64.0))
    hit = seen.triangle >= 0
    np.testing.assert_allclose(seen.depth[hit], 2.0, rtol=1e-6)
    assert hit.sum() == 32 * 32  # 1 m at 2 m and 64 px is 32 px, and the two triangles leave no crack
    assert np.isinf(seen.depth[~hit]).all()


def test_cube_shows_its_nearest_face(renderer):
    seen = renderer.render(cube(0.5, 3.0), renderer.Camera(64, 64.0))
    assert seen.depth[32, 32] == pytest.approx(2.5)
    hit = seen.triangle >= 0
    assert np.allclose(seen.depth[hit], 2.5)  # head on, the sides hide behind the front
    assert hit.sum() == pytest.approx((64 / 2.5) ** 2, rel=0.1)


def test_the_nearer_of_two_wins_in_any_order(renderer):
    near, far = square(0.2, 1.0), square(2.0, 4.0)
    for both in (np.concatenate([near, far]), np.concatenate([far, near])):
        depth = renderer.render(both, renderer.Camera(32, 32.0)).depth
        assert depth[16, 16] == pytest.approx(1.0)
        assert depth[0, 0] == pytest.approx(4.0)


def test_a_slanted_surface_agrees_with_its_plane(renderer):
    corners = np.array([[[-9.0, -9.0, 2.0], [9.0, -9.0, 2.0], [0.0, 9.0, 6.0]]])
    camera = renderer.Camera(48, 96.0)
    normal = np.cross(corners[0, 1] - corners[0, 0], corners[0, 2] - corners[0, 0])
    expected = renderer.plane_depth(camera, normal, float(normal @ corners[0, 0]))
    seen = renderer.render(corners, camera)
    assert (seen.triangle == 0).all()
    np.testing.assert_allclose(seen.depth, expected, rtol=1e-6)
    place = np.einsum("hwk,kc->hwc", seen.weights, corners[0])  # the weights point at the place that is seen
    np.testing.assert_allclose(place, camera.rays() * expected[..., None], rtol=1e-6, atol=1e-9)


def test_holes_are_seen_through(renderer):
    both = np.concatenate([square(1.0, 1.0), square(4.0, 4.0)])
    seen = renderer.render(both, renderer.Camera(16, 16.0), solid=lambda triangles, weights: triangles >= 2)
    np.testing.assert_allclose(seen.depth, 4.0, rtol=1e-6)


def test_what_is_behind_is_not_seen(renderer):
    assert np.isinf(renderer.render(square(1.0, -2.0), renderer.Camera(16, 16.0)).depth).all()
    ground = renderer.plane_depth(renderer.Camera(16, 16.0), np.array([0.0, 1.0, 0.0]), 1.5)
    assert np.isinf(ground[:8]).all()
    assert ground[15, 0] == pytest.approx(1.5 * 16 / 7.5)
