"""The door of the server: tokens, names, other sites, bodies that are too large, too slow, half sent or no JSON; and what answers carry."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from imagebind_cli import Model
from imagebind_cli.server import Limits, guard
from tests import generate
from tests.serving import Client, data_address, serving

LIMITS = Limits(body=200_000, items=8, pixels=100_000, item_seconds=5, seconds=30, held=500_000)


@pytest.fixture(scope="module")
def client(tiny: Model) -> Iterator[Client]:
    with serving(tiny, limits=LIMITS, hosts=guard.LOCAL_NAMES) as client:
        yield client


def raw(client: Client, *parts: bytes, finish: bool = True) -> bytes:
    """Send bytes as they are; what comes back until the server closes the connection, or answers."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        if not finish:
            return b""
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def head(length: int | None, *more: bytes) -> bytes:
    lines = [b"POST /v1/embeddings HTTP/1.1", b"Host: localhost", b"Connection: close", *more]
    lines += [b"Content-Length: %d" % length] if length is not None else [b"Transfer-Encoding: chunked"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class TestWho:
    def test_a_token_is_needed_for_all_but_the_page(self, tiny: Model) -> None:
        with serving(tiny, token="secret") as client:
            for path in ("/v1/models", "/metrics", "/stores", "/meta"):
                assert client.get(path).status == 401
                assert client.get(path, Authorization="Bearer wrong").status == 401
                assert client.get(path, Authorization="Bearer secret").status == 200
            refused = client.embed(input="a")
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert "Authorization: Bearer TOKEN" in refused.reason
            assert client.post("/v1/embeddings", {"input": "a"}, Authorization="Bearer secret").status == 200
            assert client.post("/vectorize", {"texts": ["a"]}).json == {"error": "a token is needed: Authorization: Bearer TOKEN"}
            assert [client.get(path).status for path in ("/openapi.json", "/.well-known/ready")] == [200, 204]

    def test_a_local_server_answers_to_local_names_alone(self, client: Client) -> None:
        for host, status in (("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:8", 200), ("evil.example", 421), ("", 421)):
            assert client.get("/v1/models", Host=host).status == status, host

    def test_pages_of_other_sites_are_refused(self, client: Client) -> None:
        host = f"127.0.0.1:{client.port}"
        assert client.post("/v1/embeddings", {"input": "a"}, Origin=f"http://{host}").status == 200
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{client.port + 1}"):
            answer = client.post("/v1/embeddings", {"input": "a"}, Origin=origin)
            assert (answer.status, "may not use this server" in answer.reason) == (403, True)

    def test_every_answer_says_how_it_may_be_used(self, client: Client) -> None:
        for answer in (client.get("/v1/models"), client.get("/gone"), client.get("/v1/models", Host="evil.example")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cache-control"] == "no-store"
            assert "server" not in answer.headers
            assert "access-control-allow-origin" not in answer.headers


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "the body: "),
            (b"{", "not JSON"),
            (b'{"input": "a"', "not JSON"),
            (b"\xff\xfe{}", "utf-8"),
            (b"[" * 100_000, "deep"),
            (b'{"input":' + b"[" * 200 + b"]" * 200 + b"}", "deep"),
            (b"[1]", "the body: "),
            (b'"text"', "the body: "),
            (b"--x\r\nContent-Disposition: form-data", "not JSON"),
            (json.dumps({"input": "a"}).encode("utf-16"), "utf-8"),
        ],
    )
    def test_what_is_no_request_is_refused_with_a_reason(self, client: Client, body: bytes, reason: str) -> None:
        answer = client.post("/v1/embeddings", body)
        assert answer.status in (400, 422)
        assert reason in answer.reason, answer.reason

    def test_one_without_a_content_type_is_read(self, client: Client) -> None:
        body = b'{"texts": ["a"]}'
        answer = raw(client, head(len(body)).replace(b"/v1/embeddings", b"/vectorize") + body)  # as Weaviate sends it
        assert answer.startswith(b"HTTP/1.1 200")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_one_that_is_too_large_is_refused_when_it_has_come(self, client: Client, chunked: bool) -> None:
        body = b"x" * 300_000
        sent = [head(None), b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"] if chunked else [head(len(body)), body]
        answer = raw(client, *sent)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"more than 200,000 bytes" in answer
        assert client.embed(input="a").status == 200

    def test_one_that_is_far_too_large_is_not_read_to_its_end(self, client: Client) -> None:
        with suppress(ConnectionError):  # the rest of it is not read, and its sender may hear of that first
            assert raw(client, head(10**12), b"x" * 1_000_000).startswith(b"HTTP/1.1 413")
        assert client.embed(input="a").status == 200

    def test_half_of_one_is_forgotten(self, client: Client) -> None:
        for _ in range(20):
            raw(client, head(150_000), b"x" * 100_000, finish=False)
        time.sleep(0.3)
        assert client.embed(input="a").status == 200  # the memory that they held is free

    def test_one_that_does_not_come_is_not_waited_for(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
        assert raw(client, head(100), b"x").startswith(b"HTTP/1.1 408")

    def test_more_than_memory_for_them_is_busy(self, client: Client) -> None:
        until = time.monotonic() + 40
        while time.monotonic() < until:
            connections = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(3)]
            for connection in connections:
                connection.sendall(head(170_000) + b"x" * 160_000)  # the third, too, is let in beside the two others
            time.sleep(0.5)  # a question that comes before these bodies would be held itself, and one of them refused in its place
            answer = client.embed(input="a" * 50_000)
            for connection in connections:
                connection.close()
            if answer.status != 200:
                break
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert "try again later" in answer.reason


class TestInputs:
    def test_too_many_are_refused(self, client: Client) -> None:
        assert client.embed(input=["a"] * 9).status == 413
        assert client.post("/vectorize", {"texts": ["a"] * 9}).status == 413
        assert client.post("/search", {"query": [{"text": "a"}] * 9}).status == 404  # there are no stores

    def test_a_picture_that_unpacks_to_too_much_is_refused(self, client: Client, tmp_path: Path) -> None:
        Image.new("L", (4000, 4000)).save(tmp_path / "bomb.png")
        generate.picture(tmp_path / "a.png")
        bomb, good = data_address(tmp_path / "bomb.png"), data_address(tmp_path / "a.png")
        for modality in ("image", "vision", "depth", "thermal"):
            answer = client.embed(input=[{modality: bomb}, {"image": good}]).json["data"]
            assert "4000 x 4000 pixels; this server unpacks at most 100,000" in answer[0]["error"]["message"]
            assert answer[1]["object"] == "embedding"
        assert "4000 x 4000" in client.post("/locate", {"input": {"image": bomb}, "query": "a"}).reason

    def test_a_bomb_of_numbers_is_refused(self, client: Client) -> None:
        file = io.BytesIO()
        file.write(b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000), }".ljust(117) + b"\n")
        answer = client.embed(input=[{"depth": base64.b64encode(file.getvalue()).decode()}])
        assert answer.status == 422
        assert "200" in answer.reason or "at most" in answer.reason or "32,000,000" in answer.reason

    @pytest.mark.parametrize(
        "content",
        [
            b"ffconcat version 1.0\nfile /etc/passwd\n",
            b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ],
    )
    @pytest.mark.parametrize("modality", ["video", "audio"])
    def test_lists_of_other_files_are_not_followed(self, client: Client, modality: str, content: bytes) -> None:
        answer = client.embed(input=[{modality: base64.b64encode(content).decode()}])
        assert (answer.status, "not a readable" in answer.reason) == (422, True)

    def test_a_compressed_body_is_not_unpacked(self, client: Client) -> None:
        body = zlib.compress(b'{"input": "a"}' + b" " * 10_000_000)
        assert client.post("/v1/embeddings", body, Content_Encoding="deflate").status == 400
