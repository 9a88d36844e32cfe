"""Check a FLAC file against itself: the rate, channels and bits of its frames against the header, and all samples against its MD5.

libFLAC compares each frame with its CRC-16, but neither of these. The layout is that of RFC 9639.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from imagebind_cli.media.decoding import Source, decoding, opened

MARK = b"fLaC"
RATES = {1: 88_200, 2: 176_400, 3: 192_000, 4: 8_000, 5: 16_000, 6: 22_050, 7: 24_000, 8: 32_000, 9: 44_100, 10: 48_000, 11: 96_000}
BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}  # both by a frame's code; codes that are not here refer to the header or give it elsewhere
NO_MD5 = bytes(16)


@dataclass(frozen=True)
class StreamInformation:
    """The header of a FLAC file. samples: in each channel. md5: of all samples; zeros where the encoder did not compute it."""

    rate: int
    channels: int
    bits: int
    samples: int
    md5: bytes


@decoding("sound")
def read_stream_information(source: Source) -> StreamInformation:
    """Read the header, and compare it with the first frame's.

    Raises:
        ValueError: they differ, or there is none.
    """
    with opened(source) as file:
        information, kind = None, b"\0"
        file.seek(len(MARK))
        while not kind[0] & 0x80:
            kind = file.read(4)
            if len(kind) < 4:
                raise ValueError("damaged: its header is incomplete")
            size = int.from_bytes(kind[1:], "big")
            if information is None and not kind[0] & 0x7F and size >= 34:
                data = file.read(size)
                packed = int.from_bytes(data[10:18], "big")
                information = StreamInformation(
                    packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1, data[18:34]
                )
            else:
                file.seek(size, 1)
        frame = file.read(4)
    if information is None or len(frame) < 4:
        raise ValueError("damaged: its header is incomplete")
    channels = frame[3] >> 4
    said = (
        ("Hz", information.rate, RATES.get(frame[2] & 15)),
        ("channels", information.channels, channels + 1 if channels < 8 else 2),
        ("bits", information.bits, BITS.get(frame[3] >> 1 & 7)),
    )
    for unit, header, own in said:
        if own not in (None, header):
            raise ValueError(f"damaged: its header says {header} {unit}, its first frame {own}")
    return information


class SampleHash:
    """The MD5 of a FLAC file's samples as they are decoded, compared with the header's after the last one."""

    def __init__(self, information: StreamInformation) -> None:
        self._information, self._left, self._hash = information, information.samples, hashlib.md5(usedforsecurity=False)

    def add(self, samples: np.ndarray) -> None:
        """Add samples (n, channels), int16 or int32, whose highest bits are the file's.

        Raises:
            ValueError: they were the last, and all of them do not match.
        """
        data, width = np.ascontiguousarray(samples).view(np.uint8).reshape(-1, samples.itemsize), -(-self._information.bits // 8)
        self._hash.update(np.ascontiguousarray(data[:, samples.itemsize - width :]).data)
        self._left -= len(samples)
        if self._left == 0 and self._information.md5 not in (NO_MD5, self._hash.digest()):
            raise ValueError("damaged: its samples do not match the MD5 in its header")
