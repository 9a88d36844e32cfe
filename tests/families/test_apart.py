"""Vectors of two families, or of two text encoders, are never compared; models of one family can be joined."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

import imagebind_cli as ib
from imagebind_cli import registry
from imagebind_cli.corpus import estimate, preprocess
from imagebind_cli.errors import OptionError, UserError
from imagebind_cli.readers import prepares_alike
from imagebind_cli.store import open_store
from imagebind_cli.training.inputs import pair_inputs
from imagebind_cli.training.plan import run_config
from imagebind_cli.training.recipe import PairRecipe, Recipe, RecipeError
from imagebind_cli.training.start import initial_encoder
from imagebind_cli.weights import checkpoint, model_config
from imagebind_cli.weights.convert import convert
from tests.conftest import Run
from tests.families import sketch
from tests.generate import pixels

pytestmark = pytest.mark.usefixtures("family")
SENTENCES = ["a mug", "two mugs on a table", "rain"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures and Sketch's model, in which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGEBIND_MODEL")
    sketch.write_weights(tmp_path / "model")
    for number in range(4):
        Image.fromarray(pixels(number, (60, 40))).save(tmp_path / f"{number}.png")
    return tmp_path


def embed(imagebind: Run, modality: str, model: str, store: str) -> None:
    inputs = SENTENCES if modality == "text" else [f"{number}.png" for number in range(4)]
    run = imagebind("embed", modality, *inputs, "--model", model, "-o", store)
    assert run.code == 0, run.err


def refused(run: object, *words: str) -> str:
    """Return the one line with which a command refused."""
    lines = [line for line in run.notices if line.startswith("imagebind: ")]  # type: ignore[attr-defined]
    assert run.code == 1, run.err  # type: ignore[attr-defined]
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]
    return lines[0]


TWO = ("family sketch", "family imagebind", "no common space")


def test_stores_and_models_of_two_families_are_refused_in_one_line(place: Path, imagebind: Run) -> None:
    for model, name in (("model", "sketch"), ("tiny", "tiny")):
        for modality in ("image", "text"):
            embed(imagebind, modality, model, f"{name}-{modality}.h5")
    assert open_store("sketch-image.h5").provenance["family"] == "sketch"
    assert open_store("tiny-image.h5").provenance["family"] == "imagebind"
    assert imagebind("embed", "text", "rain", "--model", "tiny", "-o", "tiny-one.h5").code == 0
    for command in (
        "retrieve sketch-image.h5 --text mug --model tiny",
        "retrieve sketch-image.h5 --queries tiny-text.h5",
        "retrieve sketch-image.h5 tiny-text.h5 --like 0.png",
        "zeroshot image sketch-image.h5 --labels a,b --model tiny",
        "zeroshot image 0.png --model tiny --classes sketch-text.h5",
        "zeroshot image sketch-image.h5 --classes tiny-text.h5",
        "retrieve sketch-image.h5 --vector tiny-one.h5",
        "store merge sketch-image.h5 tiny-image.h5 -o both.h5",
        "embed image 0.png --model tiny -o sketch-image.h5",
        "embed image 0.png --model model -o tiny-image.h5",
        "retrieve sketch-image.h5 tiny-text.h5 --pairs ids",
    ):
        refused(imagebind(*command.split()), *TWO)
    assert not Path("both.h5").exists()
    described = json.loads(imagebind("store", "info", "sketch-image.h5", "--json").out)
    assert described["made"]["family"] == "sketch"
    done = imagebind("retrieve", "sketch-image.h5", "--text", "a mug", "--model", "model", "-k", 1, "--html", "page.html")
    assert done.code == 0, done.err
    assert "Model sketch of the family sketch." in Path("page.html").read_text()


def test_reports_of_a_classification_record_the_family(place: Path, imagebind: Run) -> None:
    Path("truth.csv").write_text("id,label\n" + "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(4)))
    words = ("--model", "model", "--labels", "a,b", "--truth", "truth.csv", "--report", "report.json")
    done = imagebind("zeroshot", "image", *(f"{number}.png" for number in range(4)), *words, "--html", "report.html")
    assert done.code == 0, done.err
    report = json.loads(Path("report.json").read_text())
    assert report["made"][0]["family"] == "sketch"
    assert "sketch" in Path("report.html").read_text()


@pytest.mark.parametrize("output", ["a.tar", "a.h5"])
def test_prepared_inputs_record_the_family_and_fit_no_other(place: Path, imagebind: Run, output: str) -> None:
    assert imagebind("preprocess", "image", "0.png", "--model", "model", "-o", output).code == 0
    assert imagebind("embed", "image", output, "--model", "model").code == 0
    refused(imagebind("embed", "image", output, "--model", "tiny"), "has family sketch", "wants imagebind")
    assert imagebind("preprocess", "image", "0.png", "--model", "tiny", "-o", "tiny-" + output).code == 0
    refused(imagebind("embed", "image", "tiny-" + output, "--model", "model"), "has family imagebind", "wants sketch")


# Options and inputs that a family's readers do not have


def test_options_of_other_families_are_refused_before_anything_is_read(place: Path, imagebind: Run) -> None:
    for command in ("preprocess video gone.mp4 --model model -o a.tar", "embed video gone.mp4 --model model"):
        refused(imagebind(*command.split()), "this vision encoder of sketch takes image, not video")
    assert not Path("a.tar").exists()
    for act in (
        lambda: preprocess("vision", ["gone.png"], "a.tar", model="model"),
        lambda: estimate("model", "vision", ["gone.png"]),
    ):
        with pytest.raises(UserError, match="takes image, not vision"):
            act()
    clips = registry.face("audio").read_options({"clips": 1})
    assert clips.chosen == {"clips"}
    with pytest.raises(OptionError, match="has no option 'long_text'"):
        without_options("text", lambda: preprocess("text", ["a"], "a.tar", model="model", options={"text": {"long_text": "error"}}))
    with pytest.raises(OptionError, match="has no option 'long_text'"):
        without_options("text", lambda: estimate("model", "text", ["a"], long_text="error"))


def without_options(encoder: str, act: object) -> None:
    """Run something while Sketch's reader of an encoder heeds no options."""
    import sketch_family

    own = registry.own_modality(encoder)
    plain = sketch_family.FAMILY
    try:
        sketch_family.FAMILY = replace(plain, modality=lambda name, config: replace(own, options=()) if name == encoder else None)
        act()  # type: ignore[operator]
    finally:
        sketch_family.FAMILY = plain


def test_recipes_of_training_are_checked_against_the_family(place: Path) -> None:
    configs = ib.load("model", device="cpu").checkpoint.config.encoders
    pair = PairRecipe(modalities=("image", "text"), options={"text": {"long_text": "error"}})
    assert [each.config.family for each in pair_inputs(pair, configs)] == ["sketch", "sketch"]
    with pytest.raises(RecipeError, match="has no option 'long_text'"):
        without_options("text", lambda: pair_inputs(pair, configs))
    with pytest.raises(UserError, match="takes image, not video"):
        pair_inputs(PairRecipe(modalities=("video", "text")), configs)


def test_an_encoder_of_a_run_begins_from_its_own_family(place: Path) -> None:
    made = Recipe.model_validate(
        {
            "model": "tiny",
            "pairs": [{"modalities": ("image", "text")}],
            "encoders": {"vision": {"init": "model"}, "text": {"init": "words"}},
        }
    )
    config = run_config(made)
    with pytest.raises(UserError, match="of the family sketch, and the vision encoder of this run's model of the family imagebind"):
        initial_encoder(made, "vision", config.encoders["vision"])
    tiny = ib.load("tiny", device="cpu").checkpoint
    renamed = {name: replace(encoder, family="clip") for name, encoder in tiny.config.encoders.items()}
    convert(replace(tiny, config=replace(tiny.config, encoders=renamed, rule_seed=None)), place / "words", {})
    start = initial_encoder(made, "text", config.encoders["text"])  # CLIP's inputs are ImageBind's
    assert start.base is not None
    assert start.base["weights"] == tiny.fingerprint("text")


# Joining


def write_part(folder: Path, tower: str, seed: int = 0, **changes: float) -> Path:
    """Write a model of one tower alone."""
    sketch.write_weights(folder, seed)
    tensors = {
        name: tensor for name, tensor in sketch.tensors(seed).items() if f".{tower}." in name or (tower == "text" and "temp" in name)
    }
    for name, value in changes.items():
        tensors[f"sketch.{name}"] = tensors[f"sketch.{name}"] * 0 + value
    save_file(tensors, folder / "sketch.safetensors")
    return folder


def test_models_of_one_family_become_one(place: Path, imagebind: Run) -> None:
    write_part(place / "words", "text", temperature=3.0)
    write_part(place / "pictures", "vision")
    done = imagebind("weights", "convert", "words", "pictures", "model", "all", "--json")
    assert done.code == 0, done.err
    joined, whole = ib.load("all", device="cpu"), ib.load("model", device="cpu")
    assert (joined.name, list(joined.checkpoint.config.encoders), joined.checkpoint.config.family) == ("all", ["text", "vision"], "sketch")
    sources = joined.checkpoint.config.origin["sources"]
    assert [Path(source["from"]).parent.name for source in sources] == ["words", "pictures", "model"]
    assert all(len(source["sha256"]) == 64 for source in sources)
    assert json.loads(done.out)["origin"]["sources"] == sources
    assert (joined.scale("text"), whole.scale("text")) == pytest.approx(
        (math.exp(3.0), math.exp(sketch.tensors()["sketch.temperature"])), rel=1e-6
    )
    for modality, inputs in (("image", ["0.png", "1.png"]), ("text", SENTENCES)):
        assert (joined.embed(modality, inputs) == whole.embed(modality, inputs)).all()
    assert imagebind("weights", "verify", "all").code == 0
    embed(imagebind, "image", "all", "images.h5")
    assert imagebind("retrieve", "images.h5", "--text", "a mug", "-k", 1).code == 0


def test_models_that_have_no_common_space_are_not_joined(place: Path, imagebind: Run) -> None:
    write_part(place / "words", "text", seed=1)
    write_part(place / "pictures", "vision", seed=1)
    sketch.write_weights(place / "larger", joint=48)
    for sources, reason in (
        (("model", "tiny"), "its family is imagebind, that of"),
        (("model", "words"), "its text encoder differs from that of"),
        (("model", "pictures"), "its vision encoder differs from that of"),
        (("model", "larger"), "its dim is 48, that of"),
    ):
        line = refused(imagebind("weights", "convert", *sources, "all"), reason)
        assert line.startswith("imagebind: ")
        assert not Path("all").exists()
    assert imagebind("weights", "convert", "model", "words", "all", "--config", "x.json").code == 2


def test_encoders_of_two_families_are_one_model_only_where_training_bound_them(place: Path) -> None:
    sketched, own = ib.load("model", device="cpu").checkpoint.config, model_config.packaged_config("tiny")
    mixed = {**{name: encoder for name, encoder in own.encoders.items() if name == "audio"}, **sketched.encoders}
    mixed = {name: replace(encoder, dim=own.dim) for name, encoder in mixed.items()}
    config = replace(own, encoders=mixed, rule_seed=None)
    with pytest.raises(UserError, match="encoders of several families: imagebind, sketch"):
        model_config.from_json(config.to_json(), "config.json")
    for origin in ({"trained": ["text-audio"]}, {"sources": [{"from": "a"}, {"from": "b", "trained": ["text-audio"]}]}):
        assert model_config.from_json(replace(config, origin=origin).to_json(), "config.json").encoders == mixed
    for origin in ({"sources": 3}, {"sources": ["trained"]}, {"from": "trained"}):
        with pytest.raises(UserError, match="several families"):
            model_config.from_json(replace(config, origin=origin).to_json(), "config.json")


def test_families_that_prepare_alike() -> None:
    assert prepares_alike("imagebind", "clip")
    assert prepares_alike("sketch", "sketch")
    assert not prepares_alike("sketch", "clip")


def test_join_reads_no_weights_of_encoders_that_only_one_has(place: Path) -> None:
    found = [checkpoint.open_folder(place / "model"), checkpoint.open_folder(write_part(place / "words", "text"))]
    read: list[str] = []

    def recorded(each: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(each.config, each.place, lambda name: read.append(name) or each.read(name))  # type: ignore[func-returns-value]

    checkpoint.join([recorded(each) for each in found])
    assert read == ["text", "text"]
