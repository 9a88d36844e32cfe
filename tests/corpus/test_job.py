"""Embedding jobs from Python: docs/python.md as it stands, resume, shares, failures, and no terminal needed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import corpus
from imagebind_cli.errors import OptionError, UsageError, UserError
from imagebind_cli.evaluation import ClassOptions, classify
from imagebind_cli.evaluation.truth import labels_of
from imagebind_cli.events import Listener
from imagebind_cli.options.modalities import flags
from imagebind_cli.registry import face
from imagebind_cli.retrieval import find
from imagebind_cli.similarity import combine
from imagebind_cli.space import Space
from imagebind_cli.store import Row, open_store
from tests import generate

TITLES = ("A folder into a store", "Preparing inputs")
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures and a broken one, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        generate.picture(tmp_path / "photos" / f"{number}.png", number)
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    return tmp_path / "photos"


def counts(heard: Listener) -> tuple[int, int, int, int]:
    return heard.done, heard.failed, heard.skipped, heard.failed_before


def test_the_page_works_as_it_stands(photos: Path, tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    section = PAGE.read_text().split("## A folder into a store")[1].split("\n## ")[0]
    search = PAGE.read_text().split("Search a store with")[1].split("\n## ")[0]
    code, ask = (re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0] for text in (section, search))
    exec(code, {"model": tiny})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("photos/broken.png: not a readable picture")
    assert lines[1] == "3 1 0"
    assert [line.split()[0] for line in lines[2:]] == [f"photos/{number}.png" for number in range(3)]
    store = open_store("photos.h5")
    assert store.ids == [f"photos/{number}.png" for number in range(3)]
    exec(ask, {"model": tiny})
    (first, second) = capsys.readouterr().out.splitlines()
    query = combine(np.stack([tiny.embed("text", ["snow"])[0], tiny.embed("image", ["photos/0.png"])[0]]), (1, 0.5))
    order = np.argsort(-(store.vectors() @ query))
    for rank, (line, row) in enumerate(zip((first, second), order[:2], strict=True), start=1):
        assert line == f"{rank} {store.ids[row]} {round(float(store.vectors()[row] @ query), 3)}"


def test_the_page_prepares_inputs(photos: Path, tiny: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printer, code = (re.findall(r"```python\n(.*?)```", PAGE.read_text().split(f"## {title}")[1], re.DOTALL)[0] for title in TITLES)
    names: dict[str, Any] = {"model": tiny}
    exec(printer.split("done =")[0], names)
    exec(code, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("photos/broken.png: not a readable picture")
    assert lines[1:] == ["3 1 0", "[3, 224, 224] []"]
    corpus.embed(tiny, "image", ["photos"], "direct.h5")
    assert np.array_equal(open_store("from-tar.h5").vectors(), open_store("direct.h5").vectors())
    assert counts(corpus.preprocess("image", ["photos"], "photos-%06d.tar")) == (0, 1, 3, 0)


def test_a_run_without_a_listener_is_logged(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The failure, what was assumed once, and that the model is untrained; queries log what was assumed of them."""

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "imagebind_cli.events"]

    for number in range(2):
        np.save(tmp_path / f"{number}.npy", np.full((40, 50), 2.0) + np.arange(50) / 50)
    corpus.embed("tiny", "depth", ["0.npy", "1.npy", "photos/broken.png"], "maps.h5")
    untrained, assumed, failed = lines()
    assert untrained.startswith("model tiny is untrained: ")
    assert assumed.startswith("assumed: depth read as metres")
    assert failed.startswith("photos/broken.png: ")
    caplog.clear()
    find(["maps.h5"], depth="0.npy", k=1)
    assert lines() == [untrained, assumed]


def test_a_query_has_several_parts_of_one_modality(photos: Path, tiny: Any) -> None:
    corpus.embed(tiny, "image", ["photos"], "photos.h5")
    query = combine(tiny.embed("text", ["snow", "night", "a dog"]), (1, -1, 0.5))
    hits = find(["photos.h5"], text=["snow", "night", "a dog"], weights=(1, -1, 0.5), k=3, model=tiny)
    store = open_store("photos.h5")
    assert [hit.id for hit in hits] == [store.ids[row] for row in np.argsort(-(store.vectors() @ query))]
    assert hits[0].score == pytest.approx(float((store.vectors() @ query).max()), abs=1e-6)


def test_files_of_the_folder_one_is_in_are_found_by_their_names(photos: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ids begin with `./`; such a file is in no class by folder."""
    monkeypatch.chdir(photos)
    corpus.embed(tiny, "image", ["."], "photos.h5")
    assert open_store("photos.h5").ids == ["./0.png", "./1.png", "./2.png"]
    plain, exact = (find(["photos.h5"], like=id, k=2, model=tiny) for id in ("1.png", "./1.png"))
    assert [hit.id for hit in plain] == [hit.id for hit in exact]
    assert "./1.png" not in [hit.id for hit in plain]
    with pytest.raises(UserError, match="no item 'x.png'"):
        find(["photos.h5"], like="x.png", model=tiny)
    assert [labels_of("folder", id, {}) for id in ("./1.png", "1.png", "../1.png", "./cats/1.png")] == [[], [], [], ["cats"]]


def test_what_cannot_be_prepared_is_a_usage_error(photos: Path) -> None:
    for modalities, output, chosen, why in (
        ("image", "a.zip", {}, "must end in .tar or .h5"),
        ("smell", "a.tar", {}, "unknown modality 'smell'"),
        (["image", "audio"], "a.tar", {"audio": {"focal": 3}}, "audio has no option 'focal'"),
        ("image", "a.tar", {"audio": {"clips": 3}}, "options of audio, which is not among the modalities"),
    ):
        with pytest.raises(UsageError, match=why):
            corpus.preprocess(modalities, ["photos"], output, options=chosen)
    assert not list(Path().glob("a.*"))


def test_wrong_options_are_refused_before_a_model_is_loaded_or_a_file_is_written(photos: Path) -> None:
    gone = Space("gone", prepare=lambda: pytest.fail("the model is loaded"))
    wrong: dict[str, Any]
    for modality, wrong, why in (
        ("depth", {"depth_format": "inches"}, "unknown depth_format 'inches'; choose from metres, mm"),
        ("imu", {"clips": 2, "hop": 1.0}, "clips and hop exclude each other; give one"),
        ("image", {"clips": 2}, "image has no option 'clips', which is for videos"),
    ):
        for ask in (
            partial(corpus.embed, gone, modality, ["photos"], "a.h5", errors="e.jsonl", **wrong),
            partial(corpus.estimate, gone, modality, ["photos"], **wrong),
            partial(classify, ["photos"], modality, ClassOptions(labels=["a", "b"]), model=gone, reading=wrong),
        ):
            with pytest.raises(OptionError, match=why):
                ask()
    assert not list(Path().glob("*.*"))


def test_a_message_spells_options_as_flags_and_leaves_values_alone() -> None:
    with pytest.raises(OptionError) as caught:
        face("depth").read_options({"sensor": "kv3_a"})
    assert caught.value.as_flags() == "unknown sensor 'kv3_a'; choose from kv1, kv1_b, kv2, realsense, xtion"
    with pytest.raises(OptionError) as caught:
        face("imu").read_options({"rate": 50.0, "time_column": "t"})
    assert caught.value.as_flags() == "rate replaces timestamps; leave out time-column and time-unit"


def test_several_modalities_of_a_table_are_prepared_to_a_stream(photos: Path, tiny: Any) -> None:
    Path("t.csv").write_text("file,caption\nphotos/0.png,a dog\nphotos/none.png,a cat\n")
    columns = {"image": "file", "text": "caption", "id": "caption"}
    with open("a.tar", "wb") as stream:
        heard = corpus.preprocess(["image", "text"], (), stream, manifest="t.csv", manifest_columns=columns, errors="e.jsonl")
    assert counts(heard) == (1, 1, 0, 0)
    assert '"a cat"' in Path("e.jsonl").read_text()
    corpus.embed(tiny, "text", ["a.tar"], "words.h5")
    assert open_store("words.h5").ids == ["a dog"]


def test_a_query_that_cannot_be_read_is_one_error(photos: Path, tiny: Any) -> None:
    corpus.embed(tiny, "image", ["photos"], "a.h5")
    for query, why in (({"image": "none.png"}, "none.png: no such file"), ({}, "a query is needed"), ({"like": "x"}, "no item 'x'")):
        with pytest.raises(UserError, match=why):
            find(["a.h5"], model=tiny, **query)
    assert [hit.id for hit in find(["a.h5"], like="photos/0.png", k=5)] != []


def test_the_same_call_again_does_what_is_left(photos: Path, tiny: Any) -> None:
    assert counts(corpus.embed(tiny, "image", ["photos"], "a.h5", errors="e.jsonl")) == (3, 1, 0, 0)
    assert counts(corpus.embed(tiny, "image", ["photos"], "a.h5", errors="e.jsonl")) == (0, 0, 3, 1)
    generate.picture(photos / "broken.png", 9)
    assert counts(corpus.embed(tiny, "image", ["photos"], "a.h5", errors="e.jsonl", retry_errors=True)) == (1, 0, 0, 0)
    assert Path("e.jsonl").read_text() == ""
    assert np.allclose(open_store("a.h5").vectors()[-1], tiny.embed("image", [photos / "broken.png"])[0], atol=1e-6)


def test_shares_are_all_of_it_and_nothing_twice(photos: Path, tiny: Any) -> None:
    ids: list[str] = []
    for number in (1, 2):
        rows: list[Row] = []
        share = corpus.Share(number, 2)
        corpus.embed(tiny, "image", ["photos"], lambda some, _, rows=rows: rows.extend(some), share=share)  # type: ignore[misc]
        assert all(share.holds(row.id) for row in rows)
        ids += [row.id for row in rows]
    assert sorted(ids) == [f"photos/{number}.png" for number in range(3)]


def test_a_manifest_and_windows(photos: Path, tiny: Any) -> None:
    generate.audio(Path("a.wav"), seconds=5)
    Path("m.jsonl").write_text('{"id": "x", "audio": "a.wav", "label": "dog"}\n')
    heard = corpus.embed(tiny, "audio", (), "s.h5", manifest="m.jsonl", pool="none", clips=2)
    assert counts(heard) == (1, 0, 0, 0)
    store = open_store("s.h5")
    assert store.ids == ["x", "x"]
    assert store.meta(0)["label"] == "dog"


@pytest.mark.parametrize("job", [corpus.embed, corpus.estimate])
def test_no_reading_option_is_taken_for_a_setting_of_the_job(job: Any) -> None:
    assert not flags().keys() & inspect.signature(job).parameters.keys()


def test_an_estimate_reads_as_the_job_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("walk.csv").write_text("a,b,c,d,e,f\n" + "0,0,9.8,0,0,0\n" * 2000)
    columns = {"columns": "ax,ay,az,gx,gy,gz"}
    heard = corpus.embed(tiny, "imu", ["walk.csv"], "a.h5", **columns)
    plan = corpus.estimate(tiny, "imu", ["walk.csv"], **columns)
    assert heard.failed == 1
    assert "ax" in str(plan.failure)


def test_a_folder_of_frames_is_one_video(photos: Path, tiny: Any) -> None:
    (photos / "broken.png").unlink()
    assert corpus.estimate(tiny, "video", ["photos"], fps=2.0).inputs == 1
    assert counts(corpus.embed(tiny, "video", ["photos"], "a.h5", fps=2.0)) == (1, 0, 0, 0)
    assert open_store("a.h5").ids == ["photos"]
    prepared = {"inputs": ["photos"], "options": {"video": {"fps": 2.0}}}
    assert counts(corpus.preprocess("video", output="a.tar", **prepared)) == (1, 0, 0, 0)
    (parts,) = corpus.inspect_inputs("video", **prepared)
    assert parts[0].record["id"] == "photos"


def test_no_terminal_is_imported(photos: Path) -> None:
    code = (
        "import sys; from imagebind_cli import load, corpus; "
        "corpus.embed(load('tiny', device='cpu'), 'image', ['photos'], 'a.h5'); "
        "sys.exit(bool({'typer', 'rich', 'imagebind_cli.cli'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
