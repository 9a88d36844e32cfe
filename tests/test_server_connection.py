"""The connection to a server, against one that counts its clients' connections."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.server_connection import ServerConnection


class CountingServer(http.server.ThreadingHTTPServer):
    """Answers `{}`, closing the connection after /last, and 503 as often as `busy` says."""

    daemon_threads = True
    connections = 0
    busy = 0


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        status, self.server.busy = (503, self.server.busy - 1) if self.server.busy else (200, 0)
        self.send_response(status)
        self.send_header("Retry-After", "0.01")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = self.path == "/last"  # without a word to the client, as a server that restarts

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def connection(server: CountingServer) -> ServerConnection:
    return ServerConnection(f"http://127.0.0.1:{server.server_port}")


def test_a_connection_is_kept_open_until_the_last_who_wants_it_is_done(server: CountingServer, connection: ServerConnection) -> None:
    with connection.kept_open():
        with connection.kept_open():
            connection.ask("GET", "/")
        connection.ask("GET", "/")
        assert server.connections == 1
    for _ in range(2):
        connection.ask("GET", "/")
    assert server.connections == 3


def test_one_that_the_server_closed_meanwhile_is_opened_again(server: CountingServer, connection: ServerConnection) -> None:
    with connection.kept_open():
        connection.ask("GET", "/last")
        assert connection.ask("GET", "/") == {}
    assert server.connections == 2


def test_a_busy_server_is_asked_again(server: CountingServer, connection: ServerConnection) -> None:
    server.busy = 2
    assert connection.ask("GET", "/") == {}
    assert server.connections == 3


def test_one_that_stays_busy_is_an_error(server: CountingServer, connection: ServerConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebind_cli.server_connection.PATIENCE", 0.0)
    server.busy = 1
    with pytest.raises(UserError, match="answered 503"):
        connection.ask("GET", "/")


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://user@host", "http://host?a", "http://host#a"])
def test_what_is_not_an_address(address: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a server"):
        ServerConnection(address)
