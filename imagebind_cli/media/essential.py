"""Picture files without the parts that no pixel depends on: text and profiles may be large or damaged, and Pillow then refuses the file."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from imagebind_cli.media.decoding import Source, opened

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # first bytes
FRAMES = b"acTL", b"fcTL", b"fdAT"  # chunks of animations
ORIENTATION = b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0"  # beginnings of text chunks that may say which way up the picture is
MAX_TEXT_BYTES = 1_000_000  # of such a chunk, unpacked; Pillow's own limit


def essential_png(source: Source, moving: bool = False, transparent: bool = False) -> BinaryIO:
    """Return a PNG file with its critical chunks, and those undamaged others that give its orientation.

    moving: keep an animation's frames, too, and their transparency. transparent: keep a still picture's, which may mark missing pixels.
    """
    with opened(source) as file:
        parts = [file.read(len(PNG))]
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind[:1].isupper() or (moving and kind in FRAMES) or not kind.isalpha():  # damaged ones, too, for the decoder to refuse
                parts += [head, file.read(length + 4)]
                if kind == b"IEND":
                    break
            elif kind in (b"tRNS", b"eXIf", b"iTXt", b"zTXt", b"tEXt") and length <= MAX_TEXT_BYTES:
                body = file.read(length + 4)
                if _is_whole(kind, body) and (moving or transparent if kind == b"tRNS" else _turns(kind, body[:-4])):
                    parts += [head, body]
            else:
                file.seek(length + 4, io.SEEK_CUR)
    return io.BytesIO(b"".join(parts))


def _is_whole(kind: bytes, body: bytes) -> bool:
    return body[-4:] == struct.pack(">I", zlib.crc32(kind + body[:-4]))


def _turns(kind: bytes, data: bytes) -> bool:
    """Check whether a chunk may give the picture's orientation."""
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
    """Return a JPEG file with, of its application segments and comments, only those that give the colour coding or the orientation."""
    with opened(source) as file:
        parts = [file.read(2)]
        while len(head := file.read(4)) == 4:
            length, marker = struct.unpack(">H", head[2:])[0] - 2, head[1]
            if head[0] != 0xFF or marker == 0xDA or length < 0:  # the start of the scan, or damage
                parts += [head, file.read()]
                break
            segment = file.read(length)
            least = {0xE0: 14, 0xE1: 14, 0xEE: 12}.get(marker, 0)  # bytes of a JFIF, EXIF and Adobe segment
            if length >= least if least else not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                parts += [head, segment]
    return io.BytesIO(b"".join(parts))
