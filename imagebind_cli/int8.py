"""Run an encoder's blocks in int8, for CPUs: a quarter of the memory and several times the speed of matrix products, for a small error.

Weights are rounded once, with a scale per output; inputs are rounded in each call, with a scale per token. A token's rounding depends on the
token alone, so that a vector does not change with the batch it is in. Stem, norms, attention and head stay float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from imagebind_cli.encoder import Encoder

LARGEST = 127
SMALLEST = torch.finfo(torch.float32).tiny
SLOWEST = 8  # times `torch._int_mm` that oneDNN's product may take


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8, (o, i) or packed for oneDNN."""

    weight: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True).clamp_(min=SMALLEST) / LARGEST  # (o, 1)
        rounded = (linear.weight.detach() / scale).round_().to(torch.int8)
        self.packed = packs()
        self.register_buffer("weight", torch.ops.onednn.qlinear_prepack(rounded, None) if self.packed else rounded)
        self.register_buffer("scale", scale.flatten())
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:  # (…, i) to (…, o) float32
        rows = x.flatten(0, -2)
        # Equals `abs().amax()`, which would write all rows once more.
        largest = torch.maximum(rows.amax(dim=1, keepdim=True), rows.amin(dim=1, keepdim=True).neg_())
        size = largest.clamp_(min=SMALLEST).div_(LARGEST)  # (n, 1)
        product = self._product((rows / size).round_().to(torch.int8))
        return torch.addcmul(self.bias.detach(), product, size, out=product).view(*x.shape[:-1], -1)

    def _product(self, rounded: Tensor) -> Tensor:  # (n, i) int8 to (n, o) float32
        if self.packed:
            return _packed_product(rounded, self.weight, self.scale, self.zero)
        # The weights as a transposed view: contiguous ones are unpacked each time.
        return torch._int_mm(rounded, self.weight.T) * self.scale


def _packed_product(rounded: Tensor, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Multiply with oneDNN's int8 product and a scale per output, which writes no int32 in between."""
    return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
        rounded, 1.0, 0, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


@cache
def packs() -> bool:
    """Check whether oneDNN's product is exact and fast here; else `torch._int_mm` multiplies.

    Torch for other processors lacks it, and old processors saturate at 16 bits. For some, oneDNN only has reference code, hundreds of times as slow.
    """
    rows, weight = (torch.full((count, 256), value, dtype=torch.int8) for count, value in ((16, LARGEST), (64, -LARGEST)))
    scale, zero = torch.ones(64), torch.zeros(64, dtype=torch.int32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
        exact = bool((_packed_product(rows, packed, scale, zero) == -256 * LARGEST * LARGEST).all())
    except (RuntimeError, AttributeError):
        return False
    return exact and shortest_seconds(lambda: _packed_product(rows, packed, scale, zero)) < SLOWEST * shortest_seconds(
        lambda: torch._int_mm(rows, weight.T)
    )


def shortest_seconds(multiply: Callable[[], object]) -> float:
    """Return the shortest time of five calls."""

    def once() -> float:
        began = time.perf_counter()
        multiply()
        return time.perf_counter() - began

    return min(once() for _ in range(5))


def narrow(encoder: Encoder) -> Encoder:
    """Replace all linear layers of an encoder's blocks with int8 ones, in place, and return the encoder."""
    for block in encoder.trunk.blocks:
        for owner, name in ((block.attn, "qkv"), (block.attn, "out"), (block.mlp, "up"), (block.mlp, "down")):
            setattr(owner, name, Int8Linear(getattr(owner, name)))
    return encoder
