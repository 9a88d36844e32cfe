"""Gradients of one mini-batch of any size in the memory of a micro-batch (gradient caching, arXiv 2101.06983).

First all embeddings are computed without a graph. The loss gives the gradient of each. Then each micro-batch is embedded again, with the same
dropout, and its gradients flow into the weights. Frozen encoders run once. A mini-batch that fits is embedded once.

Dimensions: b rows of this process, e of the joint space.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from imagebind_cli.training.augment import random
from imagebind_cli.training.data import Batch
from imagebind_cli.training.distributed import gather_objects, mean_over_processes, rank, world
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.towers import Tower


@dataclass(frozen=True)
class StepOutcome:
    """The results of a mini-batch, over all processes.

    alignment: mean cosine of the pairs. spread: mean cosine of different anchors, and of different others; near 1 they have collapsed.
    not_finite: ids of suspicious samples if the loss is not finite; there are no gradients then.
    """

    loss: float
    alignment: float
    spread: tuple[float, float]
    not_finite: tuple[str, ...] = ()


def compute_gradients(
    towers: tuple[Tower, Tower], loss: PairLoss, batch: Batch, seed: int, step: int, micro_batch: int | None = None
) -> StepOutcome:
    """Add the gradients of a mini-batch's mean loss over all processes to the weights and to the loss's own parameters.

    Args:
        towers: the anchor's and the other's.
        seed, step: determine the dropout.
        micro_batch: rows in memory at once; None for all.
    """
    size = micro_batch or len(batch.ids)
    passes = [_TowerPass(tower, number, batch, size, seed, step) for number, tower in enumerate(towers)]
    with record_function("embed"):
        rows = [each.embeddings() for each in passes]
    leaves = [each.leaf(vectors) for each, vectors in zip(passes, rows, strict=True)]
    with record_function("loss"):
        value = loss(leaves[0], leaves[1], batch.groups.to(leaves[0].device))
        outcome = _outcome(value, rows, batch)
    if outcome.not_finite:
        return outcome
    with record_function("backward"):
        value.backward()
        for parameter in loss.parameters():
            if parameter.grad is not None:
                parameter.grad = mean_over_processes(parameter.grad)
        for each, leaf in zip(passes, leaves, strict=True):
            each.backward(leaf)
    return outcome


class _TowerPass:
    """One modality of a mini-batch on its way through its tower, in micro-batches of at most `size` rows."""

    def __init__(self, tower: Tower, number: int, batch: Batch, size: int, seed: int, step: int) -> None:
        self._tower, self._inputs = tower, batch.inputs[number]
        self._embedded = batch.embedded and number == 0
        self._parts = [slice(first, first + size) for first in range(0, len(batch.ids), size)]
        self._seeds = [int(random(seed, "dropout", step, number, part, rank()).integers(2**62)) for part in range(len(self._parts))]
        self._trained = tower.trained and not self._embedded
        self._twice = self._trained and len(self._parts) > 1

    def embeddings(self) -> Tensor:
        """Return unit vectors (b, e), with their graph if they are computed only once and their encoder trains."""
        if self._embedded:
            return self._inputs.to(self._tower.device, torch.float32)
        with torch.set_grad_enabled(self._trained and not self._twice):
            return torch.cat([self._embed(number) for number in range(len(self._parts))])

    def leaf(self, vectors: Tensor) -> Tensor:
        """Return the loss's input: the vectors, or if their graph is computed later, a copy that collects their gradients."""
        return vectors.detach().requires_grad_() if self._twice else vectors

    def backward(self, leaf: Tensor) -> None:
        """Embed again, and carry the gradient of each row from the loss into the weights."""
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
def _outcome(value: Tensor, rows: list[Tensor], batch: Batch) -> StepOutcome:
    anchor, other = rows
    alignment = (anchor * other).sum(dim=1).mean()
    means = mean_over_processes(torch.cat([value[None], alignment[None], anchor.mean(dim=0), other.mean(dim=0)])).double()
    loss, mean_alignment = means[:2].tolist()
    count = len(batch.ids) * world()
    squares = [float(mean.square().sum()) for mean in means[2:].chunk(2)]
    spread = tuple((count * square - 1) / (count - 1) if count > 1 else math.nan for square in squares)
    not_finite: tuple[str, ...] = ()
    if not math.isfinite(loss):
        broken = [id for id, *vectors in zip(batch.ids, anchor, other, strict=True) if not all(row.isfinite().all() for row in vectors)]
        ids = [id for ids_of_one in gather_objects(broken) for id in ids_of_one]
        not_finite = tuple(ids or (id for ids_of_one in gather_objects(batch.ids) for id in ids_of_one))
    return StepOutcome(loss, mean_alignment, (spread[0], spread[1]), not_finite)
