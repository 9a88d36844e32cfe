"""Vision: pictures and two-frame video clips through one encoder (ImageBind section 3.3, and the released code's preprocessing)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, InputConfig, Modality, Sample
from imagebind_cli.media.decoding import Source, decoding
from imagebind_cli.media.image import SIZE, exif_clock, exif_orientation, middle, open_image, upright
from imagebind_cli.media.picture_kinds import UnsupportedKind
from imagebind_cli.media.video.clips import VideoFile, open_video
from imagebind_cli.media.video.frame_folder import FPS, FrameFolder
from imagebind_cli.media.views import View
from imagebind_cli.media.windows import adjacent, cut, seconds, seen, windows
from imagebind_cli.options.vision import ALL_FRAMES, FAST, VisionOptions
from imagebind_cli.region_samples import region_samples

CLIP_SECONDS = 2
CLIPS_AT_ONCE = 8
SECONDS_A_FRAME = 60  # for which a frame may be shown on average; each window takes as long as one in which all is new
PIXELS_AT_ONCE = 64_000_000  # of decoded frames: 190 MB
BITS = {"1": 1, "I": 32, "F": 32}  # bits per channel of Pillow's modes; 8 in the others


def picture_tensor(picture: Image.Image, config: EncoderConfig, view: View | None = None) -> Tensor:
    """Turn a picture in RGB into the encoder's input (3, h, w): short side scaled to h, bicubic; centre crop, or a view; normalised."""
    height, width = config.shape[-2:]
    if view is not None:
        picture = view.picture(picture, height)
    picture = scale_short_side(picture, height)
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    pixels = np.array(picture.crop((left, top, left + width, top + height)))  # (h, w, 3)
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, config)


def scale_short_side(picture: Image.Image, size: int) -> Image.Image:
    """Scale a picture, bicubic and antialiased, so that its short side has `size` pixels."""
    short = min(picture.size)
    if short == size:
        return picture
    columns, rows = (size if side == short else int(size * side / short) for side in picture.size)
    return picture.resize((columns, rows), Image.Resampling.BICUBIC)


def clip_tensor(frames: Tensor, config: EncoderConfig, crops: int = 3, view: View | None = None) -> Tensor:
    """Turn a clip's frames (t, h, w, 3) uint8 into views (crops, 3, t, h, w): short side scaled, normalised, cropped at both ends and middle.

    Bilinear and not antialiased, unlike pictures: published behaviour. view: of all frames, in place of the crops, (1, 3, t, h, w).
    """
    if view is not None:
        return torch.stack([picture_tensor(Image.fromarray(frame), config, view) for frame in frames.numpy()], dim=1)[None]
    size = config.shape[-1]
    frames = frames[:, middle(*frames.shape[1:3]), middle(*frames.shape[2:0:-1])]
    height, width = frames.shape[1:3]
    if width < height:
        scaled = (math.floor(height / width * size), size)
    else:
        scaled = (size, math.floor(width / height * size))
    pixels = frames.permute(0, 3, 1, 2).float()  # (t, 3, h, w)
    pixels = F.interpolate(pixels, size=scaled, mode="bilinear", align_corners=False) / 255
    pixels = normalise(pixels, config).transpose(0, 1)  # (3, t, h, w)
    spare = max(scaled) - size
    axis = 2 if scaled[0] > scaled[1] else 3
    offsets = (0, math.ceil(spare / 2), spare) if crops == 3 else (math.ceil(spare / 2),)
    return torch.stack([pixels.narrow(axis, offset, size) for offset in offsets])


def normalise(pixels: Tensor, config: InputConfig) -> Tensor:
    """Normalise pixels from 0 to 1, the channels in the axis before height and width, with the config's mean and deviation of each."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    return (pixels - mean) / std


def read_picture(source: Source | np.ndarray | Image.Image, config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a picture file, a Pillow image, or an array (h, w, 3) uint8 in RGB; or regions of it.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    reduced = options.decode == FAST and options.view is None and not options.has_regions  # those are places of the whole picture
    image, facts, taken = stored_picture(source, config.shape[-2] if reduced else 0)
    picture = image.convert("RGB") if isinstance(source, np.ndarray | Image.Image) else upright(image, whole=options.has_regions)
    del image, source
    if options.has_regions:
        yield from region_samples(picture, options, config.mean, partial(picture_tensor, config=config), facts=facts, began=taken)
        return
    tensor = picture_tensor(picture, config, options.view).unsqueeze(0)
    del picture  # a sample may wait to be used; its full-size pixels need not
    yield Sample(tensor, [None], facts=facts, began=taken)


def stored_picture(source: Source | np.ndarray | Image.Image, short: int = 0) -> tuple[Image.Image, dict[str, Any], datetime | None]:
    """Return a picture as it is stored, neither turned nor converted, what `picture_facts` says of it, and when it was taken.

    short: as `open_image` takes it.

    Raises:
        OSError, ValueError: as `read_picture`.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[-1] != 3 or source.dtype != np.uint8 or not source.size:
            raise ValueError(f"shape {source.shape} of {source.dtype}; (height, width, 3) of uint8 is needed")
        source = Image.fromarray(source)
    if isinstance(source, Image.Image):
        return source, picture_facts(source), exif_clock(source)
    image = open_image(source, short=short)
    with decoding("picture"):
        return image, {"format": (image.format or "").lower(), **picture_facts(image)}, exif_clock(image)


def picture_facts(image: Image.Image) -> dict[str, Any]:
    """Describe a picture before it is rotated and converted: size, Pillow's mode, bits per channel, EXIF orientation (1: upright)."""
    return {
        "size": list(image.info.get(SIZE, image.size)),
        "mode": image.mode,
        "bits": 16 if image.mode.startswith("I;16") else BITS.get(image.mode, 8),
        "orientation": exif_orientation(image),
    }


def read_video(source: Source | np.ndarray | tuple[np.ndarray, float], config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a video file, an animated picture, a folder of frames, (frames (t, h, w, 3) uint8 in RGB, rate in Hz), or a 2-second clip's frames.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    if isinstance(source, np.ndarray):
        source = source, len(source) / CLIP_SECONDS
    if isinstance(source, tuple):
        yield from _read_frames(*source, config, options)
        return
    with open_video(source, options.fps, options.track, fast=options.decode == FAST) as video:
        spans, shown, lacks = _spans(video.duration, options, video.facts["frames"], video.starts)
        at_once = max(1, min(CLIPS_AT_ONCE, PIXELS_AT_ONCE // (config.shape[1] * max(video.pixels, 1))))
        clips = video.clips(shown, config.shape[1])
        for i in range(0, len(spans), at_once):
            batch = spans[i : i + at_once]
            tensors = [torch.from_numpy(np.stack(frames)) for frames in islice(clips, at_once)]
            facts, assumed = ({} if i else video.facts | {"windows": len(spans)}), video_notes(video, options)
            views = _views(tensors, batch, config, options, facts, assumed)
            yield replace(views, warnings=() if i else lacks, began=video.began)


def video_notes(video: VideoFile | FrameFolder, options: VisionOptions) -> tuple[str, ...]:
    """Say what was assumed to open a video: a folder's rate and which of its files are frames, or which of several tracks it is."""
    notes: tuple[str, ...] = video.notes
    if isinstance(video, FrameFolder):
        rate = (f"folder of frames: {FPS} a second; --fps says otherwise",) if options.fps is None else ()
        others = (f"folder of frames: other files in the folder left out: {video.others}",) if video.others else ()
        notes = (*rate, *others, *notes)
    return notes


Windows = list[tuple[Fraction, Fraction]]


def _spans(
    duration: float, options: VisionOptions, frames: int | None, starts: Callable[[], Sequence[Fraction]]
) -> tuple[Windows, Windows, tuple[str, ...]]:
    """Return the windows of the requested part of a video, the stretches whose first and last frames are theirs, and in words what is missing.

    frames: how many there are; None if that is not known. starts: returns when each of them starts.

    Raises:
        ValueError: they would have to be shown for so long that a small file takes hours.
    """
    asked = duration if options.stretch is None else min(duration, options.stretch[1] or duration) - (options.stretch[0] or 0)
    if frames is not None and asked > SECONDS_A_FRAME * frames and options.clips is None and options.moment is None:
        raise ValueError(f"{frames:,} frames last {duration:,.0f} s according to the file; --clips N reads N windows of them")
    if options.adjacent is not None:
        begin, end, lacks = (Fraction(0), Fraction(duration), ()) if options.stretch is None else cut(options.stretch, duration)
        rate = None if options.adjacent == ALL_FRAMES else Fraction(options.adjacent)
        return *adjacent(starts(), begin, end, rate), lacks
    if options.stretch is None:
        spans = windows(duration, CLIP_SECONDS, options.clips, options.moment, options.hop)
        return spans, spans, ()
    begin, end, lacks = cut(options.stretch, duration)
    inside = windows(float(end - begin), CLIP_SECONDS, options.clips, options.moment, options.hop)
    spans = [(start + begin, stop + begin) for start, stop in inside]
    return spans, [(start, min(stop, end)) for start, stop in spans], lacks


def _read_frames(frames: np.ndarray, rate: float, config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    check_frames(frames, rate)
    times = range(len(frames))
    spans, shown, lacks = _spans(len(frames) / rate, options, len(frames), lambda: [time / Fraction(rate) for time in times])
    for number, span in enumerate(spans):
        first, stop = (time * Fraction(rate) for time in shown[number])
        chosen = seen(times, first, stop, config.shape[1])
        facts = {"size": [frames.shape[2], frames.shape[1]], "fps": rate, "frames": len(frames), "windows": len(spans)}
        views = _views([torch.from_numpy(frames[chosen])], [span], config, options, {} if number else facts)
        yield replace(views, warnings=() if number else lacks)


def check_frames(frames: np.ndarray, rate: float) -> None:
    """Refuse an array that is not frames (t, h, w, 3) uint8, and a rate that is not a number of them a second."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size or not 0 < rate < math.inf:
        raise ValueError(f"shape {frames.shape} of {frames.dtype} at {rate} a second; (frames, height, width, 3) of uint8 is needed")


def _views(
    clips: list[Tensor],
    spans: list[tuple[Fraction, Fraction]],
    config: EncoderConfig,
    options: VisionOptions,
    facts: dict[str, Any],
    notes: tuple[str, ...] = (),
) -> Sample:
    crops = int(options.crops) if options.view is None else 1
    if options.adjacent is not None and options.view is None:
        clips = [_scaled(clip, config) for clip in clips]
    views = torch.cat([clip_tensor(clip, config, crops, options.view) for clip in clips])
    return Sample(views, [span for span in seconds(spans) for _ in range(crops)], notes, facts)


def _scaled(frames: Tensor, config: EncoderConfig) -> Tensor:
    """Scale frames (t, h, w, 3) uint8 as pictures are: short side to the encoder's, bicubic and antialiased."""
    frames = frames[:, middle(*frames.shape[1:3]), middle(*frames.shape[2:0:-1])]
    return torch.from_numpy(np.stack([np.asarray(scale_short_side(Image.fromarray(frame), config.shape[-1])) for frame in frames.numpy()]))


def read_picture_or_video(source: Any, config: EncoderConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a picture or a video, whichever the file turns out to hold.

    Raises:
        OSError, ValueError: it holds neither.
    """
    if isinstance(source, tuple) or getattr(source, "ndim", 0) == 4:
        yield from read_video(source, config, options)
        return
    try:
        yield from read_picture(source, config, options)
        return
    except UnsupportedKind as error:
        raise ValueError(f"neither picture nor video: {error}") from None
    except ValueError as error:
        not_a_picture = error
    try:
        yield from read_video(source, config, options)
    except ValueError as error:
        raise ValueError(f"neither picture nor video: {not_a_picture}; {error}") from None


MODALITY = Modality(name="vision", readers={"image": read_picture, "video": read_video, "vision": read_picture_or_video})
