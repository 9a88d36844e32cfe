"""Which items of two stores belong together: those of one id, of one file name without its ending, or of a row in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.retrieval.evaluate import read_pairs
from imagebind_cli.store import StoreReader

IDS, STEM = "ids", "stem"  # words of --pairs that are not a file


@dataclass(frozen=True)
class PairedItems:
    """Pairs of items of two stores.

    numbers: of the items in both lists of ids, int64 (pairs, 2), in the order of the first. unpaired: the ids of each store without a partner.
    missing: pairs of the file that name an id that is not there.
    """

    numbers: np.ndarray
    unpaired: tuple[list[str], list[str]]
    missing: int = 0


def pair_items(
    stores: tuple[StoreReader, StoreReader],
    ids: tuple[Sequence[str], Sequence[str]],
    pairs: str | Path,
    columns: Mapping[str, str] | None = None,
) -> PairedItems:
    """Pair the items of two stores.

    Args:
        ids: the items' ids, each once. pairs: `ids`, `stem` (file names without folder and ending), or a file as `retrieve --pairs` takes it.
    Raises:
        UserError: the file cannot be read; two items of one store have one stem; nothing belongs together.
    """
    places = [{id: number for number, id in enumerate(of_one)} for of_one in ids]
    named: set[tuple[str, str]]
    if str(pairs) == IDS:
        named = {(id, id) for id in places[0].keys() & places[1].keys()}
    elif str(pairs) == STEM:
        stems = [_by_stem(store, of_one) for store, of_one in zip(stores, ids, strict=True)]
        named = {(stems[0][stem], stems[1][stem]) for stem in stems[0].keys() & stems[1].keys()}
    else:
        named = read_pairs(Path(pairs), *stores, columns).pairs
    found = sorted((places[0][one], places[1][other]) for one, other in named if one in places[0] and other in places[1])
    if not found:
        raise UserError(
            f"{pairs}: no pair has both its items in the stores: an id of {stores[0].path} is {ids[0][0]!r}, one of {stores[1].path} {ids[1][0]!r}"
        )
    numbers = np.array(found, np.int64)
    paired = [set(numbers[:, side].tolist()) for side in (0, 1)]
    without = [[id for number, id in enumerate(of_one) if number not in side] for of_one, side in zip(ids, paired, strict=True)]
    return PairedItems(numbers, (without[0], without[1]), len(named) - len(found))


def _by_stem(store: StoreReader, ids: Sequence[str]) -> dict[str, str]:
    by_stem: dict[str, str] = {}
    for id in ids:
        stem = os.path.splitext(os.path.basename(id))[0]
        if by_stem.setdefault(stem, id) != id:
            raise UserError(
                f"{store.path}: {by_stem[stem]!r} and {id!r} have the same stem; give --pairs a file that says what belongs together"
            )
    return by_stem
