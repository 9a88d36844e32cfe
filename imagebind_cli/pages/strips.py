"""A whole recording as one strip under a time axis: its spectrogram, some of its frames, or its traces."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from PIL import Image

from imagebind_cli.media.audio.sound import Sound
from imagebind_cli.media.motion.recordings import read_recording
from imagebind_cli.media.video.clips import open_video
from imagebind_cli.pages.pictures import FFT_SECONDS, HIGHEST_HERTZ, RANGE_DECIBELS, painted
from imagebind_cli.pages.preview import TRACES

WIDTH, HEIGHT = 960, 72  # pixels
FRAMES = 12  # of a video

Times = tuple[float, float]


def strip(modality: str, path: str, times: Times) -> str:
    """Return the `data:` address of a picture of a recording, `WIDTH` pixels wide.

    Args:
        modality: one of `STRIPS`. times: the seconds at its left and right edge.
    Raises:
        OSError, ValueError: the file cannot be read.
    """
    file = io.BytesIO()
    STRIPS[modality](path, times).convert("RGB").save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _sound(path: str, times: Times) -> Image.Image:
    """Draw short spectra at even steps, 0 to 8 kHz upwards; only these are held, however long the sound is."""
    with Sound(path) as opened:
        rate = opened.rate
        length = max(16, int(FFT_SECONDS * rate))
        starts = ((times[0] + (np.arange(WIDTH) + 0.5) / WIDTH * (times[1] - times[0])) * rate).astype(np.int64)
        pieces = np.zeros((WIDTH, length), np.float32)
        held, at = np.empty(0, np.float32), 0
        for number, start in enumerate(starts.tolist()):
            stop = min(start + length, opened.length)
            if start >= stop:
                break
            reached = max(start, at + len(held))  # what is read again is kept, since a sound is read forwards
            fresh = opened.read(reached, stop)[0] if stop > reached else held[:0]
            held = np.concatenate([held[start - at :] if start < at + len(held) else fresh[:0], fresh])
            at = start
            pieces[number, : stop - start] = held[: stop - start]
    power = np.abs(np.fft.rfft(pieces * np.hanning(length))) ** 2
    decibels = 10 * np.log10(np.maximum(power[:, : max(2, int(HIGHEST_HERTZ * length / rate))].T[::-1], 1e-12))
    return Image.fromarray(painted(decibels.clip(decibels.max() - RANGE_DECIBELS), "iron")).resize((WIDTH, HEIGHT))


def _film(path: str, times: Times) -> Image.Image:
    sheet = Image.new("RGB", (WIDTH, HEIGHT))
    step, width = Fraction(times[1] - times[0]) / FRAMES, WIDTH // FRAMES
    with open_video(path) as video:
        last = Fraction(video.duration)
        middles = [min(Fraction(times[0]) + step * i + step / 2, last) for i in range(FRAMES)]
        spans = [(time, max(time + Fraction(1, 1000), min(time + step / 2, last))) for time in middles]
        for number, (pixels,) in enumerate(video.clips(spans, 1)):
            frame = Image.fromarray(pixels)
            frame.thumbnail((width, HEIGHT))
            sheet.paste(frame, (number * width, (HEIGHT - frame.height) // 2))
    return sheet


def _motion(path: str, times: Times) -> Image.Image:
    """Draw the accelerometer's readings: of each pixel's the smallest and the largest."""
    recording = read_recording(path)
    values = np.nan_to_num(recording.values[:, :3])
    known = recording.times
    places = np.arange(len(values)) / max(len(values), 1) if known is None else (known - times[0]) / (times[1] - times[0])
    columns = (places * WIDTH).astype(np.int64)
    low, high = float(values.min()), float(values.max())
    heights = ((high - values) / ((high - low) or 1) * (HEIGHT - 1)).astype(np.int64)
    sheet = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    inside = (columns >= 0) & (columns < WIDTH)
    for trace, colour in zip(heights.T, TRACES, strict=True):
        top, bottom = np.full(WIDTH, HEIGHT), np.full(WIDTH, -1)
        np.minimum.at(top, columns[inside], trace[inside])
        np.maximum.at(bottom, columns[inside], trace[inside])
        rows = np.arange(HEIGHT)[:, None]
        sheet[(rows >= top) & (rows <= bottom)] = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return Image.fromarray(sheet)


STRIPS: dict[str, Callable[[str, Times], Image.Image]] = {"audio": _sound, "video": _film, "vision": _film, "imu": _motion}
