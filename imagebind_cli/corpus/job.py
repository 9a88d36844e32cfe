"""Embed inputs into a store: what `imagebind embed` does, without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.corpus.items import Inputs, first_of, open_items
from imagebind_cli.corpus.resume import Resume
from imagebind_cli.corpus.share import Share
from imagebind_cli.engine.limits import ITEM_SECONDS
from imagebind_cli.engine.processes import Processes
from imagebind_cli.events import Listener
from imagebind_cli.options import folders_are_frames
from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Failure, Item, kept_beside, whole_source
from imagebind_cli.store import Row, Store, check_writable

if TYPE_CHECKING:
    from imagebind_cli.model import Model

Keep = Callable[[list[Row], tuple[str, ...]], object]
# Takes an item's rows, and what was assumed when it was read.


def embed(
    model: Model,
    modality: str,
    inputs: Inputs,
    output: Path | str | Keep,
    *,
    manifest: Path | str | None = None,
    manifest_columns: Mapping[str, str] | None = None,
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
) -> Listener:
    """Embed inputs and add the vectors to a store. The same call again does what is left: failed, new and changed inputs.

    Args:
        output: the store, in the format that its name ends in; or a function that takes each item's rows and the notes on how it was read.
        manifest: a JSONL, CSV or TSV file of the inputs, in place of `inputs`.
        manifest_columns: names to give to its columns, as in `tabular.read_rows`: `{"image": "file_name"}`.
        errors: a file that keeps a JSON line for each failed input; these are not tried again until they change. retry_errors: try only these.
        verify: recognise changed and renamed files by a hash of their content, and not by size and time.
        share: the part of the inputs to take; see `Share.name` for what to call its store.
        array: `float32` or `float16`, the number type of the store. pool: `mean`, or `none` for a row for each window.
        item_timeout: seconds that reading one input may take; one that takes longer is a failure. 0 for any time.
        listener: receives and counts what happens. options: fields of the modality's options, e.g. `clips=3`.
    Returns:
        The listener, with its counts.
    Raises:
        UserError: the store cannot be written to, or has another provenance; an option does not exist; a manifest cannot be read. A single bad
            input is a failure, which the listener receives.
    """
    if not callable(output):
        check_writable(Path(output))
    listener = Listener() if listener is None else listener
    with ExitStack() as stack:
        failures = FailureFile(Path(errors)) if errors is not None else None
        if failures is not None:
            stack.callback(failures.close)
            stack.callback(setattr, listener, "failures", listener.failures)
            listener.failures = failures
        resume = Resume(listener, modality, share, failures, retry_errors, verify)
        first, items = first_of(open_items((modality,), inputs, manifest, manifest_columns, resume.passes, folders_are_frames(options)))
        reading = registry.face(modality).read_options({**prepared_options(first, modality), **options})
        processes = stack.enter_context(Processes([modality]))
        if callable(output):
            keep, stored = output, 0
        else:
            resume.store = store = stack.enter_context(Store(Path(output), model.record(modality, reading, pool) | {"array": array}))
            keep, stored = store.append, store.stored
        listener.begin(stored)
        chosen = resume.choose(items)
        embedded = model.embed_items(
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
            if isinstance(result, Failure):
                resume.failed(item.id)
                listener.failure(item.id, result.reason)
                continue
            listener.remarks(item.id, result.notes, result.warnings)
            beside, parts = kept_beside(item, (modality,)), result.embeddings
            keep([Row(item.id, part.vector, part.span, len(parts), beside, item.stamp, part.clock) for part in parts], result.notes)
            listener.succeeded(item.id)
    return listener


def prepared_options(first: Item | Failure | None, modality: str) -> dict[str, Any]:
    """Return the options that prepared samples were read with, according to the first; a run with others is refused."""
    payload = whole_source(getattr(first, "payload", None))
    return payload.provenance["inputs"][modality]["options"] if isinstance(payload, Prepared) else {}
