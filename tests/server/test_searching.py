"""Search, classes, places and moments over HTTP: the same lines as the commands print, and no file read that may not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagebind_cli import Model, corpus
from tests import generate
from tests.conftest import Run
from tests.serving import Client, data_address, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> Path:
    """Stores of pictures, sounds, windows of sounds and captions, and the files that they are of; and one file outside."""
    folder = tmp_path_factory.mktemp("served") / "root"
    (folder / "sub").mkdir(parents=True)
    pictures = [str(generate.picture(folder / "sub" / f"{seed}.png", seed)) for seed in range(4)]
    outside = generate.picture(folder.parent / "outside.png", 9)
    (folder / "link.png").symlink_to(outside)
    sounds = [str(generate.audio(folder / f"{seed}.wav", 6, seed)) for seed in range(2)]
    corpus.embed(tiny, "image", [*pictures, str(folder / "link.png"), str(outside)], folder / "photos.h5")
    corpus.embed(tiny, "audio", sounds, folder / "sounds.h5")
    corpus.embed(tiny, "audio", sounds, folder / "windows.h5", pool="none", hop=1.0)
    corpus.embed(tiny, "text", ["a dog", "a cat", "rain"], folder / "captions.npy")
    return folder


STORES = ("photos.h5", "sounds.h5", "windows.h5", "captions.npy")


@pytest.fixture(scope="module")
def client(tiny: Model, folder: Path) -> Iterator[Client]:
    with serving(tiny, [folder / name for name in STORES], root=folder) as client:
        yield client


def found(client: Client, path: str, **request: Any) -> list[dict[str, Any]]:
    answer = client.post(path, request)
    assert answer.status == 200, answer.body
    rows: list[dict[str, Any]] = answer.json["results"]
    return rows


def alike(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether lines are the same but for the last digits of numbers."""
    return flat(rows) == pytest.approx(flat(others), abs=2e-6)


def flat(rows: Any, place: str = "") -> dict[str, Any]:
    if isinstance(rows, dict | list):
        entries = rows.items() if isinstance(rows, dict) else enumerate(rows)
        return {key: value for name, entry in entries for key, value in flat(entry, f"{place}/{name}").items()}
    return {place: rows if isinstance(rows, int | float) and not isinstance(rows, bool) else hash(str(rows))}


class TestSearch:
    def test_it_answers_as_retrieve(self, client: Client, folder: Path, imagebind: Run) -> None:
        stores = [folder / name for name in STORES]
        run = imagebind("retrieve", *stores, "--text", "a dog", "-k", 5)
        assert alike(found(client, "/search", query="a dog", k=5), run.rows)
        run = imagebind("retrieve", *stores, "--text", "a dog", "--per-modality", "-k", 2, "--stretches", "--threshold", "-1")
        assert alike(found(client, "/search", query={"text": "a dog"}, per_modality=True, k=2, stretches=True, threshold=-1), run.rows)

    def test_parts_are_combined_by_weights(self, client: Client, folder: Path, imagebind: Run) -> None:
        picture, sound = folder / "sub/1.png", folder / "0.wav"
        run = imagebind(
            "retrieve", *(folder / name for name in STORES), "--text", "rain", "--image", picture, "--audio", sound,
            "--like", folder / "sub/0.png", "--weights", 1, 0.5, -0.25, 0.75,
        )  # fmt: skip
        query = [
            {"text": "rain"},
            {"image": data_address(picture), "weight": 0.5, "name": str(picture)},
            {"audio": data_address(sound), "weight": -0.25, "name": str(sound)},
            {"like": str(folder / "sub/0.png"), "weight": 0.75},
        ]
        assert alike(found(client, "/search", query=query), run.rows)

    def test_stores_and_modalities_are_chosen(self, client: Client) -> None:
        assert {row["modality"] for row in found(client, "/search", query="x", modalities=["audio"], k=50)} == {"audio"}
        assert len(found(client, "/search", query="x", stores=["captions.npy"])) == 3
        listed = client.get("/stores").json["stores"]
        assert listed[0] == {"name": "photos.h5", "modality": "image", "rows": 6}
        assert client.post("/search", {"query": "x", "stores": ["gone.h5"]}).status == 404
        assert "no store of imu" in client.post("/search", {"query": "x", "modalities": ["imu"]}).reason

    def test_what_is_added_is_found(self, tiny: Model, tmp_path: Path) -> None:
        corpus.embed(tiny, "text", ["one"], tmp_path / "t.h5")
        with serving(tiny, [tmp_path / "t.h5"]) as client:
            assert len(found(client, "/search", query="x")) == 1
            corpus.embed(tiny, "text", ["one", "two", "three"], tmp_path / "t.h5")
            assert len(found(client, "/search", query="x")) == 3

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            ({}, "query: field required"),
            ({"query": ""}, "no words"),
            ({"query": []}, "at least one part"),
            ({"query": {}}, "this one has none of them"),
            ({"query": {"text": "a", "image": "b"}}, "this one has text, image"),
            ({"query": {"vector": "/etc/passwd"}}, "no such key"),
            ({"query": {"like": "gone.png"}}, "no item 'gone.png'"),
            ({"query": {"image": "AAAA"}}, "not a readable picture"),
            ({"query": {"image": "file:../outside.png"}}, "no such file below the server's root"),
            ({"query": {"image": "file:link.png"}}, "no such file below the server's root"),
            ({"query": {"image": "file:/etc/passwd"}}, "no such file below the server's root"),
            ({"query": {"text": "a", "weight": "NaN"}}, "weight"),
            ({"query": [{"text": "a"}, {"text": "a", "weight": -1}]}, "has no direction"),
            ({"query": "a", "k": 0}, "k: "),
            ({"query": "a", "k": 10_000}, "k: "),
            ({"query": "a", "html": "page.html"}, "html: no such key"),
        ],
    )
    def test_a_bad_query_is_refused_with_a_reason(self, client: Client, request_: Any, reason: str) -> None:
        answer = client.post("/search", request_)
        assert answer.status == 422
        assert reason in answer.reason

    def test_files_below_the_root_are_named(self, client: Client, folder: Path) -> None:
        rows = found(client, "/search", query={"image": "file:sub/2.png"}, k=1)
        assert rows[0]["id"] == str(folder / "sub/2.png")
        vectors = client.vectors(input=[{"image": "file:sub/2.png"}, {"image": data_address(folder / "sub/2.png")}])
        assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)

    def test_without_stores_there_is_nothing_to_search(self, tiny: Model) -> None:
        with serving(tiny) as client:
            assert "no stores" in client.post("/search", {"query": "x"}).reason
            assert client.get("/stores").json == {"stores": []}


class TestPictures:
    def test_of_rows_below_the_root_alone(self, client: Client) -> None:
        shown = client.get("/picture/0/1").json
        assert shown["image"].startswith("data:image/jpeg;base64,")
        assert shown["sound"] is None
        assert client.get("/picture/1/0").json["sound"].startswith("data:audio/")
        assert client.get("/picture/2/3").json["about"] != ""
        assert client.get("/picture/3/0").json == {"text": "a dog"}
        for row in (4, 5):  # a link that leads out of the root, and a file outside
            assert client.get(f"/picture/0/{row}").status == 404
        assert [client.get(f"/picture/{place}").status for place in ("0/6", "9/0", "0/-1", "x/0")] == [404, 404, 404, 422]

    def test_of_files_that_are_sent(self, client: Client, folder: Path) -> None:
        shown = client.post("/picture", {"audio": data_address(folder / "0.wav")}).json
        assert shown["image"].startswith("data:image/jpeg;base64,")
        assert "cannot be shown" in client.post("/picture", {"image": "AAAA"}).reason

    def test_none_without_a_root(self, tiny: Model, folder: Path) -> None:
        with serving(tiny, [folder / "photos.h5"]) as client:
            answer = client.get("/picture/0/0")
            assert (answer.status, "without --root" in answer.reason) == (403, True)
            assert client.post("/locate", {"input": {"store": 0, "row": 0}, "query": "a dog"}).status == 403


class TestClassify:
    def test_it_answers_as_zeroshot(self, client: Client, folder: Path, imagebind: Run) -> None:
        files = [str(folder / "sub/0.png"), str(folder / "sub/1.png")]
        run = imagebind("zeroshot", "image", *files, "--labels", "cat,dog,car|automobile", "--templates", "plain", "--top", 2)
        inputs = [{"image": data_address(file), "name": file} for file in files]
        labels = ["cat", "dog", ["car", "automobile"]]
        rows = found(client, "/classify", modality="image", input=inputs, labels=labels, templates="plain", top=2)
        assert alike(rows, run.rows)

    def test_windows_and_stretches(self, client: Client, folder: Path, imagebind: Run) -> None:
        run = imagebind(
            "zeroshot", "audio", folder / "0.wav", "--labels", "rain,dog", "--templates", "plain", "--pool", "none", "--stretches"
        )
        inputs = [{"audio": data_address(folder / "0.wav"), "name": str(folder / "0.wav")}]
        options = {"labels": {"rain": "rain", "dog": ["dog"]}, "templates": "plain", "pool": "none", "stretches": True}
        assert alike(found(client, "/classify", modality="audio", input=inputs, **options), run.rows)

    def test_every_option_of_the_classes_counts_in_a_later_request(self, client: Client, folder: Path) -> None:
        options: dict[str, Any] = {"templates": "plain", "names": "max", "scale": 10.0, "labels": [["car", "automobile"], "dog"]}
        changes: dict[str, Any] = {"templates": "clip", "names": "mean", "scale": 20.0, "labels": [["car", "cat"], "dog"]}
        request = {"modality": "image", "input": data_address(folder / "sub/0.png")}
        answers = [found(client, "/classify", **request, **options | {name: changes[name]}) for name in changes]
        answers.append(found(client, "/classify", **request, **options))
        assert len({json.dumps(answer) for answer in answers}) == len(answers)

    def test_a_bad_input_is_an_error_of_its_own(self, client: Client, folder: Path) -> None:
        inputs = ["AAAA", data_address(folder / "sub/0.png")]
        rows = found(client, "/classify", modality="image", input=inputs, labels=["a", "b"], templates="plain")
        assert [row["id"] for row in rows] == ["0", "1"]
        assert "not a readable picture" in rows[0]["error"]
        assert len(rows[1]["top"]) == 2

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"labels": "/etc/passwd"}, "labels"),
            ({"labels": ["a"]}, "at least two"),
            ({"labels": ["a", "a"]}, "listed twice"),
            ({"labels": [f"class {number}" for number in range(300)]}, "at most 256"),
            ({"templates": "/etc/passwd"}, "not one of"),
            ({"input": "AAAA"}, "not a readable picture"),
            ({"input": [{"text": "x"}]}, "an input of text"),
            ({"stretches": True}, "give pool none"),
        ],
    )
    def test_a_bad_request_is_refused_with_a_reason(self, client: Client, folder: Path, change: Any, reason: str) -> None:
        request = {"modality": "image", "input": data_address(folder / "sub/0.png"), "labels": ["a", "b"]} | change
        answer = client.post("/classify", request)
        assert 400 < answer.status < 500
        assert reason in answer.reason


class TestLocate:
    @pytest.mark.parametrize("method", ["shares", "both"])
    def test_it_answers_as_locate(self, client: Client, folder: Path, imagebind: Run, method: str) -> None:
        file = folder / "sub/0.png"
        run = imagebind("locate", "image", file, "--text", "a dog", "--method", method, "--box")
        given = {"image": data_address(file), "name": str(file)}
        assert alike(found(client, "/locate", input=given, query="a dog", method=method, box=True), run.rows)

    def test_in_sounds_by_a_picture_with_the_heat_map(self, client: Client, folder: Path, imagebind: Run) -> None:
        run = imagebind("locate", "audio", folder / "0.wav", "--image", folder / "sub/0.png")
        given = {"audio": data_address(folder / "0.wav"), "name": str(folder / "0.wav")}
        query = {"image": data_address(folder / "sub/0.png"), "name": str(folder / "sub/0.png")}
        answer = client.post("/locate", {"input": given, "query": query, "picture": True}).json
        assert alike(answer["results"], run.rows)
        assert answer["picture"].startswith("data:image/jpeg;base64,")

    def test_in_the_file_of_a_row(self, client: Client, folder: Path) -> None:
        (row,) = found(client, "/locate", input={"store": 0, "row": 1}, query="a dog")
        assert row["id"] == str(folder / "sub/1.png")
        assert client.post("/locate", {"input": {"store": 0, "row": 4}, "query": "a dog"}).status == 404

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            ({"input": {"image": "AAAA"}, "query": "x"}, "not a readable picture"),
            ({"input": {"imu": "AAAA"}, "query": "x"}, "cannot be located"),
            ({"input": {"image": "AAAA"}, "query": "x", "size": 5000}, "size"),
            ({"input": {"image": "AAAA"}, "query": {"like": "x"}}, "stores"),
        ],
    )
    def test_a_bad_request_is_refused_with_a_reason(self, client: Client, request_: Any, reason: str) -> None:
        answer = client.post("/locate", request_)
        assert answer.status == 422
        assert reason in answer.reason


class TestMoments:
    def test_it_answers_as_moments(self, client: Client, folder: Path, imagebind: Run) -> None:
        run = imagebind("moments", folder / "windows.h5", "--text", "a dog", "-k", 3, "--against", "rain,wind")
        assert alike(found(client, "/moments", query="a dog", k=3, against=["rain", "wind"]), run.rows)

    def test_in_a_recording_that_is_sent(self, client: Client, folder: Path, imagebind: Run) -> None:
        run = imagebind("moments", folder / "1.wav", "--text", "a dog", "--hop", 0.5)
        recording = {"audio": data_address(folder / "1.wav"), "name": str(folder / "1.wav")}
        assert alike(found(client, "/moments", query="a dog", recording=recording, hop=0.5), run.rows)

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            ({"query": "x", "stores": ["photos.h5"]}, "has no windows"),
            ({"query": "x", "recording": {"audio": "AAAA"}}, "not a readable sound"),
            ({"query": "x", "recording": {"image": "AAAA"}}, "has no seconds"),
            ({"query": "x", "recording": {"audio": "AAAA"}, "hop": 0}, "hop"),
        ],
    )
    def test_a_bad_request_is_refused_with_a_reason(self, client: Client, request_: Any, reason: str) -> None:
        answer = client.post("/moments", request_)
        assert answer.status == 422
        assert reason in answer.reason

    def test_a_store_is_not_a_recording(self, client: Client, folder: Path) -> None:
        answer = client.post("/moments", {"query": "x", "recording": {"audio": data_address(folder / "windows.h5")}})
        assert "not a recording" in answer.reason


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/locate", {"input": "file:a.png", "query": "a dog"}, "input: an object is needed"),
        ("/locate", {"input": {"image": "AAAA", "Foo": 1}, "query": "a dog"}, "input.Foo: no such key here"),
        ("/search", {"query": [{"text": 5}]}, "query.0.text: input should be a valid string"),
        ("/search", [], "the body: an object is needed"),
        ("/search", {"query": "a", "k": 0}, "k: input should be greater than or equal to 1"),
        ("/moments", {"query": "a", "against": "b"}, "against: input should be a valid list"),
    ],
)
def test_a_body_of_another_form_is_refused_in_words_of_json(client: Client, path: str, body: Any, message: str) -> None:
    answer = client.post(path, body)
    assert (answer.status, answer.json["error"]["message"]) == (422, message)
