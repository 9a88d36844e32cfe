"""The packaged recipes: what they say is what is published, and each runs on a miniature of its dataset's real layout."""

import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from imagebind_cli.errors import UserError
from imagebind_cli.training import dataset_manifests
from imagebind_cli.training.data import PairData
from imagebind_cli.training.inputs import pair_inputs
from imagebind_cli.training.plan_lines import data_lines
from imagebind_cli.training.recipe_files import RECIPES, read_recipe, recipe_names
from imagebind_cli.weights import model_config
from tests import generate, trees

TINY = model_config.packaged_config("tiny").encoders
SHAPES = {
    "image": (3, 224, 224),
    "video": (3, 2, 224, 224),
    "audio": (1, 128, 204),
    "depth": (1, 224, 224),
    "thermal": (1, 224, 224),
    "imu": (6, 2000),
    "text": (77,),
}


def audioset(root):
    rows = '-0RWZT-miFs, 420.000, 430.000, "/m/03k3r"\nzzbTaK7CXJY, 30.000, 40.000, "/m/09x0r"\nGoneGoneGon, 1.500, 11.500, "/m/0bt9lr"\n'
    header = "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=3\n# YTID, start_seconds, end_seconds, positive_labels\n"
    trees.write(root / "unbalanced_train_segments.csv", header + rows)
    (root / "clips/a").mkdir(parents=True)
    generate.video(root / "clips/a/-0RWZT-miFs_420000_430000.mp4", seconds=3, sound=True)
    generate.video(root / "clips/zzbTaK7CXJY.mp4", seconds=3, sound=True, seed=1)
    trees.pictures(root / "frames/-0RWZT-miFs_420000.jpg", root / "frames/zzbTaK7CXJY.jpg")


def sunrgbd(root):
    trees.sunrgbd(root)
    trees.pictures(*(root / "SUNRGBD" / name / "image/0000103.jpg" for name in trees.SUN_SAMPLES))


def llvip(root):
    trees.pictures(*(root / f"visible/train/{number:06d}.jpg" for number in (10001, 10002)))
    (root / "infrared/train").mkdir(parents=True)
    for number in (10001, 10002):
        grey = generate.pixels(number)[..., :1].repeat(3, axis=-1)  # as theirs are, three equal channels
        trees.Image.fromarray(grey).save(root / f"infrared/train/{number:06d}.jpg")


def ego4d(root):
    trees.ego4d(root)
    (root / "v2/full_scale").mkdir()
    for name in ("cook", "walk"):
        generate.video(root / f"v2/full_scale/{name}.mp4", seconds=20, rate=4)


def clotho(root):
    trees.write(
        root / "clotho_captions_development.csv",
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
        'Santa Motor.wav,A machine whines.,"A motor, far away.",Three.,Four.,Five.\n#1 rain.wav,Rain.,Drops.,It pours.,Wet.,Storm.\n',
    )
    trees.sounds(root / "development/Santa_Motor.wav", root / "development/#1 rain.wav")


def captioned(root):
    """As img2dataset writes it."""
    root.mkdir()
    with tarfile.open(root / "00000.tar", "w") as archive:
        for number in range(4):
            picture = io.BytesIO()
            trees.Image.fromarray(generate.pixels(number)).save(picture, "JPEG")
            about = {"caption": f"picture {number}", "url": "", "key": f"{number:09d}", "status": "success"}
            members = {"jpg": picture.getvalue(), "json": json.dumps(about).encode(), "txt": f"picture {number}".encode()}
            for ending, data in members.items():
                information = tarfile.TarInfo(f"{number:09d}.{ending}")
                information.size = len(data)
                archive.addfile(information, io.BytesIO(data))


def sentences(root):
    """A manifest of sentences with a video, a depth map and a thermal picture each, as people write one."""
    root.mkdir()
    rows = []
    for number in range(4):
        generate.video(root / f"{number}.mp4", seconds=2, seed=number)
        grey = generate.pixels(number)[..., :1].repeat(3, axis=-1)
        trees.Image.fromarray(grey).save(root / f"{number}.jpg")
        trees.Image.fromarray(generate.pixels(number)[..., 0].astype(np.uint16) * 20 + 500).save(root / f"{number}.png")
        files = {"video": f"{number}.mp4", "depth": f"{number}.png", "thermal": f"{number}.jpg"}
        rows.append(json.dumps({"text": f"number {number}", **files}))
    trees.write(root / "captions.jsonl", "\n".join(rows) + "\n")


DATASETS = {"audioset": audioset, "sunrgbd": sunrgbd, "llvip": llvip, "ego4d": ego4d, "clotho": clotho}
SPLITS = {"sunrgbd": "test"}  # the miniature's larger one
DATA = {
    "video-audio": ["audioset"],
    "image-audio": ["audioset"],
    "image-depth": ["sunrgbd"],
    "image-thermal": ["llvip"],
    "video-imu": ["ego4d"],
    "imagebind": ["audioset", "sunrgbd", "llvip", "ego4d"],
    "image-text": ["captioned"],
    "locked-image": ["captioned"],
    "fine-tune": ["audioset"],
    "text-audio": ["clotho"],
    "languagebind-audio": ["clotho"],
    "languagebind-video": ["sentences"],
    "languagebind-depth": ["sentences"],
    "languagebind-thermal": ["sentences"],
    "distil-vision": ["captioned"],
    "distil-audio": ["audioset"],
    "distil-text": ["captioned"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every dataset in small, and its manifest or shard."""
    folder = tmp_path_factory.mktemp("datasets")
    made = {}
    for name, make in DATASETS.items():
        make(folder / name)
        rows = dataset_manifests.DATASETS[name][0](folder / name, SPLITS.get(name, "train"))
        made[name] = folder / "manifests" / f"{name}.jsonl"
        made[name].parent.mkdir(exist_ok=True)
        dataset_manifests.write_manifest(rows, made[name])
    captioned(folder / "captioned")
    sentences(folder / "sentences")
    return made | {"captioned": folder / "captioned/*.tar", "sentences": folder / "sentences/captions.jsonl"}


def changes(name, data):
    pairs = [
        change for number, file in enumerate(DATA[name]) for change in (f'pairs.{number}.data=["{data[file]}"]', f"pairs.{number}.batch=2")
    ]
    timeless = ['encoders.vision.targets=["qkv","out"]'] if name == "languagebind-video" else []  # `tiny` has no attention over time
    taught = ["pairs.0.teacher.model=tiny"] if name.startswith("distil") else []
    return ["model=tiny", "run.workers=0", "run.precision=fp32", *timeless, *taught, *pairs]


def test_every_recipe_is_tried():
    assert set(DATA) == set(recipe_names())


@pytest.mark.parametrize("name", sorted(DATA))
def test_a_recipe_gives_batches_of_its_dataset(name, data):
    recipe = read_recipe(name, changes(name, data))
    pairs = PairData(recipe, TINY)
    assert all(f"{pair.name}: " in line for pair, line in zip(recipe.pairs, data_lines(pairs), strict=False) if len(recipe.pairs) == 1)
    seen = set()
    for batch in pairs.batches(0, 1 if len(recipe.pairs) == 1 else 60):
        if batch.pair in seen:
            continue
        seen.add(batch.pair)
        for modality, tensor in zip(recipe.pairs[batch.pair].modalities, batch.inputs, strict=True):
            assert tensor.shape == (2, *SHAPES[modality])
            assert modality == "text" or torch.isfinite(tensor).all()
        assert batch.failures == ()
        if len(seen) == len(recipe.pairs):
            break
    assert seen == set(range(len(recipe.pairs)))


@pytest.mark.parametrize("name", sorted(DATA))
def test_a_recipe_passes_its_dry_run(name, data, imagebind, monkeypatch):
    """The command of its first line, on the miniature and with a small model."""
    monkeypatch.delenv("IMAGEBIND_MODEL")
    text = (RECIPES / f"{name}.toml").read_text()
    command = text.partition("\n")[0].removeprefix("# ").split()
    assert command[:4] == ["imagebind", "train", "--recipe", name]
    options = [part for change in [*changes(name, data), *fresh(name)] for part in ("--set", change)]
    done = imagebind("train", "--recipe", name, "--dry-run", *options)
    assert (done.code, done.err) == (0, "")
    plan = done.out.decode()
    for pair in read_recipe(name).pairs:
        assert pair.name in plan


def fresh(name):
    """In place of weights that would have to be fetched; the sizes of the published trunks stay the recipe's."""
    return [
        f"encoders.{encoder}.init=tiny" for encoder, section in read_recipe(name).encoders.items() if section.init not in (None, "random")
    ]


@pytest.mark.parametrize("name", sorted(DATA))
def test_a_recipe_names_its_page(name):
    text = (RECIPES / f"{name}.toml").read_text()
    page = next(word.rstrip(".") + ".md" for word in text.replace(".md", "").split() if word.startswith("docs/recipes/"))
    written = (Path(__file__).parents[2] / page).read_text()
    assert f"--recipe {name}" in written


def test_table_9():
    """Peak rate, decay, batch, clip, warm-up, replication, epochs, drop path, temperature, as printed."""
    table = {
        "video-audio": ("audio", 1.6e-3, 0.2, 2048, 1.0, 1.25, 64, 0.1, 0.05),
        "image-depth": ("depth", 1.6e-3, 0.2, 512, 1.0, 50, 64, 0.0, 0.2),
        "image-thermal": ("thermal", 5e-4, 0.05, 512, 5.0, 25, 64, 0.0, 0.1),
        "video-imu": ("imu", 5e-4, 0.5, 512, 1.0, 1.0, 8, 0.7, 0.2),
    }
    whole = read_recipe("imagebind")
    for number, (name, expected) in enumerate(table.items()):
        recipe = read_recipe(name)
        pair, optimizer, encoder = recipe.pairs[0], recipe.optimizer, expected[0]
        epochs, drop_path = recipe.run.epochs, recipe.encoders[encoder].drop_path
        found = optimizer.lr, optimizer.weight_decay, pair.batch, optimizer.clip, pair.replicate, epochs, drop_path, pair.temperature
        assert found == expected[1:]
        assert (optimizer.beta1, optimizer.beta2, optimizer.warmup, pair.learn_temperature) == (0.9, 0.95, 2, False)
        assert recipe.encoders["vision"].train == "none"
        # and the same in the one of all pairs
        theirs, section = whole.pairs[number], whole.encoders[encoder]
        own = section.lr or whole.optimizer.lr, whole.optimizer.weight_decay if section.weight_decay is None else section.weight_decay
        assert own == (optimizer.lr, optimizer.weight_decay)
        assert (theirs.name, theirs.batch, theirs.replicate, theirs.temperature) == (name, pair.batch, pair.replicate, pair.temperature)
        assert (theirs.clip or whole.optimizer.clip) == optimizer.clip
        assert theirs.augment == pair.augment
        assert theirs.options == pair.options
        assert section.drop_path == drop_path
    for name, other in (("image-depth", "depth"), ("image-thermal", "thermal")):
        augment = read_recipe(name).pairs[0].augment
        assert (augment["image"].flip, augment["image"].randaugment, augment["image"].colour_jitter, augment["image"].erase) == (
            0.5, (9, 0.5), 0.4, 0.25,
        )  # fmt: skip
        assert (augment[other].flip, augment[other].randaugment, augment[other].erase) == (0.5, (9, 0.5), 0.25)
    assert read_recipe("video-audio").pairs[0].augment["audio"].frequency_mask == 12


def test_pairs_of_all_take_the_steps_that_table_9_gives_each():
    pairs = read_recipe("imagebind").pairs
    counts, epochs = (2_000_000, 5285, 12_025, 510_142), (64, 64, 64, 8)
    steps = [count * pair.replicate * some / pair.batch for count, pair, some in zip(counts, pairs, epochs, strict=True)]
    assert [pair.weight for pair in pairs] == pytest.approx([one / sum(steps) for one in steps], abs=0.005)


def test_the_lines_of_the_ablations_are_understood():
    """Every change that docs/recipes/ablations.md names, on the recipe it is for."""
    page = (Path(__file__).parents[2] / "docs/recipes/ablations.md").read_text()
    lines = [shlex.split(code) for code in re.findall(r"`([^`]*--set[^`]*)`", page)]
    assert len(lines) >= 10
    for words in lines:
        given = [change for flag, change in pairwise(words) if flag == "--set"]
        name = "video-audio" if "audio" in "".join(given) or "video" in "".join(given) else "image-depth"
        recipe = read_recipe(name, given)
        assert recipe != read_recipe(name)
        pair_inputs(recipe.pairs[0], TINY)


# -- the manifests


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_audioset_pairs_a_clip_with_its_own_sound(data, capsys):
    found = rows(data["audioset"])
    assert [row["id"] for row in found] == ["-0RWZT-miFs_420", "zzbTaK7CXJY_30"]
    assert found[0]["video"] == found[0]["audio"] == "../audioset/clips/a/-0RWZT-miFs_420000_430000.mp4"
    assert found[1]["image"] == "../audioset/frames/zzbTaK7CXJY.jpg"
    list(dataset_manifests.audioset_rows(data["audioset"].parent.parent / "audioset", "train"))
    assert "1 of 3 clips are missing, as GoneGoneGon_1.5" in capsys.readouterr().err


def test_sunrgbd_takes_the_filled_depth_of_the_split(data):
    found = rows(data["sunrgbd"])
    assert [row["id"] for row in found] == list(trees.SUN_SAMPLES)
    assert found[1]["depth"] == f"../sunrgbd/SUNRGBD/{found[1]['id']}/depth_bfx/0000103.png"
    assert [row["label"] for row in found] == ["kitchen", "living room", "idk", "office"]
    assert len(list(dataset_manifests.sunrgbd_rows(data["sunrgbd"].parent.parent / "sunrgbd", "train"))) == 1


def test_ego4d_centres_its_stretches_on_narrations(data):
    found = rows(data["ego4d"])
    assert len(found) == 17 - round(17 * 68_865 / 579_007)
    for row in found:
        video, _, time = row["id"].partition("@")
        assert row["start"] == max(0, float(time) - 2.5)
        assert row["end"] - row["start"] == 5
        assert (row["video"], row["imu"]) == (f"../ego4d/v2/full_scale/{video}.mp4", f"../ego4d/v2/imu/{video}.csv")
    tested = {item["id"] for item in dataset_manifests.ego4d_rows(data["ego4d"].parent.parent / "ego4d", "test")}
    assert not tested & {row["id"] for row in found}


def test_motion_is_read_from_its_stretch(data):
    """The five seconds a row names, from a recording of twenty, on the clock of the video."""
    recipe = read_recipe("video-imu", changes("video-imu", data))
    pairs = PairData(recipe, TINY)
    by_id = {row["id"]: row for row in rows(data["ego4d"])}
    for batch in pairs.batches(0, 3):
        for id, tensor in zip(batch.ids, batch.inputs[1], strict=True):
            times = by_id[id]["start"] + np.arange(2000) / 400
            inside = times < 19.9
            assert np.abs(tensor.T.numpy()[inside] - trees.motion(times)[inside]).max() < 0.02


def test_clotho_captions_of_a_sound_are_one_group(data):
    pairs = PairData(read_recipe("text-audio", changes("text-audio", data)), TINY)
    assert pairs.counts == [10]
    assert pairs.groups(0).tolist() == [0] * 5 + [5] * 5


def test_the_command_line_of_manifests(data, tmp_path):
    root = data["llvip"].parent.parent / "llvip"

    def run(*arguments):
        command = [sys.executable, "-W", "ignore", "-m", "imagebind_cli.training.dataset_manifests", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run("llvip", root, "-o", "llvip.jsonl")
    assert (done.returncode, done.stderr) == (0, "llvip.jsonl: 2 pairs\n")
    assert (tmp_path / rows(tmp_path / "llvip.jsonl")[0]["thermal"]).exists()
    done = run("llvip", root, "-o", "test.jsonl", "--split", "test")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"llvip: no visible/test in {root}" in done.stderr
    assert not list(tmp_path.glob("*test.jsonl*"))
    assert run("llvip", root, "-o", "x.jsonl", "--split", "best").returncode == 2


def test_a_sample_that_is_not_whole_is_told(data):
    root = data["sunrgbd"].parent.parent / "sunrgbd"
    missing = root / "SUNRGBD" / next(iter(trees.SUN_SAMPLES)) / "image/0000103.jpg"
    held = missing.read_bytes()
    missing.unlink()
    with pytest.raises(UserError, match=r"no image/\*.jpg or no depth_bfx/\*.png in"):
        list(dataset_manifests.sunrgbd_rows(root, "test"))
    missing.write_bytes(held)
