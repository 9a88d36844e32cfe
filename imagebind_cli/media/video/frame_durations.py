"""Find how long each frame of a GIF, WebP or PNG file is shown, from its blocks; Pillow would draw every frame to find out."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from imagebind_cli.media.decoding import Source, opened
from imagebind_cli.media.essential import PNG

EXTENSION, GRAPHIC_CONTROL, IMAGE, TRAILER = b"\x21", 0xF9, b"\x2c", b"\x3b"


def frame_durations(source: Source) -> list[int]:
    """Return milliseconds for each frame, 0 where the file does not say; up to where it is damaged, and none for other formats."""
    with opened(source) as file:
        start = file.read(12)
        file.seek(0)
        if start.startswith(b"GIF8"):
            return list(_of_gif(file))
        if start.startswith(PNG):
            return list(_of_png(file))
        return list(_of_webp(file)) if start[8:] == b"WEBP" else []


def _of_gif(file: BinaryIO) -> Iterator[int]:
    duration = 0
    _skip_palette(file, file.read(13)[10:11])
    while (block := file.read(1)) not in (b"", TRAILER):
        if block == EXTENSION:
            label, data = file.read(1), _next_data(file)
            if label and label[0] == GRAPHIC_CONTROL and len(data) >= 3:
                duration = 10 * int.from_bytes(data[1:3], "little")
            while data:
                data = _next_data(file)
        elif block == IMAGE:
            _skip_palette(file, file.read(9)[8:9])
            file.read(1)  # bits of a code
            while (size := file.read(1)) not in (b"", b"\0"):
                file.seek(size[0], io.SEEK_CUR)
            yield duration
            duration = 0


def _of_png(file: BinaryIO) -> Iterator[int]:
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"fcTL":
            numerator, denominator = struct.unpack(">HH", file.read(length + 4)[20:24].ljust(4, b"\0"))
            yield round(1000 * numerator / (denominator or 100))
        else:
            file.seek(length + 4, io.SEEK_CUR)


def _of_webp(file: BinaryIO) -> Iterator[int]:
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        content = file.read(16) if kind == b"ANMF" else b""
        if content:
            yield int.from_bytes(content[12:15], "little")
        file.seek(length + length % 2 - len(content), io.SEEK_CUR)


def _next_data(file: BinaryIO) -> bytes:
    size = file.read(1)
    return file.read(size[0]) if size else b""


def _skip_palette(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), io.SEEK_CUR)
