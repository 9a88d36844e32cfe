"""The commands without what Windows and macOS lack; `sitecustomize.py` beside this takes it away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagebind_cli.store import FORMATS, open_store
from tests import generate
from tests.forkserver import PROJECT, Forked, OwnForkServer

HERE = Path(__file__).parent
Command = Callable[..., "subprocess.CompletedProcess[bytes]"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it takes from Linux what the others lack")


@pytest.fixture(scope="module")
def deprived_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE, PROJECT, PROJECT / "compat"))))
        server = OwnForkServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def start(deprived_server: OwnForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Forked]]:
    """Start `imagebind ARGUMENTS` where the test's files are."""
    started: list[Forked] = []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE, PROJECT, PROJECT / "compat"))))
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Forked:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started.append(Forked([sys.executable, "-m", "imagebind_cli", *map(str, words)], server=deprived_server, **streams))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start: Callable[..., Forked]) -> Command:
    """Run `imagebind ARGUMENTS` to its end."""

    def finish(words: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        process = start(*words.split())
        out, err = process.communicate(stdin)
        assert process.returncode == code, err.decode()
        assert b"Traceback" not in err, err.decode()
        return subprocess.CompletedProcess(words, code, out, err)

    return finish


def test_the_package_lacks_what_windows_lacks(deprived_server: OwnForkServer, start: Callable[..., Forked]) -> None:
    code = (
        "from imagebind_cli import descriptors, signals; print(descriptors.WINDOWS, *signals.ENDING); descriptors.open_descriptor('/', 0)"
    )
    process = Forked([sys.executable, "-c", code], server=deprived_server, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert out.decode() == "True 2 15\n"
    assert b"PermissionError" in err


@pytest.mark.parametrize("ending", FORMATS)
def test_a_store_grows_and_is_compacted(run: Command, tmp_path: Path, ending: str) -> None:
    sentences = ["a dog", "a cat", "a car"]
    run(f"embed text - -o s{ending} --model tiny", b"a dog\na cat\n")
    run(f"embed text - -o s{ending} --model tiny", "\n".join(sentences).encode())
    assert open_store(tmp_path / f"s{ending}").ids == sentences
    run(f"store check s{ending}")
    run(f"store compact s{ending}", code=int(not FORMATS[ending].rewritable))
    run(f"store merge s{ending} -o t{ending}")
    assert open_store(tmp_path / f"t{ending}").ids == sentences
    assert not list(tmp_path.glob(".*")) + list(tmp_path.glob("*.journal"))


def test_a_second_writer_is_refused_until_the_first_is_killed(run: Command, start: Callable[..., Forked], tmp_path: Path) -> None:
    for ending in ("h5", "store"):
        command = f"embed text - -o s.{ending} --model tiny"
        first = start(*command.split())
        assert first.stdin is not None
        first.stdin.write(b"a dog\n")
        first.stdin.flush()
        lock = tmp_path / ("s.h5.journal" if ending == "h5" else "s.store/commits")
        while not lock.exists() or (ending == "h5" and not lock.stat().st_size):
            assert first.poll() is None
        assert b"another run is writing to it" in run(command, b"a cat\n", code=1).stderr
        first.kill()
        first.communicate()
        run(command, b"a dog\na cat\n")
        assert open_store(tmp_path / f"s.{ending}").ids == ["a dog", "a cat"]


def test_files_of_every_kind_are_read_and_searched(run: Command, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        generate.picture(tmp_path / "pictures" / f"{seed}.png", seed)
    run("embed image pictures -o pictures.h5 --model tiny")
    assert open_store(tmp_path / "pictures.h5").ids == ["pictures/0.png", "pictures/1.png", "pictures/2.png"]
    for modality in ("audio", "depth", "imu"):
        source = Path(generate.sample(modality, tmp_path)).name
        run(f"embed {modality} {source} -o {modality}.store --model tiny")
    assert run("retrieve pictures.h5 --text dog --model tiny -k 2 --html page.html").stdout.count(b"\n") == 2
    run("preprocess image pictures -o prepared.h5 --model tiny")
    generate.picture(tmp_path / "pictures" / "3.png", 3)
    run("preprocess image pictures -o prepared.h5 --model tiny")
    run("preprocess image pictures -o prepared-%06d.tar --model tiny")
    run("embed image prepared.h5 -o again.h5 --model tiny")
    assert len(open_store(tmp_path / "again.h5")) == 4
    run("doctor --quick" if b"--quick" in run("doctor --help").stdout else "doctor")


def test_a_stream_is_embedded_as_it_comes(run: Command) -> None:
    sound = bytes(2 * 16_000 * 5)
    assert run("embed audio - --live --format s16le --rate 16000 --model tiny", sound).stdout.count(b"\n") >= 2


def test_a_run_trains_with_a_worker(run: Command, tmp_path: Path) -> None:
    with open(tmp_path / "rows.jsonl", "w") as rows:
        for seed in range(4):
            row = {
                "image": generate.picture(tmp_path / f"{seed}.png", seed, (64, 48)).name,
                "depth": generate.depth(tmp_path / f"{seed}.npy", seed).name,
            }
            rows.write(json.dumps({"id": f"scene{seed}", **row}) + "\n")
    command = "train --pairs image-depth --model tiny --data rows.jsonl --batch 4 --device cpu --set run.steps=2 --set run.workers=1"
    run(f"{command} --dry-run")
    run(f"{command} --out trained")
    run("embed depth 0.npy -o depth.h5 --model trained")
