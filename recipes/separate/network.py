"""The mask network: a U-Net on the log energies of a spectrogram that keeps what a query's vector names.

Its input is the mixture in 64 bands; its output, for each query, the share of the mixture to keep in each band and frame. Vectors scale and shift
the channels of the decoder (FiLM; Perez et al., AAAI 2018, arXiv:1709.07871), so the encoder runs once for all queries of a mixture.

Dimensions: b mixtures, n queries of each, d numbers of a vector, s samples, f frequencies, k bands, t frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli import UserError
from imagebind_cli.weights.tensor_files import differing_tensors, read_about, write_tensors

RATE = 16_000
WINDOW, HOP = 512, 256  # samples: 32 ms every 16 ms
FREQUENCIES = WINDOW // 2 + 1
LOWEST_HERTZ = 20.0
LEVELS = (1.0, 1.5, 2.0, 3.0)  # channels of each resolution of the U-Net, over those of the first
FACTOR = 2 * 2 ** (len(LEVELS) - 1)  # bands and frames are halved by the stem and between levels
FINE = 8  # channels of the last layers, at full resolution


@dataclass(frozen=True)
class Shape:
    """The network's size. dim: numbers of a query's vector."""

    dim: int
    width: int = 24
    bands: int = 64
    hidden: int = 128


def spectrum(waves: Tensor) -> Tensor:
    """Transform waveforms (…, s) to complex spectra (…, f, t)."""
    spectra = torch.stft(waves.flatten(0, -2), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    return spectra.unflatten(0, waves.shape[:-1])


def waveform(spectra: Tensor, samples: int) -> Tensor:
    """Transform spectra (…, f, t) back to waveforms (…, samples)."""
    waves = torch.istft(spectra.flatten(0, -3), WINDOW, HOP, window=torch.hann_window(WINDOW), length=samples)
    return waves.unflatten(0, spectra.shape[:-2])


@cache
def band_weights(bands: int) -> tuple[Tensor, Tensor]:
    """Return the matrices (k, f) by which bands take the power of frequencies, and frequencies the mask of bands.

    Bands are equally far apart in mel. The first matrix has rows of sum 1: a triangle, or where that is narrower than a frequency the two next to
    its middle. The second has columns of sum 1: linear interpolation.
    """

    def mel(hertz: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + hertz / 700)

    low, high = mel(torch.tensor([LOWEST_HERTZ, RATE / 2], dtype=torch.float64))
    step = (high - low) / (bands - 1)
    hertz = torch.arange(FREQUENCIES, dtype=torch.float64) * RATE / WINDOW
    place = ((mel(hertz) - low) / step).clamp(0, bands - 1)  # in bands
    triangles = (1 - (torch.arange(bands)[:, None] - place).abs()).clamp(min=0)  # (k, f)
    middle = 700 * (10 ** ((low + step * torch.arange(bands)) / 2595) - 1) * WINDOW / RATE  # in frequencies
    nearest = (1 - (torch.arange(FREQUENCIES) - middle[:, None]).abs()).clamp(min=0)
    take = torch.where(triangles.sum(dim=1, keepdim=True) < 1, nearest, triangles)
    return (take / take.sum(dim=1, keepdim=True)).float(), triangles.float()


class Block(nn.Module):
    """Two convolutions; a vector of `condition` numbers, where there is one, scales and shifts the second's channels."""

    def __init__(self, channels: int, out: int, condition: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        self.film = nn.Linear(condition, 2 * out) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = F.silu(self.first_norm(self.first(x)))
        x = self.second_norm(self.second(x))
        if self.film is not None:
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
            x = x * (1 + scale) + shift
        return F.silu(x)


class MaskNetwork(nn.Module):
    """Masks of mixtures for queries."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        channels = [round(shape.width * level) for level in LEVELS]
        self.stem = nn.Conv2d(3, channels[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList([Block(channels[max(level - 1, 0)], out) for level, out in enumerate(channels)])
        self.condition = nn.Sequential(
            nn.Linear(shape.dim + 2 * channels[-1], shape.hidden), nn.SiLU(), nn.Linear(shape.hidden, shape.hidden), nn.SiLU()
        )
        self.middle = Block(channels[-1], channels[-1], shape.hidden)
        self.up = nn.ModuleList(
            [Block(below + out, out, shape.hidden) for out, below in zip(channels[-2::-1], channels[:0:-1], strict=True)]
        )
        self.fine = nn.Conv2d(channels[0], 4 * FINE, 1)
        self.last = nn.Conv2d(FINE + 3, FINE, 3, padding=1)
        self.mask = nn.Conv2d(FINE, 1, 1)

    def forward(self, power: Tensor, queries: Tensor) -> Tensor:
        """Return the share of each band to keep, from 0 to 1.

        Args:
            power: of the mixtures in each band, (b, k, t), about 1 on average.
            queries: unit vectors (b, n, d).
        Returns:
            (b, n, k, t) float32.
        """
        frames, count = power.shape[2], queries.shape[1]
        top = self.inputs(F.pad(power, (0, -frames % FACTOR)))
        x, skips = F.silu(self.stem(top)), []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        *skips, x, top = [each.repeat_interleave(count, dim=0) for each in (*skips, top)]  # (b n, ...)
        condition = self.condition(torch.cat([queries.flatten(0, 1), x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))
        x = self.middle(x, condition)
        for block, skip in zip(self.up, skips[::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], dim=1), condition)
        x = F.silu(self.last(torch.cat([F.pixel_shuffle(self.fine(x), 2), top], dim=1)))
        return torch.sigmoid(self.mask(x).float())[:, 0, :, :frames].unflatten(0, (-1, count))

    def inputs(self, power: Tensor) -> Tensor:
        """Return log energies less their mean over their deviation, their change since the last frame, and each band's place, (b, 3, k, t)."""
        logs = torch.log(power + 1e-8)
        logs = (logs - logs.mean(dim=(1, 2), keepdim=True)) / (logs.std(dim=(1, 2), keepdim=True) + 1e-3)
        change = F.pad(logs[:, :, 1:] - logs[:, :, :-1], (1, 0))
        place = torch.linspace(-1, 1, self.shape.bands)[:, None].expand_as(logs)
        return torch.stack([logs, change, place], dim=1).contiguous(memory_format=torch.channels_last)


def masks(network: MaskNetwork, power: Tensor, queries: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Return the share of each frequency to keep, (b, n, f, t).

    Args:
        power: of the mixtures' spectra (b, f, t). queries: unit vectors (b, n, d). precision: of the convolutions.
    """
    take, spread = band_weights(network.shape.bands)
    bands = take @ (power / power.mean(dim=(1, 2), keepdim=True).clamp(min=1e-20))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        shares = network(bands, queries)
    return torch.einsum("kf, bnkt -> bnft", spread, shares)


def separated(network: MaskNetwork, mixtures: Tensor, queries: Tensor) -> Tensor:
    """Return what the queries (b, n, d) name in mixtures (b, s): waveforms (b, n, s)."""
    with torch.inference_mode():
        spectra = spectrum(mixtures)
        shares = masks(network, spectra.abs().square(), queries)
        return waveform(shares * spectra[:, None], mixtures.shape[-1])


def save_network(network: MaskNetwork, path: Path, about: dict[str, Any]) -> None:
    """Write a network to a safetensors file. about: what else the file says of it."""
    write_tensors({key: value.contiguous() for key, value in network.state_dict().items()}, path, {"shape": asdict(network.shape), **about})


def read_tensor_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file of this recipe and what it says of itself.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, read_about(file.metadata())  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; recipes/separate/README.md says how it is made") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a file of this recipe, or damaged: {error}") from None
    if names := differing_tensors(tensors, about):
        raise UserError(f"{path}: damaged: {names[0]}; make it again")
    return tensors, {key: value for key, value in about.items() if key not in ("sums", "crc32")}


def load_network(path: Path) -> tuple[MaskNetwork, dict[str, Any]]:
    """Load a network, ready to use, and what its file says of it.

    Raises:
        UserError: the file is missing, damaged, or not a network.
    """
    tensors, about = read_tensor_file(path)
    if "shape" not in about:
        raise UserError(f"{path}: is not a network; train.py writes network.safetensors")
    network = MaskNetwork(Shape(**about["shape"]))
    network.load_state_dict(tensors)
    return network.eval(), about
