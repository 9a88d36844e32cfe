"""A model inside sentence-transformers: it encodes, trains, is saved and loaded, and fails in one line."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import imagebind_cli as ib
from imagebind_cli.errors import UsageError
from tests import generate
from tests.later import Later, needs

sentence_transformers, losses = Later("sentence_transformers"), Later("sentence_transformers.sentence_transformer.losses")
integration = Later("imagebind_cli.integrations.sentence_transformers")
pytestmark = needs("sentence_transformers")


@pytest.fixture(scope="module")
def model():
    return ib.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def transformer():
    return sentence_transformers.SentenceTransformer(modules=[integration.ImageBindModule("tiny")], device="cpu")


def close(one, other):
    return np.abs(one - other).max() < 1e-6


def test_sentences_equal_embed(model, transformer):
    sentences = ["a dog", "rain on a tin roof at night", ""]
    vectors = transformer.encode(sentences)
    assert vectors.dtype == np.float32
    assert close(vectors[:2], model.embed("text", sentences[:2]))
    assert close(transformer.encode("a dog"), vectors[0])
    assert close(transformer.encode(["dog"], prompt="a "), vectors[:1])
    assert transformer.get_embedding_dimension() == 64
    assert transformer.max_seq_length == 77
    assert transformer.modalities == ["text", "image", "audio", "video"]


@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_paths_are_recognised(model, transformer, modality, tmp_path):
    path = generate.sample(modality, tmp_path)
    assert close(transformer.encode(path), model.embed(modality, path)[0])


def test_pictures_in_memory(model, transformer):
    pixels = generate.pixels().copy()
    expected = model.embed("image", [pixels])[0]
    for picture in (Image.fromarray(pixels), pixels, torch.from_numpy(pixels).permute(2, 0, 1), {"image": Image.fromarray(pixels)}):
        assert close(transformer.encode([picture])[0], expected)


def test_sounds_of_different_lengths_in_one_batch(model, transformer):
    sounds = [generate.tone(1.5), generate.tone(7.0, seed=1)]
    expected = model.embed("audio", [(sound, 16_000) for sound in sounds])
    assert close(transformer.encode([sounds[0], torch.from_numpy(sounds[1])]), expected)
    assert close(transformer.encode([{"array": sound, "sampling_rate": 16_000} for sound in sounds]), expected)
    one = transformer.encode(sounds, processing_kwargs={"audio": {"clips": 1}})
    assert close(one, model.embed("audio", [(sound, 16_000) for sound in sounds], clips=1))


def test_frames_with_their_rate(model, transformer):
    frames = np.stack([generate.pixels(seed) for seed in range(8)])
    given = {"array": frames, "video_metadata": {"fps": 4.0}}
    assert close(transformer.encode([given])[0], model.embed("video", [(frames, 4.0)])[0])


@pytest.mark.parametrize("modality", ["depth", "thermal", "imu"])
def test_the_modalities_it_has_no_name_for(model, transformer, modality, tmp_path):
    path = generate.sample(modality, tmp_path)
    expected = model.embed(modality, path)[0]
    assert close(transformer.encode([{modality: path}, {modality: Path(path).read_bytes()}]), expected)
    fixed = sentence_transformers.SentenceTransformer(modules=[integration.ImageBindModule(model, modality=modality)], device="cpu")
    assert close(fixed.encode([path])[0], expected)
    assert close(fixed.encode([{"bytes": Path(path).read_bytes(), "path": None}])[0], expected)
    assert list(fixed[0].encoders) == [modality]


def test_a_bad_input_is_one_line(transformer, tmp_path):
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(ib.UserError, match=r"torn.wav: "):
        transformer.encode([str(tmp_path / "torn.wav")])
    with pytest.raises(ib.UserError, match="say the modality"):
        transformer.encode([b"bytes"])
    with pytest.raises(ib.UserError, match="encode each modality by itself"):
        transformer.encode([{"image": generate.pixels()}, {"depth": generate.relief()}])
    with pytest.raises(ib.UserError, match="no option 'sizes'"):
        integration.ImageBindModule("tiny", modality="image", options={"image": {"sizes": 3}})


@pytest.mark.parametrize("loss", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"])
def test_gradients_reach_the_encoders(loss):
    transformer = sentence_transformers.SentenceTransformer(
        modules=[integration.ImageBindModule("tiny", encoders=["text", "audio"])], device="cpu"
    )
    columns = [["a dog", "rain"], [generate.tone(1.0), generate.tone(5.0, seed=1)]]
    getattr(losses, loss)(transformer)([transformer.preprocess(column) for column in columns], None).backward()
    for name, encoder in transformer[0].encoders.items():
        gradients = {key: parameter.grad for key, parameter in encoder.named_parameters() if key != "log_scale"}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values()), name
        assert gradients["stem.pos"].abs().max() > 0


def test_training_saving_and_loading(model, tmp_path):
    datasets = pytest.importorskip("datasets")
    transformer = sentence_transformers.SentenceTransformer(
        modules=[integration.ImageBindModule("tiny", encoders=["text", "vision"])], device="cpu"
    )
    paths = [str(generate.picture(tmp_path / f"{seed}.png", seed)) for seed in range(4)]
    before = transformer.encode(paths)
    rows = datasets.Dataset.from_dict({"picture": paths, "caption": ["a red dog", "rain", "a car", "snow"]})
    arguments = sentence_transformers.SentenceTransformerTrainingArguments(
        str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
    )
    loss = losses.MultipleNegativesRankingLoss(transformer)
    sentence_transformers.SentenceTransformerTrainer(transformer, arguments, train_dataset=rows, loss=loss).train()
    after = transformer.encode(paths)
    assert np.abs(after - before).max() > 1e-3
    for _ in range(2):  # also over what it wrote before
        transformer.save(str(tmp_path / "saved"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    assert np.array_equal(again.encode(paths), after)
    assert np.array_equal(again.encode(["rain"]), transformer.encode(["rain"]))
    alone = sentence_transformers.SentenceTransformer(modules=[integration.ImageBindModule.load(str(tmp_path / "saved"))], device="cpu")
    assert np.array_equal(alone.encode(paths), after)
    assert close(ib.load(str(tmp_path / "saved"), device="cpu").embed("image", paths), after)  # a model folder like any
    with pytest.raises(UsageError, match="safetensors"):
        transformer.save(str(tmp_path / "pickled"), safe_serialization=False)


def test_settings_are_saved(tmp_path):
    module = integration.ImageBindModule("tiny", modality="audio", options={"audio": {"clips": 2}})
    sentence_transformers.SentenceTransformer(modules=[module], device="cpu").save(str(tmp_path / "saved"))
    again = integration.ImageBindModule.load(str(tmp_path / "saved"))
    assert (again.modality, again.options) == ("audio", {"audio": {"clips": 2}})
    assert again.preprocess([generate.tone(9.0)])["clip_counts"].tolist() == [2]


def test_assumptions_are_logged_once(transformer, caplog):
    with caplog.at_level(logging.WARNING, "imagebind_cli.events"):
        for _ in range(2):
            transformer.encode([{"depth": np.full((40, 50), 2.0)}])
    assert [record.getMessage() for record in caplog.records if record.name == "imagebind_cli.events"] == [
        "assumed: depth read as metres, focal 518.86 px, baseline 0.075 m"
    ]
