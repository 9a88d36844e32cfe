"""Random augmentation of each sample: its view, its time, masked mel bins (ImageBind table 9) and rotated sensor axes.

RandAugment with the table's `9/0.5` means: two of fifteen operations, each applied with probability 0.5, at a level out of 10 drawn from a
normal distribution of that mean and deviation, stronger with the level throughout. OMNIVORE, whose training the paper follows for depth, names
the same setting. Every draw has a generator of its own, made from the seed and the purpose; no generator's state is kept.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from imagebind_cli.media.views import RATIOS, Box, Crop, View
from imagebind_cli.training.recipe import AugmentRecipe

RULES = 2  # increased when a seed draws something else or an operation gives other pixels: such a run is then refused, not continued
TRIES = 10  # crops, and rectangles to erase, to draw until one fits, as in torchvision
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # limits of the fraction of the area, and of the aspect ratio: torchvision's
OPERATIONS, PROBABILITY = 2, 0.5  # of RandAugment
MIXED, GREY = 0.5, 0.3  # of `recolour`: deviation of the channels' mixture from their own colours; share of grey pictures

# Amount of each operation at a level from 0 to 1. One is drawn by its place: whoever adds, removes or moves one increases `RULES`.
AMOUNTS: dict[str, Callable[[float, int], float]] = {
    "autocontrast": lambda level, sign: 0,
    "equalize": lambda level, sign: 0,
    "invert": lambda level, sign: 0,
    "rotate": lambda level, sign: sign * 30 * level,
    "posterize": lambda level, sign: 4 - int(4 * level),
    "solarize": lambda level, sign: 256 - int(256 * level),
    "solarize_add": lambda level, sign: int(110 * level),
    "saturation": lambda level, sign: 1 + sign * 0.9 * level,
    "contrast": lambda level, sign: 1 + sign * 0.9 * level,
    "brightness": lambda level, sign: 1 + sign * 0.9 * level,
    "sharpness": lambda level, sign: 1 + sign * 0.9 * level,
    "shear_x": lambda level, sign: sign * 0.3 * level,
    "shear_y": lambda level, sign: sign * 0.3 * level,
    "translate_x": lambda level, sign: sign * 0.45 * level,
    "translate_y": lambda level, sign: sign * 0.45 * level,
}


def random(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Return the generator for one purpose at one place (pair, sample, pass, …), the same on every machine and in every process."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *place])


def draw_view(augment: AugmentRecipe, seed: int, *place: int) -> View:
    """Draw a view. Its parts are drawn independently, so that removing one from a recipe leaves the others unchanged."""
    return View(
        crops=() if augment.crop == 1 else tuple(_crops(augment.crop, random(seed, "crop", *place))),
        bicubic=augment.interpolation == "bicubic",
        mirror=bool(augment.flip and random(seed, "flip", *place).random() < augment.flip),
        operations=(
            *(_randaugment(*augment.randaugment, random(seed, "randaugment", *place)) if augment.randaugment else ()),
            *(_jitter(augment.colour_jitter, random(seed, "jitter", *place)) if augment.colour_jitter else ()),
        ),
        erased=_erased(augment.erase, random(seed, "erase", *place)) if augment.erase else None,
    )


def draw_place(seed: int, *place: int) -> float:
    """Draw the position of a sample's window within the time it can start in, in [0, 1)."""
    return float(random(seed, "moment", *place).random())


def mask_frequencies(spectrogram: Tensor, widest: int, seed: int, *place: int) -> Tensor:
    """Set up to `widest` neighbouring mel bins of a normalised spectrogram (…, bins, frames) to its mean, 0 (SpecAugment, Park et al. 2019)."""
    from torchaudio.functional import mask_along_axis  # imported here: nothing else needs torchaudio

    bins_axis = spectrogram.dim() - 2
    before = torch.get_rng_state()  # torchaudio draws from the process's generator, which belongs to the training
    torch.default_generator.manual_seed(int(random(seed, "frequencies", *place).integers(2**63)))
    try:
        return mask_along_axis(
            spectrogram, min(widest, spectrogram.shape[bins_axis]) + 1, 0.0, bins_axis
        )  # it masks fewer than it is given
    finally:
        torch.set_rng_state(before)


def recolour(picture: Tensor, mean: Sequence[float], std: Sequence[float], numbers: np.random.Generator) -> Tensor:
    """Recolour a normalised picture or frames (3, …): three in ten grey, the others with mixed channels; contrast and brightness change too.

    Args:
        mean, std: with which it was normalised.
    """
    mixed = np.eye(3) + MIXED * numbers.normal(size=(3, 3))
    weights = np.exp(numbers.normal(size=3))
    if numbers.random() < GREY:
        mixed = np.tile(weights / weights.sum(), (3, 1))
    mixed /= np.maximum(np.abs(mixed.sum(axis=1, keepdims=True)), 0.5)  # white stays nearly white
    contrast, brightness = 0.6 + 0.8 * numbers.random(), 0.3 * (numbers.random() - 0.5)
    centre, scale = (torch.tensor(values, dtype=picture.dtype).view(-1, *[1] * (picture.dim() - 1)) for values in (mean, std))
    colours = torch.tensordot(torch.tensor(mixed, dtype=picture.dtype), picture * scale + centre, dims=1)
    return (((colours - 0.5) * contrast + 0.5 + brightness).clamp(0, 1) - centre) / scale


def turn_sensors(readings: Tensor, deviation: float, mean: Sequence[float], std: Sequence[float], seed: int, *place: int) -> Tensor:
    """Rotate the axes of normalised readings (…, 6, t), accelerometer and gyroscope together, as of a device worn a little differently.

    Args:
        deviation: standard deviation of the angle, in degrees; the axis is uniform.
        mean, std: with which the readings were normalised.
    """
    numbers = random(seed, "turn", *place)
    axis, angle = numbers.normal(size=3), math.radians(numbers.normal(0, deviation))
    x, y, z = axis / np.linalg.norm(axis)
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + math.sin(angle) * across + (1 - math.cos(angle)) * across @ across  # Rodrigues
    both = torch.kron(torch.eye(2, dtype=readings.dtype), torch.tensor(turn, dtype=readings.dtype))
    centre, scale = (torch.tensor(values).view(-1, 1) for values in (mean, std))
    return (both @ (readings * scale + centre) - centre) / scale


def _crops(smallest: float, numbers: np.random.Generator) -> Iterator[Crop]:
    low, high = map(math.log, RATIOS)
    for area, ratio, left, top in numbers.random((TRIES, 4)).tolist():
        yield Crop(smallest + area * (1 - smallest), math.exp(low + ratio * (high - low)), left, top)


def _randaugment(mean: float, deviation: float, numbers: np.random.Generator) -> Iterator[tuple[str, float]]:
    for _ in range(OPERATIONS):
        name = list(AMOUNTS)[numbers.integers(len(AMOUNTS))]
        applied, sign = numbers.random() < PROBABILITY, 1 if numbers.random() < 0.5 else -1
        level = min(max(numbers.normal(mean, deviation), 0.0), 10.0) / 10
        if applied:
            yield name, AMOUNTS[name](level, sign)


def _jitter(most: float, numbers: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Yield brightness, contrast, saturation and hue in random order, each changed by up to `most`."""
    amounts = numbers.uniform(-most, most, 4).tolist()
    for number in numbers.permutation(4).tolist():
        name = ("brightness", "contrast", "saturation", "hue")[number]
        yield name, amounts[number] + (0 if name == "hue" else 1)


def _erased(chance: float, numbers: np.random.Generator) -> Box | None:
    if numbers.random() >= chance:
        return None
    low, high = map(math.log, ERASED_RATIO)
    for area, ratio, left, top in numbers.random((TRIES, 4)).tolist():
        area = ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0])  # noqa: PLW2901
        ratio = math.exp(low + ratio * (high - low))  # noqa: PLW2901
        across, down = math.sqrt(area / ratio), math.sqrt(area * ratio)
        if across < 1 and down < 1:
            left, top = left * (1 - across), top * (1 - down)  # noqa: PLW2901
            return left, top, left + across, top + down
    return None
