"""The shell pipelines of recipes/pipelines, each as cron runs it: no HOME, no TERM, no terminal, only a PATH."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagebind_cli.store import is_store, open_store
from tests import generate
from tests.forkserver import read_once

PIPELINES = Path(__file__).parents[2] / "recipes" / "pipelines"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ([a-z0-9 ]*)exit (\d+): (.+)")


@pytest.fixture
def folder(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and `imagebind` on the PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


def as_cron(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a pipeline with nothing around it."""
    kept = read_once(os.environ) | {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    given = [f"{name}={value}" for name, value in {**kept, "IMAGEBIND_MODEL": "tiny", **environment}.items()]
    command = ["env", "-i", *given, PIPELINES / script, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def run(script: str, *arguments: object, **environment: str) -> int:
    """Exit code of a pipeline that says nothing of its own."""
    process = as_cron(script, *arguments, **environment)
    assert process.communicate(timeout=100) == ("", "")
    return process.returncode


def log(path: str) -> list[tuple[str, str, str]]:
    """What each line of a log says: the step, the exit code, and the words."""
    matches = [LINE.fullmatch(line) for line in Path(path).read_text().splitlines()]
    assert all(matches)
    return [(match[1].strip(), match[2], match[3]) for match in matches if match]


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def pictures(folder: Path, *seeds: int) -> None:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        generate.picture(folder / f"{seed}.png", seed)


def test_every_pipeline_says_how_it_is_called(folder: Path) -> None:
    scripts = sorted(PIPELINES.glob("*.sh"))
    assert len(scripts) == 5
    for script in scripts:
        process = as_cron(script.name)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err.startswith(f"usage: {script.name} ")) == (2, True)
        head = script.read_text().split("set -u")[0]
        assert script.name in head.split("\n\n")[0]
        assert "Exit code: " in head


def test_nightly_embeds_what_is_new_and_tells_a_failure_once(folder: Path) -> None:
    pictures(folder / "photos", 1, 2)
    assert run("nightly.sh", "image", "photos", "photos.h5") == 0
    pictures(folder / "photos", 3)
    (folder / "photos" / "4.png").write_text("half a picture")
    assert [run("nightly.sh", "image", "photos", "photos.h5") for _ in range(2)] == [1, 1]
    said = [words.partition(" (")[0] for _, _, words in log("photos.log")]
    assert said == [
        "imagebind: photos.h5: 2 embedded",
        "imagebind: photos.h5: 1 embedded, 1 failed, 2 there already",
        "imagebind: photos.h5: 0 embedded, 3 there already, 1 failed before",
    ]
    assert [code for _, code, _ in log("photos.log")] == ["0", "1", "1"]
    assert json.loads((folder / "photos.errors.jsonl").read_text())["id"] == "photos/4.png"
    assert len(open_store("photos.h5")) == 3


def test_nightly_on_a_store_of_another_kind_is_refused_in_the_log(folder: Path) -> None:
    (folder / "photos.h5").write_text("no store")
    pictures(folder / "photos", 1)
    assert run("nightly.sh", "image", "photos", "photos.h5") == 1
    ((_, code, words),) = log("photos.log")
    assert code == "1"
    assert words.startswith("imagebind: photos.h5: not a store of imagebind embed")


def test_two_machines_make_the_same_vectors_as_one(folder: Path) -> None:
    pictures(folder / "photos", 1, 2, 3)
    for _ in range(2):
        assert run("two-machines.sh", "prepare", "image", "photos", "shards/") == 0
        assert run("two-machines.sh", "embed", "image", "shards/", "photos.h5") == 0
    assert [words.partition(" (")[0].rpartition(": ")[2] for _, _, words in log("photos.log")] == [
        "3 embedded",
        "0 embedded, 3 there already",
    ]
    assert [step for step, _, _ in log("shards.log")] == ["prepare", "prepare"]
    assert run("nightly.sh", "image", "photos", "direct.h5") == 0
    one, two = open_store("direct.h5"), open_store("photos.h5")
    assert one.ids == two.ids
    assert two.vectors() == pytest.approx(one.vectors(), abs=1e-6)
    process = as_cron("two-machines.sh", "elsewhere", "image", "a", "b")
    assert process.communicate(timeout=20) == ("", "two-machines.sh: unknown step 'elsewhere'; choose prepare or embed\n")
    assert process.returncode == 2


def test_a_job_array_divides_and_joins(folder: Path) -> None:
    pictures(folder / "photos", *range(8))
    task = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "2"}
    for number in ("1", "2"):
        assert run("job-array.sh", "image", "photos", "photos.h5", SLURM_ARRAY_TASK_ID=number, **task) == 0
    assert [run("job-array.sh", "image", "photos", "photos.h5") for _ in range(2)] == [0, 0]
    assert sorted(open_store("photos.h5").ids) == [f"photos/{number}.png" for number in range(8)]
    steps, codes, words = zip(*log("photos.log"), strict=True)
    assert (steps, set(codes)) == (("task 1", "task 2", "merge", "merge"), {"0"})
    assert "photos.h5: 8 added" in words[2]
    assert "photos.h5: 0 added, 8 there already" in words[3]


@pytest.fixture
def watching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """watch.sh on the folder `in`, ended with the test if it still runs."""
    pictures(folder / "in", 1)
    os.utime(folder / "in" / "1.png", (1, 1))  # moved in, and old
    process = as_cron("watch.sh", "image", "in", "photos.h5", SETTLE_SECONDS="1")
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_watch_embeds_what_comes_until_it_is_ended(folder: Path, watching: subprocess.Popen[str]) -> None:
    wait_until(lambda: is_store("photos.h5") and len(open_store("photos.h5")) == 1)
    pictures(folder / "in", 2)
    (folder / "in" / "late.png").write_bytes(b"half")
    wait_until(lambda: len(open_store("photos.h5")) == 2)
    wait_until(lambda: "late.png" in (folder / "photos.errors.jsonl").read_text())
    generate.picture(folder / "in" / "late.png")
    wait_until(lambda: len(open_store("photos.h5")) == 3)
    watching.send_signal(signal.SIGTERM)
    assert watching.communicate(timeout=20) == ("", "")
    assert watching.returncode == 143
    ((_, code, words),) = log("photos.log")
    assert code == "143"
    assert words.startswith("imagebind: photos.h5: 3 embedded, 1 failed")
    assert words.endswith("stopped: run the same command to continue from here")
    assert (folder / "photos.errors.jsonl").read_text() == ""


def test_search_links_the_nearest_files_best_first(folder: Path) -> None:
    pictures(folder / "odd names", *range(12))
    assert run("nightly.sh", "image", "odd names", "photos.h5") == 0
    assert run("search.sh", "photos.h5", "a dog on a beach", "found") == 0
    links = sorted((folder / "found").iterdir())
    assert [link.name[:3] for link in links] == [f"{number:02}-" for number in range(1, 11)]
    found = [link.resolve().relative_to(folder.resolve()) for link in links]
    answers = subprocess.run(
        ["imagebind", "retrieve", "photos.h5", "--text", "a dog on a beach", "--model", "tiny"], capture_output=True, text=True, check=True
    )
    assert [str(path) for path in found] == [json.loads(line)["id"] for line in answers.stdout.splitlines()]
    assert run("search.sh", "none.h5", "a dog", "found") == 1
    assert log("none.log")[0][1:] == ("1", "imagebind: none.h5: no such store")
    assert log("photos.log")[-1][1:] == ("0", "10 found for 'a dog on a beach'")
