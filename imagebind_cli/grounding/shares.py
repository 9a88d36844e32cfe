"""The part of an embedding that each patch contributes, exactly, in one forward pass.

A trunk adds the outputs of its attentions and MLPs to the class token, and an attention's output is a sum over the patches it looks at. So the
class token is a sum too, of which each patch has a term in every attention; the head's LayerNorm is linear once its deviation is known.
Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based Decomposition" (ICLR 2024, arXiv 2310.05916), section 3.

Dimensions: b batch, n tokens, p patches (n - 1), h heads, k width of a head, d width, e size of the joint space.
"""

from __future__ import annotations

from torch import Tensor, nn

from imagebind_cli.encoder import Encoder, Head
from imagebind_cli.errors import UsageError
from imagebind_cli.transformer import Attention, Block, Transformer


def dense(encoder: Encoder, x: Tensor, attentions: int | None = None) -> tuple[Tensor, Tensor]:
    """Split the head's output, before it becomes a unit vector, into the share of every patch and the rest.

    Args:
        x: clips (b, *shape), as `Encoder.forward` takes them.
        attentions: how many attentions count, from the last; what earlier ones add is in the rest. None for all.
    Returns:
        shares (b, p, e) and rest (b, e), which add up to the head's output to within rounding. Where frames of a clip are apart, the patches of
        all frames follow each other, (b, t * p, e). The class token's own share, learned keys and the MLPs are in the rest.
    Raises:
        UsageError: an encoder that shares cannot be computed for, as `check_dense`.
    """
    check_dense(encoder)
    config = encoder.config
    blocks: list[Block] = list(encoder.trunk.blocks)  # type: ignore[arg-type]
    first = 0 if attentions is None else max(0, len(blocks) - attentions)
    x = encoder.trunk.norm(encoder.stem(x))  # (b, n, d)
    added = x.new_zeros(len(x), x.shape[1] - 1, x.shape[2])  # what each patch has added to the class token so far
    for number, (block, relative) in enumerate(zip(blocks, encoder.trunk.relative_biases(x.shape[1]), strict=True)):
        if block.time is not None:
            x = block.time(x)
        if number >= first:
            terms = _terms(block.attn, block.norm1(x), relative)[:, 1:]
            added += terms if block.scale1 is None else block.scale1 * terms
        x = block.branches(x, relative)
    token = x[:, 0]
    shares, rest = _through_head(encoder.head, token, added)
    if frames := config.trunk.frames:
        shares = shares.reshape(-1, frames * shares.shape[1], shares.shape[2]) / frames
        rest = rest.reshape(-1, frames, rest.shape[1]).mean(dim=1)
    return shares, rest


def check_dense(encoder: Encoder) -> None:
    """Refuse an encoder that shares cannot be computed for.

    Raises:
        UsageError: it is of texts, has another pooling, an MLP as its head, merges tokens, or computes its linear layers in int8.
    """
    if encoder.config.pool != "cls" or encoder.config.vocabulary:
        raise UsageError("shares are of patches, and an encoder of texts has none")
    if encoder.head.up is not None:
        raise UsageError("this encoder's head is an MLP, which does not split a vector into shares of patches; only linear heads do")
    if not isinstance(encoder.trunk, Transformer):
        raise UsageError("shares are of patches, and this encoder merges them; load it without merge")
    if not all(isinstance(block, Block) and isinstance(block.attn.out, nn.Linear) for block in encoder.trunk.blocks):
        raise UsageError("shares need exact linear layers, and this encoder computes them in int8")


def _terms(attention: Attention, x: Tensor, relative: Tensor | None) -> Tensor:
    """Return what each token adds to the class token through an attention, (b, n, d), its bias aside; x: normalised tokens (b, n, d)."""
    q, k, v = attention.heads_of(x)  # (b, h, n, k)
    q, v = q[:, :, :1], v[:, :, : x.shape[1]]  # without the learned value
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (b, h, 1, n), or n + 1 with a learned key
    if relative is not None:
        scores = scores + relative[:, :, :1]
    weights = scores.softmax(dim=-1)[:, :, 0, : v.shape[2], None]  # (b, h, n, 1)
    joined = (weights * v).transpose(1, 2).flatten(2)  # (b, n, d)
    if isinstance(attention.norm, nn.LayerNorm):
        whole = joined.sum(dim=1, keepdim=True)
        joined = _normalised(attention.norm, joined, whole)
    return joined @ attention.out.weight.T


def _normalised(norm: nn.LayerNorm, parts: Tensor, whole: Tensor) -> Tensor:
    """Return what parts of a vector become under its LayerNorm, whose deviation is that of the whole; its bias is left to the rest."""
    deviation = (whole.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return (parts - parts.mean(dim=-1, keepdim=True)) / deviation * norm.weight


def _through_head(head: Head, token: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares (b, p, e) of what patches added (b, p, d) to the class token (b, d), and the rest (b, e)."""
    whole = token[:, None]
    left = whole - added.sum(dim=1, keepdim=True)
    shares = _normalised(head.norm, added, whole) @ head.proj.weight.T
    rest = (_normalised(head.norm, left, whole)[:, 0] + head.norm.bias) @ head.proj.weight.T
    return shares, rest if head.proj.bias is None else rest + head.proj.bias
