"""Audio: 2-second windows as Kaldi log-mel spectrograms (ImageBind appendix B.1, and the released code where they differ)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.audio import read_audio
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.windows import seconds, windows
from imagebind_cli.reading import AudioOptions

RATE = 16_000
WINDOW_SECONDS = 2
FRAME, HOP = RATE * 25 // 1000, RATE * 10 // 1000  # 400 and 160 samples: 25 ms every 10 ms
FFT = 512
PREEMPHASIS = 0.97
LOWEST_HERTZ = 20.0
WINDOWS_AT_ONCE = 64


@cache
def mel_filters(bins: int) -> Tensor:
    """Kaldi's triangular filters, (FFT / 2 + 1, bins) float64: equal steps on mel = 1127 ln(1 + f / 700) from 20 Hz to half the rate."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127 * torch.log1p(hertz / 700)

    low, high = mel(torch.tensor([LOWEST_HERTZ, RATE / 2], dtype=torch.float64))
    step = (high - low) / (bins + 1)
    left = low + step * torch.arange(bins)
    frequencies = mel(RATE / FFT * torch.arange(FFT // 2, dtype=torch.float64))[:, None]
    filters = torch.minimum((frequencies - left) / step, (left + 2 * step - frequencies) / step).clamp(min=0)
    return F.pad(filters, (0, 0, 0, 1))  # the bin at half the rate belongs to no filter


@cache
def hann() -> Tensor:
    """The analysis window, (FRAME,) float64. The paper says Hamming; the released code, which made the weights, says Hann."""
    return torch.hann_window(FRAME, periodic=False, dtype=torch.float64)


def log_mel(waveform: Tensor, bins: int) -> Tensor:
    """Log-mel energies (bins, frames) float32 of a waveform (samples,) at 16 kHz in [-1, 1].

    Equal to Kaldi's `fbank` with `htk_compat`, no dither, no energy term. Computed in float64: in quiet bands (all above 4 kHz of a
    telephone recording) the float32 rounding of a loud one would show.
    """
    frames = waveform.double().unfold(-1, FRAME, HOP)  # (frames, FRAME)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    spectrum = torch.view_as_real(torch.fft.rfft((frames - PREEMPHASIS * previous) * hann(), n=FFT))
    power = spectrum.square().sum(-1)  # (frames, FFT / 2 + 1)
    energies = (power @ mel_filters(bins)).clamp(min=torch.finfo(torch.float32).eps)
    return energies.log().T.float()


def spectrogram(waveform: Tensor, config: EncoderConfig) -> Tensor:
    """The encoder's input (1, bins, frames) for one window (samples,) at 16 kHz.

    A window of fewer frames is padded on the right with zeros before it is normalised, a longer one is cut, as published.
    """
    _, bins, frames = config.shape
    mel = log_mel(waveform, bins)[:, :frames]
    mel = F.pad(mel, (0, frames - mel.shape[1]))
    return ((mel - config.mean[0]) / config.std[0]).unsqueeze(0)


def resample(waveform: Tensor, rate: int) -> Tensor:
    """A waveform (…, samples) at `rate` Hz, at 16 kHz: torchaudio's windowed sinc, as published."""
    if rate == RATE:
        return waveform
    from torchaudio.functional import resample  # only where it is needed: the import takes a second

    return resample(waveform, rate, RATE)


def read(source: Source | np.ndarray | tuple[np.ndarray, int], config: EncoderConfig, options: AudioOptions) -> Iterator[Sample]:
    """A sound file, or (waveform (samples,) or (channels, samples) in [-1, 1], rate in Hz), or a waveform alone, at 16 kHz.

    The first channel is heard.
    """
    if isinstance(source, np.ndarray):
        source = source, RATE
    channels, rate = _from_array(*source) if isinstance(source, tuple) else read_audio(source)
    waveform = resample(torch.from_numpy(channels), rate)  # (channels, samples)
    if waveform.shape[1] < FRAME:
        raise ValueError(f"{1000 * channels.shape[1] / rate:.1f} ms of sound; at least {1000 * FRAME // RATE} ms are needed")
    spans = windows(waveform.shape[1] / RATE, WINDOW_SECONDS, options.clips)
    for i in range(0, len(spans), WINDOWS_AT_ONCE):
        some = spans[i : i + WINDOWS_AT_ONCE]
        clips = []
        for start, end in some:
            clip = waveform[:, int(start * RATE) : int(end * RATE)]
            # In place, as published, and over all channels: where windows overlap, the next one starts from what this one left.
            # It shows only in the frame that straddles the seam, where it is worth up to 0.002 of the input's standard deviation.
            clip -= clip.mean()
            clips.append(spectrogram(clip[0], config))
        yield Sample(torch.stack(clips), seconds(some))


def _from_array(waveform: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    waveform = np.array(waveform, dtype=np.float32, ndmin=2)  # a copy: the caller's array is not written to
    if waveform.ndim != 2 or rate < 1 or not np.isfinite(waveform).all():
        raise ValueError(f"shape {waveform.shape} at {rate} Hz; a finite (samples,) or (channels, samples) is needed")
    return waveform, int(rate)


MODALITY = Modality(name="audio", readers={"audio": read})
