"""Tracks of a container opened with PyAV: which one is read, when it starts and how long it lasts.

The sound reader asks the same questions as the video reader, so that one file's sound and pictures get windows of the same times.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from imagebind_cli.file_kinds import HEAD, seeming_kind
from imagebind_cli.media.decoding import RefusedFile, Source, first_bytes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream


# Demuxers of lists that name other files or addresses, of streams from the network, and of generated pictures: none of them reads one file.
ELSEWHERE = frozenset(
    (
        "concat",
        "concatf",
        "dash",
        "dvdvideo",
        "hls",
        "image2",
        "image2pipe",
        "imf",
        "lavfi",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
        "webm_dash_manifest",
    )
)
# Demuxers that take any bytes under some suffix: of text drawn as on a terminal, and of samples without a header, whose rate they assume.
TEXT_ART = frozenset(("adf", "bin", "idf", "tty", "xbin"))
HEADERLESS = re.compile(r"alaw|mulaw|vidc|[suf](8|16|24|32|64)([bl]e)?")


@cache
def _formats() -> str:
    import av

    return ",".join(sorted(name for name in av.formats_available - ELSEWHERE - TEXT_ART if not HEADERLESS.fullmatch(name)))


def open_container(source: Source) -> InputContainer:
    """Open a container at its beginning. A file that names others, such as a playlist, is refused, so that nothing else is read.

    Raises:
        RefusedFile: it is not a sound or video, or of a kind that is refused. FFmpegError: it cannot be read.
    """
    import av

    if hasattr(source, "seek"):
        source.seek(0)
    # A colon in a name does not name a protocol: `12:30.mp4` is a file.
    place = f"file:{os.fspath(source)}" if isinstance(source, str | os.PathLike) else source
    try:
        return av.open(place, mode="r", options={"format_whitelist": _formats()})
    except (av.ArgumentError, av.InvalidDataError, av.error.EOFError) as error:
        name = os.path.basename(os.fspath(source)) if isinstance(source, str | os.PathLike) else ""
        kind = seeming_kind(first_bytes(source, HEAD), str(name))
        if kind is not None:
            raise RefusedFile(f"it seems to be {kind}") from None
        if not isinstance(error, av.ArgumentError):
            raise RefusedFile("its format is not known, or it is damaged") from None
        raise RefusedFile("it is a list of other files, or data without a header, and neither is read") from None


@dataclass(frozen=True)
class TrackChoice:
    """Which of several tracks is read.

    index: its place among all of the container's. number: counted from 1 among those of its kind, of which there are `count`.
    notes: why this one, where there are several and none was requested.
    """

    index: int
    number: int
    count: int
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """The track and how many there are, where there are several."""
        return {"track": self.number, "tracks": self.count} if self.count > 1 else {}


def open_tracks(source: Source) -> tuple[InputContainer, list[VideoStream]]:
    """Open a container at its beginning, and find its tracks of moving pictures; a cover, such as a single picture in a sound file, is not one."""
    from av.stream import Disposition

    container = open_container(source)
    covers = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
    tracks = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not container.streams.audio:
        return container, tracks
    pictures = Counter({stream.index: stream.frames for stream in tracks})
    uncounted = [stream for stream in tracks if not stream.frames]
    if uncounted:  # Matroska and transport streams do not count their pictures
        for packet in packets(container, *uncounted):
            pictures[packet.stream_index] += 1
            if all(pictures[stream.index] > 1 for stream in uncounted):
                break
        container.close()
        container = open_container(source)
    return container, [stream for stream in container.streams.video if pictures[stream.index] > 1]


def choose_track(tracks: Sequence[Stream], number: int | None, kind: str) -> TrackChoice:
    """Choose the track with the requested number, from 1; else the one flagged default, else the first.

    A track for commentary or for the impaired, or one that cannot be decoded, is used only where no other exists.

    Raises:
        ValueError: no such track exists, or it cannot be decoded.
    """
    from av.stream import Disposition as Flag

    if number is not None and number > len(tracks):
        raise ValueError(f"has no {kind} track {number}; it has {len(tracks)}: choose with --track")
    special = Flag.comment | Flag.visual_impaired | Flag.hearing_impaired | Flag.karaoke | Flag.clean_effects | Flag.non_diegetic

    def order(at: int) -> tuple[bool, bool, bool]:
        flags = tracks[at].disposition
        return tracks[at].codec_context is None, bool(flags & special), not flags & Flag.default

    at = min(range(len(tracks)), key=order) if number is None else number - 1
    if tracks[at].codec_context is None:
        raise ValueError(f"not a readable {kind}: its codec is not known here; convert it with a program that knows it")
    notes: tuple[str, ...] = ()
    if number is None and len(tracks) > 1:
        flagged = [bool(track.disposition & Flag.default) for track in tracks]
        reason = "flagged default" if flagged[at] and not all(flagged) else "the first" if at == 0 else "the first of the main ones"
        notes = (f"{kind} track {at + 1} of {len(tracks)}, {reason}; --track takes another",)
    return TrackChoice(tracks[at].index, at + 1, len(tracks), notes)


def tick(stream: Stream) -> Fraction:
    """Return the seconds per unit of the track's time stamps."""
    return stream.time_base or Fraction(1, 1_000_000)


def start_seconds(stream: Stream) -> Fraction:
    """Return when the track starts, in the container's time."""
    return (stream.start_time or 0) * tick(stream)


def picture_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Return the seconds from the first picture to the end of the last one, as the track says, else the container, else its packets.

    The container is left at any place.
    """
    if stream.duration:
        return float(stream.duration * tick(stream))
    if container.duration:
        return container.duration / 1_000_000 - max(0.0, float(start_seconds(stream)))
    return float(end_seconds(container, stream) - start_seconds(stream)) or frame_seconds(stream)


def end_seconds(container: InputContainer, stream: Stream) -> Fraction:
    """Return when the last packet ends, in the container's time, by reading all of them; nothing is decoded."""
    return max(((packet.pts or 0) + (packet.duration or 0) for packet in packets(container, stream)), default=0) * tick(stream)


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Any]]:
    """Yield the tracks' packets up to the end, or to where the file is damaged; the empty ones at the end, which flush decoders, are skipped."""
    import av

    try:
        for packet in container.demux(*streams):
            if packet.size:
                yield packet
    except av.error.InvalidDataError:
        return


def frame_seconds(stream: VideoStream) -> float:
    """Return how long a picture lasts on average; 1/25 s where nothing says."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.04


def frames(container: InputContainer, stream: Any, strict: bool = False) -> Iterator[Any]:
    """Yield the track's frames from here on, in display order; damaged packets are skipped.

    Args:
        strict: skip them at the end alone, where the file may have been cut.
    Raises:
        ValueError: `strict`, and a packet before others is damaged.
    """
    import av

    is_damaged = False
    for packet in chain(packets(container, stream), [None]):
        try:
            for frame in stream.decode(packet):
                if strict and is_damaged:
                    raise ValueError("damaged: a frame does not match its checksum")
                yield frame
        except (av.error.InvalidDataError, av.error.EOFError):
            is_damaged = True


def decoded_alone(packet: Packet[Any]) -> Any | None:
    """Decode a packet without those around it, and return its frame; None where it needs them, or is damaged."""
    import av

    context = packet.stream.codec_context
    try:
        pictures = [*packet.decode(), *context.decode(None)]
    except (av.error.InvalidDataError, av.error.EOFError):
        pictures = []
    context.flush_buffers()
    return pictures[0] if len(pictures) == 1 else None
