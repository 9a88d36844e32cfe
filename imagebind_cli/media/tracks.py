"""Tracks of a container opened with PyAV: which one holds the pictures, when it starts and how long it lasts.

The sound reader asks the same questions as the video reader, so that one file's sound and pictures get windows of the same times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

from imagebind_cli.media.decoding import Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream


def open_container(source: Source) -> InputContainer:
    """The container, read from its beginning."""
    import av

    if hasattr(source, "seek"):
        source.seek(0)
    # A colon in a name is no protocol: `12:30.mp4` is a file.
    return av.open(f"file:{os.fspath(source)}" if isinstance(source, str | os.PathLike) else source, mode="r")


def picture_track(container: InputContainer) -> VideoStream | None:
    """The first track of moving pictures; a sound file's cover is none."""
    from av.stream import Disposition

    return next((stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic), None)


def tick(stream: Stream) -> Fraction:
    """Seconds per unit of the track's time stamps."""
    return stream.time_base or Fraction(1, 1_000_000)


def start_seconds(stream: Stream) -> Fraction:
    """When the track starts, in the container's time."""
    return (stream.start_time or 0) * tick(stream)


def picture_seconds(container: InputContainer, stream: VideoStream) -> float:
    """From the first picture to the end of the last one: the track's own word, else the container's, else its packets'.

    Leaves the container anywhere.
    """
    if stream.duration:
        return float(stream.duration * tick(stream))
    if container.duration:
        return container.duration / 1_000_000 - max(0.0, float(start_seconds(stream)))
    return float(end_seconds(container, stream) - start_seconds(stream)) or frame_seconds(stream)


def end_seconds(container: InputContainer, stream: Stream) -> Fraction:
    """When the last packet ends, in the container's time, by reading all of them; nothing is decoded."""
    return max(((packet.pts or 0) + (packet.duration or 0) for packet in packets(container, stream)), default=0) * tick(stream)


def packets(container: InputContainer, stream: Stream) -> Iterator[Packet[Any]]:
    """The track's packets to the end, or to where the file is damaged; the last, empty one, which flushes the decoder, is left out."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.error.InvalidDataError:
        return


def frame_seconds(stream: VideoStream) -> float:
    """How long a picture lasts on average; 1/25 s where nothing says."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.04


def frames(container: InputContainer, stream: Any) -> Iterator[Any]:
    """The track's frames from here on, in display order; a damaged packet is left out."""
    import av

    for packet in chain(packets(container, stream), [None]):
        try:
            yield from stream.decode(packet)
        except (av.error.InvalidDataError, av.error.EOFError):
            continue
