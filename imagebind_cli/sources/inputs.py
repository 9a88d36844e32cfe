"""What a job is given to read, as one value: arguments or a manifest, and how they are meant."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from imagebind_cli.file_kinds import Others, is_included, is_other
from imagebind_cli.sources.arguments import from_arguments
from imagebind_cli.sources.items import Failure, Item, Modalities, Passes, are_sentences
from imagebind_cli.sources.manifests import from_manifest


@dataclass(frozen=True)
class Inputs:
    """The inputs of a job. Nothing is opened before their items are asked for.

    arguments: files, folders, patterns or sentences; `-` for stdin. manifest: a JSONL, CSV or TSV file of the inputs, in their place.
    columns: names to give to its columns, as in `tabular.read_rows`. stdin: what `-` reads; nul: its entries end with a NUL byte.
    others: which files in folders are not meant, and how many there were. warn: called with a line on anything odd about stdin.
    """

    arguments: tuple[str, ...] = ()
    manifest: Path | None = None
    columns: Mapping[str, str] | None = None
    stdin: BinaryIO = field(default_factory=io.BytesIO)
    nul: bool = False
    others: Others = field(default_factory=Others)
    warn: Callable[[str], None] | None = None

    @classmethod
    def of(
        cls, inputs: Inputs | Iterable[str | Path], manifest: Path | str | None = None, columns: Mapping[str, str] | None = None
    ) -> Inputs:
        """Return inputs as they are, or those that arguments or a manifest name."""
        return inputs if isinstance(inputs, Inputs) else cls(tuple(map(str, inputs)), None if manifest is None else Path(manifest), columns)

    def items(self, modalities: Modalities, passes: Passes | None = None, frames: bool = False) -> Iterator[Item | Failure]:
        """Yield the items in order, as `from_manifest` or `from_arguments` does.

        Args:
            modalities: to read of each item. passes: decides which files to skip before they are opened.
            frames: a folder is one item, the frames of a video.
        """
        if self.manifest is not None:
            return from_manifest(self.manifest, modalities, self.columns)
        return from_arguments(self.arguments, modalities, self.stdin, self.nul, passes, frames, self.others, self.warn)

    def count(self, modalities: Modalities, frames: bool = False) -> int | None:
        """Estimate the number of items, where that is possible without reading them: None for stdin and archives."""
        if self.manifest is not None:
            if not self.manifest.is_file():  # a pipe
                return None
            with open(self.manifest, "rb") as file:
                return sum(1 for line in file if line.strip()) - (self.manifest.suffix.lower() in (".csv", ".tsv"))
        if not self.arguments or any(name == "-" or name.endswith((".tar", ".h5")) for name in self.arguments):
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
