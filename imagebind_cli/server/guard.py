"""The guard of the server: which requests are admitted, how large they may be and how long they may take, and the headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagebind_cli.printable import printable
from imagebind_cli.server.limits import BUSY, Limits, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/", "/docs", "/openapi.json", "/.well-known/live", "/.well-known/ready"})  # hold nothing that a token protects
VECTORIZE = "/vectorize"
BODY_SECONDS = 60.0  # in which a body must arrive
DISCARDED = 4  # times the largest body: so much of a larger one is read, so that its sender hears why it was refused
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def is_loopback(host: str) -> bool:
    """Check whether an address or name is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets a request through to the application once its body is here, and refuses others with a reason.

    Args:
        token: that requests must carry as `Authorization: Bearer TOKEN`; None for none.
        hosts: the names that a request may call the server by; None for any. On a machine's own address they keep a page of another site,
            whose name was pointed here, from asking in the name of its visitor.
        answered: called with a request's path, status and seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        token: str | None = None,
        hosts: tuple[str, ...] | None = None,
        answered: Callable[[Scope, int, float], object] = lambda scope, status, seconds: None,
    ) -> None:
        self._app, self._limits, self._hosts, self._answered = app, limits, hosts, answered
        self._token = None if token is None else f"Bearer {token}".encode()
        self.held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope, began, status = {**scope}, time.monotonic(), 0  # the application adds the route that it found

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        try:
            await self._enter(scope, receive, send_on)
        finally:
            self._answered(scope, status, time.monotonic() - began)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            self._check(scope, headers)
            with self._room(headers) as room:
                body = await self._body(receive, room)
                if body is None:
                    return  # the client has gone
                others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
                scope["headers"] = [*others, (b"content-type", b"application/json")]  # Weaviate sends none
                await self._app(scope, _receiving(body, receive), send)
        except Refusal as refusal:
            await _refuse(send, scope["path"], refusal)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self._hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
            if name.strip("[]").lower() not in self._hosts:
                raise Refusal(421, f"this server does not answer to the name {printable(name)!r}; it answers to {', '.join(self._hosts)}")
        sent = headers.get(b"authorization", b"")
        if self._token is not None and scope["path"] not in OPEN and not hmac.compare_digest(sent, self._token):
            raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):  # a page of another site, in the name of its visitor
            raise Refusal(403, f"a page of {printable(origin.decode('latin-1'))!r} may not use this server")

    @contextmanager
    def _room(self, headers: dict[bytes, bytes]) -> Iterator[_Room]:
        length = headers.get(b"content-length", b"0")
        room = _Room(self, int(length) if length.isdigit() and len(length) < 20 else 0)
        try:
            yield room
        finally:
            room.leave()

    async def _body(self, receive: Receive, room: _Room) -> bytes | None:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    if room.take(len(message.get("body", b""))):
                        parts.append(message.get("body", b""))
                    else:
                        parts.clear()
                    if not message.get("more_body", False) or room.is_hopeless:
                        break
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
        room.check()
        return b"".join(parts)

    @property
    def limits(self) -> Limits:
        """Return what requests may take."""
        return self._limits


class _Room:
    """The memory that one body takes."""

    def __init__(self, guard: Guard, length: int) -> None:
        self._guard, self._came, self._kept = guard, 0, 0
        self._too_large = length > guard.limits.body
        self._too_many = guard.held + length > guard.limits.held

    def take(self, count: int) -> bool:
        """Count what has come, and return whether it is to be kept."""
        self._came += count
        self._too_large |= self._came > self._guard.limits.body
        self._too_many |= self._guard.held + count > self._guard.limits.held
        if self._too_large or self._too_many:
            self.leave()
            return False
        self._kept += count
        self._guard.held += count
        return True

    @property
    def is_hopeless(self) -> bool:
        """Check whether even reading it to its end is too much."""
        return self._came > DISCARDED * self._guard.limits.body

    def check(self) -> None:
        if self._too_large:
            raise Refusal(413, f"the request has more than {self._guard.limits.body:,} bytes; send fewer or smaller inputs")
        if self._too_many:
            raise Refusal(503, "busy: other requests fill the memory for them; try again later", BUSY)

    def leave(self) -> None:
        self._guard.held -= self._kept
        self._kept = 0


def _receiving(body: bytes, receive: Receive) -> Receive:
    """Return a body that is here as a message, and after it what comes of the connection."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_on() -> Message:
        return messages.pop() if messages else await receive()

    return receive_on


def error_body(path: str, status: int, reason: str) -> dict[str, object]:
    """Return the body of a refusal, in the form that OpenAI's clients read; Weaviate's reads another."""
    if path == VECTORIZE:
        return {"error": reason}
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": reason, "type": kind, "code": status}}


async def _refuse(send: Send, path: str, refusal: Refusal) -> None:
    body = json.dumps(error_body(path, refusal.status_code, refusal.reason)).encode()
    headers = [(name.encode(), value.encode()) for name, value in (refusal.headers or {}).items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
