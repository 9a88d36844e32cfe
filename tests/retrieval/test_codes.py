"""Search by int8 codes: its answers are those of `similarity.top_k`, to the bit, whatever the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagebind_cli.retrieval import codes
from imagebind_cli.retrieval.codes import CodeSearch
from imagebind_cli.similarity import top_k
from imagebind_cli.store import StoreReader, open_store
from tests.conftest import Run
from tests.stores import DIM, store, unit_rows


def names(count: int) -> list[str]:
    """Return so many ids."""
    return [f"item{number:05}" for number in range(count)]


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Rows around a few centres, with coordinates of very different spreads, far from zero."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((20, DIM))[random.integers(0, 20, count)] + 0.5 * random.standard_normal((count, DIM)) + 3
    rows *= np.random.default_rng(1).lognormal(0, 1, DIM)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(reader: StoreReader, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return top_k(reader.blocks(), queries, k, lambda rows: [reader.id(row) for row in rows.tolist()])


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(codes, "_multiplies", lambda: True)
    monkeypatch.setattr(codes, "ROWS", 1000)  # several steps
    return []


@pytest.mark.parametrize("queries", [1, 5, 40])
@pytest.mark.parametrize("kind", ["clustered", "random", "odd"])
def test_answers_are_those_of_an_exact_search(notes: list[str], kind: str, queries: int) -> None:
    import torch  # noqa: F401 - without it rows are searched

    vectors = unit_rows(5000, DIM) if kind == "random" else clustered(5000)
    if kind == "odd":
        vectors[100:140] = vectors[7]  # equal rows, ordered by id
        vectors[200] = np.nan
        vectors[201] = np.inf
        vectors[202] = 0
    reader = open_store(store(Path("a.npy"), "image", names(5000), vectors))
    search = CodeSearch(notes.append)
    asked = np.concatenate([clustered(queries - 1, seed=3), vectors[7:8]]).astype(np.float64)
    for k in (1, 10):
        rows, scores = search(reader, asked, k)
        true_rows, true_scores = exact(reader, asked, k)
        assert np.array_equal(rows, true_rows)
        assert np.array_equal(scores, true_scores)
    assert [note for note in notes if "searched without" in note] == []
    candidates = search._opened[reader.path].candidates(asked, 10)
    assert np.mean([len(some) for some in candidates]) < 500  # of 5,000


def test_errors_are_bounds(notes: list[str]) -> None:
    rows = clustered(300)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    coded, (scale, _, error, _) = codes._encode(rows, mean, spread)
    far = (rows.astype(np.float64) - mean) / spread - scale[:, None].astype(np.float64) * coded
    lengths = np.linalg.norm(far, axis=1)
    assert (lengths <= error).all()
    assert (error < 1.05 * lengths).all()


def test_codes_are_made_once_and_again_where_they_do_not_fit(notes: list[str]) -> None:
    import torch  # noqa: F401

    place, asked = store(Path("a.npy"), "image", names(2000), clustered(2000)), clustered(2, seed=5).astype(np.float64)
    for _ in range(2):
        CodeSearch(notes.append)(open_store(place), asked, 5)
    assert notes == ["a.npy.int8.codes: making it from 2,000 rows"]
    size = Path("a.npy.int8.codes").stat().st_size
    assert size == 2000 * (DIM + 16)
    Path("a.npy.int8.codes").write_bytes(b"torn")
    CodeSearch(notes.append)(open_store(place), asked, 5)
    assert notes[1:] == ["a.npy.int8.codes: incomplete; making it again"]
    for path in ("a.npy", "a.jsonl", "a.made.json"):
        Path(path).unlink()
    reader = open_store(store(place, "image", names(2000), clustered(2000, seed=9)))
    rows, _ = CodeSearch(notes.append)(reader, asked, 5)
    assert notes[2:] == ["a.npy.int8.codes: a.npy has changed since; making it again from 2,000 rows"]
    assert np.array_equal(rows, exact(reader, asked, 5)[0])


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_changes_no_answer(notes: list[str], queries: int, bit: int) -> None:
    import torch  # noqa: F401 - without it rows are searched

    reader = open_store(store(Path("a.npy"), "image", names(2000), clustered(2000)))
    asked = clustered(queries, seed=5).astype(np.float64)
    CodeSearch(notes.append)(reader, asked, 5)
    file = Path("a.npy.int8.codes")
    whole = file.read_bytes()
    for place in (0, 777 * DIM + 5, 2000 * DIM + 9, len(whole) - 1):  # of a code, of another, of a scale, of a sum
        data = bytearray(whole)
        data[place] ^= 1 << bit
        file.write_bytes(data)
        rows, scores = CodeSearch(notes.append)(reader, asked, 5)
        assert np.array_equal(rows, exact(reader, asked, 5)[0])
        assert np.array_equal(scores, exact(reader, asked, 5)[1])
        assert "; making it again" in notes[-1]
        assert file.read_bytes() == whole


def test_store_check_reports_codes_that_changed(notes: list[str], imagebind: Run) -> None:
    import torch  # noqa: F401 - without it rows are searched

    path = store(Path("a[1].npy"), "image", names(1000), clustered(1000))
    CodeSearch(notes.append)(open_store(path), clustered(1, seed=3).astype(np.float64), 1)
    assert imagebind("store", "check", path).out == b""
    file = Path("a[1].npy.int8.codes")
    data = bytearray(file.read_bytes())
    data[1000] ^= 4
    file.write_bytes(data)
    found = imagebind("store", "check", path)
    assert (found.code, found.out) == (1, b"a[1].npy: a[1].npy.int8.codes: damaged; delete it, and the next search makes it again\n")


def test_rows_are_searched_where_codes_do_not_help(notes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, asked = open_store(store(Path("a.npy"), "image", names(100), clustered(100))), clustered(1, seed=5).astype(np.float64)
    search = CodeSearch(notes.append)
    for _ in range(2):
        assert np.array_equal(search(reader, asked, 10)[0], exact(reader, asked, 10)[0])
    monkeypatch.setattr(codes, "_multiplies", lambda: False)
    assert np.array_equal(search(reader, asked, 1)[0], exact(reader, asked, 1)[0])
    assert notes == [
        "a.npy: searched without codes: 100 rows are too few",
        "a.npy: searched without codes: this processor, or torch for it, has no fast int8 products",
    ]
    assert not Path("a.npy.int8.codes").exists()
