"""Picture files without what no pixel depends on: text, profiles and the like may be large or damaged, and Pillow gives up over them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import BinaryIO

from imagebind_cli.media.decoding import Source

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
"""How they begin."""

FRAMES = b"acTL", b"fcTL", b"fdAT"
"""Of animations."""

ORIENTATION = b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0"
"""Beginnings of the text chunks that may say which way up the picture is."""

MAX_TEXT_BYTES = 1_000_000
"""Of such a chunk, unpacked; Pillow takes as much."""


def essential_png(source: Source, moving: bool = False, transparent: bool = False) -> BinaryIO:
    """A PNG file, its critical chunks as they are, and of the others those that are whole and say which way up it is.

    moving: keep an animation's frames, too, and their transparency. transparent: keep a still picture's, which may mark missing pixels.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return essential_png(file, moving, transparent)
    source.seek(0)
    kept = [source.read(len(PNG))]
    while len(head := source.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind[:1].isupper() or (moving and kind in FRAMES) or not kind.isalpha():  # what is damaged so stays for the decoder to refuse
            kept += [head, source.read(length + 4)]
            if kind == b"IEND":
                break
        elif kind in (b"tRNS", b"eXIf", b"iTXt", b"zTXt", b"tEXt") and length <= MAX_TEXT_BYTES:
            body = source.read(length + 4)
            if _is_whole(kind, body) and (moving or transparent if kind == b"tRNS" else _turns(kind, body[:-4])):
                kept += [head, body]
        else:
            source.seek(length + 4, io.SEEK_CUR)
    return io.BytesIO(b"".join(kept))


def _is_whole(kind: bytes, body: bytes) -> bool:
    return body[-4:] == struct.pack(">I", zlib.crc32(kind + body[:-4]))


def _turns(kind: bytes, data: bytes) -> bool:
    """Check whether a chunk may say which way up the picture is."""
    if kind == b"eXIf" or (kind != b"zTXt" and data.startswith(ORIENTATION)):
        return True
    if not data.startswith(ORIENTATION):
        return False
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(data[data.index(b"\0") + 2 :], MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def essential_jpeg(source: Source) -> BinaryIO:
    """A JPEG file, of its application segments and comments only those that say how its colours are coded or which way up it is."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return essential_jpeg(file)
    source.seek(0)
    kept = [source.read(2)]
    while len(head := source.read(4)) == 4:
        length, marker = struct.unpack(">H", head[2:])[0] - 2, head[1]
        if head[0] != 0xFF or marker == 0xDA or length < 0:  # the start of the scan, or damage
            kept += [head, source.read()]
            break
        segment = source.read(length)
        least = {0xE0: 14, 0xE1: 14, 0xEE: 12}.get(marker, 0)  # bytes of a JFIF, EXIF and Adobe segment
        if length >= least if least else not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept += [head, segment]
    return io.BytesIO(b"".join(kept))
