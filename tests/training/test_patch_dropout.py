"""Patches left out in training: which, how many, and never outside of it."""

from __future__ import annotations

import pytest
import torch

from imagebind_cli.encoder import EncoderConfig, _drop_patches
from imagebind_cli.errors import UserError
from imagebind_cli.training.plan import run_config
from imagebind_cli.training.recipe_files import read_recipe
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.transformer import TrunkConfig


def test_the_class_token_stays_and_patches_are_chosen_for_each_input() -> None:
    tokens = torch.arange(10.0).expand(64, 10)[..., None]
    some = _drop_patches(tokens, 0.5)[..., 0]
    assert some.shape == (64, 1 + round(9 * 0.5))
    assert (some[:, 0] == 0).all()
    assert all(len(set(row.tolist())) == len(row) for row in some)
    assert set(some[:, 1:].flatten().tolist()) == set(range(1, 10))
    assert len({tuple(sorted(row.tolist())) for row in some}) > 10
    assert _drop_patches(tokens, 0.999).shape[1] == 2


def test_only_training_leaves_patches_out() -> None:
    shape = EncoderConfig(dim=8, shape=(3, 2, 32, 32), patch=(2, 8, 8), stride=(2, 8, 8), trunk=TrunkConfig(16, 1, 2), patch_dropout=0.75)
    encoder = encoder_with("vision", shape, fresh_weights("vision", shape, 0))
    seen: list[int] = []
    encoder.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    pictures = torch.randn(3, 3, 32, 32)
    encoder.eval()(pictures)
    encoder.train()(pictures)
    assert seen == [17, 5]


def test_a_recipe_asks_for_it() -> None:
    changes = ["encoders.vision.train=all", "encoders.vision.patch_dropout=0.5"]
    recipe = read_recipe(None, changes, model="tiny", pairs=[{"modalities": ("image", "text")}])
    assert run_config(recipe).encoders["vision"].patch_dropout == 0.5
    with pytest.raises(UserError, match="text.patch_dropout: this encoder has no patches"):
        run_config(read_recipe(None, ["encoders.text.patch_dropout=0.5"], model="tiny", pairs=[{"modalities": ("image", "text")}]))
