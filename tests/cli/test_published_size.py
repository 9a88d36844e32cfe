"""Every command on tensors of the published names and shapes, which need no memory: neighbouring numbers share theirs.

Whatever counts, names or reads weights is the same as with the real file, and so is the computation.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import imagebind_cli as ib
from benchmarks.published_weights import overlapping_weights, published_shapes
from imagebind_cli.demo import SAMPLES
from imagebind_cli.store import open_store
from imagebind_cli.weights import checkpoint, model_config
from tests.conftest import Run

HUGE = model_config.packaged_config("huge")
INPUTS = {
    "image": [SAMPLES / "image" / "house.png"],
    "video": [SAMPLES / "video" / "walk-in-the-rain.mp4", "--clips", "1", "--crops", "1"],
    "text": ["a dog barking"],
    "audio": [SAMPLES / "audio" / "guitar.mp3"],
    "depth": [SAMPLES / "depth" / "chair.png"],
    "thermal": [SAMPLES / "thermal" / "cat.png"],
    "imu": [SAMPLES / "imu" / "walking.csv"],
}


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.pth` of the published names and shapes, 12 MB."""
    path = tmp_path_factory.mktemp("huge") / "imagebind_huge.pth"
    torch.save(overlapping_weights(published_shapes(HUGE), seed=7), path)
    return path


@pytest.mark.timeout(900)
@pytest.mark.parametrize("modality", INPUTS)
def test_every_input_is_embedded(imagebind: Run, huge: Path, modality: str) -> None:
    done = imagebind("embed", modality, *INPUTS[modality], "--model", huge, "--device", "cpu")
    assert done.code == 0, done.err
    assert done.vectors.shape == (1, 1024)
    assert abs(np.linalg.norm(done.vectors) - 1) < 1e-5
    assert "untrained" not in done.err


def test_info_counts_and_fingerprints_every_encoder(imagebind: Run, huge: Path) -> None:
    (about,) = imagebind("weights", "info", huge, "--json").rows
    assert {name: encoder["parameters"] for name, encoder in about["encoders"].items()} == {
        "vision": 632_829_440, "text": 354_032_641, "audio": 86_235_649, "depth": 21_871_873, "thermal": 86_211_073, "imu": 19_600_385,
    }  # fmt: skip
    found = checkpoint.open_file(huge)
    assert {name: encoder["fingerprint"] for name, encoder in about["encoders"].items()} == {
        name: found.fingerprint(name) for name in HUGE.encoders
    }
    assert len({encoder["fingerprint"] for encoder in about["encoders"].values()}) == 6


def test_every_encoder_loads(imagebind: Run, huge: Path) -> None:
    done = imagebind("weights", "verify", huge)
    assert (done.code, done.out) == (0, b"huge (imagebind): 0 files as recorded, 6 encoders load\n")


def test_a_store_is_gone_on_with_searched_and_classified(imagebind: Run, huge: Path, tmp_path: Path) -> None:
    maps, words = tmp_path / "maps.h5", tmp_path / "words.h5"
    for before in (0, 4):
        done = imagebind("embed", "depth", SAMPLES / "depth", "-o", maps, "--model", huge, "--device", "cpu")
        assert done.code == 0, done.err
        assert ("4 there already" in done.err) == bool(before)
    assert imagebind("embed", "text", "a room", "stairs", "-o", words, "--model", huge, "--device", "cpu").code == 0
    found = checkpoint.open_file(huge)
    for store, encoder, scale in ((maps, "depth", 5.0), (words, "text", 14.2857143)):
        made = open_store(store).provenance
        assert made["weights"] == found.fingerprint(encoder)
        assert (made["model"], made["dim"], made["dtype"], made["untrained"]) == (found.config.name, 1024, "float32", False)
        assert made["scale"] == pytest.approx(scale, rel=1e-6)
    hits = imagebind("retrieve", maps, words, "--text", "stairs", "-k", "1", "--model", huge, "--device", "cpu")
    assert [(hit["id"], round(hit["score"], 6)) for hit in hits.rows] == [("stairs", 1.0)], hits.err
    classified = imagebind(
        "zeroshot", "depth", maps, "--labels", "room,stairs,corridor", "--templates", "plain", "--model", huge, "--device", "cpu"
    )
    assert classified.code == 0, classified.err
    assert [len(row["top"]) for row in classified.rows] == [3, 3, 3, 3]
    by_store = imagebind("zeroshot", "depth", maps, "--classes", words)
    assert by_store.code == 0, by_store.err


def test_what_is_prepared_for_it_is_embedded_alike(imagebind: Run, huge: Path, tmp_path: Path) -> None:
    here = ("--model", huge)
    assert imagebind("preprocess", "imu", *INPUTS["imu"], "-o", tmp_path / "imu.tar", *here).code == 0
    direct, prepared = (imagebind("embed", "imu", given, *here, "--device", "cpu") for given in (*INPUTS["imu"], tmp_path / "imu.tar"))
    assert np.abs(direct.vectors - prepared.vectors).max() < 1e-6


@pytest.mark.parametrize("pairs", ["image-text", "image-audio", "image-depth", "image-thermal", "video-imu"])
def test_a_run_from_it_is_planned(imagebind: Run, huge: Path, tmp_path: Path, pairs: str) -> None:
    given = {"text": "a city", **{name: str(value[0]) for name, value in INPUTS.items() if name != "text"}}
    row = {modality: given[modality] for modality in pairs.split("-")}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"id": str(number), **row}) + "\n" for number in range(4)))
    plan = imagebind(
        "train", "--pairs", pairs, "--data", tmp_path / "pairs.jsonl", "--batch", 4, "--model", huge, "--device", "cpu", "--dry-run"
    )
    assert plan.code == 0, plan.err
    assert f"from {huge}" in plan.err + plan.out.decode()
    assert "632,829,440 parameters" in plan.err + plan.out.decode()


def test_numbers_that_share_memory_compute_as_any_others(huge: Path) -> None:
    shared, apart = (ib.load(huge, device="cpu") for _ in range(2))
    sample = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 6, 2000), dtype=np.float32))
    for parameter in apart.encoder("imu").parameters():
        parameter.data = parameter.data.contiguous()
    torch.testing.assert_close(shared.encode("imu", sample), apart.encode("imu", sample), atol=1e-6, rtol=0)
