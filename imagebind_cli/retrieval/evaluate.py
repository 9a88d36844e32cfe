"""How well one store finds its partners in another, both ways: the field's retrieval scores with bootstrap intervals."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.similarity import places, ranks
from imagebind_cli.store import StoreReader
from imagebind_cli.tabular import Row, read_good_rows

QUERIES = 4096
"""Queries held at once."""


@dataclass(frozen=True)
class Pairs:
    """What belongs together: pairs of an id of one store and one of the other. record: where they are from."""

    pairs: set[tuple[str, str]]
    record: dict[str, Any]


def equal_ids(first: StoreReader, second: StoreReader) -> Pairs:
    """Rows of one id belong together."""
    return Pairs({(id, id) for id in set(first.ids) & set(second.ids)}, {"by": "ids"})


def read_pairs(path: Path, first: StoreReader, second: StoreReader) -> Pairs:
    """Pairs from JSON Lines, CSV or TSV: an id of either store, or a list of them, under the store's modality, or `query` and `target`.

    Raises:
        UserError: as `read_good_rows`, or a row says something else.
    """
    names = ("query", "target") if first.modality == second.modality else (first.modality, second.modality)
    pairs: set[tuple[str, str]] = set()
    for number, row in read_good_rows(path):
        pairs |= _pairs_of(row, names, f"{path}:{number}")
    return Pairs(pairs, {"by": str(path), "sha256": hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest(), "pairs": len(pairs)})


def _pairs_of(row: Row, names: tuple[str, str], place: str) -> set[tuple[str, str]]:
    ids: list[list[str]] = []
    for key in ("query", "target") if "query" in row else names:
        side = [row[key]] if isinstance(row.get(key), str) else row.get(key)
        if not isinstance(side, list) or not all(isinstance(id, str) for id in side):
            raise UserError(f"{place}: an id, or a list of ids, is needed under {key!r}; the line has {', '.join(row) or 'nothing'}")
        ids.append(side)
    return set(product(*ids))  # type: ignore[arg-type]


def evaluate(first: StoreReader, second: StoreReader, truth: Pairs, draws: int = 1000) -> dict[str, Any]:
    """The scores of both directions, with what they were made from.

    Each row asks, and each row is an answer: windows of a sound count one by one. Rows without a partner are asked for, but ask nothing.

    Args:
        draws: of the bootstrap; 0 for no intervals.
    Raises:
        UserError: no pair has both its ids in the stores.
    """
    rows = [_rows_by_id(first), _rows_by_id(second)]
    there = {(one, other) for one, other in truth.pairs if one in rows[0] and other in rows[1]}
    if not there:
        raise UserError(_nothing_in_common(first, second, truth))
    return {
        "pairs": truth.record | {"used": len(there)},
        "stores": [_record(store) for store in (first, second)],
        "directions": [
            _direction(first, second, rows, there, draws),
            _direction(second, first, rows[::-1], {(other, one) for one, other in there}, draws),
        ],
    }


def _direction(
    queries: StoreReader, targets: StoreReader, rows: list[dict[str, list[int]]], pairs: set[tuple[str, str]], draws: int
) -> dict[str, Any]:
    partners: dict[str, list[int]] = defaultdict(list)
    for one, other in pairs:
        partners[one] += rows[1][other]
    asking = sorted(row for id in partners for row in rows[0][id])
    place = places(targets.ids)
    values: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in range(0, len(asking), QUERIES):
        some = asking[start : start + QUERIES]
        relevant = [np.array(partners[queries.ids[row]]) for row in some]
        found = ranks(targets.blocks, queries.rows(np.array(some)), relevant, place)
        for name, scores in metrics.retrieval(found).items():
            values[name].append(scores)
    told: dict[str, Any] = {
        "query": {"store": str(queries.path), "modality": queries.modality, "rows": len(asking)},
        "target": {"store": str(targets.path), "modality": targets.modality, "rows": len(targets)},
    }
    for name, (source, statistic) in metrics.RETRIEVAL_FIGURES.items():
        own = np.concatenate(values[source])
        told[name] = {"value": float(statistic(own))}
        if draws:
            told[name]["low"], told[name]["high"] = metrics.interval(own, statistic, draws)
    return told


def _rows_by_id(store: StoreReader) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, id in enumerate(store.ids):
        rows[id].append(row)
    return rows


def _record(store: StoreReader) -> dict[str, Any]:
    """What a store is: its path, how it was made, and the hash of its ids and vectors."""
    digest = hashlib.sha256(json.dumps(store.ids).encode())
    for block in store.blocks():
        digest.update(np.ascontiguousarray(block).data)
    return {"path": str(store.path), "rows": len(store), "sha256": digest.hexdigest(), "made": store.made}


def _nothing_in_common(first: StoreReader, second: StoreReader, truth: Pairs) -> str:
    examples = [next(iter(store.ids), "none, it is empty") for store in (first, second)]
    where = f"an id of {first.path} is {examples[0]!r}, one of {second.path} {examples[1]!r}"
    if truth.record["by"] == "ids":
        return f"no id is in both stores: {where}; a file of pairs says what belongs together"
    return f"{truth.record['by']}: none of its {len(truth.pairs):,} pairs has both ids in the stores: {where}"
