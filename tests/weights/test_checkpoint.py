"""Weights: strict names and shapes, nothing unpickled, every format."""

import dataclasses
import json
import math
import os
import pickle
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import imagebind_cli as ib
from benchmarks.published_weights import published_shapes, published_weights
from imagebind_cli.errors import UserError
from imagebind_cli.families import imagebind
from imagebind_cli.fingerprint import positions
from imagebind_cli.weights import checkpoint, model_config, tensor_files, tensor_names
from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.rounding import to_int8

SMALL = {"out_embed_dim": 16} | {
    f"{modality}_{key}": value
    for modality in ("vision", "text", "audio", "depth", "thermal", "imu")
    for key, value in (("embed_dim", 16), ("num_blocks", 1), ("num_heads", 2))
}
CONFIG = imagebind.from_published(SMALL)


@pytest.fixture(scope="module")
def weights():
    return published_weights(published_shapes(CONFIG), 3)


@pytest.fixture(scope="module")
def picture():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32))


def test_key_tables_invert_exactly():
    shapes = published_shapes(model_config.packaged_config("huge"))
    for published in shapes:
        ours = next((target.name for target in tensor_names.rename(published, imagebind.PUBLISHED)), None)
        if ours is not None:
            assert tensor_names.published_names(ours, imagebind.PUBLISHED) == {0: published}
    dropped = [key for key in shapes if not tensor_names.rename(key, imagebind.PUBLISHED)]
    assert dropped == ["modality_preprocessors.text.mask"]


def test_a_published_file_a_converted_folder_and_a_state_dict_are_one_model(weights, picture, tmp_path):
    torch.save(weights, tmp_path / "small.pth")
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    from_file = ib.load(tmp_path / "small.pth", device="cpu")
    convert(from_file.checkpoint, tmp_path / "folder", {"from": "small.pth"})
    models = [from_file, ib.load(weights, config=SMALL, device="cpu"), ib.load(tmp_path / "folder", device="cpu")]
    for name in CONFIG.encoders:
        assert len({model.checkpoint.fingerprint(name) for model in models}) == 1
    vectors = [model.encode("image", picture) for model in models]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])


def test_the_fingerprint_tells_weights_apart(weights):
    changed = weights | {"modality_heads.vision.2.weight": weights["modality_heads.vision.2.weight"] * 1.001}
    prints = [checkpoint.from_tensors(tensors, CONFIG, "x").fingerprint("vision") for tensors in (weights, changed)]
    assert prints[0] != prints[1]


PRINTS = {
    "tiny": {
        "vision": "2:30a47b57650ad627",
        "text": "2:1c4e832339f29888",
        "audio": "2:96fa16ad890098f6",
        "depth": "2:bd617a3395a34cc0",
        "thermal": "2:3bad56fd8efd72da",
        "imu": "2:c497e2659d2be016",
    },
    "mini": {
        "vision": "2:5e2613a139b45b15",
        "text": "2:b7344562238c2094",
        "audio": "2:13cb75bc824049f2",
        "imu": "2:6a34cc339d99a878",
        "depth": "2:54c3c7968ee0135c",
        "thermal": "2:c5ca6380745ab45b",
    },
    "huge": {  # of `rising`
        "vision": "2:1a2df3f66871f59c",
        "text": "2:12c1b5721c30b95e",
        "audio": "2:77d74a28f808863f",
        "depth": "2:a89edf5328392ace",
        "thermal": "2:46b628a0cdae5ab8",
        "imu": "2:6c17ed52e7276b23",
    },
}
"""Known fingerprints: the same on every processor, build of torch and number of threads."""


def rising(shape):
    """A tensor of any shape with memory for its last axis alone, along which values rise: each value tells where it lies in its row."""
    return torch.arange(shape[-1], dtype=torch.float32).expand(shape) if shape else torch.zeros(())


@pytest.mark.parametrize("name", ["tiny", "mini"])
def test_fingerprints_are_known(name):
    found = find_checkpoint(name)
    assert {encoder: found.fingerprint(encoder) for encoder in found.config.encoders} == PRINTS[name]


def test_fingerprints_are_known_at_every_published_shape(weights):
    config = model_config.packaged_config("huge")
    tensors = {key: rising(shape) for key, shape in published_shapes(config).items()}
    found = checkpoint.from_tensors(tensors, config, "huge")
    assert {encoder: found.fingerprint(encoder) for encoder in config.encoders} == PRINTS["huge"]


def test_the_fingerprint_looks_at_whole_number_places_of_every_published_shape():
    counts = {math.prod(shape) for shape in published_shapes(model_config.packaged_config("huge")).values()}
    assert 49408 * 1024 in counts
    for count in counts | {2, 3, 15, 16, 17, 2**24 + 1, 2**31 + 7, 2**53 + 1}:
        shown = min(16, count)
        exact = [Fraction(i * (count - 1), max(shown - 1, 1)) for i in range(shown)]
        assert positions(count).tolist() == [math.floor(place) for place in exact]
        assert positions(count)[-1] == count - 1
    assert positions(0).tolist() == []


def test_the_fingerprint_is_the_same_with_one_thread_and_with_two():
    found, threads = find_checkpoint("mini"), torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert {name: found.fingerprint(name) for name in found.config.encoders} == PRINTS["mini"]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_fingerprint_is_of_values_and_not_of_their_type(weights, dtype):
    given = {key: tensor.to(dtype) for key, tensor in weights.items()}
    wide = {key: tensor.float() for key, tensor in given.items()}
    strided = {key: tensor.T.contiguous().T if tensor.dim() == 2 else tensor for key, tensor in wide.items()}
    found = [checkpoint.from_tensors(tensors, CONFIG, "x") for tensors in (given, wide, strided)]
    for name in CONFIG.encoders:
        assert len({one.fingerprint(name) for one in found}) == 1


def test_int8_rows_and_what_they_are_converted_to_have_one_fingerprint(tmp_path):
    rows = find_checkpoint("mini")
    convert(rows, tmp_path / "wide", {})
    wide = checkpoint.open_folder(tmp_path / "wide")
    held = tensor_files.read_tensors(Path(str(model_config.CONFIGS)) / "mini" / "depth.safetensors")
    assert torch.int8 in {tensor.dtype for tensor in held.values()}
    assert {name: wide.fingerprint(name) for name in wide.config.encoders} == PRINTS["mini"]


def test_unknown_tensors_are_named(weights):
    with pytest.raises(UserError, match=r"not part of this model: modality_heads\.smell\.2\.weight"):
        checkpoint.from_tensors(weights | {"modality_heads.smell.2.weight": torch.ones(1)}, CONFIG, "x")


def test_missing_tensors_are_named(weights):
    short = {key: tensor for key, tensor in weights.items() if key != "modality_trunks.audio.blocks.0.attn.bias_k"}
    with pytest.raises(UserError, match=r"audio: tensors missing: modality_trunks\.audio\.blocks\.0\.attn\.bias_k"):
        ib.load(short, config=SMALL, modalities=["audio"])


def test_misshapen_tensors_are_named(weights):
    wrong = weights | {"modality_heads.audio.2.weight": torch.zeros(16, 15)}
    with pytest.raises(UserError, match=r"audio: modality_heads\.audio\.2\.weight has shape \(16, 15\); the config says \(16, 16\)"):
        ib.load(wrong, config=SMALL, modalities=["audio"])


def test_a_small_file_without_its_config_is_no_huge_model(weights, tmp_path):
    torch.save(weights, tmp_path / "small.pth")
    with pytest.raises(UserError, match="tensors missing|has shape"):
        ib.load(tmp_path / "small.pth", modalities=["audio"])


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_are_not_tensors_are_refused(tmp_path, capsys, protocol):
    torch.save({"modality_heads.audio.2.weight": Evil()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"x": Evil()}, protocol=protocol))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(UserError, match="refused"):
            checkpoint.open_file(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_a_dictionary_of_other_things_is_refused(tmp_path):
    torch.save({"epoch": 3, "weights": [torch.ones(1)]}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="not a dictionary of tensors"):
        checkpoint.open_file(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 torn"])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_files_that_are_no_weights_get_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        checkpoint.open_file(tmp_path / name)


def test_a_truncated_file_gets_one_line(weights, tmp_path):
    torch.save(weights, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[: len(data) // 2])
    assert not zipfile.is_zipfile(tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        checkpoint.open_file(tmp_path / "x.pth")


def test_one_encoder_is_read_without_the_others(weights, tmp_path):
    tensors = checkpoint.from_tensors(weights, CONFIG, "x").read("imu")
    assert set(tensors) == set(ib.load(weights, config=SMALL).encoder("imu").state_dict())


def test_encoders_are_built_without_memory():
    from imagebind_cli import registry
    from imagebind_cli.encoder import build_encoder

    for name, config in model_config.packaged_config("huge").encoders.items():
        encoder = build_encoder(registry.modality(name, config), config)
        assert {parameter.device.type for parameter in encoder.parameters()} == {"meta"}


@pytest.mark.parametrize("change", [{"wdith": 3}, {"format": 2}])
def test_a_config_with_an_unknown_key_names_the_nearest(change):
    text = CONFIG.to_json()
    values = json.loads(text)
    if "wdith" in change:
        values["encoders"]["audio"]["trunk"]["wdith"] = 3
        with pytest.raises(UserError, match="unknown key 'wdith'; did you mean 'width'"):
            model_config.from_json(json.dumps(values), "config.json")
    else:
        with pytest.raises(UserError, match="not a model config of format 1"):
            model_config.from_json(json.dumps(values | change), "config.json")


def test_configs_survive_json():
    for name in model_config.packaged_names():
        config = model_config.packaged_config(name)
        assert model_config.from_json(config.to_json(), "x") == config


def test_published_arguments_are_checked():
    with pytest.raises(UserError, match="unknown key 'audio_num_head'; did you mean 'audio_num_heads'"):
        imagebind.from_published({"audio_num_head": 3})


def test_a_model_inside_the_package_is_the_default(tmp_path, monkeypatch, weights):
    for name in model_config.packaged_names():
        (tmp_path / f"{name}.json").write_text((model_config.CONFIGS / f"{name}.json").read_text())
    convert(checkpoint.from_tensors(weights, CONFIG, "x"), tmp_path / "mini", {})
    monkeypatch.setattr(model_config, "CONFIGS", tmp_path)
    monkeypatch.delenv("IMAGEBIND_MODEL", raising=False)
    model = ib.load()
    assert model.name == "mini"
    assert not model.checkpoint.untrained


def test_a_model_card_is_shown_with_the_model(tmp_path, imagebind):
    model_folder(tmp_path / "own")
    assert "Limits" not in imagebind("weights", "info", tmp_path / "own").out.decode()
    (tmp_path / "own" / "CARD.md").write_text("# own\n\nLimits: all.\n")
    assert imagebind("weights", "info", tmp_path / "own").out.decode().endswith("\n\n# own\n\nLimits: all.\n")
    assert json.loads(imagebind("weights", "info", tmp_path / "own", "--json").out)["card"] == "# own\n\nLimits: all.\n"


def test_half_precision_keeps_the_scale():
    assert ib.load("tiny", dtype="bf16", device="cpu").scale("text") == pytest.approx(1 / 0.07, rel=1e-6)


def model_folder(folder):
    """A model folder without the records of its files, so that they may be changed."""
    config = convert(ib.load("tiny", device="cpu").checkpoint, folder, {})
    (folder / "config.json").write_text(dataclasses.replace(config, files={}).to_json())
    return checkpoint.open_folder(folder)


def test_int8_rows_come_back_within_half_a_step(tmp_path):
    from safetensors.torch import save_file

    found = model_folder(tmp_path / "tiny")
    plain = dict(found.read("text"))
    rows = plain["stem.tokens.weight"].clone()
    rows[3] = 0
    rows[5] *= 1e-6
    values, scales = to_int8(rows)
    assert values.dtype == torch.int8
    save_file({**plain, "stem.tokens.weight": values, "stem.tokens.weight.scale": scales}, tmp_path / "tiny" / "text.safetensors")
    back = checkpoint.open_folder(tmp_path / "tiny").read("text")
    assert back.keys() == plain.keys()
    step = rows.abs().amax(dim=1, keepdim=True) / 127
    assert ((back["stem.tokens.weight"] - rows).abs() <= step * 0.51 + 2**-14).all()
    assert not back["stem.tokens.weight"][3].any()
    checkpoint.load_encoder(checkpoint.open_folder(tmp_path / "tiny"), "text", torch.device("cpu"))


def test_int8_without_its_scale_is_refused(tmp_path):
    from safetensors.torch import save_file

    found = model_folder(tmp_path / "tiny")
    values, _ = to_int8(found.read("text")["stem.tokens.weight"])
    save_file({**found.read("text"), "stem.tokens.weight": values}, tmp_path / "tiny" / "text.safetensors")
    with pytest.raises(UserError, match="stem.tokens.weight holds torch.int8; floating-point numbers are needed"):
        checkpoint.load_encoder(checkpoint.open_folder(tmp_path / "tiny"), "text", torch.device("cpu"))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_converted_model_has_the_rights_that_any_new_file_gets(tmp_path, imagebind, umask):
    before = os.umask(umask)
    try:
        assert imagebind("weights", "convert", "tiny", tmp_path / "made").code == 0
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "made").iterdir()} == {0o666 & ~umask}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace('"about"', '"\xff"', 1).encode("latin-1"), "not JSON: 'utf-8' codec can't decode"),
        (lambda text: text[:100].encode(), "not JSON"),
        (lambda text: b'{"format": 1, "name": "x", "encoders": [1]}', "encoders must be a table of tables"),
        (lambda text: b'{"format": 1, "name": "x", "encoders": {"text": 3}}', "encoders must be a table of tables"),
        (lambda text: b'{"format": 1, "encoders": ' + b"[" * 100_000, "not JSON"),
    ],
)
def test_a_damaged_config_is_one_line(tmp_path, damage, reason):
    convert(find_checkpoint("tiny"), tmp_path / "m", {})
    config = tmp_path / "m" / "config.json"
    config.write_bytes(damage(config.read_text()))
    with pytest.raises(UserError, match=reason) as refused:
        find_checkpoint(str(tmp_path / "m"))
    assert "\n" not in str(refused.value)
