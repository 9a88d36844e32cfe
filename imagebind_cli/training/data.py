"""Mini-batches of pairs: which rows a step takes, read ahead in worker processes, the same on every number of them.

A mini-batch is of one pair of modalities (ImageBind appendix C), drawn by the recipe's weights. Each pair's rows come in one long order, a new
permutation for each pass over them; a step takes the next `batch` of it. All of it follows from the seed and the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Failure
from imagebind_cli.training import augment
from imagebind_cli.training.batch import Batch
from imagebind_cli.training.recipe import Pair, Recipe
from imagebind_cli.training.rows import ANCHOR_AND_OTHER, KEYS, Data, Packed, read_data
from imagebind_cli.training.samples import Chunk, PairReader, Request
from imagebind_cli.training.sides import PICTURES, TIMED, sides_of
from imagebind_cli.training.workers import read_ahead

if TYPE_CHECKING:
    from imagebind_cli.training.anchors import AnchorCache

T = TypeVar("T")

Step = tuple[int, int, list[Request]]
"""The pair of a step, its samples, and what is read for them."""

CHUNK = 16
"""Samples a worker reads at once, at most."""

BLOCK = 1024
"""Steps whose pairs are drawn together."""

CHECKED = 5
"""Rows that are tried before a modality is taken for unreadable."""


def open_pairs(recipe: Recipe, configs: Mapping[str, EncoderConfig], split: str = "data") -> PairData:
    """A recipe's data, looked at before the first step: rows counted, one of each modality read.

    Args:
        configs: by encoder name, as in a `ModelConfig`.
        split: `data`, or `val`, which a pair may lack.
    Raises:
        UserError: no such file, no usable row, an option or augmentation that does not fit, a batch larger than the data, nothing readable.
    """
    return PairData(recipe, configs, split)


NOTHING = Data(Packed(()), torch.empty((0, KEYS), dtype=torch.int64), torch.empty(0, dtype=torch.int64), (), (), 0, None)


class PairData:
    """The rows of each pair of a recipe, and the batches made of them. Get one from `open_pairs`."""

    def __init__(self, recipe: Recipe, configs: Mapping[str, EncoderConfig], split: str) -> None:
        self._recipe, self._split = recipe, split
        self._lines: list[str] = []
        self._readers = tuple(self._open(number, pair, configs) for number, pair in enumerate(recipe.pairs))
        shares = np.array([pair.weight for pair in recipe.pairs])
        self._shares = shares / shares.sum()

    def _open(self, number: int, pair: Pair, configs: Mapping[str, EncoderConfig]) -> PairReader:
        sides, patterns = sides_of(pair, configs), getattr(pair, self._split)
        if not patterns and self._split == "data":
            raise UserError(f"{pair.name}: no data; give --data, or pairs.{number}.data in the recipe")
        data = read_data(patterns, pair.modalities, self._recipe.run.workers) if patterns else NOTHING
        if self._split == "data" and len(data) < pair.batch:
            raise UserError(
                f"{pair.name}: {len(data):,} pairs and a batch of {pair.batch:,}; set pairs.{number}.batch to no more than that"
            )
        reader = PairReader(number, data, sides, self._recipe.run.seed, pair.aligned)
        if patterns:
            self._lines += [f"{pair.name}: {line}" for line in (*_counted(data, pair, patterns, self._split), *_tried(reader))]
        return reader

    @property
    def counts(self) -> list[int]:
        """Samples of each pair."""
        return [len(reader.data) for reader in self._readers]

    def lines(self) -> list[str]:
        """What there is and what was assumed to read it, in words, for the plan."""
        return self._lines

    def reader(self, pair: int) -> PairReader:
        """What reads a pair's rows."""
        return self._readers[pair]

    def name(self, pair: int) -> str:
        """A pair's name, `image-depth`."""
        return self._recipe.pairs[pair].name

    def views(self, pair: int) -> int:
        """How many fixed views a pair's rows have; 0 for a fresh one every time."""
        return self._recipe.pairs[pair].views

    def ids(self, pair: int) -> list[str]:
        """The ids of a pair's rows."""
        data = self._readers[pair].data
        return [data.id(row) for row in range(len(data))]

    def groups(self, pair: int) -> Tensor:
        """(n,) int64: rows that share a number are no negatives of each other."""
        return self._readers[pair].data.groups

    def steps_per_epoch(self, world: int = 1) -> int:
        """Steps until the first pair's rows have come `replicate` times.

        Raises:
            UserError: a batch cannot be shared out among `world` processes.
        """
        for number, pair in enumerate(self._recipe.pairs):
            if pair.batch % world:
                raise UserError(f"{pair.name}: a batch of {pair.batch} for {world} processes; set pairs.{number}.batch to a multiple")
        first = self._recipe.pairs[0]
        return max(1, round(self.counts[0] * first.replicate / first.batch / self._shares[0]))

    def batches(
        self, first_step: int, last_step: int, rank: int = 0, world: int = 1, anchors: Mapping[int, AnchorCache] | None = None
    ) -> Iterator[Batch]:
        """The batches of steps [first_step, last_step), or one process's part of each.

        Args:
            rank, world: this process of how many; each takes its stretch of the batch.
            anchors: by pair, where the anchors' vectors are read in place of their files.
        """
        anchors = anchors or {}
        readers = [
            replace(reader, unreadable=anchors[reader.number].unreadable) if reader.number in anchors else reader
            for reader in self._readers
        ]
        for pair, size, chunks in self._read(readers, self._requests(first_step, last_step, rank, world, frozenset(anchors))):
            yield self._batch(pair, size, chunks, anchors.get(pair))

    def samples(self, pair: int, rows: Sequence[int], view: int | None = None) -> Iterator[Batch]:
        """Some rows in small batches, in order; those that cannot be read are left out and reported.

        Args:
            view: number of the augmentation; None for the middle of everything.
        """
        steps = ((pair, len(some), [Request(pair, some, (view,) * len(some), replace=False)]) for some in _pieces(rows, CHUNK))
        held: Batch | None = None  # until it is known what could not be read behind it
        lost: tuple[Failure, ...] = ()
        for _, _, chunks in self._read(self._readers, steps):
            chunk = next(chunks)
            if chunk.rows:
                if held is not None:
                    yield replace(held, failures=lost)
                    lost = ()
                held = self._batch(pair, len(chunk.rows), iter([chunk]))
            lost += chunk.failures
        if held is None:
            raise UserError(
                f"{self._recipe.pairs[pair].name}: none of {len(rows)} samples can be read; the first, {lost[0].id}: {lost[0].reason}"
            )
        yield replace(held, failures=lost)

    def anchors(self, pair: int, wanted: Iterable[tuple[int, range]]) -> Iterator[Iterator[Chunk]]:
        """For each (view, rows) the anchors alone, in chunks; those that cannot be read are left out and reported."""
        steps = (
            (pair, len(rows), [Request(pair, tuple(some), (view,) * len(some), (0,), replace=False) for some in _pieces(rows, CHUNK)])
            for view, rows in wanted
        )
        return (chunks for _, _, chunks in self._read(self._readers, steps))

    # -- which rows

    def _requests(self, first_step: int, last_step: int, rank: int, world: int, cached: frozenset[int]) -> Iterator[Step]:
        """(pair, samples, requests) for each step."""
        taken = self._taken_before(first_step)
        for step in range(first_step, last_step):
            pair = self._turn(step)
            batch = self._recipe.pairs[pair].batch
            share = batch // world
            rows, views = self._rows(pair, taken[pair] * batch + rank * share, share)
            taken[pair] += 1
            size = max(1, min(CHUNK, -(-share // max(1, self._recipe.run.workers))))
            sides = (1,) if pair in cached else (0, 1)
            pieces = zip(_pieces(rows, size), _pieces(views, size), strict=True)
            yield pair, share, [Request(pair, some, views, sides) for some, views in pieces]

    def _turn(self, step: int) -> int:
        """The pair of a step."""
        return int(self._turns(step // BLOCK)[step % BLOCK])

    @lru_cache(maxsize=2)  # noqa: B019 - lives as long as the run
    def _turns(self, block: int) -> np.ndarray:
        return augment.random(self._recipe.run.seed, "pair", block).choice(len(self._shares), BLOCK, p=self._shares)

    def _taken_before(self, step: int) -> list[int]:
        """Batches of each pair before a step."""
        blocks = [self._turns(block)[: step - block * BLOCK] for block in range(-(-step // BLOCK))]
        return np.bincount(np.concatenate(blocks or [np.empty(0, int)]), minlength=len(self._shares)).tolist()

    def _rows(self, pair: int, first: int, size: int) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
        """The rows at places [first, first + size) of a pair's order, and the view of each."""
        rows, views = [], []
        count, fixed = len(self._readers[pair].data), self._recipe.pairs[pair].views
        for place in range(first, first + size):
            number, at = divmod(place, count)
            rows.append(int(self._order(pair, number)[at]))
            views.append(number % fixed if fixed else number)
        return tuple(rows), tuple(views)

    @lru_cache(maxsize=4)  # noqa: B019 - lives as long as the run
    def _order(self, pair: int, number: int) -> np.ndarray:
        return augment.random(self._recipe.run.seed, "order", pair, number).permutation(len(self._readers[pair].data))

    # -- reading them

    def _read(self, readers: Sequence[PairReader], steps: Iterator[Step]) -> Iterator[tuple[int, int, Iterator[Chunk]]]:
        """(pair, samples, its chunks) for each step; a step's chunks must be used up before the next step is asked for."""
        waiting: list[tuple[int, int, int]] = []

        def requests() -> Iterator[Request]:
            for pair, size, some in steps:
                waiting.append((pair, size, len(some)))
                yield from some

        workers = self._recipe.run.workers
        largest = max(pair.batch for pair in self._recipe.pairs)
        ahead = max(2, -(-largest // (CHUNK * max(workers, 1))) + 1)  # about one batch
        chunks = read_ahead(readers, requests(), workers, ahead)
        for first in chunks:
            pair, size, number = waiting.pop(0)
            yield pair, size, chain([first], islice(chunks, number - 1))

    def _batch(self, pair: int, size: int, chunks: Iterator[Chunk], anchors: AnchorCache | None = None) -> Batch:
        """Chunks copied into one batch as they come, with the anchors from their cache if there is one."""
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


def _pieces(whole: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(whole[i : i + size]) for i in range(0, len(whole), size)]


def _counted(data: Data, pair: Pair, patterns: Sequence[str], split: str) -> Iterator[str]:
    """How many rows there are, how many cannot be used, and how many are like another."""
    yield f"{len(data):,} pairs from {', '.join(patterns)}"
    if data.first_left_out is not None:
        yield f"{data.left_out:,} left out, the first {data.first_left_out.id}: {data.first_left_out.reason}"
    sizes = data.groups.bincount()
    groups, largest = int(sizes.count_nonzero()), int(sizes.max())
    if groups == len(data):
        return
    counted = f"{groups:,} group{'s' if groups > 1 else ''}, the largest of {largest:,} pairs"
    names = f"id, group, {' or '.join(pair.modalities)}"
    if split == "val":
        yield f"{counted}: R@1 counts any pair of one {names} as found, where `retrieve --pairs ids` counts one id alone"
    else:
        yield f"{counted}: pairs of one {names} are no negatives of each other"
    if 2 * largest > len(data) and pair.loss != "regression":
        yield f"{largest / len(data):.0%} of the pairs are in one group: little can be learnt or scored where so few are told apart"


def leaks(data: PairData, val: PairData) -> Iterator[str]:
    """Yield what pairs of a validation share with those that are trained on: files, not sentences, of which many pairs may have the same."""
    for number in range(len(data.counts)):
        trained = data.reader(number)
        keys, known = val.reader(number).data.keys, trained.data.keys
        for side, place in zip(trained.sides, ANCHOR_AND_OTHER, strict=True):
            seen = int(torch.isin(keys[:, place], known[:, place]).sum())
            if seen and side.modality != "text":
                told = f"{seen:,} of {len(keys):,} have the {side.modality} of a pair that is trained on"
                yield f"{data.name(number)}: {told}; their scores are too high"


def _tried(reader: PairReader) -> Iterator[str]:
    """One row of each modality read, with what was assumed.

    Raises:
        UserError: the first few cannot be.
    """
    for number, side in enumerate(reader.sides):
        failure = ""
        for row in range(min(CHECKED, len(reader.data))):
            try:
                (sample,) = reader.read(row, 0, (number,))
                break
            except (OSError, ValueError) as error:
                failure = failure or f"{reader.data.id(row)}: {error}"
        else:
            raise UserError(f"{reader.data.files[0]}: nothing of its first {min(CHECKED, len(reader.data))} rows can be read; {failure}")
        if failure:
            yield f"cannot be read: {failure}"
        for note in (*sample.notes, *sample.warnings):
            yield f"{side.modality}: {note}"
        given = reader.data.rows[row]
        if "file" in given and isinstance(reader.data.payloads(given, (side.modality,))[side.modality], Prepared):
            drawn = "windows are drawn from the prepared ones" if side.modality in TIMED else "read as prepared"
            if side.augment and side.encoder in PICTURES:
                drawn = f"crops are taken from prepared squares of {side.config.shape[-1]} x {side.config.shape[-1]}"
            yield f"{side.modality}: {drawn}"
