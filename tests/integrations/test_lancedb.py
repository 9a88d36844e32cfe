"""Models inside LanceDB: tables that embed what they are given, and the tables of its built-in function that could not be opened."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import imagebind_cli as ib
from tests import generate
from tests.later import Later, needs

lancedb, embeddings, pa = Later("lancedb"), Later("lancedb.embeddings"), Later("pyarrow")
integration = Later("imagebind_cli.integrations.lancedb")

pytestmark = [needs("lancedb"), pytest.mark.filterwarnings("ignore::DeprecationWarning:lancedb.*")]  # about its own methods


@pytest.fixture(scope="module")
def model():
    return integration.load_once("tiny", "cpu")


def table(tmp_path, values, kind=None, **settings):
    integration.load_once("tiny", "cpu")  # imports the module, which registers the function
    function = embeddings.get_registry().get("imagebind-cli").create(name="tiny", device="cpu", **settings)
    config = embeddings.EmbeddingFunctionConfig(vector_column="vector", source_column="file", function=function)
    schema = pa.schema([("file", kind or pa.string()), ("vector", pa.list_(pa.float32(), 64))])
    database = lancedb.connect(tmp_path / "base")
    made = database.create_table("files", schema=schema, embedding_functions=[config])
    made.add([{"file": value} for value in values], on_bad_vectors="null")
    return database


def test_a_search_finds_what_cosines_find(model, tmp_path):
    paths = [str(generate.picture(tmp_path / f"{seed}.png", seed)) for seed in range(12)]
    found = table(tmp_path, paths).open_table("files").search("a dog").distance_type("cosine").limit(10).to_list()
    scores = (model.embed("image", paths) @ model.embed("text", ["a dog"]).T)[:, 0]
    assert [row["file"] for row in found] == [paths[row] for row in np.argsort(-scores)[:10]]
    assert [1 - row["_distance"] for row in found] == pytest.approx(sorted(scores, reverse=True)[:10], abs=1e-5)


def test_a_bad_file_gives_null_at_once(tmp_path, caplog):
    good = generate.picture(tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes(good.read_bytes()[:100])
    began = time.monotonic()
    rows = table(tmp_path, [str(good), str(tmp_path / "torn.png"), str(tmp_path / "gone.png"), None]).open_table("files").to_arrow()
    assert time.monotonic() - began < 30  # seven attempts wait longer than two minutes
    assert [vector is None for vector in rows["vector"].to_pylist()] == [False, True, True, True]
    lines = [record.getMessage() for record in caplog.records if record.name == "imagebind_cli.events"]
    assert len(lines) == 2
    assert lines[1] == f"null vector: {tmp_path}/gone.png: no such file or directory"


def test_bytes_and_maps_need_their_modality(model, tmp_path):
    content = Path(generate.sample("depth", tmp_path)).read_bytes()
    rows = table(tmp_path, [content, b"torn"], pa.binary(), modality="depth").open_table("files").to_arrow()["vector"].to_pylist()
    assert np.allclose(rows[0], model.embed("depth", content)[0], atol=1e-6)
    assert rows[1] is None
    with pytest.raises(ib.UserError, match="modality='image'"):
        integration.ImageBindFunction.create(name="tiny", device="cpu").compute_source_embeddings([content])


def test_a_query_may_be_a_file_of_the_column(model, tmp_path):
    paths = [generate.sample("imu", tmp_path, seed) for seed in range(2)]
    opened = table(tmp_path, paths, modality="imu").open_table("files")
    assert opened.search(paths[1]).limit(1).to_list()[0]["file"] == paths[1]
    with pytest.raises(ib.UserError):
        integration.ImageBindFunction.create(name="tiny", device="cpu").compute_query_embeddings(b"bytes")


def built_in_table(folder, path):
    """Make a table as LanceDB writes it with its built-in function, which records its name and settings in the schema."""
    record = [{"name": integration.BUILT_IN, "model": {"name": "tiny"}, "source_column": "file", "vector_column": "vector"}]
    schema = pa.schema([("file", pa.string()), ("vector", pa.list_(pa.float32(), 64))], {"embedding_functions": json.dumps(record)})
    rows = pa.table({"file": [path], "vector": pa.array([[1.0] * 64], pa.list_(pa.float32(), 64))}, schema=schema)
    lancedb.connect(folder).create_table("old", rows, schema=schema)


@pytest.fixture
def without_imagebind(monkeypatch):
    """The state of most machines: no package `imagebind`. In the tests' path there is ours, in `compat`."""
    monkeypatch.setattr("imagebind_cli.integrations.lancedb.find_spec", lambda name: None)
    functions = embeddings.get_registry()._functions
    before = dict(functions)
    assert integration.replace_built_in()
    yield
    functions.clear()
    functions.update(before)


@pytest.mark.usefixtures("without_imagebind")
def test_a_table_of_the_built_in_opens(model, tmp_path):
    path = str(generate.picture(tmp_path / "a.png"))
    built_in_table(tmp_path / "base", path)
    opened = lancedb.connect(tmp_path / "base").open_table("old")
    opened.add([{"file": path}])
    assert np.allclose(opened.to_arrow()["vector"].to_pylist()[1], model.embed("image", path)[0], atol=1e-6)
    assert len(opened.search("a dog").limit(2).to_list()) == 2


def test_vectors_of_the_built_in_are_the_published_outputs(model, tmp_path):
    path = str(generate.audio(tmp_path / "a.wav", seconds=7))
    clips = np.stack([model.embed("audio", [ib.Stretch(path, start, start + 2)])[0] for start in (0, 2.5, 5)])
    (vector,) = integration.BuiltInFunction.create(name="tiny").compute_source_embeddings([path])
    assert np.allclose(vector, clips.mean(axis=0) * model.scale("audio"), atol=2e-3)
    (unit,) = integration.BuiltInFunction.create(name="tiny", normalize=True).compute_source_embeddings([path])
    assert np.linalg.norm(unit) == pytest.approx(1)
    assert integration.BuiltInFunction.create().ndims() == 1024  # of the published model, which need not be on this machine


def test_an_installed_imagebind_is_not_replaced():
    assert "compat" in " ".join(sys.path)
    assert not integration.replace_built_in()


def test_kinds_by_ending():
    assert [integration.modality_by_ending(value) for value in ("a/b.JPG", "c.wav", "d.mp4", "a dog. A cat", "see fig.1")] == [
        "image",
        "audio",
        "video",
        "text",
        "text",
    ]
