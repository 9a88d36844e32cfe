"""recipes/mini/train/package.py: the shipped model from runs of its real shape, in half precision, small enough, and near what the runs hold."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import imagebind_cli as ib
from imagebind_cli.number_types import cosines
from imagebind_cli.weights import foreign_config, rule
from imagebind_cli.weights.convert import convert

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "mini" / "train"))

import package

MINI = package.HERE


def test_the_model_is_put_together_from_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "HERE", tmp_path / "train")
    config = foreign_config.read_config(MINI / "mini.json")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mini.json").write_text(config.to_json())
    (tmp_path / "CARD.md").write_text("# what it is\n")
    runs = tmp_path / "work" / "runs"
    convert(rule.checkpoint_by_rule(replace(config, rule_seed=1)), runs / "one", {})
    for run in set(package.RUNS.values()):
        (runs / run).symlink_to(runs / "one")

    package.main(tmp_path / "work", tmp_path / "made")

    assert sum(path.stat().st_size for path in (tmp_path / "made").iterdir()) < 30e6
    assert (tmp_path / "made" / "CARD.md").read_text() == "# what it is\n"
    assert not list(tmp_path.glob("*.part"))
    exact, made = ib.load(runs / "one", device="cpu"), ib.load(tmp_path / "made", device="cpu")
    for name in package.RUNS:
        assert cosines(exact, made, name).min() > 0.999, name
        assert all(tensor.isfinite().all() for tensor in made.checkpoint.read(name).values())
    assert next(iter(made.encoder("text").parameters())).dtype == torch.float32


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="runs/image-text is not there; mini.sh makes it"):
        package.main(tmp_path, tmp_path / "made")


def test_one_encoder_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(Path(ib.__file__).parent / "models" / "mini", folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    convert(rule.checkpoint_by_rule(replace(foreign_config.read_config(MINI / "mini.json"), rule_seed=1)), tmp_path / "runs" / "imu-0", {})
    package.main(tmp_path, folder, ["imu"])
    after = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert {name for name in before if before[name] != after[name]} == {"imu.safetensors"}
    made, shipped = ib.load(folder, device="cpu").checkpoint.config, ib.load("mini", device="cpu").checkpoint.config
    assert made.origin["steps"] == shipped.origin["steps"] | {"imu-0": None}
    assert made.trained_on == shipped.trained_on
