"""The loaders under the import name `imagebind`, and their parts: the published tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from imagebind import data
from imagebind.models.multimodal_preprocessors import SimpleTokenizer
from tests import generate
from tests.golden import META, OUTPUTS, PREPROCESS, SLICES, picture, sound

AUDIO_NOISE = 1e-4  # of the published code's own float32 arithmetic, in bands that hold nothing else


def test_texts_become_the_published_tokens() -> None:
    assert np.array_equal(data.load_and_transform_text(META["texts"], "cpu"), OUTPUTS["tokens"])


def test_the_tokenizer_takes_one_text_or_several_and_any_length() -> None:
    tokenizer = SimpleTokenizer(bpe_path=data.return_bpe_path())
    assert np.array_equal(tokenizer(META["texts"]), OUTPUTS["tokens"])
    assert np.array_equal(tokenizer(META["texts"][0]), OUTPUTS["tokens"][0])
    longer = SimpleTokenizer(bpe_path=data.BPE_PATH, context_length=1024)(META["texts"][6])
    assert longer.shape == (1024,)
    assert longer.count_nonzero() > 77
    assert longer[:76].tolist() == OUTPUTS["tokens"][6][:76].tolist()


@pytest.mark.parametrize("number", range(len(PREPROCESS["audio"])))
def test_sounds_become_the_published_spectrograms(number: int, tmp_path: Path) -> None:
    entry, path = PREPROCESS["audio"][number], tmp_path / "sound.wav"
    soundfile.write(path, sound(entry), entry["sample_rate"], subtype="FLOAT")
    loaded = data.load_and_transform_audio_data([str(path)], "cpu")
    assert loaded is not None
    assert list(loaded.shape) == [1, *entry["shape"]]
    assert np.abs(loaded[0, :, 0, ::8, ::12].numpy() - SLICES[f"audio_{number}"]).max() <= AUDIO_NOISE
    assert float(loaded.mean()) == pytest.approx(entry["mean"], abs=1e-5)
    assert float(loaded.std()) == pytest.approx(entry["std"], abs=1e-5)


@pytest.mark.parametrize("number", range(len(PREPROCESS["image"])))
def test_pictures_become_the_published_tensors(number: int, tmp_path: Path) -> None:
    entry, path = PREPROCESS["image"][number], tmp_path / "picture.png"
    Image.fromarray(picture(entry["seed"], entry["height"], entry["width"])).save(path)
    loaded = data.load_and_transform_vision_data([path], "cpu")
    assert loaded is not None
    assert np.abs(loaded[0, :, ::16, ::16].numpy() - SLICES[f"image_{number}"]).max() <= 1e-6
    assert float(loaded.mean()) == pytest.approx(entry["mean"], abs=1e-6)


def test_a_picture_is_not_turned_as_published(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image = Image.fromarray(picture(1, 240, 320))
    image.save(tmp_path / "upright.png")
    image.save(tmp_path / "turned.png", exif=exif)
    loaded = data.load_and_transform_vision_data([tmp_path / "upright.png", tmp_path / "turned.png"], "cpu")
    assert loaded is not None
    assert torch.equal(loaded[0], loaded[1])


@pytest.mark.parametrize("number", range(len(PREPROCESS["video_clip"])))
def test_frames_of_ones_own_become_the_published_views(number: int) -> None:
    entry = PREPROCESS["video_clip"][number]
    frames = np.stack([picture(entry["first_frame_seed"] + t, entry["height"], entry["width"]) for t in range(entry["frames"])])
    views = torch.stack(prepared(torch.from_numpy(frames)))
    assert list(views.shape) == entry["shape"]
    assert np.abs(views[:, :, :, ::32, ::32].numpy() - SLICES[f"video_{number}"]).max() <= 1e-6


def prepared(frames: Tensor) -> list[Tensor]:
    """Views (3, 2, 224, 224) of a clip's frames (t, h, w, 3) uint8, by the parts that `imagebind.data` exports."""
    normalize = data.NormalizeVideo(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
    steps = data.transforms.Compose([data.pv_transforms.UniformTemporalSubsample(2), data.pv_transforms.ShortSideScale(224), normalize])
    return data.SpatialCrop(224, num_crops=3)([steps(frames.permute(3, 0, 1, 2).float() / 255)])


def test_a_video_is_five_clips_of_three_crops(tmp_path: Path) -> None:
    from imagebind_cli.media.video.clips import open_video

    path = generate.video(tmp_path / "film.mp4", seconds=7)
    loaded = data.load_and_transform_video_data([str(path)], "cpu")
    assert loaded is not None
    assert loaded.shape == (1, 15, 3, 2, 224, 224)
    with open_video(path) as video:
        spans = data.get_clip_timepoints(data.ConstantClipsPerVideoSampler(2, 5), video.duration)
        clips = list(video.clips([(Fraction(start), Fraction(end)) for start, end in spans], 2))
    views = [view for frames in clips for view in prepared(torch.from_numpy(np.stack(frames)))]
    assert (loaded[0] - torch.stack(views)).abs().max() < 1e-5
    few = data.load_and_transform_video_data([path, path], "cpu", clip_duration=1, clips_per_video=2)
    assert few is not None
    assert few.shape == (2, 6, 3, 1, 224, 224)


def test_one_crop_is_the_middle_of_three() -> None:
    clips = [torch.rand(3, 2, 224, 300), torch.rand(3, 2, 301, 224)]
    three, one = data.SpatialCrop(224, num_crops=3)(clips), data.SpatialCrop(224, num_crops=1)(clips)
    assert all(torch.equal(view, middle) for view, middle in zip(three[1::3], one, strict=True))
    assert torch.equal(three[2], clips[0][..., 76:])
    assert torch.equal(three[3], clips[1][..., :224, :])
    assert torch.equal(data.uniform_crop(clips[0], 224, 0)[0], three[0])
    with pytest.raises(ValueError, match="2 crops; 1 or 3 are cut"):
        data.SpatialCrop(224, num_crops=2)


def test_normalising_in_place_is_the_same() -> None:
    clip = torch.rand(3, 2, 8, 8)
    expected = data.NormalizeVideo((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(clip)
    assert torch.equal(data.NormalizeVideo((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), inplace=True)(clip), expected)
    assert torch.equal(clip, expected)


@pytest.mark.parametrize("entry", PREPROCESS["clip_timepoints"], ids=lambda entry: f"{entry['clips']} of {entry['duration']} s")
def test_clip_times_are_the_published_ones(entry: dict[str, Any]) -> None:
    sampler = data.ConstantClipsPerVideoSampler(clip_duration=2, clips_per_video=entry["clips"])
    for _ in range(2):  # it begins again by itself
        spans = data.get_clip_timepoints(sampler, entry["duration"])
        assert [[float(time) for time in span] for span in spans] == entry["seconds"]


def test_a_sampler_of_ones_own_is_asked_until_its_last_clip() -> None:
    def sampler(last: float, duration: float, annotation: object) -> tuple[float, float, int, int, bool]:
        return last, last + 4, 0, 0, last + 4 >= duration

    assert data.get_clip_timepoints(sampler, 10) == [(0.0, 4.0), (4.0, 8.0), (8.0, 12.0)]


def test_a_waveform_loses_its_mean_in_place_and_is_padded() -> None:
    waveform = torch.from_numpy(generate.tone(1.0))[None] + 0.25
    spectrogram = data.waveform2melspec(waveform, 16000, 128, 204)
    assert spectrogram.shape == (1, 128, 204)
    assert abs(float(waveform.mean())) < 1e-6
    assert (spectrogram[:, :, 98:] == 0).all()
    assert (spectrogram[:, :, :98] != 0).any()
    assert torch.allclose(data.waveform2melspec(waveform, 16000, 128, 50), spectrogram[:, :, :50], atol=1e-3)


def test_other_rates_have_frames_of_25_ms_too() -> None:
    waveform = torch.from_numpy(generate.tone(2.0, rate=24000))[None]
    spectrogram = data.waveform2melspec(waveform, 24000, 64, 204)
    assert spectrogram.shape == (1, 64, 204)
    assert (spectrogram[:, :, 198:] == 0).all()
    assert (spectrogram[:, :, :198] != 0).any()


def test_sounds_at_another_rate_and_length_of_clip(tmp_path: Path) -> None:
    path = generate.audio(tmp_path / "a.wav", seconds=3)
    loaded = data.load_and_transform_audio_data([path], "cpu", clip_duration=1, clips_per_video=2, sample_rate=24000, mean=0, std=1)
    assert loaded is not None
    assert loaded.shape == (1, 2, 1, 128, 204)
    assert (loaded[..., 98:] == 0).all()


@pytest.mark.parametrize("samples", [0, 399])
def test_a_waveform_shorter_than_a_frame_is_refused(samples: int) -> None:
    with pytest.raises(ValueError, match=f"{samples} samples at 16000 Hz; at least 400 are needed"):
        data.waveform2melspec(torch.zeros(1, samples), 16000, 128, 204)


LOADERS: dict[str, Callable[..., Any]] = {
    "image": data.load_and_transform_vision_data,
    "audio": data.load_and_transform_audio_data,
    "video": data.load_and_transform_video_data,
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_bad_file_is_named(kind: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no medium at all" * 100)
    with pytest.raises(ValueError, match=r"bad\.mp4: "):
        LOADERS[kind]([generate.sample(kind, tmp_path), str(bad)], "cpu")
    with pytest.raises(FileNotFoundError, match="gone"):
        LOADERS[kind]([str(tmp_path / "gone")], "cpu")


def test_nothing_given_gives_nothing() -> None:
    for load in (*LOADERS.values(), data.load_and_transform_text):
        assert load(None, "cpu") is None


def test_nothing_is_logged_or_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO):
        data.load_and_transform_audio_data([generate.audio(tmp_path / "short.wav", seconds=0.2)], "cpu")
        data.load_and_transform_video_data([generate.video(tmp_path / "short.mp4", seconds=0.5)], "cpu")
        data.load_and_transform_text([META["texts"][6]], "cpu")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
