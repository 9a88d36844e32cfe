"""Models inside mteb: its own conformance run, its registry, and tasks on files. All in this file, since mteb takes seconds to import."""

import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

import imagebind_cli as ib
from imagebind_cli.errors import UsageError
from tests import generate
from tests.integrations.test_documentation import examples
from tests.later import Later, needs

datasets, mteb, task_result = Later("datasets"), Later("mteb"), Later("mteb.results.task_result")
integration, tasks = Later("imagebind_cli.integrations.mteb"), Later("imagebind_cli.integrations.mteb_tasks")

pytestmark = [
    needs("mteb"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),  # mock tasks have two rows
    pytest.mark.filterwarnings("ignore:An input array is constant"),
    pytest.mark.filterwarnings("ignore::FutureWarning:sklearn.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:mteb.*"),  # about its own mock data
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mteb.*"),
]


@pytest.fixture(scope="module")
def model():
    return ib.load("tiny", device="cpu")


def as_wav(self, sound):
    """Encode a sound of the mock tasks, for which `datasets` would need torchcodec."""
    file = io.BytesIO()
    soundfile.write(file, sound["array"], sound["sampling_rate"], format="WAV", subtype="FLOAT")
    return {"bytes": file.getvalue(), "path": None}


def test_conformance(model, monkeypatch):
    if find_spec("torchcodec") is None:
        monkeypatch.setattr(datasets.Audio, "encode_example", as_wav)
    datasets.disable_progress_bars()
    results = mteb.mock_run(integration.MTEBEncoder("imagebind-cli/tiny", model=model))
    ran = {name: status for name, status in results.items() if status is not None}
    assert {name: status.exception for name, status in ran.items() if isinstance(status, task_result.TaskError)} == {}
    assert len(ran) >= 60
    assert [status for status, _, _ in results.modality_summary() if not status.startswith("✓")] == []


def test_the_registry_has_the_models():
    meta = mteb.get_model_meta("imagebind-cli/mini")
    assert meta.modalities == ["text", "image", "audio", "video"]
    assert meta.embed_dim == ib.load("mini", device="cpu").dim
    assert mteb.get_model_meta("imagebind-cli/huge").license == "cc-by-nc-sa-4.0"


@pytest.fixture
def rooms(tmp_path):
    for number, name in enumerate(["living_room", "office"]):
        (tmp_path / "rooms" / name).mkdir(parents=True)
        for seed in range(2):
            generate.depth(tmp_path / "rooms" / name / f"{seed}.npy", seed=10 * number + seed)
    return tmp_path / "rooms"


@pytest.fixture
def walks(tmp_path):
    rows = [{"imu": generate.imu(tmp_path / f"{seed}.csv", seed=seed).name, "text": f"walk {seed // 2}"} for seed in range(4)]
    (tmp_path / "walks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "walks.jsonl"


def test_zero_shot_on_a_folder_equals_cosines(model, rooms):
    (result,) = integration.run_tasks(model, [f"depth={rooms}"])
    paths = sorted(rooms.rglob("*.npy"))
    best = (model.embed("depth", paths) @ model.embed("text", ["living room", "office"]).T).argmax(axis=1)
    assert (result["task"], result["main_score"]) == ("DepthZeroShot.rooms", "accuracy")
    assert result["score"] == pytest.approx(np.mean(best == [0, 0, 1, 1]))


def test_retrieval_shares_the_documents_of_equal_queries(model, walks):
    task = tasks.file_task(f"text-imu={walks}")
    task.load_data()
    assert task.dataset["default"]["test"]["relevant_docs"] == {"q0": {"d0": 1, "d1": 1}, "q1": {"d2": 1, "d3": 1}}
    results = list(integration.run_tasks(model, [f"text-imu={walks}", f"imu-text={walks}"]))
    assert [result["task"] for result in results] == ["TextToImu.walks", "ImuToText.walks"]
    assert all(0 < result["score"] <= 1 for result in results)
    scores = model.embed("imu", sorted(walks.parent.glob("*.csv"))) @ model.embed("text", ["walk 0", "walk 1"]).T
    first = np.mean(scores.argmax(axis=1) == [0, 0, 1, 1])
    assert results[1]["scores"]["test"][0]["hit_rate_at_1"] == pytest.approx(first)


def test_a_bad_file_fails_its_task_alone(model, rooms, walks, capsys):
    (rooms / "office" / "0.npy").write_bytes(b"torn")
    code = integration.print_rows(integration.run_tasks(model, [f"depth={rooms}", f"imu-text={walks}"]))
    out, err = capsys.readouterr()
    assert code == 1
    assert [json.loads(line)["task"] for line in out.splitlines()] == ["ImuToText.walks"]
    assert "DepthZeroShot.rooms: depth of row 2: " in err


def test_wrong_tasks_are_one_line(tmp_path, rooms):
    with pytest.raises(UsageError, match="unknown modality 'deep'"):
        tasks.file_task(f"deep={rooms}")
    with pytest.raises(ib.UserError, match="no such folder"):
        tasks.file_task("depth=nowhere")
    with pytest.raises(ib.UserError, match="is a folder; pairs"):
        tasks.file_task(f"text-depth={rooms}")
    with pytest.raises(ib.UserError, match="at least 2"):
        tasks.file_task(f"depth={rooms / 'office'}")
    with pytest.raises(ib.UserError, match="no task 'NoSuch'"):
        list(integration.run_tasks(ib.load("tiny", device="cpu"), ["NoSuch"]))


def test_the_command(monkeypatch, capsys, rooms):
    monkeypatch.setattr(
        sys, "argv", ["mteb", "run", f"depth={rooms}", "--model", "tiny", "--device", "cpu", "--cache", str(rooms.parent / "cache")]
    )
    assert integration.run_command() == 0
    assert json.loads(capsys.readouterr().out)["task"] == "DepthZeroShot.rooms"
    assert list(Path(rooms.parent / "cache").rglob("DepthZeroShot*.json"))
    monkeypatch.setattr(sys, "argv", ["mteb", "models"])
    assert integration.run_command() == 0
    assert {"model": "imagebind-cli/mini"} in [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_example_runs(rooms, monkeypatch, capsys):
    monkeypatch.chdir(rooms.parent)
    exec(compile(examples("mteb")[0], "docs/integrations.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.splitlines()[1] == "['text', 'image', 'audio', 'video']"
