"""The plan's figures beside what really happens."""

from dataclasses import replace

import pytest
import torch

from imagebind_cli.training import plan_lines as plan
from imagebind_cli.training.recipe import EncoderRecipe, RunRecipe
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.training.towers import make_tower, parameter_counts
from imagebind_cli.weights.model_config import packaged_config


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["depth", "imu", "text"])
def test_memory_of_activations_is_what_a_backward_pass_keeps(name, checkpointing, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")  # whatever this one can, slowly
    config = packaged_config("huge").encoders[name]
    config = replace(config, vocabulary=config.vocabulary and 1000, trunk=replace(config.trunk, width=128, layers=6, heads=4))
    run = RunRecipe(checkpointing=checkpointing, precision=precision)
    device = torch.device("cpu")
    tower = make_tower(name, encoder_with(name, config, fresh_weights(name, config, 0)), EncoderRecipe(train="all"), run, device)
    shape = (2, *config.shape)
    inputs = torch.full(shape, 3).index_fill(1, torch.tensor([config.tokens - 1]), 999) if config.vocabulary else torch.randn(shape)
    kept = {}

    def pack(tensor):
        if not any(tensor.untyped_storage().data_ptr() == own.untyped_storage().data_ptr() for own in tower.encoder.parameters()):
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tower.call(inputs)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 2
    expected = plan.activation_bytes(config, run, device)
    if checkpointing:  # what one block keeps comes on top, in the backward pass
        measured += plan.BACKWARD_BYTES[precision] * config.trunk.width * config.tokens
    assert expected == pytest.approx(measured, rel=0.25)


def test_counts_of_the_published_encoders():
    sizes = {
        name: parameter_counts(plan.weightless_encoder(name, config, EncoderRecipe(train="all")))
        for name, config in packaged_config("huge").encoders.items()
    }
    millions = {name: round((size["trained"] + size["frozen"]) / 1e6, 1) for name, size in sizes.items()}
    assert millions == {"vision": 632.8, "text": 354.0, "audio": 86.2, "depth": 21.9, "thermal": 86.2, "imu": 19.6}
