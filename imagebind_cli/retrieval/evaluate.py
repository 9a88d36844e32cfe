"""Scores of two stores whose items belong together, in both directions: recall, median rank, mAP, nDCG, with bootstrap intervals."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli import metrics
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import log_note
from imagebind_cli.similarity import positions_by_id, ranks
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store
from imagebind_cli.tabular import Row, read_good_rows

QUERIES = 4096  # queries that are ranked together


@dataclass(frozen=True)
class Pairs:
    """Pairs of an id of one store and an id of the other that belong together. record: where they are from, for the report."""

    pairs: set[tuple[str, str]]
    record: dict[str, Any]


def evaluate_pairs(
    stores: Sequence[str | Path],
    pairs: str | Path = "ids",
    draws: int = 1000,
    note: Callable[[str], None] = log_note,
    space: Space | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Score how well the items of two stores find each other, as `imagebind retrieve --pairs` does.

    Every row is both a query and a candidate: windows of a sound count one by one. Rows without a partner are candidates only.

    Args:
        stores: two, of one model. pairs: a file as `read_pairs` takes it, or `ids`: rows of one id belong together.
        draws: of the bootstrap; 0 for no intervals. note: called with a line of text where pairs are left out; logged by default.
        space: checks that both stores are of one model. columns: names to give to the file's columns, as in `tabular.read_rows`.
    Returns:
        `directions`: for each of both its `query` and `target`, and each of `metrics.RETRIEVAL_FIGURES` as `value` with `low` and `high`.
        `pairs` and `stores`: what was compared, with SHA-256 of pairs, ids and vectors.
    Raises:
        UserError: no such store, stores of different models, pairs that cannot be read, or none with both its ids in the stores.
        UsageError: not two stores.
    """
    if len(stores) != 2:
        raise UsageError(f"--pairs takes two stores; {len(stores)} are given")
    space = space or Space()
    first, second = (space.admit(open_store(path)) for path in stores)
    truth = pairs_by_id(first, second) if str(pairs) == "ids" else read_pairs(Path(pairs), first, second, columns)
    rows = [_rows_by_id(first), _rows_by_id(second)]
    usable = {(one, other) for one, other in truth.pairs if one in rows[0] and other in rows[1]}
    if not usable:
        raise UserError(_nothing_in_common(first, second, truth))
    if len(usable) < len(truth.pairs):
        note(f"{pairs}: {len(truth.pairs) - len(usable):,} of {len(truth.pairs):,} pairs name an id that is in neither store")
    return {
        "pairs": truth.record | {"used": len(usable)},
        "stores": [_record(store) for store in (first, second)],
        "directions": [
            _direction(first, second, rows, usable, draws),
            _direction(second, first, rows[::-1], {(other, one) for one, other in usable}, draws),
        ],
    }


def pairs_by_id(first: StoreReader, second: StoreReader) -> Pairs:
    """Pair rows of one id."""
    return Pairs({(id, id) for id in set(first.ids) & set(second.ids)}, {"by": "ids"})


def read_pairs(path: Path, first: StoreReader, second: StoreReader, columns: Mapping[str, str] | None = None) -> Pairs:
    """Read pairs from JSON Lines, CSV or TSV: an id, or a list of ids, under each store's modality, or under `query` and `target`.

    Raises:
        UserError: as `read_good_rows`, or a row without these keys.
    """
    keys = ("query", "target") if first.modality == second.modality else (first.modality, second.modality)
    pairs: set[tuple[str, str]] = set()
    for number, row in read_good_rows(path, columns=columns):
        pairs |= _pairs_of(row, keys, f"{path}:{number}")
    return Pairs(pairs, {"by": str(path), "sha256": hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest(), "pairs": len(pairs)})


def _pairs_of(row: Row, keys: tuple[str, str], place: str) -> set[tuple[str, str]]:
    ids: list[list[str]] = []
    for key in ("query", "target") if "query" in row else keys:
        side = [row[key]] if isinstance(row.get(key), str) else row.get(key)
        if not isinstance(side, list) or not all(isinstance(id, str) for id in side):
            has = ", ".join(row) or "nothing"
            raise UserError(
                f"{place}: an id, or a list of ids, is needed under {key!r}; the line has {has}; --column {key}=COLUMN names another"
            )
        ids.append(side)
    return set(product(*ids))  # type: ignore[arg-type]


def _direction(
    queries: StoreReader, targets: StoreReader, rows: list[dict[str, list[int]]], pairs: set[tuple[str, str]], draws: int
) -> dict[str, Any]:
    """Return the scores of one store's rows that look for their partners in the other. rows: of each id, in both stores."""
    partners: dict[str, list[int]] = defaultdict(list)
    for one, other in pairs:
        partners[one] += rows[1][other]
    asking = sorted(row for id in partners for row in rows[0][id])
    positions = positions_by_id(targets.ids)
    values: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in range(0, len(asking), QUERIES):
        batch = asking[start : start + QUERIES]
        relevant = [np.array(partners[queries.ids[row]]) for row in batch]
        for name, scores in metrics.retrieval(ranks(targets.blocks, queries.rows(np.array(batch)), relevant, positions)).items():
            values[name].append(scores)
    direction: dict[str, Any] = {
        "query": {"store": str(queries.path), "modality": queries.modality, "rows": len(asking)},
        "target": {"store": str(targets.path), "modality": targets.modality, "rows": len(targets)},
    }
    for name, figure in metrics.RETRIEVAL_FIGURES.items():
        scores = np.concatenate(values[figure.source])
        direction[name] = {"value": float(figure.statistic(scores))}
        if draws:
            direction[name]["low"], direction[name]["high"] = metrics.interval(scores, figure.statistic, draws)
    return direction


def _rows_by_id(store: StoreReader) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, id in enumerate(store.ids):
        rows[id].append(row)
    return rows


def _record(store: StoreReader) -> dict[str, Any]:
    """Describe a store: its path, how it was made, and the hash of its ids and vectors."""
    digest = hashlib.sha256(json.dumps(store.ids).encode())
    for block in store.blocks():
        digest.update(np.ascontiguousarray(block).data)
    return {"path": str(store.path), "rows": len(store), "sha256": digest.hexdigest(), "made": store.provenance}


def _nothing_in_common(first: StoreReader, second: StoreReader, truth: Pairs) -> str:
    examples = [next(iter(store.ids), "none, it is empty") for store in (first, second)]
    where = f"an id of {first.path} is {examples[0]!r}, one of {second.path} {examples[1]!r}"
    if truth.record["by"] == "ids":
        return f"no id is in both stores: {where}; a file of pairs says what belongs together"
    return f"{truth.record['by']}: none of its {len(truth.pairs):,} pairs has both ids in the stores: {where}"
