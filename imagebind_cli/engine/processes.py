"""Reading items in processes of their own. Threads that take short steps mostly wait for Python's one lock; processes each have one.

A server process imports the readers once and forks a worker for every socket it is sent. A worker asks for an item as soon as it begins
another, so that none waits for the slowest. Nothing outlives the parent: a worker ends when its socket does, in the middle of an item, too.
Imports no torch, so that the server can be launched before the parent has it.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib import import_module
from itertools import islice
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.sources import reason

if TYPE_CHECKING:
    from imagebind_cli.encoder import Sample

    Read = Callable[[Any], Iterator[Sample]]
    Message = tuple[Sample, bool] | Exception | None

POSSIBLE = sys.platform == "linux"
"""Whether a process that has imported torch may fork: the libraries of macOS do not allow it."""

READY = 4
"""Samples a worker keeps ready, beyond what its socket holds."""

MODEL = "imagebind_cli.model"
SOCKET_BYTES = 1 << 20
WAIT_SECONDS = 0.2
WATCH_SECONDS = 0.05
ALONE = 0xFFFF  # the number of a worker for one item, which asks for no other
SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from imagebind_cli.engine.processes import serve; serve(*sys.argv[2:])"


def default_workers(most: int = 8) -> int:
    """Items read at a time when the user does not say: one per core this process may use, up to so many."""
    return min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Processes:
    """Workers that read items; which of them takes an item is theirs to say.

    `start` is for one thread. What it returns is for another, which takes all samples of each item, in the order the items were started.
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        """modalities: whose readers are imported, once for all workers. Nothing is started yet."""
        self._modules = [MODEL, *(registry.ENCODERS[registry.encoder_name(modality)] for modality in modalities)]
        self._server: subprocess.Popen[bytes] | None = None
        self._workers: list[_Worker] = []
        self._changing = threading.Lock()
        self._closed = self._failed = self._up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def launched(self) -> bool:
        """Whether the server runs."""
        return self._server is not None

    def launch(self) -> None:
        """Start the server, if it does not run yet. It takes seconds to import what it needs; nothing waits for it."""
        with self._changing:
            if not self.launched and not self._closed and POSSIBLE:
                self._launch()

    def _launch(self) -> None:
        self._control, theirs = socket.socketpair()
        asked, asking = os.pipe()
        self._asked = Connection(asked, writable=False)
        self._events = select.poll()
        self._events.register(asked, select.POLLIN)
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(sys.path), str(theirs.fileno()), str(asking), *self._modules],
            pass_fds=(theirs.fileno(), asking),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # who waits for the end of the data must not wait for us
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        theirs.close()
        os.close(asking)

    def begin(self, read: Read, count: int) -> None:
        """Have that many workers for a reader: payload to samples, a function of a module or a `partial` of one. They are not up at once."""
        self.launch()
        with self._changing, suppress(ConnectionError):
            if self._closed or not self.launched:
                return
            with Connection(os.dup(self._control.fileno())) as control:
                control.send(read)
            for number in range(count):
                self._workers.append(_Worker(self._control, number))
                self._events.register(self._workers[-1].descriptor, 0)  # hanging up is told in any case

    def start(self, payload: Any) -> Iterator[Sample] | None:
        """The samples of an item, which a worker begins to read now; None where no worker is up yet, or none is left.

        The iterator raises what reading raised: ValueError with the reason where something is wrong with the input, `UserError`, or for
        a bug RuntimeError with the worker's traceback. Where a worker dies over an item, that is a ValueError, too.
        """
        while (worker := self._who_asks()) is not None:
            with suppress(ConnectionError):  # it has died since it asked
                worker.connection.send(payload)
                return self._samples(worker, payload)
        return None

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with self._changing:
            self._closed = True
            if self._server is None:
                return
            for worker in self._workers:
                worker.close()
            self._control.close()
            if not self._up:
                self._server.kill()  # in the middle of its imports
            self._server.wait()  # and it for the workers, so that their processor time counts as that of this process's children

    def _who_asks(self) -> _Worker | None:
        """A worker that asks for an item; once they are up it is waited for. Those that have died are replaced."""
        while self._workers and not self._closed and not self._failed:
            events = self._events.poll(WAIT_SECONDS * 1000 if self._up else 0)
            if (self._asked.fileno(), select.POLLIN) in events:
                worker = self._workers[int.from_bytes(os.read(self._asked.fileno(), 2), "little")]
                self._up = worker.asked = True
                return worker
            if not events and not self._up:
                return None
            for descriptor, _ in events:
                self._replace(descriptor)
        return None

    def _replace(self, descriptor: int) -> None:
        """A new worker for the one whose socket this is, which has hung up. One that did so before it ever asked would do so again."""
        with self._changing:
            if self._closed:
                return
            self._events.unregister(descriptor)
            dead = next((worker for worker in self._workers if worker.descriptor == descriptor), None)
            self._failed = True
            if dead is not None and dead.asked:
                with suppress(ConnectionError):  # the server is gone
                    self._workers[dead.number] = worker = _Worker(self._control, dead.number)
                    self._events.register(worker.descriptor, 0)
                    self._failed = False
                dead.close()

    def _samples(self, worker: _Worker, payload: Any) -> Iterator[Sample]:
        taken = 0
        try:
            for sample in worker.samples():
                yield sample
                taken += 1
        except (EOFError, ConnectionError):
            yield from islice(self._again(payload), taken, None)

    def _again(self, payload: Any) -> Iterator[Sample]:
        """The samples of an item whose worker died, over this item or another, from a worker that reads nothing else."""
        with suppress(EOFError, ConnectionError):
            alone = _Worker(self._control, ALONE)
            try:
                alone.connection.send(payload)
                yield from alone.samples()
                return
            finally:
                alone.close()
        raise ValueError("the process that read it died")


class _Worker:
    """The parent's end of a worker."""

    def __init__(self, control: socket.socket, number: int) -> None:
        """control: where the server takes orders; ConnectionError where it is gone. number: what the worker asks for items with."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            try:
                socket.send_fds(control, [number.to_bytes(2, "little")], [theirs.fileno()])
            except OSError:
                self._socket.close()
                raise
        self.number, self.descriptor = number, self._socket.fileno()
        self.connection = Connection(os.dup(self.descriptor))
        self.asked = False

    def samples(self) -> Iterator[Sample]:
        """The samples of the next item it was sent.

        Raises:
            EOFError, ConnectionError: it died. Else what reading raised.
        """
        import torch

        from imagebind_cli.encoder import Sample

        last = False
        while not last and (message := self.connection.recv()) is not None:
            if isinstance(message, Exception):
                raise message
            last, kind, shape, others = message
            array = np.empty(shape, kind)
            self._fill(array.reshape(-1).view(np.uint8).data)
            yield Sample(torch.from_numpy(array), **others)

    def _fill(self, view: memoryview) -> None:
        while view:
            count = os.readv(self.connection.fileno(), [view])
            if not count:
                raise EOFError
            view = view[count:]

    def close(self) -> None:
        """End it. Another thread may be sending to it, so that its connection is cut, and closed later."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def serve(control_descriptor: str, asking_descriptor: str, *modules: str) -> None:
    """The server's whole life: import the readers, then fork a worker for each socket that comes, until the parent is gone."""
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
    os._exit(0)  # Python would tidy up for a second


@contextmanager
def _ending_with_the_parent(control: socket.socket) -> Iterator[None]:
    """End the server as soon as its parent is gone. For its imports: they take seconds, on a busy machine many, and read no socket.

    The thread that watches has ended when this has, since a process with threads must not fork.
    """
    hung_up, over = select.poll(), threading.Event()
    hung_up.register(control, 0)  # hanging up is told in any case

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
    """A worker's whole life. Its main thread takes items in, so that it notices at once when the parent goes."""
    import torch

    payloads: queue.SimpleQueue[Any] = queue.SimpleQueue()
    messages: queue.Queue[Message] = queue.Queue(READY)

    def ask() -> None:
        if number != ALONE:
            os.write(asking, number.to_bytes(2, "little"))

    def decode() -> None:
        torch.set_num_threads(1)  # the workers share the cores
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
    """What a worker has to say of an item: its samples, and whether each is the last; None where there is none; or what went wrong."""
    held: Sample | None = None
    wrong: Exception | None = None
    try:
        for sample in read(payload):
            if held is not None:
                yield held, False
            held = sample
    except UserError as error:
        wrong = error
    except (OSError, ValueError, MemoryError) as error:
        wrong = ValueError(reason(error))
    except Exception:
        wrong = RuntimeError(f"in a decoding process:\n{traceback.format_exc()}")
    if held is not None:
        yield held, wrong is None
    if held is None or wrong is not None:
        yield wrong


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
