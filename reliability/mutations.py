"""Damage to bytes: blind, and with the checksums and lengths of the container put right again, so that damage reaches the decoder."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    """Flip 1 to 16 bits."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def set_number(data: bytes, draw: random.Random) -> bytes:
    """Put a number at the edge of its type somewhere, mostly near the start, where headers are."""
    size = draw.choice((1, 2, 4, 8))
    place = draw.randrange(min(len(data), draw.choice((64, 512, len(data)))))
    number = draw.choice(NUMBERS) & ((1 << (8 * size)) - 1)
    return data[:place] + number.to_bytes(size, draw.choice(("little", "big"))) + data[place + size :]


def truncate(data: bytes, draw: random.Random) -> bytes:
    """Cut the end off."""
    return data[: draw.randrange(len(data))]


def remove(data: bytes, draw: random.Random) -> bytes:
    """Take a piece out."""
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randrange(1, 1 + max(1, len(data) // 4)) :]


def repeat(data: bytes, draw: random.Random) -> bytes:
    """Put a piece in once more, up to 64 times."""
    start = draw.randrange(len(data))
    piece = data[start : start + draw.randrange(1, 1 + max(1, len(data) // 8))]
    return data[:start] + piece * draw.choice((1, 2, 64)) + data[start:]


def blank(data: bytes, draw: random.Random) -> bytes:
    """Overwrite a piece with zeros, ones or noise."""
    start, length = draw.randrange(len(data)), draw.randrange(1, 1 + max(1, len(data) // 4))
    piece = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return (data[:start] + piece + data[start + length :])[: len(data)]


def in_png(data: bytes, draw: random.Random) -> bytes:
    """Damage one chunk of a PNG, inflated first where it holds pixels, and write its length and CRC anew."""
    if not data.startswith(b"\x89PNG"):
        return flip_bits(data, draw)
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    chosen = draw.randrange(len(chunks))
    kind, body = chunks[chosen]
    if kind == b"IDAT" and draw.random() < 0.5:
        try:
            body = zlib.compress(blind(zlib.decompress(body), draw))
        except zlib.error:
            body = blind(body, draw)
    else:
        body = blind(body, draw) if body else body
    chunks[chosen] = kind, body
    return data[:8] + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)


def in_zip(data: bytes, draw: random.Random) -> bytes:
    """Damage one member of a zip file (NPZ, a phone's export, a `.pth`) and write the archive anew around it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, zlib.error):
        return flip_bits(data, draw)
    chosen = draw.randrange(len(members))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for number, (name, body) in enumerate(members):
            archive.writestr(name, blind(body, draw) if number == chosen and body else body)
    return written.getvalue()


VALUES = (None, True, -1, 0, 1e308, 10**40, "", "\x1b[31m", "a" * 5000, [], {}, [[[]]], {"a": {}}, float("nan"), "../../x")


def in_json(data: bytes, draw: random.Random) -> bytes:
    """Replace, drop or duplicate one value of a JSON document, or of one line of it."""
    lines = data.splitlines(keepends=True)
    for whole in (data, draw.choice(lines) if lines else b""):
        try:
            document = json.loads(whole)
        except (ValueError, RecursionError):
            continue
        places = list(_places(document))
        if not places:
            continue
        holder, key = draw.choice(places)
        if draw.random() < 0.2:
            del holder[key]
        else:
            holder[key] = draw.choice((*VALUES, [holder[key]], str(holder[key])))
        written = json.dumps(document).encode()
        return written if whole is data else data.replace(whole, written + b"\n", 1)
    return blind(data, draw)


def _places(document: object) -> list[tuple[object, object]]:
    pairs = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [place for key, value in pairs for place in [(document, key), *_places(value)]]


BLIND = (flip_bits, flip_bits, set_number, set_number, truncate, remove, repeat, blank)


def blind(data: bytes, draw: random.Random) -> bytes:
    """Damage bytes without knowing what they are, one to three times."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice(BLIND)(data, draw) if data else data
    return data


AWARE: dict[str, Mutation] = {".png": in_png, ".npz": in_zip, ".zip": in_zip, ".pth": in_zip, ".json": in_json, ".jsonl": in_json}


def mutate(data: bytes, suffix: str, draw: random.Random) -> bytes:
    """Damage a file of a kind: half of the time as its container allows, where that is known here."""
    aware = AWARE.get(suffix)
    return aware(data, draw) if aware and draw.random() < 0.5 else blind(data, draw)
