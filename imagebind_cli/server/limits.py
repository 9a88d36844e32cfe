"""Limits of one request and of all together, and the refusal of one that asks for more."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException


@dataclass(frozen=True)
class Limits:
    """The limits of requests.

    body: bytes of one request, which holds files in base64, a third longer than they are. items: inputs of one request.
    pixels: of a picture; one whose header claims more is not unpacked. item_seconds: reading one input. seconds: from a request to its answer.
    waiting: inputs of all clients that wait for the model. held: bytes of all bodies in memory.
    """

    body: int = 64 << 20
    items: int = 256
    pixels: int = 50_000_000
    item_seconds: float = 60.0
    seconds: float = 120.0
    waiting: int = 4096
    held: int = 512 << 20


class Refusal(HTTPException):
    """A request that is not carried out: the status of the answer, and the reason, for people."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, reason, headers)
        self.reason = reason


BUSY = {"Retry-After": "1"}  # header of an answer to a request that may succeed later
