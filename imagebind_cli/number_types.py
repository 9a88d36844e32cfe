"""Measure how far a model's vectors move when it computes in another number type, merges tokens, or has rounded weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.model import Model
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.convert import convert, refuse_existing, round_checkpoint
from imagebind_cli.weights.model_config import ModelConfig, RoundedRecord, Rounding

ITEMS = 16  # inputs to compare
FEWEST_TOKENS = 5  # of a generated sentence


def generated(config: EncoderConfig, count: int, seed: int = 0) -> Tensor:
    """Generate inputs (count, *shape) of an encoder, all different: sums of waves with noise, or for text sentences of random words."""
    random = torch.Generator().manual_seed(seed)
    if config.vocabulary:
        (length,) = config.shape
        texts = torch.zeros(count, length, dtype=torch.long)
        for row in texts:
            end = int(torch.randint(FEWEST_TOKENS, min(length, 20), (1,), generator=random))
            row[1:end] = torch.randint(1, config.vocabulary - 2, (end - 1,), generator=random)
            row[0], row[end] = config.vocabulary - 2, config.vocabulary - 1
        return texts
    inputs = 0.3 * torch.randn(count, *config.shape, generator=random)
    for axis, size in enumerate(config.shape[1:], 2):
        waves = torch.randn(count, 3, generator=random), torch.rand(count, 3, generator=random)
        at = torch.arange(size) / size
        wave = (waves[0][..., None] * torch.sin(2 * math.pi * (8 * waves[1][..., None] * at + waves[1][..., None]))).sum(1)  # (count, size)
        inputs += wave.view(count, *(size if other == axis else 1 for other in range(1, inputs.dim())))
    return inputs


def cosines(model: Model, other: Model, modality: str, count: int = ITEMS) -> Tensor:
    """Compute the cosines (count,) between two models' vectors of the same generated inputs.

    Args:
        model, other: the same weights, computed in two ways.
    Raises:
        UserError: the model has no such encoder.
    """
    inputs = generated(model.config(modality), count)
    size = min(model.batch_size(modality), other.batch_size(modality))
    return torch.cat(
        [
            F.cosine_similarity(model.encode(modality, batch), other.encode(modality, batch)).clamp(-1, 1)
            for batch in torch.split(inputs, size)
        ]
    )


def mean_and_lowest(cosines: Tensor) -> dict[str, float]:
    """Return the mean and the lowest of cosines, by these names."""
    return {"mean": float(cosines.mean()), "lowest": float(cosines.min())}


def convert_rounded(
    checkpoint: Checkpoint,
    folder: Path,
    origin: Mapping[str, Any],
    dtype: Rounding,
    report: Callable[[str, Mapping[str, float]], None] = lambda encoder, cosines: None,
) -> ModelConfig:
    """Write a checkpoint rounded to a smaller number type as a model folder, with the cosines to vectors of the exact weights in its config.

    int8 is a quarter of float32: matrices as int8 rows with a scale for each, all else float16. The folder is of the same model, so that
    stores of the exact weights can be searched with it; none is continued with it.

    Args:
        origin: where the weights are from, for the record. dtype: `bf16`, `fp16` or `int8`.
        report: called for each encoder with the `mean` and the `lowest` cosine of `ITEMS` generated inputs, in float32.
    Raises:
        UserError: the folder exists already, the weights are rounded already, or do not fit the number type.
    """
    refuse_existing(folder)  # before anything is measured, which takes minutes
    cpu = torch.device("cpu")
    other = round_checkpoint(checkpoint, dtype)
    assert other.config.rounded is not None
    measured = {}
    for name in checkpoint.config.encoders:  # one at a time, since a pair of the largest fits in memory where all do not
        near = cosines(Model(checkpoint, cpu, torch.float32), Model(other, cpu, torch.float32), name)
        measured[name] = mean_and_lowest(near)
        report(name, measured[name])
    return convert(checkpoint, folder, origin, RoundedRecord(**other.config.rounded, cosines=measured))
