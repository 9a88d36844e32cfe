"""Embed inputs into a store: what `imagebind embed` does, without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.resume import CHANGED, Resume, has_changed
from imagebind_cli.corpus.share import Share
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.engine.processes import Processes
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.options import ReadingOptions, folders_are_frames
from imagebind_cli.prepared import Prepared
from imagebind_cli.registry import Face
from imagebind_cli.sources import BoxFile, Failure, Inputs, Item, Regions, kept_beside, whole_source
from imagebind_cli.space import Space
from imagebind_cli.store import Row, Store, check_writable

if TYPE_CHECKING:
    from imagebind_cli.embedding import Embedded
    from imagebind_cli.encoder import InputConfig
    from imagebind_cli.model import Model

Keep = Callable[[list[Row], tuple[str, ...]], object]
# Takes an item's rows, and what was assumed when it was read.


def embed(
    model: Model | Space | str | None,
    modality: str,
    inputs: Inputs | Iterable[str | Path],
    output: Path | str | Keep,
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
    may_fork: bool = False,
    **options: Any,
) -> Listener:
    """Embed inputs and add the vectors to a store. The same call again does what is left: failed, new and changed inputs.

    Args:
        model: a model, its name, or a `Space` that says on which device it runs. It is loaded once everything else is checked.
        inputs: files, folders, patterns or sentences, or `sources.Inputs`.
        output: the store, in the format that its name ends in; or a function that takes each item's rows and the notes on how it was read.
        manifest: a JSONL, CSV or TSV file of the inputs, in place of `inputs`.
        manifest_columns: names to give to its columns, as in `tabular.read_rows`: `{"image": "file_name"}`.
        boxes: a file of regions, as `sources.read_boxes` takes it: each region of an input is a row. Without inputs, those that it names.
        errors: a file that keeps a JSON line for each failed input; these are not tried again until they change. retry_errors: try only these.
        verify: recognise changed and renamed files by a hash of their content, and not by size and time.
        share: the part of the inputs to take; see `Share.name` for what to call its store.
        array: `float32` or `float16`, the number type of the store. pool: `mean`, or `none` for a row for each window.
        item_timeout: seconds that reading one input may take; one that takes longer is a failure. 0 for no limit.
        listener: receives and counts what happens.
        may_fork: fork the processes that read from this one, for a program whose other threads hold nothing; else they import what they need.
        options: fields of the modality's options, e.g. `clips=3`.
    Returns:
        The listener, with its counts.
    Raises:
        UserError: the store cannot be written to, or has another provenance; an option does not exist; a manifest cannot be read. A single bad
            input is a failure, which the listener receives.
    """
    face = registry.face(modality)
    reading = face.read_options(options)
    if not callable(output):
        check_writable(Path(output))
    listener = LogListener() if listener is None else listener
    given, frames = Inputs.of(inputs, manifest, manifest_columns).with_boxes(boxes, modality, listener.note), folders_are_frames(options)
    given.check_reading(reading)
    loaded = Space.of(model, listener).loaded
    with ExitStack() as stack:
        failures = FailureFile(Path(errors)) if errors is not None else None
        if failures is not None:
            stack.callback(failures.close)
            stack.callback(setattr, listener, "failures", listener.failures)
            listener.failures = failures
        resume = Resume(listener, modality, share, failures, retry_errors, verify)
        reading, items = with_prepared_options(given.items((modality,), resume.skips, frames), face, reading, loaded.config(modality))
        processes = stack.enter_context(Processes([modality]))
        if may_fork and not face.text:
            processes.keep_ready()
        if callable(output):
            keep, stored = output, 0
        else:
            record = loaded.record(modality, reading, pool) | given.record() | {"array": array}
            resume.store = store = stack.enter_context(Store(Path(output), record, keep_empty=share is not None))
            keep, stored = store.append, store.stored
        listener.begin(stored, partial(_count, given, modality, frames, share))
        chosen = resume.choose(items)
        embedded = loaded.embed_items(
            modality,
            chosen,
            options=reading,
            pool=pool,
            batch_size=batch_size,
            workers=workers,
            processes=processes,
            item_timeout=item_timeout,
        )
        for item, result in embedded:
            if not isinstance(result, Failure) and has_changed(item, [face]):
                result = Failure(item.id, CHANGED)  # noqa: PLW2901
            if isinstance(result, Failure):
                resume.failed(item.id)
                listener.failure(item.id, result.reason)
                continue
            listener.remarks(item.id, result.notes, result.warnings)
            keep(_rows(item, result, modality), result.notes)
            listener.succeeded(item.id)
    return listener


def _rows(item: Item, result: Embedded, modality: str) -> list[Row]:
    beside, count = kept_beside(item, (modality,)), len(result.embeddings)
    return [
        Row(item.id, part.vector, part.span, count, beside | dict(part.region or {}), item.stamp, part.clock) for part in result.embeddings
    ]


def with_prepared_options(
    items: Iterator[Item | Failure], face: Face, reading: ReadingOptions, config: InputConfig | None = None
) -> tuple[ReadingOptions, Iterator[Item | Failure]]:
    """Return the options with those that the first item was prepared with, if it was; and all items. A run with others is refused.

    Args:
        config: of the encoder, where it is known.
    Raises:
        UserError: the first item was prepared for an encoder that takes other inputs.
    """
    first = next(items, None)
    if first is None:
        return reading, items
    given = getattr(first, "payload", None)
    payload = whole_source(given)
    if isinstance(payload, Prepared) and not isinstance(given, Regions):  # which prepared samples do not have: each fails
        if config is not None:
            from imagebind_cli.readers import check_prepared

            check_prepared(payload, face, config)
        reading = face.read_options({**payload.provenance["inputs"][face.name]["options"], **reading.choices()})
    return reading, chain([first], items)


def _count(given: Inputs, modality: str, frames: bool, share: Share | None) -> int | None:
    total = given.count((modality,), frames)
    return total if total is None or share is None else total // share.count
