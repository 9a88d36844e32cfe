"""Queries before they have vectors: from a call, from flags, or line by line from a file or stdin."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.object_storage import join_path
from imagebind_cli.tabular import json_object

if TYPE_CHECKING:
    from imagebind_cli.sources import Failure, Stretch

LIKE, VECTOR = "like", "vector"  # kinds of parts besides the modalities: an item of the stores, a file of one vector
BATCH = 256  # requests that are embedded and searched together


@dataclass(frozen=True)
class QueryRequest:
    """A query before it has a vector.

    parts: for each its kind (a modality, `like` or `vector`) and its sentence, path, stretch of a file, or id.
    weights: a number for each part; equal if None. vector: the query itself, where a line has an `embedding`; `parts` is then empty.
    """

    id: str
    parts: tuple[tuple[str, str | Stretch], ...]
    weights: tuple[float, ...] | None = None
    vector: tuple[float, ...] | None = None


def combined_request(
    parts: Sequence[tuple[str, str | Stretch]], weights: Sequence[float] | None = None, id: str | None = None
) -> QueryRequest:
    """Return a request of several parts, named after them if it has no id.

    Raises:
        UsageError: weights that are not one for each part.
    """
    if weights is not None and len(weights) != len(parts):
        raise UsageError(f"{len(weights)} weights for {len(parts)} queries; one for each is needed, in their order")
    return QueryRequest(describe(parts, weights) if id is None else id, tuple(parts), tuple(weights) if weights is not None else None)


def describe(parts: Sequence[tuple[str, str | Stretch]], weights: Sequence[float] | None = None) -> str:
    """Return the name of a combined query, as in `0.5 a dog - 1 snow`."""
    names = [source if isinstance(source, str) else f"{source.source}{source.label}" for _, source in parts]
    if weights is None:
        return " + ".join(names)
    terms = [f"{'-' if weight < 0 else '+'} {abs(weight):g} {name}" for name, weight in zip(names, weights, strict=True)]
    return " ".join(terms).removeprefix("+ ")


def read_weights(text: str, parts: int) -> tuple[float, ...]:
    """Read `0.5,-0.5` as numbers, one for each part.

    Raises:
        UsageError: not numbers, or not one for each part.
    """
    try:
        weights = tuple(float(number) for number in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"--weights {text!r}: numbers are needed, as in --weights 0.5,-0.5") from None
    if len(weights) != parts:
        raise UsageError(f"{len(weights)} --weights for {parts} queries; one for each is needed, in their order")
    return weights


def read_requests(path: Path, note: Callable[[str], None] = lambda text: None) -> Iterator[QueryRequest | Failure]:
    """Read a query from each line of a file, or of stdin, `-`.

    A line is a sentence, or a JSON object with a key for each modality, or with `embedding`. CSV and TSV have a row for each query and a column
    for each key. Several keys in one line are combined, by `weights` if there are any. `start` and `end` are seconds of the query's sounds,
    videos and motion recordings. Relative paths start at the file's folder. A line that is none of these is a `Failure`.

    Args:
        note: called with a line of text where there is no query.
    Raises:
        UserError: the file cannot be read, or is UTF-16 or UTF-32.
    """
    from imagebind_cli.tabular import is_table

    empty = True
    for request in _table_requests(path) if is_table(path) else _line_requests(path):
        empty = False
        yield request
    if empty and str(path) == "-":
        note("stdin is empty: there are no queries")
    elif empty:
        note(f"{path}: holds no queries")


def _table_requests(path: Path) -> Iterator[QueryRequest | Failure]:
    from imagebind_cli.sources import Failure
    from imagebind_cli.tabular import BadRow, read_rows

    for number, row in read_rows(path):
        place = f"{path}:{number}"
        try:
            yield Failure(place, row.reason) if isinstance(row, BadRow) else request_of_row(row, place, str(path.parent))
        except ValueError as error:
            yield Failure(place, str(error))


def _line_requests(path: Path) -> Iterator[QueryRequest | Failure]:
    from imagebind_cli.sources import Failure
    from imagebind_cli.tabular import encoding_fault

    name = "FILE" if str(path) == "-" else str(path)
    try:
        with open(os.dup(0) if str(path) == "-" else path, encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}:{number}"
                if fault := encoding_fault(line.encode("utf-8", "surrogateescape"), name):
                    if number == 1 and "\0" in line:  # every other line will fail alike
                        raise UserError(f"{place}: {fault}")
                    yield Failure(place, fault)
                    continue
                try:
                    if line.strip():
                        yield _request(line.strip(), place, os.path.dirname(path))
                except ValueError as error:
                    yield Failure(place, str(error))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _request(line: str, place: str, folder: str) -> QueryRequest:
    if not line.startswith("{"):
        return QueryRequest(line, ((registry.TEXT, line),))
    row = json_object(line)
    if not isinstance(row, dict):
        raise ValueError(row.reason if row else "not a JSON object")
    return request_of_row(row, place, folder)


def request_of_row(row: Mapping[str, Any], place: str, folder: str) -> QueryRequest:
    """Return the query of a row: one key for each part, or `embedding`; see `read_requests`.

    Args:
        place: its id, if the row has none. folder: where relative paths start.
    Raises:
        ValueError: the row holds no query, or a wrong value.
    """
    from imagebind_cli.sources import stretched

    given = {key: row[key] for key in row if key in registry.MODALITIES}
    vector, weights = row.get("embedding"), row.get("weights")
    wrong = [key for key, value in given.items() if not isinstance(value, str)]
    wrong += ["embedding"] if vector is not None and not _are_numbers(vector) else []
    wrong += ["weights"] if weights is not None and not (_are_numbers(weights) and len(weights) == len(given)) else []
    if wrong:
        raise ValueError(f"{wrong[0]} is {row[wrong[0]]!r:.60}; a string is needed, or for embedding and weights numbers")
    if vector is not None:
        return QueryRequest(str(row.get("id", place)), (), None, tuple(vector))
    if not given:
        raise ValueError(f"no {', '.join(registry.MODALITIES)} or embedding in this line; it has {', '.join(row) or 'nothing'}")
    files = {key: value if key == registry.TEXT else join_path(folder, value) for key, value in given.items()}
    parts = tuple((key, stretched(file, key, row)) for key, file in files.items())
    return combined_request(parts, weights, str(row["id"]) if "id" in row else None)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(number, int | float) for number in value)


def request_batches(requests: Iterable[QueryRequest | Failure], waiting: bool) -> Iterator[list[QueryRequest | Failure]]:
    """Group requests into batches.

    Args:
        waiting: yield those that have come, since the source may wait for an answer before its next request.
    """
    if not waiting:
        requests = iter(requests)
        while batch := list(islice(requests, BATCH)):
            yield batch
        return
    arrived: queue.Queue[QueryRequest | Failure | BaseException | None] = queue.Queue(BATCH)

    def read() -> None:
        try:
            for request in requests:
                arrived.put(request)
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=read, name="queries", daemon=True).start()
    last: QueryRequest | Failure | BaseException | None
    while True:
        ready: list[QueryRequest | Failure] = []
        while (last := arrived.get()) is not None and not isinstance(last, BaseException):
            ready.append(last)
            if len(ready) == BATCH or arrived.empty():
                break
        if ready:
            yield ready
        if isinstance(last, BaseException):
            raise last
        if last is None:
            return
