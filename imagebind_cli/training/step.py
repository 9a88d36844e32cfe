"""Gradients of one mini-batch, however large, in the memory of a micro-batch (gradient caching, arXiv 2101.06983).

All embeddings are made without a graph; the loss gives each one's gradient; then each micro-batch is embedded again, with the same dropout, and
its gradients go into the weights. Frozen encoders run once. A mini-batch that fits is embedded once.

Dimensions: b rows of this process, e of the joint space.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from imagebind_cli.training import gather
from imagebind_cli.training.augment import random
from imagebind_cli.training.batch import Batch
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.parallel import Tower


@dataclass(frozen=True)
class Outcome:
    """What a mini-batch came to, over all processes.

    alignment: mean cosine of the pairs. spread: mean cosine of different anchors, and of different others; near 1 they have collapsed.
    not_finite: ids to look at, where the loss is not finite; there are no gradients then.
    """

    loss: float
    alignment: float
    spread: tuple[float, float]
    not_finite: tuple[str, ...] = ()


def gradients(towers: tuple[Tower, Tower], loss: PairLoss, batch: Batch, seed: int, step: int, micro_batch: int | None = None) -> Outcome:
    """Put the gradients of a mini-batch's mean loss over all processes into the weights and the loss's own parameters.

    Args:
        towers: the anchor's and the other's. seed, step: what dropout follows from. micro_batch: rows in memory at once; None for all.
    """
    size = micro_batch or len(batch.ids)
    sides = [_Side(tower, number, batch, size, seed, step) for number, tower in enumerate(towers)]
    with record_function("embed"):
        rows = [side.embeddings() for side in sides]
    leaves = [side.leaf(own) for side, own in zip(sides, rows, strict=True)]
    with record_function("loss"):
        value = loss(leaves[0], leaves[1], batch.groups.to(leaves[0].device))
        outcome = _outcome(value, rows, batch)
    if outcome.not_finite:
        return outcome
    with record_function("backward"):
        value.backward()
        for parameter in loss.parameters():
            if parameter.grad is not None:
                parameter.grad = gather.mean(parameter.grad)
        for side, leaf in zip(sides, leaves, strict=True):
            side.backward(leaf)
    return outcome


class _Side:
    """One modality of a mini-batch: its rows, in parts of at most `size`, through its tower."""

    def __init__(self, tower: Tower, number: int, batch: Batch, size: int, seed: int, step: int) -> None:
        self._tower, self._inputs = tower, batch.inputs[number]
        self._embedded = batch.embedded and number == 0
        self._parts = [slice(first, first + size) for first in range(0, len(batch.ids), size)]
        self._seeds = [int(random(seed, "dropout", step, number, part, gather.rank()).integers(2**62)) for part in range(len(self._parts))]
        self._trained = tower.trained and not self._embedded
        self._twice = self._trained and len(self._parts) > 1

    def embeddings(self) -> Tensor:
        """Unit vectors (b, e); with their graph where they are made only once and their encoder trains."""
        if self._embedded:
            return self._inputs.to(self._tower.device, torch.float32)
        with torch.set_grad_enabled(self._trained and not self._twice):
            return torch.cat([self._embed(number) for number in range(len(self._parts))])

    def leaf(self, rows: Tensor) -> Tensor:
        """What the loss is a function of: the rows, or where their graph is made later, rows that collect their gradients."""
        return rows.detach().requires_grad_() if self._twice else rows

    def backward(self, leaf: Tensor) -> None:
        """Embed again and take each row's gradient from the loss on into the weights."""
        if not self._twice or leaf.grad is None:
            return
        for number, part in enumerate(self._parts):
            last = number == len(self._parts) - 1
            with nullcontext() if last else self._tower.local():
                torch.autograd.backward(self._embed(number), leaf.grad[part])

    def _embed(self, number: int) -> Tensor:
        torch.manual_seed(self._seeds[number])
        return self._tower.call(self._inputs[self._parts[number]])


@torch.no_grad()
def _outcome(value: Tensor, rows: list[Tensor], batch: Batch) -> Outcome:
    anchor, other = rows
    alignment = (anchor * other).sum(dim=1).mean()
    means = gather.mean(torch.cat([value[None], alignment[None], anchor.mean(dim=0), other.mean(dim=0)])).double()
    loss, alignment_of_all = means[:2].tolist()
    count = len(batch.ids) * gather.world()
    squares = [float(mean.square().sum()) for mean in means[2:].chunk(2)]
    spread = tuple((count * square - 1) / (count - 1) if count > 1 else math.nan for square in squares)
    not_finite: tuple[str, ...] = ()
    if not math.isfinite(loss):
        broken = [id for id, *own in zip(batch.ids, anchor, other, strict=True) if not all(row.isfinite().all() for row in own)]
        found = [id for some in gather.objects(broken) for id in some]
        not_finite = tuple(found or (id for some in gather.objects(batch.ids) for id in some))
    return Outcome(loss, alignment_of_all, (spread[0], spread[1]), not_finite)
