"""Compute and compare the checksums of rows: a CRC-32 of each vector, one of the other columns, and running ones of what a resumed run needs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from imagebind_cli.checksums import checksum
from imagebind_cli.errors import UserError

SUMS = np.dtype([("vector", "<u4"), ("row", "<u4"), ("inputs", "<u4"), ("replaced", "<u4")])
# The checksums of a row's vector, of its other columns, of the records of all inputs up to it, and of the numbers of all rows replaced by then.
# `row` is 0 for a row of an earlier version, which had no checksums.
FIRST = np.array([(0, 1, 0, 0)], SUMS)  # stands for the row before the first
REMEDY = "imagebind store check lists what is; restore it from a copy, or embed the inputs again into another store"
INTACT, UNSUMMED, DAMAGED = 0, 1, 2  # states of a row


def each_sum(records: np.ndarray) -> np.ndarray:
    """Return the checksum of each row of an array, (n,)."""
    return np.array([checksum([record]) for record in _as_bytes(records)], np.uint32)


def running_sum(records: np.ndarray, before: int = 0) -> int:
    """Return the checksum of all rows of an array. before: the checksum of the rows before them."""
    return zlib.crc32(np.ascontiguousarray(records).reshape(-1).view(np.uint8).data, before)


def new_sums(vectors: np.ndarray, columns: Iterable[Sequence[bytes]], inputs: np.ndarray, before: int, replaced: int) -> np.ndarray:
    """Return the `SUMS` of rows to add, (n,).

    Args:
        vectors: as they are stored. columns: the bytes of each row's other columns. inputs: the records of their inputs.
        before: the checksum of all inputs before them. replaced: the checksum of the numbers of all replaced rows.
    """
    sums = np.zeros(len(vectors), SUMS)
    sums["vector"], sums["row"], sums["replaced"] = each_sum(vectors), [checksum(parts) for parts in columns], replaced
    sums["inputs"] = list(accumulate(_as_bytes(inputs), lambda total, record: zlib.crc32(record, total), initial=before))[1:]
    return sums


def row_states(
    sums: np.ndarray, vectors: np.ndarray, columns: Iterable[Sequence[bytes]], inputs: np.ndarray, replaced: np.ndarray
) -> np.ndarray:
    """Compare rows with their `SUMS`, and return the state of each, (n,).

    Args:
        sums: of the row before them, or `FIRST`, and then of the rows, (n + 1,). replaced: the numbers of all replaced rows, in stored order.
            The others are as for `new_sums`.
    """
    before, sums = sums[:-1], sums[1:]
    intact = (sums["vector"] == each_sum(vectors)) & (sums["row"] == [checksum(parts) for parts in columns])
    running = [zlib.crc32(record, total) for record, total in zip(_as_bytes(inputs), before["inputs"].tolist(), strict=True)]
    intact &= (sums["inputs"] == running) | (before["row"] == 0)
    intact &= np.isin(sums["replaced"], list(accumulate(replaced.tolist(), _add_number, initial=0)))
    return np.where(sums["row"] == 0, UNSUMMED, np.where(intact, INTACT, DAMAGED))


def check_running(sums: np.ndarray, *, replaced: np.ndarray | None = None, inputs: np.ndarray | None = None) -> None:
    """Compare what a resumed run needs with the `SUMS` of the last row, (1,), or `FIRST`.

    Raises:
        ValueError: the records of inputs, or the numbers of replaced rows, do not match.
    """
    for name, what, values in (("replaced", "list of replaced rows does", replaced), ("inputs", "records of inputs do", inputs)):
        if values is not None and sums["row"][0] and running_sum(values) != sums[name][0]:
            raise ValueError(f"damaged: its {what} not match the checksum; {REMEDY}")


def check_states(path: Path, start: int, states: np.ndarray) -> None:
    """Refuse damaged rows. start: the number of the first row; states: as `row_states` returns them.

    Raises:
        UserError: a row is damaged; it names the first one.
    """
    for row in np.flatnonzero(states == DAMAGED)[:1]:
        raise UserError(f"{path}: row {start + row} is damaged: it does not match its checksum; {REMEDY}")


def _add_number(total: int, number: int) -> int:
    return zlib.crc32(number.to_bytes(8, "little", signed=True), total)


def _as_bytes(records: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(records).view(np.uint8).reshape(len(records), -1) if len(records) else np.empty((0, 0), np.uint8)
