"""Depth: metric depth to scaled disparity, one channel (ImageBind appendix A.1; conversion as OMNIVORE, which the paper follows)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from imagebind_cli.encoder import EncoderConfig, Modality, Sample
from imagebind_cli.media.decoding import Source
from imagebind_cli.media.maps.fitting import fit_square
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.holes import fill_nearest
from imagebind_cli.media.maps.missing import CODES, coded_as_missing, stretched_range
from imagebind_cli.media.maps.pixel_map import PixelMap
from imagebind_cli.options.depth import DepthOptions
from imagebind_cli.region_samples import region_samples

NEAREST, FARTHEST = 0.01, 50.0  # metres; OMNIVORE clips depth here
SMALLEST_DISPARITY = 0.01  # pixels; and disparity here
FOCAL, BASELINE = 518.86, 0.075  # pixels and metres: a first Kinect
BASELINES = {"kv1": 0.075, "kv1_b": 0.075, "kv2": 0.075, "realsense": 0.095, "xtion": 0.095}  # metres; OMNIVORE's for SUN RGB-D's sensors
LARGEST_COUNT = 65535  # of 16 bits; some cameras write it for no reading
UNITS = ("metres", "mm", "sunrgbd", "disparity", "relative")


def read_depth(source: Source | np.ndarray, config: EncoderConfig, options: DepthOptions) -> Iterator[Sample]:
    """Read a depth file (16-bit PNG or TIFF, float TIFF, PFM, NPY, HDF5, text, …), or an array (h, w), as one clip; or regions of it.

    Raises:
        OSError, ValueError: the file cannot be read, holds no depth, or its unit cannot be what it is read as.
    """
    if options.has_regions:
        plane, notes, facts = _scaled(source, options)
        mean = options.normalisation({"depth_normalise": options.depth_normalise}, config.mean, config.std)[0]
        yield from region_samples(plane, options, mean, partial(_clip, config=config, options=options), notes=notes, facts=facts)
    else:
        yield _sample(source, config, options)


def _sample(source: Source | np.ndarray, config: EncoderConfig, options: DepthOptions) -> Sample:
    """Make the sample. Not inside `read_depth`, whose local variables, and so the map in full size, would live until the sample is used."""
    plane, notes, facts = _scaled(source, options)
    return Sample(_clip(plane, config, options)[None], [None], notes, facts)


def _clip(plane: np.ndarray, config: EncoderConfig, options: DepthOptions) -> Tensor:
    """Turn scaled disparity (h, w) into the encoder's input (1, size, size)."""
    square = fit_square(plane, config.shape[-1], options.view)
    if options.depth_normalise == "omnivore":
        square = (square - config.mean[0]) / config.std[0]
    return square[None]


def _scaled(source: Source | np.ndarray, options: DepthOptions) -> tuple[np.ndarray, tuple[str, ...], dict[str, Any]]:
    """Return the scaled disparity of a file (h, w), its holes filled; what was assumed, in words; and facts about the file."""
    found = read_numbers(source, options)
    values, notes = found.values, list(found.notes)
    unit = depth_unit(values, options)
    facts: dict[str, Any] = {"size": list(values.shape[:2]), "bits": 8 * values.dtype.itemsize, "unit": unit}

    if unit == "relative":
        plane, known = _relative(found, notes)
    elif unit == "disparity":
        known = found.known & (values > 0)
        plane = np.clip(np.where(known, values, 0), SMALLEST_DISPARITY, options.depth_clamp) / options.depth_clamp
    else:
        metres = to_metres(values, unit)
        known = found.known & (metres > 0)
        if unit == "mm":
            known &= ~coded_as_missing(values, known, (LARGEST_COUNT,), notes)
        camera = _camera(source, options, unit, notes)
        plane = disparity(np.where(known, metres, FARTHEST), camera["focal"], camera["baseline"], options.depth_clamp)
        facts |= camera | _reach(metres[known], unit, notes)
    if not known.any():
        raise ValueError("no pixel has a depth")

    facts["missing"] = 1 - float(known.mean())
    if not known.all():
        plane, how = _filled(plane, known, options.fill)
        notes.append(f"{max(facts['missing'], 0.01):.0%} of the pixels have no depth; {how}")
    return plane, tuple(notes), facts


def disparity(metres: np.ndarray, focal: float, baseline: float, largest: float) -> np.ndarray:
    """Return scaled disparity in (0, 1], baseline * focal / depth / largest, of depth in metres (h, w) with focal and largest in pixels."""
    return np.clip(baseline * focal / np.clip(metres, NEAREST, FARTHEST), SMALLEST_DISPARITY, largest) / largest


def read_numbers(source: Source | np.ndarray, options: DepthOptions) -> PixelMap:
    """Return the numbers of a file or array, (h, w), or (h, w, 3) for a coloured picture of relative depth."""
    if not isinstance(source, np.ndarray):
        return read_map(source, dataset=options.dataset, frame=options.frame, colours=options.depth_format == "relative")
    if source.ndim != 2 or not source.size:
        raise ValueError(f"shape {source.shape}; (height, width) is needed")
    return PixelMap(source)


def depth_unit(values: np.ndarray, options: DepthOptions) -> str:
    """Return what the numbers of a map are: as chosen, else millimetres for whole numbers and metres for others.

    Raises:
        ValueError: they have too few bits to be that.
    """
    unit = options.depth_format or ("metres" if values.dtype.kind == "f" else "mm")
    if unit not in UNITS:
        raise ValueError(f"unknown depth format {unit!r}; choose from {', '.join(UNITS)}")
    if values.dtype.itemsize < 2 and unit != "relative":
        raise ValueError("an 8-bit picture is not metric depth; 16-bit millimetres or floating-point metres are needed")
    return unit


def _relative(found: PixelMap, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scale relative inverse depth (h, w) or (h, w, 3) from its smallest and largest value to [0, 1]; return also which pixels have any."""
    values, known = found.values, found.known
    notes.append("relative depth has no scale: taken from the picture's own smallest value (far) to its largest (near)")
    if values.ndim == 3:
        values = values @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
        notes.append("a colour picture's brightness taken for relative depth: right for grey, or for a palette that only brightens")
    known = known & ~coded_as_missing(values, known, CODES, notes)  # zero and negative numbers are values like any other
    inside = values[known].astype(np.float64)
    if not inside.size:
        raise ValueError("no pixel has a depth")
    smallest, largest = inside.min(), inside.max()
    if smallest == largest:
        raise ValueError("all pixels have one value; there is nothing to see")
    if narrow := stretched_range(inside):
        notes.append(
            f"few values set its range, {inside.min():g} to {inside.max():g}, where nearly all lie from {narrow[0]:g} to {narrow[1]:g}"
        )
    plane = np.zeros(values.shape)
    plane[known] = (inside - smallest) / (largest - smallest)
    return plane, known


def to_metres(values: np.ndarray, unit: str) -> np.ndarray:
    """Convert values (h, w) in a metric unit to float64 metres."""
    if unit == "sunrgbd":
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"sunrgbd depth is whole numbers of 16 bits; this file holds {values.dtype}")
        rotated = values.astype(np.uint16)
        values = rotated >> 3 | rotated << 13
    return values.astype(np.float64) / (1 if unit == "metres" else 1000)


def _reach(metres: np.ndarray, unit: str, notes: list[str]) -> dict[str, float]:
    """Return the nearest and the farthest known depth."""
    if not metres.size:
        return {}
    beyond = metres > FARTHEST
    if np.median(metres) > FARTHEST:
        notes.append(f"most pixels lie beyond {FARTHEST:g} m, where depth is cut off: is it really {unit}?")
    elif beyond.any():
        notes.append(
            f"{max(float(beyond.mean()), 0.01):.0%} of the pixels lie beyond {FARTHEST:g} m, up to {metres.max():g} m: taken as {FARTHEST:g} m away"
        )
    return {"nearest": float(metres.min()), "farthest": float(metres.max())}


def _filled(plane: np.ndarray, known: np.ndarray, fill: str) -> tuple[np.ndarray, str]:
    """Fill the holes of scaled disparity (h, w), and say how."""
    if fill == "nearest":
        return fill_nearest(plane, known), "each takes the nearest known pixel's"
    if fill == "far":
        return np.where(known, plane, plane[known].min()), "each takes the farthest pixel's"
    return np.where(known, plane, 0), "each is taken as infinitely far"


def _camera(source: Source | np.ndarray, options: DepthOptions, unit: str, notes: list[str]) -> dict[str, Any]:
    """Return sensor, focal length (pixels) and baseline (metres): as chosen, else from a SUN RGB-D sample's folder, else the defaults."""
    focal, baseline, sensor = options.focal, options.baseline, options.sensor
    sample = _sunrgbd_sample(source)
    assumed = [] if options.depth_format else [f"depth read as {unit}"]
    if focal is None:
        focal, whence = (_focal(sample / "intrinsics.txt"), " from intrinsics.txt") if sample else (FOCAL, "")
        assumed.append(f"focal {focal:g} px{whence}")
    if baseline is None:
        whence = ""
        if sensor is None and sample:
            sensor = next((part for part in reversed(sample.parts) if part in BASELINES), None)
            whence = f" ({sensor}, from the path)" if sensor else ""
        baseline = BASELINES[sensor] if sensor else BASELINE
        if whence or not sensor:
            assumed.append(f"baseline {baseline:g} m{whence}")
    if assumed:
        notes.append(", ".join(assumed))
    if sample and not options.depth_format:
        notes.append("the folders are SUN RGB-D's, whose own files need --depth-format sunrgbd")
    return {"sensor": sensor, "focal": focal, "baseline": baseline}


def _sunrgbd_sample(source: Source | np.ndarray) -> Path | None:
    """Return the folder of a SUN RGB-D sample, which holds `intrinsics.txt` beside `depth` or `depth_bfx` with the file; None elsewhere."""
    if not isinstance(source, str | os.PathLike):
        return None
    folder = Path(source).absolute().parent
    return folder.parent if folder.name in ("depth", "depth_bfx") and (folder.parent / "intrinsics.txt").is_file() else None


def _focal(intrinsics: Path) -> float:
    """Read the first number of a 3 x 3 camera matrix in a text file."""
    with open(intrinsics, "rb") as file:
        text = file.read(4096)
    try:
        matrix = [float(number) for number in text.split()[:9]]
    except ValueError:
        matrix = []
    if len(matrix) < 9 or not 0 < matrix[0] < float("inf"):
        raise ValueError("intrinsics.txt beside its folder holds no 3 x 3 camera matrix; give --focal")
    return matrix[0]


MODALITY = Modality(name="depth", readers={"depth": read_depth})
