"""A server in a thread of this process, and a client that speaks to it over a real socket."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.server import app, run
from imagebind_cli.server.process import open_socket


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The message of an error."""
        error = self.json["error"]
        return str(error if isinstance(error, str) else error["message"])


@dataclass(frozen=True)
class Client:
    """Asks a server on this machine, with a new connection each time."""

    port: int
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send JSON, or bytes as they are; names of headers have _ in place of -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, dict(self.headers) | {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def embed(self, **request: Any) -> Answer:
        return self.post("/v1/embeddings", request)

    def vectors(self, **request: Any) -> np.ndarray:
        """The vectors of inputs that are all good."""
        answer = self.embed(**request)
        assert answer.status == 200, answer.body
        return np.array([entry["embedding"] for entry in answer.json["data"]], np.float32)


@contextmanager
def serving(*arguments: Any, **options: Any) -> Iterator[Client]:
    """Serve `server.app(*arguments, **options)` until the end of the block."""
    opened = open_socket("127.0.0.1", 0)
    started = threading.Event()
    stops: list[Callable[[], None]] = []

    def ready(stop: Callable[[], None]) -> None:
        stops.append(stop)
        started.set()

    thread = threading.Thread(target=run, args=(app(*arguments, **options), opened, ready), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield Client(opened.getsockname()[1])
    finally:
        stops[0]()
        thread.join(30)


def data_address(path: Path | str, kind: str = "application/octet-stream") -> str:
    """The content of a file as a `data:` address."""
    return f"data:{kind};base64,{encoded(path)}"


def encoded(path: Path | str) -> str:
    """The content of a file in base64."""
    return base64.b64encode(Path(path).read_bytes()).decode()
