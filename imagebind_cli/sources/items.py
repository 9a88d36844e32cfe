"""The inputs, item by item: an input, a stretch of one, or the reason why it cannot be used."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagebind_cli.media.regions import Region
from imagebind_cli.prepared import as_seconds
from imagebind_cli.registry import face
from imagebind_cli.store import UNKNOWN, Stamp


@dataclass(frozen=True)
class Item:
    """One input. It passes through the pipeline with everything that belongs to it, and comes out with its result.

    payload: a path, for text the sentence itself, from a shard an open file in memory or `Prepared` arrays, bytes, a row or a picture
    (`in_memory.as_source`), a function that gives one of these or an array, or a `Stretch` or `Regions` of one; where several modalities
    were asked for, such a thing for each by name. None for what could not be named. meta: the other columns of its manifest row. stamp: what
    the input was when it was taken up, for a store to recognise it by.
    """

    id: str
    payload: Any
    meta: dict[str, Any] = field(default_factory=dict)
    stamp: Stamp = UNKNOWN


@dataclass(frozen=True)
class Stretch:
    """A part of a sound, a video or a motion recording. It equals a file cut to that part: nothing else is read.

    source: what the whole is read from. start, end: seconds of the file, of motion on the recording's own clock, as numbers or their text;
    None for the beginning, and for the end.

    Raises:
        ValueError: they are not seconds, or not in this order.
    """

    source: Any
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        try:
            start, end = as_seconds(self.start), as_seconds(self.end)
            if not 0 <= (start or 0.0) < (math.inf if end is None else end):
                raise ValueError
        except ValueError:
            given = ", ".join(f"{name} {value!r}" for name in ("start", "end") if (value := getattr(self, name)) is not None)
            raise ValueError(
                f"start and end are seconds of 0 or more, such as 90.5, with the start before the end; this has {given}"
            ) from None
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "end", end)

    @property
    def label(self) -> str:
        """`#10-15.5`, which distinguishes it from others of the same file; `#10-` without an end, `#-15.5` without a start."""
        start, end = ("" if time is None else str(time).removesuffix(".0") for time in (self.start, self.end))
        return f"#{start}-{end}"


@dataclass(frozen=True)
class Regions:
    """Regions of a picture or map, each of which is embedded as a picture of its own.

    source: what the whole is read from. regions: each a `media.regions.Region`, or a box: x, y, width and height in pixels of the upright picture.
    """

    source: Any
    regions: Sequence[Region | Sequence[float]]

    def __post_init__(self) -> None:
        checked = tuple(region if isinstance(region, Region) else Region(region) for region in self.regions)
        object.__setattr__(self, "regions", checked)


def whole_source(source: Any) -> Any:
    """Return the source of a stretch or of regions; any other source unchanged."""
    return source.source if isinstance(source, Stretch | Regions) else source


def stretched(source: Any, modality: str, about: Mapping[str, Any]) -> Any:
    """Return the source of a row, or the stretch of it that the row's `start` and `end` give.

    Raises:
        ValueError: as `Stretch`.
    """
    start, end = about.get("start"), about.get("end")
    return source if (start is None and end is None) or not face(modality).timed else Stretch(source, start, end)


@dataclass(frozen=True)
class Failure:
    """One input that could not be embedded, and why, in words."""

    id: str
    reason: str


def as_sentence(text: str) -> Item | Failure:
    """Return a sentence as an item. One without words is a failure, since its vector would mean nothing."""
    if not html.unescape(text).strip():
        return Failure(text, "an empty sentence: there are no words to embed")
    return Item(text, text)


def reason(error: BaseException) -> str:
    """Return why an input failed, in one line, without its name, which the caller prints."""
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return " ".join(str(error).split()) or type(error).__name__


Modalities = tuple[str, ...]  # to read of each input: nearly always one


def are_sentences(modalities: Modalities) -> bool:
    """Check whether an input is a sentence itself, and not the name of a file."""
    return len(modalities) == 1 and face(modalities[0]).text


# Decides, before anything else, whether to skip a file found in a folder or named on a line, because it is done.
Skips = Callable[[str], bool]


def kept_beside(item: Item, modalities: Modalities) -> dict[str, Any]:
    """Return the data stored beside an item's id: the rest of its row, and by modality each path or sentence that differs from the id."""
    given = item.payload if isinstance(item.payload, dict) else {modalities[0]: item.payload}
    read = {modality: whole_source(part) for modality, part in given.items()}
    return {modality: part for modality, part in read.items() if isinstance(part, str) and part != item.id} | item.meta


def payload_of(given: dict[str, Any]) -> Any:
    return next(iter(given.values())) if len(given) == 1 else given
