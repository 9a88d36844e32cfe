"""From files to the tensors that the model takes: the published loaders and their parts, with the readers of `imagebind_cli`.

Dimensions: n files, c channels, t frames, h, w height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample
from torchvision import transforms

from imagebind import video_transforms as pv_transforms
from imagebind.models.multimodal_preprocessors import SimpleTokenizer
from imagebind.video_transforms import NormalizeVideo, SpatialCrop, uniform_crop
from imagebind_cli.encoders.audio import FRAME, RATE, log_mel, open_sound
from imagebind_cli.encoders.text import vocabulary_file
from imagebind_cli.encoders.vision import clip_tensor, picture_tensor
from imagebind_cli.media.image import open_image
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.media.windows import windows
from imagebind_cli.weights.model_config import packaged_config

__all__ = [
    "BPE_PATH",
    "ClipInfo",
    "ConstantClipsPerVideoSampler",
    "NormalizeVideo",
    "SimpleTokenizer",
    "SpatialCrop",
    "get_clip_timepoints",
    "load_and_transform_audio_data",
    "load_and_transform_text",
    "load_and_transform_video_data",
    "load_and_transform_vision_data",
    "pv_transforms",
    "return_bpe_path",
    "transforms",
    "uniform_crop",
    "waveform2melspec",
]

Path = str | PathLike[str]
Device = str | int | torch.device | None
Seconds = Fraction | float

VISION = packaged_config("huge").encoders["vision"]


class ClipInfo(NamedTuple):
    """A clip that a sampler chose, as pytorchvideo describes it."""

    clip_start_sec: Seconds
    clip_end_sec: Seconds
    clip_index: int
    aug_index: int
    is_last_clip: bool


class ConstantClipsPerVideoSampler:
    """Chooses a fixed number of evenly spaced clips of a recording, one a call; as pytorchvideo's at the commit that ImageBind names."""

    def __init__(self, clip_duration: Seconds, clips_per_video: int) -> None:
        """clip_duration: seconds of a clip."""
        self._length, self._count, self._next = float(clip_duration), clips_per_video, 0

    def __call__(self, last_clip_end_time: Seconds | None, video_duration: Seconds, annotation: Any = None) -> ClipInfo:
        """Choose the next clip. Only the duration in seconds matters; a recording shorter than a clip gets clips that reach past its end."""
        index = self._next
        start, end = windows(float(video_duration), self._length, self._count)[index]
        is_last = index == self._count - 1
        self._next = 0 if is_last else index + 1
        return ClipInfo(start, end, index, 0, is_last)

    def reset(self) -> None:
        """Begin with the first clip again."""
        self._next = 0


def get_clip_timepoints(clip_sampler: Callable[..., Any], duration: Seconds) -> list[tuple[Seconds, Seconds]]:
    """Return start and end in seconds of every clip that a sampler, ours or pytorchvideo's, chooses of a recording.

    Args:
        duration: of the recording, in seconds.
    """
    spans: list[tuple[Seconds, Seconds]] = []
    end, is_last = 0.0, False
    while not is_last:
        start, end, _, _, is_last = clip_sampler(end, duration, annotation=None)
        spans.append((start, end))
    return spans


def waveform2melspec(waveform: Tensor, sample_rate: int, num_mel_bins: int, target_length: int) -> Tensor:
    """Return the log-mel spectrogram (1, num_mel_bins, target_length) of a waveform's first channel, not normalised.

    As published: the mean of all channels is subtracted in place, and a spectrogram of fewer frames is padded with zeros on the right.

    Args:
        waveform: (c, samples) in [-1, 1].
    Raises:
        ValueError: it is too short for one frame of 25 ms.
    """
    frame = FRAME * sample_rate / RATE
    if waveform.shape[-1] < frame:
        raise ValueError(f"{waveform.shape[-1]} samples at {sample_rate} Hz; at least {frame:g} are needed")
    waveform -= waveform.mean()
    if sample_rate == RATE:
        energies = log_mel(waveform[0].cpu(), num_mel_bins)
    else:
        settings = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "dither": 0.0}
        energies = fbank(waveform, sample_frequency=sample_rate, num_mel_bins=num_mel_bins, **settings).T
    energies = F.pad(energies, (0, max(0, target_length - energies.shape[1])))
    return energies[None, :, :target_length].to(waveform)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add a file's name to what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_and_transform_vision_data(image_paths: Sequence[Path] | None, device: Device) -> Tensor | None:
    """Read pictures, (n, 3, 224, 224); None for None. As published, a picture is not turned by its EXIF orientation.

    Raises:
        OSError, ValueError: a file cannot be read; the message names it.
    """
    if image_paths is None:
        return None
    pictures = []
    for path in image_paths:
        with _naming(path):
            pictures.append(picture_tensor(open_image(path).convert("RGB"), VISION))
    return torch.stack(pictures).to(device)


def load_and_transform_text(text: Sequence[str] | None, device: Device) -> Tensor | None:
    """Return the token ids of texts, (n, 77) int64; None for None."""
    if text is None:
        return None
    tokenizer = SimpleTokenizer()
    return torch.stack([tokenizer(sentence) for sentence in text]).to(device)


def load_and_transform_audio_data(
    audio_paths: Sequence[Path] | None,
    device: Device,
    num_mel_bins: int = 128,
    target_length: int = 204,
    sample_rate: int = RATE,
    clip_duration: Seconds = 2,
    clips_per_video: int = 3,
    mean: float = -4.268,
    std: float = 9.138,
) -> Tensor | None:
    """Read sounds as spectrograms of evenly spaced clips, (n, clips_per_video, 1, num_mel_bins, target_length); None for None.

    Args:
        sample_rate: Hz that sounds are resampled to. clip_duration: seconds of a clip. mean, std: to normalise spectrograms with.
    Raises:
        OSError, ValueError: a file cannot be read; the message names it.
    """
    if audio_paths is None:
        return None
    sampler = ConstantClipsPerVideoSampler(clip_duration, clips_per_video)
    sounds = []
    for path in audio_paths:
        with _naming(path):
            with open_sound(path, None) as sound:
                waveform = resample(torch.from_numpy(sound.read(0, sound.length)), sound.rate, sample_rate)
            spans = get_clip_timepoints(sampler, waveform.shape[1] / sample_rate)
            clips = [waveform[:, int(start * sample_rate) : int(end * sample_rate)] for start, end in spans]
            spectrograms = [waveform2melspec(clip, sample_rate, num_mel_bins, target_length) for clip in clips]
            sounds.append((torch.stack(spectrograms) - mean) / std)
    return torch.stack(sounds).to(device)


def load_and_transform_video_data(
    video_paths: Sequence[Path] | None,
    device: Device,
    clip_duration: int = 2,
    clips_per_video: int = 5,
    sample_rate: int = RATE,
) -> Tensor | None:
    """Read videos as three crops of each of evenly spaced clips, (n, 3 clips_per_video, 3, clip_duration, 224, 224); None for None.

    Args:
        clip_duration: seconds of a clip, and as published the number of its frames.
        sample_rate: of the sound, which is not read.
    Raises:
        OSError, ValueError: a file cannot be read; the message names it.
    """
    if video_paths is None:
        return None
    videos = []
    for path in video_paths:
        with _naming(path), open_video(path) as video:
            clips = video.clips(windows(video.duration, clip_duration, clips_per_video), clip_duration)
            videos.append(torch.cat([clip_tensor(torch.from_numpy(np.stack(frames)), VISION) for frames in clips]))
    return torch.stack(videos).to(device)


def return_bpe_path() -> str:
    """Return the file of CLIP's vocabulary."""
    return str(vocabulary_file())


BPE_PATH = return_bpe_path()
