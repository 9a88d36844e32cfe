"""Losses that bind two modalities: symmetric InfoNCE (ImageBind section 3.2), sigmoid (SigLIP, arXiv 2303.15343), or l2 regression.

A student learns from its teacher by cosine, by relations (the cosines within a batch, as Park et al. 2019), and by InfoNCE whose correct answers
are the teacher's own neighbours.

Only pairs across the two modalities are scored, never within one. Scores are computed for a chunk of rows at a time and again for their
gradient, so that memory grows with the batch and not with its square. Each process takes the mean over its own rows; the mean over the
processes is the loss of the whole batch.

Dimensions: b rows of this process, n of all processes, k of a chunk, e of the joint space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from imagebind_cli.encoder import LARGEST_SCALE
from imagebind_cli.training.distributed import gather_rows, rank
from imagebind_cli.training.recipe import PairRecipe

SIGMOID_BIAS = -10.0  # SigLIP's initial value: otherwise the many negatives dominate the first steps


class PairLoss(nn.Module):
    """The loss of one pair, with its temperature as `log_scale` = ln(1 / temperature)."""

    def __init__(self, pair: PairRecipe, chunk: int) -> None:
        super().__init__()
        self.kind, self.chunk = "distillation" if pair.teacher else pair.loss, chunk
        self.weights = pair.teacher.weights if pair.teacher else {}
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / pair.temperature)), requires_grad=pair.learn_temperature)
        if self.kind == "sigmoid":
            self.bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))

    @property
    def scale(self) -> float:
        """1 / temperature."""
        return math.exp(self.log_scale.item())

    def clip(self) -> None:
        """Limit the scale to its bound; call after each step."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    def forward(self, anchor: Tensor, other: Tensor, groups: Tensor) -> Tensor:
        """Return the mean loss over this process's rows.

        Args:
            anchor, other: unit vectors (b, e); rows of the same number are a pair.
            groups: (b,) int64; rows with the same number are not negatives of each other.
        """
        if self.kind == "regression":
            return (anchor - other).square().sum(dim=1).mean()
        if self.weights.keys() == {"cosine"}:
            return self.weights["cosine"] * (1 - (anchor * other).sum(dim=1)).mean()
        everyone = gather_rows(anchor), gather_rows(other), gather_rows(groups)
        total = anchor.new_zeros(())
        for start in range(0, len(anchor), self.chunk):
            rows = slice(start, start + self.chunk)
            positives = torch.arange(len(anchor), device=anchor.device)[rows] + rank() * len(anchor)  # (k,) rows of the pairs' other halves
            chunk = anchor[rows], other[rows], *everyone, positives
            one_chunk = len(anchor) <= self.chunk
            total = total + (self._rows(*chunk) if one_chunk else checkpoint(self._rows, *chunk, use_reentrant=False))
        return total / len(anchor)

    def _rows(self, anchor: Tensor, other: Tensor, anchors: Tensor, others: Tensor, groups: Tensor, positives: Tensor) -> Tensor:
        """Sum the losses of k rows, (k, e) each, against all rows, (n, e)."""
        same = groups[positives, None] == groups  # (k, n)
        duplicates = same.scatter(1, positives[:, None], False)
        scale = self.log_scale.exp()
        if self.kind == "sigmoid":
            scores = scale * anchor @ others.T + self.bias  # (k, n)
            signs = torch.full_like(scores, -1.0).scatter(1, positives[:, None], 1.0)
            return -F.logsigmoid(signs * scores).masked_fill(duplicates, 0.0).sum()
        if self.kind == "distillation":
            return self._distilled_rows(anchor, other, anchors, others, same, scale)
        if self.kind != "infonce":
            raise NotImplementedError(f"training loss {self.kind!r}")
        ways = ((anchor, others), (other, anchors))
        scores_of = [(scale * rows @ all_rows.T).masked_fill(duplicates, -torch.inf) for rows, all_rows in ways]
        return sum((F.cross_entropy(scores, positives, reduction="sum") for scores in scores_of), anchor.new_zeros(())) / 2

    def _distilled_rows(self, teacher: Tensor, student: Tensor, teachers: Tensor, students: Tensor, same: Tensor, scale: Tensor) -> Tensor:
        """Sum the losses of k rows, (k, e) each, against all rows, (n, e). same: (k, n) mask of rows of one group, which share their neighbours."""
        neighbours = F.normalize(same.to(teachers.dtype) @ teachers, dim=-1)  # (k, e)
        losses = {
            "cosine": lambda: 1 - (teacher * student).sum(dim=1),
            "relational": lambda: (student @ students.T - teacher @ teachers.T).square().mean(dim=1),
            "infonce": lambda: F.cross_entropy(
                scale * student @ teachers.T, (scale * neighbours @ teachers.T).softmax(dim=1), reduction="none"
            ),
        }
        return sum((weight * losses[name]().sum() for name, weight in self.weights.items()), teacher.new_zeros(()))


def has_negatives(groups: Tensor) -> bool:
    """Check whether any row of the whole batch has a negative. All processes must call.

    Args:
        groups: (b,) of this process.
    """
    everyone = gather_rows(groups)
    return bool((everyone != everyone[0]).any())
