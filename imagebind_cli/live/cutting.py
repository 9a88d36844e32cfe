"""A window of a stream, and the interface that cuts a stream's bytes into windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

from torch import Tensor

from imagebind_cli.errors import UsageError

LATE = Fraction(1, 10**6)  # of a hop: a last window that lacks less than this is whole, as `media.windows` counts those of a file


@dataclass(frozen=True)
class StreamFormat:
    """The format of a stream of bytes, since they do not say it themselves.

    samples: number format of a sound (`live.sound.FORMATS`), with the channels behind a colon where there are several, `s16le:2`; or
    `rawvideo`, pictures in RGB of 8 bits. rate: samples, readings or pictures a second. size: width and height of pictures.
    """

    samples: str | None = None
    rate: float | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class StreamWindow:
    """A complete window. start, end: seconds from the beginning of the stream. prepare: makes one sample (clips, *shape) for the encoder."""

    start: float
    end: float
    prepare: Callable[[], Tensor]


class Cutter(Protocol):
    """Cuts a stream into windows, and keeps no more of it than the next window needs. Its class takes the encoder's config, options and format.

    seconds: of a window. heeds: the reading options that it follows; any other is refused. notes: what was assumed, so far.
    """

    seconds: ClassVar[int]
    heeds: ClassVar[frozenset[str]]
    notes: list[str]

    def add(self, data: bytes) -> Iterator[StreamWindow]:
        """Add the next bytes, however many, and yield the windows that are complete now."""

    def end(self) -> Iterator[StreamWindow]:
        """Yield the windows that the end of the stream completes.

        Raises:
            ValueError: the stream was too short for any, or ends in the middle of a sample.
        """


def stated_rate(format: StreamFormat, option: float | None) -> float | None:
    """Return the rate that the format or the reading option states.

    Raises:
        UsageError: they state different ones.
    """
    if None not in (format.rate, option) and format.rate != option:
        raise UsageError(f"the format states a rate of {format.rate:g}, and the reading options one of {option:g}")
    return option if format.rate is None else format.rate


def span(number: int, hop: Fraction, length: int) -> tuple[Fraction, Fraction]:
    """Return start and end of a window in seconds, by its number from 0."""
    return hop * number, hop * number + length
