"""The parts that routes share: the model, the stores, the lanes in which inputs wait, and what is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import torch

from imagebind_cli import pipeline, registry
from imagebind_cli.cores import MOST_PARTS
from imagebind_cli.embedding import Embedded
from imagebind_cli.encoder import Sample
from imagebind_cli.engine import Engine, default_workers
from imagebind_cli.engine.calling_thread import CallingThread
from imagebind_cli.engine.threads import ThreadEngine
from imagebind_cli.errors import UserError
from imagebind_cli.options import ReadingOptions
from imagebind_cli.readers import check_options, read_source, reader_of
from imagebind_cli.server.contents import Content, Root, requested_options
from imagebind_cli.server.counts import Counts
from imagebind_cli.server.lanes import Lanes, Work
from imagebind_cli.server.limits import Limits, Refusal
from imagebind_cli.server.served_stores import ServedStores
from imagebind_cli.sources import Failure, Item, reason
from imagebind_cli.space import Space

SHORT_TEXT = 10_000  # letters of a sentence that takes much less time to read than any limit


class _Readers:
    """Threads that read the inputs of a lane, and stay for its next batch: new ones for each would leave memory behind.

    A payload is a function that begins to read.
    """

    def __init__(self, workers: int, timeout: float) -> None:
        self.workers, self._threads = workers, ThreadEngine(lambda payload: payload(), workers, timeout)

    def submit(self, payload: Any, name: str = "") -> Iterator[Sample]:
        """Begin to read an item; see `Engine`."""
        return self._threads.submit(payload, name)

    def close(self) -> None:
        """Do nothing at the end of a batch."""


class Service:
    """A model, and stores of its space, for the clients of a server.

    Args: as `server.app` takes them.
    Raises:
        UserError: no such model, store or root, or stores of another model.
    """

    def __init__(self, space: Space, stores: Sequence[str | Path], index: str | None, root: Path | None, limits: Limits) -> None:
        self.space, self.limits, self.counts = space, limits, Counts()
        space.item_timeout = limits.item_seconds
        self.root = None if root is None else Root(root)
        self.stores = ServedStores(space, stores, index)
        self.model = space.local
        self._cores = torch.get_num_threads()
        self.lanes = Lanes(limits, self.counts.batch, begin=partial(torch.set_num_threads, self._cores))
        self.counts.gauges["imagebind_waiting_inputs", "Inputs that wait for the model."] = lambda: self.lanes.waiting
        self._workers = space.workers or default_workers()
        self._lock, self._readers = threading.Lock(), dict[str, _Readers]()
        self._defaults: dict[str, ReadingOptions] = {}

    def own_space(self, note: Callable[[str], None] | None = None) -> Space:
        """Return a space of the model for one request, so that what it admits is forgotten with it."""
        space = self.space
        return Space(
            self.model, batch_size=space.batch_size, workers=space.workers, item_timeout=space.item_timeout, note=note or space.note
        )

    def options(self, modality: str, chosen: Any) -> ReadingOptions:
        """Return the reading options of a modality with those that a request chooses.

        Raises:
            ValueError, UserError: the model has no encoder for this modality, or not these options.
        """
        if not chosen and modality in self._defaults:
            return self._defaults[modality]
        options, face, config = requested_options(modality, chosen), registry.face(modality), self.model.config(modality)
        reader_of(face, config)
        check_options(face, config, options)
        if not chosen:
            self._defaults[modality] = options
        return options

    async def embed(self, contents: Sequence[Content | Failure], pool: str = "mean") -> list[Embedded | Failure | Exception]:
        """Embed inputs in the lanes of their modalities, and return the outcome of each.

        One that cannot be used becomes a failure or an exception, and is no fault of the others.

        Raises:
            Refusal: too many wait already, or it took too long.
        """
        outcomes: list[Any] = list(contents)
        lanes: dict[tuple[str, ReadingOptions], list[int]] = {}
        for number, content in enumerate(contents):
            if isinstance(content, Content):
                lanes.setdefault((content.modality, content.options), []).append(number)
        futures = [
            self.lanes.submit(
                modality, self._embed, (modality, options, pool), [contents[number] for number in numbers], self._threads(modality)
            )
            for (modality, options), numbers in lanes.items()
        ]
        for numbers, results in zip(lanes.values(), await self._in_time(futures), strict=True):
            for number, result in zip(numbers, results, strict=True):
                outcomes[number] = result
        return outcomes

    def _embed(self, key: tuple[str, ReadingOptions, str], contents: list[Content]) -> Iterator[Embedded | Failure]:
        modality, options, pool = key
        alone = len(contents) == self.lanes.batches == 1  # nothing else needs a core
        torch.set_num_threads(
            self._cores if alone else self._cores // self._threads(modality)
        )  # reading threads change the default for all
        face, config = registry.face(modality), self.model.config(modality)
        sources = (content.readable(self.limits) for content in contents)
        items = [
            Item(content.name, partial(read_source, face, source, config, options))
            for content, source in zip(contents, sources, strict=True)
        ]
        results = pipeline.embed_items(
            iter(items),
            self._engine(modality, contents),
            partial(self.model.begin_encoding, modality),
            batch_size=self.space.batch_size or self.model.batch_size(modality),
            pool=pool,
        )
        for _, result in results:
            self.counts.read(modality, *((0, 1) if isinstance(result, Failure) else (1, 0)))
            yield result

    def _threads(self, modality: str) -> int:
        """Return how many batches to encode at a time: as many as there are cores, if they are of sentences and still pictures.

        More cores than parts of a batch, and a GPU, compute one batch at a time; so do all for longer inputs, whose batches have all sizes and
        would leave memory behind in each thread.
        """
        few = self.model.device.type == "cpu" and self._cores <= MOST_PARTS
        return self._cores if few and not registry.face(modality).timed else 1

    def _engine(self, modality: str, contents: Sequence[Content]) -> Engine:
        if all(isinstance(content.payload, str) and len(content.payload) <= SHORT_TEXT for content in contents):
            return CallingThread(lambda payload: payload())
        with self._lock:
            if modality not in self._readers:
                self._readers[modality] = _Readers(self._workers, self.limits.item_seconds)
            return self._readers[modality]

    async def answer(self, lane: str, work: Work, key: Hashable, thing: Any) -> Any:
        """Put one thing in a lane and wait for its result.

        Raises:
            Refusal: too many wait already, it took too long, or the request cannot be carried out.
        """
        ((result,),) = await self._in_time([self.lanes.submit(lane, work, key, [thing])])
        return result_of(result)

    async def _in_time(self, futures: Sequence[Future[list[Any]]]) -> list[list[Any]]:
        try:
            async with asyncio.timeout(self.limits.seconds):
                results = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        except TimeoutError:
            results = [asyncio.CancelledError()]
        finally:
            for future in futures:
                future.cancel()
        if any(isinstance(result, asyncio.CancelledError) for result in results):
            raise Refusal(504, f"not answered within {self.limits.seconds:g} s")
        return results  # type: ignore[return-value]  # a lane gives no other exceptions


def result_of(outcome: Any) -> Any:
    """Return a result, or raise the exception in its place.

    Raises:
        Refusal: the request cannot be carried out, with the reason.
    """
    if isinstance(outcome, UserError | ValueError | OSError):
        raise Refusal(422, reason(outcome)) from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
