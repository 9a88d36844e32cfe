"""The rows of a pair's data, by number: of manifests, tar shards and prepared HDF5 files. What of them must not become each other's negatives.

Every row can be read at any time, so no order of samples, no number of processes and no uneven shard can lose, repeat or wait for one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.prepared import Entry, Member, index
from imagebind_cli.sources import Failure, Stretch, from_manifest, stretched, whole_source
from imagebind_cli.training.server import context
from imagebind_cli.training.sides import TIMED

MANIFESTS = (".jsonl", ".csv", ".tsv")

KEYS = 4
ANCHOR_AND_OTHER = (2, 3)
"""Numbers by which rows may be alike, of id, group, anchor and other; the places of the last two."""

MANY_BYTES = 1_000_000_000
"""Of shards, whose headers are read by several processes."""


class Packed:
    """JSON objects in two tensors: millions take the memory of their text, and processes share it."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        text, ends = bytearray(), array("q", [0])
        for line in lines:
            text += line
            ends.append(len(text))
        self._text = torch.frombuffer(text or bytearray(1), dtype=torch.uint8)
        self._ends = torch.frombuffer(ends, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        start, end = self._ends[number : number + 2].tolist()
        return json.loads(self._text[start:end].numpy().tobytes())

    def bytes(self) -> memoryview:
        """Their text, one after another."""
        return self._text.numpy().data


@dataclass(frozen=True)
class Data:
    """One pair's rows.

    rows: each an id, and paths and sentences by modality, or where it lies in which shard. keys: (n, 4) int64, of id, group, anchor and other;
    equal where these are, 0 where a row has none. groups: (n,) int64; equal for rows that any key connects. files: read. made: how the shards
    among them were prepared, by file. left_out: how many rows cannot be used; the first of them.
    """

    rows: Packed
    keys: Tensor
    groups: Tensor
    files: tuple[str, ...]
    made: tuple[Mapping[str, Any], ...]
    left_out: int
    first_left_out: Failure | None

    def __len__(self) -> int:
        return len(self.rows)

    def id(self, number: int) -> str:
        """A row's id."""
        return self.rows[number]["id"]

    def digest(self) -> str:
        """The same for the same rows in the same order, in shards of the same names."""
        shards = json.dumps([file for file in self.files if Path(file).suffix.lower() not in MANIFESTS])
        return hashlib.sha256(shards.encode() + self.rows.bytes()).hexdigest()

    def payloads(self, row: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
        """What a modality's reader takes, for each of some modalities of a row: a path, a sentence, an open file, or prepared arrays.

        Raises:
            OSError, ValueError: its shard cannot be read.
        """
        if "file" not in row:
            return {modality: row[modality] for modality in modalities}
        path = self.files[row["file"]]
        if "parts" in row:
            parts = {ending: Member(name, (path, offset, size)) for ending, (name, offset, size) in row["parts"].items()}
            entry = Entry(row["id"], dict(parts), self.made[row["file"]])
        else:
            entry = _index(path)[row["number"]]
        about = entry.about()
        return {modality: entry.payload(modality, about) for modality in modalities}


_index = lru_cache(maxsize=None)(index)


def read_data(patterns: Sequence[str], modalities: tuple[str, str], workers: int = 0) -> Data:
    """The rows that have both modalities.

    Args:
        patterns: paths, or patterns such as `train-*.jsonl`. workers: processes that may read the headers of many shards.
    Raises:
        UserError: no such file, one of another kind, or no usable row, with the columns there are.
    """
    files = [file for pattern in patterns for file in _matching(pattern)]
    found = list(_read_files(files, modalities, workers))
    rows = Packed(line for one in found for line in one.lines)
    first_left_out = next((one.first_left_out for one in found if one.first_left_out), None)
    if not len(rows):
        why = f": {first_left_out.reason}" if first_left_out else ""
        raise UserError(f"{', '.join(patterns)}: no row has both {' and '.join(modalities)}{why}")
    made, left_out = tuple(one.made for one in found), sum(one.left_out for one in found)
    keys = np.concatenate([np.frombuffer(one.keys, np.int64) for one in found]).reshape(-1, KEYS)
    return Data(rows, torch.from_numpy(keys), _groups(keys), tuple(files), made, left_out, first_left_out)


def _matching(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    if not found:
        raise UserError(f"{pattern}: no file matches this pattern")
    return found


@dataclass
class _Found:
    """What one file holds: a JSON object for each usable row, and its keys, numbers of 64 bits."""

    lines: list[bytes] = field(default_factory=list)
    keys: array[int] = field(default_factory=lambda: array("q"))
    made: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0
    first_left_out: Failure | None = None

    def add(self, row: Mapping[str, Any], keys: Mapping[str, str | bytes | None]) -> None:
        """Add a usable row. keys: what makes it the same as another, by kind: `id`, `group` and both modalities."""
        self.keys.extend(0 if key is None else _number(kind, key) for kind, key in keys.items())
        self.lines.append(json.dumps(row).encode())

    def leave_out(self, failure: Failure) -> None:
        """Count a row that cannot be used."""
        self.left_out += 1
        self.first_left_out = self.first_left_out or failure


def _number(kind: str, key: str | bytes) -> int:
    data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=kind.encode()).digest(), "little", signed=True)


def _groups(keys: np.ndarray) -> Tensor:
    """(n,) int64: for all rows that any key of (n, 4) connects, the number of the first."""
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


def _read_files(files: Sequence[str], modalities: tuple[str, str], workers: int) -> Iterator[_Found]:
    shards = [file for file in files if Path(file).suffix.lower() not in MANIFESTS]
    few = sum(os.path.getsize(file) for file in shards if os.path.isfile(file)) < MANY_BYTES
    if workers < 2 or len(shards) < 2 or few:
        yield from (_read_file(number, file, modalities) for number, file in enumerate(files))
        return
    with ProcessPoolExecutor(min(workers, len(shards)), context()) as processes:
        yield from processes.map(_read_file, range(len(files)), files, [modalities] * len(files))


def _read_file(number: int, file: str, modalities: tuple[str, str]) -> _Found:
    found = _Found()
    if Path(file).suffix.lower() in MANIFESTS:
        files_first = tuple(sorted(modalities, key="text".__eq__))  # a row without an id is known by its file, not by its sentence
        for item in from_manifest(Path(file), files_first):
            if isinstance(item, Failure):
                found.leave_out(item)
                continue
            paths = {name: whole_source(part) for name, part in item.payload.items()}
            stretch = _stretch(item.payload.values())
            contents = {name: _sentence(paths[name]) if name == "text" else _real(paths[name]) for name in modalities}
            first = item.payload[files_first[0]]
            named = os.path.join(Path(file).parent, item.id) != paths[files_first[0]] + (first.label if isinstance(first, Stretch) else "")
            # and not by its file, of which there may be stretches
            found.add({"id": item.id, **paths, **stretch}, _keys(item.id if named else None, item.meta, contents, stretch))
        return found
    entries = index(file)
    found.made = entries[0].provenance if len(entries) else {}
    for place, entry in enumerate(entries):
        _take_entry(found, entry, (number, place), file, modalities)
    return found


def _take_entry(found: _Found, entry: Entry, place: tuple[int, int], file: str, modalities: tuple[str, str]) -> None:
    """A row of a shard. place: the file's number, and the entry's in it."""
    prepared = {name: entry.arrays(name) for name in modalities}
    try:
        about = entry.about()
        members = {name: parts or [part for part in [entry.media(name)] if part] for name, parts in prepared.items()}
        missing = [name for name, parts in members.items() if not parts]
        if missing:
            found.leave_out(Failure(entry.key, f"no {missing[0]} in this sample of {file}; it has {', '.join(entry.parts)}"))
            return
        contents = {name: _content(parts, name == "text" and not prepared[name]) for name, parts in members.items()}
        stretch = _stretch(stretched("", name, about) for name in modalities)
    except (OSError, ValueError) as error:
        found.leave_out(Failure(entry.key, f"this sample of {file}: {error}"))
        return
    if not about and any(prepared.values()):
        found.leave_out(Failure(entry.key, f"this sample of {file} is not whole"))
        return
    id = str(about.get("id", entry.key))
    kept = {part.name for parts in members.values() for part in parts}
    row = {"id": id, "file": place[0], **_place(entry, kept, place[1]), **stretch}
    found.add(row, _keys(id, about, contents, stretch))


def _place(entry: Entry, kept: set[str], number: int) -> dict[str, Any]:
    """Where an entry's members lie in a tar; its number in a file that can be read by number."""
    parts = {}
    for ending, part in entry.parts.items():
        if not isinstance(part, Member) or isinstance(part.place, bytes):
            return {"number": number}
        if ending == "json" or part.name in kept:
            parts[ending] = (part.name, *part.place[1:])
    return {"parts": parts}


def _stretch(payloads: Iterable[Any]) -> dict[str, float]:
    """The seconds of a long recording that a row is, where it says so."""
    part = next((payload for payload in payloads if isinstance(payload, Stretch)), None)
    return {} if part is None else {name: time for name, time in (("start", part.start), ("end", part.end)) if time is not None}


def _keys(
    id: str | None, about: Mapping[str, Any], contents: Mapping[str, str | bytes], stretch: Mapping[str, float]
) -> dict[str, str | bytes | None]:
    """Return what makes a row the same as another: its id, its group, and what each modality is, of a recording with its stretch."""
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
    """A sentence without what tells no two apart: case and spacing."""
    return " ".join(text.split()).lower()


def _real(path: str) -> str:
    """The absolute path of a file, links resolved: its folder's once for all files in it."""
    folder, name = os.path.split(path.rstrip("/"))
    try:
        real = os.path.join(_real_folder(folder), name)
        return os.path.realpath(real) if os.path.islink(real) else real
    except ValueError:  # a NUL, which its reader refuses
        return path


_real_folder = lru_cache(maxsize=65_536)(os.path.realpath)


def _content(parts: Sequence[Any], sentence: bool) -> str | bytes:
    """A sentence, or a digest of a media file or of prepared arrays."""
    if sentence:
        return _sentence(parts[0].read().decode(errors="replace"))
    return hashlib.blake2b(b"".join(part.excerpt() for part in parts), digest_size=16).digest()
