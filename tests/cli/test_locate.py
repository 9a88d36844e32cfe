"""`imagebind locate` from the command line: its lines, drawings and page, every way to ask, and clear words for what is bad."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from PIL import Image

from tests import generate
from tests.conftest import Finished, Run, Start

Locate = Callable[..., Finished]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with two pictures."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.png", "b.png")):
        generate.picture(Path(name), number)
    return tmp_path


@pytest.fixture
def locate(imagebind: Run, folder: Path) -> Locate:
    """`imagebind locate MODALITY …` with the tiny model."""

    def run(modality: str, *arguments: object, **options: Any) -> Finished:
        return imagebind("locate", modality, "--model", "tiny", "--device", "cpu", *arguments, **options)

    return run


def refused(run: Finished, *words: str) -> None:
    assert (run.code, run.out) == (2, b"")
    assert "Traceback" not in run.err
    for word in words:
        assert word in " ".join(run.err.split())


def test_a_line_for_each_input_and_query(locate: Locate) -> None:
    Path("queries.txt").write_text('a dog\n{"id": "two", "text": "a cat", "image": "b.png", "weights": [1, -0.5]}\n')
    run = locate("image", "a.png", "b.png", "--queries", "queries.txt")
    assert run.code == 0, run.err
    assert [(row["id"], row["query"]) for row in run.rows] == [("a.png", "a dog"), ("a.png", "two"), ("b.png", "a dog"), ("b.png", "two")]
    assert {frozenset(row) for row in run.rows} == {frozenset({"id", "query", "peak", "score", "whole", "floor"})}
    for row in run.rows:
        assert 0 <= row["peak"][0] <= 80
        assert 0 <= row["peak"][1] <= 60
        assert set(row["floor"]) == {"score", "whole"}


def test_weights_are_in_the_order_of_the_queries_wherever_they_stand(locate: Locate) -> None:
    asked = ("--text", "a dog", "--image", "b.png", "--weights", "1", "-0.5")
    run = locate("image", "a.png", *asked, "--box")
    assert [row["query"] for row in run.rows] == ["1 a dog - 0.5 b.png"]
    assert len(run.rows[0]["box"]) == 4
    assert locate("image", *asked, "--box", "a.png").rows == run.rows


def test_fine_is_both(locate: Locate) -> None:
    fine, both = (locate("image", "a.png", "--text", "a dog", *flag) for flag in (["--fine"], ["--method", "both"]))
    assert fine.rows == both.rows
    assert fine.rows != locate("image", "a.png", "--text", "a dog").rows


def test_a_manifest_brings_its_own_queries_and_a_column_may_have_another_name(locate: Locate) -> None:
    Path("rows.csv").write_text("id,file_name,text\none,a.png,a dog\ntwo,b.png,a cat\nthree,c.png,a cat\nfour,a.png,\n")
    run = locate("image", "--manifest", "rows.csv", "--column", "image=file_name", "--errors", "failed.jsonl")
    assert run.code == 1
    assert [(row["id"], row["query"]) for row in run.rows] == [("one", "a dog"), ("two", "a cat")]
    failed = [json.loads(line)["id"] for line in Path("failed.jsonl").read_text().splitlines()]
    assert sorted(failed) == ["four", "three"]
    asked = locate("image", "--manifest", "rows.csv", "--column", "image=file_name", "--text", "a bird")
    assert [row["query"] for row in asked.rows] == ["a bird"] * 3


def test_names_and_rows_come_by_stdin(locate: Locate) -> None:
    run = locate("image", "-", "--text", "a dog", stdin=b"a.png\nb.png\n")
    assert run.ids == ["a.png", "b.png"]
    rows = locate("image", "-", stdin=b'{"image": "a.png", "text": "a dog"}\n')
    assert [(row["id"], row["query"]) for row in rows.rows] == [("a.png", "a dog")]


def test_bad_inputs_and_queries_are_one_line_each(locate: Locate) -> None:
    Path("bad.png").write_bytes(b"no picture")
    run = locate("image", "bad.png", "gone.png", "a.png", "--text", "a dog")
    assert (run.code, run.ids) == (1, ["a.png"])
    assert sorted(line.split(":")[1].strip() for line in run.notices) == ["bad.png", "gone.png"]
    nothing = locate("image", "a.png", "--audio", "gone.wav")
    assert (nothing.code, nothing.out) == (1, b"")
    (line,) = nothing.notices
    assert "gone.wav" in line


def test_a_query_may_be_an_item_of_a_store_or_a_vector(locate: Locate, imagebind: Run) -> None:
    """Both give the answer of the file that they are of; a vector has no empty query."""
    made = imagebind("embed", "image", "a.png", "b.png", "-o", "s.h5", "--model", "tiny", "--device", "cpu")
    assert made.code == 0, made.err
    wanted = locate("image", "a.png", "--image", "b.png").rows[0]
    stored = locate("image", "a.png", "--like", "b.png", "--store", "s.h5").rows[0]
    assert stored["query"] == "b.png"
    assert {key: stored[key] for key in ("peak", "floor")} == {key: wanted[key] for key in ("peak", "floor")}
    assert stored["score"] == pytest.approx(wanted["score"], abs=1e-5)
    with h5py.File("s.h5") as file:
        np.save("v.npy", file["embeddings"][1])
    run = locate("image", "a.png", "--vector", "v.npy")
    assert (run.rows[0]["query"], run.rows[0]["peak"]) == ("v.npy", stored["peak"])
    assert run.rows[0]["whole"] == pytest.approx(stored["whole"], abs=1e-6)
    assert run.rows[0]["floor"] is None
    assert "model 'tiny' is assumed" in run.err
    mixed = locate("image", "a.png", "--like", "b.png", "--text", "a dog", "--store", "s.h5", "--weights", "1", "-0.5")
    assert (mixed.rows[0]["query"], mixed.code) == ("1 b.png - 0.5 a dog", 0)
    missing = locate("image", "a.png", "--like", "c.png", "--store", "s.h5")
    assert (missing.code, missing.out) == (1, b"")
    assert "no item 'c.png' in s.h5" in missing.err
    refused(locate("image", "a.png", "--like", "b.png"), "--like ID is an item of a --store STORE")
    refused(locate("image", "a.png", "--text", "a", "--store", "s.h5"), "--like ID is an item of a --store STORE")


def test_wrong_usage_is_refused(locate: Locate) -> None:
    refused(locate("image", "a.png"), "give a query")
    refused(locate("image", "a.png", "--text", "a", "--fine", "--method", "crops"), "--fine means --method both")
    refused(locate("image", "a.png", "--text", "a", "--queries", "b"), "or --queries FILE")
    refused(locate("image", "a.png", "--queries", "b", "--weights", "1"), "--weights are for queries")
    refused(locate("image", "a.png", "--text", "a", "--weights", "1,2"), "2 --weights for 1 queries")
    refused(locate("image", "a.png", "--text", "a", "--size", "30"), "a multiple of")
    refused(locate("image", "a.png", "--text", "a", "--clips", "3"), "image has no option 'clips', which is for videos")
    refused(locate("text", "a.png", "--text", "a"), "text cannot be located")
    refused(locate("audio", "a.wav", "--text", "a", "--fine"), "located by shares")
    refused(locate("smell", "a.png", "--text", "a"), "unknown modality 'smell'")


def test_help_lists_what_has_places(imagebind: Run) -> None:
    lines = imagebind("locate", "--help").out.decode().splitlines()
    listed = lines[lines.index("Modalities:") + 1 :][:5]
    assert {line.split()[0] for line in listed} == {"image", "video", "depth", "thermal", "audio"}
    assert "--clips" not in imagebind("locate", "image", "--help").out.decode()
    assert "--clips" in imagebind("locate", "audio", "--help").out.decode()


def test_drawings_have_safe_names_and_the_size_of_the_picture(locate: Locate) -> None:
    for name in ("..", "x"):
        Path(name).mkdir(exist_ok=True)
    generate.picture(Path("x/a.png"), 3)
    odd = Path("x/ümläut <b>&;$(x).png")
    generate.picture(odd, 4)
    run = locate("image", "a.png", "x/a.png", odd, "--text", "a/../dog <b>", "--heat", "heat", "--box")
    assert run.code == 0, run.err
    paths = [Path(row["heat"]) for row in run.rows]
    assert len(set(paths)) == 3
    assert {path.parent for path in paths} == {Path("heat")}
    assert sorted(os.listdir("heat")) == sorted(path.name for path in paths)  # nothing half written is left
    assert all(re.fullmatch(r"[A-Za-z0-9-]+\.png", path.name) for path in paths)
    with Image.open(paths[0]) as drawn, Image.open("a.png") as plain:
        assert drawn.size == (80, 60)
        assert np.abs(np.asarray(drawn, int) - np.asarray(plain, int)).max() > 50
    again = locate("image", "a.png", "--text", "a/../dog <b>", "--heat", "heat", "--box")
    assert again.rows[0] == run.rows[0]


def test_a_folder_for_drawings_that_cannot_be_is_refused(locate: Locate) -> None:
    run = locate("image", "a.png", "--text", "a", "--heat", "a.png")
    assert run.code == 1
    assert "a folder for the heat maps is needed" in run.err
    assert locate("image", "a.png", "--text", "a", "--heat", "none/there").code == 1


@pytest.mark.parametrize("kind", ["audio", "depth", "thermal"])
def test_sounds_and_maps_are_drawn_too(locate: Locate, kind: str) -> None:
    run = locate(kind, generate.sample(kind, Path()), "--text", "a dog", "--heat", "heat", "--html", "page.html", "--box")
    assert run.code == 0, run.err
    with Image.open(run.rows[0]["heat"]) as drawn:
        assert min(drawn.size) >= 60
    assert len(run.rows[0]["box"]) == 4


def test_a_video_has_windows_and_a_clip(locate: Locate) -> None:
    generate.video(Path("film.mp4"), seconds=5)
    run = locate("video", "film.mp4", "--text", "a dog", "--heat", "heat", "--html", "page.html", "-k", 2)
    assert run.code == 0, run.err
    (row,) = run.rows
    assert [window["score"] for window in row["windows"]] == sorted((window["score"] for window in row["windows"]), reverse=True)
    assert len(row["windows"]) == 2
    assert {key: row[key] for key in ("start", "end", "peak")} == {key: row["windows"][0][key] for key in ("start", "end", "peak")}
    with av.open(row["heat"]) as clip:
        assert 4.5 <= float(clip.duration / av.time_base) <= 5.5
        assert sum(1 for _ in clip.decode(video=0)) == 40


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_escapes_names_and_needs_nothing_else(locate: Locate) -> None:
    generate.picture(Path("<script>x.png"), 2)
    generate.audio(Path("q.wav"))
    Path("queries.jsonl").write_text('{"text": "<img src=x>"}\n{"audio": "q.wav"}\n')
    run = locate("image", "<script>x.png", "a.png", "--queries", "queries.jsonl", "--html", "page.html")
    assert run.code == 0, run.err
    page = Tags()
    page.feed(Path("page.html").read_text())
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert names.count("section") == 2  # one for each input
    assert "<script>x.png" in page.text
    assert "<img src=x>" in page.text
    assert all((about.get("src") or "data:").startswith("data:") for _, about in page.tags)
    assert names.count("audio") == 2  # the query can be heard
    assert names.count("img") == 6  # four heat maps, and the query twice


def test_a_reader_that_goes_away_ends_it(start: Start, folder: Path) -> None:
    process = start("locate", "image", "--model", "tiny", "--device", "cpu", "-", "--text", "a dog")
    assert process.stdin
    assert process.stdout
    process.stdout.close()
    process.stdin.write(b"a.png\n" * 50)
    process.stdin.flush()
    assert process.wait(60) == 141


def test_an_answer_is_printed_before_the_next_input_comes(start: Start, folder: Path) -> None:
    process = start("locate", "image", "--model", "tiny", "--device", "cpu", "-", "--text", "a dog")
    assert process.stdin is not None
    assert process.stdout is not None
    for name in ("a.png", "b.png"):
        process.stdin.write(f"{name}\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == name
    assert process.communicate()[0] == b""
    assert process.returncode == 0


def test_ctrl_c_ends_it_in_a_line(start: Start, folder: Path) -> None:
    process = start("locate", "image", "--model", "tiny", "--device", "cpu", "-", "--text", "a dog", "--html", "page.html")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"a.png\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == "a.png"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr
    said = process.stderr.read().decode()
    assert "stopped; the same command begins again" in said
    assert "Traceback" not in said
    assert sorted(os.listdir()) == ["a.png", "b.png"]  # no half of a page
