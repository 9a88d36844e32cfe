"""The pictures in a folder as the frames of a video, one after the other at a stated rate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from imagebind_cli.file_kinds import is_other
from imagebind_cli.media.decoding import decoding
from imagebind_cli.media.video.reading_order import read_clips
from imagebind_cli.media.windows import seen

FPS = 25  # frames a second where nothing says how many, as FFmpeg assumes for numbered pictures


class FrameFolder:
    """A folder of frames, with the interface of `Video`: its files in natural order of their names, `f2` before `f10`.

    Names that start with a dot, folders in it and files plainly of another kind are left out. The
    rate is exactly the decimal number `fps` is written as.

    others: how many files of another kind there are.

    Raises:
        OSError, ValueError: the folder cannot be read, holds no files or files of several endings, or its first frame cannot be read.
    """

    notes = ()
    began = None

    def __init__(self, folder: str | os.PathLike[str], fps: float, most_pixels: int) -> None:
        """most_pixels: of one frame; a larger one is refused."""
        self._folder, self._rate, self._most = os.fspath(folder), Fraction(str(fps)), most_pixels
        self._names = frame_names(self._folder)
        self.others = sum(is_other(name, ("image",)) for name in os.listdir(self._folder))
        endings = {os.path.splitext(name)[1].lower(): name for name in reversed(self._names)}
        if not endings:
            raise ValueError("holds no frames: there is no picture in this folder")
        if len(endings) > 1:
            first, second, *_ = sorted(endings.values())
            raise ValueError(f"files of several kinds ({first}, {second}); a folder of frames holds nothing else")
        self._starts = [number / self._rate for number in range(len(self._names))]
        self.duration = float(len(self._names) / self._rate)
        self._format = ""
        self._size: tuple[int, int] | None = None  # width, height
        self.pixels = self._frame(0).size // 3

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    @property
    def facts(self) -> dict[str, Any]:
        """What the folder holds."""
        return {
            "codec": self._format,
            "size": list(self._size or ()),
            "fps": float(self._rate),
            "variable_rate": False,
            "seconds": round(self.duration, 3),
            "frames": len(self._names),
            "rotation": 0,
            "mirrored": False,
            "pixel_aspect": "1:1",
        }

    def starts(self) -> list[Fraction]:
        """See `Video.starts`."""
        return self._starts

    def clips(self, spans: Sequence[tuple[Fraction, Fraction]], count: int) -> Iterator[list[np.ndarray]]:
        """See `Video.clips`; but a frame that cannot be read, or is of another size than the first, is an error with its name."""
        yield from read_clips([seen(self._starts, start, end, count) for start, end in spans], self._frame)

    @decoding("picture")
    def _frame(self, number: int) -> np.ndarray:
        from imagebind_cli.media.image import open_image, upright  # only here: a list of inputs imports no Pillow

        name = self._names[number]
        try:
            with open(os.path.join(self._folder, name), "rb") as file:  # closed at once, also where its picture is broken
                image = open_image(file, self._most)
            self._format = self._format or (image.format or "").lower()
            image = upright(image)
            self._size = self._size or image.size
            if image.size != self._size:
                raise ValueError(" x ".join(map(str, image.size)) + " pixels, the first frame " + " x ".join(map(str, self._size)))
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
        return np.asarray(image)


def frame_names(folder: str) -> list[str]:
    """Return the names of a folder's files, without those plainly of another kind, in natural order: runs of digits count as numbers."""
    with os.scandir(folder) as entries:
        names = [
            entry.name for entry in entries if entry.is_file() and not (entry.name.startswith(".") or is_other(entry.name, ("image",)))
        ]
    return sorted(names, key=lambda name: ([int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name))
