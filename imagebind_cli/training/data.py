"""Mini-batches of pairs: which rows a step takes, read ahead in worker processes, the same for every number of them.

A mini-batch is of one pair of modalities (ImageBind appendix C), drawn by the recipe's weights. Each pair's rows come in one long order, a
new permutation for each pass; a step takes the next `batch` of it. Everything follows from the seed and the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.sources import Failure
from imagebind_cli.training import augment
from imagebind_cli.training.anchors import AnchorCache, Targets
from imagebind_cli.training.inputs import pair_inputs
from imagebind_cli.training.recipe import PairRecipe, Recipe
from imagebind_cli.training.rows import NO_ROWS, PairRows, read_pair_rows
from imagebind_cli.training.samples import ChunkReader, PairReader, ReadRequest, SampleChunk, check_first_rows
from imagebind_cli.training.workers import read_ahead

T = TypeVar("T")

CHUNK = 16  # samples that a worker reads at once, at most
BLOCK = 1024  # steps whose pairs are drawn together


@dataclass(frozen=True)
class Batch:
    """This process's share of a mini-batch.

    pair: its number in the recipe. ids: of the b samples. groups: (b,) int64; rows with the same number (same id, group, file or caption)
    are not negatives of each other, across processes too. inputs: the anchor's and the other's tensors, (b, *shape) each. embedded: the
    anchor's are unit vectors (b, dim) from its cache. failures: samples that could not be read, and were replaced.
    """

    pair: int
    ids: tuple[str, ...]
    groups: Tensor
    inputs: tuple[Tensor, Tensor]
    embedded: bool = False
    failures: tuple[Failure, ...] = ()


class _BatchPlan(NamedTuple):
    """The pair, size and requests of one mini-batch."""

    pair: int
    size: int
    requests: list[ReadRequest]


class PairData:
    """The rows of each pair of a recipe, and the batches made of them. Reads all rows, and one sample of each modality.

    Args:
        configs: by encoder name, as in a `ModelConfig`.
        split: `data`, or `val`, which a pair may lack.
    Raises:
        UserError: a file is missing, no row is usable, an option or augmentation does not fit, a batch is larger than the data, or nothing
            can be read.
    """

    def __init__(self, recipe: Recipe, configs: Mapping[str, EncoderConfig], split: str = "data") -> None:
        self.recipe, self.split = recipe, split
        self._notes: list[tuple[str, ...]] = []
        self._readers = tuple(self._open(number, pair, configs) for number, pair in enumerate(recipe.pairs))
        shares = np.array([pair.weight for pair in recipe.pairs])
        self._shares = shares / shares.sum()

    def _open(self, number: int, pair: PairRecipe, configs: Mapping[str, EncoderConfig]) -> PairReader:
        inputs, seed = pair_inputs(pair, configs), self.recipe.run.seed
        rows = self._rows_of(number, pair)
        if self.split == "data" and len(rows) < pair.batch:
            raise UserError(
                f"{pair.name}: {len(rows):,} pairs and a batch of {pair.batch:,}; set pairs.{number}.batch to no more than that"
            )
        if self.split == "data" and "background" in pair.anchor.blind:
            _check_masks(pair, rows)
        reader = PairReader(number, rows, inputs, seed, pair.aligned)
        self._notes.append(tuple(check_first_rows(reader)) if len(rows) else ())
        return reader

    def _rows_of(self, number: int, pair: PairRecipe) -> PairRows:
        """Read the rows of a pair in this split."""
        held_out = self.split == "val" and pair.val_fraction is not None
        patterns = pair.data if self.split == "data" or held_out else pair.val
        if not patterns:
            if self.split == "val" and not held_out:
                return NO_ROWS
            raise UserError(f"{pair.name}: no data; give --data, or pairs.{number}.data in the recipe")
        rows = read_pair_rows(patterns, tuple(dict.fromkeys(pair.modalities)), self.recipe.run.workers, pair.columns)
        if pair.val_fraction is None:
            return rows
        try:
            parts = rows.hold_out(pair.val_fraction, augment.random(self.recipe.run.seed, "hold out", number))
        except ValueError as error:
            raise UserError(f"{pair.name}: cannot hold out {pair.val_fraction:g} of {', '.join(patterns)}: {error}; give files") from None
        return parts[held_out]

    @property
    def counts(self) -> list[int]:
        """Number of rows of each pair."""
        return [len(reader.rows) for reader in self._readers]

    def notes(self, pair: int) -> tuple[str, ...]:
        """Return what was assumed to read a pair's files, a line each."""
        return self._notes[pair]

    def reader(self, pair: int) -> PairReader:
        """Return the reader of a pair's rows."""
        return self._readers[pair]

    def ids(self, pair: int) -> list[str]:
        """List the ids of a pair's rows."""
        rows = self._readers[pair].rows
        return [rows.id(row) for row in range(len(rows))]

    def groups(self, pair: int) -> Tensor:
        """Return (n,) int64: rows with the same number are not negatives of each other."""
        return self._readers[pair].rows.groups

    def steps_per_epoch(self, world: int = 1) -> int:
        """Return the number of steps in which the first pair's rows come `replicate` times.

        Raises:
            UserError: a batch cannot be divided among `world` processes.
        """
        for number, pair in enumerate(self.recipe.pairs):
            if pair.batch % world:
                raise UserError(f"{pair.name}: a batch of {pair.batch} for {world} processes; set pairs.{number}.batch to a multiple")
        first = self.recipe.pairs[0]
        return max(1, round(self.counts[0] * first.replicate / first.batch / self._shares[0]))

    def batches(
        self, first_step: int, last_step: int, rank: int = 0, world: int = 1, anchors: Mapping[int, Targets] | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of steps [first_step, last_step), or one process's share of each.

        Args:
            rank, world: number of this process and of all; each takes its part of the batch.
            anchors: caches by pair, from which the anchors' embeddings are read in place of their files.
        """
        anchors = anchors or {}
        readers = [
            replace(reader, unreadable=anchors[reader.number].unreadable, cached=anchors[reader.number].views)
            if reader.number in anchors
            else reader
            for reader in self._readers
        ]
        plans = self._batch_plans(first_step, last_step, rank, world, frozenset(anchors))
        for pair, size, chunks in self._read(readers, plans):
            yield self._collate(pair, size, chunks, anchors.get(pair))

    def samples(self, pair: int, rows: Sequence[int], view: int | None = None) -> Iterator[Batch]:
        """Yield rows in small batches, in order. Rows that cannot be read are left out and reported.

        Args:
            view: number of the augmentation; None for the middle of everything.
        Raises:
            UserError: none can be read.
        """
        pieces = _split(rows, CHUNK)
        plans = (_BatchPlan(pair, len(piece), [ReadRequest(pair, piece, (view,) * len(piece), replace=False)]) for piece in pieces)
        previous: Batch | None = None  # held back until the failures behind it are known
        failures: tuple[Failure, ...] = ()
        for _, _, chunks in self._read(self._readers, plans):
            chunk = next(chunks)
            if chunk.rows:
                if previous is not None:
                    yield replace(previous, failures=failures)
                    failures = ()
                previous = self._collate(pair, len(chunk.rows), iter([chunk]))
            failures += chunk.failures
        if previous is None:
            first = f"{failures[0].id}: {failures[0].reason}"
            raise UserError(f"{self.recipe.pairs[pair].name}: none of {len(rows)} samples can be read; the first, {first}")
        yield replace(previous, failures=failures)

    def anchor_cache(self, pair: int, folder: str | Path, fingerprint: str, apart: bool = False) -> AnchorCache:
        """Open the anchor cache of a pair.

        Args:
            fingerprint: of the anchor encoder's weights, or of the teacher's.
            apart: as of `AnchorCache`.
        Raises:
            UserError: the pair has no fixed views, or the folder holds other anchors.
        """
        recipe = self.recipe.pairs[pair]
        views = 1 if self._is_whole(pair) else recipe.views
        if not views:
            raise UserError(f"an anchor cache holds fixed views; set pairs.{pair}.views to their number")
        return AnchorCache(folder, self._readers[pair], views, partial(self._anchor_chunks, pair), fingerprint, recipe.anchor, apart)

    def _is_whole(self, pair: int) -> bool:
        """Check whether a pair's teacher sees whole samples, not views."""
        teacher = self.recipe.pairs[pair].teacher
        return teacher is not None and teacher.sees == "whole"

    def _anchor_chunks(self, pair: int, wanted: Iterable[tuple[int, range]]) -> Iterator[Iterator[SampleChunk]]:
        """For each (view, rows), yield the anchors alone in chunks. Rows that cannot be read are left out and reported."""
        plans = (
            _BatchPlan(
                pair, len(rows), [ReadRequest(pair, piece, (view,) * len(piece), (0,), replace=False) for piece in _split(rows, CHUNK)]
            )
            for view, rows in ((None if self._is_whole(pair) else view, rows) for view, rows in wanted)
        )
        return (chunks for _, _, chunks in self._read(self._readers, plans))

    # -- which rows

    def _batch_plans(self, first_step: int, last_step: int, rank: int, world: int, cached: frozenset[int]) -> Iterator[_BatchPlan]:
        """Yield what each step reads."""
        counts = self._batches_before(first_step)
        for step in range(first_step, last_step):
            pair = self._pair_of(step)
            batch = self.recipe.pairs[pair].batch
            share = batch // world
            rows, views = self._rows_at(pair, counts[pair] * batch + rank * share, share)
            counts[pair] += 1
            size = max(1, min(CHUNK, -(-share // max(1, self.recipe.run.workers))))
            which = (1,) if pair in cached else (0, 1)
            pieces = zip(_split(rows, size), _split(views, size), strict=True)
            yield _BatchPlan(pair, share, [ReadRequest(pair, some_rows, some_views, which) for some_rows, some_views in pieces])

    def _pair_of(self, step: int) -> int:
        """Return the pair of a step."""
        return int(self._pairs_of(step // BLOCK)[step % BLOCK])

    @lru_cache(maxsize=2)  # noqa: B019 - lives as long as the run
    def _pairs_of(self, block: int) -> np.ndarray:
        return augment.random(self.recipe.run.seed, "pair", block).choice(len(self._shares), BLOCK, p=self._shares)

    def _batches_before(self, step: int) -> list[int]:
        """Count the batches of each pair before a step."""
        blocks = [self._pairs_of(block)[: step - block * BLOCK] for block in range(-(-step // BLOCK))]
        return np.bincount(np.concatenate(blocks or [np.empty(0, int)]), minlength=len(self._shares)).tolist()

    def _rows_at(self, pair: int, first: int, size: int) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
        """Return the rows at places [first, first + size) of a pair's order, and the view of each."""
        rows, views = [], []
        count, fixed = len(self._readers[pair].rows), self.recipe.pairs[pair].views
        for place in range(first, first + size):
            number, at = divmod(place, count)
            rows.append(int(self._order(pair, number)[at]))
            views.append(number % fixed if fixed else number)
        return tuple(rows), tuple(views)

    @lru_cache(maxsize=4)  # noqa: B019 - lives as long as the run
    def _order(self, pair: int, number: int) -> np.ndarray:
        return augment.random(self.recipe.run.seed, "order", pair, number).permutation(len(self._readers[pair].rows))

    # -- reading them

    def _read(self, readers: Sequence[PairReader], plans: Iterator[_BatchPlan]) -> Iterator[tuple[int, int, Iterator[SampleChunk]]]:
        """Yield the pair, size and chunks of each batch; its chunks must be used up before the next batch is asked for."""
        waiting: list[tuple[int, int, int]] = []

        def requests() -> Iterator[ReadRequest]:
            for plan in plans:
                waiting.append((plan.pair, plan.size, len(plan.requests)))
                yield from plan.requests

        workers = self.recipe.run.workers
        largest = max(pair.batch for pair in self.recipe.pairs)
        ahead = max(2, -(-largest // (CHUNK * max(workers, 1))) + 1)  # about one batch
        chunks = read_ahead(ChunkReader(readers), requests(), workers, ahead)
        for first in chunks:
            pair, size, number = waiting.pop(0)
            yield pair, size, chain([first], islice(chunks, number - 1))

    def _collate(self, pair: int, size: int, chunks: Iterator[SampleChunk], anchors: Targets | None = None) -> Batch:
        """Copy chunks into one batch as they come, with the anchors from their cache if there is one."""
        ids: list[str] = []
        rows: list[int] = []
        views: list[Any] = []
        failures: list[Failure] = []
        inputs: list[Tensor] = []
        for chunk in chunks:
            inputs = inputs or [tensor.new_empty((size, *tensor.shape[1:])) for tensor in chunk.tensors]
            for whole, part in zip(inputs, chunk.tensors, strict=True):
                whole[len(rows) : len(rows) + len(part)] = part
            ids += chunk.ids
            rows += chunk.rows
            views += chunk.views
            failures += chunk.failures
        if anchors is not None:
            inputs.insert(0, anchors.read(rows, views))
        return Batch(pair, tuple(ids), self.groups(pair)[rows], (inputs[0], inputs[1]), anchors is not None, tuple(failures))


def _check_masks(pair: PairRecipe, rows: PairRows) -> None:
    """Check that every row has the mask by which its anchor is made blind to the background."""
    missing = [row["id"] for row in map(rows.rows.__getitem__, range(len(rows))) if "mask" not in row]
    if missing:
        why = "to be blind to the background, a row of a manifest needs the column `mask`, a picture's path"
        raise UserError(f"{pair.name}: {len(missing):,} of {len(rows):,} rows have no mask, the first {missing[0]}; {why}")


def _split(sequence: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(sequence[first : first + size]) for first in range(0, len(sequence), size)]
