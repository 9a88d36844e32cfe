"""Estimate what an embedding job would do: how many inputs and bytes, what is done already, and about how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli import registry
from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.job import with_prepared_options
from imagebind_cli.corpus.resume import Resume
from imagebind_cli.corpus.share import Share
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.options import ReadingOptions, folders_are_frames
from imagebind_cli.sources import BoxFile, Failure, Inputs, Item
from imagebind_cli.space import Space
from imagebind_cli.store import Row, Stamp, check_writable, open_store
from imagebind_cli.store.provenance import check_resumable
from imagebind_cli.store.writer import StoredIds

if TYPE_CHECKING:
    from imagebind_cli.model import Model

MEASURED = 32  # inputs that are embedded at most, to measure the rate
MEASURED_SECONDS = 10.0  # after which no further input is begun


@dataclass
class Estimate:
    """What a job would do.

    inputs: all there are. bytes: of the files that are left to do. done: inputs that the store has. repeated: those that come again.
    failed_before: those that an earlier run could not use. remaining: inputs to do. first: id of the first of them. vectors: how many it
    becomes. assumed: what was assumed to read it. failure: why it could not be used. measured: inputs that were embedded to measure the rate,
    in `measured_seconds`. device: what they were embedded on. seconds: the estimate for all that remain; None where nothing was measured.
    """

    modality: str
    inputs: int = 0
    bytes: int = 0
    done: int = 0
    repeated: int = 0
    failed_before: int = 0
    remaining: int = 0
    first: str | None = None
    vectors: int | None = None
    assumed: list[str] = field(default_factory=list)
    failure: str | None = None
    measured: int = 0
    measured_seconds: float = 0.0
    device: str | None = None
    seconds: float | None = None


class _Stored:
    """The inputs that a store has, for `Resume` to ask; nothing is opened for writing."""

    def __init__(self, path: Path) -> None:
        reader = open_store(path)
        self.path, self.provenance, self.stored = path, reader.provenance, len(reader)
        self._ids = StoredIds(reader.stamps, np.empty(0, np.int64))

    def stamp(self, id: str) -> Stamp | None:
        return self._ids.stamp(id)

    def append(self, rows: Iterable[Row]) -> None:
        """Write nothing, though a renamed input would be added."""


def estimate(
    model: Model | Space | str | None,
    modality: str,
    inputs: Inputs | Iterable[str | Path],
    output: Path | str | None = None,
    *,
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
    boxes: BoxFile | Path | str | None = None,
    errors: Path | str | None = None,
    retry_errors: bool = False,
    verify: bool = False,
    share: Share | None = None,
    array: str = "float32",
    pool: str = "mean",
    batch_size: int | None = None,
    workers: int | None = None,
    item_timeout: float = ITEM_SECONDS,
    listener: Listener | None = None,
    **options: Any,
) -> Estimate:
    """Estimate what `embed` with the same arguments would do. Nothing is written; the first inputs are embedded to measure the rate.

    Args:
        model: a model or a `Space`; or only its name, None for the default. No time is estimated from a name, or without the weights.
        output: the store, which need not exist.
    Raises:
        UserError: as `embed`.
    """
    from imagebind_cli.model import Model

    face = registry.face(modality)
    reading = face.read_options(options)
    if output is not None:
        check_writable(Path(output))
    listener = LogListener() if listener is None else listener
    given = Inputs.of(inputs, manifest, manifest_columns).with_boxes(boxes, modality, listener.note)
    given.check_reading(reading)
    if isinstance(model, Space):
        model = _loaded(model)
    plan, stored = Estimate(modality), None
    with ExitStack() as stack:
        failures = FailureFile(Path(errors)) if errors is not None and Path(errors).exists() else None
        if failures is not None:
            stack.callback(failures.close, tidy=False)
        resume = Resume(listener, modality, share, failures, retry_errors, verify)
        if output is not None and Path(output).exists():
            stored = resume.store = _Stored(Path(output))
        config = model.config(modality) if isinstance(model, Model) else None
        reading, items = with_prepared_options(given.items((modality,), resume.skips, folders_are_frames(options)), face, reading, config)
        if isinstance(model, Model) and stored is not None:
            check_resumable(stored.path, stored.provenance, model.record(modality, reading, pool) | given.record() | {"array": array})
        chosen = resume.choose(items)
        sample = list(islice(chosen, MEASURED))
        if isinstance(model, Model):
            settings = {"batch_size": batch_size, "workers": workers, "item_timeout": item_timeout}
            _measure(plan, model, sample, {"options": reading, "pool": pool, **settings})
        elif sample:
            _read_first(plan, model, sample[0], reading)
        _count(plan, sample)
        _count(plan, chosen)
    plan.done, plan.repeated, plan.failed_before = listener.skipped, listener.repeated, listener.failed_before
    plan.inputs = plan.remaining + plan.done + plan.repeated + plan.failed_before
    if plan.measured:
        plan.seconds = plan.remaining * plan.measured_seconds / plan.measured
    return plan


def _loaded(space: Space) -> Model | str | None:
    """Return the model of a space, or its name where its weights are not on this machine."""
    from imagebind_cli.weights.find import NotFetched

    try:
        return space.local
    except NotFetched as error:
        space.note(f"no time is estimated: {error}")
        return space.model if isinstance(space.model, str) else None


def _measure(plan: Estimate, model: Model, sample: list[Item | Failure], settings: dict[str, Any]) -> None:
    model.encoder(plan.modality)  # loading it is not part of the pace
    plan.device = str(model.device)
    started = time.monotonic()
    for item, result in model.embed_items(plan.modality, _in_time(sample, started), **settings):
        plan.measured += 1
        if plan.first is None:
            plan.first = item.id
            if isinstance(result, Failure):
                plan.failure = result.reason
            else:
                plan.vectors, plan.assumed = len(result.embeddings), list(result.notes)
    plan.measured_seconds = time.monotonic() - started


def _in_time(sample: list[Item | Failure], started: float) -> Iterator[Item | Failure]:
    for number, item in enumerate(sample):
        if number and time.monotonic() - started > MEASURED_SECONDS:
            return
        yield item


def _read_first(plan: Estimate, model: str | None, item: Item | Failure, reading: ReadingOptions) -> None:
    from imagebind_cli.readers import check_options, read_source, reader_of
    from imagebind_cli.weights.find import input_configs

    face, config = registry.face(plan.modality), input_configs(model, [plan.modality])[plan.modality]
    reader_of(face, config)
    check_options(face, config, reading)
    plan.first = item.id
    if isinstance(item, Failure):
        plan.failure = item.reason
        return
    try:
        notes = [note for sample in read_source(face, item.payload, config, reading) for note in sample.notes]
        plan.assumed = list(dict.fromkeys(notes))
    except (OSError, ValueError) as error:
        plan.failure = str(error)


def _count(plan: Estimate, items: Iterator[Item | Failure] | list[Item | Failure]) -> None:
    for item in items:
        plan.remaining += 1
        plan.bytes += max(0, item.stamp.size) if isinstance(item, Item) else 0
