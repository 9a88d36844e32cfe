"""`imagebind store map`: axes against a plain SVD, centred stores, groups, tables, a page in a browser, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.by import By

from imagebind_cli.errors import UserError
from imagebind_cli.insight import store_map
from imagebind_cli.insight.store_map import map_stores
from tests.browsing import browser, complaints
from tests.conftest import Run
from tests.later import Later
from tests.stores import DIM, store, unit_rows

parquet = Later("pyarrow.parquet")


@pytest.fixture
def clustered(tmp_path: Path) -> Path:
    """Three tight groups of ten, in folders of their names."""
    centres = unit_rows(3, seed=4)
    noise = np.random.default_rng(1).standard_normal((30, DIM)).astype(np.float32) * 0.02
    vectors = np.repeat(centres, 10, axis=0) + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return store(tmp_path / "a.h5", "image", [f"{'cdb'[i // 10]}/{i}.png" for i in range(30)], vectors)


def test_places_are_those_of_a_plain_svd(clustered: Path, tmp_path: Path) -> None:
    rows = unit_rows(40, seed=2)
    found = map_stores([store(tmp_path / "b.h5", "image", [str(i) for i in range(40)], rows)])
    centred = rows.astype(np.float64) - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    signs = np.sign((expected * found.places).sum(axis=0))
    np.testing.assert_allclose(found.places, expected * signs, atol=1e-4)
    np.testing.assert_allclose(found.shares, (values[:2] ** 2) / (values**2).sum(), atol=1e-5)
    again = map_stores([tmp_path / "b.h5"])
    assert np.array_equal(found.places, again.places)


def test_the_gap_between_stores_is_not_an_axis(tmp_path: Path) -> None:
    rows, shifted = unit_rows(20, seed=1) * 0.3, np.zeros((20, DIM), np.float32)
    shifted[:, 0] = 1
    pictures = store(tmp_path / "a.h5", "image", [f"{i}.png" for i in range(20)], _unit(rows + shifted))
    sounds = store(tmp_path / "b.h5", "audio", [f"{i}.wav" for i in range(20)], _unit(rows - shifted))
    found = map_stores([pictures, sounds])
    assert found.groups == [str(pictures), str(sounds)]
    means = [found.places[found.store == number].mean(axis=0) for number in (0, 1)]
    np.testing.assert_allclose(means, 0, atol=1e-5)
    assert "each store is centred on its own mean" in found.about


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_clusters_are_the_groups(clustered: Path) -> None:
    found = map_stores([clustered], colour="cluster", clusters=3)
    assert found.groups == ["cluster 1", "cluster 2", "cluster 3"]
    assert [len(set(found.group[start : start + 10])) for start in (0, 10, 20)] == [1, 1, 1]
    assert len(set(found.group)) == 3
    again = map_stores([clustered], colour="label:folder")
    assert sorted(again.groups) == ["b", "c", "d"]


def test_a_limit_on_memory_changes_nothing(clustered: Path) -> None:
    assert np.allclose(map_stores([clustered]).places, map_stores([clustered], memory=1 << 10).places, atol=1e-3)  # float16 on disk


def test_every_table_says_the_same(clustered: Path, tmp_path: Path, imagebind: Run) -> None:
    files = [tmp_path / f"map.{ending}" for ending in ("csv", "jsonl", "parquet")]
    done = imagebind("store", "map", str(clustered), "--colour", "label:folder", *(part for file in files for part in ("-o", str(file))))
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in imagebind("store", "map", str(clustered), "--colour", "label:folder").out.splitlines()]
    assert lines == [json.loads(line) for line in files[1].read_text().splitlines()] == parquet.read_table(files[2]).to_pylist()
    with open(files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], float(row["x"]), row["group"]) for row in rows] == [(line["id"], line["x"], line["group"]) for line in lines]
    assert lines[0].keys() == {"id", "store", "modality", "x", "y", "group"}
    assert lines[0]["group"] == "c"


def test_umap_keeps_groups_together(clustered: Path, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes far longer than thirty items
    done = imagebind("store", "map", str(clustered), "--method", "umap", "--colour", "label:folder")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    places, groups = np.array([(row["x"], row["y"]) for row in rows]), np.array([row["group"] for row in rows])
    middles = np.array([places[groups == name].mean(axis=0) for name in "bcd"])
    nearest = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    assert np.array_equal(np.array(list("bcd"))[nearest], groups)


def test_the_page_in_a_browser(clustered: Path, tmp_path: Path, imagebind: Run) -> None:
    done = imagebind("store", "map", str(clustered), "-o", str(tmp_path / "map.html"), "--colour", "label:folder", "--draw", "1000")
    assert (done.code, done.out) == (0, b""), done.err
    with browser(tmp_path) as driver:
        driver.get((tmp_path / "map.html").as_uri())
        marks = "return [...document.querySelectorAll('svg.map [id]')].filter(e => getComputedStyle(e).display !== 'none').length"
        assert driver.execute_script(marks) == 30
        boxes = driver.find_elements(By.CSS_SELECTOR, "input[type=checkbox]")
        assert sorted(label.text.split()[0] for label in driver.find_elements(By.TAG_NAME, "label")) == ["b", "c", "d"]
        boxes[0].send_keys(" ")  # by the keyboard
        assert driver.execute_script(marks) == 20
        assert complaints(driver) == []
    picture = tmp_path / "map.svg"
    assert imagebind("store", "map", str(clustered), "-o", str(picture)).code == 0
    assert picture.read_text().count("<title>") >= 30


def test_a_large_map_is_drawn_in_part_and_says_so(tmp_path: Path, imagebind: Run) -> None:
    place = store(tmp_path / "a.h5", "image", [f"{i}.png" for i in range(300)])
    done = imagebind("store", "map", str(place), "-o", str(tmp_path / "map.html"), "--draw", "50", "--clusters", "2")
    found = re.search(r"map\.html: 300 items, of which (\d+) are drawn, chosen at random", done.err)
    assert found
    assert 50 <= int(found[1]) < 100
    assert "300 items" in (tmp_path / "map.html").read_text()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("-o", "map.pdf"), 2, "unknown ending '.pdf'"),
        (("--colour", "label"), 2, "unknown colour 'label'"),
        (("--method", "tsne"), 2, "unknown method 'tsne'"),
        (("--colour", "label:nothing"), 1, "no labels by"),
        (("-o", "missing/map.html"), 1, "missing/map.html"),
    ],
)
def test_what_is_wrong_is_one_line(clustered: Path, imagebind: Run, options: tuple[str, ...], code: int, words: str) -> None:
    done = imagebind("store", "map", str(clustered), *options)
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == b""


def test_an_id_that_is_markup_stays_text(tmp_path: Path, imagebind: Run) -> None:
    place = store(tmp_path / "a.h5", "image", ["<script>x</script>", "b&c", "d"])
    assert imagebind("store", "map", str(place), "-o", str(tmp_path / "map.html"), "-o", str(tmp_path / "map.svg")).code == 0
    for name in ("map.html", "map.svg"):
        text = (tmp_path / name).read_text()
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_stores_of_two_models_have_no_map(clustered: Path, tmp_path: Path) -> None:
    other = store(tmp_path / "other.h5", "image", ["x"], model="another", weights="others")
    with pytest.raises(UserError):
        map_stores([clustered, other])
    assert store_map.METHODS == ("pca", "umap")
