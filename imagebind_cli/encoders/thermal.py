"""Thermal: one channel of long-wave infrared in [0, 1] (ImageBind appendix A.1).

The paper gives no normalisation; without any, third parties reproduce the published LLVIP score best, so there is none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.arrays import read_map
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.fitting import fit_square
from imagebind_cli.reading import NoOptions


def read(source: Source | np.ndarray, config: EncoderConfig, options: NoOptions) -> Iterator[Sample]:
    """A grey picture (8 or 16 bits, floating-point TIFF, NPY), or an array (h, w)."""
    values = source if isinstance(source, np.ndarray) else read_map(source)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"shape {values.shape}; (height, width) is needed")
    notes: tuple[str, ...] = ()
    if values.dtype == np.uint8:
        scaled = values / 255
    else:
        known = values[np.isfinite(values)]
        if not known.size or known.min() == known.max():
            raise ValueError("all pixels have one value; there is nothing to see")
        scaled = (np.nan_to_num(values, nan=known.min()) - float(known.min())) / float(known.max() - known.min())
        scaled = scaled.clip(0, 1)
        notes = ("thermal values of more than 8 bits scaled from the picture's own smallest to its largest",)
    plane = fit_square(scaled, config.shape[-1])
    yield Sample(((plane - config.mean[0]) / config.std[0])[None, None], [None], notes)


MODALITY = Modality(name="thermal", readers={"thermal": read})
