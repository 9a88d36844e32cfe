"""Weights rounded to a smaller number type: sizes, cosines, and which stores go with them."""

import json

import pytest
import torch

import imagebind_cli as ib
from imagebind_cli.errors import UserError
from imagebind_cli.number_types import convert_rounded
from imagebind_cli.weights.checkpoint import load_encoder
from imagebind_cli.weights.convert import convert, only
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.rounding import rounded
from imagebind_cli.weights.tensor_files import read_tensors

TWO = ["audio", "text"]


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The encoders of sound and text of `tiny`, as they are and rounded to each type."""
    place = tmp_path_factory.mktemp("types")
    convert(only(find_checkpoint("tiny"), TWO), place / "exact", {})
    for dtype in ("bf16", "fp16", "int8"):
        convert_rounded(find_checkpoint(place / "exact"), place / dtype, {"from": "tiny"}, dtype)
    return place


@pytest.mark.parametrize(("dtype", "share", "lowest"), [("bf16", 0.52, 0.999), ("fp16", 0.52, 0.99999), ("int8", 0.45, 0.995)])
def test_a_rounded_folder_is_smaller_and_states_its_cosines(folders, dtype, share, lowest):
    exact, other = ib.load(folders / "exact", device="cpu"), ib.load(folders / dtype, device="cpu")
    assert size(folders / dtype) < share * size(folders / "exact")
    record = json.loads((folders / dtype / "config.json").read_text())["rounded"]
    assert record["dtype"] == dtype
    for name in TWO:
        assert lowest < record["cosines"][name]["lowest"] <= record["cosines"][name]["mean"] <= 1
    vectors = [torch.from_numpy(model.embed("text", ["rain on a roof", "a dog"])) for model in (exact, other)]
    near = torch.nn.functional.cosine_similarity(*vectors)
    assert (near > lowest).all()
    assert not torch.equal(*vectors)


def test_matrices_become_int8_rows_and_the_rest_float16_but_for_the_scale(folders):
    stored = read_tensors(folders / "int8" / "audio.safetensors")
    types = {name: tensor.dtype for name, tensor in stored.items()}
    assert types["trunk.blocks.0.mlp.up.weight"] == torch.int8
    assert types["head.proj.weight"] == types["trunk.blocks.0.mlp.up.weight.scale"] == torch.float16
    assert types["log_scale"] == torch.float32
    assert {torch.int8, torch.float16, torch.float32} == set(types.values())


def test_a_store_of_the_exact_weights_is_searched_with_rounded_ones_and_not_continued(folders, imagebind, tmp_path):
    exact, small = folders / "exact", folders / "int8"
    store = tmp_path / "texts.h5"
    sentences = ["rain on a roof", "a dog", "a violin"]
    assert imagebind("embed", "text", *sentences, "--model", exact, "-o", store).code == 0
    found = imagebind("retrieve", store, "--text", "a dog", "--model", small, "-k", "1")
    assert found.code == 0
    assert json.loads(found.out)["id"] == "a dog"
    assert f"has weights rounded to int8; the vectors of {store} are of exact weights" in found.err
    refused = imagebind("embed", "text", "a cat", "--model", small, "-o", store)
    assert refused.code == 1
    assert "made with exact weights; this run has weights rounded to int8; write to another file" in refused.err


def test_info_says_what_was_rounded_and_nothing_is_rounded_twice(folders, imagebind, tmp_path):
    assert b"rounded    int8" in imagebind("weights", "info", folders / "int8").out
    refused = imagebind("weights", "convert", folders / "int8", tmp_path / "again", "--dtype", "bf16")
    assert refused.code == 1
    assert "rounded to int8 already; convert the weights that they were made from" in refused.err
    assert not (tmp_path / "again").exists()
    assert imagebind("weights", "convert", folders / "int8", tmp_path / "copy").code == 0  # an exact copy says so, too
    assert ib.load(tmp_path / "copy").checkpoint.config.rounded["dtype"] == "int8"


def test_the_command_prints_cosines_and_keeps_the_encoders_asked_for(imagebind, tmp_path):
    made = imagebind("weights", "convert", "tiny", tmp_path / "small", "--dtype", "int8", "--modalities", "image,text", "--json")
    assert made.code == 0
    record = json.loads(made.out)
    assert record["encoders"] == ["vision", "text"]
    assert set(record["rounded"]["cosines"]) == {"vision", "text"}
    assert [line.split()[1] for line in made.err.splitlines()[1:3]] == ["vision", "text"]
    assert imagebind("weights", "verify", tmp_path / "small").code == 0
    wrong = imagebind("weights", "convert", "tiny", tmp_path / "none", "--modalities", "image,smell")
    assert wrong.code == 2
    assert "smell" in wrong.err
    assert not (tmp_path / "none").exists()


def test_values_that_float16_cannot_hold_are_refused():
    with pytest.raises(UserError, match="choose bf16 for larger ones"):
        rounded("trunk.blocks.0.norm1.weight", torch.tensor([1.0, 1e6]), "fp16")
    assert rounded("trunk.blocks.0.norm1.weight", torch.tensor([1.0, 1e6]), "bf16")


def test_off_the_cpu_an_encoder_is_of_one_type():
    encoder = load_encoder(find_checkpoint("mini"), "text", torch.device("meta"))  # word vectors are int8 rows, the rest float16
    assert {name: p.dtype for name, p in encoder.named_parameters() if p.dtype != torch.float16}.keys() <= {"log_scale"}
