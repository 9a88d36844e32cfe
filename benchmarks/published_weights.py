"""Weights under the published names, by a rule anyone can rebuild: no download is needed to compare sizes, speed and exactness.

python -m benchmarks.published_weights huge.pth      # the published size, 4.8 GB
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.encoder import build_encoder
from imagebind_cli.families import imagebind
from imagebind_cli.weights import model_config, tensor_names
from imagebind_cli.weights.model_config import ModelConfig

SCALES = {"text": 1 / 0.07, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Published tensor names and their shapes for a config, as the published constructor would make them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, encoder in config.encoders.items():
        for key, tensor in build_encoder(registry.modality(name, encoder), encoder).state_dict().items():
            published = tensor_names.published_names(f"{name}.{key}", imagebind.PUBLISHED)[0]
            assert published is not None
            shapes[published] = tuple(tensor.shape)
    context = config.encoders["text"].shape[0]
    return shapes | {"modality_preprocessors.text.mask": (context, context)}


def published_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors by rule: the i-th name in order is drawn from `default_rng([seed, i])` and scaled by what it is.

    Masks are causal, log scales the published constants, LayerNorm weights near 1, biases small, the rest keeps variances level.
    """
    return dict(_each(shapes, seed))


def overlapping_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors of any shapes in a few megabytes, in memory and as a file: neighbours along every axis share theirs (a Hankel matrix)."""
    return dict(_each(shapes, seed, overlapping=True))


def write_published_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Path:
    """The same as a file, one tensor in memory at a time: a `.pth` without its numbers first, then each number in its place.

    Whole or not there at all.
    """
    building = path.with_name(f".{path.name}.building")
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.serialization.skip_data():
        torch.save({key: torch.empty(shapes[key]) for key in sorted(shapes)}, building)  # memory that nothing touches
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        places = torch.load(building, mmap=True, weights_only=True)
    for key, tensor in _each(shapes, seed):
        places[key].copy_(tensor)
    building.replace(path)
    return path


def _each(shapes: Mapping[str, tuple[int, ...]], seed: int, overlapping: bool = False) -> Iterator[tuple[str, Tensor]]:
    for i, key in enumerate(sorted(shapes)):
        yield key, _by_rule(key, tuple(shapes[key]), np.random.default_rng([seed, i]), overlapping)


def _by_rule(key: str, shape: tuple[int, ...], random: np.random.Generator, overlapping: bool) -> Tensor:
    if key.endswith(".mask"):
        return torch.full(shape, -math.inf).triu(1)
    if key.endswith("log_logit_scale"):
        return torch.tensor(math.log(SCALES[key.split(".")[1]]))
    drawn = (sum(shape) - len(shape) + 1,) if overlapping else shape
    values = random.standard_normal(drawn, dtype=np.float32)
    if _is_layer_norm(key):
        values = 1 + np.float32(0.1) * values
    elif key.endswith("bias"):
        values *= np.float32(0.05)
    elif any(part in key for part in ("embedding", "pos_embed", "cls_token", "bias_k", "bias_v")):
        values *= np.float32(0.3)
    else:
        fan = shape[-1] if len(shape) == 2 else math.prod(shape[1:])
        values /= np.float32(np.sqrt(fan))
    tensor = torch.from_numpy(values)
    return tensor.as_strided(shape, (1,) * len(shape)) if overlapping else tensor


def _is_layer_norm(key: str) -> bool:
    if key.startswith("modality_heads.") and key.endswith(".0.weight"):
        return True
    return ("norm" in key and key.endswith("weight")) or key.endswith(("pre_transformer_layer.0.weight", "proj.0.weight"))


if __name__ == "__main__":
    print(write_published_weights(Path(sys.argv[1]), published_shapes(model_config.packaged_config("huge")), seed=7))
