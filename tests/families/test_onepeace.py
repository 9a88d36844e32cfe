"""ONE-PEACE, equal to the published code: its three encoders, both layouts of its files, its preprocessing, and what it refuses."""

from __future__ import annotations

import json
import math
import mmap
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from PIL import Image
from torch.nn import functional as F

import imagebind_cli as ib
from imagebind_cli import registry
from imagebind_cli.errors import OptionError, UserError
from imagebind_cli.families import onepeace
from imagebind_cli.families.onepeace import reading
from imagebind_cli.media.windows import Moment
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.sources import Regions, Stretch
from imagebind_cli.training.plan import make_plan
from imagebind_cli.training.recipe import PairRecipe, Recipe
from imagebind_cli.transformer import mlp_ratio, relative_numbers
from imagebind_cli.weights import checkpoint, tensor_files, tensor_names
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.foreign_config import ForeignConfig
from tests.conftest import Run
from tests.families import onepeace_rule as rule

OUTPUTS = dict(np.load(rule.DATA / "model_seed11.npz"))
PREPROCESS = json.loads((rule.DATA / "preprocess.json").read_text())
PREPARED = dict(np.load(rule.DATA / "preprocess.npz"))
SOUNDS = {name: made for name, made in PREPROCESS["sounds"].items() if "made" in made}  # the others are of recordings that are not here
PICTURES = [name for name in PREPROCESS["pictures"] if not name.endswith("_image")]
INPUTS = rule.inputs()
FILES = Path(__file__).parents[2] / "recipes" / "families"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rule.write_released(tmp_path_factory.mktemp("released") / "one-peace.pt")


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rule.write_finetuned(tmp_path_factory.mktemp("finetuned") / "finetune_al_retrieval.pt")


@pytest.fixture(scope="module")
def model(released: Path) -> ib.Model:
    return ib.load(released, device="cpu")


def encoder_of(name: str) -> str:
    return {"image": "vision"}.get(name.partition("_")[0], name.partition("_")[0])


def texts(model: ib.Model) -> torch.Tensor:
    return torch.cat([next(model.read("text", text)).tensor for text in rule.META["texts"]])


def recorded(name: str) -> np.ndarray:
    return OUTPUTS[f"{name}.unit"]


# The encoders


def test_token_ids_are_the_published_ones(model: ib.Model) -> None:
    assert np.array_equal(texts(model).numpy(), OUTPUTS["text.tokens"])


@pytest.mark.parametrize("name", [*INPUTS, "text"])
def test_vectors_are_the_published_ones(model: ib.Model, name: str) -> None:
    given = texts(model) if name == "text" else INPUTS[name]
    assert np.abs(model.encode(encoder_of(name), given).numpy() - recorded(name)).max() <= 1e-6


@pytest.mark.parametrize("name", ["audio_16000", "audio_20000", "audio_192000", "text"])
def test_vectors_of_the_finetuned_layout_are_the_published_ones(finetuned: Path, name: str) -> None:
    model = ib.load(finetuned, device="cpu")
    given = texts(model) if name == "text" else INPUTS[name]
    assert len(model.encoder(encoder_of(name)).trunk.tables) == 3
    assert np.abs(model.encode(encoder_of(name), given).numpy() - recorded(f"finetuned.{name}")).max() <= 1e-6


@pytest.mark.parametrize("name", [*INPUTS, "text"])
def test_every_step_is_the_published_one(model: ib.Model, name: str) -> None:
    """What enters the trunk, the bias by relative position, the class token after every block, after the last norm, and projected."""
    encoder = model.encoder(encoder_of(name))
    given = texts(model)[-1:] if name == "text" else INPUTS[name]  # the longest text, which alone has no padding in the published batch
    chosen = slice(-1, None) if name == "text" else slice(None)
    seen = []
    hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output[:, 0])) for block in encoder.trunk.blocks]
    with torch.inference_mode():
        tokens = encoder.stem(given)
        last = encoder.trunk(tokens)[:, 0]
        normed, raw = encoder.head.norm(last), encoder.head(last)
        bias = next(encoder.trunk.relative_biases(tokens.shape[1]))[0]
    for hook in hooks:
        hook.remove()
    count = tokens.shape[1]
    close = dict(atol=1e-5, rtol=0)
    np.testing.assert_allclose(tokens[:, [0, 1, 2, 3, -2, -1]], OUTPUTS[f"{name}.adapter"][chosen], **close)
    np.testing.assert_array_equal(bias[:, [0, 1, 2, -1]][:, :, [0, 1, 2, 3, count // 2, -2, -1]], OUTPUTS[f"{name}.bias"])
    np.testing.assert_allclose(torch.stack(seen), OUTPUTS[f"{name}.cls"][:, chosen], **close)
    np.testing.assert_allclose(normed, OUTPUTS[f"{name}.normed"][chosen], **close)
    np.testing.assert_allclose(raw, OUTPUTS[f"{name}.raw"][chosen], **close)


def test_a_padded_batch_of_sounds_is_never_made(model: ib.Model) -> None:
    padded = OUTPUTS["audio_batch.unit"]
    assert np.abs(padded[0] - recorded("audio_16000")[0]).max() > 1e-3  # what padding costs
    sounds = [rule.waveform(seconds, 16_000, seed) for seed, seconds in enumerate((1.0, 2.5, 1.0, 3.0, 3.0))]
    together = model.embed("audio", sounds, batch_size=8)
    alone = np.concatenate([model.embed("audio", [sound]) for sound in sounds])
    assert np.abs(together - alone).max() <= 1e-6


def test_texts_of_any_length_together_are_those_alone(model: ib.Model) -> None:
    together = model.embed("text", PREPROCESS["texts"])
    alone = np.concatenate([model.embed("text", [text]) for text in PREPROCESS["texts"]])
    assert np.abs(together - alone).max() <= 1e-6


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_token_ids_stay_whole_numbers_in_half_precision(released: Path, dtype: str) -> None:
    half = ib.load(released, device="cpu", dtype=dtype)
    for name in ("image", "text", "audio_20000"):
        given = texts(half) if name == "text" else INPUTS[name]
        cosines = (half.encode(encoder_of(name), given).numpy() * recorded(name)).sum(axis=1)
        assert cosines.min() >= (0.9998 if dtype == "bf16" else 0.999995)
    assert half.encoder("text").log_scale.dtype == torch.float32


def test_the_temperature_is_that_of_the_file_or_clips_first(model: ib.Model) -> None:
    assert model.scale("text") == model.scale("audio") == pytest.approx(1 / 0.07, rel=1e-6)
    tensors = rule.weights(rule.META[rule.FINETUNED]) | {"logit_scale": torch.tensor(math.log(33.0))}
    assert ib.load(tensors, device="cpu").scale("text") == pytest.approx(33.0, rel=1e-6)


def test_numbers_of_positions_that_were_made_for_inference_can_be_trained_with(model: ib.Model) -> None:
    encoder = model.encoder("audio")
    encoder(INPUTS["audio_16000"]).sum().backward()
    assert encoder.trunk.tables[0].grad is not None
    encoder.zero_grad()
    assert relative_numbers("line", 512, 50).data_ptr() == relative_numbers("line", 512, 1024).data_ptr()  # one table for all lengths


def test_sounds_of_their_own_length_are_not_trained_with(released: Path) -> None:
    recipe = Recipe(model=str(released), pairs=(PairRecipe(modalities=("text", "audio"), data=("rows.jsonl",)),))
    with pytest.raises(UserError, match="its audio encoder takes inputs of their own length, which cannot be batched in training"):
        make_plan(recipe)


# The preprocessing


@pytest.mark.parametrize("number", range(len(PREPROCESS["texts"])))
def test_every_text_has_the_published_ids(model: ib.Model, number: int) -> None:
    (sample,) = model.read("text", PREPROCESS["texts"][number])
    ids, wanted = sample.tensor[0].tolist(), PREPARED[f"text_{number}"].tolist()
    assert ids == wanted + [1] * (71 - len(wanted))
    assert [warning for warning in sample.warnings if "cut to the first 70" in warning] == list(sample.warnings)
    assert bool(sample.warnings) == (sample.facts["tokens"] > 70)


def test_a_long_text_is_cut_averaged_or_refused(model: ib.Model) -> None:
    long = " ".join(f"word{number}" for number in range(120))
    (windows,) = model.read("text", long, long_text="window")
    assert windows.tensor.shape == (-(-windows.facts["tokens"] // 70), 71)
    with pytest.raises(ValueError, match="70 fit"):
        next(model.read("text", long, long_text="error"))


def sound_file(name: str, folder: Path) -> Path:
    made = SOUNDS[name]["made"]
    channels = [
        rule.waveform(made["seconds"], made["rate"], made["seed"] + 100 * channel) * np.float32(made["gain"] / (1 + channel))
        for channel in range(made["channels"])
    ]
    path = folder / f"{name}.wav"
    soundfile.write(path, np.stack(channels, axis=1) + np.float32(made["offset"]), made["rate"], subtype="FLOAT")
    return path


@pytest.mark.parametrize("name", SOUNDS)
def test_every_sound_has_the_published_waveform_and_vector(model: ib.Model, tmp_path: Path, name: str) -> None:
    path = sound_file(name, tmp_path)
    (sample,) = model.read("audio", path)
    waveform = sample.tensor[0].numpy()
    count = len(waveform)
    places = [0, count // 3 - 150, count // 2 - 150, 2 * count // 3 - 150, count - 300]
    slices = np.stack([waveform[max(place, 0) :][:300] for place in places])
    assert count == SOUNDS[name]["samples"]
    assert np.abs(slices - PREPARED[name]).max() <= 1e-6
    assert waveform.mean() == pytest.approx(SOUNDS[name]["mean"], abs=1e-6)
    assert waveform.std() == pytest.approx(SOUNDS[name]["std"], abs=1e-6)
    assert bool(sample.warnings) == (SOUNDS[name]["made"]["seconds"] > 15)
    assert any("repeated" in note for note in sample.notes) == (SOUNDS[name]["made"]["seconds"] < 1)
    assert any("channels are mixed" in note for note in sample.notes) == (SOUNDS[name]["made"]["channels"] > 1)
    assert np.abs(model.embed("audio", [path])[0] - PREPARED[f"{name}.unit"]).max() <= 1e-5


def test_a_long_sound_is_normalised_as_a_whole(model: ib.Model) -> None:
    (sample,) = model.read("audio", rule.waveform(40, 16_000, 7))
    slices = np.stack([sample.tensor[0, place : place + 300] for place in (0, 79_850, 119_850, 159_850, 239_700)])
    assert np.abs(slices - PREPARED["eval_sound_40s"]).max() <= 1e-6


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 15_999])
@pytest.mark.parametrize("block", [reading.BLOCK, 1_000])
def test_a_sound_resampled_in_blocks_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch, rate: int, block: int) -> None:
    monkeypatch.setattr(reading, "BLOCK", block)
    sound = rule.waveform(1.37, rate, 3)
    whole = soxr.resample(sound, rate, 16_000, quality="HQ")
    ours = np.concatenate(list(reading._mono(reading.open_sound((sound, rate), None))))
    wanted = math.ceil(len(sound) * (16_000 / rate))
    assert len(ours) == wanted
    assert np.array_equal(ours[: len(whole)], whole[:wanted])
    assert not ours[len(whole) :].any()


def test_a_stretch_is_a_sound_of_its_own(model: ib.Model) -> None:
    sound = rule.waveform(6, 16_000, 1) * np.linspace(0.1, 1, 96_000, dtype=np.float32)
    (part,) = model.read("audio", Stretch((sound, 16_000), 2.0, 4.5))
    (alone,) = model.read("audio", sound[32_000:72_000])
    assert torch.equal(part.tensor, alone.tensor)
    assert part.spans == [(2.0, 4.5)]


def test_a_moment_of_a_long_sound_is_taken_after_the_whole_was_normalised(model: ib.Model) -> None:
    sound = rule.waveform(20, 16_000, 1)
    options = AudioOptions(moment=Moment(1.0))
    (last,) = reading.read_waveform(sound, model.config("audio"), options)
    assert last.spans == [(5.0, 20.0)]
    normal = (sound - sound.mean(dtype=float)) / np.sqrt(sound.var(dtype=float) + 1e-5)
    assert np.abs(last.tensor[0].numpy() - normal[80_000:]).max() <= 1e-6


def test_without_soxr_the_command_that_installs_it_is_named(model: ib.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert next(model.read("audio", rule.waveform(1, 16_000, 1))).tensor.shape == (1, 16_000)
    with pytest.raises(UserError, match=r"44100 Hz needs soxr .* pip install 'imagebind-cli\[onepeace\]'"):
        next(model.read("audio", (rule.waveform(1, 44_100, 1), 44_100)))


def picture_file(name: str, folder: Path) -> Path:
    path = folder / f"{name}.png"
    made = PREPROCESS["pictures"][name].get("made")
    if made:
        Image.fromarray(rule.picture(made["height"], made["width"], made["seed"])).save(path)
    elif name == "rgba":
        image = Image.fromarray(rule.picture(64, 80, 5)).convert("RGBA")
        image.putalpha(Image.fromarray(rule.picture(64, 80, 1)[..., 0]))
        image.save(path)
    elif name == "grey":
        Image.fromarray(rule.picture(64, 80, 6)[..., 0]).save(path)
    else:
        image = Image.fromarray(rule.picture(60, 90, 8))
        exif = image.getexif()
        exif[274] = 6  # orientation
        image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_the_published_pixels_and_vector(model: ib.Model, tmp_path: Path, name: str) -> None:
    path = picture_file(name, tmp_path)
    (sample,) = model.read("image", path)
    pixels = sample.tensor[0].numpy()
    assert np.array_equal(pixels[:, 3::8, 5::8], PREPARED[name])
    assert pixels.mean() == pytest.approx(PREPROCESS["pictures"][name]["mean"], abs=1e-6)
    assert pixels.std(ddof=1) == pytest.approx(PREPROCESS["pictures"][name]["std"], abs=1e-6)
    assert list(sample.notes) == ["EXIF orientation 6 is not applied, as published"] * (name == "turned")
    assert sample.facts["size"] == PREPROCESS["pictures"][name]["size"]
    assert np.abs(model.embed("image", [path])[0] - PREPARED[f"{name}.unit"]).max() <= 1e-5


def test_options_and_inputs_that_it_does_not_have_are_refused(model: ib.Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes image or vision, not video"):
        model.embed("video", [np.zeros((4, 32, 32, 3), np.uint8)])
    for name, value in (("channels", "mix"), ("clips", 3)):
        with pytest.raises(OptionError, match=f"audio of a onepeace model has no option '{name}'; it has track"):
            model.embed("audio", [rule.waveform(1, 16_000, 1)], **{name: value})


# The files


def test_every_published_tensor_has_a_place() -> None:
    listed = {}
    for name, (shape, kind) in json.loads((rule.DATA / "published_names.json").read_text()).items():
        for layer in range(40) if "{0..39}" in name else [0]:
            listed[name.replace("{0..39}", str(layer))] = torch.empty(shape, dtype=getattr(torch, kind), device="meta")
    found = checkpoint.from_tensors(listed, None, "one-peace.pt")
    assert len(listed) == 1393
    parameters = {
        name: sum(parameter.numel() for parameter in checkpoint.build_encoder(registry.modality(name, config), config).parameters())
        for name, config in found.config.encoders.items()
    }
    parameters["text"] += (514 - 72) * 1536  # positions of texts longer than any that is read
    biases = 40 * 1536  # of the keys, which are zeros here and not there
    published = {"vision": 1516.9, "text": 1591.6, "audio": 1532.6}
    assert {name: round((count - biases) / 1e6, 1) for name, count in parameters.items()} == published
    assert [(config.trunk.layers, config.trunk.heads, config.dim) for config in found.config.encoders.values()] == [(40, 24, 1536)] * 3
    names = onepeace.onepeace_names(found.config)
    assert sum(any(target.name.startswith("audio.") for target in tensor_names.rename(name, names)) for name in listed) == 882


def in_memory(tensor: torch.Tensor) -> int:
    """Bytes of a mapped tensor's whole pages that this process has used and not given back."""
    first, stop = -(-tensor.data_ptr() // mmap.PAGESIZE), (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(8 * first)
        pages = np.frombuffer(pagemap.read(8 * (stop - first)), np.uint64)
    return mmap.PAGESIZE * int((pages >> np.uint64(63)).sum())


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pagemap")


@linux
@pytest.mark.parametrize("encoder", ["vision", "audio"])
def test_one_encoder_is_read_without_the_others(released: Path, encoder: str) -> None:
    tensors, values = tensor_files.read_weight_file(released)
    opened = checkpoint.from_tensors(tensors, ForeignConfig(values, str(released)), str(released))
    loaded = checkpoint.load_encoder(opened, encoder, torch.device("cpu"), torch.bfloat16)
    words = tensors["encoder_wrapper.text_adapter.embed_tokens.weight"]  # 12.9 MB, most of the file
    around = 1 << 18  # what a kernel maps beside a page that is used
    assert loaded.head.proj.weight.shape == (64, 64)
    assert in_memory(words) <= around
    words.sum()
    assert in_memory(words) > words.nbytes - around


@linux
def test_pages_are_given_back_only_where_a_file_has_them(tmp_path: Path) -> None:
    path = tmp_path / "tensors.pt"
    torch.save({name: torch.arange(100_000.0) + place for place, name in enumerate(("clean", "written"))}, path)
    tensors, _ = tensor_files.read_weight_file(path)
    own = torch.arange(100_000.0)
    tensors["written"][50_000] = -1
    for name, tensor in {**tensors, "own": own}.items():
        before = tensor.sum()
        assert in_memory(tensor) > 300_000
        tensor_files.release_pages(tensor)
        assert in_memory(tensor) > 300_000 if name != "clean" else in_memory(tensor) == 0
        assert tensor.sum() == before


@linux
def test_joining_gives_the_memory_of_the_parts_back(tmp_path: Path) -> None:
    path = tmp_path / "tensors.pt"
    torch.save({name: torch.full((200, 1000), float(place)) for place, name in enumerate("qkv")}, path)
    parts = [tensor_files.read_weight_file(path)[0][name] for name in "qkv"]
    joined = tensor_files.JoinedTensors({"qkv": lambda: parts, "k": lambda: parts[1:2]})
    assert torch.equal(joined["qkv"], torch.arange(3.0).repeat_interleave(200)[:, None].expand(-1, 1000))
    assert [in_memory(part) for part in parts] == [0, 0, 0]
    assert joined["k"] is parts[1]


def test_a_finetuned_file_hears_as_long_as_it_was_trained_to(finetuned: Path) -> None:
    model = ib.load(finetuned, device="cpu")
    assert list(model.checkpoint.config.encoders) == ["text", "audio"]
    (sample,) = model.read("audio", rule.waveform(21, 16_000, 1))
    assert sample.tensor.shape == (1, 320_000)
    with pytest.raises(UserError, match="no vision encoder"):
        model.config("image")


def test_a_file_with_other_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one-peace.pt"
    torch.save({"cfg": rule.config(), "model": rule.weights(), "extra_state": {"place": Path("here")}}, path)
    with pytest.raises(UserError, match="pickled objects other than plain tensors"):
        find_checkpoint(path)


def test_tensors_of_training_alone_and_earlier_names_are_understood() -> None:
    tensors = rule.weights()
    table = tensors.pop("encoder_wrapper.text_adapter.rel_pos_table_list.0.weight")
    more = ["decoder_wrapper.fusion_model.layers.0.gamma_1", "decoder_text_embed.weight", "decoder_image_embed.bias"]
    more += ["audio_mask_token", "text_mask_head.bias", "image_mask_head.weight"]
    tensors |= {name: torch.ones(3) for name in more} | {"encoder_wrapper.text_adapter.rel_pos_table.weight": table}
    model = ib.load(tensors, device="cpu")
    assert np.abs(model.encode("text", texts(model)).numpy() - recorded("text")).max() <= 1e-6


def test_converted_weights_are_the_same(imagebind: Run, released: Path, tmp_path: Path) -> None:
    done = imagebind("weights", "convert", released, tmp_path / "converted")
    assert done.code == 0, done.err
    converted = ib.load(tmp_path / "converted", device="cpu")
    opened = find_checkpoint(released)
    assert converted.checkpoint.config.encoders == opened.config.encoders
    for name, given in INPUTS.items():
        encoder = encoder_of(name)
        assert converted.checkpoint.fingerprint(encoder) == opened.fingerprint(encoder)
        assert np.abs(converted.encode(encoder, given).numpy() - recorded(name)).max() <= 1e-6


def test_commands_take_the_file(imagebind: Run, released: Path, tmp_path: Path) -> None:
    path = sound_file("sound_3", tmp_path)
    for place in (released, released.parent):
        done = imagebind("embed", "audio", path, "--model", place, "--device", "cpu")
        assert done.code == 0, done.err
        assert np.abs(done.vectors[0] - PREPARED["sound_3.unit"]).max() <= 1e-5
    for wanted in (("-o", tmp_path / "sound.tar"), ("--preview", tmp_path / "seen")):
        done = imagebind("preprocess", "audio", path, *wanted, "--model", released)
        assert done.code == 0, done.err
    assert list((tmp_path / "seen").glob("*.png"))
    done = imagebind("embed", "audio", tmp_path / "sound.tar", "--model", released, "--device", "cpu")
    assert np.abs(done.vectors[0] - PREPARED["sound_3.unit"]).max() <= 1e-5
    (about,) = imagebind("weights", "info", released, "--json").rows
    assert about["name"] == "one-peace"
    assert about["licence"] == "Apache-2.0"


def changed(**values: object) -> dict:
    """A published config with other values; their paths have __ for dots, and None takes one away."""
    config = rule.config()
    for path, value in values.items():
        *above, last = path.split("__")
        table = config
        for key in above:
            table = table[key]
        table[last] = value
        if value is None:
            del table[last]
    return config


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("model__encoder__attention_heads", None, "cfg.model.encoder.attention_heads is missing; by the shape of .* it is 4"),
        ("model__encoder__attention_heads", 8, "cfg.model.encoder.attention_heads is 8; by the shape of .* it is 4"),
        ("model__encoder__attention_heads", "4", "cfg.model.encoder.attention_heads is '4'"),
        ("model__encoder__embed_dim", 128, "cfg.model.encoder.embed_dim is 128"),
        ("model__encoder__ffn_embed_dim", 128, "cfg.model.encoder.ffn_embed_dim is 128"),
        ("model__encoder__layers", 4, "cfg.model.encoder.layers is 4"),
        ("model__encoder__activation_fn", "relu", "cfg.model.encoder.activation_fn is 'relu'; gelu is supported"),
        ("model__encoder__audio_adapter__bucket_size", 256, "cfg.model.encoder.audio_adapter.bucket_size is 256"),
        ("model__encoder__audio_adapter__conv_pos_groups", 8, "cfg.model.encoder.audio_adapter.conv_pos_groups is 8"),
        ("model__encoder__audio_adapter__feature_encoder_spec", "[(32, 10, 5)]", "feature_encoder_spec is .*by their shapes"),
        ("model__encoder__audio_adapter__feature_encoder_spec", "open('x')", "feature_encoder_spec is .*is needed"),
        ("model__encoder__audio_adapter__feature_encoder_spec", "[(32, 10, 5)] * 10**9", "feature_encoder_spec is .*is needed"),
        ("task__patch_image_size", 384, "cfg.task.patch_image_size is 384"),
        ("task__max_duration", 30, "cfg.task.max_duration is 30; 1 to 20.48 s can be heard"),
    ],
)
def test_a_config_that_does_not_fit_its_tensors_is_one_line(tmp_path: Path, path: str, value: object, line: str) -> None:
    with pytest.raises(UserError, match=line) as error:
        checkpoint.from_tensors(rule.weights(), ForeignConfig(changed(**{path: value}), "here.pt"), "here.pt")
    assert str(error.value).startswith("here.pt: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "audio_proj.weight",
        "encoder_wrapper.image_adapter.cls_embedding",
        "encoder_wrapper.text_adapter.rel_pos_table_list.0.weight",
        "encoder_wrapper.fusion_model.layers.1.self_attn.k_proj.weight",
        "encoder_wrapper.fusion_model.layers.2.text_ffn.0.wi_1.weight",
        "encoder_wrapper.fusion_model.layers.0.self_attn.q_proj.bias",
    ],
)
def test_a_missing_tensor_is_named(name: str) -> None:
    tensors = rule.weights()
    del tensors[name]
    with pytest.raises(UserError, match=f"tensors missing: {name}"):
        ib.load(tensors, device="cpu", modalities=["text", "audio", "image"])


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(
        UserError, match=r"tensors that are not part of this model: encoder_wrapper\.fusion_model\.layers\.0\.attn_ln\.bias"
    ):
        ib.load(rule.weights() | {"encoder_wrapper.fusion_model.layers.0.attn_ln.bias": torch.zeros(64)})


def resized(name: str, shape: list[int]) -> list[int]:
    """The shape of a tensor in a model of other sizes: 96 wide, 100 hidden units, 6 heads, pictures of 20 x 20 patches."""
    sizes = {64: 96, 96: 100, 4: 6, 964: 39**2 + 3, 16: 24}
    if name.endswith(("embed_images.0.weight", "embed_images.3.weight", "embed_images.6.weight")):
        return [*(sizes.get(size, size) for size in shape[:2]), *shape[2:]]
    if re.search(r"embed_positions.\d.0.weight", name):
        return [96, 6, 18]  # an even kernel
    return [sizes.get(size, size) if name != "encoder_wrapper.image_adapter.pos_embed" or size != 257 else size for size in shape]


def test_sizes_are_read_from_the_tensors() -> None:
    shapes = {name: (resized(name, shape), kind) for name, (shape, kind) in rule.META[rule.RELEASED].items() if ".layers.2." not in name}
    tensors = rule.weights(shapes, seed=3)
    model = ib.load(tensors, device="cpu")
    vision, audio = model.config("image"), model.config("audio")
    assert (vision.shape, vision.trunk.buckets, vision.trunk.width, vision.trunk.heads, vision.trunk.layers) == (
        (3, 320, 320),
        20,
        96,
        6,
        2,
    )
    assert audio.position_convolutions == ((18, 16),) * 5
    assert model.encoder("audio").trunk.blocks[0].mlp.down.in_features == 100
    assert model.embed("audio", [rule.waveform(1.3, 16_000, 1)]).shape == (1, 96)
    assert model.embed("image", [rule.picture(40, 50, 1)]).shape == (1, 96)
    assert model.embed("text", ["a dog"]).shape == (1, 96)
    learnt = tensors["encoder_wrapper.image_adapter.pos_embed"]
    grid = F.interpolate(learnt[1:].T.reshape(1, 96, 16, 16), size=(20, 20), mode="bicubic")[0].flatten(1).T
    torch.testing.assert_close(model.encoder("image").stem.pos[0], torch.cat([learnt[:1], grid]))


@pytest.mark.parametrize(("hidden", "width"), [(96, 64), (100, 192), (6144, 1536), (15360, 1792), (49, 50), (1, 3)])
def test_a_ratio_gives_exactly_its_hidden_units(hidden: int, width: int) -> None:
    assert int(mlp_ratio(hidden, width) * width) == hidden


def test_the_packed_vocabulary_is_what_the_recipe_makes(tmp_path: Path) -> None:
    packed = FILES.parents[1] / "imagebind_cli" / "families" / "onepeace" / "vocabulary.npz"
    with np.load(packed) as vocabulary:
        merges, order = vocabulary["merges"].tobytes().decode(), vocabulary["order"].tolist()
    assert sorted(order) == list(range(50_257))
    (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (tmp_path / "dict.txt").write_text("".join(f"{number} 1\n" for number in order) + "madeupword0000 0\n", encoding="utf-8")
    again = tmp_path / "again.npz"
    subprocess.run([sys.executable, FILES / "onepeace_vocabulary.py", tmp_path, again], check=True)
    with np.load(again) as made, np.load(packed) as shipped:
        assert all(np.array_equal(made[name], shipped[name]) for name in ("merges", "order"))
    licences = packed.with_suffix(".txt").read_text()
    assert all(name in licences for name in ("OpenAI", "Facebook", "Apache License 2.0", "Permission is hereby granted"))


def test_regions_are_arrays_cut_by_hand_and_squashed(model: ib.Model, tmp_path: Path) -> None:
    pixels = rule.picture(64, 80, 5)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)  # upright it is `pixels`
    (by_hand,) = model.read("image", pixels[10:50, 20:40])
    for source in (pixels, Image.fromarray(pixels), str(tmp_path / "turned.png")):
        (sample,) = model.read("image", Regions(source, [[20, 10, 20, 40]]))
        assert torch.equal(sample.tensor, by_hand.tensor)
    with pytest.raises(UserError, match="vision has no regions"):
        list(model.read("vision", Regions(pixels, [[20, 10, 20, 40]])))
