"""Weights under the published names, by a rule anyone can rebuild: no download is needed to compare sizes, speed and exactness.

python -m benchmarks.published_weights huge.pth      # the published size, 4.8 GB
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import model_config, registry, tensor_names
from imagebind_cli.encoder import build_encoder
from imagebind_cli.model_config import ModelConfig

SCALES = {"text": 1 / 0.07, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Published tensor names and their shapes for a config, as the published constructor would make them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, encoder in config.encoders.items():
        for key, tensor in build_encoder(registry.get(name), encoder).state_dict().items():
            published, _ = tensor_names.rename(f"{name}.{key}", tensor_names.PUBLISHED, backwards=True)
            assert published is not None
            shapes[published] = tuple(tensor.shape)
    context = config.encoders["text"].shape[0]
    return shapes | {"modality_preprocessors.text.mask": (context, context)}


def published_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors by rule: the i-th name in order is drawn from `default_rng([seed, i])` and scaled by what it is.

    Masks are causal, log scales the published constants, LayerNorm weights near 1, biases small, the rest keeps variances level.
    """
    return {key: _by_rule(key, tuple(shapes[key]), np.random.default_rng([seed, i])) for i, key in enumerate(sorted(shapes))}


def _by_rule(key: str, shape: tuple[int, ...], random: np.random.Generator) -> Tensor:
    if key.endswith(".mask"):
        return torch.full(shape, -math.inf).triu(1)
    if key.endswith("log_logit_scale"):
        return torch.tensor(math.log(SCALES[key.split(".")[1]]))
    values = random.standard_normal(shape, dtype=np.float32)
    if _is_layer_norm(key):
        values = 1 + np.float32(0.1) * values
    elif key.endswith("bias"):
        values *= np.float32(0.05)
    elif any(part in key for part in ("embedding", "pos_embed", "cls_token", "bias_k", "bias_v")):
        values *= np.float32(0.3)
    else:
        fan = shape[-1] if len(shape) == 2 else math.prod(shape[1:])
        values /= np.float32(np.sqrt(fan))
    return torch.from_numpy(values)


def _is_layer_norm(key: str) -> bool:
    if key.startswith("modality_heads.") and key.endswith(".0.weight"):
        return True
    return ("norm" in key and key.endswith("weight")) or key.endswith(("pre_transformer_layer.0.weight", "proj.0.weight"))


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    torch.save(published_weights(published_shapes(model_config.named("huge")), seed=7), destination)
    print(destination)
