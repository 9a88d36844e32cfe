"""Run an encoder of square pictures on larger or smaller ones than it was trained with, by interpolating its learned positions."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from imagebind_cli.encoder import Encoder, PatchStem
from imagebind_cli.errors import UsageError

M = TypeVar("M", bound=nn.Module)


def with_size(encoder: Encoder, size: int) -> Encoder:
    """Return an encoder that shares all weights with another, but takes pictures of `size` pixels a side.

    Its positions are interpolated, bicubic, as is usual for vision transformers (Dosovitskiy et al., arXiv 2010.11929, section 3.2).

    Raises:
        UsageError: its inputs are not square, its positions are relative, or the size is not a multiple of its patches.
    """
    config = encoder.config
    if type(encoder.stem) is not PatchStem or len(config.shape) < 3 or config.shape[-1] != config.shape[-2]:
        raise UsageError("a size is for encoders that take square pictures and have a learned position for each patch")
    if config.trunk.relative:
        raise UsageError("this encoder's positions are relative, in a grid of one size, and are not interpolated")
    step = config.stride[-1]
    if size < config.patch[-1] or (size - config.patch[-1]) % step:
        raise UsageError(f"size {size} does not fit patches of {config.patch[-1]} pixels; a multiple of {step} is needed")
    try:
        enlarged = replace(config, shape=(*config.shape[:-2], size, size))
    except ValueError as error:
        raise UsageError(f"size {size}: {error}") from None
    stem = _shallow(encoder.stem)
    own, places = encoder.stem.pos.detach()[:, :1], encoder.stem.pos.detach()[:, 1:]
    planes = places.reshape(math.prod(config.grid[:-2]), *config.grid[-2:], -1).permute(0, 3, 1, 2).float()  # (t, d, h, w)
    planes = F.interpolate(planes, size=enlarged.grid[-2:], mode="bicubic", align_corners=False)
    positions = planes.permute(0, 2, 3, 1).reshape(1, -1, places.shape[-1]).to(places.dtype)
    stem.pos = nn.Parameter(torch.cat([own, positions], dim=1), requires_grad=False)
    result = _shallow(encoder)
    result.config, result.stem = enlarged, stem
    return result


def _shallow(module: M) -> M:
    """Copy a module so that a part of the copy can be replaced, while all other parts are shared."""
    result = copy.copy(module)
    result._parameters, result._modules = dict(module._parameters), dict(module._modules)
    return result
