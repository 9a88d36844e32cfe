"""The transformer every encoder shares (ImageBind, arXiv 2305.05665, section 3.3 and appendix C.1).

Pre-norm blocks, exact GELU, learned key/value biases where the modality has them. What differs between modalities and
families is a field of `TrunkConfig`, never a subclass.

Dimensions: b batch, n tokens, d width, h heads, k width of a head (d / h), t frames of a clip, u hidden units of the MLP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Literal

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

    frames: frames of a clip, over which every block has an attention of its own before that over places (LanguageBind's videos); 0 for none.
    gated: the activation of one projection multiplies a second one (GeGLU). inner_norms: a LayerNorm also over the joined heads and over the
    hidden units (Magneto, arXiv 2210.06423). layer_scale: learned factors of both branches of a block.
    relative: what is added to the attention by relative position: nothing, or learned numbers by the distance along a `line` or in a `grid`.
    buckets: of a line, the number of buckets of distances; of a grid, its side. shared_relative: all blocks share one table of these numbers.
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
    frames: Annotated[int, Field(ge=0, le=1 << 12)] = 0
    gated: bool = False
    inner_norms: bool = False
    layer_scale: bool = False
    relative: Literal["", "line", "grid"] = ""
    buckets: Annotated[int, Field(ge=0, le=1 << 12)] = 0
    shared_relative: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        if bool(self.relative) != bool(self.buckets):
            raise ValueError("relative and buckets are given together or not at all")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; choose from {', '.join(ACTIVATIONS)}")


LINE_LENGTH = 1024  # places of a line; the buckets of its distances are laid out for this many


def mlp_ratio(hidden: int, width: int) -> float:
    """Return the `TrunkConfig.mlp` by which a trunk of this width gets exactly so many hidden units."""
    ratio = hidden / width
    return ratio if int(ratio * width) == hidden else math.nextafter(ratio, math.inf)


def relative_numbers(kind: str, buckets: int, tokens: int) -> Tensor:
    """Return which number of a table of relative positions each pair of tokens takes, (n, n) int64: row of the query, column of the key.

    Source: ONE-PEACE, arXiv 2305.11172, section 3.1, and its published code; the distances of a line are T5's buckets, symmetric.

    Args:
        kind: `line`, of `buckets` numbers a direction, or `grid`, of `buckets` places a side and the class token in front of them.
    Raises:
        ValueError: a line of more places than the buckets are laid out for, or another number of tokens than a grid has.
    """
    if kind == "line":
        if tokens > LINE_LENGTH:
            raise ValueError(f"{tokens} tokens; the relative positions are of {LINE_LENGTH} at most")
        return _line_numbers(buckets)[:tokens, :tokens]
    if tokens != buckets**2 + 1:
        raise ValueError(f"{tokens} tokens; a grid of {buckets} x {buckets} and a class token are {buckets**2 + 1}")
    return _grid_numbers(buckets)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is made without gradients could not be used with them later
def _line_numbers(buckets: int) -> Tensor:
    """Return those of all places of a line, of which a shorter one takes the first: sounds of a hundred lengths keep one table, of 8 MB."""
    half = buckets // 2
    distance = torch.arange(LINE_LENGTH)[:, None] - torch.arange(LINE_LENGTH)[None, :]
    size = distance.abs().clamp(min=1).double()
    far = half + torch.ceil((size / half).log() / math.log((LINE_LENGTH - 1) / half) * (half - 1)).long()
    numbers = torch.where(distance.abs() <= half, distance, distance.sign() * far) + buckets - 1
    return _with_class_token(numbers, 2 * buckets - 1)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # what is made without gradients could not be used with them later
def _grid_numbers(buckets: int) -> Tensor:
    side = 2 * buckets - 1
    place = torch.arange(buckets**2)
    row, column = (place[:, None] // buckets - place[None, :] // buckets, place[:, None] % buckets - place[None, :] % buckets)
    numbers = torch.nn.functional.pad((row + buckets - 1) * side + column + buckets - 1, (1, 0, 1, 0))
    return _with_class_token(numbers, side**2)


def _with_class_token(numbers: Tensor, first: int) -> Tensor:
    """Give the pairs with the class token, which is the first, numbers of their own: from it, to it, and with itself."""
    numbers[0, :], numbers[:, 0], numbers[0, 0] = first, first + 1, first + 2
    return numbers


def relative_rows(kind: str, buckets: int) -> int:
    """Return the number of rows of a table of relative positions; the last three are from, to and of the class token."""
    return 2 * buckets + 2 if kind == "line" else (2 * buckets - 1) ** 2 + 3


class Attention(nn.Module):
    """Multi-head self-attention with packed q, k, v, an optional learned extra key and value, and what relative positions add."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads, self.causal = config.heads, config.causal
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        if config.bias_kv:
            self.bias_k = nn.Parameter(torch.empty(1, 1, config.width))
            self.bias_v = nn.Parameter(torch.empty(1, 1, config.width))
        self.bias_kv = config.bias_kv
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.inner_norms else None

    def forward(self, x: Tensor, relative: Tensor | None = None) -> Tensor:  # (b, n, d); relative (1, h, n, n)
        return self.attend(*self.heads_of(x), relative)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (b, n, d) to queries (b, h, n, k), and keys and values, (b, h, n + 1, k) with the learned ones."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.bias_kv:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], dim=1)  # (b, n + 1, d)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], dim=1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None = None) -> Tensor:
        """Attend, and join the heads: (b, n, d). added: to the products of queries and keys, as (1, h, n, n)."""
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=added, is_causal=self.causal)
        x = x.transpose(1, 2).flatten(2)  # (b, n, d)
        return self.out(x if self.norm is None else self.norm(x))


class TimeAttention(nn.Module):
    """Attention of each place over the frames of a clip, with positions of its own that stay in the residual (LanguageBind, section 3.2)."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.empty(1, config.frames, config.width))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)

    def forward(self, x: Tensor) -> Tensor:  # (b * t, n, d), a clip's frames one after the other
        tokens = x.shape[1]
        frames, width = self.pos.shape[1:]
        x = x.view(-1, frames, tokens, width).transpose(1, 2).flatten(0, 1) + self.pos  # (b * n, t, d)
        x = x + self.attn(self.norm(x))
        return x.view(-1, tokens, frames, width).transpose(1, 2).flatten(0, 1)


class MLP(nn.Module):
    """Two linear layers around the activation, of which the first may be two, packed: activated, and multiplied by it."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        hidden = int(config.mlp * config.width)
        self.gated = config.gated
        self.up = nn.Linear(config.width, 2 * hidden, bias=False) if config.gated else nn.Linear(config.width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.norm_eps) if config.inner_norms else None
        self.down = nn.Linear(hidden, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, x = self.up(x).chunk(2, dim=-1)  # (b, n, u) each
            x = self.activation(gate) * x
        else:
            x = self.activation(self.up(x))
        return self.down(x if self.norm is None else self.norm(x))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and inside a residual; before them, where a clip has frames, attention over time."""

    def __init__(self, config: TrunkConfig, drop_path: float) -> None:
        super().__init__()
        self.time = TimeAttention(config) if config.frames else None
        self.scale1, self.scale2 = (nn.Parameter(torch.empty(config.width)) if config.layer_scale else None for _ in range(2))
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.drop_path = drop_path

    def forward(self, x: Tensor, relative: Tensor | None = None) -> Tensor:  # (b, n, d); relative (1, h, n, n)
        return self.branches(x if self.time is None else self.time(x), relative)

    def branches(self, x: Tensor, relative: Tensor | None = None) -> Tensor:
        """Apply attention over places and the MLP, (b, n, d) to (b, n, d), without attention over time."""
        return self.transform(self.add_attended(x, self.attn(self.norm1(x), relative)))

    def add_attended(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what attention gave to the tokens it was of, (b, n, d) each."""
        return x + self._drop(attended if self.scale1 is None else self.scale1 * attended)

    def transform(self, x: Tensor) -> Tensor:
        """Apply the MLP, (b, n, d) to (b, n, d)."""
        transformed = self.mlp(self.norm2(x))
        return x + self._drop(transformed if self.scale2 is None else self.scale2 * transformed)

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
        self.relative, self.buckets = config.relative, config.buckets
        count = 0 if not config.relative else 1 if config.shared_relative else config.layers
        rows = relative_rows(config.relative, config.buckets)
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(rows, config.heads)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        for block, relative in zip(self.blocks, self.relative_biases(x.shape[1]), strict=True):
            x = block(x, relative)
        return x

    def relative_biases(self, tokens: int) -> Iterator[Tensor | None]:
        """Yield what relative positions add to the attention of each block, (1, h, n, n); None in a trunk without them."""
        relative = None
        for number in range(len(self.blocks)):
            if number < len(self.tables):
                table = self.tables[number]
                numbers = relative_numbers(self.relative, self.buckets, tokens).to(table.device)
                relative = table[numbers].permute(2, 0, 1).unsqueeze(0).contiguous()
            yield relative
