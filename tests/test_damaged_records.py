"""Damaged files of our own formats, and of others' weights and indexes: one line each, which names the file, and never a traceback."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagebind_cli import documents, tabular
from imagebind_cli.corpus.failures import FailureFile
from imagebind_cli.errors import UserError
from imagebind_cli.store import FORMATS, open_store
from imagebind_cli.training import folder as run_folder
from imagebind_cli.weights import foreign_config, origin
from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.tensor_files import read_tensors
from reliability.mutations import mutate
from tests.conftest import Run
from tests.stores import rewrite_record, store

Change = Callable[[Any], object]


class TestDocuments:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b'{"a": "\xff"}', "can't decode byte 0xff"),
            (b'{"a": ', "Expecting value"),
            (b"[" * 100_000, "nested more than 100 deep"),
            (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
            (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        ],
    )
    def test_json_that_cannot_be_read(self, tmp_path: Path, text: bytes, reason: str) -> None:
        (tmp_path / "a.json").write_bytes(text)
        with pytest.raises(UserError, match=f"a.json: not JSON: .*{reason}"):
            documents.read_json(tmp_path / "a.json")

    @pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = [" * 3, f"{'.'.join('a' * 150)} = 1", "a = 9" + "9" * 5000])
    def test_toml_that_cannot_be_read(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(UserError, match=r"a.toml: not TOML: [^\n]+$"):
            documents.read_toml(tmp_path / "a.toml")

    def test_what_can_be_read(self, tmp_path: Path) -> None:
        deep = "[" * 100 + "]" * 100
        assert documents.parse_json(f"\ufeff{deep}".encode()) == documents.parse_json(deep) == json.loads(deep)
        assert documents.parse_json("[" + "[]," * 500 + "[]]") == [[]] * 501
        assert documents.parse_toml("a.b = 1") == {"a": {"b": 1}}

    def test_a_file_that_is_too_large_or_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(documents, "LARGEST", 3)
        (tmp_path / "a.json").write_bytes(b"[   ]")
        with pytest.raises(UserError, match=r"a.json: more than"):
            documents.read_json(tmp_path / "a.json")
        with pytest.raises(UserError, match=r"b.json: No such file"):
            documents.read_json(tmp_path / "b.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    convert(find_checkpoint("tiny"), folder, {})
    return folder


def _changed(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    *parents, last = place.split(".")
    table = config
    for key in parents:
        table = table[key]
    table[last] = value
    return config


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("dim", 0), ("dim", 1 << 40), ("dim", None), ("dim", "many"), ("name", 3), ("trained_on", [1]),
        ("files", {"vision.safetensors": {"size": 3}}), ("bases", {"text": {"model": "x"}}),
        ("encoders.imu.trunk.heads", 0), ("encoders.imu.trunk.heads", -1), ("encoders.imu.trunk.heads", 3),
        ("encoders.imu.trunk.width", 0), ("encoders.imu.trunk.layers", 10**9), ("encoders.imu.trunk.mlp", float("nan")),
        ("encoders.imu.trunk.mlp", -4), ("encoders.imu.trunk.norm_eps", float("inf")), ("encoders.imu.trunk.activation", "none"),
        ("encoders.audio.shape", []), ("encoders.audio.shape", [1, 128, 1 << 19]), ("encoders.audio.patch", [16]), ("encoders.audio.stride", [0, 0]),
        ("encoders.audio.patch", [500, 500]), ("encoders.audio.std", [0.0]), ("encoders.audio.mean", [float("nan")]), ("encoders.audio.pool", "mean"),
        ("encoders.vision.patch", []), ("encoders.vision.scale", "x"), ("encoders.vision", {}), ("encoders.smell", {}),
        ("encoders.text.vocabulary", -1),
    ],
)  # fmt: skip
def test_a_config_of_no_model_is_refused_by_name(model: Path, tmp_path: Path, imagebind: Run, place: str, value: Any) -> None:
    shutil.copytree(model, tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    config.write_text(json.dumps(_changed(json.loads(config.read_text()), place, value)))
    run = imagebind("weights", "info", tmp_path / "m")
    assert (run.code, run.out) == (1, b"")
    assert len(run.err.splitlines()) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"model_cfg": {"embed_dim": 512, "vision_cfg": {"head_width": 0}, "text_cfg": {}}},
        {"model_cfg": {"embed_dim": "x", "vision_cfg": {}, "text_cfg": {}}},
        {"model_cfg": 3},
        {"vision_cfg": []},
        {"kernel_size": 3},
        {"audio_num_heads": 0},
        {"out_embed_dim": None},
        [],
    ],
)
def test_configs_of_others_are_refused_in_one_line(tmp_path: Path, values: Any) -> None:
    (tmp_path / "c.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"^[^\n]*c.json[^\n]*$"):
        foreign_config.read_config(tmp_path / "c.json")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["zip", "legacy", "wrapped"])
def test_damage_anywhere_in_a_pth_is_one_line(tmp_path: Path, kind: str) -> None:
    """Torch's unpickler raises whatever the damaged bytes happen to mean; 66 kinds of places are known."""
    tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.float16)}
    path = tmp_path / "x.pth"
    torch.save({"state_dict": tensors} if kind == "wrapped" else tensors, path, _use_new_zipfile_serialization=kind != "legacy")
    good, refused = path.read_bytes(), list[str]()
    for seed in range(120):
        path.write_bytes(mutate(good, ".pth", random.Random(seed)))
        try:
            read_tensors(path)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 60
    assert [line for line in refused if not line.startswith(f"{path}: ") or "\n" in line] == []


def test_a_pth_that_promises_more_than_there_is(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(4)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"K\x04\x85", b"\x8a\x06\0\0\0\0\0\x10\x85") if name.endswith("data.pkl") else data)
    with pytest.raises(UserError, match=r"^[^\n]*y.pth: [^\n]+$"):
        read_tensors(tmp_path / "y.pth")


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "b.jpg", "reason": "bad", "hash": "0011"}', b'{"id": "b", "reason": "x", "hash": 3}', b'{"id": 3, "reason": "x"}', b"[]", b"null",
        b'{"id": "b", "size": "x", "mtime": 3}', b'{"id": "b", "size": 1e308}', b'{"id": "b", "size": ' + b"9" * 40 + b"}", b"\xff\xfe", b"[" * 9999,
    ],
)  # fmt: skip
def test_a_file_of_failures_that_is_none(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"id": "a", "reason": "x", "size": 3, "mtime": -55}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"e.jsonl: line 2 is not a failure of an earlier run"):
        FailureFile(path)


@pytest.mark.parametrize(
    "record",
    [
        b'{"address": "hf://a/b", "files": 3}', b'{"address": "hf://a/b", "files": {"a.json": 3}}', b'{"address": "hf://a/b"}', b"[]", b"\xff",
        b'{"address": "hf://a/b", "files": {"a.json": {"size": "3", "sha256": 0}}}', b'{"address": ["hf://a/b"], "files": {}}', b"[" * 99999,
    ],
)  # fmt: skip
def test_a_record_of_origin_that_is_none_counts_as_missing(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "origin.json").write_bytes(record)
    assert not origin.is_fetched(tmp_path, "hf://a/b")
    assert origin.count_files(tmp_path) == 0
    assert origin.read_origin(tmp_path).keys() <= {"address", "revision", "fetched"}
    with pytest.raises(UserError, match=r"no origin.json to check against"):
        origin.check_origin(tmp_path)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "change",
    [
        {"dim": 10**22},
        {"dim": "4"},
        {"dim": -1},
        {"array": "int64"},
        {"modality": 3},
        {"assumptions": 3},
        {"scale": "x"},
        {"folder": 3},
        None,
    ],
)
def test_a_record_that_no_store_has(tmp_path: Path, imagebind: Run, ending: str, change: dict[str, Any] | None) -> None:
    path = write_store(tmp_path / f"s{ending}")
    rewrite_record(path, lambda record: "dim" if change is None else record | change)
    with pytest.raises(UserError, match=r"^[^\n]*s\.[^\n]*the record of how it was made[^\n]*$"):
        open_store(path)
    assert imagebind("store", "check", path).code == 1


@pytest.mark.parametrize("missing", ["model", "weights", "options", "dim", "array", "modality", "assumptions", "pool"])
def test_a_store_that_does_not_say_how_it_was_made(tmp_path: Path, imagebind: Run, missing: str) -> None:
    path = write_store(tmp_path / "s.npy")
    rewrite_record(path, lambda record: {key: value for key, value in record.items() if key not in (missing, "crc32")})
    found = imagebind("store", "check", path)
    assert found.code in (0, 1)
    assert missing in ("options", "assumptions") or missing in found.out.decode()
    for command in (
        ("store", "info", path),
        ("retrieve", path, "--like", "0"),
        ("store", "export", path, "-o", tmp_path / f"{missing}.h5"),
    ):
        run = imagebind(*command)
        assert run.code in (0, 1)
        assert len(run.err.splitlines()) <= 1


def write_store(path: Path) -> Path:
    return store(path, "image", [str(number) for number in range(5)])


@pytest.mark.parametrize("damage", ["flipped", "promises", "cut", "other", "dim", "record"])
def test_a_damaged_index_is_built_again(tmp_path: Path, imagebind: Run, damage: str) -> None:
    path = write_store(tmp_path / "s.h5")
    command = ("retrieve", path, "--like", "0", "--index", "hnsw")
    right = imagebind(*command).out
    index, record = tmp_path / "s.h5.hnsw.faiss", tmp_path / "s.h5.hnsw.faiss.json"
    data = bytearray(index.read_bytes())
    if damage == "record":
        record.write_text("[" * 99999)
    elif damage in ("dim", "other"):  # a whole index, and no checksum to tell it by
        import faiss

        written = faiss.IndexFlatIP(7)
        written.add(np.eye(7, dtype=np.float32)[:5])
        faiss.write_index(written, os.fspath(index))
        record.write_text(
            json.dumps({key: value for key, value in json.loads(record.read_text()).items() if key != "file" or damage == "other"})
        )
    else:
        data[len(data) // 2] ^= 1
        data[60:68] = b"\xff" * 7 + b"\x0f" if damage == "promises" else data[60:68]
        index.write_bytes(data[:-9] if damage == "cut" else data)
    again = imagebind(*command)
    assert (again.code, again.out) == (0, right)
    assert "building it" in again.err
    assert "building it" not in imagebind(*command).err


@pytest.mark.parametrize("record", [b"", b'{"recipe": ', b"[]", b'{"threads": "x"}', b'{"threads": 0}', b'{"threads": 1e99}'])
def test_a_torn_record_of_a_run(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "run.json").write_bytes(record)
    with pytest.raises(UserError, match=r"^[^\n]*run.json: [^\n]+$"):
        run_folder.recorded_threads(tmp_path)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ESTALE, "stale"), "cannot write: Stale file handle"),
        (OSError("no reason known"), "cannot write: no reason known"),
        (MemoryError("std::bad_alloc"), "out of memory: std::bad_alloc"),
    ],
)
def test_what_the_system_refuses_is_one_line(imagebind: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("imagebind_cli.weights.describe.known_models", fail)
    run = imagebind("weights", "list")
    assert run.code == 1
    assert run.err.splitlines()[0].startswith(f"imagebind: {line}")
    assert len(run.err.splitlines()) == 1


def test_a_line_or_cell_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "LONGEST", 100)
    long, (csv, lines) = "x" * 60, (tmp_path / "a.csv", tmp_path / "a.jsonl")
    csv.write_text(f'image,text\na.png,"{long}"\nb.png,"{long}\n{long}\n{long}"\n')
    lines.write_text(json.dumps({"image": long}) + "\n" + json.dumps({"image": long * 2}) + "\n")
    rows = tabular.read_rows(csv)
    assert next(rows) == (2, {"image": "a.png", "text": long})
    with pytest.raises(UserError, match=r"a.csv:3: a cell begins here that has more than 100 characters"):
        next(rows)
    with pytest.raises(UserError, match=r"a.jsonl: line 2: has more than 100 characters"):
        list(tabular.read_rows(lines))
