"""The server that forks decoding processes, and what each of these does; `processes` has the parent's side."""

from __future__ import annotations

import gc
import os
import queue
import select
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.signals import heeded_signals
from imagebind_cli.sources import reason

if TYPE_CHECKING:
    from imagebind_cli.encoder import Read, Sample

    Message = tuple[Sample, bool] | Exception | None

READY = 4  # samples a worker keeps ready, beyond what its socket holds
WATCH_SECONDS = 0.05
ALONE = 0xFFFF  # the number of a worker for a single item, which asks for no other


class ForkedServer:
    """A server that is forked from this process, with the interface of `subprocess.Popen`. pid: its number. returncode: None until `wait`."""

    def __init__(self, control: socket.socket, asking: int, modules: Sequence[str]) -> None:
        """Fork the server with the arguments of `serve`, and close this process's copies of both channels."""
        self.returncode: int | None = None
        with warnings.catch_warnings(action="ignore"):  # Python warns that threads, which numpy starts, are not forked
            self.pid = os.fork()
        if self.pid == 0:
            try:
                _leave_parent({control.fileno(), asking})
                serve(str(control.fileno()), str(asking), *modules)
            finally:
                os._exit(1)
        control.close()
        os.close(asking)

    def kill(self) -> None:
        """End it at once, unless it has been waited for."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _leave_parent(kept: set[int]) -> None:
    """Give up what a forked process has of its parent: its session, signal handlers, stdin and stdout, and all open files but `kept`.

    Among these files are locks, which the parent must be able to release by itself.
    """
    gc.disable()  # the parent's objects would close their files, whose numbers other files may have by then
    os.setsid()
    for number in heeded_signals():
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def serve(control_descriptor: str, asking_descriptor: str, *modules: str) -> None:
    """Run the server: import the readers, then fork a worker for each socket that arrives, until the parent is gone."""
    warnings.simplefilter("ignore")
    control, asking = socket.socket(fileno=int(control_descriptor)), int(asking_descriptor)
    with _ending_with_the_parent(control):
        for name in modules:
            import_module(name)
    workers: set[int] = set()
    with suppress(EOFError, ConnectionError):  # the parent is gone
        with Connection(os.dup(control.fileno())) as connection:
            read = connection.recv()
        while (order := socket.recv_fds(control, 2, 1))[1]:
            number, (descriptor, *_) = int.from_bytes(order[0], "little"), order[1]
            if (worker := os.fork()) == 0:
                try:
                    control.close()
                    _work(Connection(descriptor), asking, number, read)
                finally:
                    os._exit(0)
            os.close(descriptor)
            workers.add(worker)
            workers -= {ended for ended in workers if os.waitpid(ended, os.WNOHANG)[0]}
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    os._exit(0)  # Python's own clean-up takes a second


@contextmanager
def _ending_with_the_parent(control: socket.socket) -> Iterator[None]:
    """End the server as soon as its parent is gone, also while it imports, which takes seconds or longer and reads no socket.

    The watching thread has ended when this context has, since a process with threads must not fork.
    """
    hung_up, over = select.poll(), threading.Event()
    hung_up.register(control, 0)  # a hang-up is reported in any case

    def watch() -> None:
        while not over.is_set():
            if hung_up.poll(WATCH_SECONDS * 1000):
                os._exit(0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _work(connection: Connection, asking: int, number: int, read: Read) -> None:
    """Run a worker. Its main thread receives items, so that it notices at once when the parent is gone."""
    import torch

    from imagebind_cli.media.isolation import read_in_place

    read_in_place()

    payloads: queue.SimpleQueue[Any] = queue.SimpleQueue()
    messages: queue.Queue[Message] = queue.Queue(READY)

    def ask() -> None:
        if number != ALONE:
            os.write(asking, number.to_bytes(2, "little"))

    def decode() -> None:
        torch.set_num_threads(1)  # the workers share the cores
        torch.get_num_threads()  # fixes the number for this thread
        with suppress(OSError):
            ask()
            while True:
                ask()  # for the item after the one that comes now
                for message in _messages(read, payloads.get()):
                    messages.put(message)

    def send() -> None:
        with suppress(OSError):
            while True:
                _send(connection, messages.get())

    for task in (decode, send):
        threading.Thread(target=task, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            payloads.put(connection.recv())


def _messages(read: Read, payload: Any) -> Iterator[Message]:
    """Yield what a worker sends for an item: each sample with whether it is the last, None for an item without samples, or the error."""
    previous: Sample | None = None
    failure: Exception | None = None
    try:
        for sample in read(payload):
            if previous is not None:
                yield previous, False
            previous = sample
    except UserError as error:
        failure = error
    except (OSError, ValueError, MemoryError) as error:
        failure = ValueError(reason(error))
    except Exception:
        failure = RuntimeError(f"in a decoding process:\n{traceback.format_exc()}")
    if previous is not None:
        yield previous, failure is None
    if previous is None or failure is not None:
        yield failure


def _send(connection: Connection, message: Message) -> None:
    if not isinstance(message, tuple):
        connection.send(message)
        return
    sample, last = message
    array = np.ascontiguousarray(sample.tensor.numpy())
    others = {entry.name: getattr(sample, entry.name) for entry in fields(sample) if entry.name != "tensor"}
    connection.send((last, array.dtype.str, array.shape, others))
    view = array.reshape(-1).view(np.uint8).data
    while view:
        view = view[os.write(connection.fileno(), view) :]
