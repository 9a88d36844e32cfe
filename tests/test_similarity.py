"""Search beside plain float64 numpy: the same rows in the same order, ties and near ties included, whatever the blocks are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imagebind_cli import similarity


def rows(count: int, dim: int = 64, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cut(vectors: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), size):
        yield vectors[start : start + size]


def by_float64(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The definition: every score in float64, the highest first, among equal ones the first row."""
    scores = np.stack([(vectors.astype(np.float64) * query).sum(axis=1) for query in queries])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


# Vectors


def test_unit_vectors_keep_their_direction() -> None:
    assert similarity.unit(np.array([[3.0, 4.0], [0.0, -2.0]])).tolist() == [[0.6, 0.8], [0.0, -1.0]]


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_what_has_no_direction_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="no direction"):
        similarity.unit(np.array([[1.0, 0.0], bad]))


def test_combining_normalises_before_and_after() -> None:
    east, north = np.array([100.0, 0.0]), np.array([0.0, 0.001])
    assert similarity.combine(np.stack([east, north])) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert similarity.combine(np.stack([east, north]), [3, 4]) == pytest.approx([0.6, 0.8])
    assert similarity.combine(np.stack([east, north]), [1, -1]) == pytest.approx([0.5**0.5, -(0.5**0.5)])
    with pytest.raises(ValueError, match="no direction"):
        similarity.combine(np.stack([east, east]), [1, -1])


# Search


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("queries", [1, 8, 9, 300])
@pytest.mark.parametrize("size", [7, 1000, 9000])
def test_search_is_that_of_float64(dtype: type, queries: int, size: int) -> None:
    vectors, asked = rows(9000).astype(dtype), similarity.unit(rows(queries, seed=1).astype(np.float64))
    found, scores = similarity.top_k(cut(vectors, size), asked, 10)
    wanted, exact = by_float64(vectors, asked, 10)
    assert found.tolist() == wanted.tolist()
    assert np.abs(scores - exact).max() < 1e-14


@pytest.mark.parametrize("queries", [1, 20])
def test_scores_that_float32_cannot_tell_apart_are_in_the_order_of_float64(queries: int) -> None:
    random, base = np.random.default_rng(0), rows(1, 1024)
    vectors = (base + 3e-8 * random.standard_normal((3000, 1024))).astype(np.float32)
    asked = similarity.unit((base + 0.01 * random.standard_normal((queries, 1024))).astype(np.float64))
    single = vectors @ asked.astype(np.float32).T
    wanted, _ = by_float64(vectors, asked, 10)
    assert (np.argsort(-single.T, axis=1, kind="stable")[:, :10] != wanted).any()  # float32 alone is wrong here
    assert similarity.top_k(cut(vectors, 500), asked, 10)[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("order", [1, -1])
def test_sorted_rows_are_found_from_either_end(queries: int, order: int) -> None:
    asked = similarity.unit(rows(queries).astype(np.float64))
    vectors = rows(20_000, seed=1)
    vectors = vectors[np.argsort(vectors @ asked[0].astype(np.float32))[::order]]
    assert similarity.top_k(cut(vectors, 2000), asked, 5)[0].tolist() == by_float64(vectors, asked, 5)[0].tolist()


@pytest.mark.parametrize("queries", [1, 20])
def test_equal_rows_are_in_the_order_of_their_place(queries: int) -> None:
    vectors = np.repeat(rows(50, 100), 200, axis=0)[np.random.default_rng(0).permutation(10_000)]
    asked = similarity.unit(rows(queries, 100, seed=1).astype(np.float64))
    found, scores = similarity.top_k(cut(vectors, 999), asked, 250)
    assert found.tolist() == by_float64(vectors, asked, 250)[0].tolist()
    assert len(set(scores[0].tolist())) == 2  # 200 of one row and 50 of the next


@pytest.mark.parametrize("queries", [1, 20])
def test_equal_rows_are_in_the_order_of_their_names_where_they_have_some(queries: int) -> None:
    vectors = np.repeat(rows(2), 5000, axis=0)
    names = [f"{number:05d}" for number in np.random.default_rng(0).permutation(10_000)]
    names[17] = names[4321] = "00000"  # one id, two rows: the first row first
    asked = np.repeat(vectors[:1], queries, axis=0)
    found, _ = similarity.top_k(cut(vectors, 999), asked, 7, names=lambda which: [names[row] for row in which])
    wanted = sorted(range(5000), key=lambda row: (names[row], row))[:7]
    assert found.tolist() == [wanted] * queries


def test_names_are_asked_for_only_where_scores_are_equal() -> None:
    def names(which: np.ndarray) -> list[str]:
        raise AssertionError

    assert similarity.top_k([rows(500)], rows(3, seed=1), 10, names)[0].shape == (3, 10)


@pytest.mark.parametrize("queries", [1, 9])
def test_more_is_asked_for_than_is_there(queries: int) -> None:
    vectors, asked = rows(6), rows(queries, seed=1).astype(np.float64)
    found, scores = similarity.top_k(cut(vectors, 4), asked, 10)
    assert found.tolist() == by_float64(vectors, asked, 10)[0].tolist()
    assert scores.shape == (queries, 6)
    assert similarity.top_k([], asked, 10)[0].shape == (queries, 0)
    assert similarity.top_k([vectors], asked[:0], 10)[0].shape == (0, 6)


@pytest.mark.parametrize("queries", [1, 9])
def test_a_row_that_is_no_number_is_never_found(queries: int) -> None:
    vectors, asked = rows(1000), rows(queries, seed=1).astype(np.float64)
    vectors[5:15], vectors[600:620] = np.nan, np.inf
    found, scores = similarity.top_k(cut(vectors, 500), asked, 10)
    kept = np.r_[:5, 15:600, 620:1000]
    assert found.tolist() == kept[by_float64(vectors[kept], asked, 10)[0]].tolist()
    found, scores = similarity.top_k([vectors], asked, 1000)
    assert (np.isfinite(scores).sum(axis=1) == 970).all()


def test_half_floats_are_widened_to_the_bit() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 2)
    assert similarity._widen(halves).tobytes() == halves.astype(np.float32).tobytes()


@pytest.mark.parametrize("queries", [1, 64])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, queries: int) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.tile(rows(5000, 512), (30, 1)))  # 300 MB
    mapped = np.load(path, mmap_mode="r")
    asked = rows(queries, 512, seed=1)
    tracemalloc.start()
    try:
        similarity.top_k((np.array(block) for block in cut(mapped, 1000)), asked, 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6


# Ranks


def brute_ranks(vectors: np.ndarray, query: np.ndarray, relevant: np.ndarray, ids: list[str]) -> list[int]:
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    order = sorted(range(len(vectors)), key=lambda row: (-scores[row], ids[row], row))
    return sorted(order.index(row) for row in relevant)


@pytest.mark.parametrize("held", [1, 700, 1 << 25])
def test_ranks_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(similarity, "HELD", held)
    random = np.random.default_rng(0)
    vectors = rows(400)
    vectors[100:200] = vectors[:100]  # every one of these has its like
    ids = [str(number) for number in random.permutation(400)]
    queries = rows(13, seed=1)
    relevant = [random.choice(400, size, replace=False) for size in [1, 2, 5, 400, *[3] * 9]]
    found = similarity.ranks(lambda: cut(vectors, 33), queries, relevant, similarity.positions_by_id(ids))
    assert [own.tolist() for own in found] == [
        brute_ranks(vectors, query, rows_of, ids) for query, rows_of in zip(queries, relevant, strict=True)
    ]
