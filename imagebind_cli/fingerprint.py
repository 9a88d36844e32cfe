"""The fingerprint of an encoder's weights, by which stores, runs and caches recognise the weights that they were made with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

RULE = "2:"  # start of every fingerprint: the rule it follows; those of the first rule had none, and differed by processor
VALUES = 16  # values of a tensor that are read


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return `2:` and 16 hex digits that identify an encoder's weights, on every machine and in every file format.

    They are a SHA-256 of every tensor's name, shape and 16 of its values, evenly spread, as float32: of a multi-gigabyte file only a few
    pages are read.

    Args:
        tensors: by our names, as `Checkpoint.read` gives them.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        places = np.unravel_index(positions(tensor.numel()), (1, *tensor.shape))  # no copy, whatever the tensor's strides
        values = tensor.detach()[None][places].float()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + values.numpy().astype("<f4").tobytes())
    return RULE + digest.hexdigest()[:16]


def positions(count: int) -> np.ndarray:
    """Return which of `count` values are read, int64: the first, the last, and others evenly between.

    They are computed in integers: float32 positions past 2**24 differ by processor and may be past the end.
    """
    shown = min(VALUES, count)
    return np.arange(shown) * (count - 1) // max(shown - 1, 1)


def is_earlier(value: object) -> bool:
    """Check whether a value is a fingerprint of the first rule, which cannot be compared with those of other machines, nor with today's."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
