"""The mean cosine of items that belong together: `score_pairs`.

Harnesses for generated sound and video call it the ImageBind score: the cosine of what was asked for and what was generated, averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.insight.findings import paired_cosines
from imagebind_cli.insight.item_vectors import MEMORY, item_vectors
from imagebind_cli.insight.pairing import pair_items
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store


@dataclass(frozen=True)
class PairScore:
    """The cosines of pairs. ids, cosines: of each pair, in the first store's order. unpaired: ids of each store without a partner."""

    ids: list[tuple[str, str]]
    cosines: np.ndarray
    unpaired: tuple[list[str], list[str]]
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the score as JSON: `low` and `high` are the 95 % bootstrap interval of the mean."""
        mean = float(self.cosines.mean())
        interval = {} if self.low is None else {"low": self.low, "high": self.high}
        return {"score": mean, "score_x100": 100 * mean, **interval, "pairs": len(self.ids), "unpaired": list(map(list, self.unpaired))}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a line for each pair."""
        for ids, cosine in zip(self.ids, self.cosines.tolist(), strict=True):
            yield {"ids": list(ids), "cosine": cosine}


def score_pairs(
    stores: Sequence[str | Path | StoreReader],
    pairs: str | Path = "ids",
    best_of: Mapping[str, str] | str | None = None,
    columns: Mapping[str, str] | None = None,
    draws: int = 1000,
    memory: int = MEMORY,
) -> PairScore:
    """Compute the cosine of every pair of items of two stores. An item with several windows counts as the mean of its windows.

    Args:
        stores: two, of one model. pairs, columns: as in `pair_items`. draws: of the bootstrap; 0 for no interval.
        best_of: a column of the second store's manifest, or a mapping of its ids, that names the group of each item, as all that was generated
            for one prompt; of each group only the pair with the highest cosine counts.
    Raises:
        UserError: as `pair_items`; the stores are of two models; an item has no group.
    """
    if len(stores) != 2:
        raise UsageError(f"a score is of two stores; {len(stores)} are given")
    space = Space()
    first, second = (space.admit(each if isinstance(each, StoreReader) else open_store(each)) for each in stores)
    with item_vectors(first, memory // 2) as one, item_vectors(second, memory // 2) as other:
        paired = pair_items((first, second), (one.ids, other.ids), pairs, columns)
        zero = np.zeros(first.dim)
        cosines = paired_cosines(one.rows, other.rows, paired.numbers, (zero, zero))
        kept = np.arange(len(cosines))
        if best_of is not None:
            best: dict[str, int] = {}
            for place, number in enumerate(paired.numbers[:, 1].tolist()):
                group = second.meta(int(other.first[number])).get(best_of) if isinstance(best_of, str) else best_of.get(other.ids[number])
                if group is None:
                    raise UserError(
                        f"{second.path}: {other.ids[number]!r} has no group by {best_of if isinstance(best_of, str) else 'the mapping'}"
                    )
                if cosines[place] > cosines[best.setdefault(str(group), place)]:
                    best[str(group)] = place
            kept = np.array(sorted(best.values()))
        names = [(one.ids[i], other.ids[j]) for i, j in paired.numbers[kept].tolist()]
        low, high = metrics.interval(cosines[kept], draws=draws) if draws else (None, None)
        return PairScore(names, cosines[kept], paired.unpaired, low, high)
