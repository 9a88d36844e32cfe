"""Netpbm's grey maps (PGM and PAM), with the numbers unscaled.

Pillow scales a map whose largest value is neither 255 nor 65535 to fill the type, so that millimetres would no longer be millimetres.
"""

from __future__ import annotations

import re

import numpy as np

from imagebind_cli.media.decoding import Source, decoding, opened

GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
GREY_MAP = re.compile(rb"P([25])" + GAP + rb"(\d{1,9})" + GAP + rb"(\d{1,9})" + GAP + rb"(\d{1,9})\s")
COLOUR_MAP = re.compile(rb"P[36]" + GAP + rb"\d{1,9}" + GAP + rb"\d{1,9}" + GAP + rb"(\d{1,9})\s")
ARBITRARY_MAP = re.compile(rb"P7\s.*?ENDHDR[ \t]*\r?\n", re.DOTALL)
LONGEST_NUMBER = 16  # bytes of one number in a plain-text map, with the space around it and its share of comments


def read_netpbm(source: Source, most: int) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Read the numbers (h, w) of a PGM file, or of a PAM file with one channel, uint8 or uint16, and what was assumed.

    Args:
        most: pixels that are unpacked.
    Returns:
        None for every other file.
    Raises:
        OSError, ValueError: the file cannot be read, promises more, or ends early.
    """
    with decoding("PGM file"), opened(source) as file:
        start = file.read(4096)
        if header := GREY_MAP.match(start):
            plain = header[1] == b"2"
            width, height, largest = (int(number) for number in header.groups()[1:])
        elif header := ARBITRARY_MAP.match(start):
            plain, fields = False, dict(re.findall(rb"^(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,9})\s*$", header[0], re.MULTILINE))
            width, height, channels, largest = (int(fields.get(name, 0)) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
            if channels != 1:
                raise ValueError(f"a PAM file of {channels} channels; one value per pixel is needed")
        else:
            return None
        if not 0 < largest < 65536:
            raise ValueError(f"a largest value of {largest}; 1 to 65535 is needed")
        if width * height > most:
            raise ValueError(f"{width} x {height} pixels; at most {most:,} are unpacked")
        kind = np.dtype(">u2" if largest > 255 else "u1")
        file.seek(header.end())
        if plain:
            text = re.sub(rb"#[^\r\n]*", b"", file.read(LONGEST_NUMBER * width * height + 65536)).strip()
            if not re.fullmatch(rb"[\d\s]*", text):
                raise ValueError("holds something other than numbers after its header")
            values = np.fromstring(text, np.int64, sep=" ")[: width * height]
        else:
            data = file.read(width * height * kind.itemsize)
            values = np.frombuffer(data, kind, len(data) // kind.itemsize)
        if len(values) < width * height:
            raise ValueError(f"ends after {len(values):,} of {width * height:,} pixels")
        if plain and values.size and not 0 <= values.min() <= values.max() <= np.iinfo(kind).max:
            raise ValueError(f"holds numbers from {values.min()} to {values.max()}; its header says at most {largest}")
    notes = (f"grey levels taken as they stand, though the file's white is {largest}",) if largest < 255 else ()
    return values.astype(kind.newbyteorder("=")).reshape(height, width), notes
