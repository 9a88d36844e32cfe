"""The anchor cache: embeddings of a frozen anchor's fixed views, or of a teacher's, computed once and read from then on.

In the paper the image and text encoders never change. A pair's folder holds `made.json`, a record of what the embeddings depend on, and
`view-000/000000.npy`, the embeddings of view 0 of the first rows with a checksum after them, and so on. Each file is complete or absent, so a
killed run continues with the files that are missing, on any number of processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.checksums import append_checksum, check_appended
from imagebind_cli.documents import read_object, read_sealed_object
from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing, write_json, write_sealed_json
from imagebind_cli.fingerprint import is_earlier
from imagebind_cli.registry import with_default_options
from imagebind_cli.training import blindness
from imagebind_cli.training.augment import RULES
from imagebind_cli.training.recipe import AnchorRecipe, AugmentRecipe
from imagebind_cli.training.samples import PairReader, SampleChunk

ROWS = 1024  # embeddings in a file: a killed run computes at most these again
AT_ONCE = 4  # chunks of samples in one batch of the encoder

ReadAnchors = Callable[[Iterable[tuple[int, range]]], Iterator[Iterator[SampleChunk]]]  # chunks of the anchors of each (view, rows)


class Targets(Protocol):
    """Unit vectors by row and view. views: how many there are of a row. unreadable: by row and view, why there is none."""

    @property
    def views(self) -> int: ...

    @property
    def unreadable(self) -> Mapping[tuple[int, int], str]: ...

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Return unit vectors (b, dim) float32."""


class AnchorCache:
    """The embeddings of one pair's anchors in all their views. Get one from `PairData.anchor_cache` and `fill` it before batches are read.

    Args:
        folder: of the embeddings. Runs with the same anchors may share it.
        reader: of the pair's rows.
        views: number of fixed views of each row. A view of a higher number is read as its remainder.
        read: reads the anchors of some rows in a view.
        fingerprint: of the anchor encoder's weights.
        recipe: what the anchors are made blind to. apart: give the folder's name a suffix that differs where the anchors do.
    Raises:
        UserError: the folder holds other anchors.
    """

    def __init__(
        self,
        folder: str | Path,
        reader: PairReader,
        views: int,
        read: ReadAnchors,
        fingerprint: str,
        recipe: AnchorRecipe | None = None,
        apart: bool = False,
    ) -> None:
        self.folder, self.views = Path(folder), views
        self._reader, self._read_anchors, self._recipe = reader, read, recipe or AnchorRecipe()
        self._files_of = [(view, first) for view in range(views) for first in range(0, len(reader.rows), ROWS)]
        self._record = self._describe(fingerprint)
        if apart:
            digest = hashlib.sha256(json.dumps(self._record, sort_keys=True).encode()).hexdigest()
            self.folder = self.folder.with_name(f"{self.folder.name}-{digest[:12]}")
        self._open: dict[tuple[int, int], np.ndarray] = {}
        if (self.folder / "made.json").exists():
            self._check(read_sealed_object(self.folder / "made.json"))

    def missing(self) -> int:
        """Count the embeddings that still have to be computed."""
        return sum(len(self._rows(file)) for file in self._files_of if not self._path(file).exists())

    def fill(
        self,
        encode: Callable[[Tensor], Tensor],
        *,
        rank: int = 0,
        world: int = 1,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Compute what is missing. With several processes, none may read before all have returned.

        Args:
            encode: turns samples (b, *shape) into unit vectors (b, dim).
            rank, world: number of this process and of all; each computes its share of the files.
            report: called with the embeddings done and the total, after each file of this process.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_sealed_json(self.folder / "made.json", self._record)
        files = [file for file in self._files_of[rank::world] if not self._path(file).exists()]
        total = self.views * len(self._reader.rows)
        wanted = [(file[0], self._rows(file)) for file in files]
        for file, chunks in zip(files, self._read_anchors(wanted), strict=True):
            self._write(file, chunks, encode)
            report(total - self.missing(), total)

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Return unit vectors (b, dim) float32 of rows, each in a view.

        Raises:
            UserError: they have not been computed.
        """
        vectors = [self._vectors((view % self.views, row // ROWS * ROWS))[row % ROWS] for row, view in zip(rows, views, strict=True)]
        return torch.from_numpy(np.stack(vectors))

    @cached_property
    def unreadable(self) -> dict[tuple[int, int], str]:
        """By row and view, why an anchor could not be read. Valid after `fill`."""
        reasons: dict[tuple[int, int], str] = {}
        for view, first in self._files_of:
            path = self._path((view, first)).with_suffix(".json")
            if path.exists():
                reasons |= {(int(row), view): reason for row, reason in read_object(path).items()}
        return reasons

    def _describe(self, fingerprint: str) -> dict[str, Any]:
        """Return everything the embeddings depend on."""
        reader, source = self._reader, self._reader.inputs[0]
        record_ = {
            "family": source.config.family,
            "weights": fingerprint,
            "modality": source.modality,
            "input": [source.config.shape, source.config.mean, source.config.std],
            "options": source.options.record(),
            "augmentation": source.augment and source.augment.model_dump(),
            "augmentation rules": source.augment and RULES,
            "alignment": reader.aligned,
            "seed": reader.seed,
            "pair number": reader.number,
            "views": self.views,
            "rows": reader.rows.digest(),
        }
        if self._recipe.blind:
            record_["blind"] = blindness.record(self._recipe)
        return json.loads(json.dumps(record_))

    def _check(self, before: dict[str, Any]) -> None:
        before, now = map(_with_defaults, (before, self._record))
        for key, value in {"blind": None, **now}.items():
            if before.get(key) == value or (key == "family" and key not in before):  # older anchors do not name it, and have weights
                continue
            if key == "weights" and is_earlier(before.get(key)):
                why = "the anchors were computed by an earlier version of imagebind; delete this folder to compute them again"
                raise UserError(f"{self.folder}: {why}")
            raise UserError(f"{self.folder}: the anchors were computed with other {key}; choose another folder, or delete this one")

    def _rows(self, file: tuple[int, int]) -> range:
        return range(file[1], min(file[1] + ROWS, len(self._reader.rows)))

    def _path(self, file: tuple[int, int]) -> Path:
        return self.folder / f"view-{file[0]:03d}" / f"{file[1] // ROWS:06d}.npy"

    def _vectors(self, file: tuple[int, int]) -> np.ndarray:
        if file not in self._open:
            try:
                check_appended(self._path(file))
                self._open[file] = np.load(self._path(file), mmap_mode="r")
            except OSError as error:
                raise UserError(f"{self._path(file)}: {error.strerror or error}; fill the cache first") from None
            except ValueError as error:
                raise UserError(f"{self._path(file)}: {error}; delete it, and its embeddings are computed again") from None
        return self._open[file]

    def _write(self, file: tuple[int, int], chunks: Iterator[SampleChunk], encode: Callable[[Tensor], Tensor]) -> None:
        """Compute one file. A row that cannot be read stays zero and is named in a JSON file beside it."""
        rows = self._rows(file)
        vectors: np.ndarray | None = None
        failures: dict[int, str] = {}
        while batch := list(islice(chunks, AT_ONCE)):
            lost = [row for chunk in batch for row in chunk.lost]
            failures |= dict(zip(lost, [failure.reason for chunk in batch for failure in chunk.failures], strict=True))
            places = [row - rows.start for chunk in batch for row in chunk.rows]
            if places:
                samples = torch.cat([chunk.tensors[0] for chunk in batch if chunk.rows])
                numbers = [rows.start + place for place in places]
                embeddings = blindness.mean_vectors(encode, samples, self._recipe, self._reader, numbers, file[0]).cpu().numpy()
                vectors = np.zeros((len(rows), embeddings.shape[1]), np.float32) if vectors is None else vectors
                vectors[places] = embeddings
        if vectors is None:
            raise UserError(f"{self.folder}: none of {len(rows)} anchors can be read; the first: {next(iter(failures.values()))}")
        if not np.isfinite(vectors).all():
            raise UserError(f"{self.folder}: the anchor encoder returns numbers that are not finite; check its weights")
        path = self._path(file)
        path.parent.mkdir(exist_ok=True)
        if failures:  # before the embeddings, whose file marks the part as complete
            write_json(path.with_suffix(".json"), failures, indent=None)
        write_array(path, vectors)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array with a checksum after it, which `checksums.check_appended` checks; the file is complete or absent."""
    with replacing(path) as place:
        with open(place, "wb") as written:
            np.save(written, values, allow_pickle=False)
        append_checksum(place)


def _with_defaults(record: dict[str, Any]) -> dict[str, Any]:
    """Return a cache's record with what it does not have, because it did not exist yet, at its default: options and augmentations."""
    augmentation = record.get("augmentation")
    return {
        **record,
        "options": with_default_options(record.get("modality", ""), record.get("options")),
        "augmentation": augmentation and AugmentRecipe().model_dump(mode="json") | augmentation,
    }
