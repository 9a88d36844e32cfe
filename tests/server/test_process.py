"""`imagebind serve` as a process: its address, its end by a signal, and what it refuses to start with."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, Start
from tests.serving import Client
from tests.stores import store


@pytest.fixture
def serve(start: Start) -> Callable[..., Any]:
    """Start `imagebind serve` on a free port, until it takes requests."""

    @contextmanager
    def run(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
        process = start("serve", "--model", "tiny", "--device", "cpu", "--port", 0, *arguments)
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address), address
        yield process, Client(int(address.rsplit(":", 1)[1]))

    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_when_all_that_began_is_answered(serve: Callable[..., Any], number: signal.Signals, code: int) -> None:
    with serve() as (process, client):
        assert client.embed(input="warm").status == 200
        answers: list[int] = []

        def ask(place: int) -> None:
            answers.append(client.embed(input=[f"sentence {place} of client {i}" for i in range(200)]).status)

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.15)
        process.send_signal(number)
        for thread in threads:
            thread.join(30)
        assert answers == [200] * 8
        assert process.wait(30) == code
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        with pytest.raises(ConnectionError):
            client.get("/v1/models")


def test_its_page_and_search_are_there(serve: Callable[..., Any], imagebind: Run, tmp_path: Path) -> None:
    imagebind("embed", "text", "a dog", "a cat", "-o", tmp_path / "t.h5")
    with serve(tmp_path / "t.h5", "--token", "secret") as (process, client):
        assert client.get("/stores").status == 401
        (first, _) = client.post("/search", {"query": "a dog"}, Authorization="Bearer secret").json["results"]
        assert first["id"] == "a dog"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


class TestRefusals:
    def test_a_port_that_is_in_use(self, imagebind: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            run = imagebind("serve", "--port", port)
        assert (run.code, run.err) == (
            1,
            f"imagebind: 127.0.0.1:{port}: Address already in use; choose another with --port, or any that is free with --port 0\n",
        )

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (("gone.h5",), 1, "gone.h5"),
            (("--root", "gone"), 1, "gone: No such file or directory"),
            (("--model", "gone"), 1, "gone"),
            (("--token", "two\nlines"), 2, "--token"),
            (("--host", "256.1.1.1"), 1, "256.1.1.1:0"),
            (("--port", "99999"), 2, "65535"),
            (("--max-items", "0"), 2, "--max-items"),
        ],
    )
    def test_what_cannot_be_served(self, imagebind: Run, arguments: tuple[str, ...], code: int, reason: str) -> None:
        run = imagebind("serve", *(("--port", "0") if "--port" not in arguments else ()), *arguments)
        assert (run.code, run.out, reason in run.err) == (code, b"", True), run.err
        assert "Traceback" not in run.err

    def test_stores_of_two_models(self, imagebind: Run, tmp_path: Path) -> None:
        one, other = store(tmp_path / "a.npy", "image", ["a"]), store(tmp_path / "b.npy", "image", ["a"], weights="others")
        assert "b.npy" in imagebind("serve", one, other, "--port", 0).err

    def test_a_token_is_not_shown(self, imagebind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMAGEBIND_TOKEN", "very-secret")
        assert "very-secret" not in imagebind("-v", "serve", "gone.h5", "--port", 0).err
        assert b"very-secret" not in imagebind("doctor", "--json").out


def test_help_needs_no_server(imagebind: Run) -> None:
    assert "--max-body" in imagebind("serve", "--help").out.decode()
