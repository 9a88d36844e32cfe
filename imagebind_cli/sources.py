"""What goes in: arguments, folders, patterns, lines on stdin, manifests, prepared samples. One item at a time, in a stable order."""

from __future__ import annotations

import csv
import glob
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from imagebind_cli import reading, registry
from imagebind_cli.errors import UserError
from imagebind_cli.shards import Entry, Prepared, is_foreign_hdf5, is_hdf5, is_shard, read_hdf5, read_shard


@dataclass(frozen=True)
class Item:
    """One input. `meta` is what else its manifest row says.

    payload: a path, for text the sentence itself, from a shard an open file in memory or `Prepared` arrays, a function that gives
    one of these or an array, or a `Stretch` of one; where several modalities were asked for, such a thing for each by name.
    """

    id: str
    payload: Any
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stretch:
    """A part of a sound, a video or a motion recording. Nothing else of it is read: it equals a file cut to that part.

    source: what the whole is read from. start, end: seconds of the file, of motion on the recording's own clock, as numbers or their text;
    None for the beginning, and for the end.

    Raises:
        ValueError: they are not seconds, or not in this order.
    """

    source: Any
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name in ("start", "end") if (value := getattr(self, name)) is not None}
        try:
            seconds = {name: math.nan if isinstance(value, bool) else float(value) + 0.0 for name, value in given.items()}  # -0.0 is 0.0
        except (TypeError, ValueError, OverflowError):
            seconds = dict.fromkeys(given, math.nan)
        if not all(map(math.isfinite, seconds.values())) or not 0 <= seconds.get("start", 0.0) < seconds.get("end", math.inf):
            named = ", ".join(f"{name} {value!r}" for name, value in given.items())
            raise ValueError(f"start and end are seconds, as 90.5, from 0 on and the start before the end; this has {named}")
        for name, value in seconds.items():
            object.__setattr__(self, name, value)

    @property
    def label(self) -> str:
        """`#10-15.5`, what tells it from others of the same file; `#10-` without an end, `#-15.5` without a start."""
        start, end = ("" if time is None else str(time).removesuffix(".0") for time in (self.start, self.end))
        return f"#{start}-{end}"


def whole(source: Any) -> Any:
    """What a stretch is a part of; any other source as it is."""
    return source.source if isinstance(source, Stretch) else source


def is_timed(modality: str) -> bool:
    """Whether what is read as a modality may have seconds. `start` and `end` of others are columns like any."""
    return modality != "image" and reading.is_drawn(registry.encoder_name(modality), "stretch")


def stretched(source: Any, modality: str, about: Mapping[str, Any]) -> Any:
    """The source of a row, or the stretch of it that the row's `start` and `end` say.

    Raises:
        ValueError: as `Stretch`.
    """
    start, end = about.get("start"), about.get("end")
    return source if (start is None and end is None) or not is_timed(modality) else Stretch(source, start, end)


@dataclass(frozen=True)
class Failure:
    """One input that could not be embedded, and why, in words."""

    id: str
    reason: str


def reason(error: BaseException) -> str:
    """Why an input failed, in one line and without its name, which the caller prints."""
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return " ".join(str(error).split()) or type(error).__name__


Modalities = tuple[str, ...]
"""What is wanted of each input: nearly always one."""

Passes = Callable[[str], bool]
"""Whether a file found in a folder or named on a line is to be passed over, as one that was done before: asked before anything else."""


def from_arguments(
    arguments: Iterable[str],
    modalities: Modalities,
    stdin: BinaryIO,
    nul: bool = False,
    passes: Passes | None = None,
    frames: bool = False,
) -> Iterator[Item | Failure]:
    """Items for what was typed: for text each argument is a sentence; else a file, a folder (all files below it) or a pattern.

    frames: a folder is one item, the frames of a video.

    A file that is a tar shard or a prepared HDF5 file stands for the samples in it. `-` anywhere stands for stdin: a tar archive, or
    lines. A name that is nothing of these is a `Failure`, and the rest goes on.
    """
    for argument in arguments:
        if argument == "-":
            yield from from_stream(stdin, modalities, nul, passes)
        elif modalities == ("text",) and _entries(argument) is None:
            yield Item(argument, argument)
        elif os.path.isdir(argument):
            yield from _opened(_folder(argument, passes, frames), modalities)
        elif os.path.lexists(argument):
            yield from _opened([Item(argument, argument)], modalities)
        elif glob.has_magic(argument):
            paths = sorted(glob.iglob(argument, recursive=True))
            for path in paths:
                yield from _opened(_folder(path, passes, frames) if os.path.isdir(path) else [Item(path, path)], modalities)
            if not paths:
                yield Failure(argument, "no file matches this pattern")
        else:
            yield Failure(argument, "no such file or folder")


def from_stream(stream: BinaryIO, modalities: Modalities, nul: bool = False, passes: Passes | None = None) -> Iterator[Item | Failure]:
    """Items of a stream as they come: the samples of a tar shard, or lines, as `from_lines`.

    Raises:
        UserError: it is neither.
    """
    head = stream.peek(1)[:512] if hasattr(stream, "peek") and not nul else b""  # what is there, without waiting for more
    if is_shard(head):
        yield from from_shard(stream, modalities, "stdin")
        return
    if b"\0" in head and modalities != ("text",):
        raise UserError("stdin holds NUL bytes: names from `find -print0` need -0; else it takes lines of names, or a tar shard")
    yield from from_lines(stream, modalities, nul, passes)


def from_lines(stream: BinaryIO, modalities: Modalities, nul: bool = False, passes: Passes | None = None) -> Iterator[Item | Failure]:
    """Items for the lines of a stream as they come: a path each (for text a sentence), or a JSON object with a key per modality.

    nul: entries end with a NUL byte, as `find -print0` writes them, and not with a newline.
    """
    for number, line in enumerate(_nul_separated(stream) if nul else stream, start=1):
        entry = os.fsdecode(line.rstrip(b"\0" if nul else b"\r\n"))
        if number == 1:
            entry = entry.removeprefix("\ufeff")  # a byte order mark
        if not entry:
            continue
        row = _json_object(entry)
        if row is not None:
            yield from_row(row, modalities, f"line {number}")
        elif modalities == ("text",):
            yield Item(entry, entry)
        elif not (passes and passes(entry)):
            yield from _opened([Item(entry, entry)], modalities)


def from_manifest(path: Path, modalities: Modalities) -> Iterator[Item | Failure]:
    """Items for the rows of a manifest: JSON Lines, or CSV or TSV with a line of column names. Relative paths start at its folder.

    Raises:
        UserError: the manifest cannot be read, a line is no JSON object, or no row could have a modality.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = _table_rows(file, path, modalities) if path.suffix in (".csv", ".tsv") else _json_rows(file, path)
            for number, row in rows:
                yield from_row(row, modalities, f"{path}:{number}", os.path.dirname(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def from_row(row: dict[str, Any], modalities: Modalities, place: str, folder: str = "") -> Item | Failure:
    """One manifest row as an item. Its id is its `id`, else the path or sentence, with its stretch. Relative paths start at `folder`."""
    first = row.get(modalities[0])
    id = first if row.get("id") is None else row["id"]
    for modality in modalities:
        value = row.get(modality)
        if not isinstance(value, str):
            why = (
                f"no {modality!r} in this row; it has {', '.join(row) or 'nothing'}"
                if value is None
                else f"{modality} is {value!r}, no string"
            )
            return Failure(place, why) if id is None else Failure(str(id), f"{place}: {why}")
    paths = {modality: row[modality] if modality == "text" else os.path.join(folder, row[modality]) for modality in modalities}
    try:
        given = {modality: stretched(path, modality, row) for modality, path in paths.items()}
    except ValueError as error:
        return Failure(place, str(error)) if row.get("id") is None else Failure(str(id), f"{place}: {error}")
    if row.get("id") is None:
        id = row[modalities[0]] + next((part.label for part in given.values() if isinstance(part, Stretch)), "")
    meta = {key: value for key, value in row.items() if key not in ("id", *modalities)}
    return Item(str(id), _payload(given), meta)


def kept_beside(item: Item, modalities: Modalities) -> dict[str, Any]:
    """What is stored beside an item's id: the rest of its row, and by modality each path or sentence that the id does not say."""
    given = item.payload if isinstance(item.payload, dict) else {modalities[0]: item.payload}
    read = {modality: whole(part) for modality, part in given.items()}
    return {modality: part for modality, part in read.items() if isinstance(part, str) and part != item.id} | item.meta


def from_shard(stream: BinaryIO, modalities: Modalities, place: str) -> Iterator[Item | Failure]:
    """Items for the samples of a tar shard: prepared arrays, or media files in WebDataset's naming. A torn archive ends in a `Failure`."""
    yield from _samples(read_shard(stream, place), modalities, place)


def _samples(entries: Iterable[Entry], modalities: Modalities, place: str) -> Iterator[Item | Failure]:
    empty = True
    try:
        for entry in entries:
            empty = False
            yield _sample(entry, modalities, place)
    except UserError as error:
        yield Failure(place, str(error).removeprefix(f"{place}: "))
    else:
        if empty:
            yield Failure(place, "holds no samples")


def _sample(entry: Entry, modalities: Modalities, place: str) -> Item | Failure:
    try:
        about = entry.about()
        id = str(about.get("id", entry.key))
        given = {modality: entry.payload(modality, about) for modality in modalities}
        given = {modality: payload and stretched(payload, modality, about) for modality, payload in given.items()}
    except ValueError as error:
        return Failure(entry.key, f"this sample of {place}: {error}")
    missing = [modality for modality, payload in given.items() if payload is None]
    if missing:
        return Failure(id, f"no {missing[0]} in this sample of {place}; it has {', '.join(entry.parts)}")
    if not about and any(isinstance(whole(payload), Prepared) for payload in given.values()):
        return Failure(entry.key, f"this sample of {place} is not whole")
    return Item(id, _payload(given), {key: value for key, value in about.items() if key not in ("id", "spans", "notes")})


def _payload(given: dict[str, Any]) -> Any:
    return next(iter(given.values())) if len(given) == 1 else given


def _opened(items: Iterable[Item | Failure], modalities: Modalities) -> Iterator[Item | Failure]:
    """Files as they are; a tar shard or a prepared HDF5 file as the samples in it."""
    for item in items:
        if isinstance(item, Item) and (entries := _entries(item.payload)) is not None:
            yield from _samples(entries, modalities, item.payload)
        elif isinstance(item, Item) and len(modalities) > 1:
            yield Item(item.id, dict.fromkeys(modalities, item.payload), item.meta)  # one file for all, as a video with its sound
        else:
            yield item


def _entries(path: str) -> Iterator[Entry] | None:
    """The samples in a file that is made of them; None where it is another, or cannot be opened, of which its reader says why."""
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return None
    if is_shard(head):
        return _entries_of_shard(path)
    return read_hdf5(path) if is_hdf5(head) and not is_foreign_hdf5(path) else None


def _entries_of_shard(path: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        yield from read_shard(file, path)


def _folder(folder: str, passes: Passes | None, frames: bool) -> Iterator[Item | Failure]:
    """The one item a folder of frames is, or every file below a folder."""
    if frames:
        name = folder.rstrip("/") or folder  # a shell writes one with the slash or without
        return iter([Item(name, name)])
    return _below(folder, passes)


def _below(folder: str, passes: Passes | None) -> Iterator[Item | Failure]:
    """Every file below a folder, sorted, links followed once, names that start with a dot left out."""
    seen: set[tuple[int, int]] = set()
    empty = True

    def walk(folder: str) -> Iterator[Item | Failure]:
        nonlocal empty
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            empty = False
            yield Failure(folder, error.strerror or str(error))
            return
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above it
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield from walk(entry.path)
                continue
            empty = False
            if not (passes and passes(entry.path)):
                yield Item(entry.path, entry.path)

    yield from walk(folder)
    if empty:
        yield Failure(folder, "no file in this folder")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()  # of a million files as good as free, where os.path.isdir asks the system for each
    except OSError:  # a link to itself
        return False


def _nul_separated(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while block := stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536):
        *entries, rest = (rest + block).split(b"\0")
        yield from entries
    if rest:
        yield rest


def _json_object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: a thousand brackets
        return None
    return value if isinstance(value, dict) else None


def _json_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _json_object(line)
        if row is None:
            raise UserError(f"{path}:{number}: not a JSON object")
        yield number, row


def _table_rows(lines: Iterable[str], path: Path, modalities: Modalities) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # a long sentence is no error
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    for modality in set(modalities) - set(reader.fieldnames or []):
        raise UserError(f"{path}: no column {modality!r}; it has {', '.join(reader.fieldnames or []) or 'none'}")
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key is not None and value not in (None, "")}
