"""The inputs of a job as one value: arguments, lines of stdin, or a manifest."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from imagebind_cli.errors import OptionError, UsageError, UserError
from imagebind_cli.file_kinds import Others, is_included, is_other
from imagebind_cli.object_storage import is_object
from imagebind_cli.options import ReadingOptions
from imagebind_cli.prepared import is_shard
from imagebind_cli.sources.archives import archive_fault, expand_archives, from_shard, samples_of
from imagebind_cli.sources.box_files import BoxFile, read_boxes
from imagebind_cli.sources.folders import from_files, from_objects, names_store
from imagebind_cli.sources.items import Failure, Item, Modalities, Skips, are_sentences, as_sentence
from imagebind_cli.sources.manifests import from_manifest, from_row
from imagebind_cli.tabular import BadRow, encoding_fault, json_object


@dataclass(frozen=True)
class Inputs:
    """The inputs of a job. Nothing is opened before their items are requested.

    arguments: files, folders, patterns or sentences; `-` for stdin. manifest: a JSONL, CSV or TSV file of the inputs, in their place.
    columns: names to give to its columns, as in `tabular.read_rows`. stdin: what `-` reads; nul: its entries end with a NUL byte.
    boxes: the regions of these inputs that are read in their place; without arguments and manifest its own pictures are the inputs.
    others: which files in folders are not meant, and how many there were. warn: called with a line on anything odd about stdin.
    listed: the items themselves, where another process has listed them.
    """

    arguments: tuple[str, ...] = ()
    manifest: Path | None = None
    columns: Mapping[str, str] | None = None
    stdin: BinaryIO = field(default_factory=io.BytesIO)
    nul: bool = False
    others: Others = field(default_factory=Others)
    warn: Callable[[str], None] | None = None
    boxes: BoxFile | None = None
    listed: Sequence[Item | Failure] | None = None

    @classmethod
    def of(
        cls, inputs: Inputs | Iterable[str | Path], manifest: Path | str | None = None, columns: Mapping[str, str] | None = None
    ) -> Inputs:
        """Return inputs as they are, or those that arguments or a manifest name."""
        return inputs if isinstance(inputs, Inputs) else cls(tuple(map(str, inputs)), None if manifest is None else Path(manifest), columns)

    def with_boxes(self, boxes: BoxFile | Path | str | None, modality: str, warn: Callable[[str], None] | None = None) -> Inputs:
        """Return these inputs with regions, from a file as `read_boxes` takes it; unchanged without. warn: unless they have one."""
        if boxes is None:
            return self
        return replace(self, boxes=boxes if isinstance(boxes, BoxFile) else read_boxes(boxes, modality), warn=self.warn or warn)

    @property
    def are_of_boxes(self) -> bool:
        """Check whether the inputs are the pictures that the file of boxes names."""
        return self.boxes is not None and self.manifest is None and not self.arguments

    def check_reading(self, options: ReadingOptions) -> None:
        """Refuse reading options of regions that do not fit these inputs.

        Raises:
            OptionError: tiles of inputs that have boxes, or a shape of regions where they have none.
        """
        if self.boxes is not None and "tiles" in options.chosen:
            raise OptionError("tiles divide whole pictures; leave out tiles if boxes are given", ["tiles"])
        if self.boxes is None and "region_shape" in options.chosen:
            raise OptionError("region_shape is for boxes; give --boxes FILE", ["region_shape"])

    def record(self) -> dict[str, Any]:
        """Return the entries on these inputs for the record of how vectors are made: whether they have boxes."""
        return {} if self.boxes is None else {"boxes": True}

    def items(self, modalities: Modalities, skips: Skips | None = None, frames: bool = False) -> Iterator[Item | Failure]:
        """Yield the items in order, as `from_manifest` or `from_arguments` does.

        Args:
            modalities: to read from each item. skips: checks whether to skip a file, before it is opened.
            frames: a folder is one item, the frames of a video.
        """
        if self.listed is not None:
            return iter(self.listed)
        if self.boxes is not None:
            if len(modalities) > 1:
                raise UsageError("boxes are of one modality at a time")
            for note in (*self.boxes.notes, *(self.boxes.left_out() if self.are_of_boxes else ())):
                if self.warn:
                    self.warn(note)
            whole = replace(self, boxes=None)
            return self.boxes.items() if self.are_of_boxes else self.boxes.attach(whole.items(modalities, None, frames))
        if self.manifest is not None:
            return from_manifest(self.manifest, modalities, self.columns)
        return from_arguments(self.arguments, modalities, self.stdin, self.nul, skips, frames, self.others, self.warn)

    def count(self, modalities: Modalities, frames: bool = False) -> int | None:
        """Estimate the number of items, where that is possible without reading them: None for stdin and archives."""
        whole = self.boxes if self.are_of_boxes and self.listed is None else self.listed
        if whole is not None:
            return len(whole)
        if self.manifest is not None:
            if not self.manifest.is_file():  # a pipe
                return None
            with open(self.manifest, "rb") as file:
                return sum(1 for line in file if line.strip()) - (self.manifest.suffix.lower() in (".csv", ".tsv"))
        if not self.arguments or any(name == "-" or name.endswith((".tar", ".h5")) or is_object(name) for name in self.arguments):
            return None
        if are_sentences(modalities):
            return len(self.arguments)
        count, include = 0, self.others.include
        for name in self.arguments:
            there = os.path.lexists(name)
            for path in [name] if there else glob.iglob(name, recursive=True):
                if frames or not os.path.isdir(path):
                    count += there or (is_included(path, include) and not is_other(path, modalities))
                    continue
                for _, folders, files in os.walk(path):
                    folders[:] = [name for name in folders if not name.startswith(".")]
                    wanted = (file for file in files if is_included(file, include) and not file.startswith("."))
                    count += sum(not is_other(file, modalities) for file in wanted)
        return count


def from_arguments(
    arguments: Iterable[str],
    modalities: Modalities,
    stdin: BinaryIO,
    nul: bool = False,
    skips: Skips | None = None,
    frames: bool = False,
    others: Others | None = None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[Item | Failure]:
    """Yield the items of arguments: for text each argument is a sentence; else a file, a folder (all files below it) or a pattern.

    A tar shard or a prepared HDF5 file means the samples in it. `-` anywhere means stdin: a tar archive, or
    lines. The address of an object is a file, and a prefix of addresses a folder. A name that is none of these is a `Failure`, and the others
    continue. Files plainly of another kind that a folder or a pattern brings along are skipped.

    Args:
        frames: a folder is one item, the frames of a video. others: counts what is skipped. warn: called with a line on anything odd about stdin.
    """
    others = others or Others()
    for argument in arguments:
        if argument == "-":
            yield from from_stream(stdin, modalities, nul, skips, warn)
        elif are_sentences(modalities) and samples_of(argument, modalities) is None:
            yield as_sentence(argument)
        elif is_object(argument):
            yield from from_objects(argument, modalities, skips, others)
        elif os.path.isdir(argument) and not names_store(argument):
            yield from from_files(argument, [argument], modalities, skips, frames, others)
        elif os.path.lexists(argument):
            yield from expand_archives([Item(argument, argument)], modalities)
        elif glob.has_magic(argument):
            paths = sorted(glob.iglob(argument, recursive=True))
            yield from from_files(argument, paths, modalities, skips, frames, others)
            if not paths:
                yield Failure(argument, "no file matches this pattern")
        else:
            yield Failure(argument, "no such file or folder")


def from_stream(
    stream: BinaryIO, modalities: Modalities, nul: bool = False, skips: Skips | None = None, warn: Callable[[str], None] | None = None
) -> Iterator[Item | Failure]:
    """Yield the items of a stream as they come: the samples of a tar shard, or lines, as `from_lines`.

    Raises:
        UserError: it is neither.
    """
    head = stream.peek(1)[:512] if hasattr(stream, "peek") else b""  # what has come, without waiting for more
    if warn and not head and hasattr(stream, "peek"):
        warn("stdin is empty: there are no inputs")
    if not nul:
        if is_shard(head):
            yield from from_shard(stream, modalities, "stdin")
            return
        if fault := archive_fault("FILE", head, modalities):
            raise UserError(f"stdin: {fault}")
        if b"\0" in head and not are_sentences(modalities):
            raise UserError("stdin holds NUL bytes: names from `find -print0` need -0; else it takes lines of names, or a tar shard")
    yield from from_lines(stream, modalities, nul, skips)


def from_lines(stream: BinaryIO, modalities: Modalities, nul: bool = False, skips: Skips | None = None) -> Iterator[Item | Failure]:
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
            yield Failure(_decoded(data), f"line {number}: {fault}")
            continue
        entry = _decoded(data)
        if number == 1:
            entry = entry.removeprefix("\ufeff")  # a byte order mark
        # A whole text without a newline has the line ends of old: it would be one sentence. In a name they are characters like others.
        old = are_sentences(modalities) and number == 1 and not nul and not line.endswith(b"\n")
        for part in entry.split("\r") if old else [entry]:
            yield from _from_line(part, modalities, f"line {number}", skips)


def _decoded(data: bytes) -> str:
    """Decode a name or a sentence as the system's file names; whatever bytes it has, which on Windows `os.fsdecode` does not take."""
    return data.decode(sys.getfilesystemencoding(), "surrogateescape")


def _from_line(entry: str, modalities: Modalities, place: str, skips: Skips | None) -> Iterator[Item | Failure]:
    if not entry:
        return
    row = json_object(entry)
    if isinstance(row, BadRow):
        yield Failure(place, row.reason)
    elif row is not None:
        yield from_row(row, modalities, place)
    elif are_sentences(modalities):
        yield as_sentence(entry)
    elif not (skips and skips(entry)):
        yield from expand_archives([Item(entry, entry)], modalities)


def _nul_separated(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while block := stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536):
        *entries, rest = (rest + block).split(b"\0")
        yield from entries
    if rest:
        yield rest
