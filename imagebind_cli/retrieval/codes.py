"""Exact search by int8 codes of a store's rows, in a file beside it: a quarter of the bytes of float32, and the processor's int8 products.

    NAME.int8.codes         int8 codes (rows, dim), then the scale, the length and the error of each row, float32 (rows,), and its sum, int32 (rows,)
    NAME.int8.codes.json    what it was made from, the mean and the spread of each coordinate, and a checksum of all these numbers but the codes

A row x is read as mean + spread · scale · code, and its error is a bound of |(x - mean) / spread - scale · code|. So, by Cauchy and Schwarz,
its inner product with a query q differs from that of its code by at most |q · spread| times the error. Rows whose upper bound is below the k-th
best lower bound cannot be answers; the others are scored from the store itself. The idea is that of the VA-file (Weber, Schek and Blott, 1998).

A row's sum is the inner product of its codes with a fixed vector of odd numbers. Every search computes it again beside the products with the query,
which takes no further read of the codes: where a bit is flipped, the sum is another.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.retrieval.sidecar import is_current, new_sidecar, read_sidecar, record_path, sidecar_path, write_sidecar
from imagebind_cli.similarity import FEW, in_threads, top_k
from imagebind_cli.store import StoreReader

ENDING = "int8.codes"
NUMBERS = 16  # bytes of the numbers of a row beside its codes
LARGEST, LIMIT = 127, 2**31 - 1  # of int8 and of int32
PRODUCTS = 1 << 24  # products held at once
ROWS = 1 << 18  # rows multiplied at once: the first of them are all candidates
CACHED = 1 << 17  # numbers encoded at a time, which stay in the cache
ROUNDING = 2.0**-24  # largest relative error of one float32 operation
SLACK = 1e-11  # what float64 sums of unit vectors can be wrong by
FEWEST = 32  # rows for each answer; where there are fewer, or codes exclude fewer, all rows are scored from the store
WORTH = 1 << 37  # multiplications of float32 that take longer than importing torch


class DamagedCodes(Exception):
    """The codes differ from those that were written."""


@dataclass(frozen=True)
class Codes:
    """The codes of a store. codes: int8 (rows, dim). scale, length, error: float32 (rows,). sums: int32 (rows,). mean, spread: float32 (dim,)."""

    codes: np.ndarray
    scale: np.ndarray
    length: np.ndarray
    error: np.ndarray
    sums: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def candidates(self, queries: np.ndarray, k: int) -> list[np.ndarray]:
        """Return, for each query (queries, dim), the numbers in rising order of the rows that may be among its k highest inner products.

        Raises:
            DamagedCodes: the codes of a row have another sum than those that were written.
        """
        query_codes = _QueryCodes(queries, self.mean, self.spread)
        candidates = [_Candidates(k) for _ in queries]
        step = max(1, min(ROWS, PRODUCTS // query_codes.codes.shape[1]))
        for start in range(0, len(self.codes), step):
            part = slice(start, start + step)
            dots, sums = query_codes.products(self.codes[part])
            if not np.array_equal(sums, self.sums[part]):
                raise DamagedCodes
            rows = [column[part] for column in (self.scale, self.length, self.error)]
            best = np.array([each.best for each in candidates])
            hits = np.flatnonzero(dots >= query_codes.lowest(best, *rows))  # nonzero itself takes ten times as long
            row, query = np.divmod(hits, len(candidates))
            estimates, errors = query_codes.bounds(dots.ravel()[hits], query, *(column[row].astype(np.float64) for column in rows))
            order = np.argsort(query, kind="stable")
            ends = np.searchsorted(query[order], np.arange(len(candidates) + 1))
            for number in np.flatnonzero(np.diff(ends)):
                of_query = order[ends[number] : ends[number + 1]]
                candidates[number].add(start + row[of_query], estimates[of_query], errors[of_query])
        return [each.rows() for each in candidates]


class _QueryCodes:
    """Queries (queries, dim), multiplied by the spread and rounded to int8; a few are rounded twice, the second time for the remainder.

    codes: (dim, parts · queries), and the vector of the sums after those of a few.
    """

    def __init__(self, queries: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> None:
        weighted = queries * spread
        self._base, self._reach = queries @ mean.astype(np.float64), np.linalg.norm(weighted, axis=1)
        self._step = np.maximum(np.abs(weighted).max(axis=1), 1e-30) / LARGEST
        rest = weighted / self._step[:, None]
        # Steps of the last part in one of the first: as many as fit into int8, and whose products fit into int32.
        finest = min(2 * LARGEST, LIMIT // (queries.shape[1] * LARGEST**2) - 1)
        self._finer = max(1, finest) if len(queries) <= FEW else 1
        parts = [np.rint(rest)]
        rest -= parts[0]
        if self._finer > 1:
            parts.append(np.rint(rest * self._finer))
            rest -= parts[1] / self._finer
        self._step /= self._finer
        self._left = np.linalg.norm(rest, axis=1) * self._step * self._finer
        self._count, self._summing = len(queries), _summing(queries.shape[1])
        columns = [*parts, self._summing[None]] if self._finer > 1 else parts
        self.codes = np.concatenate(columns).astype(np.int8).T

    def products(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multiply codes (rows, dim) with the queries: int32 (rows, queries), in units of the last part. Also sum their rows: int32 (rows,)."""
        dots = _product(codes, self.codes)
        if self._finer == 1:
            return dots, _product(codes, self._summing.reshape(-1, 1))[:, 0]  # torch's product is wrong for a stride of 0, as of [:, None]
        first, second = dots[:, : self._count], dots[:, self._count : -1]
        return first * np.int32(self._finer) + second, dots[:, -1]

    def lowest(self, best: np.ndarray, scale: np.ndarray, length: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return the products below which none of these rows can reach a score of `best` (queries,): int32 (queries,)."""
        least = best - self._base - self._margin(slice(None), float(length.max()), float(error.max()))
        lowest = least / (self._step * np.where(least > 0, float(scale.max()), float(scale.min())))
        return np.floor(np.clip(lowest, -LIMIT, LIMIT)).astype(np.int32)

    def bounds(
        self, dots: np.ndarray, query: np.ndarray, scale: np.ndarray, length: np.ndarray, error: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return estimates of scores, from products of queries, by number, with rows, and the bounds of their errors: (n,) each."""
        return self._base[query] + self._step[query] * scale * dots, self._margin(query, length, error)

    def _margin(self, query: Any, length: Any, error: Any) -> np.ndarray:
        return np.asarray(self._reach[query] * error + self._left[query] * length + SLACK)


class _Candidates:
    """The rows that may be among the k best of one query, while estimates of their scores come in. best: the k-th highest lower bound."""

    def __init__(self, k: int) -> None:
        self.best = -np.inf
        self._lower = np.full(k, -np.inf)
        self._rows: list[np.ndarray] = []
        self._upper: list[np.ndarray] = []

    def add(self, rows: np.ndarray, estimates: np.ndarray, errors: np.ndarray) -> None:
        lower, upper = estimates - errors, estimates + errors
        self._lower = np.partition(np.concatenate([self._lower, lower]), len(lower))[len(lower) :]
        self.best = float(self._lower[0])
        possible = upper >= self.best
        self._rows.append(rows[possible])
        self._upper.append(upper[possible])

    def rows(self) -> np.ndarray:
        possible = np.concatenate([*self._upper, np.empty(0)]) >= self.best
        return np.concatenate([*self._rows, np.empty(0, np.int64)])[possible]


def _summing(dim: int) -> np.ndarray:
    """Return the vector by which codes are summed: odd int8 numbers (dim,), so that no flipped bit leaves a sum as it is."""
    return (np.arange(dim, dtype=np.int64) * 2_654_435_761 // 65_536 % LARGEST * 2 - (LARGEST - 2)).astype(np.int8)


def _product(codes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Multiply int8 (rows, dim) with (dim, n) exactly: int32 (rows, n)."""
    import torch

    with torch.inference_mode():
        return np.asarray(torch._int_mm(torch.from_numpy(codes), torch.from_numpy(queries)).numpy())


@cache
def _multiplies() -> bool:
    """Check whether torch's int8 product is exact here, and at least as fast as the float32 one.

    Old processors saturate at 16 bits, and for some there is only reference code, hundreds of times as slow.
    """
    from imagebind_cli.int8 import shortest_seconds

    rows, queries = (np.full(shape, value, np.int8) for shape, value in (((4096, 1024), -LARGEST), ((1024, 2), LARGEST)))
    try:
        exact = (_product(rows, queries) == -1024 * LARGEST * LARGEST).all()
    except (RuntimeError, AttributeError):
        return False
    wide, narrow = rows.astype(np.float32), queries.astype(np.float32).T
    return bool(exact) and shortest_seconds(lambda: _product(rows, queries)) < shortest_seconds(lambda: np.vecdot(wide[:, None], narrow))


class CodeSearch:
    """Exact search by codes, which are made where they are missing or outdated. Call it to search one store.

    Rows are scored from the store alone where that is faster: without torch, which takes longer to import than a few queries, for processors
    without int8 products, and where codes exclude little.

    Args:
        note: called with a line of text when codes are made, and when they are not used.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._opened: dict[Path, Codes] = {}
        self._noted: set[str] = set()

    def __call__(self, store: StoreReader, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows nearest to queries (queries, dim), as `similarity.top_k` does: int64 (queries, k), and their scores, float64."""
        queries, k = np.asarray(queries, np.float64), min(k, len(store))

        def names(rows: np.ndarray) -> list[str]:
            return [store.id(row) for row in rows.tolist()]

        def by_rows(reason: str) -> tuple[np.ndarray, np.ndarray]:
            if reason not in self._noted:
                self._noted.add(reason)
                self._note(f"{store.path}: searched without codes: {reason}")
            return top_k(store.blocks(), queries, k, names)

        few = len(store) // FEWEST
        if k > few:
            return by_rows(f"{len(store):,} rows are too few")
        if "torch" not in sys.modules and len(queries) * len(store) * store.dim < WORTH:
            return by_rows("that takes no longer than importing torch")
        if not _multiplies():
            return by_rows("this processor, or torch for it, has no fast int8 products")
        candidates = self._candidates(store, queries, k)
        if sum(map(len, candidates)) > few * len(queries):
            return by_rows("their scores are too close together")
        answers = [_rescore(store, query, rows, k, names) for query, rows in zip(queries, candidates, strict=True)]
        return np.stack([rows for rows, _ in answers]), np.stack([scores for _, scores in answers])

    def _candidates(self, store: StoreReader, queries: np.ndarray, k: int) -> list[np.ndarray]:
        if store.path not in self._opened:
            self._opened[store.path] = self._open(store)
        try:
            return self._opened[store.path].candidates(queries, k)
        except DamagedCodes:
            path = sidecar_path(store, ENDING)
            self._note(f"{path}: damaged; making it again")
            self._opened[store.path] = _make(path, store)
            return self._opened[store.path].candidates(queries, k)

    def _open(self, store: StoreReader) -> Codes:
        path = sidecar_path(store, ENDING)
        record = read_sidecar(path)
        if record is None:
            self._note(f"{path}: making it from {len(store):,} rows")
        elif not is_current(record, store):
            self._note(f"{path}: {store.path} has changed since; making it again from {len(store):,} rows")
        elif (codes := _read(path, record, store)) is not None:
            return codes
        else:
            self._note(f"{path}: incomplete; making it again")
        return _make(path, store)


def _rescore(
    store: StoreReader, query: np.ndarray, rows: np.ndarray, k: int, names: Callable[[np.ndarray], list[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of some rows, in rising order, and their scores from the store."""
    places, scores = top_k([store.rows(rows)], query[None], k, lambda places: names(rows[places]))
    return rows[places[0]], scores[0]


def _read(path: Path, record: dict[str, Any], store: StoreReader) -> Codes | None:
    """Map codes from their file; None where it or its record is incomplete."""
    rows, dim = len(store), store.dim
    try:
        mean, spread = (np.array(record[name], np.float32) for name in ("mean", "spread"))
        data = np.memmap(path, np.uint8, "c")  # copy-on-write, since torch asks for writable memory
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
    if (mean.shape, spread.shape, data.size) != ((dim,), (dim,), rows * (dim + NUMBERS)):
        return None
    numbers = np.frombuffer(data[rows * dim :].tobytes(), np.float32).reshape(4, rows)
    if record.get("numbers") != _checksum(numbers, mean, spread):
        return None
    scale, length, error, sums = numbers
    return Codes(data[: rows * dim].view(np.int8).reshape(rows, dim), scale, length, error, sums.view(np.int32), mean, spread)


def _checksum(*arrays: np.ndarray) -> int:
    """Return the CRC-32 of arrays, one after the other."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(array.tobytes(), checksum)
    return checksum


def _make(path: Path, store: StoreReader) -> Codes:
    record = new_sidecar(store)
    mean, spread = _moments(store)
    record |= {"mean": mean.tolist(), "spread": spread.tolist()}
    try:
        record_path(path).unlink(missing_ok=True)
        with replacing(path) as place, open(place, "wb") as file:
            record["numbers"] = _checksum(_write(file, store, mean, spread), mean, spread)
        write_sidecar(path, record)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    codes = _read(path, record, store)
    assert codes is not None
    return codes


def _write(file: BinaryIO, store: StoreReader, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Write the codes, then the numbers of the rows, float32 (4, rows), and return the latter."""
    columns: list[np.ndarray] = []
    for codes, numbers in in_threads(lambda rows: _encode(rows, mean, spread), _slices(store)):
        file.write(codes.data)
        columns.append(numbers)
    written = np.concatenate(columns, axis=1)
    file.write(written.data)
    return written


def _slices(store: StoreReader) -> Iterator[np.ndarray]:
    rows = max(1, CACHED // store.dim)
    for block in store.blocks():
        for start in range(0, len(block), rows):
            yield block[start : start + rows]


def _moments(store: StoreReader) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the spread of each coordinate over the rows that are finite, float32 (dim,)."""
    count, total, squares = 0, np.zeros(store.dim), np.zeros(store.dim)
    for part in _slices(store):
        finite = part[np.isfinite(part).all(axis=1)].astype(np.float64)
        count, total, squares = count + len(finite), total + finite.sum(axis=0), squares + np.square(finite).sum(axis=0)
    mean = total / max(1, count)
    spread = np.sqrt(np.maximum(squares / max(1, count) - np.square(mean), 0))
    # A coordinate that hardly varies must not have a row's largest number.
    return mean.astype(np.float32), np.maximum(spread, max(1e-3 * spread.max(initial=0), 1e-9)).astype(np.float32)


def _encode(rows: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes int8 (rows, dim) of rows (rows, dim), and their scale, length, error and sum (4, rows): float32, the last one the bytes of int32.

    The error of a row that is not finite is infinite: it is always scored from the store.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        wide = (rows.astype(np.float32) - mean) / spread
        size = np.abs(wide).max(axis=1)
    finite = np.isfinite(size)
    wide[~finite] = 0
    scale = np.where(finite & (size > 0), size / LARGEST, 1).astype(np.float32)
    codes = np.rint(wide / scale[:, None])
    coded = codes * scale[:, None]
    doubt = 4 * (rows.shape[1] + 8) * ROUNDING  # more than float32 sums of these many numbers can be wrong by
    length = np.linalg.norm(coded, axis=1) * (1 + doubt)
    error = np.linalg.norm(wide - coded, axis=1) * (1 + doubt) + doubt * np.linalg.norm(wide, axis=1)
    sums = (codes.astype(np.float64) @ _summing(rows.shape[1])).astype(np.int32)
    numbers = np.stack([scale, length, np.where(finite, error, np.inf)]).astype(np.float32)
    return codes.astype(np.int8), np.concatenate([numbers, sums.view(np.float32)[None]])
