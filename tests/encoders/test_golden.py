"""Equal to the published model: every encoder, the tokens, the preprocessing and the clip times."""

import numpy as np
import pytest
import torch

import imagebind_cli as ib
from benchmarks.published_weights import published_shapes, published_weights
from imagebind_cli import registry
from imagebind_cli.families import imagebind
from imagebind_cli.media.windows import seconds, windows
from imagebind_cli.weights import model_config
from tests.golden import INPUTS, META, OUTPUTS, PREPROCESS, SLICES, picture, published_inputs, sound


@pytest.fixture(scope="module")
def weights():
    return published_weights(META["state_dict"], META["seed"])


@pytest.fixture(scope="module")
def model(weights):
    return ib.load(weights, config=META["config"], device="cpu")


@pytest.fixture(scope="module")
def inputs(model):
    return published_inputs() | {"text": torch.cat([next(model.read("text", text)).tensor for text in META["texts"]])}


def test_the_config_has_exactly_the_published_tensors():
    shapes = published_shapes(imagebind.from_published(META["config"]))
    assert {key: list(shape) for key, shape in shapes.items()} == META["state_dict"]


def test_huge_has_the_published_number_of_tensors_and_parameters():
    shapes = published_shapes(model_config.packaged_config("huge"))
    assert len(shapes) == 1311
    parameters = sum(int(np.prod(shape)) for key, shape in shapes.items() if not key.endswith("text.mask"))
    assert round(parameters / 1e6, 1) == 1200.8


def test_tokens_are_the_published_ones(inputs):
    assert np.array_equal(inputs["text"].numpy(), OUTPUTS["tokens"])


@pytest.mark.parametrize("name", [*INPUTS, "text"])
def test_vectors_are_the_published_directions(model, inputs, name):
    modality = name.split("_")[0]
    ours = model.encode(modality, inputs[name]).numpy()
    published = OUTPUTS[name] / np.linalg.norm(OUTPUTS[name], axis=1, keepdims=True)
    assert np.abs(ours - published).max() <= 2e-5
    assert (ours.astype(np.float64) * published).sum(axis=1).min() >= 0.999999
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() <= 1e-6


@pytest.mark.parametrize("name", ["vision", "audio_single", "depth", "thermal", "imu", "text"])
def test_scales_are_the_published_norms(model, name):
    norms = np.linalg.norm(OUTPUTS[name], axis=1)
    assert norms == pytest.approx(model.scale(name.split("_")[0]), rel=1e-5)


def test_image_video_and_vision_are_one_encoder(model, inputs):
    vectors = [model.encode(face, inputs["vision"]) for face in ("image", "video", "vision")]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])


def test_one_clip_with_and_without_its_axis_is_the_same(model, inputs):
    for name in ("vision", "audio_single", "depth", "imu"):
        modality = name.split("_")[0]
        assert torch.allclose(model.encode(modality, inputs[name]), model.encode(modality, inputs[name].unsqueeze(1)), atol=1e-6)


def test_a_still_picture_is_two_equal_frames(model, inputs):
    twice = inputs["vision"].unsqueeze(2).expand(-1, -1, 2, -1, -1)
    assert torch.allclose(model.encode("image", inputs["vision"]), model.encode("video", twice), atol=1e-6)


@pytest.mark.parametrize("number", range(len(PREPROCESS["audio"])))
def test_sound_becomes_the_published_spectrogram(model, number, tmp_path):
    import soundfile

    entry = PREPROCESS["audio"][number]
    path = tmp_path / "sound.wav"
    soundfile.write(path, sound(entry), entry["sample_rate"], subtype="FLOAT")
    (sample,) = model.read("audio", str(path), clips=3)
    assert list(sample.tensor.shape) == entry["shape"]
    assert np.abs(sample.tensor[:, 0, ::8, ::12].numpy() - SLICES[f"audio_{number}"]).max() <= 1e-4
    assert float(sample.tensor.mean()) == pytest.approx(entry["mean"], abs=1e-5)
    assert float(sample.tensor.std()) == pytest.approx(entry["std"], abs=1e-5)


@pytest.mark.parametrize("number", range(len(PREPROCESS["image"])))
def test_a_picture_becomes_the_published_tensor(model, number, tmp_path):
    from PIL import Image

    entry = PREPROCESS["image"][number]
    path = tmp_path / "picture.png"
    Image.fromarray(picture(entry["seed"], entry["height"], entry["width"])).save(path)
    (sample,) = model.read("image", str(path))
    assert np.abs(sample.tensor[0, :, ::16, ::16].numpy() - SLICES[f"image_{number}"]).max() <= 1e-3
    assert float(sample.tensor.mean()) == pytest.approx(entry["mean"], abs=1e-5)


@pytest.mark.parametrize("number", range(len(PREPROCESS["video_clip"])))
def test_frames_become_the_published_views(model, number):
    entry = PREPROCESS["video_clip"][number]
    frames = np.stack([picture(entry["first_frame_seed"] + t, entry["height"], entry["width"]) for t in range(entry["frames"])])
    (sample,) = model.read("video", (frames, entry["frames"] / 2))
    assert list(sample.tensor.shape) == entry["shape"]
    assert np.abs(sample.tensor[:, :, :, ::32, ::32].numpy() - SLICES[f"video_{number}"]).max() <= 1e-3


@pytest.mark.parametrize("entry", PREPROCESS["clip_timepoints"], ids=lambda entry: f"{entry['clips']} of {entry['duration']} s")
def test_clip_times_are_the_published_ones(entry):
    assert [list(span) for span in seconds(windows(entry["duration"], 2, entry["clips"]))] == entry["seconds"]


@pytest.mark.parametrize(("duration", "count"), [(0.4, 1), (2.0, 1), (2.0 + 1e-9, 1), (2.1, 2), (5.0, 3), (10_800, 5400)])
def test_windows_cover_the_whole_item(duration, count):
    spans = seconds(windows(duration, 2))
    assert len(spans) == count
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(max(duration, 2))
    assert all(later[0] <= earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))


def test_log_mel_is_kaldis(model):
    from torchaudio.compliance.kaldi import fbank

    from imagebind_cli.encoders.audio import log_mel

    waveform = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal(32_000)).float()
    expected = fbank(
        waveform[None], htk_compat=True, sample_frequency=16000, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0
    ).T
    assert (log_mel(waveform, 128) - expected).abs().max() < 2e-3  # kaldi's own float32 noise, 9 of which make 1e-4 in the input


def test_every_encoder_loads_alone_and_strictly(weights):
    from imagebind_cli.weights.checkpoint import from_tensors

    config = imagebind.from_published(META["config"])
    for name in registry.ENCODERS:
        some = {key: tensor for key, tensor in weights.items() if f".{name}." in key}
        assert list(from_tensors(some, config, "part").config.encoders) == [name]
