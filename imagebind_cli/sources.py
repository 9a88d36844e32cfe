"""What goes in: arguments, folders, patterns, lines on stdin, manifests. One item at a time, in a stable order."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from imagebind_cli.errors import UserError


@dataclass(frozen=True)
class Item:
    """One input: `payload` is a path, or for text the sentence itself. `meta` is what else its manifest row says."""

    id: str
    payload: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """One input that could not be embedded, and why, in words."""

    id: str
    reason: str


def from_arguments(arguments: Iterable[str], modality: str, stdin: BinaryIO, nul: bool = False) -> Iterator[Item | Failure]:
    """Items for what was typed: for text each argument is a sentence; else a file, a folder (all files below it) or a pattern.

    `-` anywhere stands for the lines of stdin. A name that is nothing of these is a `Failure`, and the rest goes on.
    """
    for argument in arguments:
        if argument == "-":
            yield from from_lines(stdin, modality, nul)
        elif modality == "text":
            yield Item(argument, argument)
        elif os.path.isdir(argument):
            yield from _below(argument)
        elif os.path.lexists(argument):
            yield Item(argument, argument)
        elif glob.has_magic(argument):
            paths = sorted(glob.iglob(argument, recursive=True))
            for path in paths:
                yield from _below(path) if os.path.isdir(path) else [Item(path, path)]
            if not paths:
                yield Failure(argument, "no file matches this pattern")
        else:
            yield Failure(argument, "no such file or folder")


def from_lines(stream: BinaryIO, modality: str, nul: bool = False) -> Iterator[Item | Failure]:
    """Items for the lines of a stream as they come: a path each (for text a sentence), or a JSON object with a key per modality.

    nul: entries end with a NUL byte, as `find -print0` writes them, and not with a newline.
    """
    for number, line in enumerate(_nul_separated(stream) if nul else stream, start=1):
        entry = os.fsdecode(line.rstrip(b"\0" if nul else b"\r\n"))
        if not entry:
            continue
        row = _json_object(entry)
        if row is None:
            yield Item(entry, entry)
        else:
            yield from_row(row, modality, f"line {number}")


def from_manifest(path: Path, modality: str) -> Iterator[Item | Failure]:
    """Items for the rows of a manifest: JSON Lines, or CSV or TSV with a line of column names. Relative paths start at its folder.

    Raises:
        UserError: the manifest cannot be read, a line is no JSON object, or no row could have this modality.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = _table_rows(file, path, modality) if path.suffix in (".csv", ".tsv") else _json_rows(file, path)
            for number, row in rows:
                item = from_row(row, modality, f"{path}:{number}")
                if isinstance(item, Item) and modality != "text":
                    item = Item(item.id, os.path.join(path.parent, item.payload), item.meta)
                yield item
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def from_row(row: dict[str, Any], modality: str, place: str) -> Item | Failure:
    """One manifest row as an item. Its id is its `id`, else the path or sentence."""
    payload = row.get(modality)
    id = payload if row.get("id") is None else row["id"]
    if not isinstance(payload, str):
        return Failure(str(id) if id is not None else place, f"{place}: no {modality!r} in this row; it has {', '.join(row) or 'nothing'}")
    return Item(str(id), payload, {key: value for key, value in row.items() if key not in ("id", modality)})


def _below(folder: str) -> Iterator[Item | Failure]:
    """Every file below a folder, sorted, links followed once, names that start with a dot left out."""
    seen: set[tuple[int, int]] = set()

    def walk(folder: str) -> Iterator[Item | Failure]:
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Failure(folder, error.strerror or str(error))
            return
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above it
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):  # and not entry.is_dir, which raises on a link to itself
                yield from walk(entry.path)
            else:
                yield Item(entry.path, entry.path)

    yield from walk(folder)


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
    except ValueError:
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


def _table_rows(lines: Iterable[str], path: Path, modality: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # a long sentence is no error
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    if modality not in (reader.fieldnames or []):
        raise UserError(f"{path}: no column {modality!r}; it has {', '.join(reader.fieldnames or []) or 'none'}")
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key is not None and value not in (None, "")}
