"""The HDF5 store, `NAME.h5`: appended to in whole steps through a journal, read through memory maps. h5py alone reads it, too.

Datasets: `embeddings` (n, dim) float32 or float16; `ids`; `spans` (n, 2) in seconds, NaN where a row has none; `meta`, JSON, empty where
there is none; `inputs`, what the row's input was (`STAMP`); `replaced`, the numbers of rows that no longer count, because their
input changed and was embedded again; `sums`, checksums (`SUMS`); where a file stated its clock `clocks`, ISO 8601, empty or short where rows have
none. Attribute `made` (JSON).
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imagebind_cli.checksums import seal
from imagebind_cli.errors import UserError, first_line
from imagebind_cli.store.journal import PAGE, JournaledFile, Snapshot
from imagebind_cli.store.provenance import check_resumable, parse_provenance
from imagebind_cli.store.row import STAMP, Row, decode_id, encode_id, stamp_record
from imagebind_cli.store.source import Views
from imagebind_cli.store.sums import FIRST, SUMS, check_running, new_sums, row_states, running_sum

CHUNK_ROWS = 1024
SLICE_ROWS = 65536
WAIT_SECONDS = 30.0
T = TypeVar("T")


def is_hdf5_store(path: Path, head: bytes) -> bool:
    """Check whether an HDF5 file holds embeddings."""
    import h5py

    try:
        with Snapshot(path) as snapshot:
            if snapshot.length == 0:  # its first commit is under way
                return False
            with h5py.File(snapshot, "r") as file:
                return "made" in file.attrs and "embeddings" in file
    except Exception:  # h5py raises many kinds on a damaged file
        return b"embeddings" in head


def columns(provenance: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return the datasets: shape of a row, and type."""
    import h5py

    text = h5py.string_dtype()
    return {
        "embeddings": ((int(provenance["dim"]),), np.dtype(provenance["array"])),
        "ids": ((), text),
        "spans": ((2,), np.dtype("f8")),
        "meta": ((), text),
        "inputs": ((), STAMP),
        "replaced": ((), np.dtype("i8")),
        "sums": ((), SUMS),
    }


class StoreHDF5Writer:
    """A `.h5` file being appended to; `Format` describes the methods."""

    def __init__(self, path: Path, provenance: dict[str, Any]) -> None:
        import h5py

        if path.is_dir():
            raise IsADirectoryError("is a folder")
        self.files = [path]
        self._disk = JournaledFile(path)
        self._file: Any = None
        # Chunks at whole pages can be mapped into memory, and share no page with anything that changes.
        access = {"alignment_threshold": 16 * PAGE, "alignment_interval": PAGE}
        try:
            try:
                self._file = h5py.File(self._disk, "r+" if self._disk.length else "w", **access)
                if self._disk.length:
                    _check_own(self._file)
                    check_resumable(path, parse_provenance(self._file.attrs["made"])[0], provenance)
                else:
                    self._create(provenance)
                self.stamps, replaced = self._file["inputs"][:], self._file["replaced"][:]
                self.hidden, self._provenance = np.sort(replaced), provenance
                check_running(_last_sums(self._file), replaced=replaced, inputs=self.stamps)
                self._inputs_sum, self._replaced_sum = running_sum(self.stamps), running_sum(replaced)
            except UserError:
                raise
            except Exception as error:  # h5py raises many kinds on a damaged file
                raise UserError(f"{path}: not a store of imagebind embed, or incomplete: {first_line(error)}") from None
        except BaseException:
            self.release()
            raise

    def _create(self, provenance: Mapping[str, Any]) -> None:
        for name, (shape, dtype) in columns(provenance).items():
            self._create_dataset(name, 0, shape, dtype)
        self.describe(provenance)
        self._file.flush()
        self._disk.commit()

    def _create_dataset(self, name: str, rows: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        chunk_rows = CHUNK_ROWS if name == "embeddings" else 4 * CHUNK_ROWS
        self._file.create_dataset(name, (rows, *shape), dtype, maxshape=(None, *shape), chunks=(chunk_rows, *shape))

    def describe(self, provenance: Mapping[str, Any]) -> None:
        self._file.attrs["made"] = seal(json.dumps(provenance))

    def write(self, rows: list[Row], replaced: list[int]) -> None:
        columns: dict[str, Any] = {
            "embeddings": np.stack([row.vector for row in rows]).astype(self._file["embeddings"].dtype),
            "ids": [encode_id(row.id) for row in rows],
            "spans": np.array([row.span or (np.nan, np.nan) for row in rows], np.float64),
            "meta": [json.dumps(dict(row.meta)).encode() if row.meta else b"" for row in rows],
            "inputs": np.array([stamp_record(row.id, row.stamp) for row in rows], STAMP),
            "replaced": np.array(replaced, np.int64),
        }
        others = _others(columns["ids"], columns["spans"], columns["meta"], [row.clock for row in rows])
        replaced_sum = running_sum(columns["replaced"], self._replaced_sum)
        columns["sums"] = new_sums(columns["embeddings"], others, columns["inputs"], self._inputs_sum, replaced_sum)
        if "sums" not in self._file:  # of an earlier version
            self._create_dataset("sums", len(self._file["ids"]), (), SUMS)
            self.describe(self._provenance)
        for name, values in columns.items():
            if len(values):
                data = self._file[name]
                data.resize(len(data) + len(values), axis=0)
                data[-len(values) :] = values
        if any(row.clock for row in rows):
            self._write_clocks([row.clock or "" for row in rows])
        self._file.flush()
        self._disk.commit()
        self._inputs_sum, self._replaced_sum = int(columns["sums"]["inputs"][-1]), replaced_sum

    def _write_clocks(self, clocks: list[str]) -> None:
        """Add the clock times of the last rows; the dataset is made with the first, and rows without one before them are left empty."""
        import h5py

        if "clocks" not in self._file:
            self._file.create_dataset("clocks", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(4 * CHUNK_ROWS,))
        data = self._file["clocks"]
        data.resize(len(self._file["ids"]), axis=0)
        data[-len(clocks) :] = clocks

    def close(self) -> None:
        self._file.flush()
        self._disk.commit()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()  # into pages in memory, which are dropped: what counts was committed
        self._disk.close()


class HDF5Source:
    """A `.h5` file being read, also while another process writes to it; `Source` describes the methods."""

    def __init__(self, path: Path) -> None:
        self._path = path

        def describe(file: Any, _: Snapshot) -> tuple[dict[str, Any], bool, int, np.ndarray, set[str]]:
            provenance, sealed = parse_provenance(file.attrs["made"])
            rows, replaced, present = len(file["embeddings"]), file["replaced"][:], {"sums", "clocks"} & set(file)
            for name, (shape, dtype) in columns(provenance).items():
                if name == "replaced" or (name == "sums" and name not in present):
                    continue
                data = file[name]
                if (data.shape, data.dtype) != ((rows, *shape), dtype):
                    raise ValueError(f"its {name} are {data.dtype} {data.shape}; {dtype} {(rows, *shape)} is needed")
            if sealed and "sums" not in present:
                raise ValueError("damaged: its checksums are missing")
            check_running(_last_sums(file), replaced=replaced)
            return provenance, sealed, rows, replaced, present

        self.provenance, self.sealed, self.count, self._replaced, self._present = self._read(describe)
        self.hidden = np.sort(self._replaced)
        self._kept: dict[tuple[str, int, int], list[np.ndarray]] = {}  # columns of the rows that `states` last compared

    def ids(self, start: int, stop: int) -> list[str]:
        return [decode_id(id) for some in self._column("ids", start, stop) for id in some]

    def spans(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([*self._column("spans", start, stop), np.empty((0, 2))])

    def stamps(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([*self._column("inputs", start, stop), np.empty(0, STAMP)])

    def metas(self, start: int, stop: int) -> list[dict[str, Any]]:
        return [json.loads(text) if text else {} for some in self._column("meta", start, stop) for text in some]

    def clocks(self, start: int, stop: int) -> list[str | None]:
        if "clocks" not in self._present:
            return [None] * (stop - start)
        found = [decode_id(clock) or None for some in self._column("clocks", start, stop) for clock in some]
        return found + [None] * (stop - start - len(found))

    def blocks(self) -> Iterator[np.ndarray]:
        return self._views.blocks()

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self._views.rows(indices)

    def _column(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield a range of a dataset in slices, each as of one commit; committed rows never change, so that the slices fit together."""
        if (name, start, stop) in self._kept:
            yield from self._kept[name, start, stop]
            return
        while start < stop:
            end = min(start + SLICE_ROWS, stop)
            yield self._read(partial(_slice, name=name, start=start, stop=end))
            start = end

    def states(self, start: int, vectors: np.ndarray) -> np.ndarray:
        stop = start + len(vectors)
        names = ("ids", "spans", "meta", "inputs", *({"clocks"} & self._present))
        self._kept = {(name, start, stop): list(self._column(name, start, stop)) for name in names}  # who copies rows reads them next
        ids, metas = ([value for some in self._column(name, start, stop) for value in some] for name in ("ids", "meta"))
        recorded = self._column("sums", max(0, start - 1), stop) if "sums" in self._present else [np.zeros(stop - max(0, start - 1), SUMS)]
        sums = np.concatenate([FIRST[start:], *recorded])
        return row_states(
            sums, vectors, _others(ids, self.spans(start, stop), metas, self.clocks(start, stop)), self.stamps(start, stop), self._replaced
        )

    @cached_property
    def _views(self) -> Views:
        return self._read(
            lambda file, snapshot: Views(list(_mapped(file["embeddings"], self.count, snapshot)), int(self.provenance["dim"]))
        )

    def _read(self, take: Callable[[Any, Snapshot], T]) -> T:
        """Return what `take` reads from the file; it is called again if there was a commit in between."""
        import h5py

        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with Snapshot(self._path) as snapshot:
                try:
                    with h5py.File(snapshot, "r") as file:
                        _check_own(file)
                        taken = take(file, snapshot)
                    if not snapshot.disturbed():
                        return taken
                except Exception:  # a mixture of two states may be anything
                    if not snapshot.disturbed():
                        raise
            if time.monotonic() > deadline:
                raise UserError(f"{self._path}: is being written to faster than it can be read; try again")


def _check_own(file: Any) -> None:
    """Refuse a file that refers to another one.

    Raises:
        ValueError: a dataset is a link, virtual, or outside the file.
    """
    import h5py

    for name in file:
        link = file.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink) or file[name].is_virtual or file[name].external:
            raise ValueError(f"its {name} is in another file")


def _others(ids: Sequence[bytes], spans: np.ndarray, metas: Sequence[bytes], clocks: Sequence[str | None]) -> Iterator[tuple[bytes, ...]]:
    """Yield the bytes of each row's columns other than vector and input."""
    return ((id, span.tobytes(), meta, (clock or "").encode()) for id, span, meta, clock in zip(ids, spans, metas, clocks, strict=True))


def _last_sums(file: Any) -> np.ndarray:
    """Return the `SUMS` of the last row, (1,): `FIRST` where there is none, zeros where an earlier version wrote it."""
    sums = file.get("sums")
    return np.zeros(1, SUMS) if sums is None else sums[-1:] if len(sums) else FIRST


def _slice(file: Any, _: Snapshot, name: str, start: int, stop: int) -> np.ndarray:
    return file[name][start:stop]


def _mapped(data: Any, count: int, snapshot: Snapshot) -> Iterator[np.ndarray]:
    """Yield the vectors as arrays mapped from the file: one for each run of adjacent chunks."""
    if not count:
        return
    if data.chunks is None or data.compression is not None:
        raise ValueError("its vectors are compressed, or not in chunks")
    mapped = mmap.mmap(snapshot.fileno(), 0, access=mmap.ACCESS_READ)
    rows, row_bytes = data.chunks[0], data.shape[1] * data.dtype.itemsize
    runs: list[list[int]] = []  # first byte, rows
    for first in range(0, count, rows):
        offset, here = data.id.get_chunk_info_by_coord((first, 0)).byte_offset, min(rows, count - first)
        if runs and offset == sum((runs[-1][0], runs[-1][1] * row_bytes)):
            runs[-1][1] += here
        else:
            runs.append([offset, here])
    for offset, here in runs:
        yield np.frombuffer(mapped, data.dtype, here * data.shape[1], offset).reshape(here, data.shape[1])
