"""Sampling, scaling, normalising and cropping, for code that reads frames of its own.

Dimensions: c channels, t frames, h, w height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UniformTemporalSubsample(nn.Module):
    """Keeps evenly spaced frames, from the first to the last."""

    def __init__(self, num_samples: int, temporal_dim: int = -3) -> None:
        super().__init__()
        self.num_samples, self.temporal_dim = num_samples, temporal_dim

    def forward(self, x: Tensor) -> Tensor:
        """Keep `num_samples` frames of (c, t, h, w)."""
        last = x.shape[self.temporal_dim] - 1
        numbers = torch.linspace(0, last, self.num_samples, device=x.device).long()
        return x.index_select(self.temporal_dim, numbers)


class ShortSideScale(nn.Module):
    """Scales frames so that the short side has `size` pixels."""

    def __init__(self, size: int, interpolation: str = "bilinear") -> None:
        super().__init__()
        self.size, self.interpolation = size, interpolation

    def forward(self, x: Tensor) -> Tensor:
        """Scale (c, t, h, w) float, without antialiasing."""
        height, width = (math.floor(side / min(x.shape[-2:]) * self.size) for side in x.shape[-2:])
        return F.interpolate(x, size=(height, width), mode=self.interpolation, align_corners=False)


class NormalizeVideo(nn.Module):
    """Normalises frames with the mean and deviation of each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        super().__init__()
        self.mean, self.std, self.inplace = mean, std, inplace

    def forward(self, clip: Tensor) -> Tensor:
        """Normalise (c, t, h, w) float."""
        mean, std = (torch.as_tensor(values, dtype=clip.dtype, device=clip.device).view(-1, 1, 1, 1) for values in (self.mean, self.std))
        return clip.sub_(mean).div_(std) if self.inplace else (clip - mean) / std


def uniform_crop(images: Tensor, size: int, spatial_idx: int) -> tuple[Tensor, None]:
    """Cut a square of a side out of frames (…, h, w).

    Args:
        spatial_idx: place along the longer side: 0 for its beginning, 1 for the middle, 2 for its end.
    Returns:
        The frames (…, size, size), and None where the published function returns boxes.
    """
    height, width = images.shape[-2:]
    offsets = {-2: math.ceil((height - size) / 2), -1: math.ceil((width - size) / 2)}
    if spatial_idx != 1:
        longer = -2 if height > width else -1
        offsets[longer] = 0 if spatial_idx == 0 else images.shape[longer] - size
    for axis, offset in offsets.items():
        images = images.narrow(axis, offset, size)
    return images, None


class SpatialCrop(nn.Module):
    """Cuts squares out of clips: at both ends of the longer side and in the middle, or in the middle alone."""

    def __init__(self, crop_size: int = 224, num_crops: int = 3) -> None:
        super().__init__()
        if num_crops not in (1, 3):
            raise ValueError(f"{num_crops} crops; 1 or 3 are cut")
        self.crop_size, self.places = crop_size, (0, 1, 2) if num_crops == 3 else (1,)

    def forward(self, videos: Sequence[Tensor]) -> list[Tensor]:
        """Return all crops (c, t, size, size) of the first of the clips (c, t, h, w), then those of the next."""
        return [uniform_crop(video, self.crop_size, place)[0] for video in videos for place in self.places]
