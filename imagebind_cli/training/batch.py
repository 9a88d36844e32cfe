"""One mini-batch of one pair of modalities: what the data gives and the training step takes (ImageBind appendix C: one pair per mini-batch)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from imagebind_cli.sources import Failure


@dataclass(frozen=True)
class Batch:
    """This process's share of a mini-batch.

    pair: its number in the recipe. ids: of the b samples. groups: (b,) int64; rows that share a number (same id, group, file or caption) are
    no negatives of each other, across processes too. inputs: the anchor's and the other's tensors, (b, *shape) each. embedded: the anchor's are unit
    vectors (b, dim) from its cache. failures: samples that could not be read; another sample took the place of each.
    """

    pair: int
    ids: tuple[str, ...]
    groups: Tensor
    inputs: tuple[Tensor, Tensor]
    embedded: bool = False
    failures: tuple[Failure, ...] = ()
