"""Audio: 2-second windows as Kaldi log-mel spectrograms (ImageBind appendix B.1, and the released code where they differ)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from itertools import groupby, islice
from threading import get_ident
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.errors import OptionError
from imagebind_cli.media.audio.sound import Excerpt, Sound, Waveform
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.resampling import Resampled
from imagebind_cli.media.windows import Times, cut, seconds, windows
from imagebind_cli.options.audio import AudioOptions

RATE = 16_000
# Sounds are cut in three more places: `live.cutting.span`, `families.languagebind.reading.read_stretches`, `onepeace.reading.read_waveform`.
WINDOW_SECONDS = 2
FRAME, HOP = RATE * 25 // 1000, RATE * 10 // 1000  # 400 and 160 samples: 25 ms every 10 ms
STEP = 80  # samples: the greatest common divisor of both
FFT = 512
PREEMPHASIS = 0.97
LOWEST_HERTZ = 20.0
WINDOWS_AT_ONCE = 16
LARGEST = 2.0  # decoders and masters exceed full scale, 1, but not by this much
SILENT, AUDIBLE = 1e-4, 10**-2.5  # root mean square: -80 and -50 dB of full scale
TOGETHER = 4  # windows whose spectra are filtered at once, while they are in the cache

Channels = TypeVar("Channels", np.ndarray, Tensor)


@cache
def mel_filters(bins: int) -> Tensor:
    """Return Kaldi's triangular filters, sparse (bins, FFT / 2 + 1) float32: equal steps on mel = 1127 ln(1 + f / 700) from 20 Hz to half the rate.

    Each frequency feeds at most two of them. Rounded to float32 at each step, as the published ones are.
    """
    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (LOWEST_HERTZ, RATE / 2))
    step = (high - low) / (bins + 1)
    left, centre, right = (low + (torch.arange(bins)[:, None] + i) * step for i in range(3))
    mel = 1127 * (1 + RATE / FFT * torch.arange(FFT // 2) / 700).log()
    filters = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0)
    return F.pad(filters, (0, 1)).to_sparse().coalesce()  # the frequency at half the rate belongs to no filter


def band_hertz(bins: int) -> np.ndarray:
    """Return the edges of the bands of a spectrogram in Hz, (bins + 1,): halfway, on the mel scale, between the centres of two filters."""
    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (LOWEST_HERTZ, RATE / 2))
    step = (high - low) / (bins + 1)
    return 700 * (np.exp((low + (np.arange(bins + 1) + 0.5) * step) / 1127) - 1)


@cache
def hann() -> Tensor:
    """Return the analysis window, (FRAME,) float64. The paper says Hamming; the released code, which made the weights, uses Hann."""
    return torch.hann_window(FRAME, periodic=False, dtype=torch.float64)


class Filterbank:
    """Log-mel energies of waveforms of one length, a few at a time: Kaldi's `fbank` with `htk_compat`, no dither, no energy term.

    Computed in float64 up to the power spectrum: in quiet bands (all above 4 kHz of a telephone recording) the float32 rounding of a loud
    band would show. Its buffers are allocated once, since fresh memory costs as much as the transform; one thread at a time may use them.

    Dimensions: w waveforms, n samples, f frames, k frequencies.
    """

    def __init__(self, samples: int, bins: int, count: int = 1) -> None:
        """samples: n, a number of whole frames (`whole_frames`). bins: energies of each frame. count: the largest w."""
        self.frames = frames = (samples - FRAME) // HOP + 1
        self._waveform = torch.empty(samples, dtype=torch.float64)
        self._steps = self._waveform.view(-1, STEP)
        self._now, self._before = self._waveform[1:], self._waveform[:-1]
        emphasised = torch.zeros(samples, dtype=torch.float64)
        self._emphasised, self._framed = emphasised[1:], emphasised.unfold(0, FRAME, HOP)  # (n - 1,), (f, FRAME)
        self._padded = torch.zeros(frames, FFT, dtype=torch.float64)
        self._frames = self._padded[:, :FRAME]
        self._spectrum = torch.empty(frames, FFT // 2 + 1, dtype=torch.complex64)
        self._squares = torch.view_as_real(self._spectrum)  # (f, k, 2)
        self._real, self._imaginary = self._squares.unbind(-1)
        self._power = torch.empty(FFT // 2 + 1, count * frames)
        self._powers = [power.T for power in self._power.chunk(count, dim=1)]  # (f, k) each
        self._energies = torch.empty(bins, count * frames)
        self._filters = mel_filters(bins)
        self._window = hann()
        # What pre-emphasis leaves of a frame's mean, which Kaldi subtracts before it.
        self._share = torch.full((STEP,), (1 - PREEMPHASIS) / FRAME, dtype=torch.float64)
        self._sums = torch.empty(samples // STEP, dtype=torch.float64)
        self._summed, self._left = self._sums.unfold(0, FRAME // STEP, HOP // STEP), torch.empty(frames, 1, dtype=torch.float64)

    def __call__(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Compute energies (w, bins, f) float32, which the next call overwrites, of waveforms (n,) at 16 kHz in [-1, 1]."""
        for waveform, power in zip(waveforms, self._powers, strict=False):
            self._transform(waveform, power)
        used = len(waveforms) * self.frames
        energies = torch.mm(self._filters, self._power[:, :used], out=self._energies[:, :used])
        values = energies.clamp_(min=torch.finfo(torch.float32).eps).numpy()
        np.log(values, out=values)  # half the time of torch's
        return energies.view(-1, len(waveforms), self.frames).transpose(0, 1)

    def _transform(self, waveform: Tensor, power: Tensor) -> None:
        """Write a waveform's power spectrum to `power`, (f, k)."""
        self._waveform.copy_(waveform)
        # Pre-emphasis of all samples at once. Kaldi treats the first sample of a frame differently, but the window is 0 there.
        torch.sub(self._now, self._before, alpha=PREEMPHASIS, out=self._emphasised)
        torch.mv(self._steps, self._share, out=self._sums)
        torch.sum(self._summed, -1, keepdim=True, out=self._left)  # (f, 1)
        torch.sub(self._framed, self._left, out=self._frames).mul_(self._window)
        self._spectrum.copy_(torch.fft.rfft(self._padded))  # `out=` would copy once more
        self._squares.mul_(self._squares)
        torch.add(self._real, self._imaginary, out=power)


@lru_cache(maxsize=16)
def _filterbank(thread: int, samples: int, bins: int) -> Filterbank:
    """Return the filterbank of a thread."""
    return Filterbank(samples, bins, TOGETHER)


@cache
def _silence(mean: float, deviation: float) -> Tensor:
    """Return the normalised value of 0."""
    return torch.tensor(-mean / deviation)


def whole_frames(waveform: Tensor, most: int | None = None) -> Tensor:
    """Cut a waveform (samples,) after its last whole frame, or after `most` frames."""
    frames = (len(waveform) - FRAME) // HOP + 1
    return waveform[: ((frames if most is None else min(frames, most)) - 1) * HOP + FRAME]


def log_mel(waveform: Tensor, bins: int) -> Tensor:
    """Return log-mel energies (bins, frames) float32 of a waveform (samples,) at 16 kHz in [-1, 1]."""
    waveform = whole_frames(waveform)
    return Filterbank(len(waveform), bins)([waveform])[0]


def spectrograms(waveforms: Sequence[Tensor], config: EncoderConfig) -> Tensor:
    """Return the encoder's input (windows, 1, bins, frames) for windows (samples,) at 16 kHz.

    A window of fewer frames is padded on the right with zeros before it is normalised, and a longer one is cut, as published.
    """
    _, bins, frames = config.shape
    result = torch.empty(len(waveforms), bins, frames)
    silence = _silence(config.mean[0], config.std[0])
    start = 0
    for samples, alike in groupby((whole_frames(waveform, frames) for waveform in waveforms), len):
        bank = _filterbank(get_ident(), samples, bins)
        while group := list(islice(alike, TOGETHER)):
            places = result[start : start + len(group)]
            torch.add(silence, bank(group), alpha=1 / config.std[0], out=places[..., : bank.frames])
            places[..., bank.frames :].fill_(silence)
            start += len(group)
    return result.unsqueeze(1)


def read_audio(source: Source | np.ndarray | tuple[np.ndarray, int], config: EncoderConfig, options: AudioOptions) -> Iterator[Sample]:
    """Read a sound file, or (waveform (samples,) or (channels, samples) in [-1, 1], rate in Hz), or a waveform alone, at 16 kHz.

    Raises:
        OSError, ValueError: the file cannot be read, or is too short.
    """
    levels = Levels()
    with open_sound(source, options.track) as whole:
        sound, begin, lacks = part_of_sound(whole, options.stretch)
        check_length(sound)

        def rows(start: int, stop: int) -> Tensor:
            samples = sound.read(start, stop)
            result = heard_rows(samples, options.channels)
            levels.add(samples, result[0])
            return result

        resampled = Resampled(rows, sound.length, sound.rate, RATE)
        spans = windows(_covered(sound, resampled.length), WINDOW_SECONDS, options.clips, options.moment, options.hop)
        facts: dict[str, Any] = sound.facts | {"heard": options.channels, "windows": len(spans)}
        clips = _clips(resampled, spans, apart=options.hop is not None)
        for i in range(0, len(spans), WINDOWS_AT_ONCE):
            batch = list(islice(clips, WINDOWS_AT_ONCE))
            is_last = i + WINDOWS_AT_ONCE >= len(spans)
            yield Sample(
                spectrograms(batch, config),
                seconds(spans[i : i + WINDOWS_AT_ONCE], begin),
                () if i else sound.notes,
                {} if i else facts,
                (() if i else (*sound.warnings, *lacks)) + (levels.warnings(options.channels) if is_last else ()),
                began=whole.began,
            )


def part_of_sound(whole: Sound | Waveform, stretch: Times | None) -> tuple[Sound | Waveform | Excerpt, Fraction, tuple[str, ...]]:
    """Return the requested part of a sound, all of it if none is, when it begins, and in words what of it is missing."""
    if stretch is None:
        return whole, Fraction(0), ()
    begin, end, lacks = cut(stretch, whole.length / whole.rate if whole.seconds is None else whole.seconds)
    return Excerpt(whole, begin, end), begin, lacks


def check_length(sound: Sound | Waveform | Excerpt) -> None:
    """Refuse a sound that is too short for a single frame.

    Raises:
        ValueError: with its milliseconds.
    """
    if sound.length * RATE < FRAME * sound.rate:
        raise ValueError(f"{1000 * sound.length / sound.rate:.1f} ms of sound; at least {1000 * FRAME // RATE} ms are needed")


def open_sound(source: Source | np.ndarray | tuple[np.ndarray, int], track: int | None) -> Sound | Waveform:
    """Open a sound file, or (waveform, rate in Hz), or a waveform alone, at 16 kHz."""
    if isinstance(source, np.ndarray):
        return Waveform(source, RATE)
    return Waveform(*source) if isinstance(source, tuple) else Sound(source, track)


def _covered(sound: Sound | Waveform | Excerpt, length: int) -> float:
    """Return the seconds that windows cover. length: samples at 16 kHz.

    A remainder after the last whole window is left out if it may be the filling of a codec's last packet, so that the same sound has as
    many windows as a WAV file and as AAC.
    """
    if sound.seconds is not None:
        return sound.seconds
    over = length % (WINDOW_SECONDS * RATE)
    return (length - over if over < min(sound.filling * RATE / sound.rate, length) else length) / RATE


class Levels:
    """Measures how loud the channels are, to warn of levels that are hardly intended."""

    def __init__(self) -> None:
        self._peak, self._count = 0.0, 0
        self._energies: np.ndarray | float = 0.0  # of each channel, and last of the mono sound that is used

    def add(self, samples: np.ndarray, heard: Tensor) -> None:
        """Add samples (channels, n) in [-1, 1], and the mono sound (n,) that is used of them."""
        with np.errstate(over="ignore"):  # samples that large are refused later
            squares = np.square(samples)
            energies = np.ones(samples.shape[1], np.float32) @ squares.T  # several times as fast as a sum over interleaved channels
        self._energies = self._energies + np.append(energies, torch.dot(heard, heard)).astype(np.float64)
        self._count += samples.shape[1]
        self._peak = max(self._peak, float(squares.max(initial=0)) ** 0.5)

    def warnings(self, channels: str) -> tuple[str, ...]:
        """Return the warnings. channels: the option of that name."""
        found = []
        if self._peak > LARGEST:
            found.append(
                f"samples reach {self._peak:,.6g}, and full scale is 1, so the vector is that of a far louder sound; if they are 16-bit numbers, "
                "divide them by 32768: ffmpeg -i IN -af volume=1/32768 OUT.wav"
            )
        *each, heard = np.sqrt(np.atleast_1d(self._energies) / max(self._count, 1))
        if heard < SILENT and max(each, default=0) > AUDIBLE:
            loudest = int(np.argmax(each)) + 1
            remedies = {
                "first": f"channel 1 of {len(each)}, the one used, is silent, and channel {loudest} is not: --channels mix uses all of them",
                "mix": f"its {len(each)} channels cancel each other out when mixed: --channels first uses the first",
            }
            found.append(remedies.get(channels, f"the used part of its {len(each)} channels is silent, and channel {loudest} is not"))
        return tuple(found)


def heard_channel(samples: Channels, mean: Channels, channels: str) -> Channels:
    """Return the used part of a sound: one of its channels, or their mean. No other code may decide it; `Levels.warnings` names remedies.

    Args:
        samples: (channels, n). mean: of all channels, (n,). channels: the option of that name.
    Raises:
        OptionError: another value than those of `AudioOptions.channels`.
    """
    if channels == "first":
        return samples[0]
    if channels == "mix":
        return mean
    raise OptionError(f"channels is {channels!r}, which no reader heeds", ["channels"])


def heard_rows(samples: np.ndarray, channels: str) -> Tensor:
    """Return the channel that is used, and the mean of all, where that is another."""
    if len(samples) == 1:
        return torch.from_numpy(samples[0])[None]  # not `samples`: torch takes ten times as long to copy a row whose stride is 1
    mean = sum(samples[1:], samples[0]) / np.float32(len(samples))  # three times as fast as `samples.mean(axis=0)`
    heard = heard_channel(samples, mean, channels)
    return torch.from_numpy(np.stack([mean] if heard is mean else [heard, mean]))


def _clips(resampled: Resampled, spans: Iterable[tuple[Fraction, Fraction]], apart: bool) -> Iterator[Tensor]:
    """Yield each window (samples,), less the mean of all channels.

    The mean is subtracted in place, as published: where windows overlap, the next one starts from what this one left. This shows only in
    the frame across the seam, by up to 0.002 of the input's standard deviation. So the part that the next window shares is kept.

    apart: each window is that of a sound cut to it instead, whatever the windows before it.
    """
    held, at = torch.empty(0, 0), 0
    for start, end in spans:
        first, stop = int(start * RATE), min(int(end * RATE), resampled.length)
        reached = at + held.shape[1]
        fresh = resampled.read(max(first, reached), max(stop, reached))
        held = torch.cat([held[:, first - at :], fresh], dim=1) if first < reached else fresh
        at, centred = first, held - held[-1].mean()
        held = held if apart else centred
        yield centred[0]


MODALITY = Modality(name="audio", readers={"audio": read_audio}, preview="spectrogram")
