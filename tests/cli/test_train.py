"""`imagebind train` on small files: what it leaves behind, that nothing is lost when it is killed, and what it says when something is wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from imagebind_cli import load, training
from imagebind_cli.errors import UserError
from imagebind_cli.events import TrainingListener
from imagebind_cli.metrics import RECALLS
from imagebind_cli.training import run as training_run
from imagebind_cli.training.overrides import resolve_recipe
from imagebind_cli.training.step import StepOutcome
from imagebind_cli.training.validate import Score
from tests.conftest import PROGRAM
from tests.generate import audio, depth, imu, picture, thermal, video

STEPS = 6


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several on a busy machine wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes to train on and five to test on: picture, depth map, sound with a label."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, seeds in (("train", range(12)), ("val", range(20, 25))):
        rows = []
        for seed in seeds:
            row = {"id": f"scene{seed}", "image": picture(folder / f"{seed}.png", seed, (64, 48)).name, "text": f"scene number {seed}"}
            row |= {"depth": depth(folder / f"{seed}.npy", seed).name, "audio": audio(folder / f"{seed}.wav", 2, seed % 4).name}
            rows.append(row | {"label": "odd" if seed % 2 else "even"})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def flags(scenes):
    """Flags of a small run of pictures and depth maps, but for --out."""
    return ["--pairs", "image-depth", "--model", "tiny", "--data", scenes / "train.jsonl", "--batch", 4, "--device", "cpu",
            "--set", "run.workers=0", "--set", f"run.steps={STEPS}"]  # fmt: skip


def settings(*changes):
    return [word for change in changes for word in ("--set", change)]


def left_by(folder):
    """The bytes of a run that must not depend on how it came about."""
    (state,) = (folder / "checkpoints").glob("*.safetensors")
    return {path.name: path.read_bytes() for path in (state, folder / "metrics.jsonl", *folder.glob("depth-*.safetensors"))}


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# -- what a run leaves


def test_a_run_writes_its_steps_and_a_model(imagebind, flags, tmp_path, tiny, scenes):
    out = tmp_path / "run"
    done = imagebind("train", *flags, "--out", out)
    assert done.code == 0, done.err
    assert done.rows == [{"model": str(out), "steps": STEPS}]
    lines = metrics_of(out)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {line["pair"] for line in lines} == {"image-depth"}
    assert lines[0]["temperature"] == pytest.approx(0.07)
    made = load(str(out), device="cpu")
    assert (made.name, made.checkpoint.untrained) == ("run", False)
    picture_file, map_file = scenes / "3.png", scenes / "3.npy"
    assert np.array_equal(
        made.embed("image", [picture_file]), tiny.embed("image", [picture_file])
    )  # it was frozen, and is not in the folder
    assert not np.allclose(made.embed("depth", [map_file]), tiny.embed("depth", [map_file]), atol=1e-3)
    tensors = load_file(out / f"depth-{STEPS:06d}.safetensors")
    assert all(torch.equal(made.encoder("depth").state_dict()[name], tensor) for name, tensor in tensors.items())
    assert made.scale("depth") == pytest.approx(1 / 0.07)
    assert "audio" not in made.checkpoint.config.encoders  # tiny's own is untrained, and nothing here is said to be
    assert not list(out.glob("vision-*"))


def test_what_is_bound_to_a_frozen_anchor_shares_the_space_of_the_anchors_model(imagebind, flags, tmp_path, scenes):
    """Words were bound to pictures in one run, depth to the same pictures in the next: the second run's model speaks too."""
    words, out = tmp_path / "words", tmp_path / "depth"
    pair = ["--pairs", "image-text", *flags[2:], "--init", "random", *settings("encoders.vision.train=all"), "--out", words]
    assert imagebind("train", *pair).code == 0
    assert imagebind("train", *flags, *settings(f"encoders.vision.init={words}", "encoders.depth.init=random"), "--out", out).code == 0
    first, second = load(str(words), device="cpu"), load(str(out), device="cpu")
    assert set(second.checkpoint.config.encoders) == {"vision", "depth", "text"}
    assert np.array_equal(first.embed("text", ["a dog"]), second.embed("text", ["a dog"]))
    assert not np.allclose(first.embed("text", ["a dog"]), load("tiny", device="cpu").embed("text", ["a dog"]), atol=1e-3)


def test_the_same_command_again_says_that_it_is_done(imagebind, flags, tmp_path):
    out = tmp_path / "run"
    imagebind("train", *flags, "--out", out)
    before = left_by(out)
    again = imagebind("train", *flags, "--out", out)
    assert again.code == 0
    assert again.rows == [{"model": str(out), "steps": STEPS}]
    assert f"all {STEPS} steps are done" in again.err
    assert left_by(out) == before


def unsealed(text: str) -> str:
    """The text of a JSON object without its last key, the checksum, so that it may be edited."""
    return re.sub(r', "crc32": "[0-9a-f]{8}"\}', "}", text)


def test_other_encoders_come_from_a_trained_model_by_name_and_fingerprint(imagebind, flags, tmp_path, tiny):
    base, out = tmp_path / "base", tmp_path / "runs" / "depth"
    imagebind("weights", "convert", "tiny", base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(unsealed(json.dumps(config | {"rule_seed": None, "files": {}})))
    assert imagebind("train", *flags, "--model", base, "--out", out).code == 0
    made = load(str(out), device="cpu")
    np.testing.assert_allclose(made.embed("text", ["a dog"]), tiny.embed("text", ["a dog"]), atol=1e-6)
    whole = tmp_path / "whole"
    assert imagebind("weights", "convert", out, whole).code == 0
    assert imagebind("weights", "verify", out).code == imagebind("weights", "verify", whole).code == 0
    tensors = load_file(base / "text.safetensors")
    save_file(tensors | {"head.norm.bias": tensors["head.norm.bias"] + 1}, base / "text.safetensors")
    refused = imagebind("embed", "text", "a dog", "--model", out)
    assert refused.code == 1
    assert re.search(r"trained over .*base with text weights 2:[0-9a-f]{16}; here it has 2:[0-9a-f]{16}", refused.err)
    save_file(tensors, base / "text.safetensors")
    whole_config = unsealed((out / "config.json").read_text())
    (out / "config.json").write_text(re.sub('"2:([0-9a-f]{16})"', r'"\1"', whole_config))
    earlier = imagebind("embed", "text", "a dog", "--model", out)
    assert (earlier.code, earlier.err.count("\n")) == (1, 1)
    present, before = re.search(
        r"by an earlier version of imagebind.* write '(\S+)' for '(\S+)' into its config.json", earlier.err
    ).groups()
    (out / "config.json").write_text((out / "config.json").read_text().replace(f'"{before}"', f'"{present}"'))
    assert imagebind("embed", "text", "a dog", "--model", out).code == 0
    (out / "config.json").write_text(whole_config)
    shutil.rmtree(base)
    assert "text encoder needs the weights of" in imagebind("embed", "text", "a dog", "--model", out).err
    (out / "config.json").write_text(unsealed((out / "config.json").read_text()).replace("../../base", "../depth"))  # as after a renaming
    assert "the base of its text encoder is this same folder" in imagebind("embed", "text", "a dog", "--model", out).err
    assert load(str(whole), device="cpu").embed("text", ["a dog"]).shape == (1, 64)  # stands alone


def test_adapters_are_merged_when_they_are_read(imagebind, flags, tmp_path, scenes, tiny):
    out = tmp_path / "run"
    change = settings("encoders.depth.train=lora", "encoders.depth.rank=2", "optimizer.lr=0.05", 'encoders.depth.targets=["qkv", "up"]')
    done = imagebind("train", *flags, *change, "--out", out)
    assert done.code == 0, done.err
    tensors = load_file(out / f"depth-{STEPS:06d}.safetensors")
    names = {name.partition(".lora_")[0] for name in tensors if "lora" in name}
    assert names == {f"trunk.blocks.{i}.{layer}" for i in (0, 1) for layer in ("attn.qkv", "mlp.up")}
    assert {tuple(tensor.shape) for name, tensor in tensors.items() if name.endswith("qkv.lora_a")} == {(2, 64)}
    before, after = tiny.encoder("depth").state_dict(), load(str(out), device="cpu").encoder("depth").state_dict()
    for name in names:
        added = tensors[f"{name}.lora_b"] @ tensors[f"{name}.lora_a"]
        assert added.abs().max() > 1e-3
        torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + added)
        exact = before[f"{name}.weight"].double()  # the product, rank by rank, then rounded once: the same on every machine
        for rank in range(2):
            exact = exact + torch.outer(tensors[f"{name}.lora_b"][:, rank].double(), tensors[f"{name}.lora_a"][rank].double())
        assert torch.equal(after[f"{name}.weight"], exact.float())
    assert imagebind("weights", "convert", out, tmp_path / "whole").code == 0
    prints = {load(str(folder)).checkpoint.fingerprint("depth") for folder in (out, tmp_path / "whole")}
    assert len(prints) == 1
    same = set(before) - {f"{name}.weight" for name in names} - {"log_scale"}
    assert all(torch.equal(before[name], after[name]) for name in same)


def test_adapters_beside_a_torchaudio_of_another_torch_get_one_line(python, flags, tmp_path):
    (tmp_path / "torchaudio.py").write_text("raise OSError('undefined symbol: torch_library_impl')")
    command = ["train", *flags, *settings("encoders.depth.train=lora"), "--out", tmp_path / "run"]
    done = python("-m", "imagebind_cli", *command, cwd=tmp_path)
    assert done.returncode == 1
    assert "adapters need peft, but its import fails: undefined symbol: torch_library_impl; run `imagebind doctor`" in done.stderr
    assert "Traceback" not in done.stderr


def test_merged_adapters_are_the_ones_that_trained(monkeypatch, imagebind, flags, tmp_path, scenes):
    """The run's own encoder, adapters beside its layers, beside the one that `embed` reads."""
    kept = {}
    plain = training_run.build_components
    monkeypatch.setattr(training_run, "build_components", lambda *arguments: kept.setdefault("machinery", plain(*arguments)))
    out = tmp_path / "run"
    assert imagebind("train", *flags, *settings("encoders.depth.train=lora", "optimizer.lr=0.05"), "--out", out).code == 0
    tower = kept["machinery"].towers["depth"]
    tower.eval()
    made = load(str(out), device="cpu")
    sample = next(made.read("depth", scenes / "3.npy")).tensor
    torch.testing.assert_close(tower.call(sample), made.encode("depth", sample), atol=1e-6, rtol=0)


def test_an_mlp_head_and_fresh_weights(imagebind, flags, tmp_path, scenes):
    out = tmp_path / "run"
    done = imagebind("train", *flags, "--init", "random", *settings("encoders.depth.head=mlp", "encoders.depth.train=head"), "--out", out)
    assert done.code == 0, done.err
    tensors = load_file(out / f"depth-{STEPS:06d}.safetensors")
    assert tensors["head.up.weight"].shape == (64, 64)
    assert "stem.proj.weight" in tensors  # frozen, but nowhere else
    assert load(str(out), device="cpu").embed("depth", [scenes / "3.npy"]).shape == (1, 64)


def test_a_new_head_on_a_trained_trunk(imagebind, flags, tmp_path, scenes):
    out = tmp_path / "run"
    assert imagebind("train", *flags, *settings("encoders.depth.head=mlp", "encoders.depth.train=head"), "--out", out).code == 0
    names = set(load_file(out / f"depth-{STEPS:06d}.safetensors"))
    assert names == {"head.norm.weight", "head.norm.bias", "head.up.weight", "head.up.bias", "head.proj.weight", "log_scale"}
    assert load(str(out), device="cpu").embed("depth", [scenes / "3.npy"]).shape == (1, 64)


def test_several_pairs_in_one_run(imagebind, scenes, tmp_path):
    out, file = tmp_path / "run", scenes / "train.jsonl"
    done = imagebind(
        "train", "--pairs", "image-depth,image-audio", "--model", "tiny", "--data", f"image-depth={file}", "--data", f"image-audio={file}",
        "--batch", 4, "--device", "cpu", "--out", out, *settings("run.workers=0", "run.steps=8", "pairs.1.temperature=0.2"),
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = metrics_of(out)
    assert {line["pair"] for line in lines} == {"image-depth", "image-audio"}
    assert {line["pair"]: round(line["temperature"], 6) for line in lines} == {"image-depth": 0.07, "image-audio": 0.2}
    made = load(str(out), device="cpu")
    assert (made.scale("depth"), made.scale("audio")) == (pytest.approx(1 / 0.07), pytest.approx(5))


def test_an_anchor_cache_changes_nothing_but_time(imagebind, flags, tmp_path):
    fixed = settings("pairs.0.views=2", "pairs.0.augment.image={crop=0.5, flip=0.5}", "pairs.0.aligned=false")
    live, cached = tmp_path / "live", tmp_path / "cached"
    assert imagebind("train", *flags, *fixed, "--out", live).code == 0
    done = imagebind("train", *flags, *fixed, "--set", "run.anchor_cache=true", "--out", cached)
    assert "24 anchors to embed, once" in done.err
    theirs, ours = (load_file(folder / f"depth-{STEPS:06d}.safetensors") for folder in (live, cached))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-5, rtol=0, msg=name)


# -- a run that loses nothing


HURRIED = (
    "run.workers=0", "run.steps=14", "run.checkpoint_minutes=0.0001", "run.validate_every=5", "encoders.depth.drop_path=0.5",
    "pairs.0.learn_temperature=true", "pairs.0.augment.image={flip=0.5, randaugment=[9, 0.5], colour_jitter=0.4}",
    "pairs.0.augment.depth={flip=0.5, randaugment=[9, 0.5], erase=0.5}", "run.micro_batch=3", "run.best=depth-image/R@5",
)  # fmt: skip
"""A run that checkpoints as often as it can, with dropout, every kind of operation on pictures, a learnt temperature, and validation."""


@pytest.fixture(scope="module")
def hurried(flags, scenes):
    return [*flags, *settings(*HURRIED), "--init", "random", "--val", scenes / "val.jsonl"]


@pytest.fixture(scope="module")
def unbroken(scenes, tmp_path_factory):
    """What such a run leaves that nobody disturbs."""
    out = tmp_path_factory.mktemp("unbroken")
    files = {"data": [str(scenes / "train.jsonl")], "val": [str(scenes / "val.jsonl")]}
    recipe = resolve_recipe(None, pairs=["image-depth"], model="tiny", init="random", batch=4, changes=HURRIED, **files)
    training_run.train(recipe, out, torch.device("cpu"))
    return left_by(out)


@pytest.fixture
def train_apart(start):
    """Start a run as a process of its own, on one thread."""
    return lambda arguments, out: start(
        "train", *arguments, "--out", out, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def wait_for_lines(out, process, count):
    """Until so many lines of metrics are there."""
    while process.poll() is None and not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= count):
        time.sleep(0.002)
    return process.poll() is None


def test_killed_anywhere_the_result_is_the_same_to_the_bit(imagebind, train_apart, hurried, unbroken, tmp_path):
    out = tmp_path / "killed"
    random = np.random.default_rng(0)
    for lines in (2, 7, 12):
        process = train_apart(hurried, out)
        assert wait_for_lines(out, process, lines)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.communicate()
    done = imagebind("train", *hurried, "--out", out)
    assert done.code == 0, done.err
    assert "continues after step" in done.err
    assert left_by(out) == unbroken


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_last_step_and_the_run_goes_on(imagebind, train_apart, hurried, unbroken, tmp_path, number, code):
    out = tmp_path / "stopped"
    slow = ["0.0001", "1000"]
    arguments = [str(word).replace(*slow) for word in hurried]  # no checkpoint but the signal's
    process = train_apart(arguments, out)
    assert wait_for_lines(out, process, 4)
    process.send_signal(number)
    _, talk = process.communicate()
    assert process.returncode == code
    stopped = int(re.search(r"stopped after step (\d+); the same command continues it", talk.decode())[1])
    assert stopped >= 3
    assert b"Traceback" not in talk
    done = imagebind("train", *hurried, "--out", out)
    assert f"continues after step {stopped} of 14" in done.err
    assert left_by(out) == unbroken


def stopped(train_apart, arguments, out, lines=3):
    """A run that a signal ended after some steps."""
    process = train_apart([*arguments, *settings("run.steps=1000")], out)
    assert wait_for_lines(out, process, lines)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143


def test_a_run_that_was_stopped_before_it_wrote_a_model_says_so(imagebind, train_apart, flags, tmp_path, scenes):
    out = tmp_path / "stopped"
    stopped(train_apart, flags, out)
    assert not (out / "config.json").exists()
    for command in (("embed", "image", scenes / "0.png"), ("train", *flags, "--dry-run"), ("weights", "info")):
        done = imagebind(*command, *([out] if command[0] == "weights" else ["--model", out]))
        assert done.code == 1
        assert re.search(
            rf"{out}: an unfinished run, saved after step \d+, and no model yet; the same `imagebind train` command continues it", done.err
        )
    shutil.rmtree(out / "checkpoints")
    assert "an unfinished run that has saved nothing yet" in imagebind("weights", "info", out).err


def test_the_model_of_an_unfinished_run_says_of_which_step_it_is_and_is_not_trained_over(imagebind, train_apart, flags, tmp_path, scenes):
    out, later = tmp_path / "stopped", tmp_path / "later"
    stopped(train_apart, [*flags, *settings("run.checkpoint_minutes=0.0001")], out)
    step = json.loads((out / "config.json").read_text())["origin"]["steps"]
    done = imagebind("embed", "depth", scenes / "0.npy", "--model", out)
    assert done.code == 0
    assert re.search(rf"{out}: an unfinished run, saved after step \d+; its model is that of step {step}\n", done.err)
    assert "unfinished an unfinished run" in imagebind("weights", "info", out).out.decode()
    refused = imagebind("train", *flags, "--model", out, "--out", later)
    assert refused.code == 1
    assert "finish it first, or copy its present state: imagebind weights convert" in refused.err
    assert imagebind("weights", "convert", out, tmp_path / "copy").code == 0
    assert imagebind("train", *flags, "--model", tmp_path / "copy", "--out", later).code == 0
    assert "unfinished" not in imagebind("embed", "depth", scenes / "0.npy", "--model", later).err


def test_the_number_of_threads_is_found_once_and_kept(flags, tmp_path):
    out = tmp_path / "run"
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    talk = []
    for lines, env in ((2, free), (3, free | {"OMP_NUM_THREADS": "3"})):
        words = [PROGRAM, "train", *map(str, flags), *settings("run.steps=1000"), "--out", out]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env)
        assert wait_for_lines(out, process, lines)
        process.send_signal(signal.SIGTERM)
        talk.append(process.communicate()[1].decode())
    count = json.loads((out / "run.json").read_text())["threads"]
    if len(os.sched_getaffinity(0)) > 1:  # else there is nothing to choose
        assert re.search(rf"computes on {count} threads?: a step takes [\d,]+ ms on 1, ", talk[0])
    assert re.search(rf"computes on {count} threads?, as when it was begun\n", talk[1])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_torn_checkpoint_is_passed_over(imagebind, flags, tmp_path, optimizer):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    keep = settings("run.checkpoint_minutes=0.0001", "run.keep=3", f"optimizer.name={optimizer}")
    for out in (whole, torn):
        assert imagebind("train", *flags, *keep, "--out", out).code == 0
    checkpoints = sorted((torn / "checkpoints").glob("*"))
    assert len(checkpoints) == 3
    checkpoints[-1].write_bytes(checkpoints[-1].read_bytes()[:-100])
    done = imagebind("train", *flags, *keep, "--out", torn)
    assert done.code == 0, done.err
    assert "continues after step" in done.err
    assert (torn / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (torn / "checkpoints" / checkpoints[-1].name).read_bytes() == (whole / "checkpoints" / checkpoints[-1].name).read_bytes()


def flip(path, place):
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_a_flipped_bit_is_reported_when_a_run_continues(imagebind, flags, tmp_path):
    out = tmp_path / "run"
    flags = [*flags, *settings("run.anchor_cache=true", "pairs.0.views=1")]
    assert imagebind("train", *flags, "--out", out).code == 0
    (state,) = (out / "checkpoints").glob("*.safetensors")
    length = int.from_bytes(state.read_bytes()[:8], "little")
    tensors = json.loads(state.read_bytes()[8 : 8 + length])
    name = next(name for name in tensors if name.startswith("exp_avg/"))
    for file, place, words in (
        (state, 8 + length + tensors[name]["data_offsets"][0] + 1, f"{state}: damaged: {name} does not match its checksum; delete it to"),
        (state, state.read_bytes().index(b"metrics_bytes") + 19, f"{state}: damaged: its metadata does not match its checksum; delete it"),
        (out / "run.json", (out / "run.json").read_bytes().index(b'"seed": 0') + 8, "run.json: damaged or edited"),
    ):
        flip(file, place)
        done = imagebind("train", *flags, "--out", out)
        assert (done.code, words in done.err) == (1, True), done.err
        flip(file, place)
    state.unlink()
    flip(next((out / "anchors").rglob("*.npy")), -99)
    done = imagebind("train", *flags, "--out", out)
    assert (done.code, "000000.npy: damaged: its bytes do not match" in done.err) == (1, True), done.err
    flip(next((out / "anchors").rglob("*.npy")), -99)
    assert imagebind("train", *flags, "--out", out).code == 0


def test_a_flipped_bit_of_the_metrics_is_reported_and_stops_nothing(imagebind, flags, tmp_path):
    out = tmp_path / "run"
    keep = settings("run.checkpoint_minutes=0.0001", "run.keep=3")
    assert imagebind("train", *flags, *keep, "--out", out).code == 0
    metrics = out / "metrics.jsonl"
    whole, words = metrics.read_bytes(), f"{metrics}: damaged or edited: it does not match its checksum"
    flip(metrics, whole.index(b'"loss": ') + 10)
    damaged = metrics.read_bytes()
    finished = imagebind("train", *flags, *keep, "--out", out)
    assert (finished.code, words in finished.err) == (0, True), finished.err
    checkpoints = sorted((out / "checkpoints").glob("*"))
    kept = checkpoints[-1].read_bytes()
    checkpoints[-1].unlink()
    continued = imagebind("train", *flags, *keep, "--out", out)
    assert (continued.code, words in continued.err) == (0, True), continued.err
    assert metrics.read_bytes() == damaged
    assert checkpoints[-1].read_bytes() == kept  # the checksum stays that of what was written, so that the damage is reported again
    metrics.write_bytes(whole)
    assert "damaged" not in imagebind("train", *flags, *keep, "--out", out).err


def test_one_run_in_a_folder_at_a_time(flags, tmp_path):
    with training_run._locked(tmp_path), pytest.raises(UserError, match="another run is using this folder"), training_run._locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--set", "optimizer.lr=0.01"], "was begun with optimizer.lr = 0.0005, not 0.01"),
        (["--batch", "3"], "was begun with pairs.0.batch = 4, not 3"),
        (["--set", "encoders.depth.train=head"], "was begun with encoders.depth.train = nothing, not head"),
    ],
)
def test_a_folder_of_another_recipe_is_refused(imagebind, flags, tmp_path, change, told):
    out = tmp_path / "run"
    imagebind("train", *flags, "--out", out)
    before = left_by(out)
    done = imagebind("train", *flags, *change, "--out", out)
    assert done.code == 1
    assert told in done.err
    assert left_by(out) == before


def test_what_changes_no_result_may_change(imagebind, flags, tmp_path):
    out = tmp_path / "run"
    imagebind("train", *flags, "--out", out)
    assert imagebind("train", *flags, *settings("run.workers=1", "run.checkpoint_minutes=3"), "--out", out).code == 0


def test_changed_data_or_weights_are_refused(imagebind, flags, tmp_path, scenes):
    out, copy = tmp_path / "run", scenes / "copy.jsonl"
    shutil.copy(scenes / "train.jsonl", copy)
    flags = [copy if word == scenes / "train.jsonl" else word for word in flags]
    imagebind("train", *flags, "--out", out)
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-1]))
    assert "was begun with data.image-depth.pairs = 12, not 11" in imagebind("train", *flags, "--out", out).err
    shutil.copy(scenes / "train.jsonl", copy)
    made = json.loads(unsealed((out / "run.json").read_text()))
    present, made["weights"]["vision"]["weights"] = made["weights"]["vision"]["weights"], "2:" + "0" * 16
    (out / "run.json").write_text(json.dumps(made))
    for checkpoint in (out / "checkpoints").glob("*"):
        checkpoint.unlink()
    assert "was begun with weights.vision.weights = 2:0000000000000000, not" in imagebind("train", *flags, "--out", out).err
    made["weights"]["vision"]["weights"] = "0" * 16
    (out / "run.json").write_text(json.dumps(made))
    again = imagebind("train", *flags, "--out", out)
    assert again.code == 1
    assert "was begun by an earlier version of imagebind" in again.err
    assert f"replace '{'0' * 16}' with '{present}' in its run.json" in again.err


def test_a_run_whose_samples_were_varied_by_other_rules_is_refused(imagebind, flags, tmp_path):
    out, varied = tmp_path / "run", settings("pairs.0.augment.image={colour_jitter=0.4}")
    imagebind("train", *flags, *varied, "--out", out)
    made = json.loads(unsealed((out / "run.json").read_text()))
    assert imagebind("train", *flags, *varied, "--out", out).code == 0
    for rules in ({}, {"augmentation": 1}):  # of the first version, and of some other
        (out / "run.json").write_text(json.dumps({key: value for key, value in made.items() if key != "augmentation"} | rules))
        done = imagebind("train", *flags, *varied, "--out", out)
        assert done.code == 1
        assert f"{out} was begun by a version of imagebind with other augmentations; choose another --out" in done.err
    plain = tmp_path / "plain"
    imagebind("train", *flags, "--out", plain)
    made = json.loads(unsealed((plain / "run.json").read_text()))
    (plain / "run.json").write_text(json.dumps({key: value for key, value in made.items() if key != "augmentation"}))
    assert imagebind("train", *flags, "--out", plain).code == 0  # nothing was varied, so nothing differs


def test_a_folder_of_something_else_is_refused(imagebind, flags, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not empty and is not a run folder" in imagebind("train", *flags, "--out", tmp_path).err
    assert "is a file" in imagebind("train", *flags, "--out", tmp_path / "notes.txt").err


# -- what goes wrong on the way


@pytest.fixture
def breaking(monkeypatch):
    """Steps whose loss is made not finite."""
    steps = set()
    plain = training_run.compute_gradients

    def gradients(towers, loss, batch, seed, step, micro_batch):
        outcome = plain(towers, loss, batch, seed, step, micro_batch)
        return StepOutcome(float("nan"), 0.0, (0.0, 0.0), batch.ids[:2]) if step in steps else outcome

    monkeypatch.setattr(training_run, "compute_gradients", gradients)
    return steps


def test_a_step_without_a_finite_loss_is_skipped_and_its_samples_named(imagebind, flags, tmp_path, breaking):
    breaking.update({1, 2, 4})
    out = tmp_path / "run"
    done = imagebind("train", *flags, "--out", out)
    assert done.code == 0, done.err
    lines = metrics_of(out)
    assert [line["step"] for line in lines if "skipped" in line] == [2, 3, 5]
    assert all(len(line["ids"]) == 2 for line in lines if "skipped" in line)
    assert re.search(r"step 2 skipped: its loss is not finite; look at scene\d+, scene\d+", done.err)


def test_three_in_a_row_stop_the_run(imagebind, flags, tmp_path, breaking):
    breaking.update({2, 3, 4})
    done = imagebind("train", *flags, "--out", tmp_path / "run")
    assert done.code == 1
    assert "stopped at step 5: 3 steps in a row without a finite loss or gradient" in done.err


def test_a_gradient_that_is_not_finite_moves_nothing(imagebind, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "clip_gradients", lambda groups, largest: float("inf"))
    out = tmp_path / "run"
    done = imagebind("train", *flags, "--set", "run.steps=2", "--out", out)
    assert "step 1 skipped: its gradient is not finite; look at scene" in done.err
    assert len(metrics_of(out)[0]["ids"]) == 4
    before, after = (load(name, device="cpu").encoder("depth").state_dict() for name in ("tiny", str(out)))
    assert all(torch.equal(before[name], after[name]) for name in before if name != "log_scale")


def test_a_sample_that_cannot_be_read_is_named_and_replaced(imagebind, flags, tmp_path, scenes):
    broken, out = scenes / "broken.jsonl", tmp_path / "run"
    broken.write_text((scenes / "train.jsonl").read_text().replace("7.npy", "nowhere.npy"))
    flags = [broken if word == scenes / "train.jsonl" else word for word in flags]
    done = imagebind("train", *flags, "--out", out)
    assert done.code == 1
    assert done.err.count("scene7: depth: No such file or directory; another sample takes its place") == 1
    assert len([line for line in metrics_of(out) if "loss" in line]) == STEPS
    (failure,) = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines() if line]
    assert failure["id"] == "scene7"
    assert imagebind("train", *flags, "--out", out).code == 1  # still so when it is all done


def test_a_listener_hears_what_the_run_records(flags, tmp_path, scenes):
    class Recorder(TrainingListener):
        def __init__(self):
            super().__init__()
            self.begun, self.records, self.notes, self.failures_of = [], [], [], []

        def note(self, text):
            self.notes.append(text)

        def begin(self, stored, count=None):
            self.begun.append(stored)

        def failure(self, id, reason):
            super().failure(id, reason)
            self.failures_of.append((id, reason))

        def step(self, record, steps, pairs):
            assert (steps, pairs) == (STEPS, 4)
            self.records.append(record)

        def validated(self, record):
            self.records.append(record)

    broken = scenes / "unreadable.jsonl"
    broken.write_text((scenes / "train.jsonl").read_text().replace("7.npy", "nowhere.npy"))
    changes = ["run.workers=0", f"run.steps={STEPS}"]
    files = {"data": [str(broken)], "val": [str(scenes / "val.jsonl")]}
    recipe = training.resolve_recipe(None, pairs=["image-depth"], model="tiny", batch=4, changes=changes, **files)
    heard, again = Recorder(), Recorder()
    result = training.train(recipe, tmp_path / "run", torch.device("cpu"), heard)
    assert heard.records == metrics_of(tmp_path / "run")
    assert result.summary["validation"] == heard.records[-1]["validation"]
    assert heard.failures_of == [("scene7", "depth: No such file or directory; another sample takes its place")]
    assert (result.failed, heard.failed, heard.begun) == (1, 1, [0])
    assert any(note.startswith(f"{STEPS} steps") for note in heard.notes)
    training.train(recipe, tmp_path / "run", torch.device("cpu"), again)
    assert (again.notes, again.begun, again.records) == ([f"{tmp_path / 'run'}: all {STEPS} steps are done"], [], [])


def test_nothing_learnt_is_said_aloud(imagebind, flags, tmp_path):
    change = settings("run.steps=24", "optimizer.warmup=0", "optimizer.lr=1e-12", "pairs.0.temperature=1")
    done = imagebind("train", *flags, *change, "--init", "random", "--out", tmp_path / "run")
    assert len(re.findall(r"the loss stays at 1\.3\d+, ln\(batch\) = 1\.386: nothing is learnt", done.err)) == 1
    assert len(re.findall(r"embeddings of depth have collapsed: different ones have a mean cosine of (0\.99|1\.0)", done.err)) == 1


def test_a_batch_without_negatives_is_said_aloud(imagebind, flags, tmp_path, scenes):
    alike = scenes / "alike.jsonl"
    rows = [json.loads(line) | {"group": "all"} for line in (scenes / "train.jsonl").read_text().splitlines()]
    alike.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [alike if word == scenes / "train.jsonl" else word for word in flags]
    done = imagebind("train", *flags, "--out", tmp_path / "run")
    assert done.err.count("no sample of the batch has a negative") == 1


# -- truth


def test_validation_scores_both_ways_and_zero_shot(imagebind, flags, tmp_path, scenes):
    out = tmp_path / "run"
    test = ["--val", scenes / "val.jsonl", "--zeroshot", f"audio:{scenes / 'val.jsonl'}", "--set", "run.validate_every=4"]
    done = imagebind("train", *flags, *test, "--out", out)
    assert done.code == 0, done.err
    found = [line for line in metrics_of(out) if "validation" in line]
    assert [line["step"] for line in found] == [0, 4, STEPS]
    names = [f"{way}/{recall}" for way in ("image-depth", "depth-image") for recall in RECALLS] + ["audio/accuracy"]
    assert all(list(line["validation"]) == names for line in found)
    assert found[0]["validation"]["depth-image/R@5"] == 1.0  # of five
    assert found[0]["ranges"]["audio/accuracy"][2] == 0.5
    assert done.rows[0]["validation"] == found[-1]["validation"]
    assert re.search(r"step 4: image-depth R@1 0\.\d+ \(0\.\d+ to \d\.\d+, by chance 0\.200\)", done.err)


def test_scores_are_those_of_the_model_that_embed_gives(imagebind, flags, tmp_path, scenes):
    """By hand, from the published run's own vectors."""
    out = tmp_path / "run"
    imagebind(
        "train",
        *flags,
        "--val",
        scenes / "val.jsonl",
        "--zeroshot",
        f"audio:{scenes / 'val.jsonl'}",
        "--out",
        out,
        "--set",
        "optimizer.lr=0.01",
    )
    last = metrics_of(out)[-1]["validation"]
    rows = [json.loads(line) for line in (scenes / "val.jsonl").read_text().splitlines()]
    made, tiny = load(str(out), device="cpu"), load("tiny", device="cpu")
    vectors = {key: made.embed(key, [scenes / row[key] for row in rows]) for key in ("image", "depth")}
    scores = vectors["image"] @ vectors["depth"].T
    assert last["image-depth/R@1"] == pytest.approx((scores.argmax(axis=1) == range(5)).mean())
    assert last["depth-image/R@1"] == pytest.approx((scores.argmax(axis=0) == range(5)).mean())
    sounds, names = tiny.embed("audio", [scenes / row["audio"] for row in rows]), tiny.embed("text", ["even", "odd"])
    truth = [["even", "odd"].index(row["label"]) for row in rows]
    assert last["audio/accuracy"] == pytest.approx(((sounds @ names.T).argmax(axis=1) == truth).mean())


def test_the_best_is_kept_by_a_named_score(imagebind, flags, tmp_path, scenes, monkeypatch):
    values, out = iter([0.3, 0.6, 0.5, 0.2]), tmp_path / "run"

    def scored(validation):
        (out / "mine-2.safetensors").touch()  # a file that the user keeps there
        value = next(values)
        return {"image-depth/R@1": Score(value, value, value, 0.1)}

    monkeypatch.setattr(training_run.Validation, "__call__", scored)
    done = imagebind(
        "train", *flags, "--val", scenes / "val.jsonl", "--out", out, *settings("run.validate_every=2", "run.best=image-depth/R@1")
    )
    assert done.code == 0, done.err
    assert (done.rows[0]["best"], done.rows[0]["best_step"]) == (0.6, 2)
    assert {path.name for path in out.glob("*.safetensors")} == {"depth-000002.safetensors", "mine-2.safetensors"}
    refused = imagebind("train", *flags, "--out", tmp_path / "other", "--val", scenes / "val.jsonl", "--set", "run.best=depth/R@1")
    assert "a validation of this recipe gives image-depth/R@1, image-depth/R@5" in refused.err


def test_the_report_stands_alone(imagebind, flags, tmp_path, scenes):
    out = tmp_path / "run"
    imagebind("train", *flags, "--val", scenes / "val.jsonl", "--out", out)
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 9  # seven curves and two ways
    assert page.count("http") == page.count("http-equiv") == 1
    assert "default-src 'none'" in page
    assert "src=" not in page
    for title in ("Loss", "Temperature", "Alignment", "Validation: image-depth", "Validation: depth-image", "before training"):
        assert title in page
    assert "by chance" in page
    for line in ("model tiny", "image-depth: 12 pairs from", "learning rate 0.0005", "no augmentation", "computed in fp32"):
        assert line in page


# -- before a run


def test_a_dry_run_prints_the_plan_and_touches_nothing(imagebind, flags, tmp_path):
    out = tmp_path / "run"
    done = imagebind("train", *flags, "--out", out, "--dry-run", "--micro-batch", 2)
    assert done.code == 0
    plan = done.out.decode()
    assert "image-depth: 12 pairs from" in plan
    assert re.search(r"vision is frozen, 215,296 parameters, from tiny", plan)
    assert re.search(r"depth trains, 133,632 of 133,633 parameters, from tiny, learning rate 0.0005\n", plan)
    assert plan.startswith("model tiny\n")
    assert "\nimage-depth: no augmentation\n" in plan
    assert "\nadamw, learning rate 0.0005, then a cosine to 0, weight decay 0.2, computed in fp32\n" in plan
    assert "6 steps (2 epochs), all of them warm-up" in plan
    assert "batch 4 in micro-batches of 2, infonce, temperature 0.07" in plan
    assert re.search(r"about \d+\.\d\d GB of memory a process", plan)
    assert not out.exists()


def test_people_s_own_table_is_trained_on_with_a_part_of_it_held_out(imagebind, scenes, tmp_path):
    rows = [json.loads(line) for line in (scenes / "train.jsonl").read_text().splitlines()]
    table = tmp_path / "photos.csv"
    table.write_text("file_name,caption,kind\n" + "".join(f"{scenes / row['image']},{row['text']},{row['label']}\n" for row in rows))
    flags = ["--pairs", "image-text", "--model", "tiny", "--data", table, "--val", "0.25", "--batch", 3, "--device", "cpu",
             "--zeroshot", f"image:{table}", "--column", "image=file_name", "--column", "text=caption", "--column", "label=kind",
             *settings("run.workers=0", "run.steps=2"), "--out", tmp_path / "run"]  # fmt: skip
    plan = imagebind("train", *flags, "--dry-run")
    assert plan.code == 0, plan.err
    assert f"image-text: 9 pairs from {table}, without those held out for validation" in plan.out.decode()
    assert f"validation: image-text: 3 pairs held out of {table}: 0.25 of them, whole groups, by run.seed" in plan.out.decode()
    assert "validation: zero-shot image, 12 items of 2 classes" in plan.out.decode()
    done = imagebind("train", *flags)
    assert done.code == 0, done.err
    assert {"image-text/R@1", "image/accuracy"} <= set(done.rows[0]["validation"])
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["recipe"]["pairs"][0]["val_fraction"] == 0.25
    assert recorded["data"]["image-text"]["pairs"] == 9
    other = imagebind("train", *[0.5 if flag == "0.25" else flag for flag in flags])
    assert "was begun with pairs.0.val_fraction = 0.25, not 0.5" in other.err


def test_the_plan_says_rates_and_augmentation(imagebind, scenes):
    files = ["--data", scenes / "train.jsonl", "--batch", 4]
    plan = imagebind("train", "--recipe", "fine-tune", "--model", "tiny", "--pairs", "image-depth", *files, "--dry-run").out.decode()
    assert "depth trains, 133,632 of 133,633 parameters, from tiny, learning rate 2e-05, 0.75 of it for each block further down" in plan
    assert "image-depth: augmentation of image by crop 0.5, flip 0.5, of depth by crop 0.5, flip 0.5" in plan


def test_weights_that_are_not_here_are_told_after_the_plan(imagebind, flags):
    done = imagebind("train", *flags, "--model", "huge", "--dry-run")
    assert done.code == 1
    assert b"vision is frozen, 632,8" in done.out
    assert "imagebind weights pull huge" in done.err
    assert "--set encoders.vision.init=random" in done.err


def test_a_few_pairs_are_learnt_by_heart(imagebind, flags):
    done = imagebind("train", *flags, "--overfit", 3, "--init", "random", *settings("run.steps=300", "optimizer.lr=0.003"))
    assert done.code == 0, done.err
    assert "R@1 100% and 100%" in done.err
    assert done.err.endswith("learnt by heart\n")
    failed = imagebind("train", *flags, "--overfit", 3, "--init", "random", *settings("run.steps=10", "optimizer.lr=1e-12"))
    assert failed.code == 1
    assert "not learnt" in failed.err


def test_a_profile_names_each_phase(imagebind, flags, tmp_path):
    out = tmp_path / "run"
    done = imagebind("train", *flags, "--profile", "--out", out)
    assert done.code == 0, done.err
    for phase in ("read", "embed", "loss", "backward", "update", "step"):
        assert re.search(rf"{phase} +\d+\.\d{{4}} s", done.err), phase
    assert json.loads((tmp_path / "run.trace.json").read_text())["traceEvents"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--out", "x"], 2, "nothing to train"),
        (["--pairs", "image-depth"], 2, "--out, the run folder, is missing"),
        (["--pairs", "image-depth", "--dry-run", "--overfit", "4"], 2, "choose one"),
        (["--pairs", "image-depth", "--out", "x"], 1, "image-depth: no data"),
        (["--pairs", "imagedepth", "--out", "x"], 2, "two modalities are needed"),
        (["--pairs", "image-image", "--out", "x"], 2, "not image twice"),
        (["--pairs", "image-dept", "--out", "x"], 2, "unknown modality 'dept'"),
        (["--pairs", "image-depth,image-audio", "--data", "a.jsonl", "--out", "x"], 2, "name its pair, as in image-depth=a.jsonl"),
        (["--pairs", "image-depth", "--data", "nowhere.jsonl", "--out", "x"], 1, "nowhere.jsonl"),
        (["--pairs", "image-depth", "--zeroshot", "audio", "--out", "x"], 2, "MODALITY:FILE is needed"),
        (["--pairs", "image-depth", "--recipe", "nothing", "--out", "x"], 1, "no recipe 'nothing'"),
        (["--pairs", "image-depth", "--model", "nothing", "--out", "x"], 1, "no model 'nothing'"),
        (["--pairs", "image-depth", "--set", "optimizer.rate=1", "--out", "x"], 2, "unknown key 'optimizer.rate'"),
        (
            ["--pairs", "image-depth", "--set", "run.keep=0", "--out", "x"],
            2,
            "recipe: run.keep: Input should be greater than or equal to 1",
        ),
        (["--pairs", "image-depth", "--set", "optimizer.rl=1", "--out", "x"], 2, "unknown key 'optimizer.rl'; did you mean 'lr'?"),
        (["--pairs", "image-depth", "--set", "epochs=1", "--out", "x"], 2, "unknown key 'epochs'; did you mean 'run.epochs'?"),
        (["--pairs", "image-depth", "--set", "foo.bar=1", "--out", "x"], 2, "unknown key 'foo'\n"),
        (
            ["--pairs", "image-depth", "--set", "encoders.audio.train=all", "--out", "x"],
            2,
            "encoders.audio: nothing in this recipe needs it",
        ),
        (["--pairs", "image-depth", "--set", "encoders.depth.train=none", "--out", "x"], 2, "nothing trains"),
        (["--pairs", "image-depth", "--set", "run.anchor_cache=true", "--out", "x"], 2, "set pairs.0.views"),
        (["--pairs", "image-depth", "--device", "tpu", "--out", "x"], 2, "unknown device 'tpu'"),
        (["--pairs", "image-depth", "--val", "1.5", "--out", "x"], 2, "--val 1.5: a fraction of the training rows is between 0 and 1"),
        (["--pairs", "image-depth", "--val", "0.2", "--val", "a.jsonl", "--out", "x"], 2, "give files, or one fraction"),
        (["--pairs", "image-depth,image-text", "--val", "0.2", "--out", "x"], 2, "name its pair, as in image-depth=0.2"),
        (["--pairs", "image-depth", "--column", "image", "--out", "x"], 2, "--column 'image': NAME=COLUMN is needed"),
        (["--pairs", "image-depth", "--column", "audio=wav", "--out", "x"], 2, "nothing reads 'audio'; choose from depth, image, id"),
    ],
)
def test_bad_requests_are_one_line(imagebind, tmp_path, monkeypatch, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in arguments else ["--model", "tiny"]
    done = imagebind("train", *arguments, *model)
    assert done.code == code
    assert told in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [[], ["--set", "run.seed=1"], ["--set", "run.keep=2"]])
def test_a_wrong_value_in_a_recipe_is_not_bad_usage(imagebind, tmp_path, flags):
    (tmp_path / "keep.toml").write_text("[run]\nkeep = 0\n")
    done = imagebind("train", "--recipe", tmp_path / "keep.toml", *flags, "--out", tmp_path / "x")
    assert done.code == 1
    assert "keep.toml: run.keep: Input should be greater than or equal to 1" in done.err


def test_the_command_line_imports_no_torch():
    code = "import sys, imagebind_cli.cli.train; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- packages built for one PyTorch


@pytest.fixture
def broken(tmp_path):
    """Put packages in front of the installed ones that fail as those built for another PyTorch do; the environment that has them."""

    def put(**errors):
        for name, error in errors.items():
            (tmp_path / "broken" / name).mkdir(parents=True)
            (tmp_path / "broken" / name / "__init__.py").write_text(f"raise {error}\n")
        places = [str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return os.environ | {"PYTHONPATH": os.pathsep.join(places)}

    return put


UNDEFINED = "OSError('libtorchaudio.abi3.so: undefined symbol: torch_dtype\\nmore lines')"
NMS = "RuntimeError('operator torchvision::nms does not exist')"


@pytest.mark.parametrize(
    ("package", "error", "pair", "augment", "reason"),
    [
        ("torchaudio", UNDEFINED, "image-audio", "audio={frequency_mask=12}", "libtorchaudio.abi3.so: undefined symbol: torch_dtype"),
        ("torchvision", NMS, "image-depth", "image={colour_jitter=0.4}", "operator torchvision::nms does not exist"),
        ("torchvision", "ModuleNotFoundError('no module')", "image-depth", "depth={erase=0.5}", "no module"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_package_built_for_another_pytorch_is_one_line(python, scenes, tmp_path, broken, package, error, pair, augment, reason, workers):
    """Before the first step, with both versions and what to install; a run that does not need the package trains."""
    environment = broken(**{package: error})
    arguments = [
        "--pairs",
        pair,
        "--model",
        "tiny",
        "--data",
        scenes / "train.jsonl",
        "--batch",
        4,
        "--device",
        "cpu",
        "--out",
        tmp_path / "run",
    ]
    arguments += settings(f"run.workers={workers}", "run.steps=1")

    def trained(*more):
        return python("-m", "imagebind_cli", "train", *arguments, *more, env=environment)

    done = trained("--set", f"pairs.0.augment.{augment}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    versions = f"augmentation needs {package} {metadata.version(package)}, but its import fails beside torch {metadata.version('torch')}: {reason};"
    assert versions in done.stderr
    assert re.search(r"install versions that fit each other: pip install 'torch\S* 'torchvision\S* 'torchaudio\S*'$", done.stderr.strip())
    assert not (tmp_path / "run").exists()
    if not workers:
        done = trained()
        assert done.returncode == 0, done.stderr


EVERYTHING_BUT_TRAINING = """
import sys
from imagebind_cli.cli import app

for path in sys.argv[1:]:
    modality, store = path.rpartition("/")[2].partition(".")[0], path + ".h5"
    for command in (
        ["embed", modality, path, "-o", store, "--device", "cpu"],
        ["preprocess", modality, path, "-o", path + ".prepared.h5"],
        ["zeroshot", modality, path, "--labels", "cat,dog", "--device", "cpu"],
        ["retrieve", store, "--text", "a dog", "--device", "cpu"],
    ):
        try:
            app([*command, "--model", "tiny"])
        except SystemExit as error:
            assert not error.code, command
assert not {"torchvision", "torchaudio"} & set(sys.modules)
"""


def test_all_but_training_works_without_either(python, tmp_path, broken):
    """Where both packages are built for another PyTorch, every modality is embedded, prepared, classified and found."""
    made = {"image": picture, "depth": depth, "audio": audio, "thermal": thermal, "imu": imu, "video": video}
    endings = {"depth": "npy", "audio": "wav", "imu": "csv", "video": "avi"}
    paths = [str(make(tmp_path / f"{modality}.{endings.get(modality, 'png')}")) for modality, make in made.items()]
    run = python("-c", EVERYTHING_BUT_TRAINING, *paths, env=broken(torchaudio=UNDEFINED, torchvision=NMS))
    assert run.returncode == 0, run.stderr


# -- what a run inherits


def test_a_run_has_the_rights_of_its_umask(imagebind, flags, tmp_path):
    before = os.umask(0o027)
    try:
        assert imagebind("train", *flags, "--out", tmp_path / "run").code == 0
    finally:
        os.umask(before)
    found = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in found} >= {".safetensors", ".json", ".jsonl"}
    assert {path.stat().st_mode & 0o777 for path in found} == {0o640}


def test_a_run_inherits_what_its_encoders_have_seen(imagebind, flags, tmp_path):
    base = tmp_path / "base"
    imagebind("weights", "convert", "tiny", base)
    config = json.loads(unsealed((base / "config.json").read_text()))
    seen = {"vision": {"imagenet": "its pictures"}, "depth": {"nyud": "all of it"}, "audio": {"esc10": "all of it"}}
    (base / "config.json").write_text(json.dumps(config | {"rule_seed": None, "trained_on": seen}))
    for name, change, lost in (("tuned", [], ()), ("anew", ["--init", "random"], ("depth",))):
        out = tmp_path / name
        done = imagebind("train", *flags, "--model", base, *change, "--set", f"encoders.vision.init={base}", "--out", out)
        assert done.code == 0, done.err
        found = json.loads((out / "config.json").read_text())["trained_on"]
        assert found == {encoder: data for encoder, data in seen.items() if encoder not in lost}


def test_a_store_of_a_run_leads_to_its_folder_and_names_it_where_it_has_moved(imagebind, flags, tmp_path, scenes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGEBIND_MODEL")
    assert imagebind("train", *flags, "--out", "runs/depth").code == 0
    assert imagebind("embed", "depth", scenes / "3.npy", "--model", "runs/depth", "-o", "s.h5").code == 0
    (found,) = imagebind("retrieve", "s.h5", "--depth", scenes / "3.npy").rows
    assert found["score"] > 0.9999
    shutil.move("runs/depth", "moved")
    run = imagebind("retrieve", "s.h5", "--depth", scenes / "3.npy")
    assert (run.code, len(run.notices)) == (1, 1)
    assert (
        f"s.h5: its vectors are of model 'depth', which was in {tmp_path}/runs/depth: --model {tmp_path}/runs/depth, or where it is now"
        in run.err
    )
    assert imagebind("retrieve", "s.h5", "--depth", scenes / "3.npy", "--model", "moved").code == 0
    assert imagebind("embed", "depth", scenes / "3.npy", "--model", "runs/depth", "-o", "s.h5").code == 1
    shutil.copytree("moved", "again/depth")
    again = imagebind("embed", "depth", scenes / "3.npy", scenes / "4.npy", "--model", "again/depth", "-o", "s.h5")
    assert again.code == 0, again.err


def test_the_environment_names_the_model_as_everywhere(imagebind, scenes, monkeypatch):
    """In place of the recipe's, which is said; a model on the command line comes before it."""
    files = ("--data", scenes / "train.jsonl", "--batch", 4, "--device", "cpu")
    command = ("train", "--recipe", "fine-tune", "--pairs", "image-depth", *files, "--dry-run")
    monkeypatch.setenv("IMAGEBIND_MODEL", "tiny")
    run = imagebind(*command)
    assert run.code == 0, run.err
    assert "model tiny takes the place of the recipe's huge" in run.err
    run = imagebind(*command, "--model", "mini")
    assert run.code == 0, run.err
    assert "model mini takes the place of the recipe's huge" in run.err
