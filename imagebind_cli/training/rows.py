"""The rows of a pair's data, by number: rows of manifests, samples of tar shards and of prepared HDF5 files, and which of them form a group.

A distillation needs one modality alone, so files of folders and lines of text are its rows too.

Every row can be read at any time. No order of samples, number of processes or uneven shard can lose, repeat or wait for a row.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import Others
from imagebind_cli.prepared import Entry, Member, index
from imagebind_cli.registry import face
from imagebind_cli.sources import Failure, Stretch, as_sentence, from_files, from_manifest, stretched, whole_source
from imagebind_cli.training.inputs import TIMED
from imagebind_cli.training.packed_rows import PackedRows
from imagebind_cli.training.workers import worker_context

MANIFESTS = (".jsonl", ".csv", ".tsv")
KEYS = 4  # that rows may have in common: id, group, anchor and other
MODALITY_KEYS = (2, 3)  # columns of the last two
MANY_BYTES = 1_000_000_000  # of shards, from which several processes read their headers


@dataclass(frozen=True)
class PairRows:
    """One pair's rows.

    rows: an id each, with paths and sentences by modality, or with the place of the sample in its shard. keys: (n, 4) int64, of id, group,
    anchor and other: equal where these are equal, 0 where a row has none. groups: (n,) int64, equal for rows that any key connects.
    files: that were read. preparations: how the samples of each file were prepared; empty for other files. unusable: number of rows that
    cannot be used; first_unusable: the first of them.
    """

    rows: PackedRows
    keys: Tensor
    groups: Tensor
    files: tuple[str, ...]
    preparations: tuple[Mapping[str, Any], ...]
    unusable: int
    first_unusable: Failure | None

    def __len__(self) -> int:
        return len(self.rows)

    def id(self, number: int) -> str:
        """Return a row's id."""
        return self.rows[number]["id"]

    def digest(self) -> str:
        """Return a hash that is equal for the same rows in the same order, in shards of the same names."""
        shards = json.dumps([file for file in self.files if Path(file).suffix.lower() not in MANIFESTS])
        return hashlib.sha256(shards.encode() + self.rows.bytes()).hexdigest()

    def payloads(self, row: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
        """Return what a modality's reader takes, for each of these modalities: a path, a sentence, an open file, or prepared arrays.

        Raises:
            OSError, ValueError: its shard cannot be read.
        """
        if "file" not in row:
            return {modality: row[modality] for modality in modalities}
        path = self.files[row["file"]]
        if "parts" in row:
            parts = {ending: Member(name, (path, offset, size)) for ending, (name, offset, size) in row["parts"].items()}
            entry = Entry(row["id"], dict(parts), self.preparations[row["file"]])
        else:
            entry = _index(path)[row["number"]]
        about = entry.about()
        return {modality: entry.payload(modality, about) for modality in modalities}

    def hold_out(self, fraction: float, random: np.random.Generator) -> tuple[PairRows, PairRows]:
        """Split the rows into two, to train on and to validate on. Rows of one group stay together.

        Groups are shuffled and held out until they have at least the fraction of the rows, but never the last group.

        Raises:
            ValueError: all rows are one group.
        """
        first_rows, sizes = torch.unique(self.groups, return_counts=True)
        if len(first_rows) < 2:
            raise ValueError("all rows are one group, and a group is not split")
        order = random.permutation(len(first_rows))
        before = np.cumsum(sizes.numpy()[order]) - sizes.numpy()[order]  # rows in the groups before each
        held = order[:-1][before[:-1] < fraction * len(self)]
        is_held = torch.isin(self.groups, first_rows[torch.from_numpy(held)])
        return self._select(~is_held), self._select(is_held)

    def _select(self, mask: Tensor) -> PairRows:
        numbers = mask.nonzero()[:, 0]
        rows = PackedRows(self.rows.line(number) for number in numbers.tolist())
        keys = self.keys[numbers]
        return replace(self, rows=rows, keys=keys, groups=_groups(keys.numpy()))


NO_ROWS = PairRows(PackedRows(()), torch.empty((0, KEYS), dtype=torch.int64), torch.empty(0, dtype=torch.int64), (), (), 0, None)

_index = lru_cache(maxsize=None)(index)


def read_pair_rows(
    patterns: Sequence[str], modalities: Sequence[str], workers: int = 0, columns: Mapping[str, str] | None = None
) -> PairRows:
    """Read the rows that have both modalities, or the one that is given.

    Args:
        patterns: paths, or patterns such as `train-*.jsonl`. For one modality also folders of its files, or for sentences `.txt`, a line each.
        workers: processes that may read the headers of many shards.
        columns: in manifests, the name of a column that differs, as in `from_manifest`.
    Raises:
        UserError: a file is missing or of another kind, or no row is usable; the columns are named.
    """
    files = [file for pattern in patterns for file in _matching(pattern)]
    parts = list(_read_files(files, modalities, workers, columns or {}))
    rows = PackedRows(line for part in parts for line in part.lines)
    first_unusable = next((part.first_unusable for part in parts if part.first_unusable), None)
    if not len(rows):
        why = f": {first_unusable.reason}" if first_unusable else ""
        wanted = f"both {' and '.join(modalities)}" if len(modalities) > 1 else modalities[0]
        raise UserError(f"{', '.join(patterns)}: no row has {wanted}{why}")
    preparations, unusable = tuple(part.preparation for part in parts), sum(part.unusable for part in parts)
    keys = np.concatenate([np.frombuffer(part.keys, np.int64) for part in parts]).reshape(-1, KEYS)
    return PairRows(rows, torch.from_numpy(keys), _groups(keys), tuple(files), preparations, unusable, first_unusable)


def _matching(pattern: str) -> list[str]:
    files = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not files:
        raise UserError(f"{pattern}: no file matches this pattern")
    return files


@dataclass
class _FileRows:
    """The rows of one file: a JSON object for each usable row, and its keys, numbers of 64 bits."""

    lines: list[bytes] = field(default_factory=list)
    keys: array[int] = field(default_factory=lambda: array("q"))
    preparation: Mapping[str, Any] = field(default_factory=dict)
    unusable: int = 0
    first_unusable: Failure | None = None

    def add(self, row: Mapping[str, Any], keys: Mapping[str, str | bytes | None]) -> None:
        """Add a usable row. keys: by kind (`id`, `group` and both modalities), what it may have in common with others."""
        numbers = [0 if key is None else _number(kind, key) for kind, key in keys.items()]
        self.keys.extend(numbers + [0] * (KEYS - len(numbers)))  # of one modality, the other's is missing
        self.lines.append(json.dumps(row).encode())

    def skip(self, failure: Failure) -> None:
        """Count a row that cannot be used."""
        self.unusable += 1
        self.first_unusable = self.first_unusable or failure


def _number(kind: str, key: str | bytes) -> int:
    data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=kind.encode()).digest(), "little", signed=True)


def _groups(keys: np.ndarray) -> Tensor:
    """Return (n,) int64: for each row, the number of the first row that any keys of (n, 4) connect with it."""
    numbers = np.arange(len(keys))
    columns = [np.unique(np.where(column == 0, -1 - numbers, column), return_inverse=True)[1] for column in keys.T]
    while True:
        before = numbers
        for column in columns:
            first = np.full(len(numbers), len(numbers))
            np.minimum.at(first, column, numbers)
            numbers = first[column]
        if np.array_equal(numbers, before):
            return torch.from_numpy(numbers)


def _read_files(files: Sequence[str], modalities: Sequence[str], workers: int, columns: Mapping[str, str]) -> Iterator[_FileRows]:
    shards = [file for file in files if Path(file).suffix.lower() not in MANIFESTS]
    few = sum(os.path.getsize(file) for file in shards if os.path.isfile(file)) < MANY_BYTES
    if workers < 2 or len(shards) < 2 or few:
        yield from (_read_file(number, file, modalities, columns) for number, file in enumerate(files))
        return
    with ProcessPoolExecutor(min(workers, len(shards)), worker_context()) as processes:
        yield from processes.map(_read_file, range(len(files)), files, [modalities] * len(files), [columns] * len(files))


def _read_file(number: int, file: str, modalities: Sequence[str], columns: Mapping[str, str]) -> _FileRows:
    if Path(file).suffix.lower() in MANIFESTS:
        return _read_manifest(file, modalities, columns)
    if len(modalities) == 1 and (os.path.isdir(file) or (face(modalities[0]).text and file.lower().endswith(".txt"))):
        return _read_plain(file, modalities[0])
    rows, entries = _FileRows(), index(file)
    rows.preparation = entries[0].provenance if len(entries) else {}
    for place, entry in enumerate(entries):
        _add_entry(rows, entry, (number, place), file, modalities)
    return rows


def _read_plain(file: str, modality: str) -> _FileRows:
    """Read the files of a folder, or the lines of a text, as rows of one modality; the id is the path or the sentence, as in a store."""
    rows = _FileRows()
    if os.path.isdir(file):
        items = from_files(file, [file], (modality,), None, False, Others())
    else:
        with open(file, encoding="utf-8", errors="replace") as lines:
            items = iter([as_sentence(line.strip()) for line in lines if line.strip()])
    for item in items:
        if isinstance(item, Failure):
            rows.skip(item)
        elif not isinstance(item.payload, str):
            rows.skip(Failure(item.id, "inside an archive; name the archive itself with --data"))
        else:
            content = _sentence(item.payload) if face(modality).text else _real(item.payload)
            rows.add({"id": item.id, modality: item.payload}, {"id": None, "group": None, modality: content})
    return rows


def _read_manifest(file: str, modalities: Sequence[str], columns: Mapping[str, str]) -> _FileRows:
    rows = _FileRows()
    files_first = tuple(sorted(modalities, key=lambda name: face(name).text))  # the id of a row without one is its file, not its sentence
    for item in from_manifest(Path(file), files_first, columns):
        if isinstance(item, Failure):
            rows.skip(item)
            continue
        payloads = item.payload if len(modalities) > 1 else {modalities[0]: item.payload}
        paths = {name: whole_source(part) for name, part in payloads.items()}
        stretch = _stretch(payloads.values())
        contents = {name: _sentence(paths[name]) if face(name).text else _real(paths[name]) for name in modalities}
        first = payloads[files_first[0]]
        path_id = paths[files_first[0]] + (first.label if isinstance(first, Stretch) else "")
        has_id = os.path.join(Path(file).parent, item.id) != path_id  # a path alone is not an id: it may have several stretches
        mask = {"mask": os.path.join(os.path.dirname(file), path)} if isinstance(path := item.meta.get("mask"), str) else {}
        rows.add({"id": item.id, **paths, **stretch, **mask}, _keys(item.id if has_id else None, item.meta, contents, stretch))
    return rows


def _add_entry(rows: _FileRows, entry: Entry, place: tuple[int, int], file: str, modalities: Sequence[str]) -> None:
    """Add a sample of a shard. place: number of the file, and of the entry in it."""
    prepared = {name: entry.arrays(name) for name in modalities}
    try:
        about = entry.about()
        members = {name: parts or [part for part in [entry.media(name)] if part] for name, parts in prepared.items()}
        missing = [name for name, parts in members.items() if not parts]
        if missing:
            rows.skip(Failure(entry.key, f"no {missing[0]} in this sample of {file}; it has {', '.join(entry.parts)}"))
            return
        contents = {name: _content(parts, face(name).text and not prepared[name]) for name, parts in members.items()}
        stretch = _stretch(stretched("", name, about) for name in modalities)
    except (OSError, ValueError) as error:
        rows.skip(Failure(entry.key, f"this sample of {file}: {error}"))
        return
    if not about and any(prepared.values()):
        rows.skip(Failure(entry.key, f"this sample of {file} is incomplete"))
        return
    id = str(about.get("id", entry.key))
    needed = {part.name for parts in members.values() for part in parts}
    row = {"id": id, "file": place[0], **_place(entry, needed, place[1]), **stretch}
    rows.add(row, _keys(id, about, contents, stretch))


def _place(entry: Entry, needed: set[str], number: int) -> dict[str, Any]:
    """Return where an entry's members are in a tar file, or its number in a file that can be read by number."""
    parts = {}
    for ending, part in entry.parts.items():
        if not isinstance(part, Member) or isinstance(part.place, bytes):
            return {"number": number}
        if ending == "json" or part.name in needed:
            parts[ending] = (part.name, *part.place[1:])
    return {"parts": parts}


def _stretch(payloads: Iterable[Any]) -> dict[str, float]:
    """Return the start and end, in seconds, of the part of a long recording that is a row; empty for a whole one."""
    part = next((payload for payload in payloads if isinstance(payload, Stretch)), None)
    return {} if part is None else {name: time for name, time in (("start", part.start), ("end", part.end)) if time is not None}


def _keys(
    id: str | None, about: Mapping[str, Any], contents: Mapping[str, str | bytes], stretch: Mapping[str, float]
) -> dict[str, str | bytes | None]:
    """Return a row's keys: its id, its group, and the content of each modality, of a timed one with the stretch."""
    group = about.get("group")
    keys: dict[str, str | bytes | None] = {"id": id, "group": None if group is None else str(group)}
    part = f"\0{stretch.get('start', 0.0)} {stretch.get('end')}" if stretch else ""
    for modality, content in contents.items():
        if modality not in TIMED:
            keys[modality] = content
        else:
            keys[modality] = content + (part.encode() if isinstance(content, bytes) else part)  # type: ignore[operator]
    return keys


def _sentence(text: str) -> str:
    """Normalise case and spacing, in which equal sentences may differ."""
    return " ".join(text.split()).lower()


def _real(path: str) -> str:
    """Return a file's absolute path with links resolved; its folder is resolved once for all files in it."""
    folder, name = os.path.split(path.rstrip("/"))
    try:
        real = os.path.join(_real_folder(folder), name)
        return os.path.realpath(real) if os.path.islink(real) else real
    except ValueError:  # a NUL, which the reader refuses
        return path


_real_folder = lru_cache(maxsize=65_536)(os.path.realpath)


def _content(parts: Sequence[Any], sentence: bool) -> str | bytes:
    """Return a sentence, or a digest of a media file or of prepared arrays."""
    if sentence:
        return _sentence(parts[0].read().decode(errors="replace"))
    return hashlib.blake2b(b"".join(part.excerpt() for part in parts), digest_size=16).digest()
