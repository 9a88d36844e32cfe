"""Several models on the same inputs: paired differences against a plain bootstrap, what is left out, and `--model` given twice."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import metrics
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation import (
    ClassOptions,
    ProbeOptions,
    ReportOptions,
    TruthOptions,
    classify,
    compare,
    few_shot,
    open_suite,
    run_suite,
)
from imagebind_cli.evaluation.outcomes import Outcomes, item_outcomes, paired_difference, query_outcomes
from imagebind_cli.evaluation.report import measure, retrieval_scores
from imagebind_cli.evaluation.tally import Tally
from imagebind_cli.evaluation.truth import Truth
from imagebind_cli.evaluation.vectors import ItemVectors
from imagebind_cli.events import Listener
from tests import generate, trees
from tests.conftest import Run
from tests.evaluation.test_classify import Notes, code_of

CLASSES = ["ant", "bee", "cow"]
ITEMS = 40


def tally_of(seed: int, metric: str = "top1", missing: tuple[int, ...] = ()) -> Tally:
    """A tally of items with the same truth for every seed, and scores of the seed's own."""
    random = np.random.default_rng(99)
    labels = {
        str(item): list(random.choice(CLASSES, 1 if metric == "top1" else random.integers(1, 3), replace=False)) for item in range(ITEMS)
    }
    kept = [str(item) for item in range(ITEMS) if item not in missing]
    scores = np.random.default_rng(seed).normal(size=(len(kept), len(CLASSES)))
    tally = Tally(CLASSES, Truth("made", labels), metric)
    empty: list[Any] = [None] * len(kept)
    tally.add(ItemVectors(kept, [{}] * len(kept), np.zeros((len(kept), 2), np.float32), empty, empty), scores)
    return tally


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pictures in a folder for each of two classes, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        generate.picture(path, number)
    return tmp_path / "pets"


# What is computed


@pytest.mark.parametrize("metric", ["top1", "map"])
def test_the_outcomes_add_up_to_the_reported_scores_and_intervals(metric: str) -> None:
    tally = tally_of(1, metric)
    measured = measure(tally, draws=60)["scores"]
    outcomes = item_outcomes(tally)
    assert outcomes.keys() == measured.keys()
    for name, of_score in outcomes.items():
        assert of_score.score() == pytest.approx(measured[name]["value"], abs=1e-12)
        zero = Outcomes(of_score.ids, np.zeros_like(of_score.values), lambda values, counts: np.zeros(len(counts)))
        found = paired_difference(of_score, zero, draws=60)
        assert (found.low, found.high) == pytest.approx((measured[name]["low"], measured[name]["high"]), abs=1e-12)


def test_the_outcomes_of_queries_add_up_to_the_reported_scores_and_intervals() -> None:
    random = np.random.default_rng(5)
    values = metrics.retrieval([np.sort(random.choice(30, random.integers(1, 4), replace=False)) for _ in range(25)])
    measured = retrieval_scores(values, draws=60)
    outcomes = query_outcomes([str(query) for query in range(25)], values)
    assert outcomes.keys() == measured.keys()
    for name, of_score in outcomes.items():
        assert of_score.score() == pytest.approx(measured[name]["value"], abs=1e-12)
        zero = Outcomes(of_score.ids, of_score.values, lambda values, counts: np.zeros(len(counts)))
        found = paired_difference(of_score, zero, draws=60)
        assert (found.low, found.high) == pytest.approx((measured[name]["low"], measured[name]["high"]), abs=1e-12)


@pytest.mark.parametrize("metric", ["top1", "map"])
def test_a_difference_is_bootstrapped_over_the_same_items_of_both(metric: str) -> None:
    one, other = tally_of(1, metric, missing=(3, 4)), tally_of(2, metric, missing=(4, 5, 6))
    common = [item for item in range(ITEMS) if item not in (3, 4, 5, 6)]
    rows = [[tally.ids.index(str(item)) for item in common] for tally in (one, other)]
    random = np.random.default_rng(0)
    draws = [random.integers(0, len(common), len(common)) for _ in range(50)]
    name = "map" if metric == "map" else "mean_per_class"

    def plain(tally: Tally, chosen: np.ndarray) -> float:
        """The score of some items, each as often as it is chosen, without the code under test."""
        if metric == "top1":
            correct, true = (tally.ranks() == 0)[chosen], tally.true()[chosen]
            return float(np.mean([correct[true == number].mean() for number in np.unique(true)]))
        precisions = metrics.average_precision(tally.scores()[chosen], tally.true()[chosen])
        return float(np.nanmean(precisions))

    rows_of = [np.array(of_one) for of_one in rows]
    expected = [plain(one, rows_of[0][draw]) - plain(other, rows_of[1][draw]) for draw in draws]
    found = paired_difference(item_outcomes(one)[name], item_outcomes(other)[name], draws=50)
    assert found.value == pytest.approx(plain(one, rows_of[0]) - plain(other, rows_of[1]), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])), abs=1e-12)
    assert (found.items, found.left_out) == (len(common), 3)  # an item without a result in both is not counted


def test_pairing_narrows_the_interval_of_two_models_that_err_alike() -> None:
    right = np.random.default_rng(3).random(400) < 0.6
    better = right.copy()
    better[np.flatnonzero(~right)[:12]] = True
    ids = [str(item) for item in range(400)]
    one, other = (
        query_outcomes(ids, metrics.retrieval([np.array([0 if found else 99]) for found in values]))["R@1"] for values in (better, right)
    )
    found = paired_difference(one, other, draws=500)
    assert found.value == pytest.approx(0.03)
    assert 0 < found.low < 0.03 < found.high < 0.05  # type: ignore[operator]  # unpaired, it would reach below 0
    assert metrics.interval(better * 1.0)[0] < metrics.interval(right * 1.0)[1]


def test_an_id_that_is_there_twice_is_paired_in_order() -> None:
    one = Outcomes(["a", "a", "b"], np.array([1.0, 0.0, 1.0]), lambda values, counts: counts @ values / counts.sum(axis=1))
    other = Outcomes(["b", "a", "a"], np.array([0.0, 1.0, 0.0]), one.statistic)
    assert paired_difference(one, other, 0) == (pytest.approx(1 / 3), None, None, 3, 0)
    with pytest.raises(ValueError, match="no item has a result in both"):
        paired_difference(one, Outcomes(["c"], np.ones(1), one.statistic), 0)


# From Python


def test_the_page_compares_two_models(pets: Path, tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(code_of("Compare models"), names)
    comparison = names["comparison"]
    assert list(comparison.results) == ["tiny", "mini"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "zero-shot,", "in", "percent", "tiny", "mini", "tiny", "-", "mini"]
    assert lines[1].startswith("top1 ")
    (pair,) = comparison.document["differences"]
    values = [result.report.scores["top1"]["value"] for result in comparison.results.values()]
    assert pair["scores"]["top1"]["value"] == pytest.approx(values[0] - values[1])
    assert (pair["scores"]["top1"]["items"], pair["scores"]["top1"]["left_out"]) == (8, 0)
    assert "<h1>image zero-shot</h1>" in Path("models.html").read_text()


def test_every_kind_of_evaluation_is_compared(pets: Path, tmp_path: Path, tiny: Any) -> None:
    trees.clotho(tmp_path / "clotho")
    truth, loaded = TruthOptions("folder"), {"one": tiny, "two": tiny}
    few = ReportOptions(top=1, draws=20)
    for run, modalities, metric in (
        (partial(few_shot, ["pets"], "image", truth, ProbeOptions(1)), ["image"], "top1"),
        (partial(run_suite, open_suite("clotho", tmp_path / "clotho")), ["audio", "text"], "R@1"),
    ):
        comparison = compare(run, loaded, report=few, modalities=modalities)
        (pair,) = comparison.document["differences"]
        assert pair["models"] == ["one", "two"]
        assert {value for score in pair["scores"].values() for value in (score["value"], score["low"], score["high"])} == {0.0}
        assert metric in pair["scores"]
        assert comparison.document["reports"][0].items() >= {"model": "one", "scores": comparison.document["reports"][1]["scores"]}.items()


def test_three_models_make_three_pairs(pets: Path, tiny: Any) -> None:
    classes = ClassOptions(labels=["cat", "dog"], templates="plain")
    run = partial(classify, ["pets"], "image", classes, TruthOptions("folder"))
    comparison = compare(run, {"a": tiny, "b": tiny, "c": tiny}, report=ReportOptions(draws=0))
    assert [pair["models"] for pair in comparison.document["differences"]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert comparison.columns() == ["a", "b", "c", "a - b", "a - c", "b - c"]
    assert all("(" not in cell for row in comparison.rows() for cell in row)  # without draws, no intervals


def test_what_cannot_be_compared_is_raised(pets: Path, tiny: Any) -> None:
    classes = ClassOptions(labels=["cat", "dog"], templates="plain")
    run = partial(classify, ["pets"], "image", classes, TruthOptions("folder"))
    for error, words, call in [
        (UsageError, "model tiny is given twice", lambda: compare(run, ["tiny", "tiny"])),
        (UsageError, "needs two models", lambda: compare(run, ["tiny"])),
        (UserError, "there is no truth", lambda: compare(partial(classify, ["pets"], "image", classes), {"a": tiny, "b": tiny})),
    ]:
        with pytest.raises(error, match=words):
            call()  # type: ignore[no-untyped-call]


def test_a_model_that_cannot_do_it_is_refused_before_the_first_runs(pets: Path, tiny: Any) -> None:
    runs: list[Any] = []
    with pytest.raises(UserError, match="no model 'none'"):
        compare(lambda **given: runs.append(given), {"a": tiny, "b": "none"}, modalities=["image"])  # type: ignore[arg-type,return-value]
    assert runs == []


def test_a_model_known_by_its_name_is_dropped_after_its_run(pets: Path, tiny: Any) -> None:
    from imagebind_cli.space import Space

    spaces = {"named": Space("tiny", device="cpu"), "given": Space(tiny)}
    classes = ClassOptions(labels=["cat", "dog"], templates="plain")
    compare(partial(classify, ["pets"], "image", classes, TruthOptions("folder")), spaces, report=ReportOptions(draws=0))
    assert "loaded" not in spaces["named"].__dict__
    assert spaces["given"].loaded is tiny


# What failed


class Log:
    """Keeps failures as `--errors` does."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def add(self, id: str, reason: str) -> None:
        self.failed[id] = reason

    def done(self, id: str) -> None:
        self.failed.pop(id, None)


def test_an_input_that_failed_for_one_model_is_left_out_and_stays_failed(pets: Path, tiny: Any) -> None:
    classes, heard, log = ClassOptions(labels=["cat", "dog"], templates="plain"), Notes(), Log()
    heard.failures = log
    broken = pets / "cat" / "0.png"
    whole = broken.read_bytes()

    def run(model: Any, **given: Any) -> Any:
        broken.write_bytes(whole if model.model is other else b"\x89PNG")  # as an input that one model cannot take
        return classify(["pets"], "image", classes, TruthOptions("folder"), model=model, **given)

    from imagebind_cli import load

    other = load("tiny", device="cpu")
    comparison = compare(run, {"a": tiny, "b": other}, report=ReportOptions(draws=10), listener=heard)
    score = comparison.document["differences"][0]["scores"]["top1"]
    assert (score["items"], score["left_out"], score["value"]) == (7, 1, 0.0)  # one model twice: equal on what both have
    assert heard.lines[-1] == "a - b: 1 item left out, which one of the two has no result for"
    assert (heard.done, heard.failed) == (15, 1)
    assert list(log.failed) == ["pets/cat/0.png"]
    assert log.failed["pets/cat/0.png"].endswith("(model a)")


# The command


def test_models_are_printed_side_by_side(imagebind: Run, pets: Path) -> None:
    (pets / "dog" / "torn.png").write_bytes(b"\x89PNG")
    given = ("zeroshot", "image", "pets", "--labels", "cat,dog", "--templates", "plain", "--truth", "folder", "--device", "cpu", "-k", 1)
    run = imagebind(*given, "--model", "tiny", "--model", "mini", "--report", "scores.json", "--html", "scores.html")
    assert run.code == 1  # as an input failed
    assert [(row["model"], row["id"]) for row in run.rows] == [
        (model, f"pets/{kind}/{number}.png")
        for model in ("tiny", "mini")
        for kind in ("cat", "dog")
        for number in range(kind == "dog", 8, 2)
    ]
    document = json.loads(Path("scores.json").read_text())
    assert document["models"] == ["tiny", "mini"] == [report["model"] for report in document["reports"]]
    for model, report in zip(document["models"], document["reports"], strict=True):
        alone = imagebind(*given, "--model", model, "--report", f"{model}.json")
        assert report == {"model": model, **json.loads(Path(f"{model}.json").read_text())}
        assert [{"model": model, **row} for row in alone.rows] == [row for row in run.rows if row["model"] == model]
    table = [line.removeprefix("imagebind: ") for line in run.notices if re.match(r"imagebind: (image zero-shot,|top1 )", line)]
    assert table[0].split("  ")[0] == "image zero-shot, in percent"
    value = 100 * document["differences"][0]["scores"]["top1"]["value"]
    assert f"{value:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0") in table[1]
    page = Path("scores.html").read_text()
    assert '<th class="number">tiny - mini</th>' in page
    replaced = imagebind(*given, "--model", "tiny", "--model", "mini", "--report", "-")
    assert json.loads(replaced.out)["differences"] == document["differences"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--model", "tiny"), "--model tiny: given twice; a comparison needs different models"),
        (("--model", "mini", "--plot", "a.png"), "--plot: works with one --model only"),
        (("--model", "mini", "--save-classes", "a.h5"), "--save-classes: works with one --model only"),
        (("--model", "mini", "--config", "a.json"), "--config: works with one --model only"),
        (("--model", "mini", "-"), "stdin can be read only once"),
    ],
)
def test_what_is_of_one_model_is_refused(imagebind: Run, pets: Path, words: tuple[str, ...], line: str) -> None:
    run = imagebind("zeroshot", "image", "pets", "--labels", "cat,dog", "--truth", "folder", "--model", "tiny", *words)
    assert (run.code, run.out) == (2, b"")
    assert line in run.err


def test_a_comparison_needs_truth_and_files(imagebind: Run, pets: Path) -> None:
    models = ("--model", "tiny", "--model", "mini", "--labels", "cat,dog")
    assert "give --truth or a --suite" in imagebind("zeroshot", "image", "pets", *models).err
    imagebind("embed", "image", "pets", "-o", "pets.h5", "--device", "cpu")
    refused = imagebind("zeroshot", "image", "pets.h5", *models, "--truth", "folder")
    assert (refused.code, refused.out) == (2, b"")
    assert "pets.h5: a store holds the vectors of one model" in refused.err


def test_the_variable_of_the_model_is_one_name_with_its_spaces(imagebind: Run, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_MODEL", "no such folder")
    run = imagebind("zeroshot", "image", "pets", "--labels", "cat,dog")
    assert "'no such folder'" in run.err
    monkeypatch.delenv("IMAGEBIND_MODEL")
    Path("imagebind.toml").write_text('model = "tiny"\n')
    assert len(imagebind("zeroshot", "image", "pets", "--labels", "cat,dog", "--device", "cpu").rows) == 8
    Path("imagebind.toml").write_text('[zeroshot]\nmodel = ["tiny", "mini"]\n')
    several = imagebind("zeroshot", "image", "pets", "--labels", "cat,dog", "--truth", "folder", "--device", "cpu")
    assert len(several.rows) == 16


def test_a_listener_is_optional(pets: Path, tiny: Any) -> None:
    classes = ClassOptions(labels=["cat", "dog"], templates="plain")
    run = partial(classify, ["pets"], "image", classes, TruthOptions("folder"))
    seen: list[str] = []
    compare(run, {"a": tiny, "b": tiny}, report=ReportOptions(draws=0), output=lambda name, rows: seen.append(name), listener=Listener())
    assert set(seen) == {"a", "b"}
