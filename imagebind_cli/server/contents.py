"""The inputs of a request: sentences, and files as `data:` addresses, as base64, or as names of files below the server's root."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.media.decoding import first_bytes
from imagebind_cli.media.image import APART, TIFF, identify
from imagebind_cli.options import ReadingOptions
from imagebind_cli.printable import printable
from imagebind_cli.server.limits import Limits
from imagebind_cli.sources import Failure, Stretch, as_sentence

DATA = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)  # base64 has no colon, but may begin with two slashes, as that of an MP3 does
FILE = "file:"
NAMED = frozenset({"centres"})  # reading options whose value may be the name of a file


@dataclass(frozen=True)
class Content:
    """An input of a request. payload: a sentence, the bytes of a file, or the path of one below the root. name: what answers call it."""

    modality: str
    payload: str | bytes | Path
    options: ReadingOptions
    name: str = ""
    start: float | None = None
    end: float | None = None

    def readable(self, limits: Limits) -> Any:
        """Return it as readers take it. Of bytes: a function that opens them, after a look at how many pixels they claim to be."""
        source: Any = str(self.payload) if isinstance(self.payload, Path) else self.payload
        if isinstance(source, bytes):
            source = partial(_open, source, self.modality, limits.pixels)
        return source if self.start is None and self.end is None else Stretch(source, self.start, self.end)


def _open(data: bytes, modality: str, most: int) -> io.BytesIO:
    check_pixels(data, modality, most)
    return io.BytesIO(data)


def check_pixels(data: bytes, modality: str, most: int) -> None:
    """Refuse a picture whose header claims more than `most` pixels. Those that are unpacked in a separate process have its limits.

    Raises:
        ValueError: it does.
    """
    file = io.BytesIO(data)
    start = first_bytes(file, 64)
    if registry.face(modality).drawn and (start.startswith(TIFF) or not APART.match(start)):  # others are unpacked in a separate process
        width = height = 0
        with suppress(OSError, ValueError):  # not a picture: its reader says why it cannot be read
            width, height = identify(file).size
        if width * height > most:
            raise ValueError(f"{width} x {height} pixels; this server unpacks at most {most:,}")


class Root:
    """The folder of the server's disk from which requests may name files, and whose pictures the page shows.

    Raises:
        UserError: it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            self.folder = Path(folder).resolve(strict=True)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}") from None
        if not self.folder.is_dir():
            raise UserError(f"{folder}: not a folder")

    def path(self, name: str) -> Path:
        """Return the path of a file, its links resolved.

        Raises:
            ValueError: there is no such file in the folder, wherever else it may be.
        """
        try:
            path = (self.folder / name).resolve()
            if path.is_relative_to(self.folder) and path.exists() and (path.is_file() or path.is_dir()):
                return path
        except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, a circle of links
            pass
        raise ValueError(f"{printable(name)}: no such file below the server's root")


def read_content(
    modality: str, value: Any, options: ReadingOptions, given: Mapping[str, Any], root: Root | None = None
) -> Content | Failure:
    """Read one input of a request.

    Args:
        value: a sentence, for other modalities a `data:` address, base64, or with a root `file:NAME`.
        options: from `requested_options`. given: may hold `start` and `end`, seconds; and `name`.
    Returns:
        The input; a failure if it is a sentence without words.
    Raises:
        ValueError, UserError: it is not such a value, with the reason.
    """
    face = registry.face(modality)
    if not isinstance(value, str):
        raise ValueError(f"{modality}: a string is needed, not {type(value).__name__}")
    start, end = given.get("start"), given.get("end")
    if start is not None or end is not None:
        if not face.timed:
            raise ValueError(f"{modality} has no seconds; start and end are of sounds, videos and motion recordings")
        stretch = Stretch(None, start, end)  # checks them
        start, end = stretch.start, stretch.end
    name = given.get("name") or ""
    if not isinstance(name, str):
        raise ValueError("name: a string is needed")
    if face.text:
        if match := DATA.match(value):
            kind = match[1].partition(";")[0] or "data"
            raise ValueError(f"a file ({kind}) where a sentence is needed; say what it is by its modality")
        sentence = as_sentence(value)
        return sentence if isinstance(sentence, Failure) else Content(modality, value, options, name or value)
    return Content(modality, content_of(value, root), options, name or modality, start, end)


def requested_options(modality: str, chosen: Any) -> ReadingOptions:
    """Return the reading options of a modality with those that a request chooses.

    Raises:
        ValueError, UserError: it does not have them, or one names a file.
    """
    if not isinstance(chosen, Mapping):
        raise ValueError("options: an object of names and values is needed")
    for name in NAMED.intersection(chosen):
        if re.fullmatch(r"[\d\s.,eE+-]*", str(chosen[name])) is None:
            raise ValueError(f"{name}: numbers are needed; files of the server are not read")
    return registry.face(modality).read_options(chosen)


def content_of(value: str, root: Root | None = None) -> bytes | Path:
    """Return the bytes of a `data:` address or of base64, or the path of `file:NAME`.

    Raises:
        ValueError: an address, which is not fetched; not base64; or a file that may not be read.
    """
    if value[: len(FILE)].lower() == FILE:
        if root is None:
            raise ValueError("this server reads no files by their names: it was started without --root; send the content")
        return root.path(value[len(FILE) :].removeprefix("//"))
    if ADDRESS.match(value):
        raise ValueError("addresses are not fetched; send the content: data:image/png;base64,…")
    if match := DATA.match(value[:210]):
        if not match[1].lower().replace(" ", "").endswith(";base64"):
            raise ValueError("a data: address without ;base64; its content must be in base64")
        value = value[match.end() :]
    elif value[:5].lower() == "data:":
        raise ValueError("a data: address without its comma")
    try:
        content = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"not base64: {printable(value[:40])!r}") from None
    if not content:
        raise ValueError("the file is empty")
    return content
