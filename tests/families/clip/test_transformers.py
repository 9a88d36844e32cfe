"""CLIP in transformers' layout, against transformers' own model on small random configs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import imagebind_cli as ib
from imagebind_cli.encoders.text import END, START, _vocabulary
from imagebind_cli.errors import UserError
from imagebind_cli.families.clip.transformers import transformers_rows
from imagebind_cli.weights import download
from imagebind_cli.weights.foreign_config import read_config
from tests.conftest import Run
from tests.generate import pixels
from tests.later import Later
from tests.site import Site, offer, serve

transformers = Later("transformers")

VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
TEXT = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2}
SENTENCES = ["a dog", "two birds on a wire, seen from below", "", "Ünïcödé & 'quotes' 12,345"]


def random_clip(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **top: Any) -> transformers.CLIPModel:
    """Build transformers' model with every tensor random: fresh biases and norms are 0 and 1, which would hide a mistake."""
    config = transformers.CLIPConfig(
        vision_config=VISION | (vision or {}), text_config=TEXT | (text or {}), **{"projection_dim": 24, **top}
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.randn_like(tensor) * (0.3 if tensor.dim() < 2 or "projection" in name else 0.05))
        model.logit_scale.fill_(3.5)
    return model


def tokens(sentences: list[str] = SENTENCES, context: int = 77) -> torch.Tensor:
    return torch.cat([sample.tensor for text in sentences for sample in ib.load("tiny", device="cpu").read("text", text)])[:, :context]


def compare(folder: Path | str, theirs: transformers.CLIPModel) -> None:
    """Assert that both towers give transformers' vectors."""
    ours = ib.load(folder, device="cpu")
    size = theirs.config.vision_config.image_size
    pictures = torch.randn(3, 3, size, size)
    ids = tokens()
    with torch.no_grad():
        seen = theirs(input_ids=ids, pixel_values=pictures)
    assert (ours.encode("image", pictures) - seen.image_embeds).abs().max() < 1e-5
    assert (ours.encode("text", ids) - seen.text_embeds).abs().max() < 1e-5
    assert ours.scale("text") == pytest.approx(math.exp(3.5), rel=1e-6)
    assert ours.checkpoint.config.family == "clip"


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of config.json: `vision`, `text`, or of the top."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for key, value in changes.items():
        if key in ("vision", "text"):
            values[f"{key}_config"] |= value
        else:
            values[key] = value
    path.write_text(json.dumps(values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as `save_pretrained` writes it."""
    random_clip().save_pretrained(tmp_path / "clip-small")
    return tmp_path / "clip-small"


@pytest.mark.parametrize(
    ("vision", "text"),
    [
        ({}, {}),
        ({"hidden_act": "gelu", "layer_norm_eps": 1e-3}, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-2, "eos_token_id": 2}),
        ({"image_size": 64, "patch_size": 16, "num_attention_heads": 3, "intermediate_size": 47}, {"intermediate_size": 83}),
        ({"hidden_size": 132, "intermediate_size": 576, "num_attention_heads": 11}, {"hidden_act": "gelu_pytorch_tanh"}),
    ],
    ids=["plain", "activations_and_eps", "shapes", "ratio_that_rounds_down"],
)
def test_both_towers_are_exact(vision: dict[str, Any], text: dict[str, Any], tmp_path: Path) -> None:
    theirs = random_clip(vision, text)
    theirs.save_pretrained(tmp_path)
    compare(tmp_path, theirs)


def test_old_pickles_with_counters_of_positions(tmp_path: Path) -> None:
    theirs = random_clip()
    theirs.config.save_pretrained(tmp_path)
    tensors = dict(theirs.state_dict())
    for tower, places in (("vision", 17), ("text", 77)):
        tensors[f"{tower}_model.embeddings.position_ids"] = torch.arange(places)[None]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    torch.save({"step": torch.zeros(())}, tmp_path / "optimizer.bin")  # comes first by its name
    compare(tmp_path, theirs)
    compare(tmp_path / "pytorch_model.bin", theirs)


def test_fields_that_are_missing_have_transformers_defaults(tmp_path: Path) -> None:
    """OpenAI's model of 32-pixel patches, whose config.json may leave out every size."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    ours, theirs = read_config(tmp_path / "config.json"), transformers.CLIPConfig()
    for name, tower in (("vision", theirs.vision_config), ("text", theirs.text_config)):
        trunk = ours.encoders[name].trunk
        sizes = tower.hidden_size, tower.num_hidden_layers, tower.num_attention_heads, tower.hidden_act, tower.layer_norm_eps
        assert (trunk.width, trunk.layers, trunk.heads, trunk.activation, trunk.norm_eps) == sizes
        assert trunk.mlp * trunk.width == tower.intermediate_size
        assert ours.encoders[name].dim == theirs.projection_dim
    assert ours.encoders["vision"].shape == (3, 2, 224, 224)
    assert ours.encoders["vision"].patch == (2, 32, 32)
    assert (ours.encoders["text"].shape, ours.encoders["text"].vocabulary) == ((77,), 49408)
    assert math.log(ours.encoders["text"].scale or 0) == pytest.approx(theirs.logit_scale_init_value)


@pytest.mark.parametrize("kept", [{"hidden_act": "gelu"}, {}], ids=["repeated", "left_out"])
def test_an_older_second_table_wins_with_its_defaults(folder: Path, kept: dict[str, str]) -> None:
    edit(folder, vision={"hidden_act": "gelu"}, vision_config_dict=VISION | kept)
    loaded = transformers.CLIPModel.from_pretrained(folder).eval()
    assert loaded.config.vision_config.hidden_act == (kept.get("hidden_act") or "quick_gelu")
    compare(folder, loaded)


def test_parts_of_a_large_model(tmp_path: Path) -> None:
    theirs = random_clip()
    theirs.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    compare(tmp_path, theirs)
    assert ib.load(tmp_path, device="cpu").checkpoint.place == str(tmp_path)


def shards(folder: Path) -> tuple[Path, dict[str, Any]]:
    random_clip().save_pretrained(folder, max_shard_size="500KB")
    index = folder / "model.safetensors.index.json"
    return index, json.loads(index.read_text())


@pytest.mark.parametrize("name", ["../{part}", "/etc/passwd", "sub/{part}", "", 3, "config.json"])
def test_a_list_of_parts_stays_in_its_folder(tmp_path: Path, name: Any) -> None:
    index, values = shards(tmp_path / "model")
    part = sorted(set(values["weight_map"].values()))[0]
    (tmp_path / part).write_bytes((tmp_path / "model" / part).read_bytes())
    name = name.replace("{part}", part) if isinstance(name, str) else name
    values["weight_map"] = {key: name if place == part else place for key, place in values["weight_map"].items()}
    index.write_text(json.dumps(values))
    with pytest.raises(UserError, match="is not the name of a weight file in this folder"):
        ib.load(tmp_path / "model", device="cpu")


def test_a_list_of_parts_and_the_parts_must_agree(tmp_path: Path) -> None:
    index, values = shards(tmp_path)
    key, place = next(iter(values["weight_map"].items()))
    for change, reason in (
        ({**values["weight_map"], "text_model.more.weight": place}, r"text_model\.more\.weight is missing"),
        ({name: file for name, file in values["weight_map"].items() if name != key}, rf"holds {key}, which .* does not list"),
        ([], "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": change}))
        with pytest.raises(UserError, match=reason):
            ib.load(tmp_path, device="cpu")
    index.write_text(json.dumps(values))
    (tmp_path / place).unlink()
    with pytest.raises(UserError, match=f"{place} is missing"):
        ib.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "siglip"}, "model_type 'siglip'"),
        ({"vision": {"hidden_act": "relu"}}, "vision_config.hidden_act 'relu'"),
        ({"vision": {"num_channels": 4}}, "vision_config.num_channels 4"),
        ({"vision": {"image_size": [56, 84]}}, r"vision_config.image_size \[56, 84\]"),
        ({"vision": {"add_time_attn": True}}, "vision_config.add_time_attn = True"),
        ({"vision": {"model_type": "siglip_vision_model"}}, "vision_config.model_type 'siglip_vision_model'"),
        ({"text": {"eos_token_id": 7}}, "text_config.eos_token_id 7"),
        ({"text": {"hidden_size": "wide"}}, "config.json"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"projection_dim": 25}, r"visual_projection.weight has shape \(24, 48\); the config says \(25, 48\)"),
    ],
)
def test_what_is_not_understood_is_named(folder: Path, changes: dict[str, Any], named: str) -> None:
    edit(folder, **changes)
    with pytest.raises(UserError, match=named) as caught:
        ib.load(folder, device="cpu", modalities=["image"])
    assert "\n" not in str(caught.value)


def test_weights_without_their_config_are_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"need their config\.json beside them, or --config"):
        ib.load(folder, device="cpu")


def test_a_small_vocabulary_reads_no_sentences(tmp_path: Path) -> None:
    theirs = random_clip(text={"vocab_size": 100, "eos_token_id": 99})
    theirs.save_pretrained(tmp_path)
    ours, ids = ib.load(tmp_path, device="cpu"), torch.tensor([[98, 5, 6, 99, 99], [98, 7, 99, 0, 0]])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(theirs.get_text_features(ids).pooler_output, dim=-1)
    padded = torch.nn.functional.pad(ids, (0, 72))
    assert (ours.encode("text", padded) - expected).abs().max() < 1e-5
    with pytest.raises(UserError, match="the vocabulary of this text encoder has 100 tokens"):
        ours.embed("text", ["a dog"])


# Preprocessing


def test_pictures_and_sentences_are_prepared_as_by_transformers(folder: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    edge = {"height": 56, "width": 56}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=edge, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])
    processor.save_pretrained(folder)
    ours = ib.load(folder, device="cpu")
    assert (ours.config("image").mean, ours.config("image").std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    for seed, size in enumerate([(56, 56), (112, 80), (50, 73), (300, 97)]):
        picture = Image.fromarray(pixels(seed, size))
        expected = processor(picture, return_tensors="pt")["pixel_values"]
        (sample,) = ours.read("image", picture)
        assert (sample.tensor - expected).abs().max() < 1e-5, size

    ranks, ids = _vocabulary()
    words = [word for word, _ in sorted({**ids, "<|startoftext|>": START, "<|endoftext|>": END}.items(), key=lambda entry: entry[1])]
    tokenizer = transformers.CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[*ranks])
    expected = tokenizer(SENTENCES, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    for text, mine, row, mask in zip(SENTENCES, tokens(), expected["input_ids"], expected["attention_mask"], strict=True):
        length = int(mask.sum())
        assert mine[:length].tolist() == row[:length].tolist(), text
        assert not mine[length:].any()


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_constants_of_pictures_are_read_from_either_file(folder: Path, name: str) -> None:
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "size": 56, "crop_size": 56, "resample": 3}
    (folder / name).write_text(json.dumps(values if name.startswith("pre") else {"image_processor": values}))
    config = ib.load(folder, device="cpu").config("image")
    assert (config.mean, config.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_center_crop": False}, "do_center_crop False"),
        ({"do_normalize": False}, "do_normalize False"),
        ({"resample": 2}, "resample 2"),
        ({"rescale_factor": 1.0}, r"rescale_factor 1\.0"),
        ({"size": {"height": 56, "width": 56}}, "size {'height': 56, 'width': 56}"),
        ({"size": {"shortest_edge": 64}}, "size {'shortest_edge': 64}"),
        ({"crop_size": {"height": 56, "width": 48}}, "crop_size {'height': 56, 'width': 48}"),
        ({"image_processor_type": "ViTImageProcessor"}, "ViTImageProcessor"),
        ({"image_mean": [0.5]}, r"image_mean \[0\.5\]"),
    ],
)
def test_pictures_prepared_in_another_way_are_refused(folder: Path, change: dict[str, Any], named: str) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(change))
    with pytest.raises(UserError, match=named) as caught:
        ib.load(folder, device="cpu")
    assert "preprocessor_config.json" in str(caught.value)


# Fetching


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    import huggingface_hub
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for site in serve():
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        yield site
    huggingface_hub.close_session()


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickle"])
def test_pulled_from_the_hub_it_embeds_pictures_and_text(hub: Site, imagebind: Run, tmp_path: Path, pickled: bool) -> None:
    theirs = random_clip()
    theirs.save_pretrained(tmp_path / "theirs")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    files |= {"flax_model.msgpack": b"0" * 2000, "tf_model.h5": b"0" * 2000, "training_args.bin": b"PK" + b"0" * 2000, "merges.txt": b"a b"}
    if pickled:
        del files["model.safetensors"]
    offer(hub, files, repository="openai/clip-vit-base-patch32")
    address = "hf://openai/clip-vit-base-patch32"
    missing = imagebind("embed", "text", "a dog", "--model", address)
    assert missing.code == 1
    assert f"fetch it with: imagebind weights pull {address}" in missing.err
    assert imagebind("weights", "pull", address).code == 0
    weights = "pytorch_model.bin" if pickled else "model.safetensors"
    taken = {path.name for path in download.folder_of(address).iterdir()}
    assert taken == {weights, "config.json", "merges.txt", "origin.json"} | ({"generation_config.json"} & files.keys())
    compare(address, theirs)
    Image.fromarray(pixels(3, (80, 60))).save(tmp_path / "a.png")
    run = imagebind("embed", "image", tmp_path / "a.png", "--model", address)
    assert run.code == 0, run.err
    assert np.linalg.norm(run.vectors) == pytest.approx(1, abs=1e-5)
    assert imagebind("weights", "verify", address).out.decode().startswith("openai--clip-vit-base-patch32 (clip): ")
    assert " clip " in next(line for line in imagebind("weights", "list").out.decode().splitlines() if address in line)


def test_the_rows_of_a_tower_have_every_place_filled() -> None:
    for encoder, kernel in (("vision", "two_frames"), ("depth", "one_frame"), ("text", "")):
        rows = transformers_rows(encoder, kernel)
        assert not {"{theirs}", "{ours}", "{kernel}"} & set(rows.replace("{", " {").split())
        assert f"{encoder}.stem.pos" in rows
