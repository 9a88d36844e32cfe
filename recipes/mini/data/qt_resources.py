"""Read Qt's binary resource files (`.rcc`), in which gcompris-qt-data keeps its recordings; sounds.py uses it.

The format, versions 1 to 3: a header (`qres`, then version and the offsets of tree, data and names, as big-endian 32-bit numbers); a tree of
nodes, the children of a folder in a row; names as a length, a hash and UTF-16; data as a length and bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

COMPRESSED, FOLDER = 1, 2  # flags of a node; compressed here means zlib


def resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file in a resource file.

    Raises:
        ValueError: it is not a Qt resource file.
    """
    content = path.read_bytes()
    if content[:4] != b"qres":
        raise ValueError(f"{path}: not a Qt resource file")
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    size = 14 if version < 2 else 22  # from version 2 on with the time of change

    def below(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        name_at, flags = struct.unpack_from(">IH", content, tree + node * size)
        length = struct.unpack_from(">H", content, names + name_at)[0]
        name = content[names + name_at + 6 :][: 2 * length].decode("utf-16-be") if node else ""  # the root has no name
        place = f"{folder}/{name}" if name else folder
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", content, tree + node * size + 6)
            for child in range(first, first + count):
                yield from below(child, place)
        else:
            at = data + struct.unpack_from(">I", content, tree + node * size + 10)[0]
            length = struct.unpack_from(">I", content, at)[0]
            body = content[at + 4 : at + 4 + length]
            # four bytes of the size before the zlib stream
            yield place.lstrip("/"), zlib.decompress(body[4:]) if flags & COMPRESSED else body

    yield from below(0, "")
