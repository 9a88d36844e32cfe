"""The connection to a running `imagebind serve`: a request in JSON, and its answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from imagebind_cli.errors import UsageError, UserError

PATIENCE = 60.0  # seconds for which a busy server is asked again
TIMEOUT = 600.0  # seconds without an answer


class ServerConnection:
    """A server at an address, which several threads may ask at a time. Nothing is sent before the first request.

    Args:
        address: `http://127.0.0.1:8000`. token: that the server wants.
    Raises:
        UsageError: it is not such an address.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise UsageError(f"{address!r} is not the address of a server, as http://127.0.0.1:8000")
        self.address, self._parts = address.rstrip("/"), parts
        self._headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._users = 0  # of `kept_open`; without one no connection is kept

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep connections open between requests, until the last of those who want this is done."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                left, self._idle = ([], self._idle) if self._users else (self._idle, [])
            for connection in left:
                connection.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request, again while the server is busy, and return the document that it answers.

        Args:
            body: a document of JSON.
        Raises:
            UserError: it cannot be reached, or refuses, with its reason.
        """
        data = None if body is None else json.dumps(body).encode()
        until = time.monotonic() + PATIENCE
        while True:
            status, content, again = self._send(method, path, data)
            if status == 503 and time.monotonic() < until:
                time.sleep(again)
                continue
            break
        try:
            answer = json.loads(content)
        except ValueError:
            raise UserError(f"{self.address}: answered {status}, and not as imagebind serve does") from None
        if status == 200 or (status == 422 and "data" in answer):
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        hint = "; set IMAGEBIND_TOKEN" if status == 401 else ""
        raise UserError(f"{self.address}: {message or f'answered {status}, and not as imagebind serve does'}{hint}")

    def _send(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes, float]:
        """Send a request; return the status, the body, and the seconds after which to ask again."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            connection = kept or self._open()
            try:
                connection.request(method, self._parts.path.rstrip("/") + path, data, self._headers)
                answer = connection.getresponse()
                result = answer.status, answer.read(), float(answer.getheader("Retry-After") or 1)
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if kept is None:  # one that was kept may have been closed since
                    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    raise UserError(f"{self.address}: {why}; is `imagebind serve` running there?") from None
                continue
            self._keep(connection)
            return result

    def _open(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(str(self._parts.hostname), self._parts.port, timeout=TIMEOUT)

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if self._users:
                self._idle.append(connection)
                return
        connection.close()
