"""`imagebind score`: what is printed of pairs of stores and of files, what has no partner, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import registry
from tests import generate
from tests.conftest import Run
from tests.stores import store, unit_rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stores(folder: Path) -> float:
    """Two stores with two pairs and an item without a partner each; their mean cosine."""
    a, b = unit_rows(3, seed=1), unit_rows(3, seed=2)
    store(folder / "a.h5", "image", ["x/1.png", "x/2.png", "x/3.png"], vectors=a)
    store(folder / "b.h5", "audio", ["y/1.wav", "y/2.wav", "y/4.wav"], vectors=b)
    return float(np.mean([a[0] @ b[0], a[1] @ b[1]]))


def test_the_score_of_two_stores(imagebind: Run, stores: float) -> None:
    run = imagebind("score", "a.h5", "b.h5", "--pairs", "stem", "--json")
    score = json.loads(run.out)
    assert (run.code, score["pairs"]) == (0, 2)
    assert score["score"] == pytest.approx(stores, abs=1e-6)
    assert "x/3.png" in run.err
    assert "y/4.wav" in run.err


def test_rows_are_lines_of_pairs(imagebind: Run, stores: float) -> None:
    rows = imagebind("score", "a.h5", "b.h5", "--pairs", "stem", "--rows").rows
    assert np.mean([row["cosine"] for row in rows]) == pytest.approx(stores, abs=1e-6)


def test_files_are_embedded_first(imagebind: Run, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
    for number in range(2):
        generate.picture(folder / "a" / f"{number}.png", seed=number)
        generate.audio(folder / "b" / f"{number}.wav", seed=number)
    run = imagebind("score", "a", "b", "--pairs", "stem", "--json", "--model", "tiny")
    assert (run.code, json.loads(run.out)["pairs"]) == (0, 2), run.err


def test_a_protocol_reads_videos_and_pictures_as_it_says(imagebind: Run, folder: Path) -> None:
    (folder / "videos").mkdir()
    (folder / "photos").mkdir()
    generate.video(folder / "videos" / "0.mp4", seconds=4)
    generate.picture(folder / "photos" / "0.png")
    assert imagebind("embed", "video", "videos", "--clips", "5", "--crops", "3", "-o", "published.h5").code == 0
    assert imagebind("embed", "video", "videos", "--clips", "2", "--crops", "1", "-o", "two.h5").code == 0
    assert imagebind("embed", "image", "photos", "-o", "photos.h5").code == 0

    def line(*arguments: str) -> dict[str, Any]:
        run = imagebind("score", *arguments, "--pairs", "stem", "--json")
        assert run.code == 0, run.err
        return json.loads(run.out)

    by_store = line("published.h5", "photos.h5", "--protocol", "published")["score"]
    assert line("videos", "photos", "--modalities", "video,image", "--protocol", "published")["score"] == pytest.approx(by_store, abs=1e-6)
    two = line("two.h5", "photos.h5")["score"]
    assert line("videos", "photos", "--modalities", "video,image", "--clips", "2", "--crops", "1")["score"] == pytest.approx(two, abs=1e-6)
    assert two != pytest.approx(by_store, abs=1e-6)
    refused = imagebind("score", "two.h5", "photos.h5", "--pairs", "stem", "--protocol", "published")
    assert (refused.code, "made with --clips 2; protocol published has 5" in refused.err) == (1, True), refused.err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--decode", "fast"), "made with --decode fast; protocol published has exact"),
        (("--tiles", "1/2"), "made with --tiles 1/2; protocol published has no --tiles"),
        (("--merge", "8"), "made with --merge 8; protocol published merges no tokens"),
    ],
)
def test_a_protocol_refuses_options_that_it_does_not_name(imagebind: Run, folder: Path, flags: tuple[str, ...], reason: str) -> None:
    generate.picture(folder / "0.jpg", size=(640, 480))
    store(folder / "sounds.h5", "audio", ["0.wav"])
    assert imagebind("embed", "image", "0.jpg", *flags, "-o", "made.h5").code == 0
    refused = imagebind("score", "made.h5", "sounds.h5", "--protocol", "published")
    assert (refused.code, reason in refused.err) == (1, True), refused.err


def test_a_protocol_refuses_an_option_of_files_that_it_does_not_name(imagebind: Run, folder: Path) -> None:
    generate.picture(folder / "0.jpg", size=(640, 480))
    generate.audio(folder / "0.wav")
    refused = imagebind("score", "0.jpg", "0.wav", "--protocol", "published", "--decode", "fast")
    assert (refused.code, "--decode fast: protocol published has exact" in refused.err) == (2, True), refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("a.h5", "none.h5"), 1, "none.h5"),
        (("a.h5", "b.h5", "--pairs", "ids"), 1, "pair"),
        (("a.h5", "b.h5", "--protocol", "best"), 2, "best"),
    ],
)
def test_what_cannot_be_scored_is_one_line(imagebind: Run, stores: float, arguments: tuple[str, ...], code: int, reason: str) -> None:
    run = imagebind("score", *arguments)
    assert (run.code, reason in run.err) == (code, True), run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("modality", "own", "others"), [("image", "tiles", "clips"), ("video", "clips", "tiles"), ("audio", "clips", "tiles")]
)
def test_options_of_a_modality_are_those_of_its_inputs(modality: str, own: str, others: str) -> None:
    names = registry.face(modality).option_names()
    assert own in names
    assert others not in names
