"""What an earlier commit of this program wrote is read, resumed and added to: stores in every format, prepared samples, a training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebind_cli import load
from imagebind_cli.errors import UserError
from imagebind_cli.options import read_options
from imagebind_cli.store import open_store
from tests.conftest import Run

EARLIER = Path(__file__).parent / "data" / "earlier"
SENTENCES = ["a dog barking", "rain on a roof"]


@pytest.fixture(autouse=True)
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of what was written, in the folder to work in."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")


@pytest.mark.parametrize("name", ["store.h5", "array.npy", "store.safetensors", "lines.jsonl", "folder.store"])
def test_a_store_is_read_resumed_and_added_to(embed: Run, tiny: Any, name: str) -> None:
    store = open_store(name)
    assert store.ids == SENTENCES
    assert np.abs(store.vectors() - tiny.embed("text", SENTENCES)).max() <= 1e-6
    again = embed("text", *SENTENCES, "-o", name)
    assert (again.code, f"{name}: 0 embedded, 2 there already" in again.err) == (0, True), again.err
    more = embed("text", *SENTENCES, "a bell", "-o", name)
    assert (more.code, f"{name}: 1 embedded, 2 there already" in more.err) == (0, True), more.err
    assert open_store(name).ids == [*SENTENCES, "a bell"]


@pytest.mark.parametrize("name", ["prepared.tar", "prepared.h5"])
def test_prepared_samples_are_embedded_and_added_to(imagebind: Run, embed: Run, tiny: Any, name: str) -> None:
    run = embed("text", name)
    assert (run.code, run.ids) == (0, SENTENCES)
    assert np.abs(run.vectors - tiny.embed("text", SENTENCES)).max() <= 1e-6
    more = imagebind("preprocess", "text", *SENTENCES, "a bell", "-o", name, "--model", "tiny")
    assert (more.code, f"{name}: 1 prepared, 2 there already" in more.err) == (0, True), more.err
    assert embed("text", name).ids == [*SENTENCES, "a bell"]


TRAINING = (
    "train", "--pairs", "image-depth", "--model", "tiny", "--data", "training/train.jsonl", "--val", "training/val.jsonl", "--batch", "4",
    "--device", "cpu", "--set", "run.workers=0", "--set", "run.steps=6", "--set", "encoders.depth.train=head", "--set", "pairs.0.views=2",
    "--set", "pairs.0.augment.image.flip=0.5", "--set", "pairs.0.augment.depth.flip=0.5", "--set", "run.anchor_cache=true",
)  # fmt: skip
"""The command of the run in training/run, which was killed at step 3 of 6, after a checkpoint at step 2."""


def metrics_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_training_run_is_a_model_and_is_continued(imagebind: Run) -> None:
    vectors = [load("training/run", device="cpu").embed("depth", ["training/0.npy"])]
    anchors = [path.stat().st_mtime_ns for path in Path("training/run/anchors").rglob("*.npy")]
    run = imagebind(*TRAINING, "--out", "training/run")
    assert (run.code, run.rows[0]["steps"]) == (0, 6), run.err
    assert "after step 2 of 6" in run.err
    assert "anchors to embed" not in run.err
    assert [path.stat().st_mtime_ns for path in Path("training/run/anchors").rglob("*.npy")] == anchors
    expected, lines = (metrics_of(f"training/{name}") for name in ("metrics-uninterrupted.jsonl", "run/metrics.jsonl"))
    assert [list(line) for line in lines] == [list(line) for line in expected]
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx(
        [line["loss"] for line in expected if "loss" in line], rel=1e-4
    )
    vectors.append(load("training/run", device="cpu").embed("depth", ["training/0.npy"]))
    assert not np.allclose(*vectors, atol=1e-4)


def test_a_training_run_is_refused_with_another_recipe(imagebind: Run) -> None:
    run = imagebind(*TRAINING, "--set", "run.seed=1", "--out", "training/run")
    assert (run.code, "begun with run.seed = 0, not 1" in run.err) == (1, True), run.err


def without(record: dict[str, Any], option: str) -> str:
    """The JSON of a record from before an option existed."""
    del record["options"][option]
    return json.dumps(record)


@pytest.mark.parametrize("name", ["array.npy", "lines.jsonl"])
def test_a_new_option_at_its_default_lets_an_older_store_be_added_to(embed: Run, name: str) -> None:
    record = Path(name).with_suffix(".made.json")
    record.write_text(without(json.loads(record.read_text()), "long_text"))
    refused = embed("text", *SENTENCES, "a bell", "--long-text", "window", "-o", name)
    assert (refused.code, "made with --long-text truncate; this run has window" in refused.err) == (1, True), refused.err
    more = embed("text", *SENTENCES, "a bell", "-o", name)
    assert (more.code, f"{name}: 1 embedded, 2 there already" in more.err) == (0, True), more.err


def test_a_new_option_at_its_default_lets_older_samples_be_added_to_and_taken() -> None:
    from imagebind_cli.prepared.entries import check_prepared_alike
    from imagebind_cli.registry import face

    channels = {"clips": None, "channels": "first"}
    before, now, other = ({"inputs": {"audio": {"options": kept}}} for kept in ({"clips": None}, channels, channels | {"channels": "mix"}))
    check_prepared_alike(Path("a.tar"), before, now)
    check_prepared_alike(Path("a.tar"), now, before)
    with pytest.raises(UserError, match=r"made with --channels first for audio; this run has mix"):
        check_prepared_alike(Path("a.tar"), before, other)
    audio = face("audio").options
    assert audio.with_defaults({"clips": 3}) == {name: getattr(audio(clips=3), name) for name in audio.names()}


def test_options_are_checked_once_for_a_whole_command(embed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each item."""
    from imagebind_cli import registry

    checked = []
    monkeypatch.setattr(registry, "read_options", lambda *given: checked.append(given) or read_options(*given))
    assert embed("text", *(f"sentence {number}" for number in range(20))).code == 0
    assert len(checked) <= 2  # the flags, and the keywords of `corpus.embed`
