"""Regions from the command line: what `retrieve` and `zeroshot` print of them, overlapping ones left out, and their pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebind_cli.retrieval import Finder
from imagebind_cli.retrieval.search import search, suppress_overlaps
from imagebind_cli.store import open_store
from tests import generate
from tests.conftest import Finished, Run
from tests.stores import store, unit_rows

TINY = ("--model", "tiny", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("ab"):
        generate.picture(Path(f"{name}.png"), number)
    table(
        {"image": "a.png", "box": [0, 0, 30, 30], "label": "cat"},
        {"image": "a.png", "box": [2, 0, 30, 30], "label": "cat"},
        {"image": "a.png", "box": [40, 20, 40, 40], "label": "dog"},
        {"image": "b.png", "box": [0, 0, 30, 30], "label": "dog"},
    )
    return tmp_path


def table(*rows: Any, path: str = "boxes.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def regions(imagebind: Run, folder: Path) -> str:
    """A store of regions."""
    assert imagebind("embed", "image", *TINY, "--boxes", "boxes.jsonl", "-o", "r.h5").code == 0
    return "r.h5"


def refused(run: Finished, words: str) -> None:
    assert (run.code, run.out) == (2, b"")
    assert words in " ".join(run.err.split())


def planted(path: str, boxes: list[list[float]], cosines: list[float], ids: list[str] | None = None) -> np.ndarray:
    """Write a store of regions with given cosines to a query, which is returned."""
    query, *others = unit_rows(1 + len(boxes))
    rows = []
    for cosine, other in zip(cosines, others, strict=True):
        beside = other - (other @ query) * query
        rows.append(cosine * query + np.sqrt(1 - cosine**2) * beside / np.linalg.norm(beside))
    store(
        Path(path), "image", ids or ["a.png"] * len(boxes), np.array(rows, np.float32), metas=[{"box": box} for box in boxes], boxes=True
    )  # fmt: skip
    np.save("q.npy", query[None])
    return query


# Search


def test_answers_have_their_boxes(imagebind: Run, regions: str) -> None:
    run = imagebind("retrieve", regions, "--text", "a dog", "--device", "cpu")
    assert {(row["id"], *row["box"], row["meta"]["label"]) for row in run.rows} == {
        ("a.png", 0, 0, 30, 30, "cat"), ("a.png", 2, 0, 30, 30, "cat"), ("a.png", 40, 20, 40, 40, "dog"), ("b.png", 0, 0, 30, 30, "dog"),
    }  # fmt: skip
    assert all(set(row["meta"]) == {"label"} for row in run.rows)
    plain = imagebind("retrieve", regions, "--text", "a dog", "--plain", "--device", "cpu").out.decode()
    assert "  box 40,20,40,40\n" in plain


def test_one_region_may_be_the_query(imagebind: Run, regions: str) -> None:
    run = imagebind("retrieve", regions, "--like", "a.png#2,0,30,30")
    assert (run.rows[0]["box"], len(run.rows)) == ([0, 0, 30, 30], 3)  # nearly the same pixels
    whole = imagebind("retrieve", regions, "--like", "a.png")
    assert whole.ids == ["b.png"]  # all regions of the item are the item itself
    wrong = imagebind("retrieve", regions, "--like", "a.png#1,1,1,1")
    assert "a.png: no region 1,1,1,1 in it; its 3 are 0,0,30,30, 2,0,30,30, 40,20,40,40, …" in wrong.err
    one = imagebind("retrieve", regions, "--like", "b.png#0,0,30,30", "-k", "9")
    assert len(one.rows) == 3


def test_an_item_alone_in_its_store_may_be_asked_by_region(imagebind: Run, folder: Path) -> None:
    imagebind("embed", "image", *TINY, "a.png", "--tiles", "1", "-o", "one.h5")
    run = imagebind("retrieve", "one.h5", "--like", "a.png")
    assert "the stores hold only this item; one of its regions: --like 'a.png#0,0,60,60'" in run.err
    assert imagebind("retrieve", "one.h5", "--like", "a.png#0,0,60,60").rows[0]["box"] == [20, 0, 60, 60]


def test_overlapping_answers_are_left_out_and_others_take_their_place(imagebind: Run, folder: Path) -> None:
    boxes: list[list[float]] = [[0, 0, 10, 10], [1, 0, 10, 10], [0, 1, 10, 10], [30, 0, 10, 10], [31, 0, 10, 10], [60, 0, 10, 10]]
    planted("r.h5", boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    found = imagebind("retrieve", "r.h5", "--vector", "q.npy", "--nms", "0.5", "-k", 3).rows
    assert [(row["rank"], row["box"][0]) for row in found] == [(1, 0), (2, 30), (3, 60)]
    assert [row["box"][0] for row in imagebind("retrieve", "r.h5", "--vector", "q.npy", "-k", 3).rows] == [0, 1, 0]
    assert len(imagebind("retrieve", "r.h5", "--vector", "q.npy", "--nms", "1").rows) == 6
    above = imagebind("retrieve", "r.h5", "--vector", "q.npy", "--nms", "0.5", "--threshold", "0.5").rows
    assert [row["box"][0] for row in above] == [0, 30]
    assert (
        imagebind("retrieve", "r.h5", "--vector", "q.npy", "--nms", "0.5").out
        == imagebind("retrieve", "r.h5", "--vector", "q.npy", "--nms", "0.5").out
    )


def test_there_are_k_answers_however_many_overlap(folder: Path) -> None:
    """Hundreds of copies of one box come before the others; only those of one picture leave each other out."""
    boxes = [[0.0, 0.0, 10.0, 10.0]] * 300 + [[20.0 * number, 0.0, 10.0, 10.0] for number in range(1, 6)] + [[0.0, 0.0, 10.0, 10.0]]
    cosines = np.linspace(0.9, 0.1, len(boxes)).tolist()
    query = planted("r.h5", boxes, cosines, ["a.png"] * 305 + ["b.png"])
    found = Finder(["r.h5"]).find(vector="q.npy", k=5, nms=0.3)
    assert [hit.row for hit in found] == [0, 300, 301, 302, 303]
    everything = Finder(["r.h5"]).find(vector="q.npy", k=400, nms=0.3)
    assert [hit.row for hit in everything] == [0, 300, 301, 302, 303, 304, 305]
    from imagebind_cli.retrieval.search import Query

    reader = open_store("r.h5")
    (ranked,) = search([reader], [Query("q", query)], 400)
    assert [hit.row for hit in suppress_overlaps(ranked, 0.3)] == [hit.row for hit in everything]


def test_suppression_is_of_regions_alone(imagebind: Run, folder: Path) -> None:
    store(Path("whole.h5"), "image", ["a.png", "b.png"])
    np.save("q.npy", unit_rows(1))
    refused(
        imagebind("retrieve", "whole.h5", "--vector", "q.npy", "--nms", "0.5"),
        "none of these stores has any: embed with --boxes or --tiles",
    )
    refused(imagebind("zeroshot", "image", *TINY, "a.png", "--labels", "a,b", "--nms", "0.5"), "these inputs have none")
    for value in ("-0.1", "1.5", "x"):
        assert imagebind("retrieve", "whole.h5", "--vector", "q.npy", "--nms", value).code == 2
    planted("r.h5", [[0, 0, 9, 9], [1, 0, 9, 9]], [0.9, 0.8])
    both = imagebind("retrieve", "whole.h5", "r.h5", "--vector", "q.npy", "--nms", "0.1").rows
    assert [row.get("box") for row in both].count(None) == 2  # rows of whole pictures all stay
    assert len(both) == 3
    refused(imagebind("retrieve", "whole.h5", "r.h5", "--pairs", "ids", "--nms", "0.5"), "--nms is for a search")


def test_a_query_of_tiled_pictures_is_a_whole_one_unless_tiles_are_asked_for(imagebind: Run, folder: Path) -> None:
    imagebind("embed", "image", *TINY, "a.png", "--tiles", "1", "-o", "t.h5")
    imagebind("embed", "image", *TINY, "b.png", "-o", "q.h5")
    vector = open_store("q.h5").vectors()[0]
    wanted = open_store("t.h5").vectors() @ vector
    run = imagebind("retrieve", "t.h5", "--image", "b.png", "--device", "cpu")
    np.testing.assert_allclose(sorted(row["score"] for row in run.rows), sorted(wanted), atol=1e-6)
    tiled = imagebind("embed", "image", *TINY, "b.png", "--tiles", "1").vectors.mean(axis=0)
    run = imagebind("retrieve", "t.h5", "--image", "b.png", "--tiles", "1", "--device", "cpu")
    wanted = open_store("t.h5").vectors() @ (tiled / np.linalg.norm(tiled))
    np.testing.assert_allclose(sorted(row["score"] for row in run.rows), sorted(wanted), atol=1e-6)


# Classes


def test_classes_of_regions_have_their_boxes_from_a_store_or_from_files(imagebind: Run, regions: str) -> None:
    asked = ("--labels", "cat,dog", "-k", "1")
    stored = imagebind("zeroshot", "image", regions, *asked, "--device", "cpu")
    assert [(row["id"], row["box"]) for row in stored.rows] == [
        ("a.png", [0, 0, 30, 30]), ("a.png", [2, 0, 30, 30]), ("a.png", [40, 20, 40, 40]), ("b.png", [0, 0, 30, 30]),
    ]  # fmt: skip
    read = imagebind("zeroshot", "image", *TINY, "--boxes", "boxes.jsonl", *asked)
    assert [(row["id"], row["box"], row["top"][0]["class"]) for row in read.rows] == [
        (row["id"], row["box"], row["top"][0]["class"]) for row in stored.rows
    ]
    tiled = imagebind("zeroshot", "image", *TINY, "a.png", "--tiles", "1", *asked)
    assert [row["box"] for row in tiled.rows] == [[0, 0, 60, 60], [20, 0, 60, 60]]
    refused(imagebind("zeroshot", "image", regions, "--boxes", "boxes.jsonl", *asked), "r.h5: a store has the vectors of regions")
    refused(imagebind("zeroshot", "image", regions, "--tiles", "1", *asked), "r.h5: a store has the vectors of regions")


def test_a_region_s_own_label_may_be_the_truth(imagebind: Run, regions: str) -> None:
    for inputs in ([regions], [*TINY, "--boxes", "boxes.jsonl"]):
        run = imagebind("zeroshot", "image", *inputs, "--labels", "cat,dog", "--truth", "label", "--report", "report.json")
        assert run.code == 0, run.err
        assert [row["truth"] for row in run.rows] == [["cat"], ["cat"], ["dog"], ["dog"]]
        assert json.loads(Path("report.json").read_text())["items"]["scored"] == 4
    refused(
        imagebind("zeroshot", "image", regions, "--labels", "cat,dog", "--truth", "label", "--nms", "0.5"),
        "nms leaves rows out, and scores are of every row",
    )


def test_regions_of_one_class_that_overlap_are_left_out_the_most_certain_stays(imagebind: Run, folder: Path) -> None:
    query, other = unit_rows(2)
    other = other - (other @ query) * query
    other /= np.linalg.norm(other)
    store(Path("classes.h5"), "image", ["one", "two"], np.array([query, other], np.float32))
    angles = np.array([0.3, 0.1, 1.4, 0.2])  # from class one: a row near 1.57 is of class two
    vectors = np.outer(np.cos(angles), query) + np.outer(np.sin(angles), other)
    boxes = [[0, 0, 10, 10], [1, 0, 10, 10], [1, 0, 10, 10], [50, 0, 10, 10]]
    store(Path("r.h5"), "image", ["a.png"] * 4, vectors.astype(np.float32), metas=[{"box": box} for box in boxes], boxes=True)
    run = imagebind("zeroshot", "image", "r.h5", "--classes", "classes.h5", "--nms", "0.5", "-k", "1")
    assert run.code == 0, run.err
    assert [(row["box"][0], row["top"][0]["class"]) for row in run.rows] == [(1, "one"), (1, "two"), (50, "one")]
    assert len(imagebind("zeroshot", "image", "r.h5", "--classes", "classes.h5").rows) == 4


# Pages


def marks(page: str) -> list[list[float]]:
    """Left, top, width and height of every box that is drawn, in percent of its picture."""
    return [
        list(map(float, found))
        for found in re.findall(r"left:([\d.]+)%;top:([\d.]+)%;width:([\d.]+)%;height:([\d.]+)%", Path(page).read_text())
    ]


def test_the_page_of_a_search_draws_the_box_of_each_answer(imagebind: Run, regions: str) -> None:
    run = imagebind("retrieve", regions, "--like", "a.png#40,20,40,40", "--html", "p.html")
    assert run.code == 0, run.err
    wanted = [
        [100 * box[0] / 80, 100 * box[1] / 60, 100 * box[2] / 80, 100 * box[3] / 60]
        for box in [[40, 20, 40, 40], *(row["box"] for row in run.rows)]
    ]
    np.testing.assert_allclose(marks("p.html"), wanted, atol=0.01)


def test_a_turned_picture_has_its_box_in_the_page_s_pixels(imagebind: Run, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(generate.pixels())).save("a.png", exif=exif)
    imagebind("embed", "image", *TINY, "--boxes", "boxes.jsonl", "-o", "r.h5")
    imagebind("retrieve", "r.h5", "--like", "b.png", "--html", "p.html", "-k", 9)
    assert [50, 33.33, 50, 66.67] in marks("p.html")


@pytest.mark.parametrize("kind", ["image", "depth", "thermal"])
def test_the_page_of_a_classification_shows_pictures_with_their_regions(imagebind: Run, folder: Path, kind: str) -> None:
    path = generate.sample(kind, folder)
    table({kind: path, "box": [8, 6, 40, 30]}, {kind: path, "box": [0, 0, 80, 60]}, path="mine.jsonl")
    run = imagebind("zeroshot", kind, *TINY, "--boxes", "mine.jsonl", "--labels", "<b>cat</b>,dog", "--html", "z.html")
    assert run.code == 0, run.err
    assert marks("z.html") == [[10, 10, 50, 50], [0, 0, 100, 100]]
    page = Path("z.html").read_text()
    assert page.count("<img") == 1
    assert "8, 6, 40, 30" in page
    assert "<b>cat" not in page
    assert "<script" not in page


def test_the_page_of_a_report_shows_regions_too(imagebind: Run, regions: str) -> None:
    run = imagebind("zeroshot", "image", regions, "--labels", "cat,dog", "--truth", "label", "--html", "z.html")
    assert run.code == 0, run.err
    page = Path("z.html").read_text()
    assert len(marks("z.html")) == 4
    assert page.index("Scores") < page.index("<h2>Regions") < page.index("What it was made from")
    refused(imagebind("zeroshot", "image", *TINY, "a.png", "--labels", "cat,dog", "--html", "w.html"), "give --truth")
    Path("a.png").unlink()
    assert imagebind("zeroshot", "image", regions, "--labels", "cat,dog", "--html", "z.html").code == 0
    assert "cannot be shown: no such file or directory" in Path("z.html").read_text()


def test_a_page_has_the_first_hundred_pictures_and_says_so(imagebind: Run, folder: Path) -> None:
    ids = [f"{number}.png" for number in range(130)]
    store(Path("r.h5"), "image", ids, metas=[{"box": [0, 0, 9, 9]}] * 130, boxes=True)
    store(Path("classes.h5"), "image", ["one", "two"], seed=1)
    run = imagebind("zeroshot", "image", "r.h5", "--classes", "classes.h5", "--html", "z.html")
    assert len(run.rows) == 130
    page = Path("z.html").read_text()
    assert "The first 100 of 130 pictures." in page
    assert page.count("<li>") == 100
