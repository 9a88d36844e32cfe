"""What goes in: arguments, folders, patterns, lines on stdin, manifests, prepared samples. One item at a time, in a stable order."""

from __future__ import annotations

import glob
import html
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from imagebind_cli import options as reading
from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import Others, archive, is_included, is_npz, is_other
from imagebind_cli.prepared import Entry, Prepared, is_foreign_hdf5, is_hdf5, is_shard, read_hdf5, read_shard
from imagebind_cli.store import FORMATS, UNKNOWN, Stamp, is_store
from imagebind_cli.tabular import BadRow, encoding_fault, json_object, read_rows


@dataclass(frozen=True)
class Item:
    """One input. It travels through the pipeline with all that belongs to it, and comes out beside its result.

    payload: a path, for text the sentence itself, from a shard an open file in memory or `Prepared` arrays, a function that gives
    one of these or an array, or a `Stretch` of one; where several modalities were asked for, such a thing for each by name. None for what
    could not be named. meta: the other columns of its manifest row. stamp: what the input was when it was taken up, for a store to
    recognise it by.
    """

    id: str
    payload: Any
    meta: dict[str, Any] = field(default_factory=dict)
    stamp: Stamp = UNKNOWN


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
    """Return what a stretch is a part of; any other source as it is."""
    return source.source if isinstance(source, Stretch) else source


def is_timed(modality: str) -> bool:
    """Check whether what is read as a modality may have seconds. `start` and `end` of others are columns like any."""
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


def as_sentence(text: str) -> Item | Failure:
    """A sentence as an item. One without words is a failure: the model would give it a vector, which means nothing."""
    if not html.unescape(text).strip():
        return Failure(text, "an empty sentence: there are no words to embed")
    return Item(text, text)


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
    others: Others | None = None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[Item | Failure]:
    """Items for what was typed: for text each argument is a sentence; else a file, a folder (all files below it) or a pattern.

    A file that is a tar shard or a prepared HDF5 file stands for the samples in it. `-` anywhere stands for stdin: a tar archive, or
    lines. A name that is nothing of these is a `Failure`, and the rest goes on. Files plainly of another kind that a folder or a pattern
    brings along are skipped.

    Args:
        frames: a folder is one item, the frames of a video. others: counts what is skipped. warn: is given what is odd about stdin.
    """
    others = others or Others()
    for argument in arguments:
        if argument == "-":
            yield from from_stream(stdin, modalities, nul, passes, warn)
        elif modalities == ("text",) and _samples_of(argument, modalities) is None:
            yield as_sentence(argument)
        elif os.path.isdir(argument) and not names_store(argument):
            yield from _gathered(argument, [argument], modalities, passes, frames, others)
        elif os.path.lexists(argument):
            yield from _opened([Item(argument, argument)], modalities)
        elif glob.has_magic(argument):
            paths = sorted(glob.iglob(argument, recursive=True))
            yield from _gathered(argument, paths, modalities, passes, frames, others)
            if not paths:
                yield Failure(argument, "no file matches this pattern")
        else:
            yield Failure(argument, "no such file or folder")


def from_stream(
    stream: BinaryIO, modalities: Modalities, nul: bool = False, passes: Passes | None = None, warn: Callable[[str], None] | None = None
) -> Iterator[Item | Failure]:
    """Items of a stream as they come: the samples of a tar shard, or lines, as `from_lines`.

    Raises:
        UserError: it is neither.
    """
    head = stream.peek(1)[:512] if hasattr(stream, "peek") else b""  # what is there, without waiting for more
    if warn and not head and hasattr(stream, "peek"):
        warn("stdin is empty: there was nothing to read")
    if not nul:
        if is_shard(head):
            yield from from_shard(stream, modalities, "stdin")
            return
        if fault := _archive("FILE", head, modalities):
            raise UserError(f"stdin: {fault}")
        if b"\0" in head and modalities != ("text",):
            raise UserError("stdin holds NUL bytes: names from `find -print0` need -0; else it takes lines of names, or a tar shard")
    yield from from_lines(stream, modalities, nul, passes)


def from_lines(stream: BinaryIO, modalities: Modalities, nul: bool = False, passes: Passes | None = None) -> Iterator[Item | Failure]:
    """Items for the lines of a stream as they come: a path each (for text a sentence), or a JSON object with a key per modality.

    nul: entries end with a NUL byte, as `find -print0` writes them, and not with a newline.

    Raises:
        UserError: sentences in UTF-16 or UTF-32.
    """
    for number, line in enumerate(_nul_separated(stream) if nul else stream, start=1):
        data = line.rstrip(b"\0" if nul else b"\r\n")
        if modalities == ("text",) and not nul and (fault := encoding_fault(data)):
            if number == 1 and b"\0" in data:  # and so will be all others
                raise UserError(f"stdin: line {number}: {fault}")
            yield Failure(os.fsdecode(data), f"line {number}: {fault}")
            continue
        entry = os.fsdecode(data)
        if number == 1:
            entry = entry.removeprefix("\ufeff")  # a byte order mark
        # A whole text without a newline has the line ends of old: it would be one sentence. In a name they are characters like others.
        old = modalities == ("text",) and number == 1 and not nul and not line.endswith(b"\n")
        for part in entry.split("\r") if old else [entry]:
            yield from _from_line(part, modalities, f"line {number}", passes)


def _from_line(entry: str, modalities: Modalities, place: str, passes: Passes | None) -> Iterator[Item | Failure]:
    if not entry:
        return
    row = json_object(entry)
    if isinstance(row, BadRow):
        yield Failure(place, row.reason)
    elif row is not None:
        yield from_row(row, modalities, place)
    elif modalities == ("text",):
        yield as_sentence(entry)
    elif not (passes and passes(entry)):
        yield from _opened([Item(entry, entry)], modalities)


def from_manifest(path: Path, modalities: Modalities, columns: Mapping[str, str] | None = None) -> Iterator[Item | Failure]:
    """Items for the rows of a manifest: JSON Lines, or CSV or TSV with a line of column names. Relative paths start at its folder.

    A row that cannot be used is a `Failure`.

    Args:
        columns: names to give to columns, as in `tabular.read_rows`.
    Raises:
        UserError: see `tabular.read_rows`; a table must have a column for each modality.
    """
    for number, row in read_rows(path, modalities, columns):
        place = f"{path}:{number}"
        if isinstance(row, BadRow) and (not row.cells or row.cells.keys() >= set(modalities)):
            yield Failure(place, row.reason)
        else:  # of a row that is too short, what it lacks is told with its id
            yield from_row(row.cells if isinstance(row, BadRow) else row, modalities, place, os.path.dirname(path))


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
    if "text" in given and isinstance(empty := as_sentence(row["text"]), Failure):
        return Failure(place if row.get("id") is None else str(id), empty.reason)
    meta = {key: value for key, value in row.items() if key not in ("id", *modalities)}
    return Item(str(id), _payload(given), meta)


def kept_beside(item: Item, modalities: Modalities) -> dict[str, Any]:
    """Return what is stored beside an item's id: the rest of its row, and by modality each path or sentence that the id does not say."""
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
        if isinstance(item, Item) and (samples := _samples_of(item.payload, modalities)) is not None:
            yield from samples
        elif isinstance(item, Item) and len(modalities) > 1:
            yield Item(item.id, dict.fromkeys(modalities, item.payload), item.meta)  # one file for all, as a video with its sound
        else:
            yield item


def _samples_of(path: str, modalities: Modalities) -> Iterator[Item | Failure] | None:
    """The samples in a file that is made of them, or a failure for an archive of another kind; None for any other file."""
    head = _head(path)
    samples = _samples_in(path, head, modalities)
    is_input = is_npz(head) or ("imu" in modalities and head.startswith(b"PK"))  # an app's export may be a ZIP file
    fault = None if is_input else _archive(path, head, modalities)
    return samples or (iter([Failure(path, fault)]) if fault else None)


def _samples_in(path: str, head: bytes, modalities: Modalities) -> Iterator[Item | Failure] | None:
    """The samples in a tar shard or a prepared HDF5 file."""
    if is_shard(head):
        return _samples(_entries_of_shard(path), modalities, path)
    return _samples(read_hdf5(path), modalities, path) if is_hdf5(head) and not is_foreign_hdf5(path) else None


def _head(path: str) -> bytes:
    """The first bytes of a file; none where it is not one, or cannot be opened, of which its reader says why."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(512)
    except OSError:
        return b""


def _archive(path: str, head: bytes, modalities: Modalities) -> str | None:
    return archive(head, path, f"imagebind embed {modalities[0]} -")


def _entries_of_shard(path: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        yield from read_shard(file, path)


def _gathered(
    name: str, paths: Iterable[str], modalities: Modalities, passes: Passes | None, frames: bool, others: Others
) -> Iterator[Item | Failure]:
    """Yield what lies at the paths that a folder's name or a pattern stands for, without files plainly of another kind, unless they are failures.

    frames: a folder is one item.
    """
    excluded, skipped, first, nothing = 0, 0, "", True
    for path in paths:
        walked = os.path.isdir(path) and not frames
        plain = path.rstrip("/") or path if os.path.isdir(path) else path  # a shell writes a folder with the slash or without
        for item in _below(path) if walked else [Item(plain, plain)]:
            if isinstance(item, Item) and not is_included(item.id, others.include) and not (frames and os.path.isdir(item.id)):
                excluded += 1
                continue
            done = isinstance(item, Item) and passes is not None and passes(item.id)
            if isinstance(item, Item) and not done and _is_unmeant(item.id, walked, modalities):
                skipped, first = skipped + 1, first or item.id
                if others.strict:
                    yield Failure(item.id, f"by its name, not {' or '.join(modalities)}; without --strict it is skipped")
                else:
                    others.count += 1
                continue
            nothing = False
            if not done:
                yield from _opened([item], modalities)
    if skipped and nothing and not others.strict:
        others.count -= skipped
        fault = _archive(first, _head(first), modalities)
        found = f"no {' or '.join(modalities)} among its files: {skipped:,} of other kinds, the first {first}"
        yield Failure(name, f"{found}: {fault}" if fault else found)
    elif excluded and nothing:
        yield Failure(name, f"none of its {excluded:,} files matches --include {' or '.join(others.include)}")


def names_store(source: Any) -> bool:
    """Check whether a path is that of a store of vectors: arrays that might be taken for a map or a recording."""
    return isinstance(source, str | Path) and str(source).endswith(tuple(FORMATS)) and is_store(source)


def _is_unmeant(path: str, in_folder: bool, modalities: Modalities) -> bool:
    """Check whether a file is hidden in a folder, a store, or plainly of another kind and no archive of samples."""
    if (in_folder and os.path.basename(path).startswith(".")) or names_store(path):
        return True
    is_meant = os.path.isdir(path) and not in_folder  # as the frames of a video
    return is_other(path, modalities) and not is_meant and _samples_in(path, _head(path), modalities) is None


def _below(folder: str) -> Iterator[Item | Failure]:
    """Every file below a folder, sorted, links followed once, folders whose names start with a dot left out."""
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
            if not _is_folder(entry) or (entry.name.endswith(".store") and is_store(entry.path)):
                empty = False
                yield Item(entry.path, entry.path)
            elif not entry.name.startswith("."):
                yield from walk(entry.path)

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
