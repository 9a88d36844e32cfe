"""Sounds that libsndfile can read and whose length it knows."""

from __future__ import annotations

import os
import re

import numpy as np
import soundfile

from imagebind_cli.descriptors import WINDOWS
from imagebind_cli.media.audio.decoder import PREROLL_SECONDS
from imagebind_cli.media.audio.flac import MARK, SampleHash, read_stream_information
from imagebind_cli.media.clock import broadcast_clock
from imagebind_cli.media.decoding import Source, first_bytes
from imagebind_cli.media.tracks import end_seconds, open_container, start_seconds

# libsndfile's remark on a header whose count of bytes is not what follows.
PROMISE = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
BROADCAST = re.compile(r"^bext\b", re.MULTILINE)  # its remark on a chunk that has the recorder's clock
HEAD = 65_536  # bytes in which that chunk is looked for
UNKNOWN = 2**31 - 2**16  # programs that do not know the number of bytes write this or more


class DoubtfulLength(Exception):
    """libsndfile knows the format but not, or wrongly, how long the sound is. promised: samples that its header states; 0 if that is a guess."""

    def __init__(self, promised: int) -> None:
        self.promised = promised


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read forwards. Its base class would seek to the current place after each read, where an MP3's decoder restarts."""

    def seekable(self) -> bool:
        """Return False, for the base class; `seek` works."""
        return False


class SoundFile:
    """A sound as libsndfile reads it, used only if it has its stated length."""

    notes: tuple[str, ...] = ()
    filling, left_out = 0, 0.0

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open()
        self.rate, self.channels, self.length = self._file.samplerate, self._file.channels, self._file.frames
        self.seconds: float | None = None
        self.facts = {"format": self._file.format.lower(), "codec": self._file.subtype.lower()}
        is_flac = self._file.format == "FLAC" and first_bytes(source, len(MARK)) == MARK
        self._hash = SampleHash(read_stream_information(source)) if is_flac else None
        guessed = self._file.subtype.startswith("MPEG")  # in a WAV file, too, whose header counts the encoder's delay
        if not (self._agrees_with_packets(source) if guessed else self._reaches_its_end()):
            self._file.close()
            raise DoubtfulLength(0 if guessed else self.length)
        self.promised = self._promised()
        self.began = broadcast_clock(first_bytes(source, HEAD)) if BROADCAST.search(self._file.extra_info) else None

    def _open(self) -> None:
        if not isinstance(self._source, str | os.PathLike):
            self._source.seek(0)
        if isinstance(self._source, str | os.PathLike):
            path = os.fspath(self._source)
            self._file = _ForwardFile(path if WINDOWS else os.fsencode(path))  # names of any bytes; on Windows they are Unicode
        else:
            self._file = _ForwardFile(self._source)

    def _promised(self) -> int:
        """Return the samples that the header states: libsndfile counts those that exist, and mentions the rest only in its log."""
        remark = PROMISE.search(self._file.extra_info)
        if remark is None:
            return self.length
        said, found = map(int, remark.groups())
        return round(self.length * said / found) if 0 < found < said < UNKNOWN else self.length

    def _reaches_its_end(self) -> bool:
        """Check whether the last sample stated can be read. A count of zero may be a header never completed."""
        try:
            self._file.seek(max(self.length - 1, 0))
            found = len(self._file.read(1))
            if self._hash:  # libFLAC compares no checksum of a frame that it looks for
                self._file.close()
                self._open()
            else:
                self._file.seek(0)
        except soundfile.LibsndfileError:
            return False
        return found == 1

    def _agrees_with_packets(self, source: Source) -> bool:
        """Check whether an MP3's packets last as long as stated: without a table the length is a guess from the first packet.

        It does not seek to the end, since libmpg123 writes its own lines to stderr where a seek meets a frame it dislikes.
        """
        place = source.tell() if hasattr(source, "tell") else None
        with open_container(source) as container:
            stream = container.streams.audio[0]
            seconds = float(end_seconds(container, stream) - start_seconds(stream))
        if place is not None:
            source.seek(place)  # type: ignore[union-attr]
        return abs(seconds - self.length / self.rate) < 0.2

    def seek(self, sample: int) -> None:
        """Move to a sample."""
        self._hash = None
        before = max(sample - PREROLL_SECONDS * self.rate, 0)
        self._file.seek(before)
        self._file.read(sample - before, dtype="float32")

    def more(self, count: int) -> np.ndarray:
        """Return the next samples, (n, channels)."""
        if self._file.subtype == "PCM_16" or self._hash:  # the same numbers in a fifth of the time libsndfile takes for them
            bits = 16 if self._file.subtype == "PCM_16" else 32
            samples = self._file.read(count, dtype=f"int{bits}", always_2d=True)
            if self._hash:
                self._hash.add(samples)
            return samples.astype(np.float32) * np.float32(2.0 ** (1 - bits))
        return self._file.read(count, dtype="float32", always_2d=True)

    def close(self) -> None:
        """Release the file."""
        self._file.close()
