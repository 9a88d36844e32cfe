"""Read items in separate processes: threads that take short steps mostly wait for Python's one lock, of which each process has its own.

A server process has the readers imported and forks a worker for every socket it receives. It is itself forked where this process may be,
which takes a hundredth of a second, and else imports them, which takes seconds. A worker asks for its next item as soon as it begins one, so
that none waits for the slowest. Nothing outlives the parent: a worker ends when its socket closes, even in the middle of an item. This file
imports no torch, so that the server can be launched before the parent has imported it.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import islice
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from imagebind_cli.engine.decoding_server import ALONE, ForkedServer
from imagebind_cli.engine.item_timeout import overdue_reason
from imagebind_cli.prepared import Prepared
from imagebind_cli.registry import face
from imagebind_cli.sources import whole_source

if TYPE_CHECKING:
    from imagebind_cli.encoder import Read, Sample


POSSIBLE = sys.platform == "linux" and hasattr(os, "fork")  # a process that has imported torch must not fork on macOS; Windows cannot
MEASURED_SECONDS = 0.5  # for which threads read before their pace counts
WORTH_SHARE = 0.25  # of its time that the encoder may wait for threads
MODEL = "imagebind_cli.model"
SOCKET_BYTES = 1 << 20
WAIT_SECONDS = 0.2
SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from imagebind_cli.engine.decoding_server import serve; serve(*sys.argv[2:])"
)


class ProcessEngine:
    """Reads in threads first, and in processes once they are worth their start-up.

    They are where the encoder waits for its input for more than a quarter of the time. A slow encoder, which hardly ever does, keeps its
    memory and its cores to itself. Threads still read what no process can.
    """

    def __init__(self, read: Read, workers: int, processes: Processes, timeout: float = math.inf) -> None:
        """Set up threads. Processes are used at once if they were launched before; they are closed with the engine.

        timeout: seconds that reading one item may take.
        """
        from imagebind_cli.engine.threads import ThreadEngine

        self.workers = workers
        self._read, self._processes, self._timeout, self._began = read, processes, timeout, False
        self._first: float | None = None  # when reading began
        self._threads = ThreadEngine(read, workers, timeout)

    def submit(self, payload: Any, name: str = "") -> Iterator[Sample]:
        """Begin to read an item; see `Engine`."""
        if not _is_in_memory(payload):
            if not self._began and (self._processes.launched or self._are_worth_it()):
                self._processes.begin(self._read, self.workers)
                self._began = True
            samples = self._processes.submit(payload, self._timeout) if self._began else None
            if samples is not None:
                return samples
        return self._threads.submit(payload, name)

    def _are_worth_it(self) -> bool:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        return self._threads.waited > WORTH_SHARE * max(now - self._first, MEASURED_SECONDS)

    def close(self) -> None:
        """Stop the threads and end the processes, whatever is being read."""
        self._threads.close()
        self._processes.close()


def _is_in_memory(payload: Any) -> bool:
    """Check whether a payload is in the memory of this process alone, or has been read already: sending it would cost more than it gains."""
    parts = map(whole_source, payload.values() if isinstance(payload, dict) else (payload,))
    return any(isinstance(part, Prepared) or callable(part) for part in parts)


class Processes:
    """Worker processes that read items: whichever asks first gets the next item. Nothing is started before `launch` or `begin`.

    One thread calls `submit`; another takes the samples, as `Engine` says.
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        """modalities: those whose readers are imported, once for all workers."""
        self._modules = [MODEL, *(face(modality).module for modality in modalities)]
        self._server: subprocess.Popen[bytes] | ForkedServer | None = None
        self._workers: list[_Worker] = []
        self._changing = threading.Lock()
        self._closed = self._failed = self._up = self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def launched(self) -> bool:
        """Check whether the server was started to be used at once."""
        return self._server is not None and not self._kept

    def keep_ready(self) -> None:
        """Fork the server, for `begin` to find it, unless a GPU is in use. Only for a process whose other threads may be left behind.

        Call it before weights are loaded. Libraries that have computed with several threads do not mind, since the workers compute with one.
        """
        torch = sys.modules.get("torch")  # absent where a server has the model
        if not POSSIBLE or torch is None or torch.cuda.is_available():
            return
        for name in self._modules:
            import_module(name)
        with self._changing:
            if self._server is None and not self._closed:
                self._kept = True
                self._server = ForkedServer(*self._open_channels(), self._modules)

    def launch(self) -> None:
        """Start the server, unless it runs. It takes seconds to import what it needs; the caller need not wait for it."""
        with self._changing:
            if self._server is None and not self._closed and POSSIBLE:
                self._launch()

    def _open_channels(self) -> tuple[socket.socket, int]:
        """Open what connects this process with the server, and return the server's ends."""
        self._control, theirs = socket.socketpair()
        asked, asking = os.pipe()
        self._asked = Connection(asked, writable=False)
        self._events = select.poll()
        self._events.register(asked, select.POLLIN)
        return theirs, asking

    def _launch(self) -> None:
        theirs, asking = self._open_channels()
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(sys.path), str(theirs.fileno()), str(asking), *self._modules],
            pass_fds=(theirs.fileno(), asking),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # whoever reads the parent's stdout to its end must not wait for the server
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        theirs.close()
        os.close(asking)

    def begin(self, read: Read, count: int) -> None:
        """Order `count` workers that read with `read`, a function of a module or a `partial` of one. They need a while to come up."""
        self.launch()
        with self._changing, suppress(ConnectionError):
            if self._closed or self._server is None:
                return
            with Connection(os.dup(self._control.fileno())) as control:
                control.send(read)
            for number in range(count):
                self._workers.append(_Worker(self._control, number))
                self._events.register(self._workers[-1].descriptor, 0)  # a hang-up is reported in any case

    def submit(self, payload: Any, timeout: float = math.inf) -> Iterator[Sample] | None:
        """Have a worker read an item from now on, and return its samples; None while no worker is up, and when none is left.

        The iterator raises what reading raised: ValueError with the reason where something is wrong with the input, `UserError`, and for
        a bug RuntimeError with the worker's traceback. A worker that dies over an item also raises ValueError, and so does an item that takes
        longer than `timeout` seconds in all; its worker is ended.
        """
        while (worker := self._who_asks()) is not None:
            with suppress(ConnectionError):  # the worker has died since it asked
                worker.connection.send(payload)
                return self._samples(worker, payload, timeout)
        return None

    def close(self) -> None:
        """End all processes at once, whatever they are doing."""
        with self._changing:
            self._closed = True
            if self._server is None:
                return
            for worker in self._workers:
                worker.close()
            self._control.close()
            if not self._up:
                self._server.kill()  # in the middle of its imports
            self._server.wait()  # it waits for the workers, so that their processor time counts as that of this process's children

    def _who_asks(self) -> _Worker | None:
        """Return a worker that asks for an item, waiting for one once they are up, and replace those that have died."""
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
        """Replace the worker whose socket hung up. One that dies before it has ever asked would do so again, and ends the use of processes."""
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

    def _samples(self, worker: _Worker, payload: Any, timeout: float) -> Iterator[Sample]:
        taken = 0
        try:
            for sample in worker.samples(timeout):
                yield sample
                taken += 1
        except (EOFError, ConnectionError):
            yield from islice(self._again(payload, timeout), taken, None)

    def _again(self, payload: Any, timeout: float) -> Iterator[Sample]:
        """Read an item whose worker died, over this item or another, in a worker that reads nothing else."""
        with suppress(EOFError, ConnectionError):
            alone = _Worker(self._control, ALONE)
            try:
                alone.connection.send(payload)
                yield from alone.samples(timeout)
                return
            finally:
                alone.close()
        raise ValueError("the process that read it died")


class _Worker:
    """The parent's end of a worker."""

    def __init__(self, control: socket.socket, number: int) -> None:
        """Order a worker from the server.

        Args:
            control: where the server takes orders.
            number: with which the worker asks for items.
        Raises:
            ConnectionError: the server is gone.
        """
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

    def samples(self, timeout: float) -> Iterator[Sample]:
        """Receive the samples of the next item that was sent to it.

        Raises:
            EOFError, ConnectionError: the worker died. ValueError: they were waited for longer than `timeout` seconds; the worker is told to
                end. Otherwise what reading raised.
        """
        import torch

        from imagebind_cli.encoder import Sample

        last, left = False, timeout
        while not last:
            began = time.monotonic()
            if not self.connection.poll(None if left == math.inf else max(0.0, left)):
                self.shut_down()
                raise ValueError(overdue_reason(timeout))
            if (message := self.connection.recv()) is None:
                return
            left -= time.monotonic() - began
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
        """End the worker. Another thread may be sending to it: the connection is shut down here and closed when nobody uses it."""
        self.shut_down()
        self._socket.close()

    def shut_down(self) -> None:
        """Close the channel. The worker ends, and the thread that submits items replaces it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
