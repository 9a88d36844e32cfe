"""Worker processes that read samples ahead, in the order in which they were requested.

Workers are forked from a server that has imported PyTorch once and holds neither a GPU nor threads.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from imagebind_cli.crashes import report_crashes
from imagebind_cli.errors import UserError, first_line
from imagebind_cli.signals import ENDING

SHARED_MEMORY = Path("/dev/shm")
SHARED_ROOM = 1 << 20  # bytes that the queues of a worker need there at least
SHARED_MEMORY_HINT = "where shared memory is small, as in a container, give it --shm-size 8g, or set run.workers=0"
PRELOADED = "imagebind_cli.training.samples"  # imported by the server, once for all workers
PICTURE_OPERATIONS = "imagebind_cli.media.picture_operations"  # as well, where pictures are augmented: it imports torchvision


class HasTensors(Protocol):
    """The result of a worker."""

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...


Request = TypeVar("Request")
Chunk = TypeVar("Chunk", bound=HasTensors)


def worker_context() -> Any:
    """Return the multiprocessing context that starts workers: never forked from this process, which may hold a GPU and threads.

    Ctrl-C, SIGTERM and SIGHUP reach all processes of a job. Workers block them, because the process that trains still needs its batch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return torch.multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED, *([PICTURE_OPERATIONS] if "torchvision" in sys.modules else [])])
    resource_tracker.ensure_running()  # which forkserver would do, and unblock the signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # inherited by the server and its workers
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def read_ahead(read: Callable[[Request], Chunk], requests: Iterator[Request], workers: int, ahead: int) -> Iterator[Chunk]:
    """Yield the chunk of each request, in order.

    Args:
        read: turns a request into a chunk; it is pickled where there are workers.
        workers: number of processes; 0 to read in this one.
        ahead: requests that each worker may read in advance.
    Raises:
        UserError: raised by `read`, a worker ended, or there is no shared memory for one.
    """
    if workers and SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < workers * SHARED_ROOM:
        raise UserError(f"{SHARED_MEMORY}: {free:,} bytes of shared memory are free, too few for {workers} workers; {SHARED_MEMORY_HINT}")
    options: dict[str, Any] = {"prefetch_factor": ahead, "multiprocessing_context": worker_context()} if workers else {}
    loader: DataLoader[Any] = DataLoader(
        _RequestDataset(read),
        batch_size=None,
        sampler=_RequestSampler(requests),
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # not the process's own, whose state belongs to the training
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
        raise UserError(f"a worker process ended ({first_line(error)}); {SHARED_MEMORY_HINT}") from None
    finally:
        if workers:
            _end_workers(chunks)
        del chunks, loader
        gc.collect()  # an error on its way out may end the process before its semaphores are released, about which Python would warn


class _RequestDataset(Dataset[Any]):
    """Maps a request to its chunk. A `UserError` is returned as a value: raised in a worker, it would become a traceback."""

    def __init__(self, read: Callable[[Any], HasTensors]) -> None:
        self._read = read

    def __getitem__(self, request: Any) -> HasTensors | UserError:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small work on many threads is slower, and rounds differently from a worker process
        try:
            return _move_to_shared_memory(self._read(request))
        except UserError as error:
            return error
        finally:
            torch.set_num_threads(threads)


def _move_to_shared_memory(chunk: HasTensors) -> HasTensors:
    """Move a worker's tensors to shared memory now. PyTorch would do so in a thread whose errors are lost, and the run would hang.

    Raises:
        UserError: shared memory is full.
    """
    if get_worker_info() is not None:
        try:
            for tensor in chunk.tensors:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(f"no shared memory for the samples that a worker read ({first_line(error)}); {SHARED_MEMORY_HINT}") from None
    return chunk


class _RequestSampler:
    """An iterator of requests in place of a sampler."""

    def __init__(self, requests: Iterator[Any]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[Any]:
        return self._requests


def _unchanged(chunk: Any) -> Any:
    """Return a chunk unchanged, in place of PyTorch's collation."""
    return chunk


def _prepare_worker(_: int) -> None:
    """Report crashes, and end with the process that trains, even if that is killed. PyTorch watches the server, which outlives it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: the signals are not blocked, see `worker_context`
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
    report_crashes()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end_workers(chunks: Any) -> None:
    """End the workers of an iterator, by force those that PyTorch leaves running since they block SIGTERM; then the threads that fed them."""
    chunks._shutdown_workers()
    for worker in chunks._workers:
        worker.kill()
    for queue in chunks._index_queues:
        if queue._thread is not None:  # it holds semaphores while it runs
            queue._thread.join(1)


@cache
def _running() -> weakref.WeakSet[Any]:
    """Return the set of iterators with workers. At exit they are ended before Python itself would send SIGTERM and wait."""
    running: weakref.WeakSet[Any] = weakref.WeakSet()

    def end() -> None:
        for chunks in list(running):
            _end_workers(chunks)

    atexit.register(end)
    return running
