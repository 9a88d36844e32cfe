"""Calls into libraries that damaged files can crash, made in a separate process, so that a crash costs one file.

The process imports NumPy and that library alone, a fraction of a second, and is kept for the next file. No PyTorch is needed in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib import import_module
from typing import IO, Any

import numpy as np

from imagebind_cli.media.decoding import Source

SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from imagebind_cli.media.isolation import answer_calls; answer_calls()"

_idle: list[_Worker] = []
_lock = threading.Lock()


def call_apart(function: str, source: Source, *arguments: Any) -> np.ndarray:
    """Call a function on a file in a separate process, and return the array that it returns.

    Args:
        function: `module:name`; it takes a file, then the arguments, which must be of JSON's types.
    Raises:
        ValueError: the call raised one, or the process crashed. OSError: the file cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb"):  # what the system refuses is raised here, with its own words
            pass
    worker = _take()
    try:
        array = worker.call(function, source, arguments)
    except _Crash as crash:
        raise ValueError(str(crash)) from None
    except ValueError:
        _give_back(worker)
        raise
    _give_back(worker)
    return array


class _Crash(Exception):
    """The process ended in the middle of a call."""


class _Worker:
    """A process that answers one call at a time, for as long as its stdin is open."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        command = [sys.executable, "-c", SERVE, json.dumps(sys.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def call(self, function: str, source: Source, arguments: tuple[Any, ...]) -> np.ndarray:
        """Send a call and wait for its answer."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        path = os.path.abspath(source) if isinstance(source, str | os.PathLike) else None
        content = b"" if path is not None else _content(source)
        try:
            _send(requests, {"function": function, "path": None if path is None else os.fsdecode(path), "arguments": arguments}, content)
            answer, data = _receive(answers)
        except (EOFError, OSError):
            code = self._process.wait()
            raise _Crash(f"its library crashed on it ({f'signal {-code}' if code < 0 else f'exit code {code}'})") from None
        if "error" in answer:
            raise ValueError(answer["error"])
        return np.frombuffer(data, answer["dtype"]).reshape(answer["shape"])


def _content(file: Any) -> bytes:
    file.seek(0)
    content: bytes = file.read()
    file.seek(0)
    return content


def _take() -> _Worker:
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.owner == os.getpid():  # after a fork, the parent's belong to the parent
                return worker
    return _Worker()


def _give_back(worker: _Worker) -> None:
    with _lock:
        _idle.append(worker)


def _send(stream: IO[bytes], header: dict[str, Any], data: bytes | memoryview) -> None:
    stream.write(json.dumps({**header, "bytes": len(data)}).encode() + b"\n")
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytearray]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header = json.loads(line)
    data = bytearray(header["bytes"])  # so that the array made of it can be written to
    if stream.readinto(data) < len(data):  # type: ignore[attr-defined]
        raise EOFError
    return header, data


def answer_calls() -> None:
    """Answer calls on stdin until it is closed. What libraries print on stdout is dropped."""
    import io

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while True:
        try:
            request, content = _receive(sys.stdin.buffer)
        except EOFError:
            return
        module, _, name = request["function"].partition(":")
        source = io.BytesIO(content) if request["path"] is None else request["path"]
        try:
            array = np.ascontiguousarray(getattr(import_module(module), name)(source, *request["arguments"]))
        except Exception as error:  # the caller raises it again
            _send(answers, {"error": str(error) or type(error).__name__}, b"")
        else:
            _send(answers, {"dtype": array.dtype.str, "shape": array.shape}, array.reshape(-1).view(np.uint8).data)
