"""Chunks of samples read ahead in worker processes, in the order they were asked for."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from imagebind_cli.errors import UserError
from imagebind_cli.training.samples import Chunk, PairReader, Request, read_chunk
from imagebind_cli.training.server import context

ROOM = "where shared memory is small, as in a container, give it --shm-size 8g, or set run.workers=0"


def read_ahead(readers: Sequence[PairReader], requests: Iterator[Request], workers: int, ahead: int) -> Iterator[Chunk]:
    """The chunk of each request, in order.

    Args:
        readers: by pair. workers: processes; 0 for this one. ahead: requests each of them may have taken beyond those asked for.
    Raises:
        UserError: as `read_chunk`.
    """
    options: dict[str, Any] = {"prefetch_factor": ahead, "multiprocessing_context": context()} if workers else {}
    loader: DataLoader[Chunk | UserError] = DataLoader(
        _Chunks(readers),
        batch_size=None,
        sampler=_Once(requests),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_start,
        generator=torch.Generator(),  # and not the process's own, whose state is the training's
        **options,
    )
    chunks = iter(loader)
    if workers:
        _running().add(chunks)
    try:
        for chunk in chunks:
            if isinstance(chunk, UserError):
                raise chunk
            yield chunk
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(f"a process that reads samples ended ({str(error).splitlines()[0]}); {ROOM}") from None
    finally:
        if workers:
            _end(chunks)
        del chunks, loader
        gc.collect()  # an error that is on its way out may end the process before its semaphores are given back, which Python then tells people


class _Chunks(Dataset[Chunk | UserError]):
    """Request to chunk. A `UserError` comes back as a value: raised, it would become a traceback on its way."""

    def __init__(self, readers: Sequence[PairReader]) -> None:
        self._readers = readers

    def __getitem__(self, request: Request) -> Chunk | UserError:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small work on many threads is slower, and rounds differently than in a worker process
        try:
            return _shared(read_chunk(self._readers[request.pair], request))
        except UserError as error:
            return error
        finally:
            torch.set_num_threads(threads)


def _shared(chunk: Chunk) -> Chunk:
    """In a worker, move the tensors to shared memory now: PyTorch would do it in a thread whose errors nobody hears, and the run would wait for ever.

    Raises:
        UserError: there is no room.
    """
    if get_worker_info() is not None:
        try:
            for tensor in chunk.tensors:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(f"no shared memory for what a process read ({error}); {ROOM}") from None
    return chunk


class _Once:
    """An iterator in the place of a sampler."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        return self._requests


def _as_it_is(chunk: Any) -> Any:
    """In place of PyTorch's conversions."""
    return chunk


def _start(_: int) -> None:
    """In a worker: end with the process that trains, even where that is killed. PyTorch watches the server, which outlives it for the workers."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end(chunks: Any) -> None:
    """End its workers, and those by force that PyTorch leaves running, whose SIGTERM does not reach them; then the threads that fed them."""
    chunks._shutdown_workers()
    for worker in chunks._workers:
        worker.kill()
    for queue in chunks._index_queues:
        if queue._thread is not None:  # it holds semaphores for as long as it runs
            queue._thread.join(1)


@cache
def _running() -> weakref.WeakSet[Any]:
    """Iterators with workers, to be ended before Python itself would send them SIGTERM, and wait."""
    running: weakref.WeakSet[Any] = weakref.WeakSet()

    def end() -> None:
        for chunks in list(running):
            _end(chunks)

    atexit.register(end)
    return running
