"""Vision: pictures and two-frame video clips through one encoder (ImageBind section 3.3, and the released code's preprocessing)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.image import read_image
from imagebind_cli.media.video import Video
from imagebind_cli.media.windows import seconds, windows
from imagebind_cli.reading import VisionOptions

CLIP_SECONDS = 2
CLIPS_AT_ONCE = 8


def picture_tensor(picture: Image.Image, config: EncoderConfig) -> Tensor:
    """A picture in RGB as the encoder takes it, (3, h, w): short side to h bicubic, centre crop, normalised."""
    height, width = config.shape[-2:]
    short = min(picture.size)
    if short != height:
        columns, rows = (height if side == short else int(height * side / short) for side in picture.size)
        picture = picture.resize((columns, rows), Image.Resampling.BICUBIC)
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    pixels = np.array(picture.crop((left, top, left + width, top + height)))  # (h, w, 3)
    return _normalise(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, config)


def clip_tensor(frames: Tensor, config: EncoderConfig) -> Tensor:
    """A clip's frames (t, h, w, 3) uint8 as three views (3, 3, t, h, w): short side scaled, normalised, cropped at its ends and middle.

    Bilinear and not antialiased, unlike pictures: published behaviour.
    """
    size = config.shape[-1]
    height, width = frames.shape[1:3]
    if width < height:
        scaled = (math.floor(height / width * size), size)
    else:
        scaled = (size, math.floor(width / height * size))
    pixels = frames.permute(0, 3, 1, 2).float()  # (t, 3, h, w)
    pixels = F.interpolate(pixels, size=scaled, mode="bilinear", align_corners=False) / 255
    pixels = _normalise(pixels, config).transpose(0, 1)  # (3, t, h, w)
    spare = max(scaled) - size
    axis = 2 if scaled[0] > scaled[1] else 3
    return torch.stack([pixels.narrow(axis, offset, size) for offset in (0, math.ceil(spare / 2), spare)])


def _normalise(pixels: Tensor, config: EncoderConfig) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    return (pixels - mean) / std


def read_picture(source: Source | np.ndarray | Image.Image, config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    """A picture file, a Pillow image, or an array (h, w, 3) uint8 in RGB."""
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[-1] != 3 or source.dtype != np.uint8 or not source.size:
            raise ValueError(f"shape {source.shape} of {source.dtype}; (height, width, 3) of uint8 is needed")
        source = Image.fromarray(source)
    picture = source.convert("RGB") if isinstance(source, Image.Image) else read_image(source)
    yield Sample(picture_tensor(picture, config).unsqueeze(0), [None])


def read_video(source: Source | np.ndarray | tuple[np.ndarray, float], config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    """A video file, or (frames (t, h, w, 3) uint8 in RGB, frames a second), or the frames of one clip alone."""
    if isinstance(source, np.ndarray):
        source = source, len(source) / CLIP_SECONDS
    if isinstance(source, tuple):
        yield from _read_frames(*source, config, options)
        return
    with Video(source) as video:
        spans = windows(video.duration, CLIP_SECONDS, options.clips)
        clips = video.clips(spans, count=config.shape[1])
        for i in range(0, len(spans), CLIPS_AT_ONCE):
            some = spans[i : i + CLIPS_AT_ONCE]
            yield _views([torch.from_numpy(np.stack(next(clips))) for _ in some], some, config)


def _read_frames(frames: np.ndarray, rate: float, config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size or rate <= 0:
        raise ValueError(f"shape {frames.shape} of {frames.dtype} at {rate} a second; (frames, height, width, 3) of uint8 is needed")
    for span in windows(len(frames) / rate, CLIP_SECONDS, options.clips):
        first, stop = (min(math.ceil(time * rate), len(frames)) for time in span)
        chosen = torch.linspace(min(first, len(frames) - 1), stop - 1, config.shape[1]).long()
        yield _views([torch.from_numpy(frames)[chosen]], [span], config)


def _views(clips: list[Tensor], spans: list[tuple[Fraction, Fraction]], config: EncoderConfig) -> Sample:
    return Sample(torch.cat([clip_tensor(clip, config) for clip in clips]), [span for span in seconds(spans) for _ in range(3)])


def read(source: Any, config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    """A picture or a video, whichever the file turns out to hold."""
    if isinstance(source, tuple) or getattr(source, "ndim", 0) == 4:
        yield from read_video(source, config, options)
        return
    try:
        yield from read_picture(source, config, options)
        return
    except ValueError as error:
        not_a_picture = error
    try:
        yield from read_video(source, config, options)
    except ValueError as error:
        raise ValueError(f"neither picture nor video: {not_a_picture}; {error}") from None


MODALITY = Modality(name="vision", readers={"image": read_picture, "video": read_video, "vision": read})
