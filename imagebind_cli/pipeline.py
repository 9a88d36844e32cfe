"""Items in, samples or unit vectors out: decoded in parallel, encoded in batches, given back in input order, in bounded memory.

A reader thread takes items as they come and hands them to decoding threads, never more than a fixed number ahead; the calling thread
encodes. Nothing waits for the end of the input, so an endless one works.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.encoder import Sample, Span
from imagebind_cli.engine.processes import Processes
from imagebind_cli.errors import UserError
from imagebind_cli.prepared import Prepared
from imagebind_cli.sources import Failure, Item, Stretch, reason, whole_source

IDLE_SECONDS = 0.2
"""A batch that is not full goes to the encoder after this long without new input, so that a slow producer sees its results."""

WORTH_SECONDS = 2.0
"""About what it costs to start processes."""


@dataclass(frozen=True)
class Embedding:
    """One unit vector (dim,) float32. span: the seconds it stands for, where windows are kept apart."""

    vector: np.ndarray
    span: Span = None


@dataclass(frozen=True)
class Embedded:
    """What an item became. embeddings: one, or one for each window. notes: what was assumed to read it. warnings: what was lost of it."""

    embeddings: list[Embedding]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class _Open:
    """An item on its way: its clips' vectors so far, and whether more are to come.

    vectors: float32, one after the other in one growing block. Small tensors that stay, each allocated between batches that go, would
    keep the C library from using those batches' memory again: gigabytes over a long item.
    """

    item: Item
    failure: Failure | None = None
    vectors: bytearray = field(default_factory=bytearray)
    spans: list[Span] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # in order, each once
    warnings: list[str] = field(default_factory=list)
    waiting: int = 0
    ended: bool = False


def embed(
    items: Iterable[Item | Failure],
    read: Callable[[Any], Iterator[Sample]],
    encode: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    workers: int,
    pool: str = "mean",
    processes: Processes | None = None,
) -> Iterator[tuple[Item, Embedded | Failure]]:
    """Embed items in order: each comes out as it went in, beside its embeddings or its `Failure`.

    Args:
        items: an iterable that may block or never end; a failure in it comes out in its place, beside an item without a payload.
        read: payload to samples, as a modality's reader; run in threads.
        encode: clips (b, *shape) to unit vectors (b, dim); run in the calling thread. A batch for which it runs out of memory is
            halved, and later batches stay that small. Vectors on a GPU, which works on while Python does, are waited for only when
            the next batch is on its way.
        batch_size: clips to the encoder at once. workers: decoding threads, or in their place `processes`; see `decode`.
        pool: `mean` for one vector per item, the mean of its clips' made a unit vector again; `none` for one per time window.
    """
    batches = _Batches(encode, batch_size)
    open_items: deque[_Open] = deque()

    def waiting() -> bool:
        return bool(batches.clips or batches.under_way)

    try:
        for step in decode(items, read, workers=workers, ahead=batch_size, impatient=waiting, processes=processes):
            if step is None:
                batches.flush()
            else:
                _take_in(step, open_items, batches)
                if len(open_items) > 2 * batch_size:  # failures fill no batch, but wait behind it
                    batches.flush()
            yield from _finished(open_items, pool)
    except (UserError, OSError):  # the input itself broke: what came before it counts
        batches.flush()
        yield from _finished(open_items, pool)
        raise
    batches.flush()
    yield from _finished(open_items, pool)


Step = tuple[Item, Sample | Failure | None]
"""An item with its next sample; at its end with None, or with the failure that ended it."""


def decode(
    items: Iterable[Item | Failure],
    read: Callable[[Any], Iterator[Sample]],
    *,
    workers: int,
    ahead: int,
    impatient: Callable[[], bool] = lambda: False,
    processes: Processes | None = None,
) -> Iterator[Step | None]:
    """Read items in parallel and give their samples in order. None comes where nothing new came for `IDLE_SECONDS` and `impatient` holds.

    At most `workers + ahead` items wait to be given out. An item that breaks midway becomes a `Failure` of its id.

    processes: read in these, and end them, once threads have been waited for `WORTH_SECONDS`, or at once if they are launched already.
        `read` must then be a function of a module, or a `partial` of one. Many short items need it, whose steps are too short for threads.
    """
    stop = threading.Event()
    promised: queue.Queue[tuple[Item | Failure, Iterator[Sample]] | BaseException | None] = queue.Queue(workers + ahead)
    readers = _Readers(read, workers, processes)
    threading.Thread(target=_take, args=(items, readers, promised, stop), name="items", daemon=True).start()
    try:
        while True:
            try:
                entry = promised.get(timeout=IDLE_SECONDS if impatient() else None)
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
        readers.close()


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
    """Why an item could not be read, with its path where its id does not name it."""
    if isinstance(payload, Stretch):
        return _reason(payload.source, id.removesuffix(payload.label), error)
    if not isinstance(payload, str):
        return reason(error)
    return reason(error) if payload.endswith(id) else f"{payload}: {reason(error)}"


_Chunk = tuple[Sample | None, Iterator[Sample]]


class _Readers:
    """Threads that read items; processes in their place once they are worth what it costs to start them.

    Whoever waits for threads as long as processes take to start, and only then starts them, waits twice the least possible at most; a slow
    encoder, which never waits, keeps its memory and its cores to itself.
    """

    def __init__(self, read: Callable[[Any], Iterator[Sample]], workers: int, processes: Processes | None) -> None:
        self._read, self._workers = read, workers
        # One core for each thread: items side by side are faster than each of an item's operations cut in two.
        self._cores = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))
        self._waited = 0.0  # seconds, for what threads read
        self._processes, self._begun = processes, False

    def start(self, payload: Any) -> Iterator[Sample]:
        """The samples of an item, of which the first is read from now on, and each later one when the one before it is taken."""
        if self._processes is not None and self._workers > 1 and not _at_hand(payload):
            if not self._begun and (self._processes.launched or self._waited > WORTH_SECONDS):
                self._processes.begin(self._read, self._workers)
                self._begun = True
            samples = self._processes.start(payload) if self._begun else None
            if samples is not None:
                return samples
        return self._samples(self._threads.submit(self._chunk, self._read(payload)))

    def close(self) -> None:
        """Leave off, whatever is being read."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(self._cores)  # what later threads of this process start with; the readers changed it
        if self._processes is not None:
            self._processes.close()

    def _chunk(self, samples: Iterator[Sample]) -> _Chunk:
        """The next sample of an item, None at its end, and the rest."""
        return next(samples, None), samples

    def _samples(self, future: Future[_Chunk]) -> Iterator[Sample]:
        while True:
            began = time.monotonic()
            sample, rest = future.result()
            self._waited += time.monotonic() - began
            if sample is None:
                return
            future = self._threads.submit(self._chunk, rest)  # the next stretch is read while this one is used
            yield sample


def _at_hand(payload: Any) -> bool:
    """Whether another process could read nothing of it, or would have to be sent what is read already."""
    parts = map(whole_source, payload.values() if isinstance(payload, dict) else (payload,))
    return any(isinstance(part, Prepared) or callable(part) for part in parts)


def _take(items, readers, promised, stop) -> None:  # type: ignore[no-untyped-def]
    """Reader thread: put every item on the queue with the iterator of its samples; at the end None, or what went wrong."""

    def put(entry: object) -> bool:
        while not stop.is_set():
            try:
                promised.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    try:
        for item in items:
            if not put((item, iter(()) if isinstance(item, Failure) else readers.start(item.payload))):
                return
        put(None)
    except BaseException as error:
        put(error)


def _take_in(step: Step, items: deque[_Open], batches: _Batches) -> None:
    """File one step under its item."""
    item, came = step
    if not items or items[-1].ended:
        items.append(_Open(item))
    current = items[-1]
    if isinstance(came, Sample):
        current.notes |= dict.fromkeys(came.notes)
        current.warnings += came.warnings
        batches.add(current, came)
    else:
        current.failure, current.ended = came, True


class _Batches:
    """Clips waiting for the encoder, across items."""

    def __init__(self, encode: Callable[[Tensor], Tensor], size: int) -> None:
        self.encode, self.size = encode, size
        self.clips: list[tuple[_Open, Tensor]] = []
        self.under_way: tuple[list[_Open], Tensor] | None = None

    def add(self, item: _Open, sample: Sample) -> None:
        item.spans += sample.spans
        item.waiting += len(sample.tensor)
        self.clips += [(item, clip) for clip in sample.tensor]
        while len(self.clips) >= self.size:
            self._encode_some()

    def flush(self) -> None:
        while self.clips:
            self._encode_some()
        self._settle()

    def _encode_some(self) -> None:
        shape = self.clips[0][1].shape  # pictures and videos share an encoder, not a shape
        some = list(takewhile(lambda entry: entry[1].shape == shape, self.clips[: self.size]))
        try:
            vectors = self.encode(torch.stack([clip for _, clip in some]))
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if len(some) == 1:
                raise UserError(f"out of memory with a batch of one: {str(error).splitlines()[0]}") from None
            self.size = max(1, len(some) // 2)
            return
        del self.clips[: len(some)]
        self._settle()
        self.under_way = [item for item, _ in some], vectors
        if vectors.device.type == "cpu":
            self._settle()

    def _settle(self) -> None:
        """File the vectors that are under way under their items."""
        if self.under_way is None:
            return
        items, vectors = self.under_way
        self.under_way = None
        for item, vector in zip(items, vectors.cpu(), strict=True):
            item.vectors += vector.numpy().tobytes()
            item.waiting -= 1


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _finished(items: deque[_Open], pool: str) -> Iterator[tuple[Item, Embedded | Failure]]:
    """Take from the front what is complete."""
    while items and items[0].ended and not items[0].waiting:
        done = items.popleft()
        yield done.item, done.failure or _result(done, pool)


def _result(done: _Open, pool: str) -> Embedded | Failure:
    if not done.vectors:
        return Failure(done.item.id, "holds nothing to embed")
    if not np.isfinite(np.frombuffer(done.vectors, np.float32)).all():
        return Failure(done.item.id, "gives no finite vector: its values are too large, or no numbers")
    return Embedded(_pooled(done, pool), tuple(done.notes), tuple(done.warnings))


def _pooled(done: _Open, pool: str) -> list[Embedding]:
    """The item's one vector, or one for each time window: clips with the same span (a video's three crops) are one window."""
    vectors = torch.frombuffer(done.vectors, dtype=torch.float32).view(len(done.spans), -1)
    groups: dict[Span | str, list[int]] = {}
    for i, span in enumerate(done.spans):
        groups.setdefault("all" if pool == "mean" else span, []).append(i)
    embeddings = []
    for key, members in groups.items():
        vector = torch.nn.functional.normalize(vectors[members].mean(dim=0), dim=0).numpy()
        span = key if isinstance(key, tuple) else None
        embeddings.append(Embedding(vector, span))
    return embeddings
