"""A server on this machine that takes uploads as the Hugging Face hub does: its client talks to it as to the hub."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.site import COMMIT, sha256


@dataclass
class Hub:
    """What the server holds. files: by kind and repository (`models/me/mini`), then by name. objects: large files, by SHA-256.

    refuses: the status of every answer from now on. forgets: how many uploads of large files fail. private: repositories that are.
    """

    address: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)  # large files that came, by SHA-256
    tokens: list[str | None] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    refuses: int | None = None
    forgets: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        self.hub.tokens.append(self.headers.get("Authorization"))
        if self.hub.refuses is not None:
            self.answer({"error": "no"}, self.hub.refuses)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith((".safetensors", ".parquet")) else "regular" for name in names}
            self.answer({"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]})
        elif path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(body)["objects"])
        else:
            self.commit(path.removeprefix("/api/").split("/commit/")[0], [json.loads(line) for line in body.splitlines()])

    def create(self, about: dict[str, Any]) -> None:
        repository = f"{about.get('type', 'model')}s/{about['organization']}/{about['name']}"
        if repository in self.hub.files:
            return self.answer({"error": "exists", "url": f"{self.hub.address}/{repository}"}, 409)
        self.hub.files[repository] = {}
        if about.get("private") or about.get("visibility") == "private":
            self.hub.private.add(repository)
        return self.answer({"url": f"{self.hub.address}/{repository.removeprefix('models/')}"})

    def batch(self, wanted: list[dict[str, Any]]) -> None:
        upload = {each["oid"]: {"upload": {"href": f"{self.hub.address}/objects/{each['oid']}"}} for each in wanted}
        objects = [each | ({} if each["oid"] in self.hub.objects else {"actions": upload[each["oid"]]}) for each in wanted]
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, repository: str, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            about = entry["value"]
            if entry["key"] == "file":
                self.hub.files[repository][about["path"]] = base64.b64decode(about["content"])
            if entry["key"] == "lfsFile":
                self.hub.files[repository][about["path"]] = self.hub.objects[about["oid"]]
        self.answer({"commitUrl": f"{self.hub.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        if self.hub.forgets:
            self.hub.forgets -= 1
            return self.answer({"error": "gone"}, 403)
        assert sha256(body) == oid
        self.hub.objects[oid] = body
        self.hub.received.append(oid)
        return self.answer({})

    def answer(self, about: Any, status: int = 200) -> None:
        body = json.dumps(about).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve_hub() -> Iterator[Hub]:
    """Run a hub until the test ends."""
    handler = type("HubHandler", (Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler.hub
        server.shutdown()
        thread.join()
