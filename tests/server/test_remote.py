"""Commands with `--server`: the same output as without, no torch in the client, and one line about a server that does not answer."""

from __future__ import annotations

import inspect
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import Model, registry
from imagebind_cli.errors import UserError
from imagebind_cli.remote import RemoteModel
from imagebind_cli.server import Limits
from imagebind_cli.sources import Failure, Item, Stretch
from imagebind_cli.store import open_store
from tests import generate
from tests.conftest import Finished, Run
from tests.serving import Client, serving


@pytest.fixture(scope="module")
def client(tiny: Model) -> Iterator[Client]:
    with serving(tiny) as client:
        yield client


def alike(one: Finished, other: Finished) -> None:
    """Check that two runs printed the same, vectors but for their last digits."""
    assert one.code == other.code
    rows, others = one.rows, other.rows
    for row, wanted in zip(rows, others, strict=True):
        if "embedding" in row:
            np.testing.assert_allclose(row.pop("embedding"), wanted.pop("embedding"), atol=1e-6)
        for key in row:
            if isinstance(row[key], float):
                assert row.pop(key) == pytest.approx(wanted.pop(key), abs=1e-6)
                break
    assert [flat(row) for row in rows] == [flat(row) for row in others]


def flat(row: Any) -> Any:
    if isinstance(row, dict):
        return {key: flat(value) for key, value in row.items()}
    return [flat(value) for value in row] if isinstance(row, list) else round(row, 5) if isinstance(row, float) else row


def test_it_takes_the_arguments_of_a_model() -> None:
    arguments, models = (inspect.signature(kind.embed_items).parameters for kind in (RemoteModel, Model))
    assert arguments.keys() == models.keys()


@pytest.mark.parametrize("modality", registry.MODALITIES)
def test_embed_prints_the_same(imagebind: Run, client: Client, tmp_path: Path, modality: str) -> None:
    inputs = ["a dog", "a cat"] if modality == "text" else [generate.sample(modality, tmp_path, seed) for seed in range(2)]
    with_server = imagebind("embed", modality, *inputs, "--server", client.address)
    without = imagebind("embed", modality, *inputs, "--device", "cpu")
    alike(with_server, without)
    assert sorted(with_server.notices) == sorted(without.notices)


def test_bad_inputs_and_windows_are_the_same(imagebind: Run, client: Client, tmp_path: Path) -> None:
    long = generate.audio(tmp_path / "long.wav", 5)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    inputs = [tmp_path / "bad.wav", long, tmp_path / "empty.wav", tmp_path / "gone.wav"]
    flags = ("--pool", "none", "--hop", "1.5")
    with_server = imagebind("embed", "audio", *inputs, *flags, "--server", client.address)
    without = imagebind("embed", "audio", *inputs, *flags, "--device", "cpu")
    alike(with_server, without)
    assert with_server.code == 1
    heads = [[line.partition("sound:")[0] for line in run.notices if "wav" in line] for run in (with_server, without)]
    assert heads[0] == heads[1]  # a decoder's own words may name the file


def test_a_store_of_a_server_is_continued_without_it(imagebind: Run, client: Client, tmp_path: Path) -> None:
    files = [generate.sample("image", tmp_path, seed) for seed in range(4)]
    assert imagebind("embed", "image", *files[:2], "-o", tmp_path / "v.h5", "--server", client.address).code == 0
    done = imagebind("embed", "image", *files, "-o", tmp_path / "v.h5", "--device", "cpu")
    assert "2 embedded, 2 there already" in done.err
    assert len(open_store(tmp_path / "v.h5")) == 4
    again = imagebind("embed", "image", *files, "-o", tmp_path / "v.h5", "--server", client.address)
    assert "0 embedded, 4 there already" in again.err


def test_retrieve_and_zeroshot_print_the_same(imagebind: Run, client: Client, tmp_path: Path) -> None:
    files = [generate.sample("image", tmp_path, seed) for seed in range(3)]
    imagebind("embed", "image", *files, "-o", tmp_path / "v.h5")
    commands: list[tuple[object, ...]] = [
        ("retrieve", tmp_path / "v.h5", "--text", "a dog", "--image", files[0], "--weights", 1, -0.5),
        ("zeroshot", "image", *files, "--labels", "cat,dog", "--templates", "plain"),
        ("zeroshot", "image", tmp_path / "v.h5", "--labels", "cat,dog", "--templates", "plain"),
    ]
    for command in commands:
        alike(imagebind(*command, "--server", client.address), imagebind(*command, "--device", "cpu"))


def test_the_client_imports_no_torch(client: Client, tmp_path: Path) -> None:
    code = """
import os, sys
from imagebind_cli import cli
def leave(code):
    sys.stdout.flush()
    assert "torch" not in sys.modules, "torch"
    os.write(2, b"left %d" % code)
    raise SystemExit
os._exit = leave
sys.argv = ["imagebind", *sys.argv[1:]]
cli.run_command_line()
"""
    picture = generate.sample("image", tmp_path)
    environment = {**os.environ, "IMAGEBIND_MODEL": "tiny"}

    def run(*arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments), "--server", client.address], env=environment, capture_output=True
        )
        assert done.stderr.endswith(b"left 0"), done.stderr

    run("embed", "text", "a dog")
    run("embed", "image", picture, "-o", tmp_path / "v.h5")
    run("retrieve", tmp_path / "v.h5", "--text", "a dog")
    run("zeroshot", "image", tmp_path / "v.h5", "--labels", "cat,dog", "--templates", "plain")


class TestItems:
    """What the model of a server takes."""

    def embedded(self, client: Client, modality: str, *payloads: Any) -> list[Any]:
        items = [Item(str(number), payload) for number, payload in enumerate(payloads)]
        return [result for _, result in RemoteModel(client.address).embed_items(modality, items)]

    def test_parts_open_files_and_functions(self, client: Client, tiny: Model, tmp_path: Path) -> None:
        sound = generate.audio(tmp_path / "a.wav", 6)
        content = sound.read_bytes()
        payloads = [str(sound), Stretch(str(sound), 1, 4), io.BytesIO(content), lambda: io.BytesIO(content)]
        results = self.embedded(client, "audio", *payloads)
        wanted = tiny.embed("audio", [sound, Stretch(str(sound), 1, 4), sound, sound])
        np.testing.assert_allclose([result.embeddings[0].vector for result in results], wanted, atol=1e-6)

    def test_what_cannot_be_sent_is_a_failure(self, client: Client, tmp_path: Path) -> None:
        array, folder = self.embedded(client, "image", np.zeros((4, 4, 3), np.uint8), str(tmp_path))
        assert "an array is not sent" in array.reason
        assert folder.reason == "is a folder"

    def test_a_file_larger_than_a_request_is_a_failure_alone(self, tiny: Model, tmp_path: Path) -> None:
        files = [generate.audio(tmp_path / f"{seconds}.wav", seconds) for seconds in (1, 2, 1, 9, 2)]
        with serving(tiny, limits=Limits(body=100_000, items=2)) as client:
            results = self.embedded(client, "audio", *map(str, files))
        assert [isinstance(result, Failure) for result in results] == [False, False, False, True, False]
        assert "the server takes at most" in results[3].reason

    def test_results_of_an_endless_input_come_at_once(self, client: Client) -> None:
        more = threading.Event()

        def items() -> Iterator[Item]:
            yield Item("a", "a")
            assert more.wait(10)
            yield Item("b", "b")

        results = RemoteModel(client.address).embed_items("text", items())
        assert next(results)[0].id == "a"
        more.set()
        assert [item.id for item, _ in results] == ["b"]

    def test_many_come_in_order(self, client: Client, tiny: Model) -> None:
        sentences = [f"sentence {number}" for number in range(300)]
        items = [Item(text, text) if number % 50 else Failure(text, "bad") for number, text in enumerate(sentences)]
        results = list(RemoteModel(client.address).embed_items("text", items))
        assert [item.id for item, _ in results] == sentences
        good = [number for number in range(300) if number % 50]
        wanted = tiny.embed("text", [sentences[number] for number in good])
        np.testing.assert_allclose([results[number][1].embeddings[0].vector for number in good], wanted, atol=1e-6)  # type: ignore[union-attr]

    def test_an_error_of_the_input_comes_after_what_was_before(self, client: Client) -> None:
        def items() -> Iterator[Item]:
            yield Item("a", "a")
            raise UserError("the input broke")

        results = RemoteModel(client.address).embed_items("text", items())
        assert next(results)[0].id == "a"
        with pytest.raises(UserError, match="the input broke"):
            next(results)


class TestRefusals:
    def test_no_server(self, imagebind: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        run = imagebind("embed", "text", "a", "--server", f"http://127.0.0.1:{port}")
        assert (run.code, run.out) == (1, b"")
        assert run.err == f"imagebind: http://127.0.0.1:{port}: Connection refused; is `imagebind serve` running there?\n"

    def test_a_token(self, imagebind: Run, tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(tiny, token="secret") as client:
            run = imagebind("embed", "text", "a", "--server", client.address)
            assert (run.code, "a token is needed" in run.err, "IMAGEBIND_TOKEN" in run.err) == (1, True, True)
            monkeypatch.setenv("IMAGEBIND_TOKEN", "secret")
            assert imagebind("embed", "text", "a", "--server", client.address).code == 0

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (("--model", "tiny"), 2, "--model is for a local model"),
            (("--device", "cpu"), 2, "--device is for a local model"),
            (("--dry-run",), 2, "--dry-run"),
            (("--server", "ftp://x"), 2, "is not the address of a server"),
            (("--server", "localhost:8000"), 2, "is not the address of a server"),
        ],
    )
    def test_wrong_flags(self, imagebind: Run, client: Client, arguments: tuple[str, ...], code: int, reason: str) -> None:
        given = arguments if "--server" in arguments else (*arguments, "--server", client.address)
        run = imagebind("embed", "text", "a", *given)
        assert (run.code, reason in run.err) == (code, True), run.err

    def test_a_store_of_other_weights(self, imagebind: Run, client: Client, tmp_path: Path) -> None:
        imagebind("embed", "text", "a", "b", "-o", tmp_path / "mini.h5", "--model", "mini", "--device", "cpu")
        run = imagebind("retrieve", tmp_path / "mini.h5", "--text", "a", "--server", client.address)
        assert (run.code, "mini" in run.err) == (1, True)

    def test_something_that_is_not_a_server_of_ours(self, imagebind: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:

            def answer() -> None:
                connection, _ = other.accept()
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                time.sleep(0.5)
                connection.close()

            threading.Thread(target=answer, daemon=True).start()
            run = imagebind("embed", "text", "a", "--server", f"http://127.0.0.1:{other.getsockname()[1]}")
        assert (run.code, "not as imagebind serve does" in run.err) == (1, True)
