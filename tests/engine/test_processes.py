"""Readers in processes of their own: the same samples, every failure in its place, and nobody left behind."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagebind_cli import pipeline
from imagebind_cli.corpus.preprocess import MANY
from imagebind_cli.encoder import Sample
from imagebind_cli.engine import open_engine
from imagebind_cli.engine import processes as engine_processes
from imagebind_cli.engine.decoding_server import READY
from imagebind_cli.engine.processes import POSSIBLE, Processes
from imagebind_cli.errors import UserError
from imagebind_cli.readers import read_source
from imagebind_cli.registry import face
from imagebind_cli.sources import Failure, Item
from tests.family import family, gone

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="processes are for Linux")

LONG = 30


def read(payload: Any) -> Iterator[Sample]:  # noqa: PLR0912
    """What the payload says, `NAME:VALUE`, in the process that reads it, whose number is in the facts."""
    if isinstance(payload, io.BytesIO):
        payload = f"angle:{len(payload.read())}"
    name, _, value = payload.partition(":")
    facts = {"process": os.getpid()}
    if name == "angle":
        yield Sample(torch.tensor([[float(value), -float(value)]]), [(0.1, float(value))], ("a note",), facts, ("a warning",), "audio")
    elif name == "long":
        for number in range(LONG):
            Path(value).write_text(str(number))
            yield Sample(torch.full((2, 300_000), number), [None, None], facts=facts)  # 5 MB
    elif name == "few":
        for number in range(int(value)):
            yield Sample(torch.full((2, 3), number), [None, None], facts=facts)
    elif name == "nap":
        time.sleep(float(value))
        yield Sample(torch.zeros(1, 1), [None], facts=facts)
    elif name == "half":
        yield Sample(torch.zeros(1, 1), [None], facts=facts)
        raise ValueError("broken\nin the middle")
    elif name == "missing":
        raise FileNotFoundError(2, "No such file or directory")
    elif name == "refused":
        raise UserError("made for another encoder")
    elif name == "bug":
        raise TypeError("a bug")
    elif name == "die":
        os._exit(1)
    elif name == "die-once" and not os.path.exists(value):
        open(value, "w").close()
        os._exit(1)
    elif name == "die-once":
        yield Sample(torch.ones(1, 1), [None], facts=facts)


def started(processes: Processes, payload: Any) -> Iterator[Sample]:
    """`submit`, waiting until the workers are up."""
    deadline = time.monotonic() + 60
    while (samples := processes.submit(payload)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return samples


def test_an_item_that_takes_too_long_fails_and_the_others_do_not(processes: Processes) -> None:
    list(started(processes, "angle:0"))
    late = processes.submit("nap:60", 0.3)
    after = [started(processes, f"angle:{number}") for number in range(4)]
    began = time.monotonic()
    with pytest.raises(ValueError, match="not read within 0.3 s; --item-timeout allows more"):
        list(late or ())
    assert [float(sample.tensor[0, 0]) for samples in after for sample in samples] == [0, 1, 2, 3]
    assert time.monotonic() - began < 20
    assert len(list(started(processes, "angle:1"))) == 1


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes([]) as both:
        both.begin(read, 2)
        list(started(both, "angle:0"))
        yield both


@pytest.mark.parametrize("payload", ["angle:0.5", io.BytesIO(b"four")])
def test_a_sample_is_the_same_from_another_process(processes: Processes, payload: Any) -> None:
    (sample,) = started(processes, payload)
    (wanted,) = read(payload)
    assert torch.equal(sample.tensor, wanted.tensor)
    assert sample.tensor.dtype == wanted.tensor.dtype
    assert (sample.spans, sample.notes, sample.warnings, sample.modality) == (wanted.spans, wanted.notes, wanted.warnings, "audio")
    assert sample.facts["process"] != os.getpid()


def test_both_workers_read_and_each_item_is_its_own(processes: Processes) -> None:
    opened = [started(processes, f"angle:{number}") for number in range(4)]
    opened += [started(processes, "nap:0.1") for _ in range(6)]
    samples = [list(one) for one in opened]
    assert [float(one[0].tensor[0, 0]) for one in samples[:4]] == [0, 1, 2, 3]
    assert len({one[0].facts["process"] for one in samples[4:]}) == 2


def test_a_long_item_is_read_no_further_ahead_than_a_few_stretches(processes: Processes, tmp_path: Path) -> None:
    count = tmp_path / "count"
    samples = started(processes, f"long:{count}")
    next(samples)
    time.sleep(0.3)
    assert int(count.read_text()) <= 2 + 2 * READY
    values = [float(sample.tensor[0, 0]) for sample in samples]
    assert values == list(range(1, LONG))


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ("half:", ValueError, "broken in the middle"),
        ("missing:", ValueError, "no such file or directory"),
        ("refused:", UserError, "made for another encoder"),
        ("bug:", RuntimeError, "a bug"),
    ],
)
def test_what_goes_wrong_is_raised_here(processes: Processes, payload: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        list(started(processes, payload))
    assert len(list(started(processes, "angle:1"))) == 1


def test_an_item_that_kills_its_process_fails_and_those_beside_it_do_not(processes: Processes) -> None:
    names = ["angle:1", "die:", "angle:2", "angle:3", "die:", "die:", "angle:4", "angle:5"]
    opened = [started(processes, name) for name in names]
    for name, samples in zip(names, opened, strict=True):
        if name == "die:":
            with pytest.raises(ValueError, match="the process that read it died"):
                list(samples)
        else:
            assert [float(sample.tensor[0, 0]) for sample in samples] == [float(name[-1])]
    assert [len(list(started(processes, f"angle:{number}"))) for number in range(8)] == [1] * 8


def test_an_item_whose_process_was_killed_by_chance_is_read_again(processes: Processes, tmp_path: Path) -> None:
    (sample,) = started(processes, f"die-once:{tmp_path / 'mark'}")
    assert float(sample.tensor) == 1


def test_closing_ends_every_process_at_once() -> None:
    both = Processes([])
    both.begin(read, 2)
    naps = [started(both, "nap:60") for _ in range(4)]  # each worker takes two
    assert both._server is not None
    members = family(both._server.pid)
    began = time.monotonic()
    both.close()
    assert time.monotonic() - began < 5
    assert len(members) == 2
    assert gone(members)
    del naps


def test_closing_before_they_are_up_is_no_wait() -> None:
    both = Processes(["audio"])
    both.begin(read, 2)
    began = time.monotonic()
    both.close()
    assert time.monotonic() - began < 5
    assert both.submit("angle:1") is None
    both.close()
    both.launch()
    assert both._server is None or both._server.returncode is not None


def test_a_server_in_the_middle_of_its_imports_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed before it could say anything: what remains is a socket that hangs up."""
    (tmp_path / "slow_to_import.py").write_text("import os, time\nos.system(f'echo {os.getpid()} > pid')\ntime.sleep(60)\n")
    parent = (
        "import time; from imagebind_cli.engine.processes import Processes; p = Processes([]); p._modules = ['slow_to_import']; p.launch()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", f"{parent}; time.sleep(60)"], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server = int((tmp_path / "pid").read_text())
    assert not gone([server], 0.5)
    process.kill()
    process.wait()
    assert gone([server])


FORKS = """
import fcntl, os, sys, threading, torch
from imagebind_cli.engine.processes import Processes
from tests.engine.test_processes import read, started

threading.Thread(target=threading.Event().wait, daemon=True).start()
torch.set_num_threads(2)
torch.randn(500, 500) @ torch.randn(500, 500)
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
both = Processes([])
both.keep_ready()
assert not both.launched
both.begin(read, 2)
(sample,) = started(both, "angle:0.5")
assert sample.tensor.tolist() == [[0.5, -0.5]]
lock.close()
fcntl.flock(open(sys.argv[1], "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)  # no other process holds it
print(both._server.pid, sample.facts["process"], flush=True)
if sys.argv[2] == "close":
    both.close()
    both.close()
    unused = Processes([])
    unused.keep_ready()
    unused.close()
    unused.close()
else:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_forked_server_holds_nothing_of_its_parent_and_ends_with_it(tmp_path: Path, end: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORKS, str(tmp_path / "lock"), end], capture_output=True, text=True)
    assert done.returncode == (0 if end == "close" else -9), done.stderr
    assert gone([int(number) for number in done.stdout.split()])


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_processes, "WORTH_SHARE", -1.0)


def test_decoding_in_processes_is_decoding_in_threads(at_once: None) -> None:
    payloads = ["angle:1", "half:", "few:3", "missing:", "angle:2", "nap:0.01"]
    endless = (Item(str(number), payloads[number % 6]) for number in itertools.count())
    steps = pipeline.decode(endless, open_engine(read, 2, Processes([])), ahead=4)
    seen: list[list[Any]] = []
    readers: set[int] = set()
    rounds_elsewhere = 0
    while rounds_elsewhere < 4 or len(readers) < 3:  # until both workers have come up, however long that takes
        item = []
        for step in steps:
            assert step is not None
            head, sample = step
            if not isinstance(sample, Sample):
                break
            item.append(sample)
            readers.add(sample.facts["process"])
            rounds_elsewhere += payloads[len(seen) % 6] == "angle:2" and sample.facts["process"] != os.getpid()
        seen.append([head.id, sample.reason if isinstance(sample, Failure) else None, [sample.tensor for sample in item]])
    steps.close()
    assert os.getpid() in readers
    reasons = {1: "half:: broken in the middle", 3: "missing:: no such file or directory"}  # an id that does not name the file
    for number, (id, why, tensors) in enumerate(seen):
        assert id == str(number)
        assert why == reasons.get(number % 6)
        wanted = [] if number % 6 == 3 else [sample.tensor for sample in itertools.islice(read(payloads[number % 6]), 1 if why else None)]
        assert len(tensors) == len(wanted)
        assert all(torch.equal(one, other) for one, other in zip(tensors, wanted, strict=True))


def test_few_items_start_no_process() -> None:
    with Processes([]) as both:
        steps = list(pipeline.decode([Item("1", "angle:1")], open_engine(read, 2, both), ahead=4))
        assert len(steps) == 2
        assert not both.launched


def test_what_is_at_hand_already_goes_to_no_process() -> None:
    from imagebind_cli.prepared import Prepared

    assert engine_processes._is_in_memory(Prepared([], [], (), {}))
    assert engine_processes._is_in_memory({"audio": "x.wav", "image": lambda: None})
    assert not engine_processes._is_in_memory({"audio": "x.wav", "image": "x.png"})


def test_what_processes_read_of_sounds_is_to_the_bit_what_threads_do(tiny: Any, tmp_path: Path) -> None:
    import soundfile

    random = np.random.default_rng(0)
    paths = [str(tmp_path / f"{number}.wav") for number in range(12)]
    for number, path in enumerate(paths):
        soundfile.write(path, 0.1 * random.standard_normal(4_000 + 90_000 * number), 22_050)
    reading = partial(read_source, face("audio"), config=tiny.config("audio"), options=face("audio").options())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the command does: how a sum is cut in two shows in its last bit
    expected = [list(reading(path)) for path in paths]
    torch.set_num_threads(threads)
    with Processes(["audio"]) as both:
        both.begin(reading, 2)
        found = [list(samples) for samples in [started(both, path) for path in paths]]
    for one, other in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert torch.equal(one.tensor, other.tensor)
        assert (one.spans, one.facts) == (other.spans, other.facts)


class Patient(Processes):
    """Waits until the workers are up, so that threads read nothing."""

    def submit(self, payload: Any, timeout: float = math.inf) -> Iterator[Sample] | None:
        while (samples := super().submit(payload, timeout)) is None and not self._closed:
            time.sleep(0.02)
        return samples


def test_vectors_are_the_same_whoever_reads(tiny: Any, at_once: None, tmp_path: Path) -> None:
    import soundfile

    random = np.random.default_rng(0)
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * random.standard_normal(4_000 + 9_000 * number), 22_050)
    (tmp_path / "7.wav").write_bytes(b"")
    items = [Item(str(number), str(tmp_path / f"{number}.wav")) for number in range(20)]
    found, wanted = (list(tiny.embed_items("audio", items, workers=2, processes=way)) for way in (Patient(["audio"]), None))
    for (item, one), (same, other) in zip(found, wanted, strict=True):
        assert item == same
        if isinstance(one, Failure):
            assert one == other
        else:
            assert np.abs(one.embeddings[0].vector - other.embeddings[0].vector).max() <= 1e-6


FULL = "mount -t tmpfs -o size=64k tmpfs /dev/shm && (head -c 1m /dev/zero > /dev/shm/full || true) 2> /dev/null && exec "


def test_processes_need_no_shared_memory(tmp_path: Path) -> None:
    """In containers /dev/shm has 64 MB, or is full; here it has 64 KB and no room."""
    alone = ["unshare", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*alone, f"{FULL} true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount, and not in every container")
    rows = (json.dumps({"id": str(number), "text": f"sentence {number}"}) + "\n" for number in range(MANY))
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    command = [*alone, f'{FULL} "$0" "$@"', sys.executable, "-m", "imagebind_cli", "preprocess", "text", "--manifest", "rows.jsonl"]
    run = subprocess.run(
        [*command, "-o", "out.tar", "--workers", "2", "--model", "tiny"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, "1,000 prepared" in run.stderr) == (0, True), run.stderr
