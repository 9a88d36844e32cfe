"""Make an anchor blind to what the other modality cannot perceive, by averaging its vectors over such changes (docs/blind-anchor.md).

Depth and thermal maps do not show the colour of a thing, but a frozen image encoder puts it into every target. A target averaged over
colourings keeps what they share. The encoder itself is not changed, and its vectors of other data stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.training import augment
from imagebind_cli.training.inputs import PairInput
from imagebind_cli.training.recipe import AnchorRecipe
from imagebind_cli.training.samples import PairReader

RULES = 1  # increased when a seed draws other variants; anchors made by other rules are then refused
LARGEST_ZOOM = 1.5  # of `scale`, and its inverse the smallest


def record(recipe: AnchorRecipe) -> dict[str, Any]:
    """Return what the vectors of a blind anchor depend on, for `made.json`."""
    return {"to": sorted(recipe.blind), "variants": recipe.variants, "rules": RULES}


def mean_vectors(
    encode: Callable[[Tensor], Tensor], samples: Tensor, recipe: AnchorRecipe, reader: PairReader, rows: Sequence[int], view: int
) -> Tensor:
    """Return unit vectors (b, dim) float32 of samples, each the mean over its variants.

    Args:
        encode: turns samples (b, *shape) into unit vectors (b, dim).
        reader, rows, view: where the samples come from; the random changes follow from the reader's seed and these.
    """
    total = encode(samples).float()
    if not recipe.blind:
        return total
    masks = [reader.mask(row, view) for row in rows] if "background" in recipe.blind else [None] * len(rows)
    for variant in range(1, recipe.variants):
        generators = [augment.random(reader.seed, "blind", reader.number, row, view, variant) for row in rows]
        changed = [
            _change(sample, recipe.blind, variant, reader.inputs[0], mask, numbers)
            for sample, mask, numbers in zip(samples, masks, generators, strict=True)
        ]
        total = total + encode(torch.stack(changed)).float()
    return F.normalize(total, dim=-1)


def _change(
    sample: Tensor, kinds: Sequence[str], variant: int, source: PairInput, mask: Tensor | None, numbers: np.random.Generator
) -> Tensor:
    """Return one variant of a normalised sample (c, …, h, w)."""
    if mask is not None:
        sample = replace_background(sample, mask, source.config.mean, source.config.std, numbers)
    if "colour" in kinds:
        sample = augment.recolour(sample, source.config.mean, source.config.std, numbers)
    if "scale" in kinds:
        sample = zoom(sample, math.exp(numbers.uniform(-1, 1) * math.log(LARGEST_ZOOM)))
    if "mirror" in kinds and variant % 2:
        sample = sample.flip(-1)
    return sample


def replace_background(sample: Tensor, mask: Tensor, mean: Sequence[float], std: Sequence[float], numbers: np.random.Generator) -> Tensor:
    """Fill what is outside a mask (h, w) with one random colour or value, in a normalised sample (c, …, h, w)."""
    shape = (-1, *[1] * (sample.dim() - 1))
    colour = (torch.tensor(numbers.random(len(mean))) - torch.tensor(mean)) / torch.tensor(std)
    return torch.where(mask, sample, colour.to(sample.dtype).view(shape))


def zoom(sample: Tensor, factor: float) -> Tensor:
    """Enlarge (above 1) or shrink the middle of a sample (c, …, h, w); the pixels of its edge continue outward."""
    frames = sample.flatten(1, -3) if sample.dim() > 3 else sample[:, None]  # (c, t, h, w)
    place = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]], dtype=sample.dtype).expand(len(frames), 2, 3)
    grid = F.affine_grid(place, list(frames.shape), align_corners=False)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False).view(sample.shape)
