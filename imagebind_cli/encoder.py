"""An encoder (stem, trunk, pool, head, unit vector), the samples it takes, and the contract that a modality's file fulfils.

ImageBind section 3.3: one encoder per modality, each a transformer with a linear head into the joint space. The vector is
normalised and never multiplied by the logit scale; the scale belongs to the model and is used for probabilities only.

Dimensions: b batch, n tokens, d width, e size of the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, FiniteFloat
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from imagebind_cli.errors import UserError, first_line
from imagebind_cli.transformer import Epsilon, Share, Size, Transformer, TrunkConfig

LARGEST_CLIP = 1 << 24  # numbers in one clip
LARGEST_SCALE = 100.0  # CLIP's bound for 1 / temperature, which keeps a learnt one from diverging
STILL_FRAMES = 2  # equal frames that a still picture represents; the published code repeats the picture before the stem
IMAGEBIND = "imagebind"  # the family of a model that names none
Span = tuple[float, float] | None  # start and end of a clip in seconds; None for input without time, such as a picture


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """The input that a reader makes: one clip, as an encoder takes it.

    shape: of one clip, without batch: (3, 2, 224, 224), (77,), (1, 128, 204), (6, 2000). mean, std: of each channel, to normalise it with.
    vocabulary: number of text tokens; 0 for other modalities. padding: the token that fills a text up to its context.
    shortest: the smallest size of the last axis, where a clip may be shorter than `shape` says; None where it may not.
    max_depth: metres that become 1 in a depth map of a family that takes metres; 0 for the largest of each map, None elsewhere.
    family: the published system whose preprocessing it is, a name in `registry.FAMILIES`.
    """

    shape: tuple[Size, ...]
    vocabulary: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    padding: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    shortest: Size | None = None
    mean: tuple[FiniteFloat, ...] = (0.0,)
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = (1.0,)
    max_depth: Annotated[FiniteFloat, Field(ge=0)] | None = None
    family: str = IMAGEBIND

    def __post_init__(self) -> None:
        if not self.shape or math.prod(self.shape) > LARGEST_CLIP:
            raise ValueError(f"shape {list(self.shape)} is not that of a clip of 1 to {LARGEST_CLIP:,} numbers")
        if self.shortest is not None and self.shortest > self.shape[-1]:
            raise ValueError(f"shortest {self.shortest} is more than shape {list(self.shape)} has")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(InputConfig):
    """The shape of one encoder, and of the input it takes.

    dim: size of the joint space (e). trunk: see `TrunkConfig`.
    patch, stride: kernel and step of the patch projection; empty for other stems. Two axes on clips with frames: each frame by itself.
    convolutions: channels, kernel and step of each convolution of a stem that has several in a row; `patch` and `stride` are what they come to.
    position_convolutions: kernel and groups of each convolution that makes positions of a sound's tokens.
    stem_norm_eps: epsilon of the LayerNorm after the patch projection; None for a stem without one (vision, text).
    frame_tokens: each frame of a clip has a class token of its own.
    pool: `cls`, or `eos` for the end token of a text.
    head: `linear` as published, or `mlp`: a hidden layer of the trunk's width and GELU before the projection (the paper's ablation 5b).
    head_bias: whether the projection has one.
    head_dropout: before the last projection, training only (IMU). patch_dropout: share of the patches left out of each input, training only
    (FLIP, arXiv 2212.00794): the trunk costs that much less.
    scale: the logit scale that a fresh encoder starts from; None for an encoder without one (vision). learn_scale: whether training moves it.
    """

    dim: Size
    trunk: TrunkConfig
    patch: tuple[Size, ...] = ()
    stride: tuple[Size, ...] = ()
    convolutions: tuple[tuple[Size, Size, Size], ...] = ()
    position_convolutions: tuple[tuple[Size, Size], ...] = ()
    stem_norm_eps: Epsilon | None = None
    frame_tokens: bool = False
    pool: Literal["cls", "eos"] = "cls"
    head: Literal["linear", "mlp"] = "linear"
    head_bias: bool = False
    head_dropout: Share = 0.0
    patch_dropout: Share = 0.0
    scale: Annotated[float, Field(gt=0)] | None = None
    learn_scale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.patch) != len(self.stride) or len(self.patch) > len(self.shape) or any(size < 1 for size in self.grid):
            raise ValueError(f"patch {list(self.patch)} and stride {list(self.stride)} do not fit shape {list(self.shape)}")
        reach, step = 1, 1
        for _, kernel, each in self.convolutions:
            reach, step = reach + (kernel - 1) * step, step * each
        if self.convolutions and ({*self.patch}, {*self.stride}) != ({reach}, {step}):
            raise ValueError(
                f"patch {list(self.patch)} and stride {list(self.stride)} are not what convolutions come to: {reach} and {step}"
            )
        if self.trunk.frames and (len(self.shape) != 4 or self.shape[1] != self.trunk.frames or len(self.patch) != 2):
            raise ValueError(f"a trunk over {self.trunk.frames} frames does not fit shape {list(self.shape)} and patch {list(self.patch)}")

    def fits(self, shape: Sequence[int]) -> bool:
        """Check whether an encoder of this config takes clips of a shape; of video clips also a still picture, without the axis of time."""
        if self.shortest is not None:
            return tuple(shape[:-1]) == self.shape[:-1] and self.shortest <= shape[-1] <= self.shape[-1]
        return tuple(shape) in self.shapes

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of clips: `shape`, and where stills may lack the axis of time, theirs."""
        return (self.shape, (self.shape[0], *self.shape[2:])) if len(self.patch) == 3 else (self.shape,)

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches along each axis of the input; () for text."""
        axes = self.shape[-len(self.patch) :] if self.patch else ()
        return tuple((size - patch) // step + 1 for size, patch, step in zip(axes, self.patch, self.stride, strict=True))

    @property
    def tokens(self) -> int:
        """Tokens that enter the trunk: the patches and the class token, of every frame where frames are apart, or the context length of text."""
        return (math.prod(self.grid) + 1) * max(self.trunk.frames, 1) if self.patch else self.shape[0]


class PatchStem(nn.Module):
    """Turns pictures, clips or spectrograms into tokens: a strided convolution, the class token, learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        convolution: Any = nn.Conv2d if len(config.patch) == 2 else nn.Conv3d
        self.proj = convolution(config.shape[0], width, config.patch, config.stride, bias=False)
        # The published stems keep PyTorch's default epsilon of 1e-5; every other LayerNorm has 1e-6.
        self.norm = nn.Identity() if config.stem_norm_eps is None else nn.LayerNorm(width, eps=config.stem_norm_eps)
        self.cls = nn.Parameter(torch.empty(config.trunk.frames if config.frame_tokens else 1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, math.prod(config.grid) + 1, width))

    def forward(self, x: Tensor) -> Tensor:  # (b, c, h, w), or (b, c, t, h, w) for vision
        x = self._project(x).flatten(2).transpose(1, 2)  # (b, n - 1, d); (b * t, n - 1, d) where frames are apart
        cls = self.cls.repeat(len(x) // len(self.cls), 1, 1) if len(self.cls) > 1 else self.cls.expand(len(x), -1, -1)
        x = torch.cat([cls, self.norm(x)], dim=1)  # (b, n, d)
        return x + self.pos[:, : x.shape[1]]  # a still picture on a many-frame stem takes the first frame's positions

    def _project(self, x: Tensor) -> Tensor:
        if isinstance(self.proj, nn.Conv2d) and x.dim() == 5:
            x = x.transpose(1, 2).flatten(0, 1)  # (b * t, c, h, w), a clip's frames one after the other
        if isinstance(self.proj, nn.Conv2d) or x.dim() == 5:
            return self.proj(x)
        if self.proj.kernel_size[0] == STILL_FRAMES:
            # Equal frames under one kernel: summing the kernel over time first gives the same tokens for half the work.
            return F.conv2d(x, self.proj.weight.sum(2), stride=self.proj.stride[1:])
        return self.proj(x.unsqueeze(2).expand(-1, -1, STILL_FRAMES, -1, -1))


class Head(nn.Module):
    """LayerNorm and projection of the pooled token into the joint space."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.trunk.width, eps=config.trunk.norm_eps)
        self.up = nn.Linear(config.trunk.width, config.trunk.width) if config.head == "mlp" else None
        self.dropout = nn.Dropout(config.head_dropout)
        self.proj = nn.Linear(config.trunk.width, config.dim, bias=config.head_bias)

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

    def forward(self, x: Tensor, unit: bool = True) -> Tensor:
        """Encode clips (b, *shape) to unit vectors (b, e) in float32; vision also takes still pictures (b, 3, h, w).

        unit: False keeps the length that vectors have before they are made unit vectors.
        """
        tokens = self.stem(x)  # (b, n, d)
        if self.training and self.config.patch_dropout:
            tokens = _drop_patches(tokens, self.config.patch_dropout, self.config.trunk.frames or 1)
        tokens = self.trunk(tokens)
        if self.config.pool == "eos":  # the end token has the highest id of the vocabulary
            pooled = tokens[torch.arange(len(x), device=x.device), x.argmax(dim=-1)]
        else:
            pooled = tokens[:, 0]
        vectors = self.head(pooled).float()
        if self.config.trunk.frames:  # the mean before the unit vector, as published
            vectors = vectors.unflatten(0, (-1, self.config.trunk.frames)).mean(dim=1)
        return F.normalize(vectors, dim=-1) if unit else vectors

    @property
    def scale(self) -> float:
        """The logit scale, 1 / temperature, by which cosines are multiplied to get logits. 1 for vision; at most 100."""
        if self.config.scale is None:
            return 1.0
        # The nine digits that float32 holds: stores compare the scale, and the last bits of exp differ between machines.
        return min(float(f"{math.exp(self.log_scale.item()):.9g}"), LARGEST_SCALE)


def _drop_patches(tokens: Tensor, share: float, frames: int = 1) -> Tensor:
    """Drop a random share of each input's patches, (b, n, d) to (b, n', d); the class token and at least one patch stay.

    Of a clip, whose frames follow each other along b, the same places are dropped in every frame, since attention over time is by place.
    """
    count = max(1, round((tokens.shape[1] - 1) * (1 - share)))
    chosen = torch.rand(tokens.shape[0] // frames, tokens.shape[1] - 1, device=tokens.device).topk(count, dim=1).indices + 1  # (b, n' - 1)
    chosen = chosen.repeat_interleave(frames, dim=0)
    patches = tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([tokens[:, :1], patches], dim=1)


@dataclass(frozen=True)
class Sample:
    """One input, or a part of a long one, as the encoder takes it.

    tensor: (clips, *shape); the clip axis is always there. spans: the seconds of each clip; a video's three crops are clips with the same
    span. notes: what was assumed to read the input, in words for the user. facts: what the file turned out to hold (rate, channels, size,
    unit, …), in JSON's types, with the item's first sample. warnings: what is lost of this item; printed with its name.
    regions: of each clip that is a part of a picture or map, what its row says of it, its `box` above all; () where clips are not.
    modality: set where an item is read in several. began: the clock time of second 0, if the file states it: in UTC, or without a zone.
    """

    tensor: Tensor
    spans: list[Span]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    modality: str = ""
    began: datetime | None = None
    regions: tuple[Mapping[str, Any], ...] = ()


# (source, input config, options) to the samples of one item, in time order. A source is a path, an open binary file, or the modality's
# array. A long item is read as several samples, so that it is never in memory as a whole. Raises OSError or ValueError, with a reason in
# words, for an input that cannot be read.
Reader = Callable[[Any, Any, Any], Iterator[Sample]]
Read = Callable[[Any], Iterator[Sample]]  # a reader with its config and options: an item's payload to its samples


@dataclass(frozen=True)
class Modality:
    """The contract of an encoder file, which assigns one to `MODALITY`; a family gives one where its inputs or its stem differ.

    name: as in `registry.ENCODERS`. readers: how each of its faces is read, by the name that a user gives it; their options are in
    `options.modalities.OPTIONS`. stem: builds the stem from a config. preview: how a clip of one channel is drawn: as a `map` from its
    smallest to its largest value, as `levels` from 0 to 1, or as a `spectrogram`. options: names of the reading options that the readers
    know; None for all but those that `options.FAMILY_ONLY` names.
    """

    name: str
    readers: Mapping[str, Reader]
    stem: Callable[[EncoderConfig], nn.Module] = field(default=PatchStem)
    preview: str = "map"
    options: tuple[str, ...] | None = None


def clip_axes(modality: str, config: EncoderConfig, shape: Sequence[int]) -> int:
    """Return how many axes a tensor has before those of a clip: 1 for (b, *clip), 2 for (b, clips, *clip).

    Args:
        modality: names the tensor in messages.
    Raises:
        UserError: another shape, or no inputs.
    """
    fitting = next((clip for clip in config.shapes if len(shape) > len(clip) and config.fits(shape[-len(clip) :])), None)
    axes = len(shape) - len(fitting or ())
    if fitting is None or axes not in (1, 2) or shape[0] == 0:
        wanted = [f"({first}, {', '.join(map(str, clip))})" for first in ("b", "b, clips") for clip in config.shapes]
        raise UserError(f"{modality}: tensor of shape {tuple(shape)}; {' or '.join(wanted)} is needed")
    return axes


def text_lengths(texts: Tensor, config: EncoderConfig) -> Tensor:
    """Return how many of the token ids (b, n) of each text count, (b,); what follows is padding."""
    if config.pool == "eos":  # the end token has the highest id of the vocabulary
        return texts.argmax(dim=-1) + 1
    return (texts != config.padding).sum(dim=-1).clamp(min=1)


def text_batches(texts: Tensor, config: EncoderConfig, tokens: int, parts: int = 1) -> tuple[list[Tensor], Tensor]:
    """Cut token ids (b, n) into batches of like length, each text once: of about `tokens` tokens at most, and as many as `parts` if they can be.

    Nothing after the end token is in a batch: under the causal mask it cannot affect that token. Without that mask, a batch has texts of
    one length only, so that none needs padding.

    Returns:
        The batches, and where each text is among all their rows, (b,).
    """
    different, places = torch.unique(texts, dim=0, return_inverse=True)
    ends, order = text_lengths(different, config).sort()
    lengths, mixes = ends.tolist(), config.trunk.causal
    tokens = min(tokens, -(-sum(lengths) // parts))
    batches, start = [], 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * lengths[stop] <= tokens and (mixes or lengths[stop] == lengths[start]):
            stop += 1
        batches.append(different[order[start:stop], : lengths[stop - 1]])
        start = stop
    return batches, order.argsort()[places]


def encode_texts(encoder: Encoder, texts: Tensor, tokens: int) -> Tensor:
    """Encode token ids (b, n) to unit vectors (b, dim) in the batches of `text_batches`."""
    batches, rows = text_batches(texts, encoder.config, tokens)
    return torch.cat([encoder(batch) for batch in batches])[rows]


class _NoInitialisation(TorchFunctionMode):
    """Skips `torch.nn.init` while modules are built: on the meta device it fills nothing, and it imports a compiler, which takes a second."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return arguments[0] if arguments else keywords["tensor"]
        return function(*arguments, **(keywords or {}))


def build_encoder(modality: Modality, config: EncoderConfig) -> Encoder:
    """Build an encoder's modules on the meta device: shapes without memory. Load weights with `assign=True`.

    Args:
        modality: as `registry.modality` returns it for this config.
    Raises:
        UserError: the config does not fit the modality, as one of text that has patches.
    """
    try:
        with torch.device("meta"), _NoInitialisation():
            return Encoder(config, modality.stem(config)).eval()
    except Exception as error:  # whatever modules raise for sizes that no such encoder can have
        raise UserError(f"no {modality.name} encoder can be built of its config: {first_line(error)}") from error
