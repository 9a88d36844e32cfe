"""Items from arguments and from the lines of stdin."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from imagebind_cli.errors import UserError
from imagebind_cli.file_kinds import Others
from imagebind_cli.prepared import is_shard
from imagebind_cli.sources.archives import archive_fault, expand_archives, from_shard, samples_of
from imagebind_cli.sources.folders import from_files, names_store
from imagebind_cli.sources.items import (
    Failure,
    Item,
    Modalities,
    Passes,
    are_sentences,
    as_sentence,
)
from imagebind_cli.sources.manifests import from_row
from imagebind_cli.tabular import BadRow, encoding_fault, json_object


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
    """Yield the items of arguments: for text each argument is a sentence; else a file, a folder (all files below it) or a pattern.

    A tar shard or a prepared HDF5 file means the samples in it. `-` anywhere means stdin: a tar archive, or
    lines. A name that is none of these is a `Failure`, and the others continue. Files plainly of another kind that a folder or a pattern
    brings along are skipped.

    Args:
        frames: a folder is one item, the frames of a video. others: counts what is skipped. warn: called with a line on anything odd about stdin.
    """
    others = others or Others()
    for argument in arguments:
        if argument == "-":
            yield from from_stream(stdin, modalities, nul, passes, warn)
        elif are_sentences(modalities) and samples_of(argument, modalities) is None:
            yield as_sentence(argument)
        elif os.path.isdir(argument) and not names_store(argument):
            yield from from_files(argument, [argument], modalities, passes, frames, others)
        elif os.path.lexists(argument):
            yield from expand_archives([Item(argument, argument)], modalities)
        elif glob.has_magic(argument):
            paths = sorted(glob.iglob(argument, recursive=True))
            yield from from_files(argument, paths, modalities, passes, frames, others)
            if not paths:
                yield Failure(argument, "no file matches this pattern")
        else:
            yield Failure(argument, "no such file or folder")


def from_stream(
    stream: BinaryIO, modalities: Modalities, nul: bool = False, passes: Passes | None = None, warn: Callable[[str], None] | None = None
) -> Iterator[Item | Failure]:
    """Yield the items of a stream as they come: the samples of a tar shard, or lines, as `from_lines`.

    Raises:
        UserError: it is neither.
    """
    head = stream.peek(1)[:512] if hasattr(stream, "peek") else b""  # what has come, without waiting for more
    if warn and not head and hasattr(stream, "peek"):
        warn("stdin is empty: there was nothing to read")
    if not nul:
        if is_shard(head):
            yield from from_shard(stream, modalities, "stdin")
            return
        if fault := archive_fault("FILE", head, modalities):
            raise UserError(f"stdin: {fault}")
        if b"\0" in head and not are_sentences(modalities):
            raise UserError("stdin holds NUL bytes: names from `find -print0` need -0; else it takes lines of names, or a tar shard")
    yield from from_lines(stream, modalities, nul, passes)


def from_lines(stream: BinaryIO, modalities: Modalities, nul: bool = False, passes: Passes | None = None) -> Iterator[Item | Failure]:
    """Yield the items of a stream's lines as they come: a path each (for text a sentence), or a JSON object with a key per modality.

    nul: entries end with a NUL byte, as `find -print0` writes them, and not with a newline.

    Raises:
        UserError: sentences in UTF-16 or UTF-32.
    """
    for number, line in enumerate(_nul_separated(stream) if nul else stream, start=1):
        data = line.rstrip(b"\0" if nul else b"\r\n")
        if are_sentences(modalities) and not nul and (fault := encoding_fault(data)):
            if number == 1 and b"\0" in data:  # and so will be all others
                raise UserError(f"stdin: line {number}: {fault}")
            yield Failure(os.fsdecode(data), f"line {number}: {fault}")
            continue
        entry = os.fsdecode(data)
        if number == 1:
            entry = entry.removeprefix("\ufeff")  # a byte order mark
        # A whole text without a newline has the line ends of old: it would be one sentence. In a name they are characters like others.
        old = are_sentences(modalities) and number == 1 and not nul and not line.endswith(b"\n")
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
    elif are_sentences(modalities):
        yield as_sentence(entry)
    elif not (passes and passes(entry)):
        yield from expand_archives([Item(entry, entry)], modalities)


def _nul_separated(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while block := stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536):
        *entries, rest = (rest + block).split(b"\0")
        yield from entries
    if rest:
        yield rest
