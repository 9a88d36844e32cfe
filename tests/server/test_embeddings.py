"""Embeddings over HTTP: four dialects, equal to the command's vectors, an error for each bad input alone."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import Model, registry
from tests import generate
from tests.serving import Client, data_address, encoded, serving

FILES = [name for name in registry.MODALITIES if name != "text"]


@pytest.fixture(scope="module")
def client(tiny: Model) -> Iterator[Client]:
    with serving(tiny) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


class TestDialects:
    def test_openai_takes_a_sentence_or_several(self, client: Client, tiny: Model) -> None:
        answer = client.embed(input="a dog", model="tiny", user="me")
        assert answer.json["object"] == "list"
        assert answer.json["model"] == "tiny"
        (entry,) = answer.json["data"]
        assert (entry["object"], entry["index"]) == ("embedding", 0)
        np.testing.assert_array_equal(np.array([entry["embedding"]], np.float32), tiny.embed("text", ["a dog"]))
        several = client.embed(input=["a dog", "a cat"]).json["data"]
        assert [entry["index"] for entry in several] == [0, 1]
        np.testing.assert_allclose([entry["embedding"] for entry in several], tiny.embed("text", ["a dog", "a cat"]), atol=1e-6)

    @pytest.mark.parametrize("modality", FILES)
    def test_infinity_takes_files_of_a_modality(self, client: Client, tiny: Model, folder: Path, modality: str) -> None:
        files = [generate.sample(modality, folder, seed) for seed in range(2)]
        vectors = client.vectors(modality=modality, input=[data_address(file) for file in files])
        np.testing.assert_allclose(vectors, tiny.embed(modality, files), atol=1e-6)

    def test_jina_takes_items_of_any_modality(self, client: Client, tiny: Model, folder: Path) -> None:
        image, audio = generate.sample("image", folder), generate.sample("audio", folder)
        items = [{"text": "rain"}, {"image": encoded(image)}, {"audio": data_address(audio), "options": {"clips": 2}}]
        vectors = client.vectors(input=items, normalized=True)
        wanted = [tiny.embed("text", ["rain"]), tiny.embed("image", [image]), tiny.embed("audio", [audio], clips=2)]
        np.testing.assert_allclose(vectors, np.concatenate(wanted), atol=1e-6)

    def test_base64_may_begin_with_slashes(self, client: Client, tiny: Model, folder: Path) -> None:
        sound = folder / "a.mp3"
        content = generate.audio(sound).read_bytes()
        start = next(place for place in range(len(content)) if content[place] == 0xFF and content[place + 1] & 0xE0 == 0xE0)
        sound.write_bytes(content[start:])  # without a tag before the first frame
        assert encoded(sound).startswith("//")
        np.testing.assert_allclose(client.vectors(input=[{"audio": encoded(sound)}]), tiny.embed("audio", [sound]), atol=1e-6)

    def test_vllm_combines_the_parts_of_messages(self, client: Client, tiny: Model, folder: Path) -> None:
        image, audio = generate.sample("image", folder), generate.sample("audio", folder)
        content = [
            {"type": "image_url", "image_url": {"url": data_address(image)}},
            {"type": "text", "text": "rain"},
            {"type": "input_audio", "input_audio": {"data": encoded(audio), "format": "wav"}},
        ]
        answer = client.embed(messages=[{"role": "system", "content": "Embed."}, {"role": "user", "content": content}], priority=1)
        total = tiny.embed("image", [image])[0] + tiny.embed("text", ["rain"])[0] + tiny.embed("audio", [audio])[0]
        (entry,) = answer.json["data"]
        np.testing.assert_allclose(entry["embedding"], total / np.linalg.norm(total), atol=1e-6)
        assert answer.json["notes"] == ["priority has no effect here", "a message of role system has no effect here"]

    @pytest.mark.parametrize("key", ["encoding_format", "embedding_type"])
    def test_base64_holds_the_same_numbers(self, client: Client, key: str) -> None:
        (entry,) = client.embed(input="a dog", **{key: "base64"}).json["data"]
        numbers = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
        np.testing.assert_array_equal(numbers, client.vectors(input="a dog")[0])

    def test_windows_are_kept_apart_on_demand(self, client: Client, tiny: Model, folder: Path) -> None:
        long = generate.audio(folder / "long.wav", seconds=5)
        data = client.embed(modality="audio", input=["no", data_address(long)], pool="none").json["data"]
        assert [(entry["index"], entry.get("start"), entry.get("end")) for entry in data] == [
            (0, None, None), (1, 0.0, 2.0), (1, 1.5, 3.5), (1, 3.0, 5.0)
        ]  # fmt: skip

    def test_notes_and_warnings_come_with_their_input(self, client: Client, folder: Path) -> None:
        depth = data_address(generate.sample("depth", folder))
        entries = client.embed(input=[{"depth": depth}, {"text": "word " * 200}]).json["data"]
        assert any("focal" in note for note in entries[0]["notes"])
        assert "tokens" in entries[1]["warnings"][0]


BAD: list[tuple[Any, str]] = [
    ({"text": " "}, "no words"),
    ({"image": "http://example.com/a.png"}, "addresses are not fetched"),
    ({"image": "//example.com/a.png"}, "not base64"),
    ({"image": "file:/etc/passwd"}, "without --root"),
    ({"image": "data:image/png,abc"}, "without ;base64"),
    ({"image": "data:image/png;base64"}, "without its comma"),
    ({"image": "data:image/png;base64,@@@"}, "not base64"),
    ({"image": "data:image/png;base64,"}, "the file is empty"),
    ({"image": base64.b64encode(b"no picture").decode()}, "not a readable picture"),
    ({"audio": base64.b64encode(b"no sound" * 9).decode()}, "not a readable sound"),
    ({"imu": base64.b64encode(b"a,b\n1,2\n").decode()}, "column"),
    ({"text": "data:image/png;base64,AAAA"}, "a file (image/png) where a sentence is needed"),
    ({"image": "AAAA", "options": {"clips": 2}}, "has no option 'clips'"),
    ({"imu": "AAAA", "options": {"centres": "/etc/passwd"}}, "files of the server are not read"),
    ({"image": "AAAA", "start": 1}, "has no seconds"),
    ({"image": 5}, "a string is needed"),
    ({"smell": "AAAA"}, "one of image, "),
    ({"image": "AAAA", "text": "x"}, "it has image, text"),
    ([1, 2, 3], "tokens are not taken"),
    (None, "a string or an object is needed"),
]


class TestBadInputs:
    def test_each_is_an_error_of_its_own_index(self, client: Client) -> None:
        inputs = [item for bad, _ in BAD for item in (bad, "a dog")]
        answer = client.embed(input=inputs)
        assert answer.status == 200
        entries = answer.json["data"]
        assert [entry["index"] for entry in entries] == list(range(len(inputs)))
        for (bad, reason), entry in zip(BAD, entries[::2], strict=True):
            assert (entry["object"], entry["embedding"]) == ("error", None)
            assert reason in entry["error"]["message"], bad
        vector = client.vectors(input="a dog")[0]
        for entry in entries[1::2]:
            np.testing.assert_allclose(entry["embedding"], vector, atol=1e-6)

    @pytest.mark.parametrize(("bad", "reason"), BAD[:2])
    def test_alone_it_is_the_answer(self, client: Client, bad: Any, reason: str) -> None:
        answer = client.embed(input=[bad])
        assert answer.status == 422
        assert reason in answer.reason

    @pytest.mark.parametrize(
        ("request_", "status", "reason"),
        [
            ({}, 422, "give input or messages"),
            ({"input": []}, 422, "no inputs"),
            ({"input": "a", "messages": []}, 422, "not both"),
            ({"input": ["a"] * 257}, 413, "257 inputs; at most 256"),
            ({"input": "a", "model": "huge"}, 404, "this server has 'tiny'"),
            ({"input": "a", "dimensions": 8}, 400, "shorter ones are not offered"),
            ({"input": "a", "modality": "smell"}, 422, "unknown modality"),
            ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
            ({"input": 5}, 422, "input"),
            ({"messages": [{"role": "user", "content": [{"type": "pdf"}]}]}, 422, "a part of type 'pdf'"),
            ({"messages": [{"role": "user", "content": []}]}, 422, "no inputs"),
            ({"messages": [{"role": "user", "content": "a"}], "pool": "none"}, 422, "one vector"),
        ],
    )
    def test_a_bad_request_is_refused_with_a_reason(self, client: Client, request_: Any, status: int, reason: str) -> None:
        answer = client.embed(**request_)
        assert (answer.status, reason in answer.reason) == (status, True), answer.reason


def test_requests_of_many_clients_become_batches(client: Client, tiny: Model) -> None:
    sentences = [f"sentence {number}" for number in range(64)]
    wanted, found = tiny.embed("text", sentences), np.zeros((64, tiny.dim), np.float32)

    def ask(number: int) -> None:
        for i in range(number, 64, 16):
            found[i] = client.vectors(input=sentences[i])[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_model_is_described(client: Client, tiny: Model) -> None:
    (model,) = client.get("/v1/models").json["data"]
    assert (model["id"], model["dim"], model["untrained"]) == ("tiny", tiny.dim, True)
    assert model["modalities"] == list(registry.MODALITIES)
    options = registry.face("audio").read_options({"clips": 3})
    answer = client.post("/provenance", {"modality": "audio", "options": {"clips": 3}, "pool": "none"})
    assert answer.json == tiny.record("audio", options, "none")


def test_what_happened_is_counted(client: Client) -> None:
    client.embed(input=["a", ""])
    client.get("/no/such/path/ever")
    text = client.get("/metrics").body.decode()
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(lines['imagebind_requests_total{path="/v1/embeddings",status="200"}']) >= 1
    assert int(lines['imagebind_requests_total{path="other",status="404"}']) >= 1
    assert "/no/such" not in text
    assert float(lines["process_resident_memory_bytes"]) > 1e7
    assert lines["imagebind_waiting_inputs"] == "0"
    for name in ("imagebind_request_seconds", "imagebind_batch_inputs"):
        assert f"# TYPE {name} histogram" in text
    last = lines['imagebind_request_seconds_bucket{path="/v1/embeddings",le="+Inf"}']
    assert last == lines['imagebind_request_seconds_count{path="/v1/embeddings"}']


class TestWeaviate:
    def test_vectors_of_every_kind(self, client: Client, tiny: Model, folder: Path) -> None:
        kinds = {"images": "image", "audio": "audio", "video": "video", "imu": "imu", "thermal": "thermal", "depth": "depth"}
        files = {key: [generate.sample(modality, folder, seed) for seed in range(2)] for key, modality in kinds.items()}
        request = {key: [encoded(file) for file in several] for key, several in files.items()}
        answer = client.post("/vectorize", {"texts": ["a dog", "a car"], **request}).json
        np.testing.assert_allclose(answer["textVectors"], tiny.embed("text", ["a dog", "a car"]), atol=1e-6)
        for key, modality in kinds.items():
            name = f"{key.removesuffix('s') if key == 'images' else key}Vectors"
            np.testing.assert_allclose(answer[name], tiny.embed(modality, files[key]), atol=1e-6)

    def test_lists_that_are_not_sent_have_no_vectors(self, client: Client) -> None:
        answer = client.post("/vectorize", {"texts": ["a"], "images": None})
        assert {key for key, vectors in answer.json.items() if vectors == []} == {
            "imageVectors", "audioVectors", "videoVectors", "imuVectors", "thermalVectors", "depthVectors"
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            ({"texts": ["a"], "images": ["AAAA"]}, "images[0]: not a readable picture"),
            ({"texts": ["a", " "]}, "texts[1]: an empty sentence"),
            ({"smells": ["a"]}, "smells: no such key"),
            ({"imu": "a"}, "imu: "),
        ],
    )
    def test_an_error_is_a_string(self, client: Client, request_: Any, reason: str) -> None:
        answer = client.post("/vectorize", request_)
        assert answer.status == 422
        assert isinstance(answer.json["error"], str)
        assert reason in answer.json["error"]

    def test_it_is_ready_and_says_what_it_is(self, client: Client) -> None:
        assert [client.get(f"/.well-known/{name}").status for name in ("ready", "live")] == [204, 204]
        assert client.get("/meta").json["model"] == "tiny"
