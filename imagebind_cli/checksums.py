"""CRC-32 checksums of the content of files, so that a flipped bit is reported: alone, as the last key of a JSON object, or at the end of a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SEALED = "crc32"
DAMAGE = "damaged or edited: its bytes do not match the checksum in its last key, crc32; if it was edited on purpose, remove that key"
SEAL = ', "crc32": "{:08x}"}}'  # ends the text of a sealed object
START, LENGTH = b', "crc32": "', len(SEAL.format(0))
END, MARK = struct.Struct("<4sI"), b"\ncrc"  # what `append_checksum` adds: a mark, and the sum


def checksum(parts: Iterable[Any]) -> int:
    """Return the CRC-32 of several parts, each bytes or an array, never 0, which means none."""
    total = 0
    for part in parts:
        total = zlib.crc32(part, total)
    return total or 1


def seal(text: str) -> str:
    """Add the key `crc32` to the text of a JSON object that has other keys."""
    body = text.rstrip()[:-1].rstrip()
    return body + SEAL.format(zlib.crc32(body.encode()))


def check_seal(text: str | bytes) -> bool:
    """Compare the text of a JSON object with its last key `crc32`; return False if it has none, as of an earlier version.

    Raises:
        ValueError: it does not match.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    end = len(data) - data.endswith(b"\n")
    cut = max(0, end - LENGTH)
    if not data.startswith(START, cut):
        return False
    if data[cut + len(START) : end] != b'%08x"}' % zlib.crc32(memoryview(data)[:cut]):  # of millions of lines
        raise ValueError(DAMAGE)
    return True


def append_checksum(path: Path) -> None:
    """Add the CRC-32 of a file's bytes to its end, where readers of NPY ignore it."""
    with open(path, "r+b") as file:
        data = file.read()
        file.write(END.pack(MARK, zlib.crc32(data)))


def check_appended(path: Path) -> None:
    """Compare a file's bytes with the CRC-32 at its end, if it has one.

    Raises:
        ValueError: they do not match. OSError: the file cannot be read.
    """
    data = path.read_bytes()
    mark, total = END.unpack(data[-END.size :]) if len(data) > END.size else (b"", 0)
    if mark == MARK and zlib.crc32(data[: -END.size]) != total:
        raise ValueError("damaged: its bytes do not match the checksum at their end")
