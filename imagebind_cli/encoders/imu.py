"""IMU: accelerometer and gyroscope in 5-second windows of 6 x 2000 values (ImageBind section 3.3 and appendix B.1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.arrays import head, read_npy, read_table
from imagebind_cli.media.decoding import Source, check_file
from imagebind_cli.media.windows import seconds, windows
from imagebind_cli.reading import IMUOptions

WINDOW_SECONDS = 5
CHANNELS = "accelerometer x, y, z, gyroscope x, y, z"


class IMUStem(nn.Module):
    """Readings (b, 6, t) to tokens (b, n, d): stretches of `patch` time steps, flattened channel by channel, and projected."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, self.patch, self.stride = config.trunk.width, config.patch[0], config.stride[0]
        self.proj = nn.Linear(config.shape[0] * self.patch, width, bias=False)
        self.norm = nn.LayerNorm(width, eps=config.stem_norm_eps or 1e-5)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.pos = nn.Parameter(torch.empty(1, config.tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unfold(-1, self.patch, self.stride).transpose(1, 2).flatten(2)  # (b, n - 1, 6 * patch)
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.norm(self.proj(x))], dim=1)
        return x + self.pos


def read(source: Source | np.ndarray, config: EncoderConfig, options: IMUOptions) -> Iterator[Sample]:
    """A table of six columns (CSV, TSV, NPY), or an array (6, t) or (t, 6): accelerometer and gyroscope x, y, z."""
    readings = source if isinstance(source, np.ndarray) else _read_file(source)
    if readings.ndim != 2 or 6 not in readings.shape or not readings.size:
        raise ValueError(f"shape {readings.shape}; six channels are needed: {CHANNELS}")
    if readings.shape[0] != 6:
        readings = readings.T
    if not np.isfinite(readings).all():
        raise ValueError("holds readings that are not numbers (NaN or infinite)")
    target = config.shape[1] // WINDOW_SECONDS
    signal = torch.from_numpy(np.ascontiguousarray(readings, dtype=np.float32))  # (6, t)
    notes = [f"channels taken as {CHANNELS}, units as they are"]
    if options.rate is None:
        notes.append(f"recording taken to be at {target} Hz")
    elif options.rate != target:
        from torchaudio.functional import resample  # only where it is needed: the import takes a second

        signal = resample(signal, options.rate, target)
    length = config.shape[1]
    if signal.shape[1] < length:
        notes.append(f"a recording shorter than {WINDOW_SECONDS} s padded with zeros")
    spans = windows(signal.shape[1] / target, WINDOW_SECONDS, options.clips)
    clips = [signal[:, int(start * target) :][:, :length] for start, _ in spans]
    tensor = torch.stack([F.pad(clip, (0, length - clip.shape[1])) for clip in clips])  # (clips, 6, 2000)
    mean, std = (torch.tensor(values).view(-1, 1) for values in (config.mean, config.std))
    yield Sample((tensor - mean) / std, seconds(spans), tuple(notes))


def _read_file(source: Source) -> np.ndarray:
    check_file(source)
    return read_npy(source) if head(source, 6) == b"\x93NUMPY" else read_table(source)


MODALITY = Modality(name="imu", readers={"imu": read}, stem=IMUStem)
