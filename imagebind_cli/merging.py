"""Token merging: each block joins the tokens whose keys are most alike, so that later blocks have fewer (ToMe, arXiv 2210.09461).

In every block, between attention and MLP, the tokens are split in two by turns; each of the first half is paired with the most alike one of the
second, and the R pairs that are most alike become one token each, the mean of all patches in it. Attention counts a token as many times as it has
patches (section 3, proportional attention). The class token is never merged.

Dimensions: b batch, n tokens, d width, k width of a head, r tokens merged.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import Encoder, EncoderConfig
from imagebind_cli.errors import UsageError
from imagebind_cli.transformer import Block, Transformer


def can_merge(config: EncoderConfig) -> bool:
    """Check whether an encoder's tokens are patches of a plane, a picture or a spectrogram, each with its place in its content alone."""
    trunk = config.trunk
    plane = not config.vocabulary and len(config.shape) >= 3
    return plane and config.pool == "cls" and not (trunk.frames or trunk.relative or trunk.causal)


def merge_tokens(encoder: Encoder, count: int, modality: str) -> Encoder:
    """Let each block of an encoder merge `count` tokens, in place, and return the encoder. modality: names it in messages.

    Raises:
        UsageError: its tokens are not patches, or a place of theirs enters attention.
    """
    if not can_merge(encoder.config):
        raise UsageError(f"{modality} has no patches whose tokens could be merged; leave --merge out")
    encoder.trunk = MergingTransformer(encoder.trunk, count)  # type: ignore[assignment]
    return encoder


class MergingTransformer(nn.Module):
    """The blocks of a transformer, (b, n, d) to (b, n', d), with `count` fewer tokens after each block but the last; at most half are merged."""

    def __init__(self, trunk: Transformer, count: int) -> None:
        super().__init__()
        self.norm, self.blocks, self.count = trunk.norm, trunk.blocks, count

    def forward(self, x: Tensor) -> Tensor:
        x, sizes = self.norm(x), None  # patches in each token, (b, n, 1); None while it is one in each
        *blocks, last = cast("list[Block]", list(self.blocks))
        for block in blocks:
            x, keys = _attend(block, x, sizes)
            x, sizes = _merge(x, sizes, keys, self.count)
            x = block.transform(x)
        x, _ = _attend(last, x, sizes)
        return last.transform(x)


def _attend(block: Block, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Apply the attention of a block to tokens (b, n, d); also return their keys, of which each is the mean over heads, (b, n, k)."""
    q, k, v = block.attn.heads_of(block.norm1(x))
    counted = None
    if sizes is not None:
        learned = k.shape[2] - x.shape[1]  # the learned key counts once
        counted = F.pad(sizes.log().transpose(1, 2), (0, learned)).unsqueeze(1).to(q.dtype)  # (b, 1, 1, n)
    return block.add_attended(x, block.attn.attend(q, k, v, counted)), k[:, :, : x.shape[1]].mean(dim=1)


def _merge(x: Tensor, sizes: Tensor | None, keys: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
    """Merge `count` tokens, at most half of the patches, into those that are most alike: (b, n - count, d), and their sizes."""
    count = min(count, (x.shape[1] - 1) // 2)
    if count < 1:
        return x, sizes
    sizes = x.new_ones(*x.shape[:2], 1) if sizes is None else sizes
    keys = F.normalize(keys, dim=-1)
    alike = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)  # (b, n / 2, n / 2)
    alike[:, 0] = -torch.inf  # the class token stays
    highest, partners = alike.max(dim=-1)
    order = highest.argsort(dim=-1, descending=True, stable=True)[..., None]
    merged, kept = order[:, :count], order[:, count:].sort(dim=1).values  # the class token is the least alike, and first again
    into = partners[..., None].gather(1, merged)  # (b, r, 1)

    def joined(tokens: Tensor) -> Tensor:  # (b, n, c)
        first, second, width = tokens[:, ::2], tokens[:, 1::2], tokens.shape[-1]
        moved = first.gather(1, merged.expand(-1, -1, width))
        sums = second.scatter_add(1, into.expand(-1, -1, width), moved)
        return torch.cat([first.gather(1, kept.expand(-1, -1, width)), sums], dim=1)

    total = joined(sizes)
    return joined(x * sizes) / total, total
