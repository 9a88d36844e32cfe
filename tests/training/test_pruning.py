"""A smaller encoder's start: it computes what the larger one does without the blocks and hidden units that were left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from imagebind_cli.encoder import Encoder, EncoderConfig
from imagebind_cli.training.pruning import prune_encoder
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.weights import model_config

HIDDEN = 24


@pytest.fixture
def source() -> EncoderConfig:
    config = model_config.packaged_config("tiny").encoders["depth"]
    return replace(config, trunk=replace(config.trunk, layers=3))


def resized(config: EncoderConfig, **changes: float) -> EncoderConfig:
    return replace(config, trunk=replace(config.trunk, **changes))


def vectors(encoder: Encoder) -> torch.Tensor:
    clips = torch.randn(2, *encoder.config.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return encoder.eval()(clips)


def test_chosen_blocks_compute_what_they_did(source: EncoderConfig) -> None:
    tensors = fresh_weights("depth", source, 0)
    config = resized(source, layers=2)
    larger = encoder_with("depth", source, tensors)
    larger.trunk.blocks = torch.nn.ModuleList([larger.trunk.blocks[2], larger.trunk.blocks[0]])
    pruned = encoder_with("depth", config, prune_encoder(tensors, source, config, (3, 1)))
    assert torch.equal(vectors(pruned), vectors(larger))


def test_the_hidden_units_that_count_most_stay(source: EncoderConfig) -> None:
    tensors = fresh_weights("depth", source, 0)
    width, hidden = source.trunk.width, int(source.trunk.mlp * source.trunk.width)
    kept = torch.randperm(hidden, generator=torch.Generator().manual_seed(1))[:HIDDEN]
    silent = torch.ones(hidden, dtype=torch.bool).index_fill(0, kept, False)
    for key, tensor in tensors.items():
        if key.endswith("mlp.down.weight"):
            tensor[:, silent] *= 1e-12  # their words no longer count
    config = resized(source, mlp=HIDDEN / width)
    pruned = prune_encoder(tensors, source, config, (1, 2, 3))
    assert pruned["trunk.blocks.0.mlp.up.weight"].shape == (HIDDEN, width)
    torch.testing.assert_close(vectors(encoder_with("depth", config, pruned)), vectors(encoder_with("depth", source, tensors)))


@pytest.mark.parametrize(
    ("changes", "blocks", "reason"),
    [
        ({"layers": 2}, (1, 2, 3), "3 given; the encoder has 2 blocks"),
        ({"layers": 2}, (1, 4), "there is no block 4; they are 1 to 3"),
        ({"gated": True, "mlp": 1.0}, (1, 2, 3), "gated MLPs keep their width"),
    ],
)
def test_what_cannot_be_pruned_is_refused(source: EncoderConfig, changes: dict[str, float], blocks: tuple[int, ...], reason: str) -> None:
    gated = resized(source, gated=changes.get("gated", False))
    with pytest.raises(ValueError, match=reason):
        prune_encoder({}, gated, resized(source, **changes), blocks)
