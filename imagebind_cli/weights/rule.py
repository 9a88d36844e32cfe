"""Weights made by rule, for a model that needs no file: it is complete, and untrained."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.encoder import build_encoder
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.model_config import ModelConfig


def checkpoint_by_rule(config: ModelConfig) -> Checkpoint:
    """Draw every tensor of a model from `config.rule_seed` and the tensor's name, so that each encoder can be made without the others."""

    def read(encoder: str) -> Mapping[str, Tensor]:
        shapes = build_encoder(registry.modality(encoder, config.encoders[encoder]), config.encoders[encoder]).state_dict()
        return {name: _draw(f"{encoder}.{name}", tuple(shape.shape), config, encoder) for name, shape in shapes.items()}

    return Checkpoint(config, f"{config.name} (made by rule)", read)


def _draw(name: str, shape: tuple[int, ...], config: ModelConfig, encoder: str) -> Tensor:
    if name.endswith("log_scale"):
        return torch.tensor(math.log(config.encoders[encoder].scale or 1.0))
    random = np.random.default_rng([config.rule_seed or 0, zlib.crc32(name.encode())])
    values = random.standard_normal(shape, dtype=np.float32)
    if "norm" in name:
        values = 0.05 * values + (1 if name.endswith("weight") else 0)
    elif name.endswith("bias"):
        values *= 0.02
    elif name.endswith(("cls", "pos", "tokens.weight", "bias_k", "bias_v")):
        values *= 0.3
    else:
        values /= np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values)
