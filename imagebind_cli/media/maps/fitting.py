"""One value per pixel, scaled and cropped to the square an encoder takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.media.image import middle
from imagebind_cli.media.views import View


def fit_square(values: np.ndarray, size: int, view: View | None = None) -> Tensor:
    """Scale a map (h, w) to (size, size) float32: short side to size (bilinear, antialiased), then the middle; or as a view says."""
    values = values[middle(*values.shape), middle(*values.shape[::-1])]
    if view is not None:
        return torch.from_numpy(view.plane(values, size).copy())
    height, width = values.shape
    scale = size / min(height, width)
    scaled = tuple(size if side == min(height, width) else int(side * scale) for side in (height, width))
    plane = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    plane = F.interpolate(plane, size=scaled, mode="bilinear", align_corners=False, antialias=True)[0, 0]
    top, left = (round((side - size) / 2) for side in scaled)
    return plane[top : top + size, left : left + size]
