"""`--dtype int8`: how far vectors move, that a vector does not depend on its batch, and what is said and stored."""

import json
import time

import numpy as np
import pytest
import torch

import imagebind_cli as ib
from imagebind_cli import int8
from imagebind_cli.errors import UserError
from imagebind_cli.int8 import Int8Linear
from imagebind_cli.number_types import cosines, generated

ENCODERS = ["vision", "text", "audio", "depth", "thermal", "imu"]


@pytest.fixture(autouse=True)
def measured_again():
    """Forget what was found out about the processor before and after each test."""
    packs = int8.packs
    packs.cache_clear()
    yield
    packs.cache_clear()


@pytest.fixture(scope="module")
def narrowed():
    return ib.load("tiny", dtype="int8")


def test_a_linear_layer_is_as_close_as_eight_bits_allow():
    random = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(48, 32)
    x = torch.randn(5, 7, 48, generator=random) * torch.logspace(-3, 3, 5).view(5, 1, 1)  # a scale for each token: small ones are not lost
    x[0, 0] = 0
    with torch.no_grad():
        exact, found = linear(x) - linear.bias, Int8Linear(linear)(x) - linear.bias
    assert found.shape == exact.shape
    assert torch.equal(found[0, 0], torch.zeros(32))
    error = (found - exact).norm(dim=-1) / exact.norm(dim=-1).clamp(min=1e-12)
    assert error.max() < 0.02
    assert error.flatten()[1:].min() > 1e-4  # it is int8


@pytest.mark.parametrize("packed", [True, False])
def test_products_are_exact_packed_or_not(packed, monkeypatch):
    monkeypatch.setattr(int8, "SLOWEST", float("inf"))
    if packed and not int8.packs():
        pytest.skip("oneDNN's products are not exact on this CPU, and not used")
    monkeypatch.setattr(int8, "packs", lambda: packed)
    linear, x = torch.nn.Linear(48, 32), torch.randn(3, 5, 48)
    with torch.no_grad():
        found = Int8Linear(linear)(x)
        size, scale = _unit(x), _unit(linear.weight)
        product = (x / size).round().double() @ (linear.weight / scale).round().double().T
        expected = product * size * scale.T + linear.bias
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


def _unit(rows):
    """What 1 stands for in each row's int8."""
    return rows.abs().amax(dim=-1, keepdim=True) / int8.LARGEST


def test_packed_products_are_used_where_they_are_exact(monkeypatch):
    monkeypatch.setattr(int8, "SLOWEST", float("inf"))
    assert int8.packs() or torch.backends.cpu.get_cpu_capability() != "AVX512"
    int8.packs.cache_clear()
    monkeypatch.setattr(int8, "_packed_product", lambda *_: torch.full((16, 64), 32767.0))  # saturated
    assert not int8.packs()


def test_packed_products_are_used_where_they_are_fast(monkeypatch):
    """oneDNN has only reference code for some processors, with which a vector took a hundred times as long as in float32."""
    monkeypatch.setattr(int8, "_packed_product", lambda rows, weight, *_: (time.sleep(0.05), torch.full((16, 64), -256.0 * 127 * 127))[1])
    assert not int8.packs()
    monkeypatch.setattr(int8, "SLOWEST", float("inf"))
    int8.packs.cache_clear()
    assert int8.packs()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_vectors_stay_near_those_of_float32(narrowed, tiny, encoder):
    near = cosines(tiny, narrowed, encoder)
    assert near.mean() >= 0.999
    assert near.min() >= 0.995
    assert near.min() < 1 - 1e-7


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_vector_does_not_depend_on_its_batch(narrowed, encoder):
    inputs = generated(narrowed.config(encoder), 3)
    together = narrowed.encode(encoder, inputs)
    for i in range(3):
        torch.testing.assert_close(narrowed.encode(encoder, inputs[i : i + 1])[0], together[i], rtol=0, atol=2e-6)


def test_a_store_says_int8_and_takes_no_others(imagebind, tmp_path):
    store = tmp_path / "x.h5"
    done = imagebind("embed", "text", "a dog", "-o", store, "--dtype", "int8")
    assert done.code == 0, done.err
    refused = imagebind("embed", "text", "a cat", "-o", store)
    assert refused.code != 0
    assert "int8" in refused.err
    assert "float32" in refused.err
    found = json.loads(imagebind("embed", "text", "a dog", "--dtype", "int8").out)
    exact = json.loads(imagebind("embed", "text", "a dog").out)
    assert 0.995 < np.dot(found["embedding"], exact["embedding"]) < 1


def test_verify_says_how_far_vectors_move(imagebind):
    done = imagebind("weights", "verify", "tiny", "--dtype", "int8")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.decode().splitlines()[2:]]
    assert [line[0] for line in lines] == ENCODERS
    assert all(0.999 <= float(mean) < 1 and 0.995 <= float(lowest) <= float(mean) for _, mean, lowest in lines)


def test_int8_is_for_cpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="int8 is for CPUs, not cuda"):
        ib.load("tiny", device="cuda", dtype="int8")
    assert ib.load("tiny", dtype="int8").device.type == "cpu"
