"""`run`: the process around an application, from its socket to its end, at which requests that have begun are answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from imagebind_cli.errors import UserError
from imagebind_cli.signals import heeded_signals

if TYPE_CHECKING:
    from starlette.types import ASGIApp

SETTLING = 0.1  # seconds after the signal in which requests that are on their way are still read
CONNECTIONS = 1000  # at a time; further ones are answered that the server is busy
BACKLOG = 2048


def open_socket(host: str, port: int) -> socket.socket:
    """Open a socket to listen on. port: 0 for any that is free.

    Raises:
        UserError: there is no such address, or it is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, OverflowError) as error:
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        remedy = "; choose another with --port, or any that is free with --port 0" if in_use else ""
        raise UserError(f"{host}:{port}: {getattr(error, 'strerror', None) or error}{remedy}") from None
    opened.listen(BACKLOG)
    return opened


def address_of(opened: socket.socket) -> str:
    """Return the address of a socket: `http://127.0.0.1:8000`."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: ASGIApp, opened: socket.socket, ready: Callable[[Callable[[], None]], object] = lambda stop: None, grace: float | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return once requests that have begun are answered; the signal is then raised again.

    Args:
        opened: from `open_socket`. ready: called once requests are taken, with a function that ends the server as a signal does.
        grace: the longest time in seconds for the last answers.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        backlog=BACKLOG,
        timeout_graceful_shutdown=None if grace is None else int(grace),
    )
    _Server(config, ready).run([opened])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[Callable[[], None]], object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready(partial(setattr, self, "should_exit", True))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(SETTLING)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End gracefully on every signal that asks for it, and raise it again at the end, for its usual exit code."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in heeded_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        for captured in reversed(self._captured_signals):
            signal.raise_signal(captured)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)
