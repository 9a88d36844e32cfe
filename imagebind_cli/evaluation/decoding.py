"""Measure how far vectors of a user's own pictures move when JPEGs are decoded at a smaller scale, and how much time that saves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.model import Model
from imagebind_cli.options.vision import EXACT, FAST

MOST = 200  # files that are compared
ENDINGS = {".jpg", ".jpeg"}


@dataclass(frozen=True)
class DecodingLoss:
    """The cost and the gain of fast decoding on some pictures.

    cosines: of each one's vector to the exact one, (n,). faster: the processor time of reading them, exact over fast.
    """

    cosines: np.ndarray
    faster: float


def sample_jpegs(paths: Sequence[Path]) -> list[Path]:
    """List the JPEG files among paths and in folders, evenly spaced where there are more than `MOST`.

    Raises:
        UserError: there are none.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [file for file in files if file.suffix.lower() in ENDINGS and file.is_file()]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no JPEG file; fast decoding is of JPEGs alone")
    return files if len(files) <= MOST else [files[place] for place in np.linspace(0, len(files) - 1, MOST).round().astype(int)]


def decoding_loss(model: Model, files: Sequence[Path]) -> DecodingLoss:
    """Embed pictures as `image`, decoded exactly and fast, and compare them.

    Raises:
        UserError: a file cannot be read, or the model cannot read fast.
    """
    exact, fast = (model.embed("image", files, decode=way) for way in (EXACT, FAST))
    seconds = {EXACT: 0.0, FAST: 0.0}
    for file in files:
        for way in seconds:
            began = time.process_time()
            list(model.read("image", file, decode=way))
            seconds[way] += time.process_time() - began
    cosines = np.clip(np.einsum("nd,nd->n", exact, fast, dtype=np.float64), -1, 1)
    return DecodingLoss(cosines, seconds[EXACT] / max(seconds[FAST], 1e-9))
