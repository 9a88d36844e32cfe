"""A server on this machine that can be told to misbehave, and to answer as the Hugging Face hub."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Seen:
    """One request as the server saw it, and how many bytes of body it sent in answer."""

    path: str
    headers: Message
    sent: int = 0


@dataclass
class Site:
    """What a server has and how it behaves."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True  # False: ranges are served whatever If-Range says
    validators: bool = True
    chunked: bool = False
    length: bool = True
    longer: int = 0  # this much more is promised than there is
    shift: int = 0  # a range starts this much later than asked for
    passing: list[int] = field(default_factory=list)  # statuses of the next answers
    cuts: list[int] = field(default_factory=list)  # the next bodies end after so many bytes
    reset: bool = False  # cut with a TCP reset and not with an end
    changes: dict[str, bytes] = field(default_factory=dict)  # become `files` after a cut
    hold_at: int | None = None  # wait for `released` after so many bytes
    released: threading.Event = field(default_factory=threading.Event)

    def ranges_seen(self) -> list[str | None]:
        return [seen.headers.get("Range") for seen in self.seen]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        seen = Seen(self.path, self.headers)
        site.seen.append(seen)
        path = urlsplit(self.path).path
        self.close_connection = True
        if site.passing:
            return self.answer(site.passing.pop(0), {"Content-Length": "0"})
        if path in site.answers:
            status, headers, body = site.answers[path]
            self.answer(status, {"Content-Length": str(len(body)), **headers})
            self.wfile.write(body)
            return None
        if path not in site.files:
            return self.answer(404, {"Content-Length": "0"})
        self.send_file(site, seen, site.files[path])
        return None

    def send_file(self, site: Site, seen: Seen, body: bytes) -> None:
        tag = f'"{sha256(body)[:8]}"'
        headers = {"ETag": tag} if site.validators else {}
        start, status, whole = 0, 200, len(body)
        asked = self.headers.get("Range")
        if asked and site.ranges and (not site.if_range or self.headers.get("If-Range", tag) == tag):
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")) + site.shift, 206
            if start >= whole:
                return self.answer(416, {"Content-Range": f"bytes */{whole}", "Content-Length": "0"})
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        if site.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif site.length:
            headers["Content-Length"] = str(whole - start + site.longer)
        self.answer(status, headers)
        body = body[start:]
        cut = site.cuts.pop(0) if site.cuts else None
        self.send_body(site, seen, body[:cut])
        if site.chunked and cut is None:
            self.wfile.write(b"0\r\n\r\n")
        if cut is not None:
            site.files.update(site.changes)
            if site.reset:
                time.sleep(0.1)  # a reset throws away what the other side has not read yet
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None

    def send_body(self, site: Site, seen: Seen, body: bytes) -> None:
        hold_at = len(body) if site.hold_at is None else site.hold_at
        for piece in (body[:hold_at], body[hold_at:]):
            if site.chunked and piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            else:
                self.wfile.write(piece)
            seen.sent += len(piece)
            if site.hold_at is not None:
                site.released.wait(20)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no news."""

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the shutdown that comes first, which would turn a reset into an end


def serve() -> Iterator[Site]:
    handler = type("SiteHandler", (Handler,), {})
    with Server(("127.0.0.1", 0), handler) as server:
        handler.site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler.site
        handler.site.released.set()
        server.shutdown()
        thread.join()


def offer(site: Site, files: dict[str, bytes], revision: str | None = None, repository: str = "me/clip", **changed: dict[str, Any]) -> None:
    """Answer as the hub's API does for a repository. `changed` holds what it says wrongly about a file, by the name's stem."""
    siblings = []
    for name, content in files.items():
        sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
        if len(content) > 1000:
            sibling["lfs"] = {"size": len(content), "sha256": sha256(content), "pointerSize": 134}
        siblings.append(sibling | changed.get(name.split(".")[0], {}))
        site.files[f"/{repository}/resolve/{COMMIT}/{name}"] = content
    model = {"_id": "1", "id": repository, "modelId": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
    path = f"/api/models/{repository}" + (f"/revision/{revision}" if revision else "")
    site.answers[path] = (200, {"Content-Type": "application/json"}, json.dumps(model).encode())
