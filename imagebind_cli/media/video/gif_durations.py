"""How long each frame of a GIF file is shown, from its blocks; Pillow would draw every frame to find out."""

from __future__ import annotations

import io
from typing import BinaryIO

from imagebind_cli.media.decoding import Source, opened

EXTENSION, GRAPHIC_CONTROL, IMAGE, TRAILER = b"\x21", 0xF9, b"\x2c", b"\x3b"


def gif_durations(source: Source) -> list[int]:
    """Return milliseconds for each frame, 0 where the file does not say; up to where it is damaged."""
    durations: list[int] = []
    current = 0
    with opened(source) as file:
        _skip_palette(file, file.read(13)[10:11])
        while (block := file.read(1)) not in (b"", TRAILER):
            if block == EXTENSION:
                label, data = file.read(1), _next_data(file)
                if label and label[0] == GRAPHIC_CONTROL and len(data) >= 3:
                    current = 10 * int.from_bytes(data[1:3], "little")
                while data:
                    data = _next_data(file)
            elif block == IMAGE:
                _skip_palette(file, file.read(9)[8:9])
                file.read(1)  # bits of a code
                while size := file.read(1):
                    if size == b"\0":
                        break
                    file.seek(size[0], io.SEEK_CUR)
                durations.append(current)
                current = 0
    return durations


def _next_data(file: BinaryIO) -> bytes:
    size = file.read(1)
    return file.read(size[0]) if size else b""


def _skip_palette(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), io.SEEK_CUR)
