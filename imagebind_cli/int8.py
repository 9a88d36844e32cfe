"""An encoder's blocks in int8, for CPUs: a quarter of the memory and several times the products a second, for a small loss.

Weights are rounded once, with a scale for each output; what comes in is rounded as it comes, with a scale for each token. A token's rounding
depends on nothing but itself, so that a vector does not change with the batch it is in. Stem, norms, attention and head stay float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagebind_cli.encoder import Encoder

LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer whose weights (o, i) are int8."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny) / LARGEST  # (o, 1)
        self.register_buffer("weight", (linear.weight.detach() / scale).round_().to(torch.int8))
        self.register_buffer("scale", scale.T.contiguous())  # (1, o)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:  # (…, i) to (…, o) float32
        rows = x.flatten(0, -2)
        size = rows.abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny).div_(LARGEST)
        rounded = (rows / size).round_().to(torch.int8)
        # The one int8 product of torch without a scale for the whole batch. The weights as a view: contiguous ones are unpacked each time.
        product = torch._int_mm(rounded, self.weight.T) * size
        return torch.addcmul(self.bias, product, self.scale).view(*x.shape[:-1], -1)


def narrow(encoder: Encoder) -> Encoder:
    """The encoder, with int8 layers in place of all linear ones of its blocks."""
    for block in encoder.trunk.blocks:
        for owner, name in ((block.attn, "qkv"), (block.attn, "out"), (block.mlp, "up"), (block.mlp, "down")):
            setattr(owner, name, Int8Linear(getattr(owner, name)))
    return encoder
