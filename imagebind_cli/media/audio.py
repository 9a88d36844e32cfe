"""Sounds, read forwards in stretches: soundfile where it knows the file and its length, PyAV for the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import soundfile

from imagebind_cli.media.decoding import Source, check_file, decoding
from imagebind_cli.media.tracks import choose, end_seconds, frames, open_container, open_tracks, picture_seconds, start_seconds, tick

if TYPE_CHECKING:
    import av

RATES = 1_000, 768_000
"""Hz; a header that says less or more is taken for damaged."""

SKIP_SECONDS = 10
"""A stretch at most this far ahead is reached by decoding on, a later one by seeking."""

PREROLL_SECONDS = 1
"""Decoders of compressed sound need what comes before; it is decoded and thrown away."""


PROMISE = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
"""libsndfile's remark on a header whose count of bytes is not what follows."""

UNKNOWN = 2**31 - 2**16
"""A count of bytes from here on is what programs write that could not know it."""


class Decoder(Protocol):
    """One library's view of a sound.

    length: samples in each channel. promised: as many as the file itself says. seconds: set where the pictures beside it say how long it lasts.
    notes: what was assumed. filling: samples of the last packet, as an encoder fills it up and need not say so. left_out: seconds of sound
    that lie outside the pictures.
    """

    rate: int
    channels: int
    length: int
    promised: int
    seconds: float | None
    facts: dict[str, Any]
    notes: tuple[str, ...]
    filling: int
    left_out: float

    def seek(self, sample: int) -> None: ...

    def more(self, count: int) -> np.ndarray: ...  # up to count samples (n, channels) float32; none at the end

    def close(self) -> None: ...


class Sound:
    """An open sound. Use it as a context manager.

    rate: Hz. length: samples in each channel. seconds: how long the pictures of the same file last; None if there are none.
    track: which one of several sound tracks, from 1; if not given, the one flagged default, else the first. notes: which that is.
    filling: so many samples at the end may be no sound, but what an encoder filled its last packet with.

    Raises:
        OSError, ValueError: the file cannot be read, holds no sound or no such track, or is of an absurd rate.
    """

    def __init__(self, source: Source, track: int | None = None) -> None:
        check_file(source)
        with decoding("sound"):
            self._decoder = _decoder(source, track)
        self.rate, self.channels = self._decoder.rate, self._decoder.channels
        self.length, self.seconds, self.notes = self._decoder.length, self._decoder.seconds, self._decoder.notes
        self.filling = self._decoder.filling
        self._held = np.empty((0, self.channels), np.float32)  # samples from self._at on
        self._at = 0
        try:
            check_rate(self.rate)
            if not self.length:
                raise ValueError("holds no sound")
        except ValueError:
            self._decoder.close()
            raise

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *exc: object) -> None:
        self._decoder.close()

    @property
    def facts(self) -> dict[str, Any]:
        """What the file turned out to hold."""
        return self._decoder.facts | facts_of(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its user should know: that the file ends before it says it does, or has more sound than pictures."""
        found = []
        if (self._decoder.promised - self.length) * 100 > self.rate:  # 10 ms: a frame of some codecs
            found.append(f"cut short: {self.length / self.rate:.2f} s of {self._decoder.promised / self.rate:.2f} s are there")
        if self._decoder.left_out > 1:
            found.append(
                f"{self._decoder.left_out:.2f} s of sound outside the pictures, which last {self.length / self.rate:.2f} s, are left out; "
                "to embed all of it, take the pictures away: ffmpeg -i IN -vn -c copy OUT.mka"
            )
        return tuple(found)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) as (channels, stop - start) float32, zeros past the end; `start` never goes back.

        Raises:
            OSError, ValueError: the sound cannot be decoded, or is not made of numbers.
        """
        end = self._at + len(self._held)
        blocks = [self._held[start - self._at :]]
        with decoding("sound"):
            if start > end + SKIP_SECONDS * self.rate:
                self._decoder.seek(start)
                end = start
            while end < stop and len(block := self._decoder.more(stop - end)):
                blocks.append(block[max(start - end, 0) :])
                end += len(block)
        for block in blocks[1:]:
            check_numbers(block)
        blocks = [block for block in blocks if len(block)] or blocks
        self._held, self._at = blocks[0] if len(blocks) == 1 else np.concatenate(blocks), start
        return filled(self._held[: stop - start].T, stop - start)


class Recording:
    """A waveform in memory, with the same face as `Sound`."""

    seconds = None
    notes = warnings = ()
    filling = 0

    def __init__(self, waveform: np.ndarray, rate: int) -> None:
        self._waveform = np.atleast_2d(waveform)
        if self._waveform.ndim != 2 or not self._waveform.size:
            raise ValueError(f"shape {np.shape(waveform)}; (samples,) or (channels, samples) is needed")
        check_rate(rate)
        self.rate, (self.channels, self.length) = int(rate), self._waveform.shape

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    @property
    def facts(self) -> dict[str, Any]:
        """What the waveform is."""
        return facts_of(self)

    def read(self, start: int, stop: int) -> np.ndarray:
        """As `Sound.read`."""
        samples = self._waveform[:, start:stop].astype(np.float32)
        check_numbers(samples)
        return filled(samples, stop - start)


class Excerpt:
    """A part of an open sound, with the same face. start, end: seconds of it; within it."""

    def __init__(self, sound: Sound | Recording, start: Fraction, end: Fraction) -> None:
        self._sound, self._first = sound, round(start * sound.rate)
        self.rate, self.facts, self.notes, self.warnings = sound.rate, sound.facts, sound.notes, sound.warnings
        self.length = min(round(end * sound.rate), sound.length) - self._first
        self.filling = sound.filling if self._first + self.length == sound.length else 0
        self.seconds = None if sound.seconds is None else float(end - start)

    def read(self, start: int, stop: int) -> np.ndarray:
        """As `Sound.read`."""
        return self._sound.read(self._first + start, self._first + stop)


def filled(samples: np.ndarray, count: int) -> np.ndarray:
    """Samples (channels, n) as (channels, count), with zeros past their end."""
    missing = count - samples.shape[1]
    return np.pad(samples, ((0, 0), (0, missing))) if missing else samples


def facts_of(sound: Sound | Recording) -> dict[str, Any]:
    """Rate, channels and seconds."""
    return {"rate": sound.rate, "channels": sound.channels, "seconds": round(sound.length / sound.rate, 3)}


def check_rate(rate: float) -> None:
    """Refuse a rate no sound is recorded at."""
    if not RATES[0] <= rate <= RATES[1] or rate != int(rate):
        raise ValueError(f"sound at {rate:,} Hz; whole numbers from {RATES[0]:,} to {RATES[1]:,} Hz are understood")


def check_numbers(samples: np.ndarray) -> None:
    """Refuse NaN and infinity."""
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are not numbers (NaN or infinite)")


def _decoder(source: Source, track: int | None) -> Decoder:
    if track is not None and track > 1:  # libsndfile knows of one
        return SoundTrack(source, track)
    try:
        return SoundFile(source)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a file whose name ends in .raw, whatever it holds
        return SoundTrack(source, track)
    except _Doubtful as doubt:
        return SoundTrack(source, track, doubt.promised)


class _Doubtful(Exception):
    """libsndfile knows the format but not, or wrongly, how long the sound is. promised: samples that its header says; 0 if that is a guess."""

    def __init__(self, promised: int) -> None:
        self.promised = promised


class _Forwards(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read on from where it is. Its base class seeks to that place after each read, where an MP3's decoder begins anew."""

    def seekable(self) -> bool:
        """Not as far as the base class is told; `seek` works."""
        return False


class SoundFile:
    """libsndfile's view, taken only if the length it promises is there."""

    notes: tuple[str, ...] = ()
    filling, left_out = 0, 0.0

    def __init__(self, source: Source) -> None:
        if hasattr(source, "seek"):
            source.seek(0)
        self._file = _Forwards(os.fsencode(source) if isinstance(source, str | os.PathLike) else source)  # any bytes in its name
        self.rate, self.channels, self.length = self._file.samplerate, self._file.channels, self._file.frames
        self.seconds: float | None = None
        self.facts = {"format": self._file.format.lower(), "codec": self._file.subtype.lower()}
        guessed = self._file.subtype.startswith("MPEG")  # in a WAV file, too, whose header counts the encoder's delay
        if not (self._agrees_with_packets(source) if guessed else self._reaches_its_end()):
            self._file.close()
            raise _Doubtful(0 if guessed else self.length)
        self.promised = self._promised()

    def _promised(self) -> int:
        """Samples that the header promises: libsndfile gives as many as are there, and tells of the rest in its log alone."""
        remark = PROMISE.search(self._file.extra_info)
        if remark is None:
            return self.length
        said, found = map(int, remark.groups())
        return round(self.length * said / found) if 0 < found < said < UNKNOWN else self.length

    def _reaches_its_end(self) -> bool:
        """Whether the last sample promised can be read. A count of zero may be a header never completed."""
        try:
            self._file.seek(max(self.length - 1, 0))
            found = len(self._file.read(1))
            self._file.seek(0)
        except soundfile.LibsndfileError:
            return False
        return found == 1

    def _agrees_with_packets(self, source: Source) -> bool:
        """Whether an MP3's packets last as long as promised: without a table of its own the promise is a guess from the first one.

        Its end is not sought, as libmpg123 writes lines of its own to stderr where a seek meets a frame it does not like.
        """
        place = source.tell() if hasattr(source, "tell") else None
        with open_container(source) as container:
            stream = container.streams.audio[0]
            seconds = float(end_seconds(container, stream) - start_seconds(stream))
        if place is not None:
            source.seek(place)  # type: ignore[union-attr]
        return abs(seconds - self.length / self.rate) < 0.2

    def seek(self, sample: int) -> None:
        """Go to a sample."""
        before = max(sample - PREROLL_SECONDS * self.rate, 0)
        self._file.seek(before)
        self._file.read(sample - before, dtype="float32")

    def more(self, count: int) -> np.ndarray:
        """The next samples, (n, channels)."""
        if self._file.subtype == "PCM_16":  # the same numbers in a fifth of the time libsndfile takes for them
            return self._file.read(count, dtype="int16", always_2d=True) * np.float32(2.0**-15)
        return self._file.read(count, dtype="float32", always_2d=True)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class SoundTrack:
    """PyAV's view: one sound track of any container.

    Samples are placed by their time stamps, a gap is silent. Beside moving pictures the sound starts and ends with them.
    """

    def __init__(self, source: Source, track: int | None = None, promised: int = 0) -> None:
        self._source, self.promised = source, promised
        self._container, pictures = open_tracks(source)
        try:
            if not self._container.streams.audio:
                raise ValueError("holds no sound track")
            self._chosen = choose(self._container.streams.audio, track, "sound")
            self.notes = self._chosen.notes
            pictures = [stream for stream in pictures if stream.codec_context]
            self._beside = choose(pictures, None, "video").index if pictures else None
            self._stream: Any = self._container.streams[self._chosen.index]
            self._measure()
        except Exception:
            self._container.close()
            raise

    def _reopen(self) -> None:
        self._container.close()
        self._container = open_container(self._source)
        self._stream = self._container.streams[self._chosen.index]

    def _measure(self) -> None:
        self._start, self.rate = Fraction(0), self._stream.rate
        first = next(self._decoded(), None)
        if first is None:
            raise ValueError("holds no sound that can be decoded")
        self.channels = first[1].shape[1]
        self.filling = 0 if self._stream.codec_context.codec.lossless else len(first[1])
        check_rate(self.rate)
        if self._beside is not None:
            pictures: Any = self._container.streams[self._beside]
            self._start = start_seconds(pictures)
            self.seconds: float | None = picture_seconds(self._container, pictures)
            self.length = round(self.seconds * self.rate)
            self.left_out = float((self._stream.duration or 0) * tick(self._stream)) - self.seconds
        else:
            self._start = Fraction(first[0], self.rate)
            self.seconds, self.left_out = None, 0.0
            self._restart(0)
            self.length = round(float(end_seconds(self._container, self._stream) - self._start) * self.rate)
        self.facts = {"format": self._container.format.name, "codec": self._stream.codec_context.name, **self._chosen.facts}
        self.seek(0)

    def seek(self, sample: int) -> None:
        """Go to a sample."""
        self._restart(sample - PREROLL_SECONDS * self.rate)
        self._blocks = self._from(sample)

    def _restart(self, sample: int) -> None:
        """Go to the packet before a sample; to the beginning, if the file cannot seek."""
        at = max(Fraction(sample, self.rate), Fraction(0)) + self._start
        try:
            self._container.seek(int(at / tick(self._stream)), stream=self._stream, backward=True)
        except OSError:
            self._reopen()

    def more(self, count: int) -> np.ndarray:
        """The next samples, (n, channels)."""
        blocks, wanted = [], count
        while wanted > 0 and (block := next(self._blocks, None)) is not None:
            blocks.append(block[:wanted])
            if len(block) > wanted:
                self._blocks = chain([block[wanted:]], self._blocks)
            wanted -= len(block)
        return np.concatenate(blocks) if blocks else np.empty((0, self.channels), np.float32)

    def _from(self, sample: int) -> Iterator[np.ndarray]:
        """Blocks (n, channels) from a sample on, without gaps, up to the length."""
        placed = False
        for number, block in self._decoded():
            at = sample if placed and abs(number - sample) < self.rate // 10 else number  # containers' clocks are coarse
            if at + len(block) <= sample:
                continue
            while sample < min(at, self.length):
                silent = min(at - sample, self.rate, self.length - sample)
                yield np.zeros((silent, self.channels), np.float32)
                sample += silent
            if sample >= self.length:
                return
            block = block[sample - at : self.length - at]  # noqa: PLW2901
            yield block
            sample += len(block)
            placed = True

    def _decoded(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number of its first sample, as its time says, and samples (n, channels) of each frame; a damaged packet is left out."""
        number = 0
        for frame in frames(self._container, self._stream):
            if frame.sample_rate != self.rate:
                raise ValueError(f"changes from {self.rate} to {frame.sample_rate} Hz")
            if frame.pts is not None:
                number = round((frame.pts * tick(self._stream) - self._start) * self.rate)
            block = _floats(frame)
            yield number, block
            number += len(block)

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


def _floats(frame: av.AudioFrame) -> np.ndarray:
    """A frame's samples (n, channels) float32 in [-1, 1]."""
    values = frame.to_ndarray()  # (channels, n), or (1, n * channels)
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    full = 2.0 ** (8 * values.dtype.itemsize - 1)
    return ((values.astype(np.float64) - (full if values.dtype.kind == "u" else 0)) / full).astype(np.float32)
