"""An anchor made blind: its targets are the mean of its own vectors over changes, the same in every run, and refused where there are none."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from imagebind_cli.errors import UserError
from imagebind_cli.training import blindness
from imagebind_cli.training.data import PairData
from imagebind_cli.training.plan import make_plan
from imagebind_cli.training.recipe import BLIND, Recipe
from imagebind_cli.training.recipe_files import read_recipe
from imagebind_cli.weights.model_config import packaged_config
from tests.generate import audio, depth, picture

TINY = packaged_config("tiny").encoders
VARIANTS = 4


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Six pictures with depth maps, sounds and masks of their left halves."""
    folder = tmp_path_factory.mktemp("scenes")
    half = np.zeros((48, 64), np.uint8)
    half[:, :32] = 255
    Image.fromarray(half).save(folder / "mask.png")
    rows = []
    for seed in range(6):
        row = {"id": f"scene{seed}", "image": picture(folder / f"{seed}.png", seed, (64, 48)).name, "mask": "mask.png"}
        rows.append(row | {"depth": depth(folder / f"{seed}.npy", seed).name, "audio": audio(folder / f"{seed}.wav", 2, seed).name})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def recipe_of(scenes, blind, anchor="image", cached=True, **pair):
    table = {
        "modalities": (anchor, "depth"),
        "data": (str(scenes),),
        "batch": 2,
        "views": 2,
        "anchor": {"blind": blind, "variants": VARIANTS},
    }
    return Recipe.model_validate({"model": "tiny", "pairs": [table | pair], "run": {"anchor_cache": cached, "workers": 0}})


def encode(pictures):
    """A stand-in for an encoder: the mean colour of each quarter of the picture."""
    return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(pictures[:, :, 0], 2).flatten(1), dim=-1)


def filled(recipe, folder, encoder=encode):
    cache = PairData(recipe, TINY).anchor_cache(0, folder, "weights")
    cache.fill(encoder)
    return cache


def test_a_target_is_the_unit_mean_of_the_looks(scenes, tmp_path):
    """Every variant is of the same samples, the first as they are; what came out is averaged by hand."""
    variants = []

    def watched(pictures):
        variants.append(encode(pictures))
        return variants[-1]

    cache = filled(recipe_of(scenes, ["colour"]), tmp_path, watched)
    views = [variants[:VARIANTS], variants[VARIANTS:]]
    plain = filled(recipe_of(scenes, []), tmp_path / "plain")
    for view, seen in enumerate(views):
        assert torch.allclose(seen[0], plain.read(range(6), [view] * 6), atol=1e-6)
        assert not torch.allclose(seen[1], seen[0], atol=1e-2)
        expected = torch.nn.functional.normalize(sum(seen), dim=-1)
        assert torch.allclose(cache.read(range(6), [view] * 6), expected, atol=1e-6)


@pytest.mark.parametrize("kind", BLIND)
def test_every_kind_is_drawn_from_the_seed_alone(scenes, tmp_path, kind, monkeypatch):
    first = filled(recipe_of(scenes, [kind]), tmp_path / "first")
    monkeypatch.setattr("imagebind_cli.training.anchors.AT_ONCE", 1)
    again = filled(recipe_of(scenes, [kind]), tmp_path / "again")
    plain = filled(recipe_of(scenes, []), tmp_path / "plain")
    rows, views = range(6), [1] * 6
    assert torch.equal(first.read(rows, views), again.read(rows, views))
    assert not torch.allclose(first.read(rows, views), plain.read(rows, views), atol=1e-3)


def test_what_is_changed_is_what_the_name_says():
    source = torch.linspace(0, 1, 3 * 2 * 8 * 8).view(3, 2, 8, 8)
    numbers = np.random.default_rng(0)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :4] = True
    other = blindness.replace_background(source, mask, (0.5,) * 3, (0.5,) * 3, numbers)
    assert torch.equal(other[..., :4], source[..., :4])
    assert all(len(channel.unique()) == 1 for channel in other[..., 4:])
    assert torch.allclose(blindness.zoom(source, 1.0), source, atol=1e-5)
    larger = blindness.zoom(source, 2.0)
    assert torch.allclose(larger[..., 3:5, 3:5].mean((2, 3)), source[..., 3:5, 3:5].mean((2, 3)), atol=1e-5)  # the middle stays
    assert larger[0, 0].std() < source[0, 0].std()  # and less is seen


def test_the_cache_records_what_it_is_blind_to(scenes, tmp_path):
    filled(recipe_of(scenes, ["mirror", "colour"]), tmp_path / "cache")
    made = json.loads((tmp_path / "cache/made.json").read_text())
    assert made["blind"] == {"to": ["colour", "mirror"], "variants": VARIANTS, "rules": blindness.RULES}
    assert filled(recipe_of(scenes, ["colour", "mirror"]), tmp_path / "cache").missing() == 0
    for blind in ([], ["colour"]):
        with pytest.raises(UserError, match="the anchors were computed with other blind; choose another folder, or delete this one"):
            filled(recipe_of(scenes, blind), tmp_path / "cache")
    filled(recipe_of(scenes, []), tmp_path / "plain")
    assert "blind" not in json.loads((tmp_path / "plain/made.json").read_text())  # as in anchors of earlier versions
    with pytest.raises(UserError, match="with other blind"):
        filled(recipe_of(scenes, ["colour"]), tmp_path / "plain")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cached": False}, r"anchor\.blind needs cached anchors; set run\.anchor_cache = true and pairs\.0\.views to a number"),
        ({"views": 0}, r"anchor\.blind needs cached anchors"),
        ({"anchor": "audio"}, "audio has no colour to be blind to; it can be made blind to nothing"),
        ({"anchor": "thermal"}, "thermal has no colour to be blind to; it can be blind to scale, mirror"),
    ],
)
def test_an_anchor_without_such_changes_is_refused(scenes, change, reason):
    with pytest.raises(UserError, match=reason):
        make_plan(recipe_of(scenes, ["colour"], **change))


def test_an_anchor_that_trains_is_refused(scenes):
    recipe = recipe_of(scenes, ["colour"]).model_copy(update={"encoders": read_recipe(None, ["encoders.vision.train=all"]).encoders})
    with pytest.raises(UserError, match=r"image-depth: anchor\.blind needs a frozen anchor; here image trains"):
        make_plan(recipe)


def test_a_row_without_a_mask_is_named(scenes, tmp_path):
    rows = [json.loads(line) for line in scenes.read_text().splitlines()]
    bare = scenes.with_name("bare.jsonl")
    bare.write_text("".join(json.dumps({key: row[key] for key in ("id", "image", "depth")}) + "\n" for row in rows))
    with pytest.raises(UserError, match="image-depth: 6 of 6 rows have no mask, the first scene0; to be blind to the background, a row"):
        filled(recipe_of(bare, ["background"]), tmp_path)


def test_the_plan_names_it(scenes, imagebind):
    flags = ["--pairs", "image-depth", "--model", "tiny", "--data", scenes, "--batch", 2, "--device", "cpu", "--dry-run"]
    settings = ['pairs.0.anchor.blind=["colour"]', "pairs.0.views=2", "run.anchor_cache=true"]
    done = imagebind("train", *flags, *(part for change in settings for part in ("--set", change)))
    assert "image-depth: targets are blind to colour: the mean of 9 variants of each sample\n" in done.out.decode()
    done = imagebind("train", *flags, "--set", 'pairs.0.anchor.blind=["shape"]')
    assert (done.code, done.err.count("\n")) == (2, 2)  # the reason, and where the help is
    assert "pairs.0.anchor.blind: unknown 'shape'; choose from colour, scale, mirror, background" in done.err
