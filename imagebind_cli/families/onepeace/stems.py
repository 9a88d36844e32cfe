"""The stems of ONE-PEACE's encoders: convolutions over pictures and sounds, and the tokens of sentences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.families.onepeace.config import EPSILON


class Convolutions(nn.Module):
    """Convolutions in a row, (b, c, …) to (b, c', …), each with a LayerNorm over channels and GELU, of which the last may have neither."""

    def __init__(self, config: EncoderConfig, channels: int, axes: int, *, bias: bool, last_norm: bool) -> None:
        """channels: of the input. axes: those that are convolved, one of sounds, two of pictures."""
        super().__init__()
        convolution: Any = nn.Conv2d if axes == 2 else nn.Conv1d
        widths = [channels, *(width for width, _, _ in config.convolutions)]
        self.conv = nn.ModuleList(
            convolution(before, width, kernel, step, bias=bias)
            for before, (width, kernel, step) in zip(widths, config.convolutions, strict=False)
        )
        normed = widths[1:] if last_norm else widths[1:-1]
        self.norm = nn.ModuleList(nn.LayerNorm(width, eps=EPSILON) for width in normed)

    def forward(self, x: Tensor) -> Tensor:
        for number, convolution in enumerate(self.conv):
            x = convolution(x)
            if number < len(self.norm):
                x = F.gelu(self.norm[number](x.movedim(1, -1)).movedim(-1, 1))
        return x


class PictureStem(nn.Module):
    """Turns pictures (b, 3, h, w) into tokens (b, n, d): three convolutions, the class token, learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        self.patches = Convolutions(config, config.shape[0], 2, bias=True, last_norm=False)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (b, n - 1, d)
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos


class SentenceStem(nn.Module):
    """Turns token ids (b, n - 1) into tokens (b, n, d): the class token first, which is not a word of the vocabulary, learned positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.shape[0] + 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.tokens(x)], dim=1)
        return x + self.pos[:, : x.shape[1]]


class SoundStem(nn.Module):
    """Turns waveforms (b, samples) into tokens (b, n, d): the class token, and one for each 20 ms.

    Convolutions over the tokens make their positions, so a padded sound would be another sound: those of a batch are of one length.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.trunk.width
        self.pieces = Convolutions(config, 1, 1, bias=False, last_norm=True)
        self.norm = nn.LayerNorm(config.convolutions[-1][0], eps=EPSILON)
        self.proj = nn.Linear(config.convolutions[-1][0], width)
        positions = enumerate(config.position_convolutions, start=1)  # theirs count from 1
        self.pos = nn.ModuleDict(
            {str(number): nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups) for number, (kernel, groups) in positions}
        )
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pieces(x.unsqueeze(1)).transpose(1, 2)  # (b, n - 1, c)
        x = self.proj(self.norm(x))  # (b, n - 1, d)
        positions = x.transpose(1, 2)
        for convolution in self.pos.values():
            positions = convolution(positions)[..., : x.shape[1]]  # an even kernel makes one too many
            positions = F.gelu(F.layer_norm(positions.transpose(1, 2), x.shape[-1:], eps=EPSILON)).transpose(1, 2)
        cls = (self.cls + self.cls_pos).expand(len(x), -1, -1)
        return torch.cat([cls, x + positions.transpose(1, 2)], dim=1)
