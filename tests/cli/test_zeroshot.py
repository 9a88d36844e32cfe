"""`imagebind zeroshot` on true files and stores: scores worked out apart from it, every way to name a class, and clear words for what is bad."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from selenium.webdriver.common.by import By

from imagebind_cli.evaluation import probe
from imagebind_cli.store import open_store
from tests import generate, trees
from tests.browsing import browser, complaints
from tests.conftest import Finished, Run, Start
from tests.later import Later
from tests.stores import store, unit_rows

sklearn = Later("sklearn.metrics")
CLASSES = ["ant", "bee", "cow"]
SOUND = {"weights": "2:" + "a" * 16, "scale": 20.0}
TEXT = {"weights": "2:" + "b" * 16, "scale": 100.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def zeroshot(imagebind: Run) -> Run:
    """`imagebind zeroshot …`, as the fixture `imagebind` runs it."""

    def run(*arguments: object, **options: Any) -> Finished:
        return imagebind("zeroshot", *arguments, **options)

    return run


@pytest.fixture
def toy(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`items.h5`, 60 items of three classes that lie in folders, with what their manifest said; `classes.h5`. Vectors of both, and truth."""
    anchors, true = unit_rows(3, seed=1), np.random.default_rng(2).integers(0, 3, 60)
    noisy = anchors[true] + 2.0 * unit_rows(60, seed=3)
    vectors = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    ids = [f"clips/{CLASSES[place]}/{number}.wav" for number, place in enumerate(true)]
    store(Path("items.h5"), "audio", ids, vectors, metas=[{"kind": CLASSES[place]} for place in true], **SOUND)
    store(Path("classes.h5"), "text", CLASSES, anchors, **TEXT)
    return vectors, anchors, true


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits.astype(np.float64)), dim=-1).numpy()


# The command, through a model


def test_files_are_classified_by_names_as_worked_out_by_hand(zeroshot: Run, folder: Path, tiny: Any) -> None:
    paths = [str(generate.picture(folder / f"{seed}.png", seed)) for seed in range(3)]
    (folder / "mine.txt").write_text("a photo of a {}.\n{}, seen from afar\n")
    run = zeroshot(
        "image", "--model", "tiny", "--device", "cpu", *paths, "--labels", "dog|puppy,cat", "--templates", "mine.txt", "--batch-size", 1
    )
    assert (run.code, run.ids, run.notices) == (0, paths, [])
    texts = tiny.embed(
        "text", [line.replace("{}", name) for name in ("dog", "puppy", "cat") for line in ("a photo of a {}.", "{}, seen from afar")]
    )
    means = texts.reshape(3, 2, -1).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = tiny.embed("image", paths, batch_size=1) @ means.T
    scores = np.column_stack([cosines[:, :2].max(axis=1), cosines[:, 2]])
    shares = softmax(tiny.scale("text") * scores)
    for row, score, share in zip(run.rows, scores, shares, strict=True):
        assert [entry["class"] for entry in row["top"]] == [["dog", "cat"][place] for place in np.argsort(-score)]
        assert [entry["score"] for entry in row["top"]] == pytest.approx(sorted(score, reverse=True), abs=1e-5)
        assert [entry["probability"] for entry in row["top"]] == pytest.approx(sorted(share, reverse=True), abs=1e-3)


def test_class_vectors_kept_in_a_store_give_the_same_rows(zeroshot: Run, embed: Run, folder: Path) -> None:
    paths = [str(generate.audio(folder / f"{seed}.wav", seed=seed)) for seed in range(3)]
    given = ("--model", "tiny", "--device", "cpu", "--batch-size", 1)
    direct = zeroshot(
        "audio", *given, *paths, "--labels", "dog|puppy,a bee,pet=dog|cat", "--templates", "audio", "--save-classes", "names.npy"
    )
    assert direct.code == 0
    assert any("'dog' is that of more than one class" in line for line in direct.notices)
    assert embed("audio", *paths, "-o", "sounds.h5", "--batch-size", 1).code == 0
    again = zeroshot("audio", "sounds.h5", "--classes", "names.npy")
    assert (again.code, again.notices) == (0, [])
    for one, other in zip(direct.rows, again.rows, strict=True):
        assert [entry["class"] for entry in one["top"]] == [entry["class"] for entry in other["top"]]
        assert [entry["score"] for entry in one["top"]] == pytest.approx([entry["score"] for entry in other["top"]], abs=1e-6)
    reader = open_store("names.npy")
    assert reader.ids == ["dog", "dog=puppy", "a bee", "pet=dog", "pet=cat"]
    assert [reader.meta(row)["class"] for row in range(5)] == ["dog", "dog", "a bee", "pet", "pet"]
    assert reader.provenance["templates"]["name"] == "audio"
    mixed = zeroshot(
        "audio", "sounds.h5", "--labels", "dog|puppy,a bee,pet=dog|cat", "--templates", "audio", "--device", "cpu", "--batch-size", 1
    )  # model from the store
    assert mixed.out == again.out
    refused = zeroshot("audio", *given, *paths, "--labels", "x,y", "--save-classes", "names.npy")
    assert (refused.code, refused.notices) == (1, ["imagebind: names.npy: exists already"])


def test_sounds_are_the_classes_of_pictures(zeroshot: Run, folder: Path, tiny: Any) -> None:
    for place, name in enumerate(("bark", "song")):
        (folder / "calls" / name).mkdir(parents=True)
        for number in range(2):
            generate.audio(folder / "calls" / name / f"{number}.wav", seed=10 * place + number)
    (folder / "calls" / "song" / "torn.wav").write_bytes(b"RIFF")
    paths = [str(generate.picture(folder / f"{seed}.png", seed)) for seed in range(3)]
    run = zeroshot(
        "image", "--model", "tiny", "--device", "cpu", *paths, "--classes", "calls", "--class-modality", "audio", "--batch-size", 1
    )
    assert (run.code, run.ids) == (1, paths)
    assert [line for line in run.notices if "calls/song/torn.wav" in line] == run.notices
    sounds = tiny.embed("audio", [f"calls/{name}/{number}.wav" for name in ("bark", "song") for number in range(2)], batch_size=1)
    means = sounds.reshape(2, 2, -1).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = tiny.embed("image", paths, batch_size=1) @ means.T
    shares = softmax(tiny.scale("audio") * cosines)  # a picture has no scale of its own
    for row, cosine, share in zip(run.rows, cosines, shares, strict=True):
        found = {entry["class"]: (entry["score"], entry["probability"]) for entry in row["top"]}
        assert found["bark"] == pytest.approx((cosine[0], share[0]), abs=1e-5)
        assert found["song"] == pytest.approx((cosine[1], share[1]), abs=1e-5)


def test_windows_are_shown_apart_if_asked(zeroshot: Run, embed: Run, folder: Path) -> None:
    generate.audio(folder / "5.wav", seconds=5)
    generate.audio(folder / "1.wav", seconds=1)
    given = ("--model", "tiny", "--device", "cpu", "--labels", "a,b", "--templates", "plain", "--batch-size", 1)
    apart = zeroshot("audio", "5.wav", "1.wav", *given, "--pool", "none")
    assert apart.ids == ["5.wav"] * 3 + ["1.wav"]
    assert [(row["start"], row["end"]) for row in apart.rows[:3]] == [(0, 2), (1.5, 3.5), (3, 5)]
    assert embed("audio", "5.wav", "1.wav", "--pool", "none", "-o", "windows.h5", "--batch-size", 1).code == 0
    assert zeroshot("audio", "windows.h5", *given, "--pool", "none").out == apart.out
    whole, averaged = zeroshot("audio", "5.wav", "1.wav", *given), zeroshot("audio", "windows.h5", *given)
    assert whole.ids == averaged.ids == ["5.wav", "1.wav"]
    for one, other in zip(whole.rows, averaged.rows, strict=True):
        assert [entry["score"] for entry in one["top"]] == pytest.approx([entry["score"] for entry in other["top"]], abs=1e-5)


def test_neighbouring_windows_of_one_class_are_joined(zeroshot: Run, folder: Path) -> None:
    east, north = np.array([1, 0], np.float32), np.array([0.6, 0.8], np.float32)
    spans = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0), (9.0, 11.0), (0.0, 2.0)]
    vectors = np.stack([np.float32([0.96, 0.28]), east, -east, east, east, north])
    store(Path("a.h5"), "audio", ["a.wav"] * 5 + ["b.wav"], vectors, spans=spans)
    store(Path("c.h5"), "audio", ["here", "there"], np.stack([east, -east]))
    given = ("audio", "a.h5", "--classes", "c.h5", "--pool", "none")
    rows = zeroshot(*given, "--stretches").rows
    assert [(row["id"], row["start"], row["end"], row["windows"], row["top"][0]["class"]) for row in rows] == [
        ("a.wav", 0, 4, 2, "here"),
        ("a.wav", 4, 6, 1, "there"),
        ("a.wav", 6, 8, 1, "here"),
        ("a.wav", 9, 11, 1, "here"),
        ("b.wav", 0, 2, 1, "here"),
    ]
    assert rows[0]["top"][0]["score"] == 1  # of its best window
    assert all("windows" not in row for row in zeroshot(*given).rows)
    run = zeroshot("audio", "a.h5", "--classes", "c.h5", "--stretches")
    assert (run.code, "give --pool none" in run.err) == (2, True)


@pytest.mark.timeout(60)
def test_a_slow_producer_sees_each_row(start: Start) -> None:
    process = start("zeroshot", "text", "--model", "tiny", "--labels", "a,b", "--templates", "plain")
    assert process.stdin
    assert process.stdout
    for number in range(2):
        process.stdin.write(b"line %d\n" % number)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == f"line {number}"
    process.communicate(timeout=20)
    assert process.returncode == 0


# The command, on stores


def test_two_stores_import_no_torch(toy: Any) -> None:
    code = (
        "import sys\nfrom imagebind_cli.cli import app\n"
        "try:\n    app(['zeroshot', 'audio', 'items.h5', '--classes', 'classes.h5', '--truth', 'folder', '--html', 'page.html'])\n"
        "except SystemExit as error:\n    assert not error.code\n"
        "assert not {'torch', 'av', 'PIL', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 60


def test_rows_are_the_softmax_of_scaled_cosines(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    vectors, anchors, _ = toy
    cosines = vectors @ anchors.T
    for options, scale in [((), 20.0), (("--scale", 3), 3.0)]:  # sound's own scale, and not the text's 100
        run = zeroshot("audio", "items.h5", "--classes", "classes.h5", *options, "-k", 2)
        assert (run.code, run.notices) == (0, [])
        for row, cosine, share in zip(run.rows, cosines, softmax(scale * cosines), strict=True):
            order = np.argsort(-cosine)[:2]
            assert [entry["class"] for entry in row["top"]] == [CLASSES[place] for place in order]
            assert [entry["score"] for entry in row["top"]] == pytest.approx(cosine[order], abs=1e-6)
            assert [entry["probability"] for entry in row["top"]] == pytest.approx(share[order], abs=1e-5)


@pytest.mark.parametrize("by", ["folder", "kind", "truth.csv", "truth.jsonl", "truth.tsv"])
def test_a_report_is_scikit_learns_whatever_tells_the_truth(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray], by: str) -> None:
    vectors, anchors, true = toy
    ids = open_store("items.h5").ids
    if by.endswith("jsonl"):
        Path(by).write_text("".join(json.dumps({"id": id, "label": CLASSES[place]}) + "\n" for id, place in zip(ids, true, strict=True)))
    elif "." in by:
        with open(by, "w", newline="") as file:
            rows = csv.writer(file, delimiter="\t" if by.endswith("tsv") else ",")
            rows.writerows([("id", "label"), *((id, CLASSES[place]) for id, place in zip(ids, true, strict=True))])
    run = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", by, "--report", "-")
    assert run.code == 0
    report = json.loads(run.out)
    scores = vectors @ anchors.T
    said = scores.argmax(axis=1)
    assert report["scores"]["top1"]["value"] == pytest.approx(sklearn.accuracy_score(true, said), abs=1e-12)
    assert report["scores"]["mean_per_class"]["value"] == pytest.approx(sklearn.balanced_accuracy_score(true, said), abs=1e-12)
    assert report["confusion"] == sklearn.confusion_matrix(true, said).tolist()
    assert [row["recall"] for row in report["classes"]] == pytest.approx(sklearn.recall_score(true, said, average=None), abs=1e-12)
    assert report["scores"]["top1"]["chance"] == pytest.approx(1 / 3)
    assert report["scores"]["top1"]["low"] < report["scores"]["top1"]["value"] < report["scores"]["top1"]["high"]
    assert "top5" not in report["scores"]  # of three classes
    assert report["items"] | {"sha256": ""} == {"scored": 60, "failed": 0, "without_truth": 0, "truth_without_item": 0, "sha256": ""}
    assert report["made"][0]["weights"] == SOUND["weights"]
    assert report["prototypes"]["made"]["weights"] == TEXT["weights"]
    (line,) = run.notices
    assert f"top1 {100 * report['scores']['top1']['value']:.1f} %" in line


def test_hashes_change_with_what_they_are_of(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    vectors, anchors, _ = toy
    given = ("--truth", "folder", "--draws", 0, "--report", "-")
    first = json.loads(zeroshot("audio", "items.h5", "--classes", "classes.h5", *given).out)
    assert first == json.loads(zeroshot("audio", "items.h5", "--classes", "classes.h5", *given).out)
    changed = vectors.copy()
    changed[7, 0] = np.nextafter(changed[7, 0], 1)
    store(Path("other.h5"), "audio", open_store("items.h5").ids, changed, **SOUND)
    other = json.loads(zeroshot("audio", "other.h5", "--classes", "classes.h5", *given).out)
    assert other["items"]["sha256"] != first["items"]["sha256"]
    assert other["prototypes"]["sha256"] == first["prototypes"]["sha256"]
    store(Path("renamed.h5"), "text", CLASSES, anchors[[1, 0, 2]], **TEXT)
    renamed = json.loads(zeroshot("audio", "items.h5", "--classes", "renamed.h5", *given).out)
    assert renamed["items"]["sha256"] == first["items"]["sha256"]
    assert renamed["prototypes"]["sha256"] != first["prototypes"]["sha256"]
    assert "low" not in first["scores"]["top1"]


def test_several_labels_are_measured_by_average_precision(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    vectors, anchors, _ = toy
    ids = open_store("items.h5").ids
    relevant = np.random.default_rng(4).random((60, 3)) < 0.4
    relevant[~relevant.any(axis=1), 0] = True
    with open("truth.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label"])
        for id, own in zip(ids, relevant, strict=True):
            names = [name for name, has in zip(CLASSES, own, strict=True) if has]
            rows.writerows([(id, "|".join(names))] if len(names) < 3 else [(id, name) for name in names])
    run = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "truth.csv", "--report", "scores.json")
    assert run.code == 0
    report = json.loads(Path("scores.json").read_text())
    assert run.rows[0]["truth"] == [name for name, has in zip(CLASSES, relevant[0], strict=True) if has]
    wanted = sklearn.average_precision_score(relevant, vectors @ anchors.T, average=None)
    assert [row["average_precision"] for row in report["classes"]] == pytest.approx(wanted, abs=1e-12)
    score = report["scores"]["map"]
    assert score["value"] == pytest.approx(wanted.mean(), abs=1e-12)
    assert score["chance"] == pytest.approx(relevant.mean())
    assert score["low"] < score["value"] < score["high"]
    refused = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "truth.csv", "--metric", "top1")
    assert (refused.code, refused.out) == (1, b"")
    (line,) = refused.notices
    assert "top-1 takes one; use --metric map" in line
    undrawn = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "truth.csv", "--plot", "matrix.png")
    assert (undrawn.code, undrawn.out) == (1, b"")
    assert "the metric is map" in undrawn.notices[0]


@pytest.mark.parametrize("names", ["max", "mean"])
@pytest.mark.parametrize("by", ["folder", "kind"])
def test_examples_are_the_classes(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray], by: str, names: str) -> None:
    vectors, _, true = toy
    queries = unit_rows(10, seed=8)
    store(Path("queries.npy"), "image", list("abcdefghij"), queries, weights="c" * 16)
    run = zeroshot("image", "queries.npy", "--classes", "items.h5", "--class-by", by, "--names", names)
    assert (run.code, run.notices) == (0, [])
    cosines = queries @ vectors.T
    means = np.stack([vectors[true == place].mean(axis=0) for place in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    best = np.stack([cosines[:, true == place].max(axis=1) for place in range(3)], axis=1)
    wanted = best if names == "max" else queries @ means.T
    shares = softmax(20 * wanted)  # of the classes' modality: a picture has none
    for row, score, share in zip(run.rows, wanted, shares, strict=True):
        found = {entry["class"]: (entry["score"], entry["probability"]) for entry in row["top"]}
        for place, name in enumerate(CLASSES):
            assert found[name] == pytest.approx((score[place], share[place]), abs=1e-5)


def test_half_precision_stores_classify_alike(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    vectors, anchors, _ = toy
    store(Path("halves.h5"), "audio", open_store("items.h5").ids, vectors, array="float16", **SOUND)
    run = zeroshot("audio", "halves.h5", "--classes", "classes.h5", "-k", 1)
    halves = vectors.astype(np.float16).astype(np.float64)
    cosines = halves @ anchors.T / np.linalg.norm(halves, axis=1, keepdims=True)
    assert [row["top"][0]["score"] for row in run.rows] == pytest.approx(cosines.max(axis=1), abs=1e-6)


# Few examples


def test_a_probe_of_a_few_examples(zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    vectors, _, true = toy
    ids = open_store("items.h5").ids
    run = zeroshot(
        "audio", "items.h5", "--truth", "folder", "--shots", 4, "--report", "scores.json", "--learning-rate", 0.05, "--shot-batch", 6
    )
    assert run.code == 0
    assert "AdamW, rate 0.05, weight decay 0.05, 50 epochs" in run.notices[0]
    assert "not published and assumed: batch 6" in run.notices[0]
    report = json.loads(Path("scores.json").read_text())
    examples = report["probe"]["examples"]
    assert len(examples) == len(set(examples)) == 12
    assert sorted(run.ids) == sorted(set(ids) - set(examples))
    rows = [ids.index(id) for id in examples]
    found = probe.train_probe(vectors[rows], true[rows], 3, probe.ProbeTraining(4, learning_rate=0.05, batch_size=6))
    rest = [ids.index(id) for id in run.ids]
    logits = found.scores(vectors[rest])
    assert [CLASSES.index(row["top"][0]["class"]) for row in run.rows] == logits.argmax(axis=1).tolist()
    assert [row["top"][0]["probability"] for row in run.rows] == pytest.approx(softmax(logits).max(axis=1), abs=1e-5)
    assert report["scores"]["top1"]["value"] == pytest.approx(np.mean(logits.argmax(axis=1) == true[rest]), abs=1e-12)
    assert report["scores"]["top1"]["low"] > 1 / 3  # it has learnt

    store(Path("examples.h5"), "audio", [f"more/{id}" for id in ids], vectors, **SOUND)
    other = zeroshot("audio", "items.h5", "--truth", "folder", "--shots", 2, "--shots-from", "examples.h5")
    assert (other.code, other.ids) == (0, ids)
    leak = zeroshot("audio", "items.h5", "--truth", "folder", "--shots", 2, "--shots-from", "items.h5")
    assert leak.code == 1
    assert "6 of the examples are among the inputs" in leak.notices[-1]
    many = zeroshot("audio", "items.h5", "--truth", "folder", "--shots", 60)
    assert many.code == 1
    assert "60 shots are asked for" in many.notices[-1]


# Reports to look at


ODD = ['<script>alert("1")</script>', "$\\frac{1}{0}$ & co", "日本\nnew line"]


@pytest.fixture
def odd(folder: Path) -> None:
    """Items and classes with names that mean something elsewhere."""
    store(Path("classes.h5"), "text", list("012"), unit_rows(3, seed=1), metas=[{"class": name} for name in ODD], **TEXT)
    store(Path("items.h5"), "audio", list("abcdefghi"), metas=[{"kind": ODD[number % 3]} for number in range(9)], **SOUND)


@pytest.mark.usefixtures("odd")
def test_the_page_shows_every_name_as_it_is(zeroshot: Run, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "kind", "--html", "page.html", "--report", "scores.json")
    assert run.code == 0
    report = json.loads(Path("scores.json").read_text())
    with browser(tmp_path_factory.mktemp("browser")) as page:
        page.get((folder / "page.html").as_uri())
        assert complaints(page) == []
        script = "return [...document.querySelectorAll(arguments[0])].map(row => [...row.cells].map(cell => cell.textContent))"
        scores, classes, confused = (page.execute_script(script, f"table.{name} tr") for name in ("scores", "classes", "confused"))
        matrix = page.execute_script(script, "table.confusion tr")
        assert page.find_elements(By.TAG_NAME, "script") == []
    assert scores[1][:2] == ["top1", f"{100 * report['scores']['top1']['value']:.1f}"]
    assert [row[0] for row in classes[1:]] == ODD
    assert [row[1] for row in classes[1:]] == ["3", "3", "3"]
    assert matrix[0] == ["", *ODD]
    assert [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]] == report["confusion"]
    wrong = {(ODD[a], ODD[b]): count for a, row in enumerate(report["confusion"]) for b, count in enumerate(row) if a != b and count}
    assert {(a, b): int(count) for a, b, count in confused[1:]} == wrong
    assert [int(row[2]) for row in confused[1:]] == sorted(wrong.values(), reverse=True)


@pytest.mark.usefixtures("odd")
def test_the_confusion_matrix_is_drawn(zeroshot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    run = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "kind", "--plot", "matrix.png")
    assert run.code == 0
    with Image.open("matrix.png") as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    refused = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "kind", "--plot", "matrix.odd")
    assert refused.code == 1
    assert refused.notices[-1].startswith("imagebind: matrix.odd: ")
    monkeypatch.setattr("imagebind_cli.pages.classification.find_spec", lambda name: None)
    missing = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "kind", "--plot", "matrix.png")
    assert (missing.code, missing.out) == (1, b"")
    assert missing.notices == ["imagebind: --plot needs matplotlib; install it with: pip install 'imagebind-cli[plot]'"]


# Gaps and bad requests


def test_where_truth_and_items_do_not_meet_it_is_said(zeroshot: Run, toy: Any) -> None:
    ids = open_store("items.h5").ids
    with open("truth.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "label"), (ids[0], "ant"), (ids[1], "bee"), ("gone.wav", "ant")])
    run = zeroshot("audio", "items.h5", "--classes", "classes.h5", "--truth", "truth.csv", "--report", "scores.json")
    assert run.code == 1
    assert run.notices[0] == "imagebind: truth.csv: truth for 1 id that no item has, the first 'gone.wav'"
    assert run.notices[1] == "imagebind: 58 of 60 items have no truth and are not in the scores"
    assert run.notices[2] == "imagebind: 1 of 3 classes have no item and are not in the means over classes: cow"
    report = json.loads(Path("scores.json").read_text())
    assert {name: report["items"][name] for name in ("scored", "without_truth", "truth_without_item")} == {
        "scored": 2, "without_truth": 58, "truth_without_item": 1,
    }  # fmt: skip
    assert report["classes"][2] == {"class": "cow", "items": 0, "recall": None}
    assert [row.get("truth") for row in run.rows[:3]] == [["ant"], ["bee"], None]


def test_a_torn_file_is_a_failure_and_its_truth_is_not_missed(zeroshot: Run, folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    generate.picture(folder / "a/1.png")
    (folder / "a/torn.png").write_bytes(b"\x89PNG")
    generate.picture(folder / "b/2.png", 1)
    (folder / "truth.jsonl").write_text("".join(f'{{"id": "{id}", "label": "{id[0]}"}}\n' for id in ("a/1.png", "a/torn.png", "b/2.png")))
    given = ("--model", "tiny", "--device", "cpu", "--labels", "a,b", "--templates", "plain", "--truth", "truth.jsonl", "--report", "-")
    run = zeroshot("image", "a", "b", *given)
    assert run.code == 1
    assert any("a/torn.png: " in line for line in run.notices)
    report = json.loads(run.out)
    assert (report["items"]["scored"], report["items"]["failed"], report["items"]["truth_without_item"]) == (2, 1, 0)


def test_what_cannot_be_done_is_told_in_one_line(
    zeroshot: Run, toy: tuple[np.ndarray, np.ndarray, np.ndarray], tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGEBIND_MODEL")  # that of the stores, where none is named
    vectors, anchors, _ = toy
    store(Path("model.h5"), "text", CLASSES, anchors, **TEXT, model="other")
    store(Path("dim.h5"), "text", CLASSES, unit_rows(3, 4), **TEXT)
    store(Path("weights.h5"), "audio", ["x"], vectors[:1], weights="2:" + "f" * 16)
    store(Path("earlier.h5"), "audio", ["x"], vectors[:1], weights="f" * 16)
    store(Path("one.h5"), "text", ["x"], anchors[:1], **TEXT)
    store(Path("wrong.h5"), "audio", ["a", "b"], unit_rows(2, tiny.dim), model="tiny", weights="2:" + "f" * 16)
    store(Path("old.h5"), "audio", ["a", "b"], unit_rows(2, tiny.dim), model="tiny", weights="f" * 16)
    Path("unknown.csv").write_text("id,label\nclips/ant/0.wav,bea\n")
    Path("unlike.csv").write_text("id,label\nclips/ant/0.wav,001 - XYZ\n")
    Path("short.csv").write_text("id,label\nclips/ant/0.wav,\n")
    Path("named.csv").write_text("id,class\nx,ant\n")
    Path("twice.jsonl").write_text('{"id": "x", "label": ["ant", "ant"]}\n')
    Path("elsewhere.jsonl").write_text('{"id": "x", "label": "ant"}\n')
    Path("nothing.jsonl").write_text("\n")
    with_classes = ("audio", "items.h5", "--classes", "classes.h5")
    for arguments, words in [
        (("audio", "items.h5", "--classes", "model.h5"), "model.h5: vectors of model 'other'; those of items.h5 are of 'made'"),
        (("audio", "items.h5", "--classes", "dim.h5"), "dim.h5: vectors of dim 4; those of items.h5 are of 16"),
        (("audio", "items.h5", "weights.h5", "--classes", "classes.h5"), "weights.h5: vectors of weights '2:ffffffffffffffff'"),
        (("audio", "items.h5", "earlier.h5", "--classes", "classes.h5"), "earlier.h5: made by an earlier version of imagebind"),
        (("audio", "earlier.h5", "items.h5", "--classes", "classes.h5"), "earlier.h5: made by an earlier version of imagebind"),
        (("audio", "items.h5", "--classes", "one.h5"), "one.h5: 1 classes in it; at least two"),
        (("audio", "items.h5", "--classes", "none.h5"), "none.h5: neither a store"),
        (("audio", "items.h5", "--classes", "classes.h5", "--class-by", "kind"), "classes.h5: ant has no 'kind' to name its class"),
        (("image", "items.h5", "--classes", "classes.h5"), "items.h5: holds audio vectors; image is asked for"),
        (("audio", "items.h5", "--labels", "a,b"), "no model 'made'"),
        (("audio", "items.h5", "--labels", "a,b", "--model", "tiny"), "made with weights '2:aaaaaaaaaaaaaaaa' of 'made'; model 'tiny' has"),
        (("audio", "wrong.h5", "--labels", "a,b", "--device", "cpu"), "made with weights '2:ffffffffffffffff' of 'tiny'; model 'tiny' has"),
        (("audio", "old.h5", "--labels", "a,b", "--device", "cpu"), "old.h5: made by an earlier version of imagebind"),
        (("audio", "items.h5", "--labels", "a,b,a"), "class 'a' is listed twice"),
        (("audio", "items.h5", "--labels", "a,b", "--templates", "none.txt"), "templates 'none.txt': no such file"),
        ((*with_classes, "--truth", "unknown.csv"), "its true label 'bea' is none of the 3 classes; the nearest is 'bee'"),
        ((*with_classes, "--truth", "unlike.csv"), "they are ant, bee, cow; --labels '001 - XYZ=NAME' gives a class that label"),
        ((*with_classes, "--truth", "short.csv"), "short.csv: row 2 has no id or no label"),
        ((*with_classes, "--truth", "named.csv"), "named.csv: no column 'label'; it has id, class"),
        ((*with_classes, "--truth", "twice.jsonl"), "row 1 gives x the label 'ant' a second time"),
        ((*with_classes, "--truth", "nothing.jsonl"), "nothing.jsonl: no rows in it"),
        ((*with_classes, "--truth", "gone.csv"), "gone.csv: No such file"),
        ((*with_classes, "--truth", "folder", "--report", "none/scores.json"), "there is no folder none"),
        ((*with_classes, "--truth", "folder", "--html", "."), ".: cannot be written to"),
        (("audio", "x.wav", "--classes", "classes.h5", "--truth", "lable"), "--truth lable: no such file, and no column: files have none"),
        ((*with_classes, "--save-classes", "mine.csv"), "unknown ending '.csv'"),
        (("--suite", "esc51", "--root", "."), "unknown suite 'esc51'; choose from audiocaps"),
    ]:
        run = zeroshot(*arguments)
        assert (run.code, run.out) == (2 if "ending" in words else 1, b""), arguments
        line = run.notices[0]
        assert len(run.notices) == run.code  # bad usage has a hint
        assert line.startswith("imagebind: ")
        assert words in line
    for truth, words in [
        ("elsewhere.jsonl", "no truth for any of 60 items; it has ids as 'x'"),
        ("colour", "no truth for any of 60 items"),
    ]:
        run = zeroshot(*with_classes, "--truth", truth)
        assert (run.code, len(run.rows)) == (1, 60)
        assert words in run.notices[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--labels", "a,b"), "give the modality of the inputs"),
        (("audio", "items.h5"), "name the classes: "),
        (("audio", "items.h5", "--labels", "a,b", "--classes", "c.h5"), "--labels and --classes exclude each other"),
        (("audio", "items.h5", "dog.wav", "--labels", "a,b"), "items.h5 is a store and dog.wav is not"),
        (("audio", "items.h5", "--labels", "a,b", "--report", "r.json"), "give --truth"),
        (("audio", "items.h5", "--labels", "a,b", "--epochs", 3), "it belongs to --shots"),
        (("audio", "items.h5", "--labels", "a,b", "--seed", 0), "--seed: it belongs to --shots"),
        (("audio", "items.h5", "--labels", "a,b", "--class-by", "id"), "it belongs to --classes"),
        (("audio", "items.h5", "--labels", "a,b", "--root", "."), "only a --suite takes it"),
        (("audio", "items.h5", "--shots", 2), "give --truth"),
        (("audio", "items.h5", "--shots", 2, "--truth", "folder", "--templates", "clip"), "a probe does not use it"),
        (
            ("audio", "items.h5", "--labels", "a,b", "--truth", "folder", "--pool", "none"),
            "the truth is about whole items; leave one of them out",
        ),
        (("audio", "items.h5", "--labels", "a,b", "--focal", 500), "audio has no option 'focal'"),
        (("--suite", "esc50"), "--suite needs --root"),
        (("--suite", "esc50", "--root", ".", "--labels", "a,b"), "a suite has its own"),
        (("--suite", "esc50", "--root", ".", "--suite-option", "x"), "NAME=VALUE is needed"),
    ],
)
def test_bad_usage_is_told(zeroshot: Run, toy: Any, arguments: tuple[object, ...], words: str) -> None:
    run = zeroshot(*arguments)
    assert (run.code, run.out) == (2, b"")
    assert words in " ".join(run.err.replace("│", " ").split())


def test_no_labels_are_told_as_such(zeroshot: Run, toy: Any) -> None:
    run = zeroshot("audio", "items.h5", "--labels", "")
    assert (run.code, run.out) == (1, b"")
    assert run.notices[-1].startswith("imagebind: labels '': no such file")


# Suites


def test_a_suite_is_run_as_published_and_from_a_store_of_its_items(zeroshot: Run, embed: Run, folder: Path, tiny: Any) -> None:
    trees.esc50(folder / "ESC")
    given = ("--suite", "esc50", "--root", "ESC", "--templates", "plain")
    run = zeroshot(*given, "--model", "tiny", "--device", "cpu", "--report", "scores.json", "-k", 50)
    assert (run.code, len(run.rows)) == (0, 4)
    report = json.loads(Path("scores.json").read_text())
    names = [row["class"] for row in report["classes"]]
    assert (len(names), report["items"]["scored"], report["published"]) == (50, 4, {"top1": 66.9})
    assert any("published 66.9" in line for line in run.notices)
    assert set(report["folds"]["top1"]) == {"1", "2", "3", "5"}
    paths = [f"ESC/audio/{row['id']}" for row in run.rows]
    cosines = tiny.embed("audio", paths) @ tiny.embed("text", [name.replace("_", " ") for name in names]).T
    for row, cosine in zip(run.rows, cosines, strict=True):
        found = {entry["class"]: entry["score"] for entry in row["top"]}
        assert [found[name] for name in names] == pytest.approx(cosine, abs=1e-5)
    assert (
        embed(
            "audio",
            "-o",
            "esc.h5",
            stdin="".join(f'{{"id": "{row["id"]}", "audio": "ESC/audio/{row["id"]}"}}\n' for row in run.rows).encode(),
        ).code
        == 0
    )
    again = zeroshot("audio", "esc.h5", *given, "--device", "cpu", "--report", "again.json")
    assert (again.code, again.ids) == (0, run.ids)
    assert json.loads(Path("again.json").read_text())["scores"] == report["scores"]


def test_a_suite_of_captions_finds_items_as_worked_out_by_hand(zeroshot: Run, folder: Path, tiny: Any) -> None:
    trees.clotho(folder / "Clotho")
    given = ("--suite", "clotho", "--root", "Clotho", "--model", "tiny", "--device", "cpu", "--batch-size", 1)
    run = zeroshot(*given, "--report", "scores.json", "--html", "page.html")
    assert run.code == 0
    assert "<td>R@1</td>" in Path("page.html").read_text()
    report = json.loads(Path("scores.json").read_text())
    with open("Clotho/clotho_captions_evaluation.csv", newline="") as file:
        table = list(csv.DictReader(file))
    ids = [row["file_name"] for row in table]
    paths = [next(path for path in Path("Clotho").rglob("*.wav") if path.name in (id, id.replace(" ", "_"))) for id in ids]
    sounds = tiny.embed("audio", paths, batch_size=1)
    hits, ranks = [], []
    for place, row in enumerate(table):
        for number in range(1, 6):
            cosines = sounds @ tiny.embed("text", [row[f"caption_{number}"]])[0]
            ranks.append(1 + int((cosines > cosines[place]).sum()))
            hits.append(ranks[-1] == 1)
    assert report["scores"]["R@1"]["value"] == pytest.approx(np.mean(hits), abs=1e-12)
    assert report["scores"]["median_rank"]["value"] == np.median(ranks)
    assert report["published"] == {"R@1": 6.0, "R@10": 28.4}
    assert len(run.rows) == 5 * len(table)
    assert all(row["truth"][0] in ids for row in run.rows)


def test_several_modalities_of_an_item_are_weighed(zeroshot: Run, folder: Path, tiny: Any) -> None:
    trees.msrvtt(folder / "MSRVTT")
    given = ("--suite", "msrvtt", "--root", "MSRVTT", "--model", "tiny", "--device", "cpu", "--batch-size", 1)
    run = zeroshot(*given, "--suite-option", "modalities=video+audio")
    assert run.code == 0
    assert run.ids == ["video9770#1", "video9771#1"]
    for row, sentence in zip(run.rows, ("a person is connecting something", "a little girl, playing"), strict=True):
        text = tiny.embed("text", [sentence])[0]
        assert {entry["id"] for entry in row["top"]} == {"video9770", "video9771"}
        for entry in row["top"]:
            path = f"MSRVTT/videos/all/{entry['id']}.mp4"
            video, audio = (tiny.embed(modality, [path], batch_size=1)[0] for modality in ("video", "audio"))
            both = 0.95 * video + 0.05 * audio
            assert entry["score"] == pytest.approx(text @ both / np.linalg.norm(both), abs=1e-5)


def test_a_probe_of_a_suite_is_tested_on_one_fold(zeroshot: Run, folder: Path) -> None:
    root = folder / "ESC"
    names = {"dog": 0, "rooster": 1}
    rows = [(f"{fold}-{take}-{target}.wav", fold, target, name) for name, target in names.items() for fold in (1, 2, 3) for take in "AB"]
    lines = [f"{file},{fold},{target},{name},False,1,A" for file, fold, target, name in rows]
    trees.write(root / "meta/esc50.csv", "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines]) + "\n")
    trees.sounds(*(root / "audio" / file for file, *_ in rows))
    given = ("--suite", "esc50", "--root", "ESC", "--model", "tiny", "--device", "cpu", "--shots", 2)
    refused = zeroshot(*given)
    assert refused.code == 1
    assert "has 0 items to learn from; 2 shots" in refused.notices[-1]  # 48 of ESC-50's classes are not in this copy
    recipe = Path("mine.toml")
    recipe.write_text("\n".join(_two_classes()))
    run = zeroshot(*("--suite", recipe, *given[2:]), "--fold", 3, "--report", "scores.json")
    assert run.code == 0
    assert [id[0] for id in run.ids] == ["3"] * 4
    report = json.loads(Path("scores.json").read_text())
    assert {id[0] for id in report["probe"]["examples"]} <= {"1", "2"}
    assert report["probe"]["from"] == "folds other than 3"


def test_a_probe_learns_from_another_split_of_a_suite(zeroshot: Run, folder: Path) -> None:
    trees.ego4d(folder / "Ego4D")
    given = ("--suite", "ego4d", "--root", "Ego4D", "--model", "tiny", "--device", "cpu")
    tested = zeroshot(*given, "--templates", "plain").ids
    train = zeroshot(*given, "--templates", "plain", "--suite-option", "split=train").rows
    run = zeroshot(*given, "--shots", 1, "--shots-option", "split=train", "--report", "scores.json")
    assert (run.code, run.ids) == (0, tested)
    report = json.loads(Path("scores.json").read_text())
    truth = {row["id"]: row["truth"][0] for row in train}
    assert sorted(truth[id] for id in report["probe"]["examples"]) == sorted(set(truth.values()))
    assert report["probe"]["from"][0]["modality"] == "imu"


def _two_classes() -> list[str]:
    from importlib import resources

    text = (resources.files("imagebind_cli.evaluation.suites") / "recipes" / "esc50.toml").read_text()
    head = text[: text.index("[classes]")]
    return [head, "[classes]", 'dog = ["dog"]', 'rooster = ["rooster"]']


def test_scores_on_what_the_model_has_seen_say_so(zeroshot: Run, embed: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEBIND_MODEL")
    trees.esc10(folder / "ESC-10")
    trees.esc50(folder / "ESC-50")
    given = ("--device", "cpu", "--draws", 0, "--report", "scores.json", "--html", "scores.html")
    line = "esc10 zero-shot: not a held-out score: the model has seen this data: its audio encoder learnt from its folds 1 to 4"
    files = [str(path) for path in sorted((folder / "ESC-10").rglob("*.ogg"))]
    rows = "".join(json.dumps({"id": Path(path).name, "audio": path}) + "\n" for path in files)
    (folder / "m.jsonl").write_text(rows)
    embed("audio", "--manifest", "m.jsonl", "--model", "mini", "--device", "cpu", "-o", "s.h5")
    for inputs in (["--model", "mini"], ["s.h5"], ["s.h5", "--model", "mini"]):
        run = zeroshot("audio", *inputs, "--suite", "esc10", "--root", "ESC-10", *given)
        assert sum(line in notice for notice in run.notices) == 1, run.err
        assert "held out in turn, these give 88.8 %" in json.loads(Path("scores.json").read_text())["seen"]
        assert "Not a held-out score: the model has seen this data" in Path("scores.html").read_text()
    assert "320 of the 2,000" in zeroshot("--suite", "esc50", "--root", "ESC-50", "--model", "mini", *given).err
    for model, suite in (("tiny", "esc10"), ("mini", "clotho")):
        getattr(trees, suite)(folder / suite)
        assert "held-out" not in zeroshot("--suite", suite, "--root", suite, "--model", model, *given).err
        assert "seen" not in json.loads(Path("scores.json").read_text())
