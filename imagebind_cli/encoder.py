"""An encoder: stem -> trunk -> pool -> head -> unit vector, and the contract a modality's file fulfils.

ImageBind section 3.3: one encoder per modality, each a transformer with a linear head into the joint space. The vector is
normalised and never multiplied by the logit scale; the scale belongs to the model and is used for probabilities only.

Dimensions: b batch, n tokens, d width, e size of the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from imagebind_cli.transformer import Transformer, TrunkConfig

STILL_FRAMES = 2
"""A still picture stands for this many equal frames (published behaviour: the picture is repeated before the stem)."""

Span = tuple[float, float] | None
"""Start and end of a clip in seconds; None where time means nothing, as in a picture."""


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of one encoder and the input it wants.

    dim: size of the joint space (e). shape: one clip, without batch: (3, 2, 224, 224), (77,), (1, 128, 204), (6, 2000).
    trunk: see `TrunkConfig`. patch, stride: kernel and step of the patch projection; empty for text.
    stem_norm_eps: epsilon of the LayerNorm after the patch projection; None where there is none (vision, text).
    vocabulary: number of text tokens; 0 for other modalities. pool: `cls`, or `eos` for the end token of a text.
    head: `linear` as published, or `mlp`: a hidden layer of the trunk's width and GELU before the projection (the paper's ablation 5b).
    head_dropout: before the last projection, training only (IMU). patch_dropout: share of the patches left out of each input, training only
    (FLIP, arXiv 2212.00794): the trunk costs that much less.
    scale: the logit scale a fresh encoder starts from; None where there is none (vision). learn_scale: whether training moves it.
    mean, std: what the input is normalised with, per channel.
    """

    dim: int
    shape: tuple[int, ...]
    trunk: TrunkConfig
    patch: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    stem_norm_eps: float | None = None
    vocabulary: int = 0
    pool: str = "cls"
    head: str = "linear"
    head_dropout: float = 0.0
    patch_dropout: float = 0.0
    scale: float | None = None
    learn_scale: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches along each axis of the input; () for text."""
        axes = self.shape[-len(self.patch) :] if self.patch else ()
        return tuple((size - patch) // step + 1 for size, patch, step in zip(axes, self.patch, self.stride, strict=True))

    @property
    def tokens(self) -> int:
        """Tokens the trunk sees: the patches and the class token, or the context length of text."""
        return math.prod(self.grid) + 1 if self.patch else self.shape[0]


class PatchStem(nn.Module):
    """Pictures, clips or spectrograms to tokens: a strided convolution, the class token, learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        convolution: Any = nn.Conv2d if len(config.patch) == 2 else nn.Conv3d
        self.proj = convolution(config.shape[0], width, config.patch, config.stride, bias=False)
        # The published stems keep PyTorch's default epsilon of 1e-5; every other LayerNorm has 1e-6.
        self.norm = nn.Identity() if config.stem_norm_eps is None else nn.LayerNorm(width, eps=config.stem_norm_eps)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.tokens, width))

    def forward(self, x: Tensor) -> Tensor:  # (b, c, h, w), or (b, c, t, h, w) for vision
        x = self._project(x).flatten(2).transpose(1, 2)  # (b, n - 1, d)
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.norm(x)], dim=1)  # (b, n, d)
        return x + self.pos[:, : x.shape[1]]  # a still picture on a many-frame stem takes the first frame's positions

    def _project(self, x: Tensor) -> Tensor:
        if isinstance(self.proj, nn.Conv2d) or x.dim() == 5:
            return self.proj(x)
        if self.proj.kernel_size[0] == STILL_FRAMES:
            # Equal frames under one kernel: summing the kernel over time first gives the same tokens for half the work.
            return F.conv2d(x, self.proj.weight.sum(2), stride=self.proj.stride[1:])
        return self.proj(x.unsqueeze(2).expand(-1, -1, STILL_FRAMES, -1, -1))


class Head(nn.Module):
    """LayerNorm and projection into the joint space, on the one pooled token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.trunk.width, eps=config.trunk.norm_eps)
        self.up = nn.Linear(config.trunk.width, config.trunk.width) if config.head == "mlp" else None
        self.dropout = nn.Dropout(config.head_dropout)
        self.proj = nn.Linear(config.trunk.width, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (b, d) to (b, e)
        x = self.norm(x)
        if self.up is not None:
            x = F.gelu(self.up(x))
        return self.proj(self.dropout(x))


class Encoder(nn.Module):
    """One modality's encoder. Build it with `build_encoder`, which leaves the weights to the caller."""

    def __init__(self, config: EncoderConfig, stem: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.trunk = Transformer(config.trunk)
        self.head = Head(config)
        if config.scale is not None:
            self.log_scale = nn.Parameter(torch.empty(()), requires_grad=config.learn_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Unit vectors (b, e) in float32 for clips (b, *shape); vision also takes still pictures (b, 3, h, w)."""
        tokens = self.stem(x)  # (b, n, d)
        if self.training and self.config.patch_dropout:
            tokens = _some_patches(tokens, self.config.patch_dropout)
        tokens = self.trunk(tokens)
        if self.config.pool == "eos":  # the end token has the highest id of the vocabulary
            pooled = tokens[torch.arange(len(x), device=x.device), x.argmax(dim=-1)]
        else:
            pooled = tokens[:, 0]
        return F.normalize(self.head(pooled).float(), dim=-1)

    @property
    def scale(self) -> float:
        """The logit scale, 1 / temperature: what probabilities multiply cosines with. 1 for vision; never above 100."""
        if self.config.scale is None:
            return 1.0
        return min(
            float(f"{math.exp(self.log_scale.item()):.9g}"), 100.0
        )  # all that float32 holds: stores compare it, and exp's end varies


def _some_patches(tokens: Tensor, dropped: float) -> Tensor:
    """The class token and a random share of the patches of each input, (b, n, d) to (b, n', d); at least one patch stays."""
    count = max(1, round((tokens.shape[1] - 1) * (1 - dropped)))
    chosen = torch.rand(tokens.shape[0], tokens.shape[1] - 1, device=tokens.device).topk(count, dim=1).indices + 1  # (b, n' - 1)
    patches = tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([tokens[:, :1], patches], dim=1)


@dataclass(frozen=True)
class Sample:
    """One input, or a stretch of a long one, as the encoder takes it.

    tensor: (clips, *shape); the clip axis is always there. spans: per clip, its seconds. A video's three crops are clips
    with the same span. notes: what had to be assumed to read it, in words for the user. facts: what the file turned out to hold (rate,
    channels, size, unit, …), in JSON's types, with the item's first sample. warnings: what is lost of this very item, said with its name.
    modality: whose it is, where several of one item are read.
    """

    tensor: Tensor
    spans: list[Span]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    modality: str = ""


Reader = Callable[[Any, EncoderConfig, Any], Iterator[Sample]]
"""(source, encoder config, options) to the samples of one item, in time order.

A source is a path, an open binary file, or the modality's array. A long item comes as several samples, so that it never lies
in memory whole. Raises OSError or ValueError, with a reason in words, for an input that cannot be read.
"""


@dataclass(frozen=True)
class Modality:
    """An encoder file's whole contract.

    panel: how `--preview` draws a channel: `grey` from its smallest to its largest value, `unit` from 0 to 1, or as a `spectrogram`.
    name: as in the registry. stem: builds the stem from an EncoderConfig. readers: what a user may call this input, and how
    each is read; the choices they take stand in `reading.OPTIONS`.
    """

    name: str
    readers: Mapping[str, Reader]
    stem: Callable[[EncoderConfig], nn.Module] = field(default=PatchStem)
    panel: str = "grey"


class _NoInitialisation(TorchFunctionMode):
    """Leaves out `torch.nn.init` while modules are built: on the meta device it fills nothing, and imports a second's worth of compiler."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return arguments[0] if arguments else named["tensor"]
        return function(*arguments, **(named or {}))


def build_encoder(modality: Modality, config: EncoderConfig) -> Encoder:
    """The encoder's modules on the meta device: shapes without memory. Load weights with `assign=True`."""
    with torch.device("meta"), _NoInitialisation():
        return Encoder(config, modality.stem(config)).eval()
