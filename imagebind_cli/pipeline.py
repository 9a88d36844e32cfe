"""Turn items into samples or unit vectors: decode in parallel, encode in batches, yield in input order, in bounded memory.

One thread takes items as they arrive and submits them to an engine, never more than a fixed number ahead; the calling thread has batches encoded.
Nothing waits for the end of the input, so an endless one works.

Memory is bounded by three numbers. At most `engine.workers + ahead` items are submitted and not yielded, besides the one being submitted; of
each, threads hold the next sample, and processes hold `decoding_server.READY` and a socket's worth of those that a worker has begun. `embed_items`
reads `batch_size` items ahead, and adds three batches of clips: one that fills, one under way, and on a CPU the one that follows it. Of a
finished clip only its vector is kept, until its item ends.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.cores import PendingVectors
from imagebind_cli.embedding import Embedded, Embedding
from imagebind_cli.encoder import Sample, Span
from imagebind_cli.engine import Engine
from imagebind_cli.errors import UserError
from imagebind_cli.media.clock import clock_text
from imagebind_cli.sources import Failure, Item, Regions, Stretch, reason

EPSILON = 1e-12  # the smallest length by which a vector is divided, as in `torch.nn.functional.normalize`
IDLE_SECONDS = 0.2  # without new input for so long, a batch is encoded before it is full: a slow producer sees its results


@dataclass
class _Open:
    """An item in progress: the vectors of its clips so far, and whether more will come.

    vectors: float32, one after the other in one growing block. Small tensors that stay, allocated between batches that are freed, would
    keep the C library from using the memory of those batches again: gigabytes over a long item.
    regions: by number of the clip. waiting: clips that are not encoded yet.
    """

    item: Item
    failure: Failure | None = None
    vectors: bytearray = field(default_factory=bytearray)
    spans: list[Span] = field(default_factory=list)
    regions: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)  # in order, each once
    warnings: list[str] = field(default_factory=list)
    began: datetime | None = None
    waiting: int = 0
    ended: bool = False


def embed_items(
    items: Iterable[Item | Failure],
    engine: Engine,
    encode: Callable[[Tensor], PendingVectors],
    *,
    batch_size: int,
    pool: str = "mean",
) -> Iterator[tuple[Item, Embedded | Failure]]:
    """Embed items in order: yield each with its embeddings or its `Failure`.

    Args:
        items: an iterable that may block or never end. A failure in it is yielded in its place, with an item that has no payload.
        engine: reads payloads; closed at the end.
        encode: clips (b, *shape) to vectors (b, dim), unit vectors unless their lengths are wanted; called in the calling thread. A batch
            for which it runs out of memory is halved, and later batches stay that small. Vectors that are computed while Python
            continues, on a GPU or side by side, are waited for only when the next batch is under way.
        batch_size: clips to encode at once.
        pool: `mean` for one vector per item, the mean of its clips' vectors made a unit vector again; `none` for one per time window.
            Regions are never averaged.
    """
    batches = _Batches(encode, batch_size)
    open_items: deque[_Open] = deque()

    def waiting() -> bool:
        return bool(batches.clips or batches.under_way)

    try:
        for step in decode(items, engine, ahead=batch_size, impatient=waiting):
            if step is None:
                batches.flush()
            else:
                _add_step(step, open_items, batches)
                if len(open_items) > 2 * batch_size:  # failures fill no batch, but wait behind one
                    batches.flush()
            yield from _finished(open_items, pool)
    except (UserError, OSError):  # the input itself failed: what came before is still yielded
        batches.flush()
        yield from _finished(open_items, pool)
        raise
    batches.flush()
    yield from _finished(open_items, pool)


_Entry = tuple[Item | Failure, Iterator[Sample]] | BaseException | None
Step = tuple[Item, Sample | Failure | None]  # an item with its next sample; at its end with None, or with the failure that ended it


def decode(
    items: Iterable[Item | Failure],
    engine: Engine,
    *,
    ahead: int,
    impatient: Callable[[], bool] = lambda: False,
) -> Iterator[Step | None]:
    """Read items in parallel and yield their samples in order, and None whenever nothing new came for `IDLE_SECONDS` while `impatient()`.

    An item that fails midway ends in a `Failure` of its id.

    Args:
        engine: reads payloads; closed at the end. ahead: items to submit beyond those that its workers read; the module says what they hold.
    """
    if not engine.workers:
        for item in items:
            yield from _steps(item, _samples(item, engine))
        engine.close()
        return
    stop = threading.Event()
    submitted: queue.Queue[_Entry] = queue.Queue(engine.workers + ahead)
    threading.Thread(target=_submit_all, args=(items, engine, submitted, stop), name="items", daemon=True).start()
    try:
        while True:
            try:
                entry = submitted.get(timeout=IDLE_SECONDS if impatient() else None)
            except queue.Empty:
                yield None
                continue
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield from _steps(*entry)
    finally:
        stop.set()
        engine.close()


def _samples(item: Item | Failure, engine: Engine) -> Iterator[Sample]:
    return iter(()) if isinstance(item, Failure) else engine.submit(item.payload, item.id)


def _steps(item: Item | Failure, samples: Iterator[Sample]) -> Iterator[Step]:
    if isinstance(item, Failure):
        yield Item(item.id, None), item
        return
    failure = None
    try:
        for sample in samples:
            yield item, sample
    except (OSError, ValueError, MemoryError) as error:
        failure = Failure(item.id, _reason(item.payload, item.id, error))
    yield item, failure


def _reason(payload: Any, id: str, error: BaseException) -> str:
    """Say why an item could not be read, with its path where its id does not name it."""
    if isinstance(payload, Regions):
        return _reason(payload.source, id, error)
    if isinstance(payload, Stretch):
        return _reason(payload.source, id.removesuffix(payload.label), error)
    if not isinstance(payload, str):
        return reason(error)
    return reason(error) if payload.endswith(id) else f"{payload}: {reason(error)}"


def _submit_all(items: Iterable[Item | Failure], engine: Engine, submitted: queue.Queue[_Entry], stop: threading.Event) -> None:
    """Submit every item and queue it with the iterator of its samples; at the end queue None, or the error that ended the input."""

    def put(entry: _Entry) -> bool:
        while not stop.is_set():
            try:
                submitted.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    try:
        for item in items:
            if not put((item, _samples(item, engine))):
                return
        put(None)
    except BaseException as error:
        put(error)


def _add_step(step: Step, items: deque[_Open], batches: _Batches) -> None:
    """Add one step to its item."""
    item, outcome = step
    if not items or items[-1].ended:
        items.append(_Open(item))
    current = items[-1]
    if isinstance(outcome, Sample):
        current.notes |= dict.fromkeys(outcome.notes)
        current.warnings += outcome.warnings
        current.began = current.began or outcome.began
        batches.add(current, outcome)
    else:
        current.failure, current.ended = outcome, True


_Clip = tuple[_Open, Tensor]


class _Batches:
    """Clips waiting for the encoder, across items."""

    def __init__(self, encode: Callable[[Tensor], PendingVectors], size: int) -> None:
        self.encode, self.size = encode, size
        self.clips: list[_Clip] = []
        self.under_way: tuple[list[_Clip], PendingVectors] | None = None

    def add(self, item: _Open, sample: Sample) -> None:
        item.regions |= enumerate(sample.regions, start=len(item.spans))
        item.spans += sample.spans
        item.waiting += len(sample.tensor)
        self.clips += [(item, clip) for clip in sample.tensor.unbind()]
        while len(self.clips) >= self.size:
            self._encode_batch()

    def flush(self) -> None:
        while self.clips or self.under_way:
            if self.clips:
                self._encode_batch()
            else:
                self._settle()

    def _encode_batch(self) -> None:
        shape = self.clips[0][1].shape  # pictures and videos share an encoder, not a shape
        batch = list(takewhile(lambda entry: entry[1].shape == shape, self.clips[: self.size]))
        try:
            vectors = self.encode(torch.stack([clip for _, clip in batch]))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            self._halve(batch, error)
            return
        del self.clips[: len(batch)]
        self._settle(followed_by=(batch, vectors))
        if isinstance(vectors, Tensor) and vectors.device.type == "cpu":
            self._settle()

    def _settle(self, followed_by: tuple[list[_Clip], PendingVectors] | None = None) -> None:
        """Wait for the pending vectors and give them to their items. `followed_by`: the batch that is under way from now on."""
        pending, self.under_way = self.under_way, followed_by
        if pending is None:
            return
        batch, vectors = pending
        try:
            rows = vectors.cpu().numpy()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            self._halve(batch, error)
            self._take_back(batch)
            return
        for (item, _), vector in zip(batch, rows, strict=True):
            item.vectors += vector.tobytes()
            item.waiting -= 1

    def _halve(self, batch: list[_Clip], error: RuntimeError) -> None:
        """Make later batches half as large as one for which there was not enough memory; raise any other error."""
        if not out_of_memory(error):
            raise error
        if len(batch) == 1:
            raise UserError(f"out of memory with a batch of one: {str(error).splitlines()[0]}") from None
        self.size = max(1, len(batch) // 2)

    def _take_back(self, batch: list[_Clip]) -> None:
        """Put the clips of a batch, and of the one that follows it, back in front of those that wait."""
        following, self.under_way = self.under_way, None
        if following is not None:
            with suppress(torch.OutOfMemoryError, RuntimeError):
                following[1].cpu()
            batch = batch + following[0]
        self.clips[:0] = batch


def out_of_memory(error: RuntimeError) -> bool:
    """Check whether an error says that there is not enough memory, so that a smaller batch may do."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _finished(items: deque[_Open], pool: str) -> Iterator[tuple[Item, Embedded | Failure]]:
    """Yield the items at the front that are complete."""
    while items and items[0].ended and not items[0].waiting:
        done = items.popleft()
        yield done.item, done.failure or _result(done, pool)


def _result(done: _Open, pool: str) -> Embedded | Failure:
    if not done.vectors:
        return Failure(done.item.id, "holds nothing to embed")
    if not np.isfinite(np.frombuffer(done.vectors, np.float32)).all():
        return Failure(done.item.id, "gives no finite vector: its values are too large, or not numbers")
    return Embedded(_pooled(done, pool), tuple(done.notes), tuple(done.warnings))


def _pooled(done: _Open, pool: str) -> list[Embedding]:
    """Average an item's vectors into one, or into one per time window: clips with the same span (a video's three crops) are one window.

    A region has its own vector in any case.
    """
    vectors = torch.frombuffer(done.vectors, dtype=torch.float32).view(len(done.spans), -1)
    groups: dict[Span | str | int, list[int]] = {}
    for i, span in enumerate(done.spans):
        groups.setdefault(i if i in done.regions else "all" if pool == "mean" else span, []).append(i)
    embeddings = []
    for key, members in groups.items():
        mean = vectors[members[0]] if len(members) == 1 else vectors[members].mean(dim=0)
        length = torch.linalg.vector_norm(mean)
        vector = (mean / length.clamp_min(EPSILON)).numpy()
        start = (done.spans[members[0]] or (0.0,))[0]
        clock = None if done.began is None else clock_text(done.began, start)
        span = key if isinstance(key, tuple) else None
        embeddings.append(Embedding(vector, span, clock, float(length), done.regions.get(members[0])))
    return embeddings
