"""Objects of a real S3 server as inputs: the same vectors as the files, listed, resumed, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import corpus, object_storage
from imagebind_cli.events import Listener
from imagebind_cli.store import open_store
from tests import generate
from tests.conftest import Run
from tests.later import needs
from tests.objects import s3_server

pytestmark = needs("s3fs", "moto")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as variables:
        yield variables


@pytest.fixture
def bucket(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket `pictures`, as fsspec's file system has it; the same files are in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    object_storage.file_system.cache_clear()
    files = object_storage.file_system("s3")
    files.clear_instance_cache()
    files.mkdir("pictures")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        generate.picture(tmp_path / "photos" / f"{number}.png", number)
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    (tmp_path / "photos" / "README.md").write_text("about")
    files.put(str(tmp_path / "photos"), "pictures/photos", recursive=True)
    yield files
    files.rm("pictures", recursive=True)
    object_storage.file_system.cache_clear()


def counts(heard: Listener) -> tuple[int, int, int]:
    return heard.done, heard.failed, heard.skipped


def test_a_prefix_is_read_as_a_folder(bucket: Any, tiny: Any) -> None:
    """Vectors are those of the files; what is done is not read again, what was replaced is."""
    corpus.embed(tiny, "image", ["photos"], "files.h5", batch_size=1)
    assert counts(corpus.embed(tiny, "image", ["s3://pictures/photos/"], "objects.h5", batch_size=1)) == (3, 1, 0)
    files, objects = open_store("files.h5"), open_store("objects.h5")
    assert objects.ids == [f"s3://pictures/{id}" for id in files.ids]
    assert np.array_equal(files.vectors(), objects.vectors())
    generate.picture(Path("photos/1.png"), 7)
    bucket.put("photos/1.png", "pictures/photos/1.png")
    bucket.invalidate_cache()
    assert counts(corpus.embed(tiny, "image", ["s3://pictures/photos"], "objects.h5", batch_size=1)) == (1, 1, 2)


def test_objects_are_named_in_every_way(bucket: Any, embed: Run) -> None:
    Path("rows.jsonl").write_text(json.dumps({"id": "a", "image": "s3://pictures/photos/0.png"}) + "\n")
    one = embed("image", "photos/0.png").vectors
    for run in (
        embed("image", "s3://pictures/photos/0.png"),
        embed("image", stdin=b"s3://pictures/photos/0.png\n"),
        embed("image", "--manifest", "rows.jsonl"),
    ):
        assert run.code == 0
        assert np.array_equal(run.vectors, one)


def test_shards_are_read_as_they_come(bucket: Any, tiny: Any) -> None:
    corpus.preprocess("image", ["s3://pictures/photos/0.png", "photos/1.png"], "two.tar")
    bucket.put("two.tar", "pictures/two.tar")
    assert counts(corpus.embed(tiny, "image", ["s3://pictures/two.tar"], "two.h5")) == (2, 0, 0)
    assert open_store("two.h5").ids == ["s3://pictures/photos/0.png", "photos/1.png"]


@pytest.mark.parametrize("address", ["s3://pictures/none/", "s3://pictures/none.png", "s3://nowhere/1.png"])
def test_what_is_not_there_is_a_failure(bucket: Any, embed: Run, address: str) -> None:
    run = embed("image", address)
    assert (run.code, run.out, len(run.notices)) == (1, b"", 1)
    assert run.notices[0].startswith(f"imagebind: {address}: ")


def test_large_objects_are_refused_before_they_are_read(bucket: Any, embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "MAX_OBJECT", 100)
    (line,) = embed("image", "--workers", 1, "s3://pictures/photos/0.png").notices
    assert "bytes; at most 100 are read of one object" in line


@pytest.mark.parametrize("name", ["a.store", "a.h5", "a.npy"])
def test_an_output_is_uploaded_and_continued_on_another_machine(bucket: Any, imagebind: Run, tmp_path: Path, name: str, home: Path) -> None:
    def embed(*pictures: str) -> str:
        done = imagebind("embed", "image", "--device", "cpu", "--batch-size", 1, *pictures, "-o", f"s3://pictures/out/{name}")
        assert done.code == 0, done.err
        return done.err.splitlines()[-1]

    assert "1 embedded" in embed("photos/0.png")
    shutil.rmtree(home / "outputs")
    assert "1 embedded, 1 there already" in embed("photos/0.png", "photos/1.png")
    assert "2 there already" in embed("photos/0.png", "photos/1.png")
    bucket.invalidate_cache()
    bucket.get("pictures/out/", str(tmp_path / "copy"), recursive=True)
    found = open_store(tmp_path / "copy" / name)
    assert found.ids == ["photos/0.png", "photos/1.png"]
    assert imagebind("store", "check", tmp_path / "copy" / name).code == 0


def test_rows_of_a_run_that_could_not_upload_are_kept(bucket: Any, embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("image", "photos/0.png", "-o", "s3://pictures/b.h5")
    with monkeypatch.context() as patch:

        def refuse(path: Path, address: str) -> None:
            raise OSError(5, "the network is down", address)

        patch.setattr("imagebind_cli.corpus.uploads.upload_object", refuse)
        done = embed(*command)
        assert done.code == 1
        assert "s3://pictures/b.h5: the network is down; the output so far is in " in done.err
    assert "1 there already" in embed(*command).err
    assert bucket.exists("pictures/b.h5")


def test_prepared_samples_are_uploaded(bucket: Any, imagebind: Run) -> None:
    done = imagebind("preprocess", "image", "photos/0.png", "-o", "s3://pictures/p/s-%06d.tar")
    assert done.code == 0, done.err
    assert bucket.exists("pictures/p/s-000000.tar")
    assert "1 there already" in imagebind("preprocess", "image", "photos/0.png", "-o", "s3://pictures/p/s-%06d.tar").err


def test_clusters_write_to_disks(embed: Run) -> None:
    done = embed("image", "a.png", "--engine", "ray", "-o", "s3://pictures/a.store")
    assert done.code == 1
    assert "write to a disk, and upload the result" in done.err


def test_a_missing_package_has_its_remedy(embed: Run) -> None:
    if find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    (line,) = embed("image", "gs://pictures/1.png").notices
    assert line.endswith("gs:// needs a package that is not installed: pip install 'imagebind-cli[gs]'")
