"""Embeddings of a frozen anchor's fixed views, computed once and read from then on: in the paper the image and text encoders never change.

A folder for a pair: `made.json` says of what they are; `view-000/000000.npy` holds the vectors of view 0 of the first rows, and so on. A file is
whole or not there at all, so that filling can be killed and goes on with what is missing, on any number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing, write_json
from imagebind_cli.fingerprint import is_earlier
from imagebind_cli.options import read_options, record
from imagebind_cli.training.augment import RULES
from imagebind_cli.training.data import PairData
from imagebind_cli.training.samples import Chunk

ROWS = 1024
"""Vectors in a file; a killed run computes at most these again."""

AT_ONCE = 4
"""Chunks of samples the encoder is given."""


class AnchorCache:
    """The anchors of one pair in all their views. `fill` it, then hand it to `PairData.batches`.

    Args:
        folder: where the vectors lie, or will. Runs with the same anchors may share it.
        data: whose rows they belong to. pair: its number in the recipe.
        fingerprint: of the anchor encoder's weights.
    Raises:
        UserError: the pair has no fixed views, or the folder holds anchors made otherwise.
    """

    def __init__(self, folder: str | Path, data: PairData, pair: int, fingerprint: str) -> None:
        self._folder, self._data, self._pair = Path(folder), data, pair
        self._views, count = data.views(pair), data.counts[pair]
        if not self._views:
            raise UserError(f"an anchor cache holds fixed views: set pairs.{pair}.views to how many")
        self._pieces = [(view, first) for view in range(self._views) for first in range(0, count, ROWS)]
        self._made = self._record(fingerprint)
        self._files: dict[tuple[int, int], np.ndarray] = {}
        if (self._folder / "made.json").exists():
            self._check(json.loads((self._folder / "made.json").read_text()))

    def missing(self) -> int:
        """How many vectors are still to be computed."""
        return sum(len(self._rows(piece)) for piece in self._pieces if not self._path(piece).exists())

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
            encode: samples (b, *shape) to unit vectors (b, dim).
            rank, world: this process of how many; each computes its share of the files.
            report: called with the vectors there are and the vectors needed, after each file of this process.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / "made.json", self._made, indent=1)
        mine = [piece for piece in self._pieces[rank::world] if not self._path(piece).exists()]
        total = self._views * self._data.counts[self._pair]
        wanted = [(piece[0], self._rows(piece)) for piece in mine]
        for piece, chunks in zip(mine, self._data.anchors(self._pair, wanted), strict=True):
            self._write(piece, chunks, encode)
            report(total - self.missing(), total)

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Unit vectors (b, dim) float32 of some rows, each in a view.

        Raises:
            UserError: they have not been computed.
        """
        return torch.from_numpy(
            np.stack([self._file((view, row // ROWS * ROWS))[row % ROWS] for row, view in zip(rows, views, strict=True)])
        )

    @cached_property
    def unreadable(self) -> dict[tuple[int, int], str]:
        """Rows and views whose anchor could not be read, and why. Ask after filling."""
        found: dict[tuple[int, int], str] = {}
        for view, first in self._pieces:
            path = self._path((view, first)).with_suffix(".json")
            if path.exists():
                found |= {(int(row), view): reason for row, reason in json.loads(path.read_text()).items()}
        return found

    def _record(self, fingerprint: str) -> dict[str, Any]:
        """What the vectors depend on."""
        reader = self._data.reader(self._pair)
        side = reader.sides[0]
        made = {
            "weights": fingerprint,
            "modality": side.modality,
            "input": [side.config.shape, side.config.mean, side.config.std],
            "options": record(read_options(side.encoder, side.modality, side.options)),
            "augmentation": side.augment and side.augment.model_dump(),
            "augmentation rules": side.augment and RULES,
            "alignment": reader.aligned,
            "seed": reader.seed,
            "pair number": self._pair,
            "views": self._views,
            "rows": reader.data.digest(),
        }
        return json.loads(json.dumps(made))

    def _check(self, theirs: dict[str, Any]) -> None:
        for key, value in self._made.items():
            if theirs.get(key) != value and key == "weights" and is_earlier(theirs.get(key)):
                raise UserError(
                    f"{self._folder}: anchors made by an earlier version of imagebind; delete this folder to compute them again"
                )
            if theirs.get(key) != value:
                raise UserError(f"{self._folder}: anchors made with other {key}; name another folder, or delete this one")

    def _rows(self, piece: tuple[int, int]) -> range:
        return range(piece[1], min(piece[1] + ROWS, self._data.counts[self._pair]))

    def _path(self, piece: tuple[int, int]) -> Path:
        return self._folder / f"view-{piece[0]:03d}" / f"{piece[1] // ROWS:06d}.npy"

    def _file(self, piece: tuple[int, int]) -> np.ndarray:
        if piece not in self._files:
            try:
                self._files[piece] = np.load(self._path(piece), mmap_mode="r")
            except OSError as error:
                raise UserError(f"{self._path(piece)}: {error.strerror or error}; fill the cache first") from None
        return self._files[piece]

    def _write(self, piece: tuple[int, int], chunks: Iterator[Chunk], encode: Callable[[Tensor], Tensor]) -> None:
        """One file. A row that cannot be read stays zero and is named beside it."""
        rows = self._rows(piece)
        vectors: np.ndarray | None = None
        failures: dict[int, str] = {}
        while some := list(islice(chunks, AT_ONCE)):
            read = [row - rows.start for chunk in some for row in chunk.rows]
            lost = [row for chunk in some for row in chunk.lost]
            failures |= dict(zip(lost, [failure.reason for chunk in some for failure in chunk.failures], strict=True))
            if read:
                found = encode(torch.cat([chunk.tensors[0] for chunk in some if chunk.rows])).float().cpu().numpy()
                vectors = np.zeros((len(rows), found.shape[1]), np.float32) if vectors is None else vectors
                vectors[read] = found
        if vectors is None:
            raise UserError(f"{self._folder}: none of {len(rows)} anchors can be read; the first: {next(iter(failures.values()))}")
        if not np.isfinite(vectors).all():
            raise UserError(f"{self._folder}: the anchor encoder gives numbers that are not finite")
        path = self._path(piece)
        path.parent.mkdir(exist_ok=True)
        if failures:  # before the vectors: they say that the file is whole
            write_json(path.with_suffix(".json"), failures, indent=None)
        with replacing(path) as place:
            np.save(place, vectors, allow_pickle=False)
