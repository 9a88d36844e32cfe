"""Two and three processes do what one does: gradients, weights, checkpoints, and a whole run whose ranks are not equally fast."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests import ranks


def launch(world, *command, **environment):
    """Start a command once for each process, as `torchrun` does."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen([sys.executable, "-m", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | environment)
        for rank in range(world)
    ]  # fmt: skip


@pytest.fixture(scope="module", params=[2, 3])
def shared(request, tmp_path_factory):
    """What each of several processes found, in order of rank."""
    folder = tmp_path_factory.mktemp("ranks")
    started = launch(request.param, "tests.ranks", folder)
    for process in started:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors.decode()
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
