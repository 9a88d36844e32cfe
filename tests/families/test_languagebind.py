"""LanguageBind: equal to the published code, from weights and files to vectors; every form of its weights; clear refusals."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import imagebind_cli as ib
from imagebind_cli import registry
from imagebind_cli.encoder import build_encoder
from imagebind_cli.errors import OptionError, UserError
from imagebind_cli.evaluation.classifier import pair_scale
from imagebind_cli.families import languagebind
from imagebind_cli.families.languagebind import reading
from imagebind_cli.media.windows import Moment
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.pages.preview import draw
from imagebind_cli.sources import Regions, Stretch
from imagebind_cli.store import open_store
from imagebind_cli.weights import checkpoint, foreign_config, tensor_names
from imagebind_cli.weights.convert import convert
from imagebind_cli.weights.find import find_checkpoint
from tests import generate
from tests.families import languagebind_rule as rule

UNITS = dict(np.load(rule.DATA / "encoders.npz"))
PREPROCESS = json.loads((rule.DATA / "preprocess.json").read_text())
SLICES = dict(np.load(rule.DATA / "preprocess.npz"))
VISION = "vision_model.encoder.layers.1"
WRAPPED = "vision_model.encoder.base_model.model.layers.1"


def load(case, **vision):
    return ib.load(rule.weights(case), config=rule.config(case, **vision), device="cpu")


@pytest.fixture(scope="module")
def models():
    return {case: load(case) for case in rule.CASES}


def new_peft(tensors):
    """The tensors under the names that PEFT gives them since 0.7."""
    adapted = {name.partition(".lora_A")[0] for name in tensors if ".lora_A" in name}
    return {
        f"{module}.base_layer.{kind}" if (module := name.rpartition(".")[0]) in adapted else name: tensor
        for name, tensor in tensors.items()
        for kind in [name.rpartition(".")[2]]
    }


# Encoders


@pytest.mark.parametrize("case", rule.CASES)
def test_vectors_and_scales_are_the_published_ones(models, case):
    model, modality = models[case], rule.CASES[case]["modality"]
    vectors = model.encode(modality, rule.inputs(case)).numpy()
    assert np.abs(vectors - UNITS[f"{case}.unit"]).max() <= 2e-6
    assert model.scale(modality) == pytest.approx(math.exp(rule.CASES[case]["logit_scale"]), rel=1e-6)
    assert model.scale("text") == model.scale(modality)


@pytest.mark.parametrize("case", ["image", "video_v15"])
def test_text_vectors_are_the_published_ones(models, case):
    texts = torch.cat([next(models[case].read("text", text)).tensor for text in rule.GOLDEN["texts"]])
    assert np.array_equal(texts.numpy(), UNITS["input_ids"])
    assert np.abs(models[case].encode("text", texts).numpy() - UNITS[f"{case}.text_unit"]).max() <= 2e-6


@pytest.mark.parametrize("key", ["texts", "extra"])
def test_tokens_are_the_published_ones(models, key):
    ids = torch.cat([next(models["audio"].read("text", text)).tensor for text in PREPROCESS["text"][key]])
    assert np.array_equal(ids.numpy(), SLICES["text_input_ids" if key == "texts" else "text_extra_input_ids"])


@pytest.mark.parametrize("case", [case for case in rule.CASES if case.endswith("lora")])
def test_both_namings_of_peft_are_one_model(models, case):
    renamed = new_peft(rule.weights(case))
    assert len(renamed) == len(rule.weights(case))
    assert any(".base_layer.bias" in name for name in renamed)
    model = ib.load(renamed, config=rule.config(case), device="cpu")
    modality = rule.CASES[case]["modality"]
    assert torch.equal(model.encode(modality, rule.inputs(case)), models[case].encode(modality, rule.inputs(case)))


@pytest.mark.parametrize(("rank", "alpha", "factor"), [(2, None, 8), (2, 16, 8), (2, 4, 2), (2, 16.0, 8)])
def test_low_rank_matrices_count_alpha_over_rank_times(rank, alpha, factor):
    tensors = rule.weights("depth_lora")
    values = rule.config("depth_lora", lora_r=rank)
    del values["vision_config"]["lora_alpha"]
    if alpha is not None:
        values["vision_config"]["lora_alpha"] = alpha
    found = checkpoint.from_tensors(tensors, foreign_config.ForeignConfig(values, "config.json"), "file")
    weight, down, up = (
        tensors[f"{WRAPPED}.self_attn.k_proj.{end}"] for end in ("weight", "lora_A.default.weight", "lora_B.default.weight")
    )
    folded = found.read("depth")["trunk.blocks.1.attn.qkv.weight"].chunk(3)[1]
    assert torch.allclose(folded, weight + factor * (up @ down), atol=1e-6)


def test_low_rank_matrices_are_folded_in_float32_and_kept_in_the_weights_own_type():
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in rule.weights("thermal_lora").items()}
    found = checkpoint.from_tensors(tensors, foreign_config.ForeignConfig(rule.config("thermal_lora"), "config.json"), "file")
    weight, down, up = (
        tensors[f"{WRAPPED}.self_attn.out_proj.{end}"].float() for end in ("weight", "lora_A.default.weight", "lora_B.default.weight")
    )
    assert torch.equal(found.read("thermal")["trunk.blocks.1.attn.out.weight"], (weight + 8 * (up @ down)).half())


def test_a_file_is_not_read_before_an_encoder_is_asked_for(monkeypatch):
    read = []
    monkeypatch.setattr(torch, "add", lambda *arguments, **keywords: read.append(arguments) or arguments[0])
    found = checkpoint.from_tensors(
        rule.weights("audio_lora"), foreign_config.ForeignConfig(rule.config("audio_lora"), "config.json"), "file"
    )
    dict(found.read("text"))
    assert not read
    dict(found.read("audio"))
    assert len(read) == 3 * 4  # layers and projections


@pytest.mark.parametrize("case", rule.CASES)
def test_every_tensor_is_of_one_of_ours_and_back(models, case):
    config = models[case].checkpoint.config
    table = languagebind.tensor_table(config)
    names = languagebind.fold_adapters(rule.weights(case), rule.config(case), "file")
    targets = {name: tensor_names.rename(name, table) for name in names}
    assert sorted(name for name, found in targets.items() if not found) == [
        "text_model.embeddings.position_ids",
        "vision_model.embeddings.position_ids",
    ]
    for name, found in targets.items():
        assert all(tensor_names.published_names(target.name, table)[target.part] == name for target in found)
    ours = {target.name for found in targets.values() for target in found}
    wanted = {
        f"{encoder}.{name}"
        for encoder, entry in config.encoders.items()
        for name in build_encoder(registry.modality(encoder, entry), entry).state_dict()
    }
    assert ours == wanted


# Forms of weights


@pytest.mark.parametrize("case", ["video_v15", "audio_lora"])
@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_a_folder_and_a_file_alone_load_by_model_with_nothing_else(models, case, ending, tmp_path):
    folder = rule.folder(tmp_path / "LanguageBind_X", case)
    file = folder / "pytorch_model.bin"
    if ending == "safetensors":
        from safetensors.torch import save_file

        save_file(rule.weights(case), folder / "model.safetensors")
        file.unlink()
        file = folder / "model.safetensors"
    modality, expected = rule.CASES[case]["modality"], None
    for place in (folder, file):
        model = ib.load(place, device="cpu")
        assert model.name == "LanguageBind_X"
        assert model.checkpoint.config.family == "languagebind"
        vectors = model.encode(modality, rule.inputs(case))
        assert expected is None or torch.equal(vectors, expected)
        expected = vectors
    assert torch.equal(expected, models[case].encode(modality, rule.inputs(case)))


def test_conversion_keeps_the_model_and_its_way_of_reading(models, tmp_path):
    models_by_case = {case: models[case] for case in ("depth_lora", "video_v15")}
    for case, model in models_by_case.items():
        convert(model.checkpoint, tmp_path / case, {"from": case})
        converted = ib.load(tmp_path / case, device="cpu")
        modality = rule.CASES[case]["modality"]
        assert torch.equal(converted.encode(modality, rule.inputs(case)), model.encode(modality, rule.inputs(case)))
        assert converted.config(modality) == model.config(modality)
        assert registry.modality(registry.face(modality).encoder, converted.config(modality)).readers.keys() == {modality}


def test_files_without_counters_and_with_weights_already_folded_in_are_read(models):
    tensors = {name: tensor for name, tensor in rule.weights("image").items() if not name.endswith("position_ids")}
    model = ib.load(tensors, config=rule.config("image", lora_r=16), device="cpu")
    assert torch.equal(model.encode("image", rule.inputs("image")), models["image"].encode("image", rule.inputs("image")))


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_one_tower_alone_is_a_model(tower):
    tensors = {name: tensor for name, tensor in rule.weights("image").items() if name.startswith((tower, "logit")) or "visual" in name}
    if tower == "text":
        tensors = {name: tensor for name, tensor in tensors.items() if "visual" not in name}
    found = checkpoint.from_tensors(tensors, foreign_config.ForeignConfig(rule.config("image"), "config.json"), "file")
    assert list(found.config.encoders) == [tower]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"image_size": [224, 224]}, lambda tower: tower.shape == (3, 224, 224)),
        ({"hidden_act": "quick_gelu"}, lambda tower: tower.trunk.activation == "quick_gelu"),
        ({"hidden_act": "gelu_pytorch_tanh"}, lambda tower: tower.trunk.activation == "gelu_tanh"),
        ({"layer_norm_eps": 1e-6}, lambda tower: tower.trunk.norm_eps == 1e-6),
        ({"num_attention_heads": 6}, lambda tower: tower.trunk.heads == 6),
        ({"force_patch_dropout": 0.5}, lambda tower: tower.patch_dropout == 0),
    ],
)
def test_a_field_of_the_config_is_what_counts(changes, check):
    model = load("image", **changes)
    assert check(model.config("image"))
    assert model.config("text").trunk.activation == "gelu"
    assert model.config("text").trunk.norm_eps == 1e-5


def test_missing_fields_mean_what_they_mean_to_the_published_code():
    values = rule.config("audio")
    for name in ("hidden_act", "layer_norm_eps", "audio_mean", "audio_std", "audio_sample_rate", "lora_r", "image_size"):
        del values["vision_config"][name]
    tower = ib.load(rule.weights("audio"), config=values, device="cpu").config("audio")
    assert (tower.trunk.activation, tower.trunk.norm_eps) == ("quick_gelu", 1e-5)
    assert (tower.mean, tower.std) == ((0.5,) * 3, (1.0,) * 3)


def test_sizes_come_from_the_config_and_need_no_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(rule.config("audio")))
    shape = foreign_config.read_config(tmp_path / "config.json").encoders["audio"]
    assert (shape.shape, shape.grid, shape.tokens) == ((3, 112, 1036), (8, 74), 593)
    assert shape.std == pytest.approx((2 * 4.5689974,) * 3)
    published = rule.config("video_v15", hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16)
    (tmp_path / "config.json").write_text(json.dumps(published))
    huge = foreign_config.read_config(tmp_path / "config.json").encoders["vision"]
    assert (huge.trunk.width, huge.trunk.layers, huge.frame_tokens, huge.tokens) == (1280, 32, True, 8 * 257)


# Refusals


def without(table, *names):
    return {key: value for key, value in table.items() if key not in names}


WRONG_FIELDS = {
    "model_type": lambda values: {**values, "model_type": "LanguageBindSmell"},
    "model_type is missing": lambda values: without(values, "model_type"),
    "vision_config": lambda values: without(values, "vision_config"),
    "text_config": lambda values: {**values, "text_config": None},
    "text_config is": lambda values: {**values, "text_config": {}},
    "projection_dim is 41": lambda values: {**values, "projection_dim": 41},
    "logit_scale_init_value": lambda values: {**values, "logit_scale_init_value": "2.6592"},
    "text_config_dict": lambda values: {**values, "text_config_dict": {"hidden_size": 32}},
    "rope_theta": lambda values: {**values, "rope_theta": 10000},
}
WRONG_VISION = {
    "hidden_act": "swish",
    "layer_norm_eps": -1,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "patch_size": 16,
    "image_size": [224, 112],
    "add_time_attn": True,
    "num_frames": 8,
    "num_channels": 1,
    "tube_size": 2,
    "rotary": True,
    "lora_alpha": "16",
}
WRONG_ELSEWHERE = [
    ("audio", "num_mel_bins", 0),
    ("audio", "num_mel_bins", 128),
    ("audio", "target_length", 998),
    ("audio", "audio_sample_rate", 48000),
    ("audio", "audio_std", 0),
    ("audio", "audio_mean", None),
    ("depth_lora", "max_depth", -1),
    ("depth_lora", "lora_r", 4),
    ("depth_lora", "lora_r", 0),
    ("video", "add_time_attn", False),
    ("video", "num_frames", 4),
    ("video_v15", "num_frames", 16),
]


def refusal(case, values=None, tensors=None):
    """The line with which a model is refused when its towers are loaded."""
    with pytest.raises(UserError) as error:
        model = ib.load(rule.weights(case) if tensors is None else tensors, config=values or rule.config(case), device="cpu")
        for encoder in model.checkpoint.config.encoders:
            model.encoder(encoder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("what", WRONG_FIELDS)
def test_a_wrong_field_is_named(what):
    assert what in refusal("image", WRONG_FIELDS[what](rule.config("image")))


@pytest.mark.parametrize("name", WRONG_VISION)
def test_a_wrong_field_of_a_tower_is_named(name):
    assert f"vision_config.{name}" in refusal("image_lora", rule.config("image_lora", **{name: WRONG_VISION[name]}))


@pytest.mark.parametrize(("case", "name", "value"), WRONG_ELSEWHERE)
def test_a_wrong_field_of_another_input_is_named(case, name, value):
    line = refusal(case, rule.config(case, **{name: value}))
    assert f"vision_config.{name}" in line
    assert value is None or str(value).lower() in line.lower()


@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"])
@pytest.mark.parametrize("part", ["vision_config", "text_config"])
def test_a_size_that_is_missing_is_named(part, name):
    values = rule.config("image")
    if part == "text_config" and name == "patch_size":
        values["text_config"] = {**values["text_config"], "patch_size": 14}  # which no text has
    else:
        values[part] = without(values[part], name)
    line = refusal("image", values)
    assert f"{part}.{name}" in line
    assert "missing" in line or name == "patch_size"


@pytest.mark.parametrize("name", ["num_mel_bins", "target_length"])
def test_a_sound_needs_its_two_sizes(name):
    values = rule.config("audio")
    values["vision_config"] = without(values["vision_config"], name)
    assert f"vision_config.{name}" in refusal("audio", values)


def test_a_picture_with_the_two_sizes_of_a_sound_is_refused_and_one_alone_means_nothing():
    assert "vision_config.num_mel_bins" in refusal("image", rule.config("image", num_mel_bins=112, target_length=1036))
    assert load("image", num_mel_bins=112.0).config("image").shape == (3, 224, 224)


@pytest.mark.parametrize("name", ["num_frames", "add_time_attn"])
def test_a_video_needs_its_frames(name):
    values = rule.config("video")
    values["vision_config"] = without(values["vision_config"], name)
    assert f"vision_config.{name}" in refusal("video", values)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("image", "vision_model.embeddings.class_embedding"),
        ("image", "vision_model.embeddings.position_embedding.weight"),
        ("image", f"{VISION}.self_attn.v_proj.bias"),
        ("image", f"{VISION}.mlp.fc2.weight"),
        ("image", "visual_projection.weight"),
        ("image", "text_projection.weight"),
        ("image", "text_model.encoder.layers.1.layer_norm1.weight"),
        ("image", "logit_scale"),
        ("video", f"{VISION}.temporal_embedding"),
        ("video", f"{VISION}.temporal_attn.k_proj.weight"),
        ("video_lora", f"{WRAPPED}.temporal_attn.k_proj.weight"),
        ("video_lora", f"{WRAPPED}.temporal_attn.k_proj.lora_B.default.weight"),
        ("depth_lora", f"{WRAPPED}.self_attn.out_proj.lora_A.default.weight"),
        ("depth_lora", f"{WRAPPED}.layer_norm2.bias"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "of another shape", "of whole numbers"])
def test_a_wrong_tensor_is_named_as_in_the_file(case, name, how):
    tensors = rule.weights(case)
    assert name in tensors
    if how == "missing":
        del tensors[name]
    elif how == "of another shape":
        tensors[name] = tensors[name][..., None].repeat_interleave(2, -1) if tensors[name].dim() < 2 else tensors[name][:, :-1].clone()
    elif "lora_" in name:
        pytest.skip("summed into the weight")
    else:
        tensors[name] = torch.zeros_like(tensors[name], dtype=torch.int64)
    assert name in refusal(case, tensors=tensors)


def test_a_missing_weight_of_new_peft_is_named_as_it_would_write_it():
    tensors = new_peft(rule.weights("depth_lora"))
    name = f"{WRAPPED}.self_attn.q_proj.base_layer.weight"
    del tensors[name]
    assert name in refusal("depth_lora", tensors=tensors)


def test_all_adapters_of_a_projection_missing_are_named():
    tensors = {name: tensor for name, tensor in rule.weights("depth_lora").items() if "k_proj.lora" not in name}
    assert "k_proj.lora_A.default.weight" in refusal("depth_lora", tensors=tensors)


@pytest.mark.parametrize("name", [f"{VISION}.temporal_mlp.fc1.weight", f"{VISION}.temporal_layer_norm2.bias", f"{VISION}.extra.weight"])
def test_a_tensor_too_many_is_named(name):
    assert name in refusal("audio", tensors=rule.weights("audio") | {name: torch.zeros(48)})


def test_kernels_over_two_frames_are_refused():
    kernel = "vision_model.embeddings.patch_embedding.weight"
    tensors = rule.weights("video_v15")
    tensors[kernel] = tensors[kernel].repeat(1, 1, 2, 1, 1)
    assert kernel in refusal("video_v15", tensors=tensors)


def test_weights_without_a_config_say_what_they_need(tmp_path):
    torch.save(rule.weights("image"), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"config\.json"):
        find_checkpoint(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (2, 3, 4, 224, 224), (8, 3, 224, 224)])
def test_another_number_of_frames_is_refused(models, shape):
    with pytest.raises(UserError, match=r"\(b, 3, 8, 224, 224\)"):
        models["video"].encode("video", torch.zeros(shape))


# Preprocessing


def part(entry):
    return tuple(slice(*(int(n) if n else None for n in axis.split(":"))) for axis in entry["slice"][1:-1].replace(" ", "").split(","))


def check(entry, tensor, most=1e-6):
    assert list(tensor.shape) == [1, *entry["shape"]]
    assert np.abs(tensor[0].numpy()[part(entry)] - SLICES[entry["name"]]).max() <= most
    assert float(tensor.double().mean()) == pytest.approx(entry["mean"], abs=1e-5)


def resize(entry):
    return "recent" if entry["antialias"] else "pinned"


@pytest.mark.parametrize("entry", PREPROCESS["image"], ids=lambda entry: entry["name"])
def test_pictures_become_the_published_tensors(models, entry, tmp_path):
    pixels = rule.picture(entry["seed"], entry["height"], entry["width"])
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    for case, modality in (("image", "image"), ("thermal_lora", "thermal")):
        for source in (str(path), pixels):
            (sample,) = models[case].read(modality, source, resize=resize(entry))
            check(entry, sample.tensor)
            assert sample.notes == ()


def test_pictures_are_resized_as_pinned_by_default(models):
    pixels = rule.picture(1, 300, 400)
    default, pinned, recent = (
        next(models["image"].read("image", pixels, **options)).tensor for options in ({}, {"resize": "pinned"}, {"resize": "recent"})
    )
    assert torch.equal(default, pinned)
    assert (default - recent).abs().max() > 0.01


@pytest.mark.parametrize("entry", PREPROCESS["depth"], ids=lambda entry: entry["name"])
def test_depth_becomes_the_published_tensor(entry, tmp_path):
    model = load("depth_lora", max_depth=entry["max_depth"])
    values = rule.depth_map(entry["seed"], entry["height"], entry["width"])
    Image.fromarray(values).save(tmp_path / "depth.png")
    np.save(tmp_path / "metres.npy", values.astype(np.float32) / 1000)
    for source in (str(tmp_path / "depth.png"), values, str(tmp_path / "metres.npy")):
        (sample,) = model.read("depth", source, resize=resize(entry))
        check(entry, sample.tensor)
        assert "pixels without depth are taken as 0.01 m away, as published" in sample.notes


@pytest.mark.parametrize("entry", PREPROCESS["audio"], ids=lambda entry: entry["name"])
def test_sounds_become_the_published_tensor(models, entry, tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, rule.waveform(entry["seed"], entry["rate"], entry["seconds"], entry["channels"]), entry["rate"], subtype="FLOAT")
    (sample,) = models["audio"].read("audio", str(path))
    check(entry, sample.tensor, 2e-4)  # torchaudio's own float32 differs by 1.1e-4 to 2e-4 from one processor to another
    assert sample.spans == [pytest.approx((0, entry["seconds"]))]
    assert sample.facts["stretches"] == [place / 100 for place in entry["chunks"] or (0, 0, 0)]


def test_a_very_long_sound_is_read_in_parts_with_nearly_the_same_result(models, monkeypatch):
    samples = rule.waveform(5, 22050, 40, 2).T
    (whole,) = models["audio"].read("audio", (samples, 22050))
    monkeypatch.setattr(reading, "WHOLE_SECONDS", 20)
    (parts,) = models["audio"].read("audio", (samples, 22050))
    assert 0 < (whole.tensor - parts.tensor).abs().max() <= 1e-3  # where a band holds nothing but rounding
    assert (whole.tensor - parts.tensor).abs().mean() <= 1e-6
    assert whole.facts == parts.facts


@pytest.mark.parametrize("entry", PREPROCESS["video"], ids=lambda entry: entry["name"])
def test_frames_become_the_published_tensor(models, entry, tmp_path):
    frames = [rule.picture(entry["first_frame_seed"] + t, entry["height"], entry["width"]) for t in range(entry["frames"])]
    (sample,) = models["video"].read("video", (np.stack(frames), 25.0))
    check(entry, sample.tensor)
    assert sample.spans == [(0, entry["frames"] / 25)]
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number}.png", compress_level=1)
    (folder,) = models["video"].read("video", str(tmp_path / "frames"), fps=25)
    assert torch.equal(folder.tensor, sample.tensor)
    assert next(models["video"].read("video", np.stack(frames))).spans == [None]


@pytest.mark.parametrize(("count", "chosen"), PREPROCESS["frames_chosen"], ids=lambda value: str(value) if isinstance(value, int) else "")
def test_frames_are_chosen_as_published(models, count, chosen):
    frames = np.repeat(np.arange(count, dtype=np.int64)[:, None, None, None], 3, axis=3)
    shown = np.concatenate([frames // 65536, frames // 256 % 256, frames % 256], axis=2)[:, :, :, :1].repeat(3, 3).astype(np.uint8)
    (sample,) = models["video"].read("video", (shown.reshape(count, 1, 3, 3), 25.0))
    clip = next(iter(reading.read_whole_video((shown, 25.0), models["video"].config("video"), registry.face("video").options())))
    assert torch.equal(sample.tensor, clip.tensor)
    expected = reading._clip([shown[number] for number in chosen], models["video"].config("video"), registry.face("video").options())
    assert torch.equal(sample.tensor, expected)


def test_a_video_file_is_read_from_its_first_frame_to_its_last(models, tmp_path):
    path = generate.video(tmp_path / "film.mkv", seconds=4, rate=10)
    (sample,) = models["video"].read("video", str(path))
    assert sample.tensor.shape == (1, 3, 8, 224, 224)
    assert sample.spans == [pytest.approx((0, 4), abs=0.11)]
    from imagebind_cli.media.video.clips import open_video
    from imagebind_cli.media.windows import windows

    with open_video(str(path)) as video:
        frames = [frame for (frame,) in video.clips([span for span in windows(video.duration, 0.1, 40)], 1)]
    (array,) = models["video"].read("video", (np.stack(frames), 10.0))
    assert torch.equal(array.tensor, sample.tensor)
    (stretch,) = models["video"].read("video", Stretch(str(path), 1, 2.5))
    (same,) = models["video"].read("video", (np.stack(frames[10:25]), 10.0))
    assert torch.equal(stretch.tensor, same.tensor)
    assert stretch.spans == [(1, 2.5)]
    (cut,) = models["video"].read("video", Stretch((np.stack(frames), 10.0), 1, 2.5))
    assert torch.equal(cut.tensor, same.tensor)


def test_a_stretch_of_a_sound_is_what_is_heard(models):
    samples = rule.waveform(3, 16000, 8).T
    (stretch,) = models["audio"].read("audio", Stretch((samples, 16000), 2, 5))
    (same,) = models["audio"].read("audio", (samples[:, 32000:80000], 16000))
    assert torch.equal(stretch.tensor, same.tensor)
    assert stretch.spans == [(2, 5)]


def test_training_takes_a_moment_of_a_sound_and_a_stretch_of_a_video(models):
    samples = rule.waveform(3, 16000, 30).T
    (moment,) = models["audio"].read("audio", (samples, 16000), moment=Moment(0.5))
    assert torch.equal(moment.tensor[:, 0], moment.tensor[:, 1])
    assert moment.spans[0][1] - moment.spans[0][0] == pytest.approx(10.375, abs=0.001)
    frames = np.stack([rule.picture(t, 32, 32) for t in range(20)])
    (video,) = models["video"].read("video", (frames, 10.0), moment=Moment(0.5, 0.5, 1.5))
    assert torch.equal(video.tensor, next(models["video"].read("video", (frames[5:15], 10.0))).tensor)


def test_all_channels_of_a_sound_may_be_heard(models):
    samples = rule.waveform(3, 16000, 3, 2).T
    first, mix = (next(models["audio"].read("audio", (samples, 16000), channels=channels)).tensor for channels in ("first", "mix"))
    assert torch.equal(first, next(models["audio"].read("audio", (samples, 16000))).tensor)
    assert (first - mix).abs().max() > 0.01
    with pytest.raises(OptionError, match="channels is 'loudest', which no reader heeds"):
        list(reading.read_stretches((samples, 16000), models["audio"].config("audio"), AudioOptions(channels="loudest")))


MODES = ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["image", "thermal_lora"])
def test_pictures_on_which_the_published_code_fails_are_read_and_noted(models, case, mode, tmp_path):
    picture = Image.fromarray(rule.picture(3, 240, 260))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        expected = Image.fromarray((np.asarray(picture) // 256).astype(np.uint8)).convert("RGB")
    else:
        picture = picture.convert(mode)
        expected = picture.convert("RGB")
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    picture.save(path)
    modality = rule.CASES[case]["modality"]
    (sample,) = models[case].read(modality, str(path))
    (same,) = models[case].read(modality, np.asarray(expected))
    assert torch.equal(sample.tensor, same.tensor)
    assert "the published code fails" in " ".join(sample.notes)
    assert f"mode {mode} " in sample.notes[0]
    assert same.notes == ()


def test_a_picture_on_its_side_is_turned_and_it_is_noted(models, tmp_path):
    pixels = rule.picture(3, 240, 300)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "lying.png", exif=exif)
    (sample,) = models["image"].read("image", str(tmp_path / "lying.png"))
    (upright,) = models["image"].read("image", np.ascontiguousarray(np.rot90(pixels, -1)))
    assert torch.equal(sample.tensor, upright.tensor)
    assert "EXIF" in sample.notes[0]


def test_a_picture_in_memory_is_left_as_it_is(models):
    picture = Image.fromarray(rule.picture(3, 240, 300))
    exif = picture.getexif()
    exif[274] = 6
    (sample,) = models["image"].read("image", picture)
    assert picture.size == (300, 240)
    assert sample.tensor.shape == (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((30, 40), np.uint16), {}, "no pixel has a depth"),
        (np.full((30, 40), 9, np.uint8), {}, "8-bit"),
        (np.full((30, 40), 9.0), {"depth_format": "disparity"}, "disparity"),
    ],
)
def test_what_is_not_metric_depth_is_refused(models, values, options, reason):
    with pytest.raises(ValueError, match=reason):
        list(models["depth_lora"].read("depth", values, **options))


def test_depth_beyond_the_largest_and_pixels_without_any_are_cut(models):
    metres = np.full((224, 224), 20.0, np.float32)
    metres[0, 0], metres[0, 1], metres[0, 2] = np.nan, 0.0, -1.0
    (sample,) = models["depth_lora"].read("depth", metres)
    config = models["depth_lora"].config("depth")
    values = sample.tensor[0, 0] * config.std[0] + config.mean[0]
    assert values[5, 5].item() == pytest.approx(1, abs=1e-6)
    assert values[0, :3].tolist() == pytest.approx([0.001] * 3, abs=1e-6)
    assert any("most pixels lie beyond 10 m" in note for note in sample.notes)


@pytest.mark.parametrize("case", [case for case in PREPROCESS["end_to_end"]])
def test_files_become_the_published_vectors(models, case, tmp_path):
    Image.fromarray(rule.picture(700, 333, 500)).save(tmp_path / "picture_700.png")
    Image.fromarray(rule.depth_map(701, 480, 640)).save(tmp_path / "depth_701.png")
    soundfile.write(tmp_path / "sound_702.wav", rule.waveform(702, 44100, 5), 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "sound_703.wav", rule.waveform(703, 16000, 25), 16000, subtype="FLOAT")
    frames = np.stack([rule.picture(704000 + t, 240, 320) for t in range(40)]) if case.startswith("video") else None
    sources = [tmp_path / name for name in PREPROCESS["end_to_end"][case]] if frames is None else [(frames, 25.0)]
    vectors = models[case].embed(rule.CASES[case]["modality"], sources)
    assert np.abs(vectors - SLICES[f"end_to_end.{case}"]).max() <= 2e-6


# What a tower takes


@pytest.mark.parametrize(
    ("case", "modality", "reason"),
    [
        ("image", "video", "takes image, not video"),
        ("image", "vision", "takes image, not vision"),
        ("video", "image", "takes video, not image"),
        ("audio", "image", "no vision encoder"),
        ("audio", "imu", "no imu encoder"),
    ],
)
def test_an_input_that_a_model_does_not_take_is_refused(models, case, modality, reason):
    with pytest.raises(UserError, match=reason):
        models[case].read(modality, "x")


@pytest.mark.parametrize(
    ("case", "modality", "option"),
    [
        ("video", "video", {"clips": 3}),
        ("video", "video", {"resize": "recent"}),
        ("audio", "audio", {"clips": 3}),
        ("depth_lora", "depth", {"fill": "far"}),
        ("thermal_lora", "thermal", {"palette": "iron"}),
    ],
)
def test_an_option_without_meaning_here_is_refused(models, case, modality, option):
    with pytest.raises(OptionError, match=next(iter(option))):
        models[case].read(modality, "x", **option)


def test_imagebind_does_not_take_the_option_of_this_family(tiny):
    with pytest.raises(OptionError, match="resize"):
        tiny.read("image", "x", resize="recent")


def test_one_scale_counts_that_of_what_is_not_text():
    def made(modality, scale, family="languagebind"):
        return {"modality": modality, "scale": scale, "family": family}

    assert pair_scale(made("image", 30.0), made("text", 20.0)) == 30
    assert pair_scale(made("text", 20.0), made("video", 30.0)) == 30
    assert pair_scale(made("audio", 25.0), made("video", 30.0)) == 25
    assert pair_scale(made("image", 1.0, "imagebind"), made("text", 20.0, "imagebind")) == 20
    assert pair_scale(made("text", 20.0, "imagebind"), made("image", 1.0, "imagebind")) == 20
    assert pair_scale(made("audio", 25.0, "imagebind"), made("text", 20.0, "imagebind")) == 25
    assert pair_scale(made("image", 1.0, "imagebind"), made("image", 1.0, "imagebind")) == 1


def test_published_models_are_nine_under_one_licence():
    assert [name.removeprefix("languagebind-") for name in languagebind.PUBLICATIONS] == [
        "image", "video", "video-ft", "video-lora", "video-huge", "audio", "audio-lora", "depth", "thermal",
    ]  # fmt: skip
    for publication in languagebind.PUBLICATIONS.values():
        assert publication.address.startswith("hf://LanguageBind/LanguageBind_")
        assert publication.licence == "MIT (as stated by its authors)"


def test_samples_are_drawn_as_the_encoder_sees_them(models):
    samples = rule.waveform(3, 16000, 25).T
    (sample,) = models["audio"].read("audio", (samples, 16000))
    sheet = draw(sample, "audio", models["audio"].config("audio"))
    assert sheet.height > 3 * 2 * 112
    assert len(set(np.asarray(sheet.convert("L")).ravel().tolist())) > 100
    (sample,) = models["audio"].read("text", "hello!")
    assert draw(sample, "text", models["audio"].config("text")).height < 60


# Commands


def media(modality, folder):
    folder.mkdir(exist_ok=True)
    name = {"image": "picture.png", "thermal": "grey.png", "depth": "depth.png", "audio": "sound.wav", "video": "film.mkv"}[modality]
    if modality == "video":
        return generate.video(folder / name, seconds=1, rate=10)
    if modality == "audio":
        soundfile.write(folder / name, rule.waveform(3, 16000, 1), 16000)
    elif modality == "depth":
        Image.fromarray(rule.depth_map(3, 60, 80)).save(folder / name)
    else:
        picture = Image.fromarray(rule.picture(3, 60, 80))
        (picture.convert("L") if modality == "thermal" else picture).save(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("case", "modality"),
    [("image", "image"), ("video_v15", "video"), ("audio_lora", "audio"), ("depth_lora", "depth"), ("thermal_lora", "thermal")],
)
def test_the_commands_take_a_model_folder(imagebind, models, case, modality, tmp_path):
    folder = rule.folder(tmp_path / "model", case)
    path = media(modality, tmp_path / "media")
    expected = models[case].embed(modality, [path])
    run = imagebind("embed", modality, path, "--model", folder, "--device", "cpu")
    assert run.code == 0
    assert np.abs(run.vectors - expected).max() <= 1e-6
    if modality == "thermal":
        assert "the published code fails" in run.err
    file = imagebind("embed", modality, path, "--model", folder / "pytorch_model.bin", "--device", "cpu")
    assert np.array_equal(file.vectors, run.vectors)

    text = imagebind("embed", "text", "a dog", "--model", folder, "--device", "cpu")
    assert text.code == 0
    assert np.abs(text.vectors - models[case].embed("text", ["a dog"])).max() <= 1e-6

    store, shards = tmp_path / "vectors.store", tmp_path / "prepared.tar"
    assert imagebind("embed", modality, path, "--model", folder, "--device", "cpu", "-o", store).code == 0
    assert open_store(store).provenance["family"] == "languagebind"
    found = imagebind("retrieve", store, "--text", "a dog", "--model", folder, "--device", "cpu")
    assert found.ids == [str(path)], found.err
    assert imagebind("preprocess", modality, path, "--model", folder, "-o", shards).code == 0
    prepared = imagebind("embed", modality, shards, "--model", folder, "--device", "cpu")
    assert prepared.code == 0, prepared.err
    assert np.abs(prepared.vectors - expected).max() <= 1e-6
    refused = imagebind("embed", modality, shards, "--model", "tiny", "--device", "cpu")
    assert refused.code == 1
    assert "languagebind" in refused.err


@pytest.mark.parametrize(("case", "modality"), [("image", "video"), ("video", "image")])
def test_a_tower_of_pictures_and_one_of_videos_refuse_each_others_inputs_in_one_line(imagebind, case, modality, tmp_path):
    folder = rule.folder(tmp_path / "model", case)
    run = imagebind("embed", modality, media(modality, tmp_path / "media"), "--model", folder, "--device", "cpu")
    assert run.code == 1
    assert len(run.notices) == 1
    assert f"not {modality}" in run.notices[0]


def test_the_flag_of_resizing_is_taken(imagebind, tmp_path):
    folder, path = rule.folder(tmp_path / "model", "image"), media("image", tmp_path / "media")
    pinned, recent = (
        imagebind("embed", "image", path, "--model", folder, "--device", "cpu", *flag).vectors for flag in ((), ("--resize", "recent"))
    )
    assert np.abs(pinned - recent).max() > 1e-6
    assert imagebind("embed", "image", path, "--model", "tiny", "--device", "cpu", "--resize", "recent").code == 2


def test_a_missing_config_is_one_line(imagebind, tmp_path):
    folder = rule.folder(tmp_path / "model", "image")
    Path(folder / "config.json").unlink()
    run = imagebind("embed", "image", "x.png", "--model", folder, "--device", "cpu")
    assert run.code == 1
    assert "config.json" in run.notices[0]
    assert len(run.notices) == 1


def test_every_place_of_a_third_is_one_that_a_stretch_can_begin_at():
    for frames, most in itertools.product(range(1, 60), (1, 7, 20)):
        places = reading.stretch_places(frames, most)
        assert all(0 <= place <= max(frames - most, 0) for place in places)


def test_regions_are_arrays_cut_by_hand(models):
    pixels, depth = rule.picture(1, 300, 400), rule.depth_map(1, 120, 160)
    depth[10, 20] = depth.max()  # the farthest of the whole map is in the region, too
    for case, modality, whole in (("image", "image", pixels), ("thermal_lora", "thermal", pixels), ("depth_lora", "depth", depth)):
        (sample,) = models[case].read(modality, Regions(whole, [[20, 10, 70, 90], [0, 0, 50, 50]]))
        assert [region["box"] for region in sample.regions] == [[20, 10, 70, 90], [0, 0, 50, 50]]
        (by_hand,) = models[case].read(modality, whole[10:100, 20:90])
        assert torch.equal(sample.tensor[:1], by_hand.tensor)
        assert len(next(models[case].read(modality, whole, tiles="1/2")).regions) >= 15
