"""PNG files without the chunks that no pixel depends on: text, profiles and the like may be large or damaged (PNG specification, section 4.3)."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import BinaryIO

from imagebind_cli.media.decoding import Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"

FRAMES = b"acTL", b"fcTL", b"fdAT"
"""Of animations."""

ORIENTATION = b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0"
"""Beginnings of the text chunks that may say which way up the picture is."""

MAX_TEXT_BYTES = 1_000_000
"""Of such a chunk, unpacked; Pillow takes as much."""


def essential(source: Source, moving: bool = False) -> BinaryIO:
    """A PNG file, its critical chunks as they are, and of the others those that are whole and say how the picture is to be seen.

    moving: keep an animation's frames, too.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return essential(file, moving)
    source.seek(0)
    kept = [source.read(len(SIGNATURE))]
    while len(head := source.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind[:1].isupper() or (moving and kind in FRAMES) or not kind.isalpha():  # what is damaged so stays for the decoder to refuse
            kept += [head, source.read(length + 4)]
            if kind == b"IEND":
                break
        elif kind in (b"tRNS", b"eXIf", b"iTXt", b"zTXt", b"tEXt") and length <= MAX_TEXT_BYTES:
            body = source.read(length + 4)
            if _is_whole(kind, body) and _is_for_sight(kind, body[:-4]):
                kept += [head, body]
        else:
            source.seek(length + 4, io.SEEK_CUR)
    return io.BytesIO(b"".join(kept))


def _is_whole(kind: bytes, body: bytes) -> bool:
    return body[-4:] == struct.pack(">I", zlib.crc32(kind + body[:-4]))


def _is_for_sight(kind: bytes, data: bytes) -> bool:
    """Whether a chunk is transparency, or may say which way up the picture is."""
    if kind in (b"tRNS", b"eXIf"):
        return True
    if not data.startswith(ORIENTATION):
        return False
    if kind != b"zTXt":
        return True
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(data[data.index(b"\0") + 2 :], MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail
