"""Depth: metric depth to scaled disparity, one channel (ImageBind appendix A.1; conversion as OMNIVORE, which the paper follows)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.arrays import read_map
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.fitting import fit_square
from imagebind_cli.reading import DepthOptions

NEAREST, FARTHEST = 0.01, 50.0  # metres; OMNIVORE clips depth here
LARGEST_DISPARITY = 75.0  # pixels; OMNIVORE divides by it


def disparity(metres: np.ndarray, focal: float, baseline: float) -> np.ndarray:
    """Scaled disparity in (0, 1], baseline * focal / depth / 75, of depth in metres (h, w); pixels without depth are infinitely far."""
    known = np.isfinite(metres) & (metres > 0)
    depth = np.where(known, np.clip(metres, NEAREST, FARTHEST), np.inf)
    return np.clip(baseline * focal / depth, 0.01, LARGEST_DISPARITY) / LARGEST_DISPARITY


def read(source: Source | np.ndarray, config: EncoderConfig, options: DepthOptions) -> Iterator[Sample]:
    """A depth file (16-bit PNG or TIFF, float TIFF, NPY), or an array (h, w): uint16 millimetres or float metres."""
    values = source if isinstance(source, np.ndarray) else read_map(source)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"shape {values.shape}; (height, width) is needed")
    unit = options.depth_format
    if unit is None:
        if values.dtype.itemsize < 2:
            raise ValueError("an 8-bit picture is no metric depth; 16-bit millimetres or floating-point metres are needed")
        unit = "metres" if values.dtype.kind == "f" else "mm"
    if unit not in ("metres", "mm"):
        raise ValueError(f"unknown depth format {unit!r}; choose from metres, mm")
    metres = values.astype(np.float64) / (1000 if unit == "mm" else 1)
    missing = float(np.mean(~(np.isfinite(metres) & (metres > 0))))
    if missing == 1:
        raise ValueError("no pixel has a depth")
    notes = [f"depth read as {unit}, focal {options.focal:g} px, baseline {options.baseline:g} m"]
    if missing:
        notes.append("pixels without depth taken as infinitely far")
    plane = fit_square(disparity(metres, options.focal, options.baseline), config.shape[-1])
    yield Sample(((plane - config.mean[0]) / config.std[0])[None, None], [None], tuple(notes))


MODALITY = Modality(name="depth", readers={"depth": read})
