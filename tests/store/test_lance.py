"""Stores as tables of LanceDB, and back."""

import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.similarity import top_k
from imagebind_cli.store import open_store
from imagebind_cli.store.check import findings
from imagebind_cli.store.export import export
from imagebind_cli.store.maintenance import compact, merge, prune
from tests.later import Later, needs
from tests.stores import store, unit_rows

lancedb = Later("lancedb")
pytestmark = needs("lancedb")


@pytest.fixture
def photos(tmp_path):
    return store(tmp_path / "photos.h5", "image", [f"{n}.png" for n in range(60)], metas=[{"n": n, "to": {"x": "é"}} for n in range(60)])


@pytest.mark.parametrize("array", ["float32", "float16"])
def test_a_search_finds_what_ours_finds(photos, tmp_path, array):
    reader, path = open_store(photos), tmp_path / "base" / "photos.lance"
    path.parent.mkdir()
    export(reader, path, array)
    query = unit_rows(1, seed=9)
    wanted, scores = top_k([reader.vectors().astype(array)], query, 10)
    table = lancedb.connect(path.parent).open_table("photos")
    found = table.search(query[0].astype(array), vector_column_name="embedding").distance_type("cosine").limit(10).to_list()
    assert [row["id"] for row in found] == [f"{row}.png" for row in wanted[0]]
    np.testing.assert_allclose([1 - row["_distance"] for row in found], scores[0], atol=2e-3 if array == "float16" else 1e-5)


def test_there_and_back(photos, tmp_path):
    export(open_store(photos), tmp_path / "photos.lance", "float32")
    merge([open_store(tmp_path / "photos.lance")], tmp_path / "again.h5")
    before, after = open_store(photos), open_store(tmp_path / "again.h5")
    assert after.provenance == before.provenance
    assert list(findings(tmp_path / "photos.lance")) == []
    for one, other in zip(before.items(), after.items(), strict=True):
        assert [(row.id, row.span, row.meta, row.clock) for row in one] == [(row.id, row.span, row.meta, row.clock) for row in other]
        assert np.array_equal(one[0].vector, other[0].vector)


@pytest.mark.parametrize("rewrite", [compact, prune])
def test_a_table_is_not_rewritten(photos, tmp_path, rewrite, monkeypatch):
    export(open_store(photos), tmp_path / "photos.lance", "float32")
    monkeypatch.setattr("imagebind_cli.store.maintenance.open_store", lambda path: pytest.fail("was read before it was refused"))
    with pytest.raises(UserError, match=r"photos.lance: not rewritten in place.*: imagebind store export "):
        rewrite(tmp_path / "photos.lance")


def test_windows_stay_together(tmp_path):
    path = store(tmp_path / "sounds.h5", "audio", ["a.wav", "a.wav", "b.wav"], spans=[(0, 2), (2, 4), (0, 2)])
    export(open_store(path), tmp_path / "sounds.lance", "float32")
    reader = open_store(tmp_path / "sounds.lance")
    assert [[row.span for row in item] for item in reader.items()] == [[(0, 2), (2, 4)], [(0, 2)]]
    assert np.array_equal(reader.vectors(), open_store(path).vectors())


def test_other_tables_are_refused(photos, tmp_path):
    lancedb.connect(tmp_path).create_table("mine", [{"id": "a", "embedding": [1.0, 0.0]}])
    with pytest.raises(UserError, match="mine.lance: not exported from a store"):
        open_store(tmp_path / "mine.lance")
    export(open_store(photos), tmp_path / "named.lance", "float32", columns="id=uuid,embedding")
    with pytest.raises(UserError, match="no column id"):
        open_store(tmp_path / "named.lance")
    with pytest.raises(UserError, match="exists"):
        export(open_store(photos), tmp_path / "named.lance", "float32")
