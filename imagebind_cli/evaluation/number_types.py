"""How far a model's vectors move when it computes in another number type or merges tokens, measured with its own weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.model import Model

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
