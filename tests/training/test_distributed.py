"""Two and three processes do what one does: gradients, weights, checkpoints, and a whole run whose ranks are not equally fast."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time

import pytest
import torch
from safetensors.torch import load_file

from tests import ranks
from tests.forkserver import Forked
from tests.generate import depth, picture

HANGS = 300
"""Seconds after which processes that should end are taken for hung; starting several takes minutes on a machine that is busy."""

pytestmark = pytest.mark.timeout(3 * HANGS)


@pytest.fixture(scope="module")
def launch(fork_server):
    """Start a command once for each process, as `torchrun` does."""

    def run(world, *command):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = str(probe.getsockname()[1])
        shared = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", *map(str, command)]
        environments = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
        return [Forked(command, server=fork_server, env=environment, **streams) for environment in environments]

    return run


def finish(started):
    """Exit codes and talk of all processes; one that hangs fails the test."""
    try:
        talk = [process.communicate(timeout=HANGS)[1].decode() for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], talk


@pytest.fixture(scope="module", params=[2, 3])
def shared(request, launch, tmp_path_factory):
    """What each of several processes found, in order of rank."""
    folder = tmp_path_factory.mktemp("ranks")
    codes, talk = finish(launch(request.param, "tests.ranks", folder))
    assert codes == [0] * request.param, talk
    return [load_file(folder / f"{rank}.safetensors") for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds."""
    return ranks.everything(tmp_path_factory.mktemp("alone"))


def test_all_processes_agree(shared):
    for other in shared[1:]:
        for name, tensor in other.items():
            if not name.endswith((": anchor", ": other")):
                assert torch.equal(tensor, shared[0][name]), name


def test_losses_and_their_gradients_are_those_of_one_process(shared, alone):
    names = [name for name in alone if name.startswith(ranks.KINDS)]
    assert len(names) == 22
    for name in names:
        ours = torch.cat([own[name] for own in shared]) if alone[name].dim() else shared[0][name]
        torch.testing.assert_close(ours, alone[name], atol=1e-9, rtol=0, msg=name)


def test_negatives_are_looked_for_in_all_processes(shared, alone):
    assert shared[0]["negatives"].tolist() == [True, True, False]
    assert alone["negatives"].tolist() == [True, False, False]


@pytest.mark.parametrize("way", ["ddp", "ddp cached", "fsdp cached"])
def test_steps_are_those_of_one_process(shared, alone, way):
    names = [name for name in alone if name.startswith(f"{way}: ")]
    assert len(names) > 80
    for name in names:
        ours, plain = shared[0][name], alone[name]
        size = max(1.0, plain.abs().max().item())  # gradients of up to 50, whose norm and embeddings are float32
        torch.testing.assert_close(ours, plain, atol=1e-6 * size, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


SLOW = """
import time

def gradients(*arguments):
    time.sleep(0.05 * distributed.rank())
    return plain(*arguments)

if __name__ == "__main__":  # and not in the processes that read files
    from imagebind_cli.cli import run_command_line
    from imagebind_cli.training import distributed, run
    plain, run.compute_gradients = run.compute_gradients, gradients
    run_command_line()
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Eleven pictures with depth maps in two shards of very different lengths."""
    folder = tmp_path_factory.mktemp("shards")
    for number, seeds in enumerate((range(9), range(9, 11))):
        with tarfile.open(folder / f"scenes-{number}.tar", "w") as archive:
            for seed in seeds:
                archive.add(picture(folder / f"{seed}.png", seed, (64, 48)), f"{seed:03d}.png")
                archive.add(depth(folder / f"d{seed}.png", seed), f"{seed:03d}.depth.png")
    (folder / "slow.py").write_text(SLOW)
    return folder


def arguments(scenes, out, steps, *more):
    changes = [f"run.steps={steps}", "run.workers=1", *more]
    settings = [word for change in changes for word in ("--set", change)]
    return ["train", "--pairs", "image-depth", "--model", "tiny", "--data", scenes / "scenes-*.tar", "--batch", 4, "--micro-batch", 1,
            "--device", "cpu", "--out", out, *settings]  # fmt: skip


def test_uneven_shards_and_a_slow_process_end_with_equal_metrics(scenes, launch, tmp_path, monkeypatch):
    monkeypatch.chdir(scenes)  # where `slow` is
    codes, talk = finish(launch(2, "slow", *arguments(scenes, tmp_path / "two", 6)))
    assert codes == [0, 0], talk
    assert talk[1] == ""  # the first one speaks for both
    codes, talk = finish(launch(1, "slow", *arguments(scenes, tmp_path / "one", 6, "run.workers=0")))
    assert codes == [0], talk
    one, two = ([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("one", "two"))
    assert [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
    for ours, plain in zip(two, one, strict=True):
        for name in ("loss", "norm", "alignment", "spread", "other_spread"):
            assert ours[name] == pytest.approx(plain[name], abs=1e-4), name


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_signal_to_one_stops_all_and_another_number_goes_on(scenes, launch, tmp_path, monkeypatch, imagebind, sharding):
    monkeypatch.chdir(scenes)  # where `slow` is
    out, steps = tmp_path / "run", 40
    way = [f"run.sharding={sharding}", f"run.workers={int(sharding == 'ddp')}"]
    started = launch(2, "slow", *arguments(scenes, out, steps, *way))
    metrics = out / "metrics.jsonl"
    while all(process.poll() is None for process in started) and not (metrics.exists() and metrics.read_bytes()):
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    codes, talk = finish(started)
    assert codes == [143, 143], talk
    stopped = int(re.search(r"stopped after step (\d+)", talk[0])[1])
    assert stopped < steps
    done = imagebind(*arguments(scenes, out, steps, *way, "run.workers=0"))
    assert done.code == 0, done.err
    assert f"continues after step {stopped} of {steps}" in done.err
    assert len((out / "metrics.jsonl").read_text().splitlines()) == steps
