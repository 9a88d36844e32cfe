"""The fingerprint of an encoder's weights, by which stores, runs and caches recognise the weights that they were made with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
        tensors: by our names, as `Checkpoint.read` gives them. Of those that are joined from parts, the parts are read.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        with tensors.parts(name) if hasattr(tensors, "parts") else nullcontext([tensors[name]]) as parts:
            shape = tuple(parts[0].shape) if len(parts) == 1 else (sum(len(part) for part in parts), *parts[0].shape[1:])
            digest.update(f"{name}{shape}".encode() + _values(parts).astype("<f4").tobytes())
    return RULE + digest.hexdigest()[:16]


def _values(parts: Sequence[Tensor]) -> np.ndarray:
    """Return the values that are read, float32, of the parts of a tensor that are joined along its first axis."""
    chosen, start, values = positions(sum(part.numel() for part in parts)), 0, []
    for part in parts:
        inside = chosen[(chosen >= start) & (chosen < start + part.numel())] - start
        places = np.unravel_index(inside, (1, *part.shape))  # no copy, whatever the tensor's strides
        values.append(part.detach()[None][places].float().numpy())
        start += part.numel()
    return np.concatenate(values)


def positions(count: int) -> np.ndarray:
    """Return which of `count` values are read, int64: the first, the last, and others evenly between.

    They are computed in integers: float32 positions past 2**24 differ by processor and may be past the end.
    """
    shown = min(VALUES, count)
    return np.arange(shown) * (count - 1) // max(shown - 1, 1)


def is_earlier(value: object) -> bool:
    """Check whether a value is a fingerprint of the first rule, which cannot be compared with those of other machines, nor with today's."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
