"""The samples of a shard: members that share a key, among them the prepared arrays of one or several modalities."""

from __future__ import annotations

import hashlib
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from imagebind_cli.checksums import DAMAGE, SEALED, check_seal
from imagebind_cli.descriptors import read_at
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.media.clock import parse_clock
from imagebind_cli.options import both_values
from imagebind_cli.registry import with_default_options

BESIDE = (
    "spans",
    "notes",
    "clocks",
    "regions",
    "sums",
)  # keys of a sample's JSON by modality; the others are its id and columns of its manifest
ENDINGS = {
    "image": "jpg jpeg png webp bmp gif tif tiff ppm",
    "audio": "wav flac ogg opus mp3 m4a aac",
    "video": "mp4 mkv webm mov avi",
    "text": "txt",
}
BY_ENDING = {ending: modality for modality, endings in ENDINGS.items() for ending in endings.split()}

SMALL = 65_536  # bytes up to which an excerpt is everything
BLOCKS, BLOCK = 16, 4096  # of larger members, how many blocks of how many bytes it takes


def _excerpt(size: int, read: Callable[[int, int], bytes]) -> bytes:
    """Return enough of `size` bytes to identify a member: all of a few; else their number, and blocks from the first to the last.

    Args:
        read: takes an offset and a number of bytes.
    """
    if size <= SMALL:
        return read(0, size)
    places = (number * (size - BLOCK) // (BLOCKS - 1) for number in range(BLOCKS))
    return size.to_bytes(8, "little") + b"".join(read(place, BLOCK) for place in places)


@dataclass(frozen=True)
class Member:
    """A member's bytes: in memory if they came through a pipe, else a file, an offset and a size."""

    name: str
    place: bytes | tuple[str, int, int]

    def read(self) -> bytes:
        """Read the member's bytes."""
        if isinstance(self.place, bytes):
            return self.place
        path, offset, size = self.place
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(size)

    def excerpt(self) -> bytes:
        """Return enough of its bytes to identify it, without reading all of a large member."""
        if isinstance(self.place, bytes):
            data = self.place
            return _excerpt(len(data), lambda start, count: data[start : start + count])
        path, offset, size = self.place
        with open(path, "rb", buffering=0) as file:
            return _excerpt(size, lambda start, count: read_at(file.fileno(), count, offset + start))

    def array(self) -> np.ndarray:
        """Read the array of a member that is a `.npy` file.

        Raises:
            ValueError: it is not one.
        """
        try:
            return np.lib.format.read_array(io.BytesIO(self.read()), allow_pickle=False)
        except Exception as error:
            raise ValueError(f"member {self.name}: not a readable array: {error}") from error


@dataclass(frozen=True)
class Rows:
    """Consecutive clips of a mapped file. rows: a view (clips, *shape) of it, read when it is accessed."""

    name: str
    rows: np.ndarray = field(repr=False, compare=False)

    def read(self) -> bytes:
        """Return the numbers as bytes."""
        return self.rows.tobytes()

    def excerpt(self) -> bytes:
        """See `Member.excerpt`."""
        data = self.rows.reshape(-1).view(np.uint8)
        return _excerpt(len(data), lambda start, count: data[start : start + count].tobytes())

    def array(self) -> np.ndarray:
        """Return a copy in memory."""
        return self.rows.copy()


@dataclass(frozen=True)
class Prepared:
    """One modality of a sample as its encoder takes it: arrays (clips, *shape) in time order, their spans, and their provenance.

    regions: of each clip that is a part of a picture or map, its `box`; [] where none is.
    began: the clock time of second 0, where the recording states it. sums: after each stretch, the `array_sum` of all up to it; None where an
    earlier version wrote them.
    """

    parts: Sequence[Member | Rows]
    spans: list[Any]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    began: datetime | None = None
    sums: Sequence[int] | None = None
    regions: Sequence[Mapping[str, Any]] = ()

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield each stretch as float32 (text: integers), in memory of its own.

        Raises:
            ValueError: a part is not an array of numbers, or does not match its checksum.
        """
        total = 0
        for number, part in enumerate(self.parts):
            array = part.array()
            if array.dtype.kind not in "fiu":
                raise ValueError(f"member {part.name} holds {array.dtype}; numbers are needed")
            if self.sums is not None:
                total = array_sum(array, total)
                # in a tar each stretch is a part; in an HDF5 file all are one
                if total not in (self.sums[number : number + 1] if len(self.parts) > 1 else self.sums[-1:]):
                    raise ValueError(f"damaged: {part.name} does not match its checksum; prepare this input again")
            yield array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)


def array_sum(array: np.ndarray, before: int = 0) -> int:
    """Return the CRC-32 of a stretch (clips, *shape). before: that of the stretches before it; of the first, type and shape count as well."""
    before = before or zlib.crc32(f"{array.dtype.str} {array.shape[1:]}".encode())
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, before)


@dataclass
class Entry:
    """All members of one key. fault: why they are ambiguous, in words."""

    key: str
    parts: dict[str, Member | Rows] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""

    def about(self) -> dict[str, Any]:
        """Read the sample's JSON without its checksums; empty where it has none.

        Raises:
            ValueError: it cannot be read, does not match its checksum, or the sample has a fault.
        """
        about = self._parsed()
        if self.provenance:  # JSON of others may have such keys of its own
            about.pop(SEALED, None)
            about.pop("sums", None)
        return about

    def _parsed(self) -> dict[str, Any]:
        if self.fault:
            raise ValueError(self.fault)
        if "json" not in self.parts:
            return {}
        try:
            text = self.parts["json"].read()
            value = parse_json(text)
            if self.provenance:
                check_seal(text)
        except ValueError as error:
            raise ValueError(f"its JSON is {error}" if str(error).startswith(DAMAGE) else f"its JSON is broken: {error}") from None
        return value if isinstance(value, dict) else {}

    def arrays(self, modality: str) -> list[Member | Rows]:
        """Return the prepared arrays of a modality, in the order they were written, the order of time."""
        return [part for name, part in self.parts.items() if re.fullmatch(rf"{modality}(\.\d+)?\.npy", name)]

    def media(self, modality: str) -> Member | Rows | None:
        """Return the member that is a modality's media file, or its sentence; None where there is none.

        Raises:
            ValueError: several may be it.
        """
        found = [part for name, part in self.parts.items() if name.startswith(f"{modality}.") or BY_ENDING.get(name) == modality]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(part.name for part in found)} may each be its {modality}; keep one")
        return found[0] if found else None

    def payload(self, modality: str, about: Mapping[str, Any]) -> Prepared | io.BytesIO | str | None:
        """Return one modality of this sample: prepared arrays, a media file in memory, or for text the sentence; None where it has none.

        Raises:
            ValueError: its spans or its sentence are broken, or several members may be it.
        """
        ours = self.arrays(modality)
        if ours and modality in self.provenance.get("inputs", {}):
            spans, notes = (_listed(about, name, modality) for name in ("spans", "notes"))
            if not all(span is None or (isinstance(span, list) and len(span) == 2) for span in spans):
                raise ValueError("its spans are broken")
            clocks = about.get("clocks")
            began = parse_clock(str(clocks.get(modality))) if isinstance(clocks, dict) else None
            parsed = self._parsed()
            sums = _listed(parsed, "sums", modality) if "sums" in parsed else None
            regions = about.get("regions")
            regions = regions.get(modality) if isinstance(regions, dict) else None
            if regions and not (len(regions) == len(spans) and all(isinstance(region, dict) for region in regions)):
                raise ValueError("its regions are broken")
            return Prepared(ours, spans, tuple(map(str, notes)), self.provenance, began, sums, regions or ())
        member = self.media(modality)
        if member is None:
            return None
        data = member.read()
        return _sentence(data) if modality == "text" else io.BytesIO(data)


def _listed(about: Mapping[str, Any], name: str, modality: str) -> list[Any]:
    found = about.get(name, {})
    found = found.get(modality, []) if isinstance(found, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"its {name} are broken")
    return found


def _sentence(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


Stretched = tuple[float | None, float | None]
# Start and end in seconds of what a sample is of.


def stretch_of(about: Mapping[str, Any]) -> Stretched:
    """Return the seconds of a recording that a sample covers, from its JSON or a manifest's row; None for the beginning or the end.

    A value that is not a number belongs to a column of another meaning.
    """
    try:
        return as_seconds(about.get("start")), as_seconds(about.get("end"))
    except ValueError:
        return None, None


def as_seconds(value: Any) -> float | None:
    """Read seconds from a number or its text; None where there is no value.

    Raises:
        ValueError: it is not a finite number.
    """
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value) + 0.0  # -0.0 is 0.0
    except (TypeError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a number of seconds")
    return seconds


def member_key(id: str) -> str:
    """Return the member key of an id: its last letters and digits, for people, and a hash, so that no two ids share one."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(id).stem)[-40:].strip("-")
    return f"{readable}-{hashlib.sha256(id.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}".strip("-")


def check_prepared_alike(path: Path, before: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Refuse to add samples to others of another provenance; the version of this program may differ.

    An option that a record lacks, because it did not exist yet, was at its default.

    Raises:
        UserError: the first difference, with both its values.
    """
    one, other = ({**record, "version": None, "inputs": _inputs_of(record)} for record in (before, provenance))
    differs = _difference(one, other)
    if differs is not None:
        name, theirs, ours = differs
        before_words, now_words = f"{name} {theirs!r}", repr(ours)
        if match := re.fullmatch(r"inputs\.(\w+)\.options\.(\w+)", name):
            before_words, now_words = both_values(match[2], theirs, ours)
            before_words += f" for {match[1]}"
        raise UserError(f"{path}: made with {before_words}; this run has {now_words}; write to another file")


def _inputs_of(record: Mapping[str, Any]) -> Any:
    """Return how each modality's samples were made, with options that did not exist then at their defaults."""
    inputs = record.get("inputs")
    if not isinstance(inputs, Mapping):
        return inputs
    return {
        name: {**made, "options": with_default_options(name, made.get("options"))} if isinstance(made, Mapping) else made
        for name, made in inputs.items()
    }


def _difference(one: Any, other: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return where two records differ first, as `inputs.audio.options.channels`, and the value of each."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return None if one == other else (name, one, other)
    inside = (_difference(one.get(key), other.get(key), f"{name}.{key}".lstrip(".")) for key in {**one, **other})
    return next((found for found in inside if found is not None), None)
