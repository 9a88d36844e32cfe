"""Clips of a video by time, decoded with PyAV from the key frame before them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np

from imagebind_cli.media.clock import container_clock
from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes
from imagebind_cli.media.isolation import Apart
from imagebind_cli.media.picture_kinds import HEAD, UnsupportedKind, check_kind
from imagebind_cli.media.tracks import (
    choose_track,
    decoded_alone,
    frame_seconds,
    frames,
    open_container,
    open_tracks,
    packets,
    picture_seconds,
    start_seconds,
    tick,
)
from imagebind_cli.media.video.animation import MAX_FRAME_PIXELS, Animation, is_animation, is_picture
from imagebind_cli.media.video.display import Orientation, orientation, square_size
from imagebind_cli.media.video.frame_folder import FPS, FrameFolder
from imagebind_cli.media.video.reading_order import read_clips
from imagebind_cli.media.windows import seen

if TYPE_CHECKING:
    import av
    from av.packet import Packet

T = TypeVar("T")

# Seconds before a frame to start decoding at, tried in turn: a container's index may point past the frame by its decoder's delay, and
# frames that depend on pictures before an open group's key frame cannot be decoded from it.
MARGINS = 1.0, 10.0, float("inf")
# Fast decoding shows, in place of a frame, the nearest key frame at most this far away; where most frames have none, all are shown themselves.
# Not more than the first margin: the key frames before a window are listed from there.
KEY_FRAME_SECONDS = 1.0
AHEAD_SECONDS = 4  # a frame at most this far ahead is reached by decoding on, a later one by seeking


def open_video(source: Source, fps: float | None = None, track: int | None = None, *, fast: bool = False) -> VideoFile | FrameFolder:
    """Open moving pictures: a video file, an animated picture, or a folder of frames at `fps` frames a second.

    A file is read in a separate process. track: which one of several video tracks, from 1; if not given, the one flagged default, else the first.
    fast: see `Video`; animated pictures and folders are read as ever.

    Raises:
        OSError, ValueError: it cannot be read, or has no such track.
    """
    if not is_folder(source):
        try:
            return VideoFile(source, track, fast=fast)
        except UnsupportedKind as error:
            raise UnsupportedKind(f"not a video: {error}") from None
    _check_track(track)
    return FrameFolder(source, fps or FPS, MAX_FRAME_PIXELS)


def _check_track(track: int | None) -> None:
    """Refuse any but the first track of what has one."""
    if track is not None and track > 1:
        raise ValueError(f"has no video track {track}; it has 1: choose with --track")


def _open_file(source: Source, track: int | None, fast: bool) -> Animation | Video:
    if is_picture(source):
        _check_track(track)
        return Animation(source, still=not is_animation(source))
    check_kind(first_bytes(source, HEAD))
    return Video(source, track, fast=fast)


class VideoFile:
    """A `Video` or an `Animation`, open in a separate process, with the interface of both."""

    def __init__(self, source: Source, track: int | None = None, *, fast: bool = False) -> None:
        self._apart = Apart("imagebind_cli.media.video.clips:_open_file", source, track, fast)
        self.duration, self.pixels, self.began = self._apart.get("duration", "pixels", "began")

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._apart.close()

    @property
    def facts(self) -> dict[str, Any]:
        """See `Video.facts`."""
        facts: dict[str, Any] = self._apart.get("facts")[0]
        return facts

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Video`."""
        notes: tuple[str, ...] = self._apart.get("notes")[0]
        return notes

    def starts(self) -> list[Fraction]:
        """See `Video.starts`."""
        starts: list[Fraction] = self._apart.call("starts")
        return starts

    def clips(self, spans: Sequence[tuple[Fraction, Fraction]], count: int) -> Iterator[list[np.ndarray]]:
        """See `Video.clips`."""
        return self._apart.iterate("clips", spans, count)


def is_folder(source: object) -> TypeGuard[str | os.PathLike[str]]:
    """Check whether a source is the path of a folder, whose files are the frames of a video."""
    return isinstance(source, str | os.PathLike) and os.path.isdir(source)


class Video:
    """An open video. Use it as a context manager.

    duration: seconds from the first frame to the end of the last one. pixels: of one frame. notes: which of several tracks it is,
    and where `fast`, once clips are read, what is seen. began: when its first frame was taken, by the container, see `clock`.
    """

    def __init__(self, source: Source, track: int | None = None, *, fast: bool = False) -> None:
        """fast: clips show key frames near their frames, see `KEY_FRAME_SECONDS`."""
        check_file(source)
        self._source, self._fast = source, fast
        self._keys: set[int] = set()  # time stamps of the key frames that may be shown
        self._farthest: float | None = None  # seconds from a frame to the key frame in its place, where there is one
        with decoding("video"):
            self._container, tracks = open_tracks(source)
            try:
                if not tracks:
                    raise ValueError("has a cover and no video" if self._container.streams.video else "holds no picture track")
                self._chosen = choose_track(tracks, track, "video")
                self._begin()
            except Exception:
                self._container.close()
                raise
            self.notes, self.began = self._chosen.notes, container_clock(self._container.metadata)
            self._tick, self._start = tick(self._stream), start_seconds(self._stream)
            self._untimed = self._count_untimed()
            if self._untimed:  # a bare stream without time stamps: frames are numbered
                self._tick, self._start = Fraction(1) / (self._stream.guessed_rate or 25), Fraction(0)
                self.duration = float(self._untimed * self._tick)
            else:
                self.duration = picture_seconds(self._container, self._stream)
        self.pixels = math.prod(self._size)
        self._orientation = Orientation()
        self._variable = False

    def _begin(self) -> None:
        stream: Any = self._container.streams[self._chosen.index]
        stream.thread_type = "AUTO"
        self._stream, self._pixel = stream, stream.sample_aspect_ratio or Fraction(1)
        self._size = square_size(stream.width, stream.height, self._pixel)
        if math.prod(self._size) > MAX_FRAME_PIXELS:
            raise ValueError(f"{self._size[0]} x {self._size[1]} pixels a frame; at most {MAX_FRAME_PIXELS:,} are unpacked")
        self._playing: Iterator[Any] = iter(())
        self._read: Callable[[], Iterator[Any]] | None = None  # what it comes from
        self._at: float = math.inf  # stamp of the last frame played; nothing is ahead of infinity

    def _count_untimed(self) -> int:
        """Count the packets, if they have no time stamps; else return 0."""
        track = packets(self._container, self._stream)
        first = next(track, None)
        return 1 + sum(1 for _ in track) if first is not None and first.pts is None and first.dts is None else 0

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    @property
    def facts(self) -> dict[str, Any]:
        """What the file holds; how it is turned and whether its rate varies, as far as clips have been read."""
        return {
            "codec": self._stream.codec_context.name,
            "size": list(self._size[:: -1 if self._orientation.lying else 1]),
            "fps": round(1 / frame_seconds(self._stream), 3),
            "variable_rate": self._variable,
            "seconds": round(self.duration, 3),
            "frames": self._untimed or self._stream.frames or None,
            "rotation": 90 * self._orientation.quarters,
            "mirrored": self._orientation.mirrored,
            "pixel_aspect": f"{self._pixel.numerator}:{self._pixel.denominator}",
            **self._chosen.facts,
            **({} if self._farthest is None else {"farthest_key_frame": round(self._farthest, 3)}),
        }

    def starts(self) -> list[Fraction]:
        """Return when each frame starts, sorted, in seconds from the first one, without decoding any."""
        with decoding("video"):
            stamps: Iterable[int | None] = range(self._untimed)
            if not self._untimed:
                self._seek(0)
                stamps = map(_stamp, packets(self._container, self._stream))
            starts = {stamp * self._tick - self._start for stamp in stamps if stamp is not None}
            return sorted(start for start in starts if start >= 0)

    def clips(self, spans: Sequence[tuple[Fraction, Fraction]], count: int) -> Iterator[list[np.ndarray]]:
        """Yield, for each span in seconds, `count` frames (h, w, 3) uint8 as displayed, evenly spaced from its first frame to its last.

        A span's frames are those that start in [start, end), or the one still on screen where none does. The last frame is repeated
        where there are fewer than `count`.
        """
        with decoding("video"):
            wanted = [self._stamps(start, end, count) for start, end in spans]
            yield from read_clips(self._near_key_frames(wanted) if self._fast else wanted, self._frame)

    def _near_key_frames(self, wanted: list[list[int]]) -> list[list[int]]:
        """Return the time stamps of what clips show in place of their frames, and note what that is: see `KEY_FRAME_SECONDS`."""
        stamps, keys = np.unique([stamp for clip in wanted for stamp in clip]), np.array(sorted(self._keys), np.int64)
        after = np.searchsorted(keys, stamps)
        before, following = (keys[np.clip(after + step, 0, len(keys) - 1)] if len(keys) else stamps for step in (-1, 0))
        nearest = np.where(abs(stamps - before) <= abs(following - stamps), before, following)
        distances = abs(nearest - stamps) * float(self._tick)
        near = (distances <= KEY_FRAME_SECONDS) & (len(keys) > 0)
        if 2 * near.sum() < len(near):
            self._keys.clear()
            self.notes += (f"--decode fast: most frames have no key frame within {KEY_FRAME_SECONDS:g} s, so the video is decoded exactly",)
            return wanted
        self._farthest = float(distances[near].max())
        shown = dict(zip(stamps.tolist(), np.where(near, nearest, stamps).tolist(), strict=True))
        clips = [[shown[stamp] for stamp in clip] for clip in wanted]
        self.notes += (f"--decode fast: frames within {KEY_FRAME_SECONDS:g} s of a key frame are replaced by it",)
        if any(len(set(frames)) < len(set(clip)) for frames, clip in zip(clips, wanted, strict=True)):
            self.notes += ("--decode fast: some windows show a key frame twice, the nearest one to two of their frames",)
        return clips

    def _stamps(self, start: Fraction, end: Fraction, count: int) -> list[int]:
        """Return the time stamps of a clip's frames, without decoding any."""
        first, stop = ((time + self._start) / self._tick for time in (start, end))
        if self._untimed:
            stamps, shown = list(range(self._untimed)), True
        else:
            stamps, shown = self._listed(start, first, stop)
        chosen = [stamps[number] for number in seen(stamps, first, stop, count)]
        if not chosen or (chosen[0] < first and not shown):
            raise ValueError(f"no frame between {float(start):g} s and {float(end):g} s")
        return chosen

    def _listed(self, start: Fraction, first: Fraction, stop: Fraction) -> tuple[list[int], bool]:
        """Return stamps from before `first` up to `stop`, sorted, and whether the last one before `first` stays on screen until then."""
        stamps, shown_until = [], first
        beyond = Fraction(KEY_FRAME_SECONDS) / self._tick if self._fast else 0  # a key frame there may be the nearest
        for packet in self._from(start, lambda: packets(self._container, self._stream), _stamp, first):
            stamp = _stamp(packet)
            if stamp is None:
                continue
            if self._fast and packet.is_keyframe:
                self._keys.add(stamp)
            if stamp < stop:
                stamps.append(stamp)
            shown_until = max(shown_until, Fraction(stamp if stamp >= stop else stamp + (packet.duration or 0)))
            if packet.dts is not None and packet.dts >= stop + beyond:  # no later packet is shown before its dts
                break
        stamps.sort()
        gaps = np.diff(stamps)
        self._variable |= len(gaps) > 1 and bool(gaps.max() > 1.5 * gaps.min())
        return stamps, shown_until > first

    def _frame(self, stamp: int) -> np.ndarray:
        """Return the frame of a time stamp, or where it cannot be decoded the next one that can."""
        frame = self._key_frame(stamp) if stamp in self._keys else None
        if frame is None:
            found = self._reach(stamp, self._decoded, itemgetter(0))
            if found is None:
                raise ValueError(f"no frame after {float(stamp * self._tick - self._start):g} s can be decoded")
            frame = found[1]
        self._orientation = orientation(frame)
        width, height = square_size(frame.width, frame.height, self._pixel)
        return self._orientation.upright(frame.to_ndarray(format="rgb24", width=width, height=height))

    def _key_frame(self, stamp: int) -> av.VideoFrame | None:
        """Return a key frame by decoding its packet alone; None if that does not give it, as where its second field is another packet."""
        packet = self._reach(stamp, self._key_packets, _stamp)
        frame = None if packet is None else decoded_alone(packet)
        return frame if frame is not None and frame.pts == stamp and not frame.interlaced_frame else None

    def _key_packets(self) -> Iterator[Packet[Any]]:
        return (packet for packet in packets(self._container, self._stream) if packet.is_keyframe)

    def _reach(self, stamp: int, read: Callable[[], Iterator[T]], stamp_of: Callable[[T], int | None]) -> T | None:
        """Return the first of what `read` gives at a time stamp or later, by reading on or, if that is far, by seeking; None if there is none."""
        if read != self._read or not self._at < stamp <= self._at + AHEAD_SECONDS / self._tick:
            self._playing, self._read = self._from(stamp * self._tick - self._start, read, stamp_of, Fraction(stamp)), read
        for item in self._playing:
            at = stamp_of(item)
            if at is None:
                continue
            self._at = at
            if at >= stamp:
                return item
        return None

    def _from(
        self, seconds: Fraction, read: Callable[[], Iterator[T]], stamp_of: Callable[[T], int | None], first: Fraction
    ) -> Iterator[T]:
        """Yield what `read` gives from the latest place at which it gives something with a stamp of at most `first`."""
        for margin in MARGINS:
            self._seek(float(seconds) - margin)
            items = read()
            head = next(items, None)
            if head is not None and (stamp := stamp_of(head)) is not None and stamp <= first:
                break
        return chain([] if head is None else [head], items)

    def _decoded(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield frames in display order with their stamps; damaged packets are skipped."""
        for number, frame in enumerate(frames(self._container, self._stream)):
            stamp = number if self._untimed else frame.pts
            if stamp is not None:
                yield stamp, frame

    def _seek(self, seconds: float) -> None:
        """Go to the last key frame at or before a time; to the very beginning, if the time is before it or the file cannot seek."""
        self._playing, self._at = iter(()), math.inf
        try:
            if seconds <= 0 or self._untimed:
                raise OSError("nothing to seek")
            at = int((Fraction(seconds) + self._start) / self._tick)
            self._container.seek(at, stream=self._stream, backward=True)
        except OSError:
            self._container.close()
            self._container = open_container(self._source)
            self._begin()


def _stamp(packet: Packet[Any]) -> int | None:
    return packet.dts if packet.pts is None else packet.pts
