"""The regions of a picture or map as samples: what a reader yields in place of one of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebind_cli.encoder import Sample
from imagebind_cli.media.regions import Cuts, cut_regions
from imagebind_cli.options.drawn import DrawnOptions

AT_ONCE = 64  # clips in one sample: an input may have thousands of regions

Whole = TypeVar("Whole", Image.Image, np.ndarray)


def region_samples(
    whole: Whole,
    options: DrawnOptions,
    fill: Sequence[float],
    to_clip: Callable[[Whole], Tensor],
    *,
    notes: tuple[str, ...] = (),
    facts: Mapping[str, Any] = MappingProxyType({}),
    began: datetime | None = None,
) -> Iterator[Sample]:
    """Yield the regions that options ask for, each a clip.

    Args:
        whole: a picture in RGB, upright, or a map (h, w). fill: what is outside a mask: of each channel a share of 1, or the map's value.
        to_clip: turns one that was cut out into the encoder's input. notes, facts, began: those of the first sample.
    Raises:
        ValueError: as `cut_regions`.
    """
    width, height = whole.shape[::-1] if isinstance(whole, np.ndarray) else whole.size
    placed: Cuts = cut_regions(options, width, height)
    for start in range(0, len(placed.cuts), AT_ONCE):
        cuts = placed.cuts[start : start + AT_ONCE]
        clips = torch.stack([to_clip(cut.of(whole, fill)) for cut in cuts])
        about = tuple(cut.record for cut in cuts)
        if start:
            yield Sample(clips, [None] * len(cuts), regions=about)
        else:
            yield Sample(clips, [None] * len(cuts), (*notes, *placed.notes), facts, placed.warnings, began=began, regions=about)
