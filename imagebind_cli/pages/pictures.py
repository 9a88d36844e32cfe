"""A small picture of any file, and its sound if it has one, as bytes embedded in a page.

`registry.PAGE_PICTURES` names the function for each modality. Each takes (path, span, options), as `picture` does.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from imagebind_cli.media.audio.sound import Sound
from imagebind_cli.media.image import open_image, upright
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.palettes import ramp
from imagebind_cli.media.motion.recordings import read_recording
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.options.thermal import ThermalOptions
from imagebind_cli.pages.preview import grey, traces
from imagebind_cli.registry import PAGE_PICTURES
from imagebind_cli.sources import Stretch

SIDE = 240  # pixels of the longer side of a picture
SHORT_SECONDS, EXCERPT_SECONDS = 30, 10  # sounds up to the first are played whole; of longer ones, so much of the beginning
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FFT_SECONDS, HIGHEST_HERTZ, RANGE_DECIBELS = 0.025, 8000, 80

Span = tuple[float, float] | None
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """A file as a page shows it. image, sound: `data:` addresses. about: which part of the file is shown, in words.

    size: width and height of the whole picture, upright, where it is one.
    """

    image: str
    sound: str | None = None
    about: str = ""
    size: tuple[int, int] | None = None


def picture(modality: str, path: str, span: Span = None, options: Options = MappingProxyType({})) -> Picture:
    """Return the picture or sound that a page shows of a file, or of some seconds of a longer one.

    Args:
        modality: one of `registry.PAGE_PICTURES`. span: start and end in seconds. options: how the file was read when it was embedded.
    Raises:
        OSError, ValueError: the file cannot be read.
    """
    module, _, function = PAGE_PICTURES[modality].partition(":")
    made: Picture = getattr(import_module(module), function)(path, span, options)
    return made


def seconds_shown(source: str | Stretch, span: Span) -> Span:
    """Return the seconds to show of a source: those of a window, else those of a stretch; None for the whole."""
    if span is not None or not isinstance(source, Stretch):
        return span
    start = source.start or 0.0
    return start, start + EXCERPT_SECONDS if source.end is None else source.end


def photo(path: str, span: Span, options: Options) -> Picture:
    """Show a picture."""
    return _of(upright(open_image(path), whole=True))


def film(path: str, span: Span, options: Options) -> Picture:
    """Show the frame in the middle."""
    with open_video(path) as video:
        start, end = (Fraction(time) for time in span or (0.0, video.duration))
        return _of(Image.fromarray(next(video.clips([((start + end) / 2, end)], count=1))[0]))


def photo_or_film(path: str, span: Span, options: Options) -> Picture:
    """Show a picture, or a frame of a video."""
    try:
        return photo(path, span, options)
    except ValueError:
        return film(path, span, options)


def depth_map(path: str, span: Span, options: Options) -> Picture:
    """Show a map in false colours, from its smallest to its largest value."""
    found = read_map(path, dataset=options.get("dataset"), frame=options.get("frame", 0), colours=True)
    if found.values.ndim == 3:
        return _of(Image.fromarray(found.values))
    known = found.known
    smallest = found.values[known].min() if known.any() else 0
    return _of(Image.fromarray(painted(np.where(known, found.values.astype(np.float64), smallest), "jet")))


def thermal_map(path: str, span: Span, options: Options) -> Picture:
    """Show a map as the encoder sees it: in the range, from the dataset and by the palette that the options name."""
    from imagebind_cli.encoders import thermal

    known = {entry.name: options[entry.name] for entry in fields(ThermalOptions) if entry.name in options}
    scaled = thermal.scale(path, ThermalOptions(**known))[0]
    return _of(Image.fromarray(ramp("iron")[(scaled * 255).round().astype(np.uint8)].round().clip(0, 255).astype(np.uint8)))


def motion(path: str, span: Span, options: Options) -> Picture:
    """Show the traces of a motion recording."""
    recording = read_recording(path)
    values, times = recording.values, recording.times
    if span is not None and times is not None:
        inside = (times >= span[0]) & (times < span[1])
        values = values[inside] if inside.any() else values
    return _of(traces(np.nan_to_num(values).T))


def sound(path: str, span: Span, options: Options) -> Picture:
    """Show the spectrogram of a sound, with a player."""
    with Sound(path) as opened:
        length = opened.length / opened.rate
        start, end = span or (0.0, length)
        if end - start > SHORT_SECONDS:
            end = start + EXCERPT_SECONDS
        samples = opened.read(int(start * opened.rate), min(int(end * opened.rate), opened.length))[0]
        rate = opened.rate
    about = "" if end - start >= length else f"{start:.1f} to {end:.1f} of {length:.1f} s"
    return Picture(_picture_address(_spectrogram(samples, rate)), _sound_address(samples, rate), about)


def _of(image: Image.Image) -> Picture:
    size = image.size
    return Picture(_picture_address(image), size=size)


def painted(values: np.ndarray, palette: str) -> np.ndarray:
    """Return values in a palette, (h, w, 3) uint8: the smallest in its first colour, the largest in its last."""
    return ramp(palette)[grey(values)].round().clip(0, 255).astype(np.uint8)


def _spectrogram(samples: np.ndarray, rate: int) -> Image.Image:
    """Draw time to the right and 0 to 8 kHz upwards; the loudest is bright, 80 dB below it is black."""
    length = max(16, int(FFT_SECONDS * rate))
    padded = np.pad(samples, (0, max(0, length - len(samples))))
    starts = np.arange(SIDE) * (len(padded) - length) // (SIDE - 1)
    frames = padded[starts[:, None] + np.arange(length)] * np.hanning(length)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (times, frequencies)
    power = power[:, : max(2, int(HIGHEST_HERTZ * length / rate))].T[::-1]
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    return Image.fromarray(painted(decibels.clip(decibels.max() - RANGE_DECIBELS), "iron")).resize((SIDE, SIDE // 2))


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
