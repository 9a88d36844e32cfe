"""The mean cosine of items that belong together: `score_pairs`.

Evaluations of generated sound and video call it the ImageBind score: the cosine of what was asked for and what was generated, averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.truth import Truth, open_truth
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.insight.findings import paired_cosines
from imagebind_cli.insight.item_vectors import MEMORY, StoredVectors, item_vectors
from imagebind_cli.insight.pairing import IDS, STEM, PairedItems, pair_items
from imagebind_cli.insight.protocols import score_protocol
from imagebind_cli.insight.sides import Side, open_sides
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader

if TYPE_CHECKING:
    from imagebind_cli.model import Model

ONLY = "only"  # how two sides of one item each are paired


@dataclass(frozen=True)
class PairScore:
    """The cosines of pairs.

    ids, cosines: of each pair, in the first side's order. unpaired: ids of each side without a partner. low, high: the 95 % bootstrap interval of
    the mean, None without draws and of one pair. paired_by: `ids`, `stem`, a file, or `only` for two sides of one item each. missing: pairs of the
    file that name an id that is not there. candidates: how many pairs there were before the best of each group was taken. protocol: its name.
    """

    ids: list[tuple[str, str]]
    cosines: np.ndarray
    unpaired: tuple[list[str], list[str]]
    low: float | None
    high: float | None
    paired_by: str = IDS
    missing: int = 0
    candidates: int | None = None
    protocol: str | None = None

    @property
    def score(self) -> float:
        """Return the mean cosine."""
        return float(self.cosines.mean())

    def as_json(self) -> dict[str, Any]:
        """Return what `imagebind score --json` prints."""
        interval = {} if self.low is None else {"low": self.low, "high": self.high}
        chosen = {} if self.candidates is None else {"candidates": self.candidates}
        counts = {"pairs": len(self.ids), **chosen, "unpaired": list(map(list, self.unpaired)), "missing": self.missing}
        return {
            "score": self.score,
            "score_x100": 100 * self.score,
            **interval,
            **counts,
            "paired_by": self.paired_by,
            "protocol": self.protocol,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a line for each pair."""
        for ids, cosine in zip(self.ids, self.cosines.tolist(), strict=True):
            yield {"ids": list(ids), "cosine": cosine}


def score_pairs(
    sides: Sequence[Side],
    pairs: str | Path | None = None,
    best_of: Mapping[str, str] | str | None = None,
    columns: Mapping[str, str] | None = None,
    draws: int = 1000,
    memory: int = MEMORY,
    *,
    protocol: str | None = None,
    modalities: Sequence[str] | None = None,
    model: Model | Space | str | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> PairScore:
    """Compute the cosine of every pair of items of two sides. An item with several windows counts as the mean of its windows.

    Args:
        sides: two, of one model: stores, or files and folders, which are embedded first.
        pairs, columns: as in `pair_items`; by default `ids`, or `stem` where the sides have no id in common.
        best_of: the group of each item of the second side, as all that was generated for one prompt: `folder`, a column of its manifest, a file or a
            mapping of ids, see `open_truth`; of each group only the pair with the highest cosine counts.
        draws: of the bootstrap; 0 for no interval. memory: bytes for vectors, half of them for each side.
        protocol: how video and sound are read, see `score_protocol`; stores must have been made so.
        modalities: what the two sides are read as; by default by the names of the files. model: of files; that of a store by default.
        listener: receives what happens to files. options: reading options of files.
    Raises:
        UserError: as `pair_items` and `open_sides`; an item has no group.
    """
    listener = LogListener() if listener is None else listener
    chosen = None if protocol is None else score_protocol(protocol)
    groups = None if best_of is None else open_truth(best_of)
    with (
        open_sides(sides, modalities, chosen, Space.of(model, listener), options, listener) as (first, second),
        item_vectors(first, memory // 2) as one,
        item_vectors(second, memory // 2) as other,
    ):
        paired, paired_by = _pair((first, second), (one, other), pairs, columns)
        zero = np.zeros(first.dim)
        cosines = paired_cosines(one.rows, other.rows, paired.numbers, (zero, zero))
        kept = np.arange(len(cosines)) if groups is None else _best_of_groups(cosines, paired.numbers[:, 1], groups, second, other)
        low, high = metrics.interval(cosines[kept], draws=draws) if draws and len(kept) > 1 else (None, None)
        return PairScore(
            [(one.ids[i], other.ids[j]) for i, j in paired.numbers[kept].tolist()],
            cosines[kept],
            paired.unpaired,
            low,
            high,
            paired_by,
            paired.missing,
            None if groups is None else len(cosines),
            None if chosen is None else chosen.name,
        )


def _pair(
    stores: tuple[StoreReader, StoreReader],
    items: tuple[StoredVectors, StoredVectors],
    pairs: str | Path | None,
    columns: Mapping[str, str] | None,
) -> tuple[PairedItems, str]:
    """Pair the items of two sides, and return how."""
    ids = (items[0].ids, items[1].ids)
    if pairs is None:
        if len(ids[0]) == len(ids[1]) == 1:
            return PairedItems(np.zeros((1, 2), np.int64), ([], [])), ONLY
        pairs = STEM if set(ids[0]).isdisjoint(ids[1]) else IDS
    return pair_items(stores, ids, pairs, columns), str(pairs)


def _best_of_groups(cosines: np.ndarray, items: np.ndarray, groups: Truth, store: StoreReader, vectors: StoredVectors) -> np.ndarray:
    """Return the places of the pair with the highest cosine of each group, sorted. items: of each pair, its item of the second side."""
    best: dict[tuple[str, ...], int] = {}
    for place, number in enumerate(items.tolist()):
        id = vectors.ids[number]
        group = groups.of(id, store.meta(int(vectors.first[number])) if groups.needs_metas else {})
        if not group:
            raise UserError(f"{store.path}: {id!r} has no group by {groups.how}")
        if cosines[place] > cosines[best.setdefault(tuple(group), place)]:
            best[tuple(group)] = place
    return np.array(sorted(best.values()))
