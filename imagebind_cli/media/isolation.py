"""Read files in a separate process, so that a library's crash, a hang or a decompression bomb costs that file alone.

The process imports NumPy and the reader's libraries, but not PyTorch, in a fraction of a second, and is kept for the next file. Its memory is
limited to `MEMORY`, and it ends with its parent.
"""

from __future__ import annotations

import atexit
import gc
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Self

from imagebind_cli.media.decoding import Source, check_file
from imagebind_cli.media.pipes import PipeConnection

MEMORY = 2_000_000_000  # bytes that reading one file may take
SOCKET_BYTES = 1 << 20
SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from imagebind_cli.media.isolation import serve_files; serve_files(*sys.argv[2:])"
INHERITS = hasattr(select, "poll")  # sockets can be inherited, and their hang-up is reported; on Windows pipes take their place

_idle: list[_Worker] = []
_lock = threading.Lock()
_in_place = threading.Event()
_thread = threading.local()


def read_in_place() -> None:
    """Read files in this process from now on; for a process whose own crash costs only one file."""
    _in_place.set()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Limit how long this thread waits for files read in a separate process; after that, a `ValueError` is raised."""
    before, _thread.deadline = _deadline(), time.monotonic() + seconds
    try:
        yield
    finally:
        _thread.deadline = before


def _deadline() -> float:
    deadline: float = getattr(_thread, "deadline", math.inf)
    return deadline


class Apart:
    """The result of a function of a file, in a separate process. Its attributes and methods are reached by name.

    Use it as a context manager. Arguments and results are pickled on their way between the two processes.
    """

    def __init__(self, function: str, source: Source, *arguments: Any) -> None:
        """Call a function on a file.

        Args:
            function: `module:name`; it takes the file, then the arguments.
        Raises:
            ValueError: the process crashed, or took too long. Otherwise what the function raised.
        """
        check_file(source)
        self._worker: _Worker | _Session = _Session() if _in_place.is_set() else _take()
        try:
            self._worker.ask("make", function, source if _in_place.is_set() else _portable(source), arguments)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def result(self) -> Any:
        """Return the whole result."""
        return self._worker.ask("result")

    def get(self, *names: str) -> tuple[Any, ...]:
        """Return attributes of the result."""
        values: tuple[Any, ...] = self._worker.ask("get", names)
        return values

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the result."""
        return self._worker.ask("call", name, arguments)

    def iterate(self, name: str, *arguments: Any) -> Iterator[Any]:
        """Call a method that returns an iterator, and yield its items one at a time."""
        self._worker.ask("begin", name, arguments)
        while (item := self._worker.ask("following")) is not None:
            yield item[0]

    def close(self) -> None:
        """Release the file."""
        with suppress(ValueError):  # the process has ended
            self._worker.ask("close")
        if isinstance(self._worker, _Worker) and self._worker.alive:
            with _lock:
                _idle.append(self._worker)
        self._worker = _Session()


def call_apart(function: str, source: Source, *arguments: Any) -> Any:
    """Call a function on a file in a separate process, and return its result; see `Apart`."""
    with Apart(function, source, *arguments) as made:
        return made.result()


def processor_seconds() -> float:
    """Return the processor time of this process and of the separate ones that have read files for it, none of which is reading one now."""
    with _lock:
        return time.process_time() + sum(worker.ask("processor_seconds") for worker in _idle if worker.owner == os.getpid())


def _portable(source: Source) -> str | bytes:
    """Return a file's path, or the bytes of an open file, which is left at its first byte."""
    if isinstance(source, str | os.PathLike):
        return os.path.abspath(source)
    source.seek(0)
    content = source.read()
    source.seek(0)
    return content


class _Session:
    """Hold the result for one file at a time, and answer requests about it."""

    made: Any = None
    items: Iterator[Any] = iter(())

    def ask(self, name: str, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    def make(self, function: str, source: Source, arguments: tuple[Any, ...]) -> None:
        module, _, name = function.partition(":")
        self.made = getattr(import_module(module), name)(source, *arguments)

    def result(self) -> Any:
        return self.made

    def get(self, names: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(getattr(self.made, name) for name in names)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self.made, name)(*arguments)

    def begin(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.items = iter(getattr(self.made, name)(*arguments))

    def following(self) -> tuple[Any] | None:
        return next(((item,) for item in self.items), None)

    def processor_seconds(self) -> float:
        return time.process_time()

    def close(self) -> None:
        leave = getattr(self.made, "__exit__", None)
        self.made, self.items = None, iter(())
        if leave is not None:
            leave(None, None, None)


class _Worker:
    """The parent's end of a process that answers as a `_Session`, for as long as its socket is open."""

    def __init__(self) -> None:
        self.owner, self.alive = os.getpid(), True
        self._connection: Connection | PipeConnection
        command = [sys.executable, "-c", SERVE, json.dumps(sys.path)]
        if not INHERITS:
            pipe, group = subprocess.PIPE, getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Ctrl-C is for the parent alone
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, creationflags=group)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._connection = PipeConnection(self._process.stdout, self._process.stdin)
            return
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent alone
            )
        self._connection = Connection(ours.detach())

    def ask(self, name: str, *arguments: Any) -> Any:
        """Send a request and wait for the answer.

        Raises:
            ValueError: the process crashed, or took too long. Otherwise what was raised there.
        """
        if not self.alive:
            raise ValueError("the process that read it has ended")
        began = time.monotonic()
        try:
            self._connection.send((name, *arguments))
            if not self._connection.poll(None if _deadline() == math.inf else max(0.0, _deadline() - began)):
                raise ValueError(f"not read within {time.monotonic() - began:.0f} s")
            error, answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._end()
            raise ValueError(f"its library crashed on it ({f'signal {-code}' if code < 0 else f'exit code {code}'})") from None
        except BaseException:  # Ctrl-C, too: the pending answer would be taken for that of the next request
            self.kill()
            raise
        if error is not None:
            raise error
        return answer

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._end()

    def _end(self) -> int:
        self.alive = False
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._connection.close()


def _take() -> _Worker:
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.owner == os.getpid():  # after a fork, the parent's workers stay with the parent
                return worker
    return _Worker()


@atexit.register
def _end_idle() -> None:
    for worker in _idle:
        if worker.owner == os.getpid():
            worker.kill()


def serve_files(descriptor: str | None = None) -> None:
    """Answer requests on a socket until it is closed; without one, those on stdin, on what was stdout."""
    import io
    import warnings

    warnings.simplefilter("ignore")
    session = _Session()
    connection: Connection | PipeConnection
    if descriptor is None:
        connection = PipeConnection.of_this_process()
    else:
        connection = Connection(int(descriptor))
        threading.Thread(target=_end_with_parent, args=(int(descriptor),), daemon=True).start()
    gc.freeze()  # imported objects are not garbage
    _limit_memory()
    with suppress(EOFError, OSError):
        while True:
            name, *arguments = connection.recv()
            if name == "make" and isinstance(arguments[1], bytes):
                arguments[1] = io.BytesIO(arguments[1])
            try:
                answer: tuple[Exception | None, Any] = None, session.ask(name, *arguments)
            except Exception as error:
                answer = _portable_error(error), None
            connection.send(answer)
            if name == "close":
                gc.collect()  # PyAV's containers are cycles that hold a decoder's threads, each with memory of its own


def _portable_error(error: Exception) -> Exception:
    """Return an error that the parent can raise: Python's errors and ours unchanged, others as a `RuntimeError` with their message."""
    if type(error).__module__ == "builtins" or type(error).__module__.startswith("imagebind_cli."):
        return error
    if isinstance(error, MemoryError):  # a subclass from NumPy or PyAV
        return MemoryError(str(error))
    return RuntimeError(str(getattr(error, "strerror", None) or error) or type(error).__name__)


def _end_with_parent(descriptor: int) -> None:
    """End this process when the socket hangs up, even while a library hangs."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # a hang-up is reported in any case
    hung_up.poll()
    os._exit(0)


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # Windows has no such module, macOS no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
