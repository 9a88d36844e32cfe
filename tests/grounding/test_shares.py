"""Shares of patches: exact for every patch encoder, and refused where a vector is not a sum."""

import dataclasses
import math

import pytest
import torch

import imagebind_cli as ib
from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.errors import UsageError
from imagebind_cli.grounding.shares import dense
from imagebind_cli.transformer import TrunkConfig


def built(name: str, config: EncoderConfig) -> Encoder:
    """Build an encoder of random weights, drawn wide enough that no term is small."""
    torch.manual_seed(3)
    encoder = build_encoder(registry.modality(name, config), config).to_empty(device="cpu")
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def head_output(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    output = encoder.head(encoder.trunk(encoder.stem(x))[:, 0])
    return output.unflatten(0, (-1, encoder.config.trunk.frames)).mean(1) if encoder.config.trunk.frames else output


@pytest.mark.parametrize("modality", ["image", "audio", "depth", "thermal", "imu"])
@pytest.mark.parametrize("attentions", [None, 3, 1])
def test_shares_and_rest_add_up_to_the_heads_output(modality: str, attentions: int | None) -> None:
    encoder = ib.load("mini").encoder(modality)
    x = torch.randn(2, *encoder.config.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        shares, rest = dense(encoder, x, attentions)
        torch.testing.assert_close(shares.sum(1) + rest, head_output(encoder, x), atol=1e-5, rtol=0)
    assert shares.shape == (2, math.prod(encoder.config.grid), encoder.config.dim)


TRUNK = TrunkConfig(width=24, layers=3, heads=2, norm_eps=1e-5)
SQUARE = EncoderConfig(dim=10, shape=(3, 32, 32), patch=(8, 8), stride=(8, 8), trunk=TRUNK)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias_kv": True, "pre_norm": True},
        {"inner_norms": True, "layer_scale": True, "gated": True},
        {"relative": "grid", "buckets": 4, "shared_relative": False},
    ],
)
def test_shares_of_every_kind_of_trunk(changes: dict) -> None:
    encoder = built("vision", dataclasses.replace(SQUARE, head_bias=True, trunk=dataclasses.replace(TRUNK, **changes)))
    x = torch.randn(2, 3, 32, 32)
    shares, rest = dense(encoder, x)
    torch.testing.assert_close(shares.sum(1) + rest, head_output(encoder, x), atol=1e-5, rtol=1e-5)


def test_frames_of_a_clip_have_shares_of_their_own() -> None:
    trunk = dataclasses.replace(TRUNK, frames=4)
    encoder = built("vision", dataclasses.replace(SQUARE, shape=(3, 4, 32, 32), frame_tokens=True, trunk=trunk))
    x = torch.randn(2, 3, 4, 32, 32)
    shares, rest = dense(encoder, x)
    assert shares.shape == (2, 4 * 16, 10)
    torch.testing.assert_close(shares.sum(1) + rest, head_output(encoder, x), atol=1e-5, rtol=1e-5)


def test_a_share_is_what_the_class_token_takes_from_a_patch() -> None:
    """In a trunk of one block without its MLP, a patch's share is seen directly: its value, weighted, through both projections."""
    encoder = built("vision", dataclasses.replace(SQUARE, trunk=dataclasses.replace(TRUNK, layers=1)))
    block = encoder.trunk.blocks[0]
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        shares, _ = dense(encoder, x)
        tokens = block.norm1(encoder.stem(x))[0]  # (n, d)
        q, k, v = (part.unflatten(-1, (2, 12)) for part in block.attn.qkv(tokens).chunk(3, dim=-1))
        weights = torch.stack([(q[0, h] @ k[:, h].T / 12**0.5).softmax(0) for h in range(2)])  # (h, n)
        token = encoder.trunk(encoder.stem(x))[0, 0]
        for patch in (0, 7, 15):
            taken = torch.cat([weights[h, patch + 1] * v[patch + 1, h] for h in range(2)]) @ block.attn.out.weight.T
            deviation = (token.var(unbiased=False) + 1e-5).sqrt()
            expected = encoder.head.proj.weight @ ((taken - taken.mean()) / deviation * encoder.head.norm.weight)
            torch.testing.assert_close(shares[0, patch], expected, atol=1e-5, rtol=1e-5)


def test_what_is_not_a_sum_over_patches_is_refused() -> None:
    with pytest.raises(UsageError, match="head is an MLP"):
        dense(built("vision", dataclasses.replace(SQUARE, head="mlp")), torch.zeros(1, 3, 32, 32))
    with pytest.raises(UsageError, match="of texts has none"):
        dense(ib.load("mini").encoder("text"), torch.zeros(1, 48, dtype=torch.long))
