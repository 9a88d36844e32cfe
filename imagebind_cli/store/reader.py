"""`open_store`: stores of every format to read, recognised by their content; replaced rows are left out."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.errors import UserError, first_line
from imagebind_cli.store.provenance import check_alike
from imagebind_cli.store.row import Row, stamp_of
from imagebind_cli.store.source import VECTOR, Source
from imagebind_cli.store.sums import check_states
from imagebind_cli.store_formats import FORMATS, TABLES

PAGE_ROWS, PAGES = 64, 256  # what `id` and `meta` read at once, since opening the file takes longer, and how much of it they remember
Page = tuple[list[str], list[dict[str, Any]], list[str | None]]


class StoreReader:
    """A store being read. Get one from `open_store`.

    path: as it was given. paths: the stores themselves, several for a pattern. provenance: how its vectors were made. modality: of its items.
    dim: length of its vectors.
    """

    def __init__(self, path: Path, source: Source, paths: Sequence[Path] = ()) -> None:
        self.path, self.paths, self.provenance, self._source = path, list(paths or [path]), source.provenance, source
        with _whole(path):
            self.modality, self.dim = str(self.provenance["modality"]), int(self.provenance["dim"])

    def __len__(self) -> int:
        """The number of rows without replaced ones."""
        return self._source.count - len(self._source.hidden)

    @property
    def replaced(self) -> int:
        """How many rows of the file were replaced, because their input was embedded again."""
        return len(self._source.hidden)

    @cached_property
    def ids(self) -> list[str]:
        """The id of every row; an item's windows share one."""
        with _whole(self.path):
            ids = _texts(self._source.ids(0, self._source.count))
        return [ids[row] for row in self._numbers] if self.replaced else ids

    def id(self, index: int) -> str:
        """Return the id of one row without reading all."""
        row = self._row(index)
        return self._page(row // PAGE_ROWS)[0][row % PAGE_ROWS]

    @cached_property
    def spans(self) -> np.ndarray | None:
        """The seconds of each row, float64 (n, 2), NaN where a row has none; None where no row has any."""
        with _whole(self.path):
            spans = self._source.spans(0, self._source.count)[self._numbers]
        return None if np.isnan(spans).all() else spans

    @cached_property
    def stamps(self) -> np.ndarray:
        """The stamp of each row's input, `STAMP` (n,)."""
        with _whole(self.path):
            return self._source.stamps(0, self._source.count)[self._numbers]

    def meta(self, index: int) -> dict[str, Any]:
        """Return the other columns of a row's manifest; {} if there are none."""
        row = self._row(index)
        return dict(self._page(row // PAGE_ROWS)[1][row % PAGE_ROWS])  # a copy: the page is kept

    def clock(self, index: int) -> str | None:
        """Return when a row began, in ISO 8601, `2024-05-01T12:00:05.250Z`; without the Z in an unknown zone's time; None where not known."""
        row = self._row(index)
        return self._page(row // PAGE_ROWS)[2][row % PAGE_ROWS]

    @cached_property
    def clocks(self) -> list[str | None]:
        """The clock time of every row; see `clock`."""
        with _whole(self.path):
            clocks = self._source.clocks(0, self._source.count)
        return [clocks[row] for row in self._numbers] if self.replaced else clocks

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, float32 or float16 (k, dim), mapped from the file where the format allows it and no row was replaced."""
        start = 0
        for block in self._blocks():
            hidden = self._hidden(start, start + len(block))
            start += len(block)
            counting = np.delete(block, hidden, axis=0) if len(hidden) else block
            if len(counting):
                yield counting

    def vectors(self) -> np.ndarray:
        """Return all rows, float32 (n, dim), in memory."""
        return np.concatenate([*self.blocks(), np.empty((0, self.dim), np.float32)], dtype=np.float32)

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return some rows, float32 (k, dim)."""
        numbers = self._numbers[np.asarray(indices, np.int64)]
        with _whole(self.path):
            return self._source.rows(numbers).astype(np.float32)

    def _blocks(self) -> Iterator[np.ndarray]:
        with _whole(self.path):
            yield from self._source.blocks()

    def states(self) -> Iterator[tuple[int, np.ndarray]]:
        """Compare all rows, replaced ones included, with their checksums: yield the number of a first row, and the states from there on."""
        start = 0
        for block in self._blocks():
            with _whole(self.path):
                yield start, self._source.states(start, block)
            start += len(block)

    @property
    def sealed(self) -> bool:
        """Check whether the provenance has a checksum."""
        return self._source.sealed

    def items(self) -> Iterator[list[Row]]:
        """Yield each item's rows in order, with everything that is stored of them, once they match their checksums.

        Raises:
            UserError: a row is damaged.
        """
        item: list[Row] = []
        for row in self._embeddings():
            if item and row.id != item[0].id:
                yield _with_windows(item)
                item = []
            item.append(row)
        if item:
            yield _with_windows(item)

    def _embeddings(self) -> Iterator[Row]:
        start, source, hidden = 0, self._source, set(self._source.hidden.tolist())
        for block in self._blocks():
            stop = start + len(block)
            with _whole(self.path):
                check_states(self.path, start, source.states(start, block))
                columns = (_texts(source.ids(start, stop)), source.spans(start, stop), source.stamps(start, stop))
                beside = (_objects(source.metas(start, stop)), source.clocks(start, stop))
            for row, vector, id, span, record, meta, clock in zip(range(start, stop), block, *columns, *beside, strict=True):
                if row not in hidden:
                    seconds = None if np.isnan(span).any() else (float(span[0]), float(span[1]))
                    yield Row(id, vector.astype(np.float32), seconds, meta=meta, stamp=stamp_of(record), clock=clock)
            start = stop

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The number in the file of each row that was not replaced."""
        numbers = np.arange(self._source.count)
        return np.delete(numbers, self._source.hidden) if self.replaced else numbers

    @cached_property
    def _page(self) -> Callable[[int], Page]:
        """A function that reads the ids, other columns and clock times of one page of rows, and remembers those of the last pages."""

        @lru_cache(PAGES)
        def page(number: int) -> Page:
            start, stop = number * PAGE_ROWS, min((number + 1) * PAGE_ROWS, self._source.count)
            with _whole(self.path):
                return _texts(self._source.ids(start, stop)), _objects(self._source.metas(start, stop)), self._source.clocks(start, stop)

        return page

    def _row(self, index: int) -> int:
        return int(self._numbers[index]) if self.replaced else range(self._source.count)[index]

    def _hidden(self, start: int, stop: int) -> np.ndarray:
        first, last = np.searchsorted(self._source.hidden, (start, stop))
        return self._source.hidden[first:last] - start


def _with_windows(item: list[Row]) -> list[Row]:
    return [replace(row, windows=len(item)) for row in item]


class _Joined:
    """Several stores as one, such as those of a job array; `Source` describes the methods."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self._starts = np.cumsum([0, *(source.count for source in sources)])
        self.provenance, self.count = sources[0].provenance, int(self._starts[-1])
        self.hidden = np.concatenate([source.hidden + start for source, start in zip(sources, self._starts[:-1], strict=True)])
        self.sealed = all(source.sealed for source in sources)

    def ids(self, start: int, stop: int) -> list[str]:
        return [id for source, first, last in self._stretches(start, stop) for id in source.ids(first, last)]

    def metas(self, start: int, stop: int) -> list[dict[str, Any]]:
        return [meta for source, first, last in self._stretches(start, stop) for meta in source.metas(first, last)]

    def clocks(self, start: int, stop: int) -> list[str | None]:
        return [clock for source, first, last in self._stretches(start, stop) for clock in source.clocks(first, last)]

    def spans(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([source.spans(first, last) for source, first, last in self._stretches(start, stop)])

    def stamps(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([source.stamps(first, last) for source, first, last in self._stretches(start, stop)])

    def blocks(self) -> Iterator[np.ndarray]:
        for source in self._sources:
            yield from source.blocks()

    def rows(self, indices: np.ndarray) -> np.ndarray:
        found = np.empty((len(indices), int(self.provenance["dim"])), np.float32)
        for source, start, stop in zip(self._sources, self._starts, self._starts[1:], strict=False):
            mine = (indices >= start) & (indices < stop)
            found[mine] = source.rows(indices[mine] - start)
        return found

    def states(self, start: int, vectors: np.ndarray) -> np.ndarray:
        parts = [(source, first, last) for source, first, last in self._stretches(start, start + len(vectors)) if first < last]
        at, states = np.cumsum([0, *(last - first for _, first, last in parts)]), []
        for (source, first, _), begin, end in zip(parts, at, at[1:], strict=False):
            states.append(source.states(first, vectors[begin:end]))
        return np.concatenate(states)

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[Source, int, int]]:
        for source, before in zip(self._sources, self._starts[:-1], strict=True):
            yield source, max(0, min(start - before, source.count)), max(0, min(stop - before, source.count))


def open_store(path: Path | str) -> StoreReader:
    """Open a store of any format to read, or those that match a pattern, `photos-*-of-00004.h5`, as one.

    Raises:
        UserError: it does not exist, is not a store of `imagebind embed`, or is incomplete; the provenance of several differs.
    """
    path = Path(path)
    if path.exists() or not glob.has_magic(str(path)):
        return StoreReader(path, _open(path))
    paths = [each for each in sorted(map(Path, glob.glob(str(path)))) if is_store(each)]
    if not paths:
        raise UserError(f"{path}: no store matches this pattern")
    sources = [_open(each) for each in paths]
    for each, source in zip(paths, sources, strict=True):
        check_alike(each, source.provenance, paths[0], sources[0].provenance)
    return StoreReader(path, _Joined(sources), paths)


def is_store(path: Path | str) -> bool:
    """Check whether a path is a store, complete or not, by its content."""
    return _kind(Path(path)) is not None


def _open(path: Path) -> Source:
    if not path.exists():
        raise UserError(f"{path}: no such store")
    kind = _kind(path)
    if kind is None:
        raise UserError(f"{path}: not a store of imagebind embed")
    if kind == ".jsonl" and (vectors := lacks_vectors(path)):
        raise UserError(f"{path}: holds only ids; {f'open {vectors} instead' if vectors.exists() else f'{vectors} is missing'}")
    with _whole(path):
        format = (FORMATS | TABLES)[kind]
        return format.load(format.reader)(path)


def lacks_vectors(path: Path) -> Path | None:
    """Return the `.npy` that has the vectors, where a file of lines holds ids alone; else None."""
    with open(path, "rb") as file:
        head = file.read(65536)
    return path.with_suffix(".npy") if path.suffix == ".jsonl" and head and VECTOR not in head else None


def _texts(ids: list[str]) -> list[str]:
    if not all(isinstance(id, str) for id in ids):
        raise ValueError("an id is not text")
    return ids


def _objects(metas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not all(isinstance(meta, dict) for meta in metas):
        raise ValueError("the columns beside an id are not an object")
    return metas


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Report in one line bytes that do not fit together."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the standard library, numpy and h5py raise many kinds for files that are broken
        raise UserError(f"{path}: not a complete store: {first_line(error)}") from None


def _kind(path: Path) -> str | None:
    """Return the ending of the format of what is at a path; None if it is not a store."""
    head = None
    try:
        if not path.is_dir():
            with open(path, "rb") as file:
                head = file.read(65536)
    except OSError:
        return None
    return next((ending for ending, kind in reversed((FORMATS | TABLES).items()) if kind.recognises(path, head)), None)
