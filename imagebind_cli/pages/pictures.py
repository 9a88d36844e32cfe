"""What of a file can be shown on a page: a small picture of anything, and the sound of what can be heard. As bytes that need no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from imagebind_cli.media.audio.sound import Sound
from imagebind_cli.media.image import read_image
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.palettes import ramp
from imagebind_cli.media.motion.recordings import read_recording
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.options import ThermalOptions
from imagebind_cli.pages.preview import grey, traces

SIDE = 240
"""Pixels of the longer side of a picture."""
SHORT_SECONDS, EXCERPT_SECONDS = 30, 10
"""A sound, or a stretch of one, up to the first is played whole; of a longer one so much of its beginning."""
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
WINDOW_SECONDS, HIGHEST_HERTZ, RANGE_DECIBELS = 0.025, 8000, 80

Span = tuple[float, float] | None
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """picture, sound: `data:` addresses. about: what is shown of the whole, in words."""

    picture: str
    sound: str | None = None
    about: str = ""


def show(modality: str, path: str, span: Span = None, options: Options = MappingProxyType({})) -> Shown:
    """A file, or of a longer one the seconds of `span`, read with the `options` it was embedded with.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    if modality == "audio":
        return _sound(path, span)
    return Shown(_picture_address(PICTURES[modality](path, span, options)))


def _image(path: str, span: Span, options: Options) -> Image.Image:
    return read_image(path)


def _video(path: str, span: Span, options: Options) -> Image.Image:
    """The frame in the middle."""
    with open_video(path) as video:
        start, end = (Fraction(time) for time in span or (0.0, video.duration))
        return Image.fromarray(next(video.clips([((start + end) / 2, end)], count=1))[0])


def _vision(path: str, span: Span, options: Options) -> Image.Image:
    try:
        return _image(path, span, options)
    except ValueError:
        return _video(path, span, options)


def _depth(path: str, span: Span, options: Options) -> Image.Image:
    found = read_map(path, dataset=options.get("dataset"), frame=options.get("frame", 0), colours=True)
    if found.values.ndim == 3:
        return Image.fromarray(found.values)
    known = found.known
    smallest = found.values[known].min() if known.any() else 0
    return Image.fromarray(_painted(np.where(known, found.values.astype(np.float64), smallest), "jet"))


def _thermal(path: str, span: Span, options: Options) -> Image.Image:
    """As the encoder sees it: in the range, from the dataset and by the palette that the options name."""
    from imagebind_cli.encoders import thermal

    own = {entry.name: options[entry.name] for entry in fields(ThermalOptions) if entry.name in options}
    scaled = thermal.scale(path, ThermalOptions(**own))[0]
    return Image.fromarray(ramp("iron")[(scaled * 255).round().astype(np.uint8)].round().clip(0, 255).astype(np.uint8))


def _imu(path: str, span: Span, options: Options) -> Image.Image:
    recording = read_recording(path)
    values, times = recording.values, recording.times
    if span is not None and times is not None:
        inside = (times >= span[0]) & (times < span[1])
        values = values[inside] if inside.any() else values
    return traces(np.nan_to_num(values).T)


PICTURES: dict[str, Callable[[str, Span, Options], Image.Image]] = {
    "image": _image,
    "video": _video,
    "vision": _vision,
    "depth": _depth,
    "thermal": _thermal,
    "imu": _imu,
}


def _painted(values: np.ndarray, palette: str) -> np.ndarray:
    return ramp(palette)[grey(values)].round().clip(0, 255).astype(np.uint8)


def _sound(path: str, span: Span) -> Shown:
    with Sound(path) as sound:
        whole = sound.length / sound.rate
        start, end = span or (0.0, whole)
        if end - start > SHORT_SECONDS:
            end = start + EXCERPT_SECONDS
        samples = sound.read(int(start * sound.rate), min(int(end * sound.rate), sound.length))[0]
        rate = sound.rate
    about = "" if end - start >= whole else f"{start:.1f} to {end:.1f} of {whole:.1f} s"
    return Shown(_picture_address(_spectrogram(samples, rate)), _sound_address(samples, rate), about)


def _spectrogram(samples: np.ndarray, rate: int) -> Image.Image:
    """Time to the right, 0 to 8 kHz up, the loudest bright, 80 dB below it black."""
    length = max(16, int(WINDOW_SECONDS * rate))
    padded = np.pad(samples, (0, max(0, length - len(samples))))
    starts = np.arange(SIDE) * (len(padded) - length) // (SIDE - 1)
    frames = padded[starts[:, None] + np.arange(length)] * np.hanning(length)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (times, frequencies)
    power = power[:, : max(2, int(HIGHEST_HERTZ * length / rate))].T[::-1]
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    return Image.fromarray(_painted(decibels.clip(decibels.max() - RANGE_DECIBELS), "iron")).resize((SIDE, SIDE // 2))


def _picture_address(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    return _address("image/jpeg", file.getvalue())


def _sound_address(samples: np.ndarray, rate: int) -> str:
    kind = "MP3" if rate in MP3_RATES and "MP3" in soundfile.available_formats() else "FLAC"
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), rate, format=kind)
    return _address("audio/mpeg" if kind == "MP3" else "audio/flac", file.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
