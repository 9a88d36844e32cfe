"""`imagebind retrieve` on true stores: the answers of a sort by hand, every way to ask, clear words for what is bad, and no torch without need."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.retrieval import Finder
from imagebind_cli.retrieval.requests import QueryRequest
from imagebind_cli.similarity import combine, unit
from imagebind_cli.store import FORMATS
from tests import generate
from tests.conftest import Finished, Run, Start
from tests.stores import DIM, store, unit_rows

PYTHON = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def retrieve(imagebind: Run, folder: Path) -> Run:
    """`imagebind retrieve …`."""

    def run(*arguments: object, **options: Any) -> Finished:
        return imagebind("retrieve", *arguments, **options)

    return run


def names(count: int, kind: str = "item") -> list[str]:
    return [f"{kind}{number:03d}" for number in range(count)]


def nearest(ids: list[str], vectors: np.ndarray, query: np.ndarray, k: int = 10) -> list[tuple[str, float]]:
    """By a sort of all cosines in float64."""
    query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    scores = (vectors.astype(np.float64) * query).sum(axis=1)
    order = sorted(range(len(ids)), key=lambda row: (-scores[row], ids[row]))[:k]
    return [(ids[row], round(float(scores[row]), 9)) for row in order]


def told(run: Finished, query: str | None = None) -> list[tuple[str, float]]:
    assert run.code == 0, run.err
    return [(row["id"], row["score"]) for row in run.rows if query in (None, row["query"])]


def same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> bool:
    """The same ids in the same order, and the same scores to the last digits of float32."""
    ids, scores = ([entry[place] for entry in wanted] for place in (0, 1))
    return [id for id, _ in found] == ids and [score for _, score in found] == pytest.approx(scores, abs=2e-7)


def told_once(run: Finished, *words: str, code: int = 1) -> None:
    """One clear line, nothing on stdout."""
    assert (run.code, run.out) == (code, b""), run.err
    assert code == 2 or len([line for line in run.notices if "assumed: " not in line]) == 1
    for word in words:
        assert word in " ".join(run.err.replace("│", " ").split())
    assert "Traceback" not in run.err


# Searching


@pytest.mark.parametrize("ending", FORMATS)
def test_every_store_format_gives_the_answers_of_a_full_sort(retrieve: Run, folder: Path, ending: str) -> None:
    ids, vectors, query = names(300), unit_rows(300), unit_rows(1, seed=1)
    np.save("query.npy", query[0])
    run = retrieve(store(Path(f"a{ending}"), "image", ids, vectors), "--vector", "query.npy", "-k", 7)
    assert told(run) == nearest(ids, vectors, query[0], 7)
    assert run.rows[0].keys() == {"query", "rank", "id", "score", "modality", "store"}
    assert [row["rank"] for row in run.rows] == list(range(1, 8))
    assert {(row["query"], row["modality"], row["store"]) for row in run.rows} == {("query.npy", "image", f"a{ending}")}
    (notice,) = run.notices
    assert "assumed: query.npy does not say which model its vectors are from" in notice
    assert "model 'made'" in notice


def test_half_floats_are_searched_as_what_they_are(retrieve: Run, folder: Path) -> None:
    ids, vectors = names(50), unit_rows(50)
    run = retrieve(store(Path("a.npy"), "image", ids, vectors, array="float16"), "--like", "item007", "-k", 3)
    halves = vectors.astype(np.float16)
    assert told(run) == nearest(ids, halves, halves[7], 4)[1:]


def test_several_stores_are_one_and_equal_scores_go_by_id(retrieve: Run, folder: Path) -> None:
    one = unit_rows(1)
    first = store(Path("first.npy"), "image", ["d", "b", "far"], np.concatenate([one, one, -one]))
    second = store(Path("second.npy"), "audio", ["c", "a", "e"], np.repeat(one, 3, axis=0))
    np.save("q.npy", one)
    run = retrieve(first, second, "--vector", "q.npy", "-k", 4)
    assert [(row["id"], row["modality"], row["store"]) for row in run.rows] == [
        ("a", "audio", "second.npy"),
        ("b", "image", "first.npy"),
        ("c", "audio", "second.npy"),
        ("d", "image", "first.npy"),
    ]
    assert [row["id"] for row in retrieve(second, first, "--vector", "q.npy", "-k", 4).rows] == ["a", "b", "c", "d"]


def test_so_many_of_each_modality(retrieve: Run, folder: Path) -> None:
    near, far = unit_rows(8) * 0 + np.eye(1, DIM, dtype=np.float32), -np.eye(1, DIM, dtype=np.float32).repeat(3, axis=0)
    stores = [store(Path("near.npy"), "text", names(8, "text"), near), store(Path("far.npy"), "audio", names(3, "audio"), far)]
    np.save("q.npy", near[0])
    together = retrieve(*stores, "--vector", "q.npy", "-k", 2)
    assert {row["modality"] for row in together.rows} == {"text"}
    apart = retrieve(*stores, "--vector", "q.npy", "-k", 2, "--per-modality")
    assert [(row["modality"], row["rank"]) for row in apart.rows] == [("text", 1), ("text", 2), ("audio", 1), ("audio", 2)]


def test_only_stores_of_a_modality(retrieve: Run, folder: Path) -> None:
    stores = [store(Path(f"{kind}.npy"), kind, [kind]) for kind in ("image", "video", "audio")]
    np.save("q.npy", unit_rows(1))

    def modalities(*chosen: str) -> list[str]:
        run = retrieve(*stores, "--vector", "q.npy", *(part for name in chosen for part in ("--modality", name)))
        return sorted(row["id"] for row in run.rows)

    assert modalities("image") == ["image"]
    assert modalities("vision") == ["image", "video"]
    assert modalities("audio", "video") == ["audio", "video"]
    told_once(retrieve(*stores, "--vector", "q.npy", "--modality", "text"), "no store of text", "they hold image, video, audio")


def test_a_threshold_leaves_out_what_is_lower(retrieve: Run, folder: Path) -> None:
    place = store(Path("a.npy"), "image", ["east", "northeast", "north"], np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32))
    np.save("q.npy", np.array([1.0, 0]))
    assert told(retrieve(place, "--vector", "q.npy", "--threshold", 0.5)) == [("east", 1), ("northeast", pytest.approx(0.8))]
    assert retrieve(place, "--vector", "q.npy", "--threshold", 1.5).out == b""


def test_windows_come_with_their_times_and_meta_with_its_item(retrieve: Run, folder: Path) -> None:
    spans, metas = [(0.0, 2.0), (2.0, 4.0)], [{"caption": "a dog"}, {"caption": "a dog"}]
    place = store(Path("a.npy"), "audio", ["a.wav", "a.wav"], spans=spans, metas=metas)
    other = store(Path("b.npy"), "audio", ["b.wav"], spans=[(0.0, 2.0)])
    rows = retrieve(other, place, "--like", "b.wav").rows
    assert sorted((row["id"], row["start"], row["end"]) for row in rows) == [("a.wav", 0, 2), ("a.wav", 2, 4)]
    assert all(row["meta"] == {"caption": "a dog"} for row in rows)
    assert told(retrieve(place, other, "--like", "a.wav"))[0][0] == "b.wav"  # none of its own windows


def test_neighbouring_windows_are_joined_to_stretches(retrieve: Run, folder: Path) -> None:
    spans = [(0.0, 2.0), (2.0, 4.0), (3.5, 5.5), (8.0, 10.0), (0.0, 2.0)]
    near = [0.7, 0.9, 0.8, 0.6, 0.75]
    vectors = np.array([[cosine, (1 - cosine**2) ** 0.5] for cosine in near], np.float32)
    place = store(Path("a.h5"), "audio", ["a.wav"] * 4 + ["b.wav"], vectors, spans=spans)
    np.save("q.npy", np.array([1.0, 0.0]))
    rows = retrieve(place, "--vector", "q.npy", "--stretches").rows
    assert [(row["rank"], row["id"], row["start"], row["end"], row["windows"], round(row["score"], 3)) for row in rows] == [
        (1, "a.wav", 0, 5.5, 3, 0.9),
        (2, "b.wav", 0, 2, 1, 0.75),
        (3, "a.wav", 8, 10, 1, 0.6),
    ]
    best = retrieve(place, "--vector", "q.npy", "--stretches", "-k", 2).rows
    assert [(row["start"], row["end"], row["windows"]) for row in best] == [(2, 5.5, 2)]
    apart = retrieve(place, "--vector", "q.npy", "--stretches", "--threshold", 0.78).rows
    assert [(row["start"], row["end"]) for row in apart] == [(2, 5.5)]
    run = retrieve(place, "--vector", "q.npy", "--stretches", "--plain", "--html", "a.html")
    assert b"a.wav  0.00 to 5.50 s\n" in run.out
    assert "best of 3 windows" in Path("a.html").read_text()


def test_stretches_of_whole_items_and_of_each_modality(retrieve: Run, folder: Path) -> None:
    pictures = store(Path("a.h5"), "image", ["a.png", "b.png"], np.array([[1, 0], [0.8, 0.6]], np.float32))
    sounds = store(Path("b.h5"), "audio", ["a.wav"] * 2, np.array([[0.6, 0.8], [0.0, 1.0]], np.float32), spans=[(0.0, 2.0), (2.0, 4.0)])
    np.save("q.npy", np.array([1.0, 0.0]))
    rows = retrieve(pictures, sounds, "--vector", "q.npy", "--stretches", "--per-modality").rows
    assert [(row["rank"], row["id"], row.get("windows")) for row in rows] == [(1, "a.png", None), (2, "b.png", None), (1, "a.wav", 2)]


def test_more_is_asked_for_than_there_is(retrieve: Run, folder: Path) -> None:
    full, empty = store(Path("full.npy"), "image", names(3)), store(Path("empty.npy"), "image", [], np.empty((0, DIM), np.float32))
    np.save("q.npy", unit_rows(1, seed=1))
    assert len(retrieve(full, "--vector", "q.npy", "-k", 1000).rows) == 3
    run = retrieve(full, empty, "--vector", "q.npy")
    assert len(run.rows) == 3
    assert any("empty.npy: holds nothing yet" in line for line in run.notices)
    run = retrieve(empty, "--vector", "q.npy")
    assert (run.code, run.out) == (0, b"")


def test_a_table_for_people(retrieve: Run, folder: Path) -> None:
    place = store(Path("a.npy"), "audio", ["odd\nname", "other"], np.array([[1, 0], [0, 1]], np.float32), spans=[(0.0, 2.0), (2.0, 4.0)])
    np.save("q.npy", np.array([0.6, 0.8]))
    lines = retrieve(place, "--vector", "q.npy", "--plain").out.decode().splitlines()
    assert lines == ["q.npy", "    1   0.8000  audio    other  2.00 to 4.00 s", "    2   0.6000  audio    odd\\nname  0.00 to 2.00 s"]


# Asking


def test_queries_are_combined_in_the_order_they_are_given(retrieve: Run, folder: Path) -> None:
    ids, vectors = names(40), unit_rows(40)
    place = store(Path("a.npy"), "image", ids, vectors)
    other = unit_rows(1, seed=5)
    np.save("q.npy", 7 * other[0])
    query = combine(np.stack([vectors[3], other[0], vectors[9]]), [0.5, 2, -1])
    wanted = [entry for entry in nearest(ids, vectors, query, 12) if entry[0] not in ("item003", "item009")][:10]
    spaced = retrieve(place, "--like", "item003", "--vector", "q.npy", "--like", "item009", "--weights", "0.5", "2", "-1")
    assert same(told(spaced), wanted)
    assert spaced.rows[0]["query"] == "0.5 item003 + 2 q.npy - 1 item009"
    for form in (["--weights", "0.5,2,-1"], ["--weights=0.5,2,-1"], ["--weights", "0.5 2 -1"]):
        assert retrieve(place, "--like", "item003", "--vector", "q.npy", "--like", "item009", *form).out == spaced.out
    assert retrieve("--weights", "-1", "0.5", "2", "--like", "item009", place, "--like", "item003", "--vector", "q.npy").rows == [
        {**row, "query": "- 1 item009 + 0.5 item003 + 2 q.npy"} for row in spaced.rows
    ]
    equal = retrieve(place, "--like", "item003", "--like", "item009")
    assert same(told(equal)[:1], nearest(ids, vectors, combine(vectors[[3, 9]]), 3)[2:])
    assert equal.rows[0]["query"] == "item003 + item009"


def test_a_store_asks_with_all_its_rows(retrieve: Run, folder: Path) -> None:
    ids, vectors = names(600), unit_rows(600)
    place = store(Path("a.npy"), "image", ids, vectors)
    asking = store(Path("b.npy"), "audio", names(300, "sound"), unit_rows(300, seed=1))
    run = retrieve(place, "--queries", asking, "-k", 2)
    assert [row["query"] for row in run.rows] == [name for name in names(300, "sound") for _ in range(2)]
    assert same(told(run, "sound123"), nearest(ids, vectors, unit_rows(300, seed=1)[123], 2))
    itself = retrieve(place, "--queries", place, "-k", 2)
    assert same(told(itself, "item042"), nearest(ids, vectors, vectors[42], 3)[1:])


def test_an_array_and_embeds_own_lines_ask(retrieve: Run, folder: Path) -> None:
    place = store(Path("a.npy"), "image", names(50))
    asking = unit_rows(3, seed=1)
    np.save("many.npy", asking)
    Path("lines.jsonl").write_text("".join(json.dumps({"id": str(i), "embedding": row.tolist()}) + "\n" for i, row in enumerate(asking)))
    run = retrieve(place, "--queries", "many.npy", "-k", 1)
    assert [row["query"] for row in run.rows] == ["0", "1", "2"]
    assert retrieve(place, "--queries", "lines.jsonl", "-k", 1).out == run.out
    Path("one.jsonl").write_text(json.dumps({"embedding": asking[1].tolist()}))
    assert told(retrieve(place, "--vector", "one.jsonl", "-k", 1)) == told(run, "1")
    told_once(retrieve(place, "--vector", "many.npy"), "several vectors", "--queries many.npy")
    told_once(retrieve(place, "--vector", "lines.jsonl"), "several vectors")


@pytest.fixture
def pictures(embed: Run, folder: Path) -> Path:
    """A store of three pictures, and one of what was said of them."""
    for seed in range(3):
        generate.picture(folder / f"{seed}.png", seed)
    assert embed("image", "0.png", "1.png", "2.png", "-o", "pictures.npy").code == 0
    return Path("pictures.npy")


def test_sentences_and_files_go_through_the_stores_model(retrieve: Run, pictures: Path, tiny: Any) -> None:
    vectors = tiny.embed("image", ["0.png", "1.png", "2.png"])
    sentence, sound = tiny.embed("text", ["a dog"])[0], tiny.embed("audio", [generate.sample("audio", Path())])[0]
    ids = ["0.png", "1.png", "2.png"]
    run = retrieve(pictures, "--text", "a dog")
    assert [row["id"] for row in run.rows] == [id for id, _ in nearest(ids, vectors, sentence)]
    assert [row["score"] for row in run.rows] == pytest.approx([score for _, score in nearest(ids, vectors, sentence)], abs=1e-6)
    assert any("untrained" in line for line in run.err.splitlines())
    run = retrieve(pictures, "--text", "a dog", "--audio", "audio0.wav", "--image", "1.png", "--weights", 1, -0.5, 2)
    wanted = nearest(ids, vectors, combine(np.stack([sentence, sound, vectors[1]]), [1, -0.5, 2]))
    assert [row["score"] for row in run.rows] == pytest.approx([score for _, score in wanted], abs=1e-6)


def test_lines_ask_in_any_modality(retrieve: Run, pictures: Path, folder: Path) -> None:
    (folder / "sub").mkdir()
    generate.picture(folder / "sub/same.png", 2)
    lines = [
        "a dog",
        "",
        json.dumps({"id": "both", "text": "a dog", "image": "same.png", "weights": [0.1, 1]}),
        json.dumps({"image": "same.png"}),
        json.dumps({"id": "gone", "image": "gone.png"}),
        '{"torn": ',
    ]
    Path("sub/queries.jsonl").write_text("\n".join(lines))
    run = retrieve(pictures, "--queries", "sub/queries.jsonl", "-k", 1, "--errors", "errors.jsonl")
    assert run.code == 1
    assert [row["query"] for row in run.rows] == ["a dog", "both", "sub/same.png"]
    assert [row["id"] for row in run.rows[1:]] == ["2.png", "2.png"]
    assert [line for line in run.notices if "gone" in line] == ["imagebind: gone: no such file or directory"]
    assert "imagebind: sub/queries.jsonl:6: not a JSON object" in run.notices
    assert [json.loads(line)["id"] for line in Path("errors.jsonl").read_text().splitlines()] == ["gone", "sub/queries.jsonl:6"]
    apart = retrieve(pictures, "--text", "a dog", "-k", 1)
    assert same(told(apart), [(run.rows[0]["id"], run.rows[0]["score"])])


@pytest.mark.timeout(60)
def test_stdin_is_answered_before_the_next_line_is_asked(start: Start, pictures: Path) -> None:
    process = start("retrieve", pictures, "--queries", "-", "-k", 1)
    assert process.stdin
    assert process.stdout
    for number in range(3):
        process.stdin.write(b"line %d\n" % number)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["query"] == f"line {number}"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert process.stderr
    assert b"Traceback" not in process.stderr.read()


def test_a_query_is_read_as_the_items_of_its_modality_were(embed: Run, retrieve: Run, folder: Path) -> None:
    generate.depth(folder / "a.png")
    assert embed("depth", "a.png", "-o", "depth.npy", "--focal", 300, "--sensor", "xtion").code == 0
    assert told(retrieve("depth.npy", "--depth", "a.png")) == [("a.png", pytest.approx(1, abs=1e-6))]
    assert told(retrieve("depth.npy", "--depth", "a.png", "--focal", 900))[0][1] < 0.99999


# From Python


def test_the_python_page_does_what_the_command_does(
    imagebind: Run, retrieve: Run, folder: Path, tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos").mkdir()
    for number in range(3):
        generate.picture(folder / f"photos/{number}.png", number)
        generate.audio(folder / f"{number}.wav", seed=number)
    assert imagebind("embed", "image", "photos", "--model", "tiny", "-o", "photos.h5").code == 0
    assert imagebind("embed", "audio", *(f"{number}.wav" for number in range(3)), "--model", "tiny", "-o", "sounds.h5").code == 0
    Path("queries.jsonl").write_text('{"text": "a dog"}\n{"audio": "1.wav", "text": "rain", "weights": [1, 0.5]}\n')
    Path("pairs.csv").write_text("image,audio\n" + "".join(f"photos/{number}.png,{number}.wav\n" for number in range(3)))
    section = PYTHON.read_text().split("## Searching stores")[1].split("\n## ")[0]
    exec(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0], {"model": tiny})
    *hits, recall = capsys.readouterr().out.splitlines()
    stores = ("photos.h5", "sounds.h5")
    run = retrieve(*stores, "--text", "snow", "--like", "photos/0.png", "--weights", 1, -0.5, "-k", 1, "--per-modality")
    assert hits == [f"{row['modality']} {row['rank']} {row['id']}" for row in run.rows]
    assert [row["modality"] for row in run.rows] == ["image", "audio"]
    assert retrieve(*stores, "--queries", "queries.jsonl", "-k", 2, "--html", "command.html").code == 0
    assert Path("near.html").read_text() == Path("command.html").read_text()
    (scores,) = retrieve(*stores, "--pairs", "pairs.csv", "--draws", 0).rows
    assert float(recall) == scores["directions"][0]["R@1"]["value"]


def test_from_python_a_query_that_fails_raises_or_is_heard_of(folder: Path) -> None:
    place = store(Path("a.npy"), "image", names(3))
    finder = Finder([place])
    requests = [QueryRequest("short", (), vector=(1.0, 0.0)), QueryRequest("right", (("like", "item001"),))]
    with pytest.raises(UserError, match="short: a vector of 2 numbers"):
        list(finder.answer(requests))
    listener = Listener()
    ((query, hits),) = finder.answer(requests, 1, listener=listener)
    assert (query.id, len(hits), listener.done, listener.failed) == ("right", 1, 1, 1)
    with pytest.raises(UsageError, match="2 weights for 1 queries"):
        finder.find(like="item001", weights=(1, 2))


# What it does without


WITHOUT_TORCH = """
import sys
from imagebind_cli import cli
def leave(code):
    sys.stdout.flush()
    heavy = {"torch", "av"} & set(sys.modules) if "--html" in sys.argv else {"torch", "av", "PIL", "faiss"} & set(sys.modules)
    print("heavy:", *sorted(heavy), "code:", code, file=sys.stderr)
    raise SystemExit(9 if heavy else code)
cli.leave = leave
cli.run_command_line()
"""


def test_rows_of_a_table_ask_and_one_that_may_be_meant_otherwise_does_not(retrieve: Run, pictures: Path, folder: Path) -> None:
    Path("q.csv").write_text('id,text,note\n1,a dog,x\n2,a dog, running,x\n3,"a dog, running",x\n')
    run = retrieve(pictures, "--queries", "q.csv", "-k", 1)
    assert (run.code, [row["query"] for row in run.rows]) == (1, ["1", "3"])
    assert "imagebind: q.csv:3: has 4 cells for 3 columns; put a cell that holds a comma between quotation marks" in run.notices
    assert run.rows[0]["score"] == pytest.approx(retrieve(pictures, "--text", "a dog", "-k", 1).rows[0]["score"], abs=1e-6)
    Path("q.tsv").write_text('text\n"a dog\na cat\n')
    assert [row["query"] for row in retrieve(pictures, "--queries", "q.tsv", "-k", 1).rows] == ['"a dog', "a cat"]
    Path("q.txt").write_bytes("a dog\ncaf\xe9\n".encode("latin1"))
    run = retrieve(pictures, "--queries", "q.txt", "-k", 1)
    assert (run.code, [row["query"] for row in run.rows]) == (1, ["a dog"])
    assert any("q.txt:2: not UTF-8 text" in line and "iconv -f latin1 -t utf-8 q.txt" in line for line in run.notices)
    Path("q16.txt").write_bytes("a dog\n".encode("utf-16"))
    told_once(retrieve(pictures, "--queries", "q16.txt"), "q16.txt:1: not UTF-8 text but UTF-16")
    Path("semi.csv").write_text("id;text\n1;a\n2;b\n")
    told_once(retrieve(pictures, "--queries", "semi.csv"), "semi.csv: it has id;text: semicolons separate its cells")
    Path("none.txt").touch()
    assert "imagebind: none.txt: holds no queries" in retrieve(pictures, "--queries", "none.txt").notices
    run = retrieve(pictures, "--queries", "-", stdin=b"")
    assert (run.code, run.out) == (0, b"")
    assert "imagebind: stdin is empty: there are no queries" in run.notices


def test_columns_of_pairs_go_by_other_names(retrieve: Run, folder: Path) -> None:
    first, second = store(Path("a.npy"), "image", names(2)), store(Path("b.npy"), "thermal", names(2, "heat"), seed=1)
    Path("p.csv").write_text("file_name,heat\nitem000,heat000\nitem001,heat001\n")
    columns = ("--column", "image=file_name", "--column", "thermal=heat")
    assert retrieve(first, second, "--pairs", "p.csv", *columns, "--draws", 0).rows[0]["pairs"]["used"] == 2
    told_once(retrieve(first, second, "--pairs", "p.csv"), "p.csv:2: an id", "--column image=COLUMN names another")
    told_once(retrieve(first, second, "--pairs", "p.csv", "--column", "image=gone"), "no column 'gone'")
    assert "--column names columns of a --pairs FILE" in retrieve(first, second, "--pairs", "ids", *columns).err


def test_pairs_may_be_a_table(retrieve: Run, folder: Path) -> None:
    first, second = store(Path("a.npy"), "image", names(5)), store(Path("b.npy"), "audio", names(5, "sound"))
    Path("p.jsonl").write_text("".join(json.dumps({"image": f"item00{n}", "audio": f"sound00{n}"}) + "\n" for n in range(5)))
    Path("p.csv").write_text("image,audio\n" + "".join(f"item00{n},sound00{n}\n" for n in range(5)))
    lines, table = (retrieve(first, second, "--pairs", name, "--draws", 0).rows[0] for name in ("p.jsonl", "p.csv"))
    assert table["directions"] == lines["directions"]
    assert table["pairs"] == lines["pairs"] | {"by": "p.csv"}
    Path("p.csv").write_text("image,audio\nitem000,sound000,sound001\n")
    told_once(retrieve(first, second, "--pairs", "p.csv"), "p.csv:2: has 3 cells for 2 columns")


@pytest.mark.parametrize("asked", [
    ["--like", "item001"], ["--vector", "q.npy"], ["--queries", "b.npy"], ["--pairs", "ids"], ["--like", "item001", "--html", "page.html"],
])  # fmt: skip
def test_stored_vectors_need_no_torch(folder: Path, asked: list[str]) -> None:
    store(Path("a.npy"), "image", names(5))
    store(Path("b.npy"), "audio", names(5))
    np.save("q.npy", unit_rows(1))
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, "retrieve", "a.npy", "b.npy", *asked], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout


LIMITED = """
import resource, sys
import pydantic
for kind in (int, float, str, bool):  # the parser of the command line makes these, and the search does not
    pydantic.TypeAdapter(kind).validate_python(kind(1))
import numpy, imagebind_cli.cli, imagebind_cli.retrieval.search, imagebind_cli.similarity, imagebind_cli.store
words = open("/proc/self/status").read().split()
own = int(words[words.index("VmData:") + 1]) << 10
limit = own + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
imagebind_cli.cli.run_command_line()
"""


COPIES = 18  # of each vector of the large store


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 302 MB, `a.npy`, and vectors to ask it for."""
    folder = tmp_path_factory.mktemp("large")
    vectors = np.tile(unit_rows(8192, 512), (COPIES, 1))
    np.save(folder / "a.npy", vectors)
    (folder / "a.jsonl").write_text("".join(f'{{"id": "{number}"}}\n' for number in range(len(vectors))))
    store(folder / "b.npy", "image", ["x"], vectors[:1])
    (folder / "b.made.json").rename(folder / "a.made.json")
    np.save(folder / "q.npy", unit_rows(1, 512, seed=1))
    np.save(folder / "many.npy", unit_rows(300, 512, seed=1))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts what a process holds beside the files it maps on Linux only")
@pytest.mark.parametrize("asked", [["--vector", "q.npy"], ["--queries", "many.npy"]])
def test_a_store_twice_the_memory_limit_is_searched(large: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    monkeypatch.chdir(large)
    place = Path("a.npy")
    limit = place.stat().st_size // 2
    command = [sys.executable, "-c", LIMITED, str(limit), "retrieve", str(place), *asked]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    ours = [json.loads(line)["id"] for line in run.stdout.splitlines()[:10]]
    wanted = np.argsort(-(unit_rows(8192, 512).astype(np.float64) @ unit_rows(1 if "--vector" in asked else 300, 512, seed=1)[0]))[0]
    assert sorted(ours) == sorted(str(wanted + 8192 * copy) for copy in range(COPIES))[:10]  # copies of the nearest, by id
    greedy = "import numpy, sys; numpy.fromfile('a.npy', 'u1')\n"
    assert (
        subprocess.run([sys.executable, "-c", LIMITED.replace("imagebind_cli.cli.run_command_line()", greedy), str(limit)]).returncode != 0
    )


def test_a_reader_that_goes_away_ends_it_quietly(start: Start, folder: Path) -> None:
    place = store(Path("a.npy"), "image", names(2000))
    process = start("retrieve", place, "--queries", place)
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["query"] == "item000"
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""


# Bad requests


def test_what_cannot_be_asked_is_a_usage_error(retrieve: Run, folder: Path) -> None:
    place = store(Path("a.npy"), "image", names(3))
    for arguments, words in [
        ([place], ["give a query"]),
        ([], ["STORE"]),
        ([place, "--like", "item001", "--queries", "-"], ["give a query", "or --queries"]),
        ([place, "--like", "item001", "--weights", "1,2"], ["2 --weights for 1 queries"]),
        ([place, "--like", "item001", "--weights", "one"], ["numbers are needed"]),
        ([place, "--queries", "-", "--weights", "1"], ["a line of --queries has its own"]),
        ([place, "--like", "item001", "--focal", "500"], ["no query here has an option 'focal'"]),
        ([place, "--like", "item001", "-k", "0"], ["-k"]),
        ([place, "--like", "item001", "--modality", "smell"], ["smell"]),
        ([place, "--pairs", "ids"], ["--pairs takes two stores; 1 are given"]),
    ]:
        told_once(retrieve(*arguments), *words, code=2)


def test_what_cannot_be_done_is_told_in_one_line(retrieve: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEBIND_MODEL")  # that of the stores, where none is named
    place = store(Path("a.npy"), "image", ["photos/dog.png", "photos/cat.png", "cow.png"])
    other = store(Path("other.npy"), "audio", ["a.wav"], model="another")
    retrained = store(Path("retrained.npy"), "image", ["a.png"], weights="others")
    wide = store(Path("wide.npy"), "audio", ["a.wav"], unit_rows(1, 32))
    np.save("wide_query.npy", unit_rows(1, 32))
    np.save("zero.npy", np.zeros(DIM))
    np.save("zeros.npy", np.zeros((3, DIM)))
    Path("text.txt").write_text("no vectors here")
    torn = store(Path("torn.safetensors"), "image", names(100))
    os.truncate(torn, torn.stat().st_size // 2)
    Path("bad.jsonl").write_text('{"id": 3}\n')
    Path("worse.jsonl").write_text('{"text": 3}\n')
    for arguments, words in [
        ([place, other, "--like", "a.wav"], ["other.npy", "'another'", "'made'", "a.npy"]),
        ([place, retrained, "--like", "cow.png"], ["retrained.npy", "weights", "'others'"]),
        ([place, wide, "--like", "cow.png"], ["wide.npy", "dim 32", "16"]),
        ([place, "--queries", other], ["other.npy", "'another'"]),
        ([place, "--vector", other], ["other.npy", "'another'"]),
        ([place, "--vector", "wide_query.npy"], ["wide_query.npy", "(1, 32)", "16"]),
        ([place, "--queries", "wide_query.npy"], ["wide_query.npy", "(1, 32)", "16"]),
        ([place, "--queries", "zeros.npy"], ["zeros.npy: '0', or one of the 256 rows from it on", "no direction"]),
        ([place, "--vector", "text.txt"], ["text.txt", "neither a store nor an array"]),
        ([place, "--vector", "none.npy"], ["none.npy", "No such file"]),
        ([place, "--queries", "none.jsonl"], ["none.jsonl", "No such file"]),
        ([place, "--queries", "bad.jsonl"], ["bad.jsonl:1", "no image, video", "it has id"]),
        ([place, "--queries", "worse.jsonl"], ["worse.jsonl:1", "text is 3"]),
        ([place, "--like", "dog.png"], ["no item 'dog.png' in a.npy; near are 'photos/dog.png'"]),
        ([place, "--like", "cwo.png"], ["no item 'cwo.png' in a.npy; near are 'cow.png'"]),
        ([place, "--text", "a dog"], ["no model 'made'"]),
        (["none.npy", "--like", "a"], ["none.npy: no such store"]),
        (["text.txt", "--like", "a"], ["text.txt: not a store"]),
        ([torn, "--like", "item001"], ["torn.safetensors", "not a complete store"]),
    ]:
        told_once(retrieve(*arguments), *words)
    run = retrieve(place, "--vector", "zero.npy")
    assert (run.code, run.out) == (1, b"")
    assert "zero.npy: a vector that is zero or not finite" in run.err


def test_another_model_is_refused(retrieve: Run, pictures: Path) -> None:
    made = json.loads(Path("pictures.made.json").read_text())
    del made["crc32"]
    Path("pictures.made.json").write_text(json.dumps(made | {"weights": "of another training"}))
    told_once(retrieve(pictures, "--text", "a dog"), "pictures.npy: made with weights 'of another training'", "--model")
    Path("pictures.made.json").write_text(json.dumps(made | {"weights": made["weights"].removeprefix("2:")}))
    told_once(retrieve(pictures, "--text", "a dog"), "pictures.npy: made by an earlier version of imagebind", "embed the inputs again")
    Path("pictures.made.json").write_text(json.dumps(made | {"model": "other", "weights": "its own"}))
    told_once(retrieve(pictures, "--text", "a dog", "--model", "tiny"), "'other'", "'tiny'")


# Evaluation


def test_pairs_by_id_give_the_scores_of_a_case_by_hand(retrieve: Run, folder: Path) -> None:
    angles = {"a": 0, "b": 10, "c": 20, "d": 90}
    asking = np.array([[np.cos(np.radians(angle + 4)), np.sin(np.radians(angle + 4))] for angle in angles.values()], np.float32)
    targets = np.array([[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in angles.values()], np.float32)
    asking[1] = asking[2]  # b asks where c is: its own is second
    first = store(Path("sounds.npy"), "audio", list(angles), asking)
    second = store(Path("texts.npy"), "text", [*angles, "extra"], np.concatenate([targets, -targets[:1]]))
    run = retrieve(first, second, "--pairs", "ids")
    assert run.code == 0, run.err
    (scores,) = run.rows
    forth, back = scores["directions"]
    assert (forth["query"]["modality"], forth["target"]["modality"]) == ("audio", "text")
    assert (forth["query"]["rows"], forth["target"]["rows"]) == (4, 5)
    assert forth["R@1"]["value"] == 0.75
    assert forth["R@5"]["value"] == forth["R@10"]["value"] == 1
    assert forth["median rank"]["value"] == 1
    assert forth["mAP"]["value"] == pytest.approx((1 + 1 / 2 + 1 + 1) / 4)
    assert forth["nDCG@10"]["value"] == pytest.approx((3 + 1 / np.log2(3)) / 4)
    for score in ("R@1", "mAP", "median rank"):
        assert forth[score]["low"] <= forth[score]["value"] <= forth[score]["high"]
    # Back: a finds a; b is nearest to a, then to the twins b, c by id; c is nearest to b, c, of equal score; d finds d.
    assert back["mAP"]["value"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 1) / 4)
    assert (back["query"]["rows"], back["target"]["rows"]) == (4, 4)
    assert scores["pairs"] == {"by": "ids", "used": 4}
    assert [entry["path"] for entry in scores["stores"]] == ["sounds.npy", "texts.npy"]
    assert all(len(entry["sha256"]) == 64 and entry["made"]["model"] == "made" for entry in scores["stores"])


def by_sorting(queries: np.ndarray, targets: np.ndarray, relevant: list[set[int]]) -> dict[str, float]:
    """Recall, mean average precision and nDCG, written out."""
    recalls, precisions, gains, firsts = [], [], [], []
    for query, own in zip(queries.astype(np.float64), relevant, strict=True):
        order = np.argsort(-(targets.astype(np.float64) * query).sum(axis=1), kind="stable")
        places = [place for place, row in enumerate(order, start=1) if row in own]
        firsts.append(places[0])
        recalls.append(places[0] <= 5)
        precisions.append(sum(number / place for number, place in enumerate(places, start=1)) / len(own))
        ideal = sum(1 / np.log2(place + 1) for place in range(1, min(10, len(own)) + 1))
        gains.append(sum(1 / np.log2(place + 1) for place in places if place <= 10) / ideal)
    return {"R@5": np.mean(recalls), "mAP": np.mean(precisions), "nDCG@10": np.mean(gains), "median rank": np.median(firsts)}


def test_many_belong_to_many(retrieve: Run, folder: Path) -> None:
    random = np.random.default_rng(0)
    sounds, texts = unit_rows(60), unit_rows(90, seed=1)
    pairs = {(int(one), int(other)) for one, other in random.integers(0, (55, 85), (150, 2))}
    first, second = store(Path("a.h5.npy"), "audio", names(60, "s"), sounds), store(Path("b.npy"), "text", names(90, "t"), texts)
    by_sound: dict[int, list[str]] = {}
    for one, other in sorted(pairs):
        by_sound.setdefault(one, []).append(f"t{other:03d}")
    lines = [{"audio": f"s{one:03d}", "text": others if len(others) > 1 else others[0]} for one, others in by_sound.items()]
    Path("truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"audio": "gone", "text": "t001"}]))
    run = retrieve(first, second, "--pairs", "truth.jsonl", "--draws", 0)
    assert run.notices == [f"imagebind: truth.jsonl: 1 of {len(pairs) + 1} pairs name an id that is in neither store"]
    (scores,) = run.rows
    assert scores["pairs"]["used"] == len(pairs)
    assert len(scores["pairs"]["sha256"]) == 64
    sides = [(0, sounds, texts), (1, texts, sounds)]
    for told_of, (side, queries, targets) in zip(scores["directions"], sides, strict=True):
        asking = sorted({pair[side] for pair in pairs})
        wanted = by_sorting(queries[asking], targets, [{pair[1 - side] for pair in pairs if pair[side] == row} for row in asking])
        assert {name: told_of[name]["value"] for name in wanted} == pytest.approx(wanted)
        assert "low" not in told_of["mAP"]
    table = retrieve(first, second, "--pairs", "truth.jsonl", "--plain").out.decode().splitlines()
    assert table[0] == f"{len({one for one, _ in pairs})} audio queries, 90 text targets"
    line = next(line for line in table if line.split()[:2] == ["median", "rank"])
    assert line.split()[2] == f"{scores['directions'][0]['median rank']['value']:.4g}"


def test_pairs_that_say_nothing_are_refused(retrieve: Run, folder: Path) -> None:
    first, second = store(Path("a.npy"), "image", ["a1"]), store(Path("b.npy"), "image", ["b1"])
    Path("none.jsonl").write_text('{"query": "x", "target": "y"}\n')
    Path("keys.jsonl").write_text('{"image": "a1", "text": "b1"}\n')
    Path("torn.jsonl").write_text('{"query": "a1", \n')
    for pairs, words in [
        ("ids", ["no id is in both stores", "'a1'", "'b1'"]),
        ("none.jsonl", ["none.jsonl: none of its 1 pairs", "'a1'", "'b1'"]),
        ("keys.jsonl", ["keys.jsonl:1", "under 'query'", "the line has image, text"]),
        ("torn.jsonl", ["torn.jsonl:1: not a JSON object"]),
        ("gone.jsonl", ["gone.jsonl: No such file"]),
    ]:
        told_once(retrieve(first, second, "--pairs", pairs), *words)
    Path("right.jsonl").write_text('{"query": ["a1"], "target": "b1"}\n\n')
    assert retrieve(first, second, "--pairs", "right.jsonl").rows[0]["directions"][0]["R@1"]["value"] == 1


# Indexes


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_an_index_finds_what_exact_search_finds(retrieve: Run, folder: Path, kind: str) -> None:
    pytest.importorskip("faiss")
    stores = [store(Path("a.npy"), "image", names(2000)), store(Path("b.npy"), "audio", names(50, "sound"), seed=1)]
    np.save("q.npy", unit_rows(40, seed=2))
    exact = retrieve(*stores, "--queries", "q.npy", "-k", 5)
    built = retrieve(*stores, "--queries", "q.npy", "-k", 5, "--index", kind)
    assert built.out == exact.out
    assert f"imagebind: a.npy.{kind}.faiss: building it from 2,000 rows" in built.notices
    (recall,) = [line for line in built.notices if f"a.npy.{kind}.faiss: finds" in line]
    assert float(recall.split("finds ")[1].split("%")[0]) > 95
    assert "by 100 of its own rows" in recall
    again = retrieve(*stores, "--queries", "q.npy", "-k", 5, "--index", kind)
    assert again.out == exact.out
    assert not any("building" in line for line in again.notices)
    assert recall in again.notices


def test_a_small_index_finds_most_and_scores_exactly(retrieve: Run, folder: Path) -> None:
    pytest.importorskip("faiss")
    centres, random = unit_rows(100, 16), np.random.default_rng(3)
    vectors = centres[random.integers(0, 100, 10_000)] + 0.1 * random.standard_normal((10_000, 16))
    place = store(Path("a.npy"), "image", names(10_000), unit(vectors).astype(np.float32))
    np.save("q.npy", centres[:20])
    exact, found = retrieve(place, "--queries", "q.npy"), retrieve(place, "--queries", "q.npy", "--index", "ivfpq")
    truth, ours = ({(row["query"], row["id"]): row["score"] for row in run.rows} for run in (exact, found))
    assert len(truth.keys() & ours.keys()) > 0.8 * len(truth)
    assert all(ours[key] == pytest.approx(truth[key]) for key in truth.keys() & ours.keys())
    small = store(Path("small.npy"), "image", names(100))
    run = retrieve(small, "--like", "item001", "--index", "ivfpq")
    assert run.code == 1
    assert "100 rows; an ivfpq index needs 9,984" in run.err


def test_an_index_of_what_was_is_made_again(retrieve: Run, folder: Path) -> None:
    pytest.importorskip("faiss")
    place = store(Path("a.npy"), "image", names(20))
    retrieve(place, "--like", "item001", "--index", "flat")
    os.utime(place, (1, 1))  # touched, and the same
    assert not any("changed" in line for line in retrieve(place, "--like", "item001", "--index", "flat").notices)
    time.sleep(0.01)
    for path in ("a.npy", "a.jsonl", "a.made.json"):
        Path(path).unlink()
    store(place, "image", names(20), seed=9)
    run = retrieve(place, "--like", "item001", "--index", "flat")
    assert "imagebind: a.npy.flat.faiss: a.npy has changed since; building it again from 20 rows" in run.notices
    assert run.out == retrieve(place, "--like", "item001").out
    Path("a.npy.flat.faiss").write_bytes(b"torn")
    run = retrieve(place, "--like", "item001", "--index", "flat")
    assert "imagebind: a.npy.flat.faiss: incomplete; building it again" in run.notices
    assert run.out == retrieve(place, "--like", "item001").out


def test_faiss_that_is_missing_is_told_in_one_line(retrieve: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    told_once(
        retrieve(store(Path("a.npy"), "image", names(3)), "--like", "item001", "--index", "flat"), "pip install 'imagebind-cli[faiss]'"
    )


def test_a_store_named_twice_is_refused(retrieve: Run, pictures: Path) -> None:
    run = retrieve(pictures, f"./{pictures}", "--text", "a dog")
    assert (run.code, run.out) == (2, b"")
    assert "pictures.npy is named twice" in " ".join(run.err.split())


# What is said of the stores


def test_a_cosine_is_never_above_one(retrieve: Run, folder: Path) -> None:
    """Rows rounded to float32, or to float16, are a little longer or shorter than 1."""
    vectors = unit_rows(200)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    longest = vectors[lengths.argmax()] * np.float32(1 + 2**-10)
    store(Path("a.h5"), "image", names(201), np.vstack([vectors, longest]))
    np.save("query.npy", longest)
    run = retrieve("a.h5", "--vector", "query.npy", "--like", "item200", "-k", 201)
    assert run.rows[0]["score"] == 1
    assert max(row["score"] for row in retrieve("a.h5", "--queries", "a.h5", "-k", 201).rows) <= 1


def test_stores_computed_in_different_precisions_are_named(retrieve: Run, folder: Path) -> None:
    store(Path("a.h5"), "image", names(3))
    store(Path("b.h5"), "audio", names(3, "sound"), dtype="bfloat16")
    store(Path("c.h5"), "depth", names(3, "map"))
    alike = retrieve("a.h5", "c.h5", "--like", "item000")
    assert (alike.code, alike.notices) == (0, [])
    mixed = retrieve("a.h5", "b.h5", "--like", "item000")
    assert mixed.code == 0
    (notice,) = mixed.notices
    assert notice.startswith("imagebind: b.h5: vectors computed in bfloat16; those of a.h5 in float32")


# Windows, stretches, and what was recorded of an input


def test_one_window_is_asked_for_by_its_seconds(retrieve: Run, folder: Path) -> None:
    spans = [(0.0, 5.0), (2.5, 7.5), (5.0, 10.0), (10.0, 15.0)]
    vectors = unit_rows(4)
    store(Path("n.npy"), "imu", ["night.csv"] * 4, vectors, spans=spans)
    for asked, rows in (("night.csv#2.5-7.5", [1]), ("night.csv#4-9", [1, 2]), ("night.csv#0.00-5.00", [0])):
        query = combine(vectors[rows])
        left = [row for row in range(4) if row not in rows]
        wanted = sorted(left, key=lambda row: -float(vectors[row] @ query))
        assert [(row["start"], row["end"]) for row in retrieve("n.npy", "--like", asked).rows] == [spans[row] for row in wanted]
    unknown = retrieve("n.npy", "--like", "night.csv#40-45")
    assert (unknown.code, len(unknown.notices)) == (1, 1)
    assert "night.csv: no window 40-45 in it; its 4 are 0-5, 2.5-7.5, 5-10, …" in unknown.err
    for asked in (["--like", "night.csv"], ["--queries", "n.npy"]):
        alone = retrieve("n.npy", *asked)
        assert (alone.code, alone.out) == (1, b"")
        assert "the stores hold only this item" in alone.err
        assert "--like 'night.csv#0-5'" in alone.err


def test_an_id_that_looks_like_a_window_is_an_id(retrieve: Run, folder: Path) -> None:
    store(Path("n.npy"), "audio", ["a.wav#0-5", "a.wav#5-9", "a.wav"])
    assert {row["id"] for row in retrieve("n.npy", "--like", "a.wav#0-5").rows} == {"a.wav#5-9", "a.wav"}


def test_queries_are_read_between_their_seconds(imagebind: Run, retrieve: Run, folder: Path) -> None:
    generate.audio(folder / "a.wav", seconds=12)
    (folder / "q").mkdir()
    rows = [
        {"audio": "../a.wav", "start": 2, "end": 4},
        {"id": "late", "audio": "../a.wav", "start": "8", "end": "10"},
        {"id": "bad", "audio": "../a.wav", "start": 5, "end": 4},
    ]
    (folder / "q/q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert imagebind("embed", "audio", "a.wav", "--pool", "none", "--model", "tiny", "-o", "s.h5").code == 0
    run = retrieve("s.h5", "--queries", "q/q.jsonl", "-k", 1, "--html", "p.html")
    assert run.code == 1
    assert [(row["query"], row["start"], row["end"]) for row in run.rows] == [("q/../a.wav#2-4", 2, 4), ("late", 8, 10)]
    assert min(row["score"] for row in run.rows) > 0.9999
    assert "q/q.jsonl:3: start and end are seconds" in run.err
    assert "cannot be shown" not in Path("p.html").read_text()


@pytest.mark.parametrize("given", [["--centres", 7.5], ["--clips", 3], ["--rate", 50], []])
def test_a_flag_takes_the_place_of_what_the_store_was_made_with(imagebind: Run, retrieve: Run, folder: Path, given: list[object]) -> None:
    np.savetxt(
        "a.csv", np.column_stack([np.arange(3000) / 100, unit_rows(3000, 6)]), delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments=""
    )
    made = imagebind("embed", "imu", "a.csv", "--hop", 2.5, "--pool", "none", "--time-unit", "s", "--model", "tiny", "-o", "s.h5")
    assert made.code == 0, made.err
    run = retrieve("s.h5", "--imu", "a.csv", *given)
    assert run.code == 0, run.err
    assert run.rows


def test_centres_of_a_store_are_not_a_querys(imagebind: Run, retrieve: Run, folder: Path) -> None:
    generate.imu(folder / "a.csv")
    np.savetxt(
        "b.csv",
        np.column_stack([1000 + np.arange(600) / 100, unit_rows(600, 6)]),
        delimiter=",",
        header="time,ax,ay,az,gx,gy,gz",
        comments="",
    )
    assert imagebind("embed", "imu", "a.csv", "--centres", "2.5", "--pool", "none", "--model", "tiny", "-o", "s.h5").code == 0
    assert retrieve("s.h5", "--imu", "b.csv").code == 0


@pytest.mark.parametrize(
    "given",
    [
        ["--html", "p.html"],
        ["-k", 3],
        ["--threshold", 0.1],
        ["--per-modality"],
        ["--modality", "image"],
        ["--index", "flat"],
        ["--errors", "e"],
    ],
)
def test_what_is_of_a_search_is_refused_with_pairs(retrieve: Run, folder: Path, given: list[object]) -> None:
    store(Path("a.npy"), "image", names(5))
    store(Path("b.npy"), "audio", names(5))
    run = retrieve("a.npy", "b.npy", "--pairs", "ids", *given)
    assert (run.code, run.out) == (2, b"")
    assert f"{given[0]} is for a search" in " ".join(run.err.split())
    assert not Path("p.html").exists()


def test_a_page_shows_the_recorded_file_and_queries_from_stores(imagebind: Run, retrieve: Run, folder: Path) -> None:
    (folder / "in").mkdir()
    generate.audio(folder / "in/a.wav", seconds=8)
    rows = [
        {"id": "one", "audio": "a.wav", "start": 1, "end": 3},
        {"id": "two", "audio": "a.wav", "start": 4, "end": 7},
        {"audio": "a.wav", "end": 2},
    ]
    (folder / "in/m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "t.jsonl").write_text('{"id": "caption 1", "text": "a falling tone"}\n')
    imagebind("embed", "audio", "--manifest", "in/m.jsonl", "--model", "tiny", "-o", "s.h5")
    imagebind("embed", "text", "--manifest", "t.jsonl", "--model", "tiny", "-o", "t.h5")
    for asked, players in ((["--queries", "s.h5"], 9), (["--queries", "t.h5"], 3), (["--vector", "t.h5"], 3), (["--like", "one"], 3)):
        assert retrieve("s.h5", *asked, "--html", "p.html").code == 0
        page = Path("p.html").read_text()
        assert page.count("<audio") == players
        assert "cannot be shown" not in page
        assert ("<blockquote>a falling tone</blockquote>" in page) == ("t.h5" in asked)
    assert "1.0 to 3.0 of 8.0 s" in page


def test_stores_whose_files_were_read_otherwise_are_named(imagebind: Run, retrieve: Run, folder: Path) -> None:
    """A query can only be read in one way: as the first store's files, or as the flags say."""
    soundfile.write("a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (32_000, 2)).astype(np.float32), 16_000)
    for name, channels in (("first", "first"), ("mix", "mix")):
        assert imagebind("embed", "audio", "a.wav", "--channels", channels, "--model", "tiny", "-o", f"{name}.h5").code == 0
    run = retrieve("mix.h5", "first.h5", "--audio", "a.wav", "-k", 1)
    assert "queries read as mix.h5 was, with --channels mix; first.h5 was read with first" in run.err
    assert run.rows[0]["store"] == "mix.h5"
    chosen = retrieve("mix.h5", "first.h5", "--audio", "a.wav", "-k", 1, "--channels", "first")
    assert "queries read as" not in chosen.err
    assert chosen.rows[0]["store"] == "first.h5"


def test_an_empty_sentence_is_no_query(retrieve: Run, imagebind: Run, folder: Path) -> None:
    assert imagebind("embed", "text", "a dog", "--model", "tiny", "-o", "s.h5").code == 0
    for sentence in ("", "  ", "&nbsp;"):
        run = retrieve("s.h5", "--text", sentence)
        assert (run.code, run.out) == (1, b"")
        assert "an empty sentence: there are no words to embed" in run.err
