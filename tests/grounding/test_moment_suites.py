"""Suites of moments on miniatures of their datasets: truths that can be checked by eye, scores by hand, kept windows, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import imagebind_cli as ib
from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation import Report
from imagebind_cli.evaluation.suites import read_suite_recipe, suite_names
from imagebind_cli.events import Listener
from imagebind_cli.grounding.lighthouse import MomentPrediction
from imagebind_cli.grounding.moments import find_moments
from imagebind_cli.grounding.suites import MOMENT_LAYOUTS, MomentSuite, open_moment_suite
from imagebind_cli.grounding.suites.run_moments import WHOLE, run_moment_suite
from imagebind_cli.store import open_store
from tests import trees
from tests.conftest import Run

SAMPLES = Path(__file__).parents[2] / "imagebind_cli" / "demo" / "samples"
RATE = 16_000  # of these
# What each suite asks on its miniature: query, recording, moments.
ASKED: dict[str, list[tuple[str, str, list[list[float]]]]] = {
    "ave": [("Church bell", "RUhOCu3LNXM", [[0, 4]]), ("Male speech, man speaking", "-5zANFBYzwQ", [[2, 4]])],
    "castella": [
        ("A man uses the turn signal", "-0awng26xQ8", [[1, 3]]),
        ("A door shuts", "-0awng26xQ8", [[4, 6], [0, 1]]),
        ("A man uses the turn signal", "0aBcDeFgHiJ", [[1, 3]]),
    ],
    "charades": [("person turns a light on.", "3MSZA", [[0, 2.5]]), ("a person opens the door.", "3MSZA", [[2, 4]])],
    "qvhighlights": [
        ("A family plays", "bP5KfdFJzC4_660.0_810.0", [[0, 2]]),
        ("A dog runs", "bP5KfdFJzC4_660.0_810.0", [[0, 1], [3, 4]]),
        ("Rain", "RoripwjYFp8_60.0_210.0", [[1, 3]]),
    ],
    "unav100": [("dog barking", "a_b-c", [[0.5, 2], [3, 5]]), ("people laughing", "a_b-c", [[1, 2]])],
}
# Figures of other models on the default options, in percent.
REFERENCES: dict[str, list[dict[str, float]]] = {
    "castella": [{"R@1 IoU 0.5": 22.74, "R@1 IoU 0.7": 10.17, "mAP@0.5": 21.93, "mAP@0.75": 8.85, "mAP": 10.49}],
    "charades": [
        {"R@1 IoU 0.5": 49.97, "R@1 IoU 0.7": 24.32},
        {"R@1 IoU 0.5": 47.9, "R@1 IoU 0.7": 26.7, "mAP@0.5": 61.0, "mAP@0.75": 28.8},
    ],
}

Open = Callable[..., MomentSuite]


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, to be read only."""
    root = tmp_path_factory.mktemp("recordings")
    for name, make in trees.RECORDED.items():
        make(root / name)
    return root


@pytest.fixture
def opened(miniatures: Path) -> Open:
    """A suite over its miniature."""

    def run(name: str, limit: int | None = None, **options: Any) -> MomentSuite:
        return open_moment_suite(name, miniatures / name, options, limit)

    return run


class Kept(Listener):
    """Keeps why inputs failed, and how many rows a store had."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}
        self.stored = 0

    def begin(self, stored: int, count: Callable[[], int | None] | None = None) -> None:
        self.stored = stored

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        self.reasons[id] = reason


def predicted(suite: MomentSuite, **given: Any) -> tuple[Report, list[MomentPrediction]]:
    found: list[MomentPrediction] = []
    return run_moment_suite(suite, draws=0, output=found.append, **{"listener": Listener()} | given), found


def values(scores: dict[str, Any]) -> dict[str, float]:
    return {name: score["value"] for name, score in scores.items()}


# What the recipes and layouts say


def test_every_suite_has_a_recipe_a_layout_and_a_miniature() -> None:
    assert suite_names("moments") == sorted(MOMENT_LAYOUTS) == sorted(trees.RECORDED) == sorted(ASKED)
    assert {read_suite_recipe(name).metric for name in ASKED} == {"moments"}


@pytest.mark.parametrize("name", sorted(ASKED))
def test_queries_moments_and_recordings_are_those_of_the_annotations(opened: Open, name: str) -> None:
    suite = opened(name)
    assert [(truth.query, truth.vid, truth.windows.tolist()) for truth in suite.truths] == ASKED[name]
    assert sorted(suite.recordings) == sorted({vid for _, vid, _ in ASKED[name]})
    assert all(path.stem in (vid, f"Y{vid}") for vid, path in suite.recordings.items())
    assert suite.modality == ("video" if name in ("charades", "qvhighlights") else "audio")
    assert [each["values"] for each in suite.references] == REFERENCES.get(name, [])
    assert suite.published == {}  # no score is printed beside the figure of another model


def test_what_is_missing_or_has_no_length_is_noted(opened: Open) -> None:
    assert "1 of 3 recordings are missing, as GoneGoneGon_0.0_150.0" in opened("qvhighlights").notes
    assert "events without a length, left out: 1" in opened("ave").notes


def test_clip_on_qvhighlights_is_published_for_the_test_split_alone(opened: Open) -> None:
    suite = opened("qvhighlights", split="test")
    assert [truth.query for truth in suite.truths] == ["Rain"]
    assert [each["values"] for each in suite.references] == [
        {"R@1 IoU 0.5": 16.88, "R@1 IoU 0.7": 5.19, "mAP@0.5": 18.11, "mAP@0.75": 7.0, "mAP": 7.67}
    ]


def test_options_choose_splits_languages_and_modalities(opened: Open, miniatures: Path) -> None:
    assert opened("unav100", modality="video", clips="raw").modality == "video"
    assert [truth.vid for truth in opened("ave", split="all").truths] == ["RUhOCu3LNXM"]
    with pytest.raises(UserError, match="none of its 1 recordings is below .*; the first is called train0"):
        opened("unav100", split="train")
    with pytest.raises(UserError, match=r"no json/ja/test\.json"):
        opened("castella", language="ja")
    with pytest.raises(UserError, match="unknown split 'no'; choose from train, val, test"):
        opened("castella", split="no")


@pytest.mark.parametrize(("name", "file"), [
    ("castella", "castella_test_release.jsonl"), ("charades", "charades_sta_test_release.jsonl"), ("unav100", "unav100_test_release.jsonl")
])  # fmt: skip
def test_annotations_in_the_form_of_lighthouse_say_the_same(tmp_path: Path, name: str, file: str) -> None:
    trees.RECORDED[name](tmp_path)
    for path in [*tmp_path.glob("**/*.json"), *tmp_path.glob("*.txt")]:
        path.unlink()
    rows = [
        {"qid": number, "query": query, "vid": vid, "relevant_windows": moments} for number, (query, vid, moments) in enumerate(ASKED[name])
    ]
    trees.write(tmp_path / file, "".join(json.dumps(row) + "\n" for row in rows))
    suite = open_moment_suite(name, tmp_path)
    assert [(truth.query, truth.vid, truth.windows.tolist()) for truth in suite.truths] == ASKED[name]


@pytest.mark.parametrize(
    ("name", "file", "text", "words"),
    [
        ("qvhighlights", "highlight_val_release.jsonl", '{"qid": 1, "query": "a"}', r"jsonl:1: neither a line of Lighthouse nor .*'vid'"),
        ("charades", "charades_sta_test.txt", "3MSZA 0.0##a\n", r"txt:1: neither a line"),
        ("castella", "json/en/test.json", '[{"yid": "a", "moments": [{"local_caption": "b"}]}]', "no 'timestamps'"),
        ("castella", "json/en/test.json", "{}", "nothing to run"),
        ("unav100", "unav100_annotations.json", "[]", "not a database of videos"),
        ("unav100", "unav100_annotations.json", '{"database": {"a_b-c": {"subset": "test", "annotations": [{}]}}}', "no 'segment'"),
        ("ave", "testSet.txt", "Bark&-5zANFBYzwQ&good&3\n", r"testSet\.txt:1: CATEGORY&YTID&QUALITY&START&END is needed"),
    ],
)
def test_annotations_that_cannot_be_used_are_one_clear_line(tmp_path: Path, name: str, file: str, text: str, words: str) -> None:
    trees.RECORDED[name](tmp_path)
    trees.write(tmp_path / file, text)
    with pytest.raises(UserError, match=words):
        open_moment_suite(name, tmp_path)


# Runs


@pytest.mark.parametrize("name", sorted(ASKED))
def test_every_query_is_scored_and_so_is_the_whole_recording(opened: Open, tiny: Any, name: str) -> None:
    suite = opened(name)
    report, found = predicted(suite, model=tiny)
    assert [(prediction.truth.query, prediction.truth.vid) for prediction in found] == [(query, vid) for query, vid, _ in ASKED[name]]
    by_hand = [
        metrics.moment_retrieval(
            np.array([window[:2] for window in prediction.as_json()["pred_relevant_windows"]]), np.array(moments, float)
        )
        for prediction, (_, _, moments) in zip(found, ASKED[name], strict=True)
    ]
    scores = values(report.scores)
    assert {metric: scores[metric] for metric in by_hand[0]} == {
        metric: pytest.approx(np.mean([of_query[metric] for of_query in by_hand])) for metric in by_hand[0]
    }
    assert ("HIT@1" in scores) == (name == "qvhighlights")  # where people rated clips
    assert report.document["items"] == {"scored": len(found), "failed": 0, "recordings": len(suite.recordings)}
    assert report.document["references"] == suite.references
    json.loads(report.as_json())


def test_the_whole_recording_has_what_events_fill(opened: Open, tiny: Any) -> None:
    """The bell rings in all of 4 s, the man speaks in half of them."""
    report, _ = predicted(opened("ave"), model=tiny)
    whole = values(report.document["controls"][WHOLE]["scores"])
    assert (whole["R@1 IoU 0.5"], whole["R@1 IoU 0.7"], whole["mAP@0.75"]) == (1, 0.5, 0.5)


def test_a_query_has_the_moments_that_moments_finds(opened: Open, tiny: Any) -> None:
    suite = opened("castella")
    _, found = predicted(suite, model=tiny)
    for prediction in found:
        hits = find_moments([str(suite.recordings[prediction.truth.vid])], model=tiny, text=prediction.truth.query)
        assert [(hit.start, hit.end) for hit in prediction.answer.hits] == [(hit.start, hit.end) for hit in hits]


def test_kept_windows_are_used_again_and_are_what_a_store_gives(opened: Open, tiny: Any, tmp_path: Path) -> None:
    suite, keep = opened("castella"), tmp_path / "windows.h5"
    _, first = predicted(suite, model=tiny, keep=keep)
    kept = open_store(keep)
    assert (len(kept), sorted(set(kept.ids))) == (2 * 5, sorted(map(str, suite.recordings.values())))
    heard = Kept()
    _, again = predicted(suite, model=tiny, keep=keep, listener=heard)
    _, stored = predicted(suite, model=tiny, stores=[str(keep)])
    assert heard.stored == 10
    for of_run in (again, stored):
        assert [prediction.as_json() for prediction in of_run] == [prediction.as_json() for prediction in first]


def test_queries_of_a_recording_that_cannot_be_read_fail_alone(tmp_path: Path, tiny: Any) -> None:
    trees.castella(tmp_path)
    (tmp_path / "audio/-0awng26xQ8.wav").write_bytes(b"no sound")
    heard = Kept()
    report, found = predicted(open_moment_suite("castella", tmp_path), model=tiny, listener=heard)
    assert [prediction.truth.vid for prediction in found] == ["0aBcDeFgHiJ"]
    assert report.document["items"] == {"scored": 1, "failed": 2, "recordings": 2}
    assert heard.reasons["-0awng26xQ8/1"] == "no recording named '-0awng26xQ8'"
    (tmp_path / "audio/Y0aBcDeFgHiJ.wav").write_bytes(b"no sound")
    with pytest.raises(UserError):
        predicted(open_moment_suite("castella", tmp_path), model=tiny, listener=heard)


def test_names_find_their_sounds_in_recordings_of_four(tmp_path: Path) -> None:
    """Of four sounds of 4 s each, mini finds the one that is named; chance would find every fourth."""
    names = {"baby": "crying baby", "rain": "rain", "wave": "sea waves", "guitar": "guitar", "flute": "flute", "violin": "violin"}
    entries = []
    for number, order in enumerate(
        (["guitar", "baby", "flute", "rain"], ["violin", "wave", "guitar", "baby"], ["rain", "violin", "wave", "flute"])
    ):
        (tmp_path / "audio").mkdir(exist_ok=True)
        samples = [soundfile.read(SAMPLES / f"audio/{name}.mp3")[0][: 4 * RATE] for name in order]
        soundfile.write(tmp_path / f"audio/{number}.wav", np.concatenate(samples), RATE)
        moments = [{"local_caption": names[name], "timestamps": [[4 * place, 4 * place + 4]]} for place, name in enumerate(order)]
        entries.append({"yid": str(number), "moments": moments})
    trees.write(tmp_path / "json/en/test.json", json.dumps(entries))
    report, _ = predicted(open_moment_suite("castella", tmp_path), model=ib.load("mini", device="cpu"))
    found, whole = values(report.scores), values(report.document["controls"][WHOLE]["scores"])
    assert found["R@1 IoU 0.5"] >= 0.75
    assert whole["R@1 IoU 0.5"] == 0  # a quarter of the recording


# The command


def test_the_command_prints_predictions_and_writes_the_report(imagebind: Run, miniatures: Path, tmp_path: Path) -> None:
    given = ("moments", "--suite", "castella", "--root", miniatures / "castella", "--model", "tiny", "--device", "cpu", "--draws", 0)
    run = imagebind(*given, "--report", tmp_path / "s.json", "--keep", tmp_path / "windows.h5", "-k", 3)
    assert run.code == 0, run.err
    assert [(row["query"], row["vid"]) for row in run.rows] == [(query, vid) for query, vid, _ in ASKED["castella"]]
    assert all(1 <= len(row["pred_relevant_windows"]) <= 3 and len(row["pred_saliency_scores"]) == 3 for row in run.rows)
    assert json.loads((tmp_path / "s.json").read_text())["items"] == {"scored": 3, "failed": 0, "recordings": 2}
    assert "castella moments: 3 items, R@1 IoU 0.5" in run.err
    assert "the whole of each recording as its one moment: " in run.err
    again = imagebind(*given, tmp_path / "windows.h5", "-k", 3)
    assert again.rows == run.rows
    less = imagebind(*given, "--limit", 1, "--report", "-")
    assert json.loads(less.out)["items"] == {"scored": 1, "failed": 0, "recordings": 1}
    assert "only the first 1 of 3" in less.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--suite", "nosuch", "--root", "."], 1, "unknown suite 'nosuch'; choose from ave, castella"),
        (["--suite", "vggss", "--root", "."], 1, "run by another command: imagebind locate --suite vggss"),
        (["--suite", "ave"], 2, "--suite needs --root"),
        (["--suite", "ave", "--root", ".", "--text", "a dog"], 2, "or --suite NAME"),
        (["--suite", "ave", "--root", ".", "--html", "a.html"], 2, "--html shows moments, and --suite gives predictions"),
        (["--suite", "ave", "--root", ".", "--report", "no/s.json"], 1, "no/s.json: there is no folder no"),
        (["--suite", "ave", "--root", ".", "--suite-option", "split"], 2, "NAME=VALUE is needed"),
        (["--suite", "ave", "--root", ".", "--modality", "imu"], 2, "suite ave is of audio, not imu"),
        (["a.wav", "--suite", "ave", "--root", "."], 2, "a.wav: with a suite, RECORDING can only be a store"),
        (["a.wav", "--text", "a", "--limit", "1"], 2, "--limit: only a --suite takes it"),
        (["--text", "a dog"], 2, "give a RECORDING"),
    ],
)
def test_wrong_usage_is_refused(
    imagebind: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    trees.ave(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = imagebind("moments", *words)
    assert (run.code, run.out) == (code, b"")
    assert says in " ".join(run.err.split())
