"""LanguageBind's preprocessing of pictures, videos, sounds, depth maps and text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, InputConfig, Sample, Span
from imagebind_cli.encoders import text
from imagebind_cli.encoders.audio import (
    FRAME,
    HOP,
    RATE,
    Levels,
    check_length,
    heard_channel,
    heard_rows,
    log_mel,
    open_sound,
    part_of_sound,
)
from imagebind_cli.encoders.depth import depth_unit, read_numbers, to_metres
from imagebind_cli.encoders.text import END
from imagebind_cli.encoders.vision import check_frames, normalise, stored_picture, video_notes
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.image import middle, upright
from imagebind_cli.media.resampling import Resampled
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.media.windows import Times, cut
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.options.depth import DepthOptions
from imagebind_cli.options.drawn import RECENT
from imagebind_cli.options.text import TextOptions
from imagebind_cli.options.thermal import ThermalOptions
from imagebind_cli.options.vision import VisionOptions
from imagebind_cli.region_samples import region_samples

FAILS = "the published code fails on such pictures"


def _square(plane: Tensor, size: int, resize: str) -> Tensor:
    """Scale a plane (h, w) so that its short side is `size`, bicubic, and cut out the middle, (size, size).

    As torchvision resizes tensors: release 0.14.1, to which the published code is pinned, without antialiasing, `recent` ones with it.
    """
    height, width = plane.shape
    short = min(height, width)
    if short != size:
        scaled = tuple(size if side == short else int(size * side / short) for side in (height, width))
        plane = F.interpolate(plane[None, None], size=scaled, mode="bicubic", align_corners=False, antialias=resize == RECENT)[0, 0]
    return _middle(plane, size)


def _middle(planes: Tensor, size: int) -> Tensor:
    """Cut the middle out of planes (…, h, w); half a pixel is rounded to the even one."""
    top, left = (round((side - size) / 2) for side in planes.shape[-2:])
    return planes[..., top : top + size, left : left + size]


def read_rgb_picture(
    source: Source | np.ndarray | Image.Image, config: InputConfig, options: VisionOptions | ThermalOptions
) -> Iterator[Sample]:
    """Read a picture file, a Pillow image, or an array (h, w, 3) or (h, w) uint8, as one clip; or regions of it. So are thermal pictures.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    if options.has_regions:
        picture, facts, taken = _rgb_picture(source, options)
        to_clip = partial(_picture_clip, config=config, options=options)
        yield from region_samples(picture, options, config.mean, to_clip, notes=_picture_notes(facts), facts=facts, began=taken)
    else:
        yield _picture_sample(source, config, options)


def _picture_sample(source: Any, config: InputConfig, options: VisionOptions | ThermalOptions) -> Sample:
    """Make the sample. Not inside `read_rgb_picture`, whose local variables, and so the picture in full size, would live until it is used."""
    picture, facts, taken = _rgb_picture(source, options)
    return Sample(_picture_clip(picture, config, options)[None], [None], _picture_notes(facts), facts, began=taken)


def _rgb_picture(source: Any, options: VisionOptions | ThermalOptions) -> tuple[Image.Image, dict[str, Any], datetime | None]:
    """Return a picture in RGB, upright, what is known of its file, and when it was taken."""
    if isinstance(source, np.ndarray) and source.ndim == 2:
        source = np.repeat(source[..., None], 3, axis=-1)
    stored, facts, taken = stored_picture(source)
    return upright(stored.copy() if isinstance(source, Image.Image) else stored, whole=options.has_regions), facts, taken


def _picture_clip(picture: Image.Image, config: InputConfig, options: VisionOptions | ThermalOptions) -> Tensor:
    """Turn a picture in RGB into the encoder's input (3, size, size)."""
    size = config.shape[-1]
    if options.view is not None:
        picture = options.view.picture(picture, size)
    # One channel after the other: in float32 a large picture takes four times its room.
    channels = (torch.from_numpy(np.array(channel)).float() / 255 for channel in picture.split())
    return normalise(torch.stack([_square(channel, size, options.resize) for channel in channels]), config)


def _picture_notes(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what was made of a picture on which the published code fails, or which it does not turn."""
    notes = []
    if facts["mode"] != "RGB":
        only = ", the upper 8 of their 16 bits" if facts["bits"] == 16 else ""
        notes.append(f"pictures of mode {facts['mode']} are read as RGB{only}; {FAILS}")
    if facts["orientation"] != 1:
        notes.append("pictures are turned upright as their EXIF orientation says, which the published code does not heed")
    return tuple(notes)


def read_metric_depth(source: Source | np.ndarray, config: InputConfig, options: DepthOptions) -> Iterator[Sample]:
    """Read a depth file in millimetres (whole numbers) or metres, or an array (h, w), as one clip: far is bright; or regions of it.

    Raises:
        OSError, ValueError: the file cannot be read, or holds no metric depth.
    """
    if options.has_regions:
        plane, notes, facts = _shares_of_farthest(source, config, options)
        yield from region_samples(
            plane, options, config.mean, partial(_depth_clip, config=config, options=options), notes=notes, facts=facts
        )
    else:
        yield _depth_sample(source, config, options)


METRIC = ("metres", "mm", "sunrgbd")
NEAREST = 0.01  # metres; nothing is nearer, so a pixel without depth, 0, is the nearest of all


def _depth_sample(source: Source | np.ndarray, config: InputConfig, options: DepthOptions) -> Sample:
    plane, notes, facts = _shares_of_farthest(source, config, options)
    plane = plane[middle(*plane.shape), middle(*plane.shape[::-1])]
    return Sample(_depth_clip(plane, config, options)[None], [None], notes, facts)


def _depth_clip(plane: np.ndarray, config: InputConfig, options: DepthOptions) -> Tensor:
    """Turn a map of shares of the farthest (h, w) into the encoder's input (3, size, size)."""
    if options.view is not None:
        plane = options.view.plane(plane, config.shape[-1]).copy()
    square = _square(torch.from_numpy(np.ascontiguousarray(plane, np.float32)), config.shape[-1], options.resize)
    return normalise(square.expand(3, -1, -1), config)


def _shares_of_farthest(
    source: Source | np.ndarray, config: InputConfig, options: DepthOptions
) -> tuple[np.ndarray, tuple[str, ...], dict[str, Any]]:
    """Return depth in shares of the farthest (h, w), what was assumed, in words, and facts about the file."""
    numbers = read_numbers(source, options)
    unit = depth_unit(numbers.values, options)
    if unit not in METRIC:
        raise ValueError(f"{unit} depth has no metres, which LanguageBind's depth tower takes")
    metres = to_metres(numbers.values, unit).astype(np.float32)
    known = numbers.known & (metres > 0)
    if not known.any():
        raise ValueError("no pixel has a depth")
    lifted = np.where(known, metres, 0).clip(min=NEAREST)
    farthest = np.float32(config.max_depth or lifted.max())
    notes = list(numbers.notes) if options.depth_format else [*numbers.notes, f"depth read as {unit}"]
    facts = {
        "size": list(metres.shape), "bits": 8 * numbers.values.dtype.itemsize, "unit": unit, "nearest": float(metres[known].min()),
        "farthest": float(metres[known].max()), "missing": 1 - float(known.mean()),
    }  # fmt: skip
    if not known.all():
        notes.append(f"pixels without depth are taken as {NEAREST} m away, as published")
    if float(np.median(metres[known])) > farthest:
        notes.append(f"most pixels lie beyond {farthest:g} m, where depth is cut off: is it really {unit}?")
    return np.minimum(lifted, farthest) / farthest, tuple(notes), facts


EVER = Fraction(10**9)  # seconds; later than any frame, also of a file that says less than it has


def read_whole_video(source: Any, config: InputConfig, options: VisionOptions) -> Iterator[Sample]:
    """Read a video file, an animated picture, a folder of frames, (frames (t, h, w, 3) uint8 in RGB, rate in Hz), or frames alone, as one clip.

    Its frames are evenly spaced from the first to the last of the whole, or of a stretch; a short one repeats some.

    Raises:
        OSError, ValueError: the file cannot be read, or the array has another shape.
    """
    if isinstance(source, np.ndarray | tuple):
        yield _frames_sample(source, config, options)
        return
    with open_video(source, options.fps, options.track) as video:
        begin, end, lacks = _part(options, video.duration)
        (frames,) = video.clips([(begin, EVER if end is None else end)], config.shape[1])
        facts = video.facts | {"windows": 1}
        assumed = video_notes(video, options) + _repeated(facts["frames"] if end is None else None, config)
        span = float(begin), float(video.duration if end is None else end)
        began = video.began
    yield Sample(_clip(frames, config, options), [span], assumed, facts, lacks, began=began)


def _frames_sample(source: np.ndarray | tuple[np.ndarray, float], config: InputConfig, options: VisionOptions) -> Sample:
    frames, rate = source if isinstance(source, tuple) else (source, None)
    check_frames(frames, 1.0 if rate is None else rate)
    count, first, stop = config.shape[1], 0, len(frames)
    lacks: tuple[str, ...] = ()
    span: Span = None if rate is None else (0.0, len(frames) / rate)
    if rate is not None:
        begin, end, lacks = _part(options, len(frames) / rate)
        if end is not None:
            first, stop = math.ceil(begin * Fraction(rate)), math.ceil(end * Fraction(rate))
            stop, span = max(stop, first + 1), (float(begin), float(end))
    chosen = [first + i * (stop - 1 - first) // max(count - 1, 1) for i in range(count)]
    facts = {"size": [frames.shape[2], frames.shape[1]], "fps": rate, "frames": len(frames), "windows": 1}
    return Sample(_clip([frames[i] for i in chosen], config, options), [span], _repeated(stop - first, config), facts, lacks)


def _part(options: VisionOptions, duration: float) -> tuple[Fraction, Fraction | None, tuple[str, ...]]:
    """Return when the requested part begins and ends, None for the end of the whole, and in words what of it is missing."""
    times: Times | None = options.stretch
    if options.moment is not None:
        times = options.moment.start, options.moment.end
    if times is None or times == (None, None):
        return Fraction(0), None, ()
    return cut(times, duration)


def _repeated(frames: int | None, config: InputConfig) -> tuple[str, ...]:
    note = f"videos of fewer than {config.shape[1]} frames show some of them twice or more, as published"
    return () if frames is None or frames >= config.shape[1] else (note,)


def _clip(frames: Sequence[np.ndarray], config: InputConfig, options: VisionOptions) -> Tensor:
    """Turn frames (h, w, 3) uint8 into one clip (1, 3, t, size, size): short side to size, bilinear and not antialiased, then the middle."""
    size = config.shape[-1]
    if options.view is not None:
        frames = [np.asarray(options.view.picture(Image.fromarray(frame), size)) for frame in frames]
    planes = []
    for frame in frames:
        kept = np.ascontiguousarray(frame[middle(*frame.shape[:2]), middle(*frame.shape[1::-1])].transpose(2, 0, 1))
        pixels = normalise(torch.from_numpy(kept).float() / 255, config)
        height, width = pixels.shape[1:]
        scaled = (math.floor(height / width * size), size) if width < height else (size, math.floor(width / height * size))
        planes.append(_middle(F.interpolate(pixels[None], size=scaled, mode="bilinear", align_corners=False)[0], size))
    return torch.stack(planes, dim=1)[None]


WHOLE_SECONDS = 300  # a sound of at most this length is read whole, as published; of a longer one only what is heard


def read_stretches(source: Any, config: InputConfig, options: AudioOptions) -> Iterator[Sample]:
    """Read a sound file, or (waveform (samples,) or (channels, samples) in [-1, 1], rate in Hz), or a waveform alone at 16 kHz, as one clip.

    Its three channels are three stretches of the log-mel energies of one channel: of a sound that is no longer than one, the same, repeated
    up to its length; else those in the middle of each third of all places where one can begin.

    Raises:
        OSError, ValueError: the file cannot be read, or is too short.
    """
    most = config.shape[-1]
    length = (most - 1) * HOP + FRAME  # samples of a stretch
    levels = Levels()
    with open_sound(source, options.track) as whole:
        if options.moment is not None:
            duration = whole.length / whole.rate
            first, last = options.moment.window(duration, length / RATE)
            options = replace(options, stretch=(float(first), min(float(last), duration)))
        sound, begin, lacks = part_of_sound(whole, options.stretch)
        check_length(sound)

        def rows(start: int, stop: int) -> Tensor:
            samples = sound.read(start, stop)
            levels.add(samples, heard_rows(samples, options.channels)[0])
            return torch.from_numpy(np.ascontiguousarray(samples))

        resampled = Resampled(rows, sound.length, sound.rate, RATE)
        frames = (resampled.length - FRAME) // HOP + 1
        places = stretch_places(frames, most)
        if resampled.length <= WHOLE_SECONDS * RATE:
            energies = _log_mel(resampled.read(0, resampled.length), config, options)
            stretches = [energies[:, place : place + most] for place in places]
        else:
            each = {place: _log_mel(samples, config, options) for place, samples in _stretches(resampled, sorted(set(places)), length)}
            stretches = [each[place] for place in places]
        notes: tuple[str, ...] = ()
        if frames < most:
            stretches = [stretch[:, torch.arange(most) % frames] for stretch in stretches]
            notes = (f"sounds of less than {length / RATE:g} s are repeated up to that length, as published",)
        elif frames > most:
            notes = (f"of sounds longer than {length / RATE:g} s the middle of each third is heard; the published code draws parts",)
        seconds = resampled.length / RATE
        facts = sound.facts | {"heard": options.channels, "windows": 1, "stretches": [place * HOP / RATE for place in places]}
        yield Sample(
            normalise(torch.stack(stretches), config)[None], [(float(begin), float(begin) + seconds)], sound.notes + notes, facts,
            (*sound.warnings, *lacks, *levels.warnings(options.channels)), began=whole.began,
        )  # fmt: skip


def _log_mel(samples: Tensor, config: InputConfig, options: AudioOptions) -> Tensor:
    """Return log-mel energies (bins, frames) of samples (channels, n), less the mean of all of them.

    In float64, as ImageBind's: the published float32 ones differ between processors by up to 1e-4 where a band holds little but rounding.
    """
    heard = heard_channel(samples, samples.mean(dim=0), options.channels)
    return log_mel(heard - samples.mean(), config.shape[1])


def stretch_places(frames: int, most: int) -> list[int]:
    """Return the frames at which the three stretches of `most` frames begin: the middle of each third of all places; 0 for an empty third."""
    if frames <= most:
        return [0, 0, 0]
    thirds = np.array_split(np.arange(frames - most + 1), 3)
    return [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]


def _stretches(resampled: Resampled, places: Sequence[int], length: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each place with its samples (channels, length), in the order of time; what two of them share is read once."""
    held, at = torch.empty(0, 0), 0
    for place in places:
        first, reached = place * HOP, at + held.shape[1]
        fresh = resampled.read(max(first, reached), first + length)
        held = torch.cat([held[:, first - at :], fresh], dim=1) if first < reached else fresh
        at = first
        yield place, held


def read_padded_text(source: str, config: EncoderConfig, options: TextOptions) -> Iterator[Sample]:
    """Read a sentence as ImageBind does, but fill it up with the end token, as published.

    Raises:
        ValueError: as `encoders.text.read_text`.
    """
    for sample in text.read_text(source, config, options):
        tokens = sample.tensor
        after = (tokens == END).flip(-1).cumsum(-1).flip(-1) == 0  # behind the last end token
        yield replace(sample, tensor=torch.where(after, config.padding, tokens))
