"""Embed inputs into a store: what `imagebind embed` does, without a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.items import first_of
from imagebind_cli.corpus.resume import Resume
from imagebind_cli.corpus.share import Share
from imagebind_cli.engine.processes import Processes
from imagebind_cli.events import Listener
from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Failure, Item, Passes, from_arguments, from_manifest, kept_beside, whole
from imagebind_cli.store import Row, Store, check_writable

if TYPE_CHECKING:
    from imagebind_cli.model import Model

Keep = Callable[[list[Row], tuple[str, ...]], object]
"""What takes an item's rows, and what was assumed to read it."""

Inputs = Iterable[str | Path] | Callable[[Passes], Iterator[Item | Failure]]
"""Files, folders, patterns or sentences; or what gives items, asking of each file in a folder whether it is to be passed over."""


def embed(
    model: Model,
    modality: str,
    inputs: Inputs,
    output: Path | str | Keep,
    *,
    manifest: Path | str | None = None,
    errors: Path | str | None = None,
    retry_errors: bool = False,
    verify: bool = False,
    share: Share | None = None,
    array: str = "float32",
    pool: str = "mean",
    batch_size: int | None = None,
    workers: int | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Listener:
    """Embed inputs, and add the vectors to a store. The same call again does what is left: what failed, is new, or has changed.

    Args:
        output: the store, in the format that its name ends in; or a function that takes each item's rows and the notes on how it was read.
        manifest: a JSONL, CSV or TSV file of the inputs, in place of `inputs`.
        errors: a file that keeps a JSON line for each failed input; those in it wait until they change. retry_errors: try only these.
        verify: tell a changed input by a hash of its content, and not by size and time.
        share: the part of the inputs to take; see `Share.name` for what to call its store.
        array: `float32` or `float16`, the number type of the store. pool: `mean`, or `none` for a row for each window.
        listener: hears what happens, and counts it. options: fields of the modality's options, e.g. `clips=3`.
    Returns:
        The listener, with its counts.
    Raises:
        UserError: the store cannot be written to, or was made otherwise; an option does not exist; a manifest cannot be read. A single bad
            input is a failure that the listener hears of.
    """
    if not callable(output):
        check_writable(Path(output))
    listener = Listener() if listener is None else listener
    with ExitStack() as stack:
        failures = FailureFile(Path(errors)) if errors is not None else None
        if failures is not None:
            stack.callback(failures.close)
        resume = Resume(listener, modality, share, failures, retry_errors, verify)
        first, items = first_of(job_items(modality, inputs, manifest, resume.passes))
        settings: dict[str, Any] = {"pool": pool, **prepared_options(first, modality), **options}
        processes = stack.enter_context(Processes([modality]))
        if callable(output):
            keep, stored = output, 0
        else:
            resume.store = store = stack.enter_context(Store(Path(output), model.made(modality, **settings) | {"array": array}))
            keep, stored = store.append, store.stored
        listener.begin(stored)
        chosen = resume.choose(items)
        for item, result in model.embed_items(modality, chosen, batch_size=batch_size, workers=workers, processes=processes, **settings):
            if isinstance(result, Failure):
                resume.failed(item.id)
                listener.failure(item.id, result.reason)
                if failures is not None:
                    failures.add(item.id, result.reason, item.stamp)
                continue
            listener.remarks(item.id, result.notes, result.warnings)
            beside, parts = kept_beside(item, (modality,)), result.embeddings
            keep([Row(item.id, part.vector, part.span, len(parts), beside, item.stamp) for part in parts], result.notes)
            listener.succeeded(item.id)
            if failures is not None:
                failures.done(item.id)
    return listener


def job_items(modality: str, inputs: Inputs, manifest: Path | str | None, passes: Passes) -> Iterator[Item | Failure]:
    """Yield the inputs of a job as items. passes: whether a file in a folder is to be passed over, as one that was done before."""
    if manifest is not None:
        return from_manifest(Path(manifest), (modality,))
    return inputs(passes) if callable(inputs) else from_arguments(map(str, inputs), (modality,), io.BytesIO(), passes=passes)


def prepared_options(first: Item | Failure | None, modality: str) -> dict[str, Any]:
    """The options that prepared samples were read with, as the first of them says; others that are asked for are refused with it."""
    payload = whole(getattr(first, "payload", None))
    return payload.made["inputs"][modality]["options"] if isinstance(payload, Prepared) else {}
