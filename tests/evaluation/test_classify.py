"""Classification from Python: docs/python.md as it stands, every protocol without a terminal, and the hint where a probe scores too low."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import load
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation import ClassOptions, ProbeOptions, ReportOptions, TruthOptions, classify, few_shot, open_suite, run_suite
from imagebind_cli.events import Listener
from imagebind_cli.store import open_store
from tests import generate, trees
from tests.conftest import Run
from tests.stores import store, unit_rows

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
PETS = ["pets/cat/0.png", "pets/cat/1.png", "pets/dog/2.png"]


class Notes(Listener):
    """Keeps what it hears of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in a folder for each class, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(PETS):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        generate.picture(Path(path), number)
    return tmp_path / "pets"


def code_of(title: str) -> str:
    """The first example in a section of the page."""
    found: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0], re.DOTALL)
    return found[0]


def test_the_page_classifies_as_the_command_does(pets: Path, tiny: Any, capsys: pytest.CaptureFixture[str], imagebind: Run) -> None:
    names: dict[str, Any] = {"model": tiny}
    exec(code_of("Classify with a report"), names)
    lines = capsys.readouterr().out.splitlines()
    given = ("zeroshot", "image", "pets", "--model", "tiny", "--device", "cpu", "--labels", "cat,dog", "--templates", "plain", "-k", 1)
    run = imagebind(*given, "--truth", "folder", "--report", "scores.json")
    assert run.rows == [row.as_json() for row in names["result"].rows]
    assert [line.split()[0] for line in lines[:3]] == PETS
    assert f"imagebind: {lines[3]}" in run.notices
    report = json.loads(Path("scores.json").read_text())
    assert names["result"].report.scores == report["scores"]
    assert names["result"].report.confusion.tolist() == report["confusion"]
    assert "<h1>image zero-shot</h1>" in Path("scores.html").read_text()


def test_a_folder_becomes_a_report_without_a_terminal(pets: Path) -> None:
    (pets / "cat" / "torn.png").write_bytes(b"\x89PNG")
    code = code_of("From a folder to a report")
    assert len(code.splitlines()) <= 16
    check = "\nimport sys\nassert not {'typer', 'rich', 'imagebind_cli.cli'} & set(sys.modules)\n"
    for counts in ("3 1 0", "0 0 3"):  # the second run finds its store, and leaves what failed
        done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == counts
        assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
        assert [line.split()[0] for line in lines[3:6]] == PETS
        assert lines[6].startswith("image zero-shot: 3 items, top1 ")


def test_labels_and_truth_may_be_python_objects(pets: Path, tiny: Any) -> None:
    truth = TruthOptions({path: [path.split("/")[1]] for path in PETS})
    classes = ClassOptions({"cat": ["cat", "kitten"], "dog": "dog"}, templates="plain")
    seen: list[Any] = []
    result = classify(PETS, "image", classes, truth, model=tiny, report=ReportOptions(top=2, draws=0), output=seen.extend)
    assert result.rows == []
    assert [row.id for row in seen] == PETS
    assert result.report
    assert result.report.is_complete
    assert result.report.classes == ["cat", "dog"]
    assert result.report.scores["top1"].keys() == {"value", "chance"}
    assert classify(PETS, "image", classes, model=tiny).report is None


def test_what_cannot_be_done_is_raised(pets: Path, tiny: Any) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        ClassOptions(labels="a,b", classes="c.h5")
    with pytest.raises(UsageError, match="unknown --metric 'f1'"):
        TruthOptions("folder", metric="f1")
    for error, words, call in [
        (UsageError, "name the classes: ", lambda: classify(PETS, "image", ClassOptions(), model=tiny)),
        (UserError, "files have none", lambda: classify(PETS, "image", ClassOptions("a,b"), TruthOptions("kind"), model=tiny)),
        (UserError, "1 class; at least two", lambda: classify(PETS, "image", ClassOptions(["a"]), model=tiny)),
        (UserError, "is not a name or a list", lambda: classify(PETS, "image", ClassOptions([1, 2]), model=tiny)),
        (UsageError, "give --truth", lambda: few_shot(PETS, "image", TruthOptions(), ProbeOptions(1), model=tiny)),
        (UsageError, "--shots: the number", lambda: few_shot(PETS, "image", TruthOptions("folder"), ProbeOptions(), model=tiny)),
    ]:
        with pytest.raises(error, match=words):
            call()  # type: ignore[no-untyped-call]


def test_a_suite_runs_from_python(tmp_path: Path, tiny: Any) -> None:
    trees.esc50(tmp_path / "esc50")
    suite, plain = open_suite("esc50", tmp_path / "esc50"), ClassOptions(templates="plain")
    result = run_suite(suite, classes=plain, model=tiny, report=ReportOptions(draws=0))
    assert result.report
    assert result.report.title == "esc50 zero-shot"
    assert result.report.document["published"] == {"top1": 66.9}
    assert [row.id for row in result.rows] == [item.id for item, _, _ in suite.items()]
    with pytest.raises(UsageError, match="a probe does not use class options"):
        run_suite(suite, classes=plain, probe=ProbeOptions(1), model=tiny)
    trees.clotho(tmp_path / "clotho")
    captions = open_suite("clotho", tmp_path / "clotho")
    found = run_suite(captions, model=tiny, report=ReportOptions(top=1, draws=0))
    assert [row.id for row in found.rows] == [id for id, _, _ in captions.captions]
    with pytest.raises(UsageError, match="nothing is classified"):
        run_suite(captions, probe=ProbeOptions(1), model=tiny)


# A probe that knows less than the names


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    """`items.h5` of the tiny model: ten items of each of two classes, near the vectors of the class names."""
    monkeypatch.chdir(tmp_path)
    rows = tiny.embed("text", ["ant", "bee"]).repeat(10, axis=0)
    rows = rows + 0.05 * unit_rows(20, rows.shape[1])
    ids = [f"{name}/{number}" for name in ("ant", "bee") for number in range(10)]
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    store(Path("items.h5"), ids=ids, vectors=vectors, **tiny.record("audio"))


@pytest.mark.usefixtures("named")
def test_a_probe_below_the_names_gets_a_hint(tiny: Any) -> None:
    notes, truth = Notes(), TruthOptions("folder")
    untrained = ProbeOptions(shots=1, learning_rate=0)  # every item is of the first class
    result = few_shot(["items.h5"], "audio", truth, untrained, labels=["ant", "bee"], model=tiny, listener=notes)
    assert result.report
    assert result.report.scores["top1"]["value"] == 0.5
    assert result.report.document["zero_shot"] == {"top1": 1.0}
    hint = "audio 1-shot: zero-shot is better, with 100.0 % of the same items: try more examples (--shots), or train for longer"
    assert notes.lines[-1].startswith(hint)
    trained = few_shot(["items.h5"], "audio", truth, ProbeOptions(1), labels=["ant", "bee"], model=tiny, listener=(more := Notes()))
    assert trained.report
    assert trained.report.scores["top1"]["value"] == 1
    assert not any("zero-shot is better" in line for line in more.lines)
    unnamed = few_shot(["items.h5"], "audio", truth, untrained, model=tiny)
    assert unnamed.report
    assert "zero_shot" not in unnamed.report.document


@pytest.mark.usefixtures("named")
def test_a_probe_needs_no_model_to_be_compared_with(tiny: Any) -> None:
    made = {**tiny.record("audio"), "model": "gone"}
    reader = open_store("items.h5")
    store(Path("other.h5"), ids=reader.ids, vectors=reader.vectors(), **made)
    notes = Notes()
    result = few_shot(["other.h5"], "audio", TruthOptions("folder"), ProbeOptions(1), labels="ant,bee", listener=notes)
    assert result.report
    assert any(line.startswith("not compared with zero-shot: no model 'gone'") for line in notes.lines), notes.lines


@pytest.mark.usefixtures("named")
def test_a_probe_on_a_store_loads_the_text_encoder_alone_and_only_for_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("tiny", device="cpu")
    few_shot(["items.h5"], "audio", TruthOptions("folder"), ProbeOptions(1), labels=["ant", "bee"], model=model)
    assert set(model._encoders) == {"text"}
    monkeypatch.setattr("imagebind_cli.model.load", lambda *arguments, **options: pytest.fail("a model was loaded"))
    assert few_shot(["items.h5"], "audio", TruthOptions("folder"), ProbeOptions(1)).report
