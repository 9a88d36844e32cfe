"""The transformer every encoder shares (ImageBind, arXiv 2305.05665, section 3.3 and appendix C.1).

Pre-norm blocks, exact GELU, learned key/value biases where the modality has them. What differs between modalities is
a field of `TrunkConfig`, never a subclass.

Dimensions: b batch, n tokens, d width, h heads, k width of a head (d / h).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    # OpenAI's CLIP and its descendants; with the exact GELU such weights run without an error and are off by a few per cent.
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


# What a config file may hold: pydantic checks it, see `weights.model_config`.
Size = Annotated[int, Field(gt=0, le=1 << 20)]
Share = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class TrunkConfig:
    """The shape of one trunk.

    width: d. layers: number of blocks. heads: attention heads; must divide width. mlp: hidden width of the MLP over d.
    bias_kv: one learned key and value appended to every sequence (audio, depth, thermal, IMU).
    causal: a token sees only itself and earlier ones (text). pre_norm: LayerNorm before the first block (vision).
    drop_path: stochastic depth of the last block, rising linearly from 0 at the first; training only.
    norm_eps: epsilon of every LayerNorm of trunk and head. activation: a key of `ACTIVATIONS`.
    """

    width: Size
    layers: Annotated[int, Field(gt=0, le=1000)]
    heads: Size
    mlp: Annotated[float, Field(gt=0, le=100)] = 4.0
    bias_kv: bool = False
    causal: bool = False
    pre_norm: bool = False
    drop_path: Share = 0.0
    norm_eps: Epsilon = 1e-6
    activation: str = "gelu"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; choose from {', '.join(ACTIVATIONS)}")


class Attention(nn.Module):
    """Multi-head self-attention with packed q, k, v and an optional learned extra key and value."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, config.causal
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        if config.bias_kv:
            self.bias_k = nn.Parameter(torch.empty(1, 1, config.width))
            self.bias_v = nn.Parameter(torch.empty(1, 1, config.width))
        self.bias_kv = config.bias_kv

    def forward(self, x: Tensor) -> Tensor:  # (b, n, d)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.bias_kv:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], dim=1)  # (b, n + 1, d)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], dim=1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (b, h, n, k)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(x.transpose(1, 2).flatten(2))  # (b, n, d)


class MLP(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        hidden = int(config.mlp * config.width)
        self.up = nn.Linear(config.width, hidden)
        self.down = nn.Linear(hidden, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and inside a residual."""

    def __init__(self, config: TrunkConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:  # (b, n, d)
        x = x + self._drop(self.attn(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, x: Tensor) -> Tensor:
        """Apply stochastic depth: in training, drop the branch for a random share of the batch and scale up the rest."""
        if not self.training or not self.drop_path:
            return x
        keep = 1 - self.drop_path
        return x * x.new_empty(len(x), 1, 1).bernoulli_(keep) / keep


class Transformer(nn.Module):
    """A stack of blocks, (b, n, d) to (b, n, d). No norm at the end: the head has its own."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        # Python numbers: a tensor schedule cannot be read on the meta device, where encoders are built.
        rates = [config.drop_path * i / max(config.layers - 1, 1) for i in range(config.layers)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        for block in self.blocks:
            x = block(x)
        return x
