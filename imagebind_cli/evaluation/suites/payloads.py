"""Inputs that are a part of a file. They are called in a decoding thread when their samples are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from imagebind_cli.media.motion.recordings import Recording

Box = tuple[int, int, int, int]  # left, top, right and bottom in pixels; right and bottom are outside

CLIP_SECONDS = 5
CLIP_RATE = 400
MARGIN_SECONDS = 0.5  # read on both sides of a clip, so that its ends are resampled from real neighbours


@dataclass(frozen=True)
class PictureCrop:
    """A part of an 8-bit grey picture; of a colour picture, its brightness."""

    path: Path
    box: Box

    def __call__(self) -> np.ndarray:
        """Read it, (h, w) uint8.

        Raises:
            OSError, ValueError: the picture cannot be read, or the box reaches outside it.
        """
        import numpy as np

        from imagebind_cli.media.image import open_image

        left, top, right, bottom = self.box
        picture = open_image(self.path)
        if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
            raise ValueError(f"{self.path} has {picture.width} x {picture.height} pixels; box {self.box} reaches outside")
        return np.asarray(picture.crop(self.box).convert("L"))


@dataclass(frozen=True)
class VideoFrame:
    """The frame of a video that is on screen at a second."""

    path: Path
    seconds: float

    def __call__(self) -> np.ndarray:
        """Read it, (h, w, 3) uint8.

        Raises:
            OSError, ValueError: the video cannot be read, or is shorter.
        """
        from fractions import Fraction

        from imagebind_cli.media.video.clips import open_video

        start = Fraction(self.seconds)
        with open_video(self.path) as video:
            return next(video.clips([(start, start + Fraction(1, 1000))], count=1))[0]


@dataclass(frozen=True)
class Frame:
    """One frame of a dataset in an HDF5 or MATLAB 7.3 file."""

    path: Path
    dataset: str
    number: int

    def __call__(self) -> np.ndarray:
        """Read it, (h, w).

        Raises:
            OSError, ValueError: it cannot be read.
        """
        from imagebind_cli.media.maps.formats import read_map

        return read_map(self.path, dataset=self.dataset, frame=self.number).values


@dataclass(frozen=True)
class RecordingClip:
    """Five seconds of a motion recording around a time in seconds on its own clock."""

    path: Path
    centre: float

    def __call__(self) -> np.ndarray:
        """Read it, (6, 2000): m/s² and rad/s at 400 Hz, zeros where the clip reaches past the recording.

        Raises:
            OSError, ValueError: the file cannot be read, or has no readings at this time.
        """
        import numpy as np

        from imagebind_cli.media.motion.columns import CHANNELS
        from imagebind_cli.media.motion.signals import resample, to_even_grid
        from imagebind_cli.options.imu import IMUOptions

        recording = _recording(self.path)
        if recording.times is None:
            raise ValueError("the recording has no timestamps")
        start = self.centre - CLIP_SECONDS / 2
        first, stop = np.searchsorted(recording.times, [start - MARGIN_SECONDS, start + CLIP_SECONDS + MARGIN_SECONDS])
        times = recording.times[first:stop]
        if len(times) < 2 or times[-1] < start or times[0] > start + CLIP_SECONDS:
            raise ValueError(f"no readings within {CLIP_SECONDS / 2:g} s of {self.centre:g} s")
        even, rate, _ = to_even_grid(times, recording.values[first:stop], IMUOptions().max_gap, CHANNELS)
        signal = resample(even.T, rate, CLIP_RATE)
        ahead = round((start - times[0]) * CLIP_RATE)
        clip = np.zeros((len(CHANNELS), CLIP_SECONDS * CLIP_RATE))
        inside = signal[:, max(ahead, 0) : ahead + clip.shape[1]]
        clip[:, max(-ahead, 0) : max(-ahead, 0) + inside.shape[1]] = inside
        return clip


_reading = Lock()


def _recording(path: Path) -> Recording:
    """Read a recording in m/s² and rad/s. Its clips come one after the other in several threads; it is read once."""
    with _reading:
        return _read(path)


@lru_cache(maxsize=2)
def _read(path: Path) -> Recording:
    from imagebind_cli.media.motion.recordings import in_standard_units, read_recording

    return in_standard_units(read_recording(path))
