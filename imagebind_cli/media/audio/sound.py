"""Sounds, read forwards a stretch at a time: from a file, from memory, or a part of either."""

from __future__ import annotations

import re
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
import soundfile

from imagebind_cli.media.audio.container_track import SoundTrack
from imagebind_cli.media.audio.decoder import Decoder, check_rate
from imagebind_cli.media.audio.sound_file import DoubtfulLength, SoundFile
from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes
from imagebind_cli.media.isolation import Apart

# Integers and floats in WAV files whose first part says so, and FLAC.
PLAIN = re.compile(rb"(RIFF|RF64)....WAVEfmt ....(\x01\0|\x03\0|\xfe\xff)|fLaC", re.DOTALL)
NUMBERS = "rate", "channels", "length", "promised", "seconds"
REMARKS = "facts", "notes", "filling", "left_out", "began"
SKIP_SECONDS = 10  # a stretch at most this far ahead is reached by decoding on, a later one by seeking


class Sound:
    """An open sound. Use it as a context manager.

    rate: Hz. length: samples in each channel. seconds: how long the pictures of the same file last; None if there are none.
    track: which one of several sound tracks, from 1; if not given, the one flagged default, else the first. notes: which that is.
    filling: this many samples at the end may be padding of an encoder's last packet, and not sound. began: when the recording did.

    Raises:
        OSError, ValueError: the file cannot be read, holds no sound or no such track, or is of an absurd rate.
    """

    def __init__(self, source: Source, track: int | None = None) -> None:
        check_file(source)
        with decoding("sound"):
            self._decoder = _open_decoder(source, track)
        self.rate, self.channels = self._decoder.rate, self._decoder.channels
        self.length, self.seconds, self.notes = self._decoder.length, self._decoder.seconds, self._decoder.notes
        self.filling, self.began = self._decoder.filling, self._decoder.began
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
        """Facts about the file."""
        return self._decoder.facts | facts_of(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user: the file ends before its stated length, or has more sound than pictures."""
        warnings = []
        if (self._decoder.promised - self.length) * 100 > self.rate:  # 10 ms: a frame of some codecs
            warnings.append(f"cut short: {self.length / self.rate:.2f} s of {self._decoder.promised / self.rate:.2f} s are there")
        if self._decoder.left_out > 1:
            warnings.append(
                f"{self._decoder.left_out:.2f} s of sound outside the pictures, which last {self.length / self.rate:.2f} s, are left out; "
                "to embed all of it, take the pictures away: ffmpeg -i IN -vn -c copy OUT.mka"
            )
        return tuple(warnings)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return samples [start, stop) as (channels, stop - start) float32, zeros past the end; `start` never goes back.

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
        return pad_samples(self._held[: stop - start].T, stop - start)


class Waveform:
    """A waveform in memory, with the interface of `Sound`."""

    seconds = began = None
    notes = warnings = ()
    filling = 0

    def __init__(self, waveform: np.ndarray, rate: int) -> None:
        self._waveform = np.atleast_2d(waveform)
        if self._waveform.ndim != 2 or not self._waveform.size:
            raise ValueError(f"shape {np.shape(waveform)}; (samples,) or (channels, samples) is needed")
        check_rate(rate)
        self.rate, (self.channels, self.length) = int(rate), self._waveform.shape

    def __enter__(self) -> Waveform:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the waveform."""
        return facts_of(self)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Sound.read`."""
        samples = self._waveform[:, start:stop].astype(np.float32)
        check_numbers(samples)
        return pad_samples(samples, stop - start)


class Excerpt:
    """A part of an open sound, with the same interface. start, end: seconds of it; within it."""

    def __init__(self, sound: Sound | Waveform, start: Fraction, end: Fraction) -> None:
        self._sound, self._first = sound, round(start * sound.rate)
        self.rate, self.facts, self.notes, self.warnings = sound.rate, sound.facts, sound.notes, sound.warnings
        self.length = min(round(end * sound.rate), sound.length) - self._first
        self.filling = sound.filling if self._first + self.length == sound.length else 0
        self.seconds = None if sound.seconds is None else float(end - start)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Sound.read`."""
        return self._sound.read(self._first + start, self._first + stop)


def pad_samples(samples: np.ndarray, count: int) -> np.ndarray:
    """Pad samples (channels, n) with zeros to (channels, count)."""
    missing = count - samples.shape[1]
    return np.pad(samples, ((0, 0), (0, missing))) if missing else samples


def facts_of(sound: Sound | Waveform) -> dict[str, Any]:
    """Return rate, channels and seconds."""
    return {"rate": sound.rate, "channels": sound.channels, "seconds": round(sound.length / sound.rate, 3)}


def check_numbers(samples: np.ndarray) -> None:
    """Refuse NaN and infinity."""
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are not numbers (NaN or infinite)")


class _DecoderApart:
    """A decoder in a separate process."""

    def __init__(self, source: Source, track: int | None) -> None:
        self._apart = Apart("imagebind_cli.media.audio.sound:_decoder", source, track)
        self.rate, self.channels, self.length, self.promised, self.seconds = self._apart.get(*NUMBERS)
        self.facts, self.notes, self.filling, self.left_out, self.began = self._apart.get(*REMARKS)

    def seek(self, sample: int) -> None:
        self._apart.call("seek", sample)

    def more(self, count: int) -> np.ndarray:
        samples: np.ndarray = self._apart.call("more", count)
        return samples

    def close(self) -> None:
        with suppress(ValueError):  # it crashed
            self._apart.call("close")
        self._apart.close()


def _open_decoder(source: Source, track: int | None) -> Decoder:
    """Open plain samples here, where they are read several times as fast, and whatever takes a codec in a separate process."""
    if PLAIN.match(first_bytes(source, 22)) and (track is None or track == 1):
        with suppress(soundfile.LibsndfileError, TypeError, DoubtfulLength):
            return SoundFile(source)
    return _DecoderApart(source, track)


def _decoder(source: Source, track: int | None) -> Decoder:
    if track is not None and track > 1:  # libsndfile knows of one
        return SoundTrack(source, track)
    try:
        return SoundFile(source)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: a file whose name ends in .raw, whatever it holds
        return SoundTrack(source, track)
    except DoubtfulLength as doubt:
        return SoundTrack(source, track, doubt.promised)
