"""Suites of localisation on miniatures of their datasets: truths that can be checked by eye, figures by hand, wrong queries beside the own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imagebind_cli as ib
from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites import read_suite_recipe, suite_names
from imagebind_cli.events import Listener
from imagebind_cli.grounding.locate import locate
from imagebind_cli.grounding.suites import LOCATION_LAYOUTS, open_location_suite
from imagebind_cli.grounding.suites.run_scenes import SceneResult, run_location_suite
from imagebind_cli.grounding.suites.scene_queries import scenes_of_another_kind
from imagebind_cli.grounding.suites.scene_scores import LOCATION_METRICS, centre_map, compared_map
from imagebind_cli.grounding.suites.scenes import SIDE, LocationSuite, Scene
from imagebind_cli.retrieval.requests import combined_request
from tests import generate, trees
from tests.conftest import Run

SAMPLES = Path(__file__).parents[2] / "imagebind_cli" / "demo" / "samples"
HALF = SIDE // 2
# Figures of other models, in percent, as their authors or tables of others print them.
REFERENCES: dict[str, list[dict[str, float]]] = {
    "avsbench": [{"mIoU": 76.45, "F-score": 85.9}],
    "flickr-soundnet": [{"cIoU@0.5": 83.94, "AUC": 63.6}, {"cIoU@0.5": 85.2}],
    "imagenet-seg": [],  # its miniature has other names
    "is3": [],
    "vggss": [{"cIoU@0.5": 38.85, "AUC": 39.54}, {"cIoU@0.5": 39.94}],
}

Open = Callable[..., LocationSuite]


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, to be read only."""
    root = tmp_path_factory.mktemp("scenes")
    for name, make in trees.LOCATED.items():
        make(root / name)
    return root


@pytest.fixture
def opened(miniatures: Path) -> Open:
    """A suite over its miniature."""

    def run(name: str, limit: int | None = None, **options: Any) -> LocationSuite:
        needed = {"names": miniatures / name / "names.txt", "templates": "plain"} if name == "imagenet-seg" else {}
        return open_location_suite(name, miniatures / name, needed | options, limit)

    return run


class Kept(Listener):
    """Keeps notes and failures."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.reasons: dict[str, str] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        self.reasons[id] = reason


def truths(suite: LocationSuite) -> dict[str, np.ndarray]:
    return {scene.id: scene.truth() for scene in suite.scenes}


# What the recipes and layouts say


def test_every_suite_has_a_recipe_a_layout_and_a_miniature() -> None:
    assert suite_names("locate") == sorted(trees.LOCATED) == sorted(REFERENCES)
    assert sorted({read_suite_recipe(name).layout for name in suite_names("locate")}) == sorted(LOCATION_LAYOUTS)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_figures_of_other_models_are_references(opened: Open, name: str) -> None:
    suite = opened(name)
    assert [each["values"] for each in suite.references] == REFERENCES[name]
    assert all(each["model"] and each["source"] for each in suite.references)
    assert suite.published == {}  # no score is printed beside the figure of another model
    assert any(note.startswith("published: ") for note in suite.notes) == bool(suite.references)


def test_boxes_of_vggss_are_shares_of_the_picture(opened: Open) -> None:
    suite = opened("vggss")
    first, second, third = truths(suite).values()
    assert (first[:HALF, :HALF].mean(), first.sum()) == (1, HALF**2)
    assert (second[HALF:, HALF:].mean(), second.sum()) == (1, HALF**2)  # what reaches outside is cut off
    assert (third[:, :HALF].mean(), third.sum()) == (1, HALF * SIDE)  # both boxes
    assert [scene.kind for scene in suite.scenes] == ["people marching", "people marching", "playing theremin"]
    assert [Path(scene.picture).name for scene in suite.scenes] == [f"{scene.id}.jpg" for scene in suite.scenes]
    assert [Path(scene.query).name for scene in suite.scenes] == [f"{scene.id}.wav" for scene in suite.scenes]
    assert "frames: 1 of 4 clips are missing, as GoneGoneGon_7" in suite.notes
    assert "3 items here; the paper has 5,158" in suite.notes


def test_without_frames_the_annotated_one_of_each_clip_is_taken(tmp_path: Path) -> None:
    entry = {"file": "-0BIyqJj9ZU_000030", "class": "rain", "bbox": [[0, 0, 0.5, 1]]}
    trees.write(tmp_path / "vggss.json", json.dumps([entry]))
    clip = generate.video(tmp_path / "-0BIyqJj9ZU_000030_000040.mp4", seconds=6, sound=True)
    (scene,) = open_location_suite("vggss", tmp_path).scenes
    assert scene.query == str(clip)
    frame = scene.picture()
    away = [np.abs(frame.astype(int) - np.roll(generate.pixels(), 2 * number, axis=1)).mean() for number in range(60)]
    assert int(np.argmin(away)) % 40 == 50 % 40  # of 10 frames a second the 51st; the picture is 80 wide


def test_a_place_of_flickr_counts_as_far_as_annotators_agree(opened: Open) -> None:
    suite = opened("flickr-soundnet")
    first, second = truths(suite).values()
    assert list(truths(suite)) == ["10000130166", "10000176364"]  # those of the list
    assert (first[:, :HALF] == 1).all()
    assert (first[:HALF, HALF:] == 0.5).all()
    assert (first[HALF:, HALF:] == 0).all()
    assert (second[56:168, 56:168].mean(), second.sum()) == (1, 112**2)


def test_both_things_of_a_picture_of_is3_are_asked(opened: Open) -> None:
    dog, banjo = opened("is3").scenes
    assert (dog.kind, banjo.kind) == ("dog", "banjo")
    assert (dog.truth()[:, :HALF] == 1).all()
    assert (banjo.truth()[:, HALF:] == 1).all()
    assert dog.truth().sum() == banjo.truth().sum() == HALF * SIDE
    masks = truths(opened("is3", truth="masks"))
    assert (masks[banjo.id][:HALF, HALF:].mean(), masks[banjo.id].sum()) == (1, HALF**2)


def test_avsbench_has_five_frames_of_each_video(opened: Open) -> None:
    single, several = opened("avsbench"), opened("avsbench", setting="ms3")
    assert [scene.id[-2:] for scene in single.scenes] == [scene.id[-2:] for scene in several.scenes] == ["_1", "_2", "_3", "_4", "_5"]
    assert {scene.kind for scene in single.scenes} == {"dog_barking"}
    assert len({scene.query for scene in single.scenes}) == 1
    for truth in truths(single).values():
        assert (truth[:, :HALF].mean(), truth.sum()) == (1, HALF * SIDE)
    assert [truth.any() for truth in truths(several).values()] == [True] * 4 + [False]
    assert several.references[0]["values"] == {"mIoU": 49.53, "F-score": 62.8}
    assert opened("avsbench", split="test").options == {"setting": "s4", "split": "test"}


def test_pictures_and_foregrounds_come_out_of_one_matlab_file(opened: Open) -> None:
    suite = opened("imagenet-seg")
    for number, scene in enumerate(suite.scenes):
        np.testing.assert_array_equal(scene.picture(), generate.pixels(number, (40, 30)))
    left, lower = truths(suite).values()
    assert (left[:, :HALF].mean(), left.sum()) == (lower[HALF:].mean(), lower.sum()) == (1, HALF * SIDE)
    assert suite.classes == ["tench", "goldfish", "great white shark"]
    assert len(open_location_suite("imagenet-seg", Path(suite.files[0]).parent).classes) == 1000


def test_opening_suites_imports_no_torch(miniatures: Path) -> None:
    code = (
        "import sys; from imagebind_cli.grounding.suites import open_location_suite, open_moment_suite\n"
        f"for name in {sorted(trees.LOCATED)}: [scene.truth() for scene in open_location_suite(name, {str(miniatures)!r} + '/' + name).scenes]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("name", "file", "text", "words"),
    [
        ("vggss", "vggss.json", '[{"file": "---g-f_I2yQ_1", "class": "x"}]', "entry 1: not a file YTID_SECONDS .* no 'bbox'"),
        ("vggss", "vggss.json", '{"a": 1}', "a list of objects is needed"),
        ("vggss", "vggss.json", '[{"file": "---g-f_I2yQ_1", "class": "x", "bbox": []}]', "nothing to run"),
        ("flickr-soundnet", "Annotations/10000130166.xml", "<a><bbox><x>1</x></bbox></a>", "a bbox of fewer than four numbers"),
        ("flickr-soundnet", "flickr_test.csv", "other\n", "none of its 1 pictures"),
        ("is3", "IS3_annotation.json", '[{"image": "a.jpg", "audio": "a.wav", "gt_box": [0, 0, 300, 9]}]', "entry 1: .*gt_box .*300"),
        ("is3", "IS3_annotation.json", '[{"image": "a.jpg", "audio": "a.wav", "gt_box": [0, 0, 9, 9]}]', "2 of 2 files are missing"),
        ("avsbench", "Single-source/s4_meta_data.csv", "name,split\nx,test\n", "a name, a split and a category"),
        ("imagenet-seg", "gtsegs_ijcv.mat", "no file", "not a MATLAB 7.3 file"),
    ],
)
def test_annotations_that_cannot_be_used_are_one_clear_line(tmp_path: Path, name: str, file: str, text: str, words: str) -> None:
    trees.LOCATED[name](tmp_path / name)
    trees.write(tmp_path / name / file, text)
    with pytest.raises(UserError, match=words):
        open_location_suite(name, tmp_path / name)


# Figures


def test_the_figures_of_boxes_by_hand() -> None:
    rows = np.array([[0.6, 0.7, 1], [0.5, 0.2, 0], [0.1, 0.9, 1]])
    scores = {name: score["value"] for name, score in LOCATION_METRICS["ciou"].scores(rows, draws=0).items()}
    assert (scores["cIoU@0.5"], scores["adaptive cIoU@0.5"], scores["pointing"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert scores["AUC"] == pytest.approx(metrics.success_area(rows[:, 0]))


def test_the_f_score_is_the_best_of_the_mean_over_frames_and_empty_frames_are_not_in_it() -> None:
    curves = np.zeros((3, len(metrics.F_THRESHOLDS)))
    curves[0, 10], curves[1, 20], curves[2] = 0.8, 0.6, np.nan
    rows = np.column_stack([[0.5, 0.25, 0.75], [0.1, 0.3, np.nan], [1, 0, np.nan], curves])
    scores = LOCATION_METRICS["masks"].scores(rows, draws=20)
    assert {name: score["value"] for name, score in scores.items()} == pytest.approx(
        {"mIoU": 0.5, "F-score": 0.4, "adaptive mIoU": 0.2, "pointing": 0.5}
    )
    assert scores["mIoU"]["low"] < 0.5 < scores["mIoU"]["high"]


def test_pixels_are_pooled_over_pictures() -> None:
    """Of 100 and 10 cells 90 and 1 are right: 91 of 110."""
    truth = np.zeros((10, 10), bool)
    truth[:5] = True
    full = metrics.segmentation(truth.astype(float), truth)
    rows = np.array([[0.9, 0.8, 90, 100, 40, 60, 50, 60], [0.1, 0.4, 1, 10, 0, 9, 1, 10]])
    scores = {name: score["value"] for name, score in LOCATION_METRICS["segmentation"].scores(rows, draws=0).items()}
    assert scores == pytest.approx({"pixel accuracy": 91 / 110, "mIoU": (40 / 69 + 51 / 70) / 2, "mAP": 0.6})
    row = LOCATION_METRICS["segmentation"].row(truth.astype(float), truth)
    assert row.tolist() == [1.0, *full.values()]
    assert list(full) == ["AP", "correct", "cells", "common", "joint", "common rest", "joint rest"]  # the order that the figures count on


def test_maps_are_compared_on_one_grid() -> None:
    heat = np.repeat([[0.0, 1.0]], 3, axis=0)
    scaled = compared_map(heat)
    assert scaled.shape == (SIDE, SIDE)
    assert (scaled[:, :56] == 0).all()
    assert (scaled[:, -56:] == 1).all()
    middle = np.unravel_index(centre_map().argmax(), (SIDE, SIDE))
    assert set(map(int, middle)) <= {HALF - 1, HALF}


def test_a_wrong_query_is_that_of_the_next_scene_of_another_kind() -> None:
    scenes = [Scene(str(number), "", "", kind, centre_map) for number, kind in enumerate("aabbac")]
    others = {id: other and other.id for id, other in scenes_of_another_kind(scenes).items()}
    assert others == {"0": "2", "1": "2", "2": "4", "3": "4", "4": "5", "5": "0"}
    assert set(scenes_of_another_kind(scenes[:2]).values()) == {None}


# Runs


@pytest.mark.parametrize(("name", "controls"), [
    ("avsbench", ["noise", "silence", "centre"]),  # its miniature has one kind
    ("flickr-soundnet", ["swapped", "noise", "silence", "centre"]),
    ("imagenet-seg", ["centre"]),  # both pictures are taken for one class
    ("is3", ["swapped", "noise", "silence", "centre"]),
    ("vggss", ["swapped", "noise", "silence", "centre"]),
])  # fmt: skip
def test_every_scene_is_scored_and_so_are_wrong_queries(opened: Open, tiny: Any, name: str, controls: list[str]) -> None:
    suite, results, heard = opened(name), list[SceneResult](), Kept()
    report = run_location_suite(suite, model=tiny, draws=20, output=results.append, listener=heard)
    assert [result.located.id for result in results] == [scene.id for scene in suite.scenes]
    assert (report.document["items"], heard.reasons) == ({"scored": len(results), "failed": 0}, {})
    assert sorted(report.document["controls"]) == sorted(controls)
    metric = LOCATION_METRICS[suite.metric]
    for scores in (report.scores, *(control["scores"] for control in report.document["controls"].values())):
        assert list(scores) == list(metric.figures)
        assert all(0 <= score["low"] <= score["value"] + 1e-12 <= score["high"] + 2e-12 <= 1 + 3e-12 for score in scores.values())
    by_hand = np.stack([metric.row(compared_map(result.located.spots[0].heat), truths(suite)[result.located.id]) for result in results])
    assert report.scores == metric.scores(by_hand, 20)
    assert [list(result.values) for result in results] == [list(metric.values)] * len(results)
    assert report.document["references"] == suite.references
    json.loads(report.as_json())
    assert [note.split(":")[0] for note in heard.notes[-len(controls) :]][-1] == "the middle of every picture, whatever is asked"


def test_a_scene_has_the_map_that_locate_gives_for_its_sound_and_for_a_wrong_one(opened: Open, tiny: Any) -> None:
    suite, results = opened("flickr-soundnet"), list[SceneResult]()
    report = run_location_suite(suite, model=tiny, draws=0, output=results.append, listener=Listener())
    first, second = suite.scenes
    (own,) = locate([first.picture], model=tiny, audio=first.query)
    np.testing.assert_allclose(results[0].located.spots[0].heat, own.spots[0].heat, atol=1e-5)
    assert results[0].located.floor == pytest.approx(own.floor, abs=1e-5)
    swapped = [next(locate([scene.picture], model=tiny, audio=other.query)) for scene, other in ((first, second), (second, first))]
    metric = LOCATION_METRICS["ciou"]
    rows = np.stack(
        [metric.row(compared_map(found.spots[0].heat), scene.truth()) for found, scene in zip(swapped, suite.scenes, strict=True)]
    )
    control = report.document["controls"]["swapped"]
    assert {name: score["value"] for name, score in control["scores"].items()} == pytest.approx(
        {name: score["value"] for name, score in metric.scores(rows, 0).items()}
    )
    nearer = [result.located.whole > other.whole for result, other in zip(results, swapped, strict=True)]
    assert control["own_nearer"] == np.mean(nearer)


def test_a_picture_is_asked_for_the_class_that_it_is_taken_for_less_the_mean_of_all(opened: Open, tiny: Any) -> None:
    suite, results = opened("imagenet-seg"), list[SceneResult]()
    run_location_suite(suite, model=tiny, draws=0, output=results.append, listener=Listener())
    names = tiny.embed("text", suite.classes)
    for result, scene in zip(results, suite.scenes, strict=True):
        Image.fromarray(scene.picture()).save(picture := suite.files[0].parent / f"{scene.id}.png")
        taken_for = int(np.argmax(names @ tiny.embed("image", [picture])[0]))
        assert result.located.query.id == suite.classes[taken_for]
        found = locate([picture], model=tiny, requests=[combined_request([("text", name)]) for name in suite.classes])
        heats = np.stack([located.spots[0].heat for located in found])
        np.testing.assert_allclose(result.located.spots[0].heat, heats[taken_for] - heats.mean(axis=0), atol=1e-5)


def test_sounds_find_what_makes_them_and_other_sounds_do_not(tmp_path: Path) -> None:
    """Drawings of two instruments, left and right on white: mini points at the one that sounds, and the wrong sound at the other."""
    entries = []
    for number, (left, right) in enumerate([("guitar", "baby"), ("trumpet", "rain"), ("violin", "wave"), ("flute", "maracas")]):
        canvas = Image.new("RGB", (192, 96), "white")
        for place, name in enumerate((left, right)):
            drawing = Image.open(SAMPLES / "image" / f"{name}.png").convert("RGB").resize((80, 80), Image.Resampling.LANCZOS)
            canvas.paste(drawing, (8 + 96 * place, 8))
        for place, name in enumerate((left, right)):
            file = f"{number}{place}AAAAAAAAA_000000"
            (tmp_path / "frames").mkdir(exist_ok=True)
            (tmp_path / "audio").mkdir(exist_ok=True)
            canvas.save(tmp_path / f"frames/{file}.png")
            (tmp_path / f"audio/{file}.mp3").write_bytes((SAMPLES / "audio" / f"{name}.mp3").read_bytes())
            entries.append({"file": file, "class": name, "bbox": [[place / 2, 0, (place + 1) / 2, 1]]})
    trees.write(tmp_path / "vggss.json", json.dumps(entries))
    suite, mini = open_location_suite("vggss", tmp_path), ib.load("mini", device="cpu")
    report = run_location_suite(suite, model=mini, draws=0, listener=Listener())
    own, controls = report.scores, report.document["controls"]
    assert own["pointing"]["value"] >= 0.85
    assert controls["swapped"]["scores"]["pointing"]["value"] <= 0.6  # one half of the wrong sounds is of the other drawing beside it
    assert own["adaptive cIoU@0.5"]["value"] > controls["silence"]["scores"]["adaptive cIoU@0.5"]["value"]


def test_what_cannot_be_read_fails_alone(tmp_path: Path, tiny: Any) -> None:
    trees.vggss(tmp_path)
    (tmp_path / "audio/---g-f_I2yQ_000001.wav").write_bytes(b"no sound")
    (tmp_path / "frames/-0BIyqJj9ZU_000030.jpg").write_bytes(b"no picture")
    results, heard = list[SceneResult](), Kept()
    report = run_location_suite(open_location_suite("vggss", tmp_path), model=tiny, draws=0, output=results.append, listener=heard)
    assert [result.located.id for result in results] == ["--ABCDEFGHI_000000"]
    assert report.document["items"] == {"scored": 1, "failed": 2}
    assert list(heard.reasons) == ["---g-f_I2yQ_000001", "-0BIyqJj9ZU_000030"]
    assert "audio/---g-f_I2yQ_000001.wav: " in heard.reasons["---g-f_I2yQ_000001"]
    assert report.document["controls"].get("swapped") is None  # its wrong query is the sound that cannot be read
    trees.avsbench(tmp_path)
    for mask in tmp_path.glob("Single-source/s4_data/gt_masks/**/*.png"):
        mask.write_bytes(b"no mask")
    with pytest.raises(UserError, match="none of its 5 scenes could be used"):
        run_location_suite(open_location_suite("avsbench", tmp_path), model=tiny, listener=heard)
    assert heard.reasons["--KCIeMcDOY_7000_12000_1"].startswith("its truth: ")


# The command


def test_the_command_prints_a_line_for_each_scene_and_writes_the_report(imagebind: Run, miniatures: Path, tmp_path: Path) -> None:
    given = ("locate", "--suite", "vggss", "--root", miniatures / "vggss", "--model", "tiny", "--device", "cpu", "--draws", 0)
    run = imagebind(*given, "--report", tmp_path / "s.json", "--box", "--heat", tmp_path / "heat")
    assert run.code == 0, run.err
    assert run.ids == ["---g-f_I2yQ_000001", "-0BIyqJj9ZU_000030", "--ABCDEFGHI_000000"]
    for row in run.rows:
        assert (len(row["box"]), Path(row["heat"]).is_file(), list(row["values"])) == (4, True, ["cIoU", "adaptive cIoU", "pointing"])
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["scores"]["pointing"]["value"] == pytest.approx(np.mean([row["values"]["pointing"] for row in run.rows]))
    assert "vggss by shares: 3 items, cIoU@0.5" in run.err
    assert "asked by silence: " in run.err
    less = imagebind(*given, "--limit", 1, "--report", "-", "--method", "crops")
    document = json.loads(less.out)
    assert (document["items"]["scored"], document["method"]) == (1, "crops")
    assert "only the first 1 of 3" in less.err
    assert imagebind("locate", "image", *given[1:], "--limit", 1).ids == run.ids[:1]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--suite", "nosuch", "--root", "."], 1, "unknown suite 'nosuch'; choose from avsbench, flickr-soundnet"),
        (["--suite", "esc50", "--root", "."], 1, "run by another command: imagebind zeroshot --suite esc50"),
        (["--suite", "vggss"], 2, "--suite needs --root"),
        (["image", "a.png", "--suite", "vggss", "--root", "."], 2, "INPUT: a suite has its own"),
        (["video", "--suite", "vggss", "--root", "."], 1, "no vggss.json"),
        (["--suite", "vggss", "--root", ".", "--text", "a dog"], 2, "a query: a suite has its own"),
        (["--suite", "vggss", "--root", ".", "--report", "no/s.json"], 1, "no/s.json: there is no folder no"),
        (["image", "a.png", "--text", "a", "--limit", "1"], 2, "--limit: only a --suite takes it"),
        ([], 2, "give the modality of the inputs"),
    ],
)  # fmt: skip
def test_wrong_usage_is_refused(imagebind: Run, folder: Path, words: list[str], code: int, says: str) -> None:
    run = imagebind("locate", *words)
    assert (run.code, run.out) == (code, b"")
    assert says in " ".join(run.err.split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_names_every_suite_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs/suites.md").read_text()
    for name in [*suite_names("locate"), *suite_names("moments")]:
        recipe = read_suite_recipe(name)
        assert f"`{name}`" in page
        assert all(f"`{option}`" in page for option in recipe.options)
        assert all(str(float(value)) in page for figures in recipe.figures for value in figures.values.values()), name
