"""What encoders begin as: the published initialisation, by its figures; and the recipe that a command line asks for."""

import math
from dataclasses import replace

import pytest
import torch

from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.training.inputs import pair_inputs
from imagebind_cli.training.overrides import resolve_recipe
from imagebind_cli.training.plan import encoder_recipes, run_config
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.start import fresh_weights, initial_encoder
from imagebind_cli.weights import model_config

HUGE = model_config.packaged_config("huge").encoders


def shallow(name):
    """An encoder of the published width with two blocks."""
    return replace(HUGE[name], trunk=replace(HUGE[name].trunk, layers=2))


@pytest.mark.parametrize("name", ["depth", "imu", "text", "audio"])
def test_fresh_weights_have_the_published_distribution(name):
    config = shallow(name)
    if name == "text":
        config = replace(config, vocabulary=2000)
    tensors, width = fresh_weights(name, config, seed=0), config.trunk.width

    def deviation(key):
        assert tensors[key].mean().abs() < 0.2 * tensors[key].std()
        return tensors[key].std().item()

    def uniform(key, bound):
        assert tensors[key].abs().max().item() == pytest.approx(bound, rel=0.01)
        assert deviation(key) == pytest.approx(bound / math.sqrt(3), rel=0.02)

    uniform("trunk.blocks.0.attn.qkv.weight", math.sqrt(6 / (width + 3 * width)))
    uniform("trunk.blocks.1.attn.out.weight", math.sqrt(6 / (2 * width)))
    uniform("trunk.blocks.1.mlp.up.weight", math.sqrt(6 / (5 * width)))
    uniform("head.proj.weight", 1 / math.sqrt(width))
    assert not tensors["trunk.blocks.0.attn.qkv.bias"].any()
    assert not tensors["trunk.blocks.0.mlp.down.bias"].any()
    assert (tensors["trunk.blocks.0.norm1.weight"] == 1).all()
    assert not tensors["head.norm.bias"].any()
    assert deviation("stem.pos") == pytest.approx(0.01 if name in ("imu", "text") else width**-0.5, rel=0.05)
    if name == "text":
        assert deviation("stem.tokens.weight") == pytest.approx(0.02, rel=0.02)
    else:
        uniform("stem.proj.weight", 1 / math.sqrt(tensors["stem.proj.weight"][0].numel()))
        assert tensors["stem.cls"].std().item() == pytest.approx(0.01 if name == "imu" else width**-0.5, rel=0.15)
        assert tensors["trunk.blocks.0.attn.bias_k"].std().item() == pytest.approx(width**-0.5, rel=0.15)
        assert (tensors["stem.norm.weight"] == 1).all()
    assert tensors["log_scale"].item() == pytest.approx(math.log(config.scale))


def test_fresh_weights_follow_from_the_seed_and_the_name():
    config = shallow("imu")
    one, again, other = fresh_weights("imu", config, 0), fresh_weights("imu", config, 0), fresh_weights("imu", config, 1)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["stem.pos"], other["stem.pos"])
    assert not torch.equal(one["trunk.blocks.0.mlp.up.weight"], one["trunk.blocks.1.mlp.up.weight"])


def recipe(**given):
    return Recipe.model_validate({"model": "tiny", "pairs": [{"modalities": ("image", "depth")}], **given})


def test_anchors_are_frozen_and_others_train_where_nothing_is_said():
    made = recipe(pairs=[{"modalities": ("video", "imu")}, {"modalities": ("image", "text")}, {"modalities": ("text", "audio")}])
    found = {name: section.train for name, section in encoder_recipes(made).items()}
    assert found == {"vision": "none", "text": "all", "imu": "all", "audio": "all"}


def test_weights_for_an_anchor_do_not_make_it_train():
    made = recipe(encoders={"vision": {"init": "tiny"}, "depth": {"lr": 1e-4}})
    assert {name: section.train for name, section in encoder_recipes(made).items()} == {"vision": "none", "depth": "all"}


def test_zero_shot_needs_text_and_its_modality_frozen():
    made = recipe(zeroshot=[{"modality": "audio", "data": "labels.csv"}])
    assert {name: section.train for name, section in encoder_recipes(made).items()} == {
        "vision": "none",
        "depth": "all",
        "audio": "none",
        "text": "none",
    }


def test_drop_path_and_head_are_built_as_the_recipe_says():
    made = recipe(encoders={"depth": {"drop_path": 0.3, "head": "mlp"}})
    config = run_config(made)
    assert (config.encoders["depth"].trunk.drop_path, config.encoders["depth"].head) == (0.3, "mlp")
    assert config.encoders["audio"] == model_config.packaged_config("tiny").encoders["audio"]
    start = initial_encoder(made, "depth", config.encoders["depth"])
    assert start.fresh == {"head.norm.weight", "head.norm.bias", "head.up.weight", "head.up.bias", "head.proj.weight"}
    assert start.base["model"] == "tiny"


def test_a_config_without_weights_asks_for_fresh_ones():
    with pytest.raises(
        UserError, match=r"no weights are published for it; for fresh weights: --set encoders.depth.init=random; mini is here"
    ):
        initial_encoder(recipe(model="base"), "depth", run_config(recipe(model="base")).encoders["depth"])


# -- from the command line


def test_flags_lie_over_the_recipe(tmp_path):
    file = tmp_path / "two.toml"
    file.write_text("""
model = "tiny"
[[pairs]]
modalities = ["image", "depth"]
temperature = 0.2
[[pairs]]
modalities = ["image", "audio"]
data = ["a.jsonl"]
[encoders.audio]
drop_path = 0.1
[encoders.vision]
train = "head"
[optimizer]
lr = 0.01
""")
    both = resolve_recipe(str(file), data=["image-depth=d.jsonl"], batch=8, micro_batch=2, changes=["optimizer.lr=0.5", "pairs.1.batch=16"])
    assert [(pair.name, pair.data, pair.batch) for pair in both.pairs] == [
        ("image-depth", ("d.jsonl",), 8),
        ("image-audio", ("a.jsonl",), 16),
    ]
    assert (both.run.micro_batch, both.optimizer.lr) == (2, 0.5)
    one = resolve_recipe(str(file), pairs=["image-depth"], data=["x.jsonl", "y.jsonl"], val=["v.jsonl"], init="random")
    assert [(pair.name, pair.temperature, pair.data, pair.val) for pair in one.pairs] == [
        ("image-depth", 0.2, ("x.jsonl", "y.jsonl"), ("v.jsonl",))
    ]
    assert {name: (section.train, section.init) for name, section in encoder_recipes(one).items()} == {
        "vision": ("head", "random"), "depth": ("all", "random")
    }  # fmt: skip
    new = resolve_recipe(str(file), pairs=["text-audio"], zeroshot=["audio:labels.csv"])
    assert new.pairs[0].modalities == ("text", "audio")
    assert new.encoders["audio"].drop_path == 0.1
    assert new.zeroshot[0].data == "labels.csv"


class Notes(Listener):
    """Keeps the notes of a run in a list."""

    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def note(self, text):
        self.lines.append(text)


def test_a_pair_in_the_place_of_a_recipes_keeps_what_fits(monkeypatch):
    monkeypatch.delenv("IMAGEBIND_MODEL", raising=False)
    said = []
    made = resolve_recipe("fine-tune", pairs=["image-text"], data=["x.jsonl"], listener=Notes(said))
    (pair,) = made.pairs
    assert (pair.batch, pair.temperature, pair.data) == (64, 0.05, ("x.jsonl",))
    assert {name: augment.model_dump(exclude_unset=True) for name, augment in pair.augment.items()} == {"image": {"crop": 0.5, "flip": 0.5}}
    assert {name: (section.train, section.layer_decay) for name, section in encoder_recipes(made).items()} == {
        "vision": ("none", 1.0), "text": ("all", 0.75)
    }  # fmt: skip
    assert made.optimizer.lr == 2e-5
    assert said == ["image-text takes the place and the settings of the recipe's image-audio, but not augment.audio.frequency_mask"]


def test_a_picture_in_the_place_of_a_sound_is_cropped_with_its_anchor():
    (pair,) = resolve_recipe("fine-tune", pairs=["image-depth"]).pairs
    assert pair.augment["depth"].model_dump(exclude_unset=True) == {"crop": 0.5, "flip": 0.5}
    pair_inputs(pair, model_config.packaged_config("tiny").encoders)


def test_weights_of_an_encoder_are_not_those_of_the_one_in_its_place(monkeypatch):
    monkeypatch.delenv("IMAGEBIND_MODEL", raising=False)
    said = []
    made = resolve_recipe("locked-image", pairs=["depth-text"], listener=Notes(said))
    assert made.encoders["depth"].init is None
    assert said == ["depth-text takes the place and the settings of the recipe's image-text, but not encoders.vision.init"]


def test_a_pair_the_other_way_round_or_beside_several_does_not_take_settings_in_silence(monkeypatch):
    monkeypatch.delenv("IMAGEBIND_MODEL", raising=False)
    for pair in ("audio-image", "text-image", "audio-text"):
        with pytest.raises(UserError, match=r"for the reverse, copy the recipe and change it"):
            resolve_recipe("fine-tune", pairs=[pair])
    said = []
    assert resolve_recipe("imagebind", pairs=["image-text"], listener=Notes(said)).pairs[0].temperature == 0.07
    assert said[0].startswith("image-text: not in the recipe, which has video-audio, image-depth, image-thermal, video-imu;")


def test_a_model_in_place_of_the_recipes_is_said():
    said = []
    assert resolve_recipe(None, pairs=["image-text"], model="tiny", listener=Notes(said)).model == "tiny"
    assert resolve_recipe("fine-tune", listener=Notes(said)).model == "huge"
    assert said == []
    assert resolve_recipe("fine-tune", model="mini", listener=Notes(said)).model == "mini"
    assert resolve_recipe("fine-tune", changes=["model=tiny"], listener=Notes(said)).model == "tiny"
    assert said == ["model mini takes the place of the recipe's huge"]
