"""Losses that bind two modalities: symmetric InfoNCE (ImageBind section 3.2), and sigmoid (SigLIP, arXiv 2303.15343) or l2 in its place.

Only pairs across the two modalities are scored, never within one. Scores are made a chunk of rows at a time and made again for their gradient,
so that memory grows with the batch and not with its square. Each process takes the mean over its own rows; the mean over processes is the loss
of the whole batch.

Dimensions: b rows of this process, n of all processes, k of a chunk, e of the joint space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from imagebind_cli.training.gather import gathered, rank
from imagebind_cli.training.recipe import Pair

LARGEST_SCALE = 100.0
"""CLIP's bound for 1 / temperature, which keeps a learnt one from running away."""
SIGMOID_BIAS = -10.0
"""SigLIP starts here, so that the many negatives do not swamp the first steps."""


class PairLoss(nn.Module):
    """The loss of one pair, with its temperature as `log_scale` = ln(1 / temperature)."""

    def __init__(self, pair: Pair, chunk: int) -> None:
        super().__init__()
        self.kind, self.chunk = pair.loss, chunk
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / pair.temperature)), requires_grad=pair.learn_temperature)
        if self.kind == "sigmoid":
            self.bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))

    @property
    def scale(self) -> float:
        """1 / temperature."""
        return math.exp(self.log_scale.item())

    def clip(self) -> None:
        """Bring the scale back to its bound; after each step."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def forward(self, anchor: Tensor, other: Tensor, groups: Tensor) -> Tensor:
        """The mean loss over this process's rows.

        Args:
            anchor, other: unit vectors (b, e); the rows of one number are a pair. groups: (b,); rows that share one are no negatives.
        """
        if self.kind == "regression":
            return (anchor - other).square().sum(dim=1).mean()
        everyone = gathered(anchor), gathered(other), gathered(groups)
        total = anchor.new_zeros(())
        for start in range(0, len(anchor), self.chunk):
            rows = slice(start, start + self.chunk)
            own = torch.arange(len(anchor), device=anchor.device)[rows] + rank() * len(anchor)  # (k,) where the pair's other half stands
            chunk = anchor[rows], other[rows], *everyone, own
            kept_whole = len(anchor) <= self.chunk
            total = total + (self._rows(*chunk) if kept_whole else checkpoint(self._rows, *chunk, use_reentrant=False))
        return total / len(anchor)

    def _rows(self, anchor: Tensor, other: Tensor, anchors: Tensor, others: Tensor, groups: Tensor, own: Tensor) -> Tensor:
        """The sum of the losses of k rows, (k, e) each, against all, (n, e)."""
        same = groups[own, None] == groups  # (k, n)
        duplicates = same.scatter(1, own[:, None], False)
        scale = self.log_scale.exp()
        if self.kind == "sigmoid":
            scores = scale * anchor @ others.T + self.bias  # (k, n)
            signs = torch.full_like(scores, -1.0).scatter(1, own[:, None], 1.0)
            return -F.logsigmoid(signs * scores).masked_fill(duplicates, 0.0).sum()
        ways = ((anchor, others), (other, anchors))
        scores_of = [(scale * rows @ all_rows.T).masked_fill(duplicates, -torch.inf) for rows, all_rows in ways]
        return sum((F.cross_entropy(scores, own, reduction="sum") for scores in scores_of), anchor.new_zeros(())) / 2


def has_negatives(groups: Tensor) -> bool:
    """Whether any row of the whole batch has a negative. groups: (b,) of this process; all processes must ask."""
    everyone = gathered(groups)
    return bool((everyone != everyone[0]).any())
