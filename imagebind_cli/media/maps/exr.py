"""One channel of an OpenEXR file to a NumPy array, with the format's own library, which is an extra.

Its older interface is used: the newer one unpacks every channel, and prints on stdout, where our data goes, what is wrong with a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np

from imagebind_cli.media.decoding import Source, decoding, opened
from imagebind_cli.media.isolation import call_apart

MAGIC = b"\x76\x2f\x31\x01"
TYPES = {"HALF": np.float16, "FLOAT": np.float32, "UINT": np.uint32}
USUAL_CHANNELS = "Z", "Y"  # depth, and the name of a picture's only channel
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; the last two past the end


def read_exr(source: Source, channel: str | None, most: int) -> np.ndarray:
    """Call `read_channel` in a separate process, since damaged files crash OpenEXR.

    Raises:
        ValueError: the library is not installed, or as `read_channel`.
    """
    if find_spec("OpenEXR") is None:
        raise ValueError("an OpenEXR file, which needs another library: pip install 'imagebind-cli[exr]'")
    return call_apart("imagebind_cli.media.maps.exr:read_channel", source, channel, most)


def read_channel(source: Source, channel: str | None, most: int) -> np.ndarray:
    """Read a channel (h, w) of a file's first part, in its own number type: the one named, or the depth, or the only one.

    Pixels of the picture outside the file's data are NaN, or 0 in whole numbers.

    Raises:
        OSError, ValueError: the file cannot be read, has no such channel, or promises more than `most` pixels.
    """
    import OpenEXR

    with decoding("OpenEXR file"), opened(source) as stream:
        file = OpenEXR.InputFile(stream)
        header = file.header()
        names = header["channels"]
        channel = channel or _usual(names)
        if channel not in names:
            asked = f"no channel {channel}; it holds" if channel else "holds channels"
            raise ValueError(f"{asked} {', '.join(names)}; choose one with --dataset")
        kind, sampling = TYPES[str(names[channel].type)], (names[channel].xSampling, names[channel].ySampling)
        there, shown = (_rectangle(header[window]) for window in ("dataWindow", "displayWindow"))
        for left, top, right, bottom in (there, shown):
            if (right - left) * (bottom - top) > most:
                raise ValueError(f"{right - left} x {bottom - top} pixels; at most {most:,} are unpacked")
        if sampling != (1, 1):
            raise ValueError(f"channel {channel} has one value for {sampling[0]} x {sampling[1]} pixels; one value per pixel is needed")
        values = np.frombuffer(file.channel(channel), kind).reshape(there[3] - there[1], there[2] - there[0])
    return values if there == shown else _placed(values, there, shown)


def _usual(names: Iterable[str]) -> str | None:
    """Choose a channel where none is named: Z or Y, of a layer too, if it is the only one, or the only channel."""
    for usual in USUAL_CHANNELS:
        matching = [name for name in names if name.rpartition(".")[2] == usual]
        if usual in matching or len(matching) == 1:
            return usual if usual in matching else matching[0]
    only, *others = names
    return None if others else only


def _rectangle(window: Any) -> Rectangle:
    return window.min.x, window.min.y, window.max.x + 1, window.max.y + 1


def _placed(values: np.ndarray, there: Rectangle, shown: Rectangle) -> np.ndarray:
    """Place the values that are within the displayed picture."""
    picture = np.full((shown[3] - shown[1], shown[2] - shown[0]), np.nan if values.dtype.kind == "f" else 0, values.dtype)
    left, top, right, bottom = (edge(a, b) for edge, a, b in zip((max, max, min, min), there, shown, strict=True))
    if left < right and top < bottom:
        inside = values[top - there[1] : bottom - there[1], left - there[0] : right - there[0]]
        picture[top - shown[1] : bottom - shown[1], left - shown[0] : right - shown[0]] = inside
    return picture
