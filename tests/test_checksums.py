"""Checksums: a flipped bit is reported by the next command that depends on it, or by a check."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from imagebind_cli import load
from imagebind_cli.checksums import check_seal, seal
from imagebind_cli.errors import UserError
from imagebind_cli.store import FORMATS, Row, Store, open_store
from imagebind_cli.store.check import findings
from imagebind_cli.store.maintenance import merge
from imagebind_cli.weights import checkpoint, origin
from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.origin import file_hash
from tests.conftest import Run
from tests.stores import DIM, MADE, store, unit_rows, without_checksums

TEXTS = {**MADE, "dim": DIM, "modality": "text"}


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def files_of(path: Path) -> list[Path]:
    """The files of a store."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.stat().st_size)
    return [path, *(file for file in (path.with_suffix(".jsonl"), path.with_suffix(".made.json")) if file.exists() and file != path)]


def content(path: Path) -> Any:
    """Everything that a store gives its readers."""
    reader = open_store(path)
    about = [(row.id, row.span, row.windows, dict(row.meta), row.stamp, row.vector.tobytes()) for item in reader.items() for row in item]
    return about, reader.provenance, reader.replaced


def replaced_store(path: Path) -> Path:
    """A store of 40 rows, five of which replaced others."""
    store(path, "text", [f"text {number}" for number in range(40)], metas=[{"row": number} for number in range(40)])
    with Store(path, TEXTS) as again:
        for number, vector in enumerate(unit_rows(5, seed=1)):
            again.append([Row(f"text {number}", vector)])
    return path


@pytest.mark.parametrize("ending", list(FORMATS))
def test_no_flipped_bit_changes_what_a_store_gives_without_a_finding(tmp_path: Path, ending: str) -> None:
    path, draw = replaced_store(tmp_path / f"s{ending}"), random.Random(0)
    before = content(path)
    assert list(findings(path)) == []
    for file in files_of(path):
        whole = file.read_bytes()
        for _ in range(60 if ending == ".h5" else 25):
            flip(file, place := draw.randrange(len(whole)), bit := draw.randrange(8))
            assert list(findings(path)) or content(path) == before, (file.name, place, bit)
            file.write_bytes(whole)


@pytest.mark.parametrize("ending", list(FORMATS))
def test_a_check_names_the_row_whose_vector_is_damaged_and_no_copy_is_made_of_it(imagebind: Run, tmp_path: Path, ending: str) -> None:
    path = store(tmp_path / f"s{ending}", "text", [f"text {number}" for number in range(20)])
    vectors = path / "vectors-00000.npy" if path.is_dir() else path
    number = open_store(path).vectors()[7]
    sought = f"{number[3]:.9g}".encode() if ending == ".jsonl" else number.tobytes()
    flip(vectors, vectors.read_bytes().index(sought) + (len(sought) - 1 if ending == ".jsonl" else 14), 0)
    run = imagebind("store", "check", path)
    assert run.code == 1
    assert [line for line in run.out.decode().splitlines() if "damaged" in line and ("row 7" in line or "line 8" in line)]
    for command in (("merge", path, "-o", tmp_path / "m.h5"), ("export", path, "-o", tmp_path / "e.store")):
        run = imagebind("store", *command)
        assert (run.code, "damaged" in run.err) == (1, True), run.err
    assert not (tmp_path / "e.store").exists()


@pytest.mark.parametrize("ending", [".h5", ".store", ".npy", ".jsonl"])
def test_a_store_of_an_earlier_version_is_read_and_said_once(imagebind: Run, tmp_path: Path, ending: str) -> None:
    path = without_checksums(replaced_store(tmp_path / f"s{ending}"))
    run = imagebind("store", "check", path)
    assert (run.code, run.err.count("45 of 45 rows have no checksum")) == (0, 1), run.err
    with Store(path, TEXTS) as continued:
        assert continued.stored == 40
        continued.append([Row("new", unit_rows(1, seed=2)[0])])
    assert open_store(path).ids[-1] == "new"
    run = imagebind("store", "check", path)
    assert (run.code, "45 of 46 rows have no checksum" in run.err) == (0, True), run.out
    merge([open_store(path)], target := tmp_path / "whole.h5")
    notes: list[str] = []
    assert (list(findings(target, notes.append)), notes) == ([], [])


def test_lines_beside_vectors_are_compared_when_their_rows_are_used(imagebind: Run, tmp_path: Path) -> None:
    """Comparing all of them takes a sixth of the time of a search."""
    path = store(tmp_path / "s.npy", "text", [f"text {number}" for number in range(200)])
    lines = tmp_path / "s.jsonl"
    flip(lines, lines.read_bytes().index(b"text 150") + 2)
    damage = f"{lines}: line 151 is damaged or edited"
    reader = open_store(path)
    assert reader.id(3) == "text 3"
    assert len(reader.vectors()) == 200
    for use in (lambda: reader.id(150), lambda: reader.ids, lambda: list(reader.items()), lambda: Store(path, TEXTS)):
        with pytest.raises(UserError, match=damage):
            use()
    assert [finding for finding in findings(path) if "line 151 is damaged" in finding]
    for command in (("retrieve", path, "--like", "text 150"), ("store", "export", path, "-o", tmp_path / "e.h5")):
        run = imagebind(*command)
        assert (run.code, damage in run.err) == (1, True), run.err


@pytest.mark.parametrize("ending", [".h5", ".store"])
def test_a_run_does_not_continue_over_damaged_records_of_inputs(tmp_path: Path, ending: str) -> None:
    path = replaced_store(tmp_path / f"s{ending}")
    if ending == ".h5":
        with h5py.File(path, "r+") as file:
            record = file["inputs"][3]
            record["size"] += 1
            file["inputs"][3] = record
    else:
        flip(path / "index-00000.npy", 256 + 3 * 64 + 8)
    with pytest.raises(UserError, match=r"damaged: its records of inputs do not match the checksum; imagebind store check"):
        Store(path, TEXTS)
    assert "row 3: damaged" in "".join(findings(path))


def test_a_damaged_list_of_replaced_rows_is_reported_on_opening(tmp_path: Path) -> None:
    path = replaced_store(tmp_path / "s.store")
    flip(path / "replaced-00000.npy", 256)
    with pytest.raises(UserError, match=r"list of replaced rows does not match"):
        open_store(path)


def test_a_commit_that_is_damaged_is_a_finding(tmp_path: Path) -> None:
    path = replaced_store(tmp_path / "s.store")
    flip(path / "commits", 8)
    assert list(findings(path)) == ["commits: 1 records are damaged, or were not written in full"]


def test_a_seal_is_the_last_key_and_fails_with_any_other_bytes() -> None:
    text = seal('{"a": 1, "b": [2]}').encode()
    assert check_seal(text + b"\n")
    assert not check_seal(b'{"a": 1}')
    with pytest.raises(ValueError, match="do not match the checksum"):
        check_seal(text.replace(b"1", b"3", 1))
    with pytest.raises(ValueError, match="do not match the checksum"):
        check_seal(text[:-3] + b"x" + text[-2:])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A converted model."""
    convert(find_checkpoint("tiny"), tmp_path / "model", {})
    return tmp_path / "model"


def place_of(path: Path, tensor: str) -> int:
    """The middle of a tensor in a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return 8 + length + sum(json.loads(data[8 : 8 + length])[tensor]["data_offsets"]) // 2


def test_a_flipped_bit_of_a_weight_is_reported_with_its_tensor(imagebind: Run, model: Path) -> None:
    assert imagebind("embed", "text", "a dog", "--model", model).code == 0
    assert imagebind("weights", "verify", model).code == 0
    flip(model / "text.safetensors", place_of(model / "text.safetensors", "trunk.blocks.0.mlp.up.weight"))
    run = imagebind("embed", "text", "a dog", "--model", model)
    assert run.code == 1
    (line,) = run.notices
    assert "model/text.safetensors: damaged: SHA-256 " in line
    assert "; damaged: trunk.blocks.0.mlp.up.weight; delete it and fetch, convert or train it again" in line
    run = imagebind("weights", "verify", model)
    assert (run.code, "damaged: trunk.blocks.0.mlp.up.weight" in run.err) == (1, True)


def test_a_weight_file_is_read_once_for_each_state(model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(origin, "file_hash", lambda path: hashed.append(path.name) or file_hash(path))
    for _ in range(3):
        load(model, device="cpu").embed("text", "a dog")
    assert hashed == ["text.safetensors"]
    os.utime(model / "text.safetensors", (1, 1))
    load(model, device="cpu").embed("text", "a dog")
    assert hashed == ["text.safetensors"] * 2
    (home / "verified.json").write_text("{")
    load(model, device="cpu").embed("text", "a dog")
    assert hashed == ["text.safetensors"] * 3


def test_a_flipped_bit_of_a_fetched_file_is_reported_with_its_member(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "fetched" / "model.pth"
    path.parent.mkdir()
    torch.save({"logit_scale": torch.ones(1), "visual.proj": torch.randn(64, 64)}, path)
    origin.write_origin(path.parent, {"address": "hf://a/b"}, {path.name: origin.file_record(path)})
    flip(path, path.read_bytes().index(torch.load(path)["visual.proj"].numpy().tobytes()) + 999)
    with pytest.raises(UserError, match=r"model.pth: damaged: SHA-256 .*; damaged: model/data/1; delete it and fetch"):
        checkpoint.open_file(path)


def test_a_flipped_digit_of_a_config_is_reported_by_verify(imagebind: Run, model: Path) -> None:
    path = model / "config.json"
    path.write_text(path.read_text().replace('"heads": 4', '"heads": 2', 1).replace("1e-06", "1e-07", 1))
    done = imagebind("weights", "verify", model)
    assert done.code == 1
    assert "config.json: damaged or edited: " in done.err + done.out.decode()
    load(model)  # an edited one is used


def test_rows_keep_their_checksums_in_float16(tmp_path: Path) -> None:
    store(tmp_path / "s.h5", "text", list("abc"), array="float16")
    for ending in FORMATS:
        merge([open_store(tmp_path / "s.h5")], path := tmp_path / f"copy-{ending[1:]}{ending}", "float16")
        assert list(findings(path)) == []
        assert np.array_equal(open_store(path).vectors(), open_store(tmp_path / "s.h5").vectors())
