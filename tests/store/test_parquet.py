"""Stores as Parquet files in the hands of DuckDB: queries, columns, and thumbnails."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebind_cli.errors import UsageError
from imagebind_cli.similarity import top_k
from imagebind_cli.store import open_store, table_columns
from imagebind_cli.store.export import export
from tests import generate
from tests.conftest import Run
from tests.later import Later, needs
from tests.stores import DIM, store, unit_rows

duckdb, parquet = Later("duckdb"), Later("pyarrow.parquet")
pytestmark = needs("duckdb")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A store of 60 pictures."""
    return store(tmp_path / "photos.h5", "image", [f"{n}.png" for n in range(60)], metas=[{"n": n, "to": {"x": "é"}} for n in range(60)])


@pytest.mark.parametrize("array", ["float32", "float16"])
@pytest.mark.parametrize("block", [7, 16384])
def test_a_query_finds_what_a_search_finds(photos: Path, monkeypatch: pytest.MonkeyPatch, array: str, block: int) -> None:
    monkeypatch.setattr(table_columns, "BLOCK_ROWS", block)
    reader, path = open_store(photos), photos.with_suffix(".parquet")
    export(reader, path, array)
    query = unit_rows(1, seed=9)
    wanted, scores = top_k([reader.vectors().astype(array)], query, 10)
    found = duckdb.execute(
        f"SELECT id, array_cosine_similarity(embedding::FLOAT[{DIM}], ?::FLOAT[{DIM}]) AS score FROM '{path}' ORDER BY score DESC LIMIT 10",
        [query[0].tolist()],
    ).fetchall()
    assert [id for id, _ in found] == [f"{row}.png" for row in wanted[0]]
    np.testing.assert_allclose([score for _, score in found], scores[0], atol=1e-3 if array == "float16" else 1e-6)
    assert parquet.ParquetFile(path).num_row_groups == -(-60 // block)


def test_tables_in_memory_have_arrays_of_fixed_length(photos: Path) -> None:
    path = photos.with_suffix(".parquet")
    export(open_store(photos), path, "float32")
    rows = parquet.read_table(path)
    assert duckdb.execute("SELECT typeof(embedding) FROM rows LIMIT 1").fetchone() == (f"FLOAT[{DIM}]",)
    assert len(rows) == 60


def test_meta_is_json(photos: Path) -> None:
    path = photos.with_suffix(".parquet")
    export(open_store(photos), path, "float32")
    assert duckdb.execute(f"SELECT meta->>'$.to.x', (meta->>'n')::INT FROM '{path}' WHERE id = '7.png'").fetchone() == ("é", 7)


def test_meta_that_json_cannot_hold_becomes_text(tmp_path: Path) -> None:
    path = store(tmp_path / "odd.h5", "image", ["a"], metas=[{"name": "caf\udce9", "nul": "a\0b"}])
    export(open_store(path), tmp_path / "odd.parquet", "float32")
    found = duckdb.execute(f"SELECT meta->>'$.name', meta->>'$.nul' FROM '{tmp_path / 'odd.parquet'}'").fetchone()
    assert found == ("caf\\xe9", "a\\x00b")


def test_columns_are_chosen_ordered_and_renamed(photos: Path, imagebind: Run) -> None:
    path = photos.with_suffix(".parquet")
    run = imagebind("store", "export", photos, "-o", path, "--columns", "embedding=vector, id=uuid,meta.n=number,meta.to,meta.none")
    assert run.code == 0, run.err
    table = parquet.read_table(path)
    assert table.column_names == ["vector", "uuid", "number", "to", "none"]
    assert [table[name][7].as_py() for name in table.column_names[1:]] == ["7.png", "7", '{"x": "é"}', None]
    assert json.loads(table.schema.metadata[b"made"])["model"] == "made"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("uuid", "unknown column 'uuid'; choose from id, modality, "),
        ("id,meta.", "unknown column 'meta.'"),
        ("id,id=uuid", "id is named twice"),
        ("id,meta.x=id", "two columns named 'id'"),
        ("id=", "lacks a name"),
        ("id,thumbnail", "needs --media"),
        ("", "unknown column ''"),
    ],
)
def test_wrong_columns_are_refused(photos: Path, columns: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        export(open_store(photos), photos.with_suffix(".parquet"), "float32", columns=columns)
    assert not photos.with_suffix(".parquet").exists()


@pytest.mark.parametrize("flags", [["--columns", "id"], ["--media"], ["--table", "a"]])
def test_flags_of_tables_are_refused_elsewhere(photos: Path, imagebind: Run, flags: list[str]) -> None:
    run = imagebind("store", "export", photos, "-o", photos.with_suffix(".npy"), *flags)
    assert run.code == 2
    assert flags[0] in run.err


def test_thumbnails_are_small_jpegs_and_missing_ones_are_told(tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generate.picture(Path("a.png"), size=(640, 320))
    Path("broken.png").write_bytes(b"\x89PNG")
    store(Path("a.h5"), "image", ["a.png", "broken.png", "gone.png", "row"], metas=[{}, {}, {}, {"image": "a.png"}])
    run = imagebind("store", "export", "a.h5", "-o", "a.parquet", "--media")
    assert run.code == 0, run.err
    table = parquet.read_table("a.parquet")
    assert table.column_names == ["id", "modality", "start", "end", "meta", "embedding", "thumbnail"]
    first, *none, last = table["thumbnail"].to_pylist()
    image = Image.open(io.BytesIO(first))
    assert (image.format, image.size, none, last) == ("JPEG", (240, 120), [None, None], first)
    assert "imagebind: gone.png: no thumbnail: no such file or directory\n" in run.err
    assert "imagebind: broken.png: no thumbnail: " in run.err


def test_a_sound_has_its_spectrogram_and_a_sentence_nothing(tmp_path: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generate.audio(Path("a.wav"))
    store(Path("sounds.h5"), "audio", ["a.wav"] * 2, spans=[(0.0, 1.0), (1.0, 2.0)])
    store(Path("words.h5"), "text", ["a dog"])
    for name in ("sounds", "words"):
        assert imagebind("store", "export", f"{name}.h5", "-o", f"{name}.parquet", "--media").code == 0
    pictures = parquet.read_table("sounds.parquet")["thumbnail"].to_pylist()
    assert [Image.open(io.BytesIO(data)).size for data in pictures] == [(240, 120)] * 2
    assert parquet.read_table("words.parquet")["thumbnail"].to_pylist() == [None]
