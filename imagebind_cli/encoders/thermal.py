"""Thermal: one channel of long-wave infrared in [0, 1] (ImageBind appendix A.1).

The paper gives no normalisation; without any, third parties reproduce the published LLVIP score best, so there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.maps.fitting import fit_square
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.holes import fill_nearest
from imagebind_cli.media.maps.missing import CODES, coded_as_missing, stretched_range
from imagebind_cli.media.maps.palettes import PALETTES, undo_palette
from imagebind_cli.media.maps.pixel_map import PixelMap
from imagebind_cli.media.maps.telemetry import picture_rows
from imagebind_cli.media.maps.thermal_jpeg import ZERO_CELSIUS, Thermogram, is_from_dji, read_thermogram
from imagebind_cli.options.thermal import ThermalOptions
from imagebind_cli.region_samples import region_samples

GREY, COUNTS, NUMBERS, CELSIUS = "grey levels", "counts", "numbers", "°C"
TEMPERATURES = ("centikelvin", "kelvin", "celsius")
NO_VALUE = (*CODES, 0, 9999, 65535)
COLDEST = -273.0  # °C; a 0 in kelvin means no value
DJI = "have DJI's Thermal SDK write its temperatures (dji_irp -a measure) and save them as NPY, with --thermal-unit celsius"


def read_thermal(source: Source | np.ndarray, config: EncoderConfig, options: ThermalOptions) -> Iterator[Sample]:
    """Read a grey picture (8 or 16 bits, float TIFF), a file of numbers, a FLIR radiometric JPEG, or an array (h, w), as one clip; or regions of it.

    Raises:
        OSError, ValueError: the file cannot be read, is in colours that nothing explains, or shows one value only.
    """
    if options.has_regions:
        scaled, notes, facts = scale(source, options)
        yield from region_samples(scaled, options, config.mean, partial(_clip, config=config, options=options), notes=notes, facts=facts)
    else:
        yield _sample(source, config, options)


def _sample(source: Source | np.ndarray, config: EncoderConfig, options: ThermalOptions) -> Sample:
    """Make the sample. Not inside `read_thermal`, whose local variables, and so the picture in full size, would live until it is used."""
    scaled, notes, facts = scale(source, options)
    return Sample(_clip(scaled, config, options)[None], [None], notes, facts)


def _clip(scaled: np.ndarray, config: EncoderConfig, options: ThermalOptions) -> Tensor:
    """Turn a scaled map (h, w) into the encoder's input (1, size, size)."""
    square = fit_square(scaled, config.shape[-1], options.view)
    return ((square - config.mean[0]) / config.std[0])[None]


def scale(source: Source | np.ndarray, options: ThermalOptions) -> tuple[np.ndarray, tuple[str, ...], dict[str, Any]]:
    """Scale a thermal file to [0, 1] by its options, for the encoder and for thumbnails.

    Returns:
        (h, w) float64, holes filled from their nearest neighbours; what was assumed, in words; facts about the file.
    Raises:
        OSError, ValueError: as `read_thermal`.
    """
    notes: list[str] = []
    thermogram = None if isinstance(source, np.ndarray) else read_thermogram(source)
    if thermogram is not None:
        values, known, facts = _measured(thermogram, options, notes)
    else:
        values, known, facts = _pictured(source, options, notes)
    if not known.any():
        raise ValueError("no pixel has a value")
    low, high = _limits(values[known], facts["unit"], options, notes, source)
    scaled = np.where(known, (values - low) / (high - low), 0).clip(0, 1)
    if options.thermal_invert:
        scaled = 1 - scaled
    facts |= {"coldest": float(values[known].min()), "warmest": float(values[known].max()), "range": [low, high]}
    facts |= {"inverted": options.thermal_invert, "missing": 1 - float(known.mean())}
    if not known.all():
        scaled = fill_nearest(scaled, known)
        notes.append(f"{max(facts['missing'], 0.01):.0%} of the pixels have no value; each takes the nearest known pixel's")
    return scaled, tuple(notes), facts


def _measured(thermogram: Thermogram, options: ThermalOptions, notes: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the degrees Celsius of a radiometric JPEG, or its counts if that unit is chosen, which pixels have any, and facts."""
    calibration, counts = thermogram.calibration, thermogram.counts
    facts = {"size": list(counts.shape), "bits": 16, "unit": COUNTS, "camera": thermogram.camera}
    if options.thermal_unit == COUNTS:
        return counts.astype(np.float64), counts >= 0, facts
    if calibration is None:
        raise ValueError("its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts")
    notes.append("FLIR temperatures by the file's own Planck constants, emissivity and reflected temperature, the air taken as transparent")
    facts |= {"unit": CELSIUS, "emissivity": calibration.emissivity, "reflected": calibration.reflected - ZERO_CELSIUS}
    celsius = calibration.celsius(counts)
    return celsius, np.isfinite(celsius), facts


def _pictured(source: Source | np.ndarray, options: ThermalOptions, notes: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return the numbers (h, w) of a picture or array, float64, in °C if the chosen unit is a temperature, which are known, and facts."""
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or not source.size:
            raise ValueError(f"shape {source.shape}; (height, width) is needed")
        found = PixelMap(source)
    else:
        found = read_map(source, dataset=options.dataset, frame=options.frame, colours=True)
        notes += found.notes
    values, known = found.values, found.known
    painted = values.ndim == 3
    if painted:
        values = _unpainted(values, options, source)
    else:
        rows = picture_rows(values, notes)
        values, known = values[rows], known[rows]
    facts: dict[str, Any] = {"size": list(values.shape), "bits": 8 * values.dtype.itemsize}
    facts |= {"palette": options.palette} if painted else {}
    unit, small = options.thermal_unit, values.dtype.itemsize == 1
    if small:
        _check_grey(unit, source)
        values = values * np.uint8(255) if values.dtype.kind == "b" else values
    known = known & ~coded_as_missing(values, known, NO_VALUE, notes)
    numbers = values.astype(np.float64)
    if unit in TEMPERATURES:
        facts["unit"] = CELSIUS
        celsius = {"centikelvin": numbers / 100 - ZERO_CELSIUS, "kelvin": numbers - ZERO_CELSIUS}.get(unit, numbers)
        impossible = known & (celsius < COLDEST)
        if impossible.any():
            notes.append(f"{impossible.sum():,} pixels lie below absolute zero in {unit}: taken as missing")
        return celsius, known & ~impossible, facts
    facts["unit"] = GREY if small else COUNTS if unit == COUNTS or values.dtype.kind != "f" else NUMBERS
    if unit is None and not small:
        notes.append(f"thermal values read as {facts['unit']}" + _kelvin_perhaps(numbers[known], facts["unit"]))
    return numbers, known, facts


def _unpainted(values: np.ndarray, options: ThermalOptions, source: Source | np.ndarray) -> np.ndarray:
    """Convert a false-colour picture (h, w, 3) to the positions of its colours on their palette, (h, w) uint8."""
    if options.palette is None:
        otherwise = f"; or {DJI}" if _from_dji(source) else ""
        raise ValueError(f"a false-colour picture; name its palette with --palette: {', '.join(PALETTES)}{otherwise}")
    if options.thermal_unit is not None:
        raise ValueError("a false-colour picture has no unit; leave --thermal-unit out")
    return undo_palette(values, options.palette)


def _check_grey(unit: str | None, source: Source | np.ndarray) -> None:
    """Refuse a unit of temperature for values of 8 bits."""
    if unit == "centikelvin":
        raise ValueError("values of 8 bits cannot be centikelvin, which are near 30,000")
    if unit in TEMPERATURES:
        raise ValueError(f"values of 8 bits are grey levels and not {unit}; leave --thermal-unit out, or {_remedy(source)}")


def _from_dji(source: Source | np.ndarray) -> bool:
    return not isinstance(source, np.ndarray) and is_from_dji(source)


def _remedy(source: Source | np.ndarray) -> str:
    """Say what to do about grey levels where temperatures were asked for."""
    return DJI if _from_dji(source) else "give the camera's radiometric file"


def _kelvin_perhaps(known: np.ndarray, unit: str) -> str:
    if unit == NUMBERS and known.size and known.min() >= 200 and known.max() <= 450:
        return ", though they could be kelvin (--thermal-unit kelvin)"
    return ""


def _limits(known: np.ndarray, unit: str, options: ThermalOptions, notes: list[str], source: Source | np.ndarray) -> tuple[float, float]:
    """Return the values that become 0 and 1."""
    smallest, largest = float(known.min()), float(known.max())
    chosen = options.thermal_range
    if chosen == "auto" and unit == GREY:
        return 0.0, 255.0
    if chosen == "auto":
        notes.append("thermal values scaled from each picture's own smallest to its largest")
        if narrow := stretched_range(known):
            low, high = narrow
            only = f"{low:g}{'C' * (unit == CELSIUS)}:{high:g}{'C' * (unit == CELSIUS)}"
            notes.append(f"few values set its range, {smallest:g} to {largest:g}: --thermal-range {only} would be that of nearly all")
        low, high = smallest, largest
    elif chosen == "percentile":
        notes.append("thermal values scaled from each picture's own 1st to its 99th percentile")
        low, high = (float(limit) for limit in np.percentile(known, (1, 99)))
    else:
        low, high, degrees = options.limits()
        if degrees and unit != CELSIUS:
            otherwise = f"leave the range out, or {_remedy(source)}" if unit == GREY else "name their unit with --thermal-unit"
            raise ValueError(f"--thermal-range {chosen} gives temperatures, and the file holds {unit}; {otherwise}")
        if unit == GREY and options.thermal_unit != COUNTS:
            hint = "for a range of these add --thermal-unit counts"
            raise ValueError(f"--thermal-range {chosen} may mean degrees, and 8 bits are grey levels; {hint}")
        if largest <= low or smallest >= high:
            raise ValueError(f"no value between {low:g} and {high:g} {unit}; they go from {smallest:g} to {largest:g}")
        if unit != CELSIUS:
            notes.append(f"thermal range {chosen} taken in the file's own {unit}")
        elif not degrees and options.thermal_unit is None:
            notes.append(f"thermal range {chosen} taken in °C")
    if not np.isfinite(high - low):
        raise ValueError(f"its values go from {low:g} to {high:g}, too far apart for 64 bits")
    if low == high:
        raise ValueError("all pixels have one value; there is nothing to see")
    return low, high


MODALITY = Modality(name="thermal", readers={"thermal": read_thermal}, preview="levels")
