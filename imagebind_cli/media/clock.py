"""Read when a recording began, as its file states it, and write clock times in ISO 8601.

A clock is a `datetime`: in UTC, or without a zone where the file states a local time but no zone. A year outside `YEARS` counts as no clock.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

YEARS = range(2000, 2104)  # a clock that was never set states 1904, 1970 or 1980
ORIGINATION = slice(320, 338)  # of a broadcast WAV file's `bext` chunk: 10 characters of date, 8 of time


def clock_text(began: datetime, seconds: float = 0.0) -> str:
    """Return the time `seconds` after a recording began, as `2024-05-01T12:00:05.250Z`; without the Z where the zone is unknown."""
    time = began + timedelta(milliseconds=round(seconds * 1000))
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + ("" if time.tzinfo is None else "Z")


def parse_clock(text: str) -> datetime | None:
    """Parse a date and time in ISO 8601 or as EXIF writes it, `2024:05:01 12:00:00`; None if it is neither, or not in `YEARS`."""
    text = re.sub(r"^(\d{4})[:/._ -](\d\d)[:/._ -](\d\d)[ T]+(\d\d)[:._ -](\d\d)[:._ -](\d\d)", r"\1-\2-\3T\4:\5:\6", text.strip())
    time = None
    if len(text) > len("2024-05-01"):  # a date alone is not a time
        with suppress(ValueError, OverflowError):
            time = datetime.fromisoformat(text)
            time = time if time.tzinfo is None else time.astimezone(UTC)
    return time if time is not None and time.year in YEARS else None


def epoch_clock(seconds: float, local: bool = False) -> datetime | None:
    """Convert seconds since 1970 to a clock, None outside `YEARS`. local: they are local time in an unknown zone."""
    if not datetime(YEARS.start, 1, 1, tzinfo=UTC).timestamp() <= seconds < datetime(YEARS.stop, 1, 1, tzinfo=UTC).timestamp():
        return None
    time = datetime.fromtimestamp(round(seconds, 3), UTC)
    return time.replace(tzinfo=None) if local else time


def container_clock(tags: Mapping[str, str]) -> datetime | None:
    """Return when a video or sound began by its container's tags. Apple's tag, which has a zone, goes before the container's own.

    For a broadcast WAV file, FFmpeg gives the date and the time as two tags.
    """
    for text in (tags.get("com.apple.quicktime.creationdate", ""), tags.get("creation_time", "")):
        if time := parse_clock(text):
            return time
    return parse_clock(f"{tags.get('date', '')} {tags.get('creation_time', '')}")


def broadcast_clock(head: bytes) -> datetime | None:
    """Return the recorder's local date and time from the first bytes of a broadcast WAV file, or None."""
    at = 12  # after `RIFF`, the length and `WAVE`
    while at + 8 <= len(head):
        kind, size = struct.unpack_from("<4sI", head, at)
        if kind == b"bext":
            origination = head[at + 8 : at + 8 + size][ORIGINATION].decode("ascii", "replace")
            return parse_clock(f"{origination[:10]} {origination[10:]}")
        at += 8 + size + size % 2
    return None
