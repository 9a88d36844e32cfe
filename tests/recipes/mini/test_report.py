"""recipes/mini/report: from the same measurements it writes the report, byte for byte, that the program before its tables were data wrote.

tests/data/mini-report.md was written by that program from the measurements that are made up here; its section "Where, when, and apart" came later.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "mini" / "report"))

import report
from measured import Measured, write_rows

EXPECTED = Path(__file__).parents[2] / "data" / "mini-report.md"
CLASSES, ACTIVITIES = ["dog", "rain", "bell"], ["walking", "standing", "sitting", "lying"]
CONCEPTS = [f"concept {number}" for number in range(20)]
RUNS = (
    "image-text", "audio", "audio-shuffled", "audio-without-esc10-1-0", "audio-without-esc10-1-1", "audio-without-esc10-2-0",
    "audio-without-esc10-4-0", "imu-0", "imu-1", "imu-2", "imu-shuffled", "depth-0", "depth-1", "depth-shuffled", "thermal-0", "roadscene-0",
    "roadscene-2", "ablation-temperature-0", "ablation-temperature-1", "ablation-learnt-0", "ablation-mlp-0", "ablation-pairs-imu-0",
    "ablation-concepts-imu-0", "ablation-temperature-depth-0", "ablation-temperature-depth-1", "ablation-concepts-depth-0",
    "ablation-apart-0",
)  # fmt: skip


def write_manifest(path: Path, modalities: Iterable[str], labels: Iterable[str]) -> None:
    rows = (
        {"id": f"{path.stem}-{number}", "label": label, "name": f"name {label}", **{m: f"{m}/{number}" for m in modalities}}
        for number, label in enumerate(labels)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Manifests, names and runs; imu-2 stopped halfway, imu-1 and thermal-0 are finished, of the others only the model is there."""
    data = tmp_path / "data"
    for folder in ("drawings", "sounds", "motion", "furniture", "thermal", "roadscene"):
        (data / folder).mkdir(parents=True)
    for name in ("fxemoji", "openmoji", "unseen"):
        write_manifest(data / "drawings" / f"{name}.jsonl", ["image"], CONCEPTS)
    for fold in (1, 2, 3, 4):
        write_manifest(data / "sounds" / f"test-esc10-{fold}.jsonl", ["audio"], CLASSES * 2)
        write_manifest(data / "sounds" / f"esc10-{fold}.jsonl", ["audio"], CLASSES * (2 + fold))
    for name in ("test-soundfont", "test-real", "instruments"):
        write_manifest(data / "sounds" / f"{name}.jsonl", ["audio"], CLASSES * 4)
    for name in ("ceiling-esc10", "ceiling-instruments"):
        write_manifest(data / "sounds" / f"{name}.jsonl", ["image"], CLASSES)
    write_manifest(data / "motion" / "test.jsonl", ["imu"], ACTIVITIES * 3)
    write_manifest(data / "motion" / "train.jsonl", ["imu"], [*ACTIVITIES * 3, "running", "running"])
    write_manifest(data / "motion" / "ceiling.jsonl", ["image"], ACTIVITIES)
    for name in ("test-named", "test-one", "train"):
        write_manifest(data / "furniture" / f"{name}.jsonl", ["image", "depth"], ["chair", "table"] * 3)
    write_manifest(data / "furniture" / "test-names.jsonl", ["image", "depth"], ["name chair", "name table"])
    write_manifest(data / "thermal" / "test.jsonl", ["image", "thermal"], CLASSES)
    for block in range(3):
        write_manifest(data / "roadscene" / f"test-{block}.jsonl", ["image", "thermal"], CLASSES)
    names = {
        "drawings/seen": CONCEPTS,
        "drawings/unseen": CONCEPTS[:15],
        "sounds/names-esc10": CLASSES,
        "sounds/names-instruments": CLASSES,
        "motion/names": {name: name for name in ACTIVITIES},
        "motion/names-other-words": {name: f"a person {name}" for name in ACTIVITIES},
        "furniture/names-short": ["chair", "table"],
        "furniture/names-all": ["name chair", "name table", *CONCEPTS],
    }
    for name, value in names.items():
        (data / f"{name}.json").write_text(json.dumps(value))
    for run in RUNS:
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "config.json").write_text("{}")
    for run, finished in (("imu-1", True), ("imu-2", False), ("thermal-0", True)):
        (tmp_path / "runs" / run / "run.json").write_text("{}")
        checkpoints = tmp_path / "runs" / run / "checkpoints"
        checkpoints.mkdir()
        progress = json.dumps({"step": 3, "finished": finished})
        save_file({"weights/a": torch.zeros(1)}, checkpoints / "step-00000003.safetensors", metadata={"progress": progress})
    write_rows({"name, shares": Measured(61.0, 55.5, 66.04, 11.11, 12.34, 300)}, tmp_path / "scores" / "locate.json")
    write_rows({"its name": Measured(7.25, 6.5, 8.0, 1.5, -9.75, 200)}, tmp_path / "separate-4" / "scores.json", held_out=4)
    return tmp_path


def commands(work: Path, log: list[list[str]]) -> Callable[..., str]:
    """A stand-in for `imagebind`, whose scores follow from its arguments."""

    def imagebind(*arguments: str | Path) -> str:
        given = list(map(str, arguments))
        args = ["templates.txt" if arg.endswith("/templates.txt") else arg.replace(str(work), "WORK") for arg in given]
        log.append(args)

        def share(key: str) -> float:
            return int(hashlib.sha256(json.dumps([args, key]).encode()).hexdigest()[:6], 16) / 0xFFFFFF

        def score(key: str) -> dict[str, float]:
            value = share(key)
            return {"value": value, "low": 0.9 * value, "high": 0.9 * value + 0.1, "chance": share(f"chance of {key}")}

        def after(flag: str) -> Path:
            return Path(given[given.index(flag) + 1])

        if args[0] == "embed":
            after("-o").write_bytes(after("--manifest").read_bytes())
        elif args[0] == "zeroshot":
            after("--report").write_text(json.dumps({"scores": {"top1": score("top1"), "mean_per_class": score("mean")}}))
            if "--plot" in given:
                after("--plot").write_text(" ".join(args))
        else:
            sides = [Path(store).stem.split("-")[0] for store in given[1:3]]
            pairs = after("--pairs").read_text()
            directions = [
                {
                    "query": {"modality": query},
                    "target": {"modality": target},
                    **{f"R@{k}": score(f"{query} {k} {pairs}") for k in (1, 5, 10)},
                }
                for query, target in (sides, sides[::-1])
            ]
            return json.dumps({"directions": directions})
        return ""

    return imagebind


def test_the_report_is_what_it_was(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[list[str]] = []
    monkeypatch.setattr(report, "imagebind", commands(work, log))
    report.main(work, work / "mini-report.md")
    assert (work / "mini-report.md").read_text() == EXPECTED.read_text()
    figures = sorted((work / "mini-report").glob("*.png"))
    assert [f"![{path.stem}](mini-report/{path.name})" for path in figures] == EXPECTED.read_text().splitlines()[-len(figures) :]
    assert "imu-2" not in json.dumps(log)  # it has not finished
    embedded = [args for args in log if args[:2] == ["embed", "depth"]]
    assert embedded
    assert all(args[-4:] == ["--depth-format", "mm", "--focal", "150"] for args in embedded)


def test_a_second_report_measures_nothing_anew(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[list[str]] = []
    monkeypatch.setattr(report, "imagebind", commands(work, log))
    report.main(work, work / "mini-report.md")
    first = len(log)
    assert first > 100
    report.main(work, work / "mini-report.md")
    assert len(log) == first
    assert (work / "mini-report.md").read_text() == EXPECTED.read_text()


def test_the_committed_report_has_every_test_and_search_of_the_plan() -> None:
    page = (Path(__file__).parents[3] / "docs" / "mini-report.md").read_text()
    plan = report.read_plan(report.HERE / "report.toml")
    for section in plan.sections:
        assert section.text.strip() in page
        assert all(f"\n| {test.title} | " in page for test in section.tests)
        assert all(f"\n| {search.title}: " in page for search in section.searches)
        assert all(f"\n| {use.title} | " in page for use in section.uses)


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [(("bar = 0.60", "bars = 0.60"), TypeError, "bars"), (('items = "fxemoji"', 'items = "fxemojis"'), KeyError, "fxemojis")],
)
def test_a_plan_with_a_mistake_is_refused(tmp_path: Path, change: tuple[str, str], error: type[Exception], why: str) -> None:
    text = (report.HERE / "report.toml").read_text()
    assert change[0] in text
    (tmp_path / "report.toml").write_text(text.replace(*change))
    with pytest.raises(error, match=why):
        report.read_plan(tmp_path / "report.toml")
