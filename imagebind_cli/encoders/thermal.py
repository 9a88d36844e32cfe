"""Thermal: one channel of long-wave infrared in [0, 1] (ImageBind appendix A.1).

The paper gives no normalisation; without any, third parties reproduce the published LLVIP score best, so there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.fitting import fit_square
from imagebind_cli.media.maps import read_map
from imagebind_cli.media.palettes import PALETTES, undo_palette
from imagebind_cli.media.thermal_jpeg import ZERO_CELSIUS, Thermogram, read_thermogram
from imagebind_cli.reading import ThermalOptions

GREY, COUNTS, NUMBERS, CELSIUS = "grey levels", "counts", "numbers", "°C"


def read(source: Source | np.ndarray, config: EncoderConfig, options: ThermalOptions) -> Iterator[Sample]:
    """A grey picture (8 or 16 bits, float TIFF, NPY, HDF5), a FLIR radiometric JPEG, or an array (h, w), as one clip.

    Raises:
        OSError, ValueError: the file cannot be read, is in colours that nothing explains, or shows one value only.
    """
    yield _sample(source, config, options)


def _sample(source: Source | np.ndarray, config: EncoderConfig, options: ThermalOptions) -> Sample:
    """Apart from `read`, which waits with what it holds until its one sample is used: the picture in full size would wait, too."""
    notes: list[str] = []
    thermogram = None if isinstance(source, np.ndarray) else read_thermogram(source)
    if thermogram is not None:
        values, facts = _measured(thermogram, options, notes)
    else:
        values, facts = _pictured(source, options, notes)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError("no pixel has a value")
    low, high = _limits(values[known], facts["unit"], options.thermal_range, notes)
    scaled = ((values - low) / (high - low)).clip(0, 1)
    if options.thermal_invert:
        scaled = 1 - scaled
    facts |= {"coldest": float(values[known].min()), "warmest": float(values[known].max()), "range": [low, high]}
    facts |= {"inverted": options.thermal_invert, "missing": 1 - float(known.mean())}
    if not known.all():
        scaled = np.where(known, scaled, 0)
        notes.append(f"{max(facts['missing'], 0.01):.0%} of the pixels have no value; each is taken as 0")
    square = fit_square(scaled, config.shape[-1], options.view)
    return Sample(((square - config.mean[0]) / config.std[0])[None, None], [None], tuple(notes), facts)


def _measured(thermogram: Thermogram, options: ThermalOptions, notes: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """The degrees Celsius of a radiometric JPEG, or its counts if that is the unit chosen."""
    calibration, counts = thermogram.calibration, thermogram.counts
    facts = {"size": list(counts.shape), "bits": 16, "unit": COUNTS, "camera": thermogram.camera}
    if options.thermal_unit == COUNTS:
        return counts.astype(np.float64), facts
    if calibration is None:
        raise ValueError("its FLIR record has no usable calibration; --thermal-unit counts takes the raw counts")
    notes.append("FLIR temperatures by the file's own Planck constants, emissivity and reflected temperature, the air taken as transparent")
    facts |= {"unit": CELSIUS, "emissivity": calibration.emissivity, "reflected": calibration.reflected - ZERO_CELSIUS}
    return calibration.celsius(counts), facts


def _pictured(source: Source | np.ndarray, options: ThermalOptions, notes: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """The numbers (h, w) of a picture or array, float64, in degrees Celsius where the unit chosen is a temperature."""
    if isinstance(source, np.ndarray):
        values = source
        if values.ndim != 2 or not values.size:
            raise ValueError(f"shape {values.shape}; (height, width) is needed")
    else:
        found = read_map(source, dataset=options.dataset, frame=options.frame, colours=True)
        values = found.values
        notes += found.notes
    facts: dict[str, Any] = {"size": list(values.shape[:2]), "bits": 8 * values.dtype.itemsize}
    if values.ndim == 3:
        if options.palette is None:
            raise ValueError(f"a false-colour picture; name its palette with --palette: {', '.join(PALETTES)}")
        if options.thermal_unit is not None:
            raise ValueError("a false-colour picture has no unit; leave --thermal-unit out")
        values = undo_palette(values, options.palette)
        facts["palette"] = options.palette
    unit, small = options.thermal_unit, values.dtype.itemsize == 1
    if small and unit == "centikelvin":
        raise ValueError("values of 8 bits cannot be centikelvin, which are near 30,000")
    if small and values.dtype.kind == "b":
        values = values * np.uint8(255)
    numbers = values.astype(np.float64)
    if unit in ("centikelvin", "kelvin", "celsius"):
        facts["unit"] = CELSIUS
        return {"centikelvin": numbers / 100 - ZERO_CELSIUS, "kelvin": numbers - ZERO_CELSIUS}.get(unit, numbers), facts
    facts["unit"] = GREY if small else COUNTS if unit == COUNTS or values.dtype.kind != "f" else NUMBERS
    if unit is None and not small:
        notes.append(f"thermal values read as {facts['unit']}" + _kelvin_perhaps(numbers, facts["unit"]))
    return numbers, facts


def _kelvin_perhaps(numbers: np.ndarray, unit: str) -> str:
    known = numbers[np.isfinite(numbers)]
    if unit == NUMBERS and known.size and known.min() >= 200 and known.max() <= 450:
        return ", though they could be kelvin (--thermal-unit kelvin)"
    return ""


def _limits(known: np.ndarray, unit: str, chosen: str, notes: list[str]) -> tuple[float, float]:
    """The values that become 0 and 1."""
    smallest, largest = float(known.min()), float(known.max())
    if chosen == "auto" and unit == GREY:
        return 0.0, 255.0
    if chosen == "auto":
        notes.append("thermal values scaled from each picture's own smallest to its largest")
        low, high = smallest, largest
    elif chosen == "percentile":
        notes.append("thermal values scaled from each picture's own 1st to its 99th percentile")
        low, high = (float(limit) for limit in np.percentile(known, (1, 99)))
    else:
        low, high = (float(limit) for limit in chosen.split(":"))
        if largest <= low or smallest >= high:
            raise ValueError(f"no value between {low:g} and {high:g} {unit}; they go from {smallest:g} to {largest:g}")
        if unit in (NUMBERS, COUNTS):
            notes.append(f"thermal range {chosen} taken in the file's own {unit}")
    if not np.isfinite(high - low):
        raise ValueError(f"its values go from {low:g} to {high:g}, too far apart for 64 bits")
    if low == high:
        raise ValueError("all pixels have one value; there is nothing to see")
    return low, high


MODALITY = Modality(name="thermal", readers={"thermal": read})
