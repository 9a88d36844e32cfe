"""The fingerprint of an encoder's weights: how stores, runs and caches say which weights they were made with, and find out whether they still fit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

RULE = "2:"
"""Start of every fingerprint: which rule it follows. Those of the first rule had none, and changed with the processor."""

VALUES = 16
"""Values of a tensor that are looked at."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """`2:` and 16 hex digits that tell one encoder's weights from another's, on every machine and in every file format.

    A SHA-256 over every tensor's name and shape and 16 values spread over it, as float32: a few pages of a multi-gigabyte file are
    touched, not all of it.

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
    """Return which of `count` values are looked at, int64: the first, the last, and others evenly between.

    In whole numbers: float32 positions past 2**24 differ with the processor and may lie past the end.
    """
    shown = min(VALUES, count)
    return np.arange(shown) * (count - 1) // max(shown - 1, 1)


def is_earlier(value: object) -> bool:
    """Check whether a record holds a fingerprint of the first rule, which can be compared with no other machine's, nor with today's."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
