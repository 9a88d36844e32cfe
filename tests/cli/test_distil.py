"""`imagebind train --distil`: a smaller encoder from files without pairs, in rounds, that loses nothing when it is killed."""

import json
import os
import subprocess
import time
from importlib.resources import files

import numpy as np
import pytest
from safetensors.torch import load_file

from imagebind_cli import load
from tests.generate import picture

STUDENT = {
    "format": 1, "name": "student", "about": "", "licence": None, "dim": 64,
    "encoders": {"vision": {
        "shape": [3, 2, 32, 32], "patch": [2, 8, 8], "stride": [2, 8, 8], "mean": [0.5] * 3, "std": [0.3] * 3,
        "trunk": {"width": 32, "layers": 2, "heads": 2, "pre_norm": True},
    }},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of twelve pictures, and students of a smaller and of the same space."""
    folder = tmp_path_factory.mktemp("distil")
    (folder / "photos").mkdir()
    for seed in range(12):
        picture(folder / f"photos/{seed}.png", seed, (64, 48))
    (folder / "student.json").write_text(json.dumps(STUDENT))
    (folder / "wide.json").write_text(json.dumps(STUDENT | {"dim": 256}))
    (folder / "small.json").write_text(json.dumps(STUDENT | {"dim": 8}))
    return folder


def flags(place, student="student.json", steps=6, teacher="tiny"):
    common = ["--distil", teacher, "--student", place / student, "--modality", "image", "--data", place / "photos", "--batch", 4]
    settings = [f"run.steps={steps}", "run.workers=0", "optimizer.warmup=0", "optimizer.lr=3e-3"]
    return [*common, "--device", "cpu", *(part for change in settings for part in ("--set", change))]


def test_a_student_learns_what_its_teacher_says_and_joins_its_space(imagebind, place, tmp_path):
    out = tmp_path / "run"
    done = imagebind("train", *flags(place, "wide.json", 60, "mini"), "--out", out)
    assert done.code == 0, done.err
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    student, teacher = load(out), load("mini")
    photos = sorted(map(str, (place / "photos").glob("*.png")))
    ours, theirs = (model.embed("image", photos) for model in (student, teacher))
    assert (ours * theirs).sum(1).mean() > 0.8
    assert np.allclose(*(model.embed("text", ["a dog"]) for model in (student, teacher)))  # the teacher's other encoders
    assert json.loads((out / "config.json").read_text())["origin"]["teachers"] == {"image": "mini"}


def test_a_smaller_space_is_its_own(imagebind, place, tmp_path):
    out = tmp_path / "run"
    done = imagebind("train", *flags(place, "small.json"), "--out", out)
    assert done.code == 0, done.err
    assert "image: taught by tiny, 64 numbers, along 8 principal directions; sees whole samples" in done.err
    assert list(json.loads((out / "config.json").read_text())["encoders"]) == ["vision"]
    assert len(list(out.glob("anchors/image-*/principal-8.npy"))) == 1


def test_a_student_starts_from_chosen_blocks_of_its_teacher(imagebind, place, tmp_path):
    mini = json.loads((files("imagebind_cli") / "models/mini/config.json").read_text())
    vision = mini["encoders"]["vision"]
    vision["trunk"] |= {"layers": 2, "mlp": 3.0}
    shape = {key: mini[key] for key in ("format", "name", "about", "licence", "dim")}
    (tmp_path / "pruned.json").write_text(json.dumps(shape | {"encoders": {"vision": vision}}))
    (tmp_path / "recipe.toml").write_text(
        'model = "pruned.json"\n[[pairs]]\nmodalities = ["image", "image"]\nbatch = 4\n[pairs.teacher]\nmodel = "mini"\n'
        '[encoders.vision]\ninit = "mini"\ninit_blocks = [1, 4]\n[run]\nworkers = 0\n'
        "[[rounds]]\nrun.steps = 2\n[[rounds]]\nrun.steps = 1\n"
    )
    recipe = ("--recipe", tmp_path / "recipe.toml", "--model", tmp_path / "pruned.json")
    train = ("train", *recipe, "--data", place / "photos", "--device", "cpu", "--out", tmp_path / "run")
    done = imagebind(*train)
    assert done.code == 0, done.err
    assert "from blocks 1, 4 of mini" in done.err
    config = json.loads((tmp_path / "run.round-1/config.json").read_text())
    assert "vision" not in config.get("bases", {})  # all of its tensors are in the folder
    assert load(tmp_path / "run").embed("image", [str(place / "photos/0.png")]).shape == (1, 256)
    for blocks, reason in (("[1, 9]", "there is no block 9; they are 1 to 8"), ("[1]", "1 given; the encoder has 2 blocks")):
        refused = imagebind(*train[:-1], tmp_path / "other", "--set", f"encoders.vision.init_blocks={blocks}")
        assert (refused.code, f"encoders.vision.init_blocks: {reason}" in refused.err) == (2, True), refused.err


def left_by(out):
    folders = [out, out.with_name(f"{out.name}.round-1")]
    tensors = {path.name: load_file(path) for folder in folders for path in folder.glob("vision-*.safetensors")}
    metrics = [(folder / "metrics.jsonl").read_text() for folder in folders]
    return metrics, {name: {key: tensor.numpy().tobytes() for key, tensor in each.items()} for name, each in tensors.items()}


def test_rounds_that_are_killed_end_with_the_same_bits(imagebind, start, place, tmp_path):
    """In the first round, in the second, and while the teacher's vectors are computed; these are computed once for both."""
    recipe = place / "rounds.toml"
    recipe.write_text(
        f'model = "{place / "small.json"}"\n[[pairs]]\nmodalities = ["image", "image"]\nbatch = 4\nviews = 2\n'
        '[pairs.teacher]\nmodel = "tiny"\nsees = "views"\nrelational = 1.0\ninfonce = 0.1\n'
        '[pairs.anchor]\nblind = ["colour"]\nvariants = 3\n[pairs.augment.image]\ncrop = 0.5\nrecolour = 0.5\n'
        '[encoders.vision]\ninit = "random"\npatch_dropout = 0.5\n[run]\nworkers = 0\ncheckpoint_minutes = 0.0001\n'
        "[[rounds]]\nrun.steps = 9\n[[rounds]]\nrun.steps = 8\nencoders.vision.patch_dropout = 0.0\n"
    )
    common = ["train", "--recipe", recipe, "--data", place / "photos", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(*common, "--out", whole, stdout=subprocess.DEVNULL, env=environment)
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    for folder, lines in ((killed.with_name("killed.round-1"), 0), (killed.with_name("killed.round-1"), 4), (killed, 3)):
        process = start(*common, "--out", killed, stdout=subprocess.DEVNULL, env=environment)
        while process.poll() is None and not reached(folder, lines):
            time.sleep(0.002)
        process.kill()
        process.communicate()
    done = imagebind(*common, "--out", killed)
    assert done.code == 0, done.err
    assert "killed.round-1: all 9 steps are done" in done.err
    assert left_by(killed)[0] == left_by(whole)[0]
    assert left_by(killed)[1] == left_by(whole)[1]
    assert not (killed / "anchors").exists()


def reached(folder, lines):
    """Check whether a run has begun to compute its teacher's vectors, or has so many lines of metrics."""
    metrics = folder / "metrics.jsonl"
    return any(folder.glob("anchors/*/made.json")) if not lines else metrics.exists() and metrics.read_bytes().count(b"\n") >= lines


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--distil", "tiny", "--out", "x"], 2, "--distil: say what the student learns, as in --modality image, or give a --recipe"),
        (["--distil", "tiny", "--modality", "image", "--out", "x"], 2, "--distil: name the student's config with --student"),
        (["--pairs", "image-depth", "--modality", "image", "--out", "x"], 2, "--modality is for --distil"),
        (["--pairs", "image-depth", "--student", "base", "--out", "x"], 2, "--student is for --distil; otherwise give --model"),
        (["--recipe", "image-depth", "--distil", "tiny", "--out", "x"], 2, "--distil: no pair of this recipe has a teacher"),
        (["--recipe", "distil-text", "--distil", "tiny", "--modality", "image", "--out", "x"], 2, "--modality image: this recipe distils text"),
        (["--distil", "tiny", "--student", "huge", "--modality", "image", "--data", "photos", "--batch", "4", "--out", "x"], 1,
         "tiny: its vectors have 64 numbers, and the student's 1,024; choose a student of at most 64"),
        (["--distil", "tiny", "--student", "student.json", "--modality", "image", "--data", "photos", "--batch", "4", "--overfit", "2"], 1,
         "--overfit is for pairs of two modalities, not for a distillation (image)"),
    ],
)  # fmt: skip
def test_what_cannot_be_distilled_is_refused(imagebind, place, monkeypatch, arguments, code, reason):
    monkeypatch.chdir(place)
    monkeypatch.delenv("IMAGEBIND_MODEL", raising=False)
    done = imagebind("train", *arguments)
    assert (done.code, reason in done.err, done.err.count("\n")) == (code, True, code), done.err  # wrong usage also names the help


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_fewer_samples_than_directions_are_refused_before_anything_is_computed(imagebind, place, tmp_path, more):
    (place / "twelve.json").write_text(json.dumps(STUDENT | {"dim": 12}))
    (place / "eleven.json").write_text(json.dumps(STUDENT | {"dim": 11}))
    done = imagebind("train", *flags(place, "twelve.json"), "--out", tmp_path / "run", *more)
    assert done.code == 1
    assert done.notices[-1] == (
        "imagebind: image: 12 samples spread along at most 11 directions, and the student's space has 12; "
        "give at least 13 samples, or a student of a smaller space"
    )
    assert not (tmp_path / "run").exists()
    assert imagebind("train", *flags(place, "eleven.json"), "--out", tmp_path / "run", *more).code == 0


def test_a_run_that_saved_nothing_may_be_deleted(imagebind, place, tmp_path):
    out = tmp_path / "run"
    assert imagebind("train", *flags(place), "--out", out).code == 0
    other = imagebind("train", *flags(place, steps=7), "--out", out)
    assert other.notices[-1].endswith("run.steps = 6, not 7; choose another --out")
    for state in (out / "checkpoints").iterdir():
        state.unlink()
    other = imagebind("train", *flags(place, steps=7), "--out", out)
    assert other.notices[-1].endswith("run.steps = 6, not 7; it has saved no step yet: delete it, or choose another --out")
