"""The thermal record inside a FLIR radiometric JPEG, and temperatures from it.

APP1 segments that start with "FLIR" carry, in numbered parts, an FFF container: a header, a directory, and records, of which
two matter here: the detector's counts and the camera's calibration.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import astuple, dataclass
from typing import BinaryIO

import numpy as np

from imagebind_cli.media.decoding import Source, check_file, decoding, first_bytes, opened
from imagebind_cli.media.image import open_image

RAW_DATA, CAMERA_INFO = 0x01, 0x20  # record types
ZERO_CELSIUS = 273.15  # kelvin


@dataclass(frozen=True)
class Calibration:
    """A camera's Planck constants, the emissivity of what it saw, and the temperature reflected by it, in kelvin."""

    r1: float
    b: float
    f: float
    o: float
    r2: float
    emissivity: float
    reflected: float

    def celsius(self, counts: np.ndarray) -> np.ndarray:
        """Return temperatures of objects seen through fully transparent air, in degrees; NaN where the constants give none."""
        mirrored = self.r1 / (self.r2 * (math.exp(self.b / self.reflected) - self.f)) - self.o
        emitted = (counts - (1 - self.emissivity) * mirrored) / self.emissivity
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            kelvin = self.b / np.log(self.r1 / (self.r2 * (emitted + self.o)) + self.f)
        return np.where(kelvin > 0, kelvin, np.nan) - ZERO_CELSIUS


@dataclass(frozen=True)
class Thermogram:
    """counts: (h, w) uint16. calibration: None where the file has no usable one. camera: its name, perhaps empty."""

    counts: np.ndarray
    calibration: Calibration | None
    camera: str


@decoding("thermal picture")
def read_thermogram(source: Source) -> Thermogram | None:
    """Read the thermal record of a radiometric JPEG; None for every other file.

    Raises:
        OSError, ValueError: the file cannot be read, or the record is damaged.
    """
    check_file(source)
    with opened(source) as file:
        container = _container(file)
    if container is None:
        return None
    try:
        records = _records(container)
        if RAW_DATA not in records:
            raise ValueError("holds no raw thermal data")
        calibration, camera = _camera(records.get(CAMERA_INFO, b""))
        return Thermogram(_counts(records[RAW_DATA]), calibration, camera)
    except struct.error:
        raise ValueError("broken FLIR record: it ends too early") from None
    except ValueError as error:
        raise ValueError(f"broken FLIR record: {error}") from None


@decoding("thermal picture")
def is_from_dji(source: Source) -> bool:
    """Check whether a file is a JPEG of a DJI camera, whose thermal record is not read."""
    start = first_bytes(source, 65536)
    return start.startswith(b"\xff\xd8") and b"DJI" in start


def _container(file: BinaryIO) -> bytes | None:
    """Join the parts of the FLIR segments before the picture itself; None where there is none."""
    parts: dict[int, bytes] = {}
    last = -1
    if file.read(2) != b"\xff\xd8":
        return None
    while len(marker := file.read(4)) == 4 and marker[0] == 0xFF and marker[1] != 0xDA:
        length = int.from_bytes(marker[2:], "big") - 2
        payload = file.read(length) if length > 0 else b""
        if marker[1] == 0xE1 and payload.startswith(b"FLIR\0") and len(payload) >= 8:
            number, last = payload[6], payload[7]
            parts[number] = payload[8:]
    if not parts:
        return None
    if missing := set(range(last + 1)) - set(parts):
        raise ValueError(f"broken FLIR record: part {min(missing) + 1} of {last + 1} is missing")
    return b"".join(parts[number] for number in range(last + 1))


def _records(container: bytes) -> dict[int, bytes]:
    """Return the records of an FFF container by type, the first of each."""
    if not container.startswith((b"FFF\0", b"AFF\0")):
        raise ValueError("no FFF container")
    for order in ">", "<":
        version, start, count = struct.unpack_from(order + "III", container, 20)
        if 100 <= version < 200:
            break
    else:
        raise ValueError("an FFF container of an unknown version")
    records: dict[int, bytes] = {}
    for i in range(min(count, 1000)):
        kind, _, _, _, at, length = struct.unpack_from(order + "HHIIII", container, start + 32 * i)
        if kind in (RAW_DATA, CAMERA_INFO) and kind not in records:
            if at + length > len(container):
                raise ValueError(f"record {i} ends at byte {at + length:,} of {len(container):,}")
            records[kind] = container[at : at + length]
    return records


def _order(record: bytes) -> str:
    """Return the byte order of a record, whose first number is a two."""
    return "<" if struct.unpack_from("<H", record)[0] == 2 else ">"


def _counts(record: bytes) -> np.ndarray:
    """Read the raw data record as (h, w) uint16: plain numbers, or a 16-bit PNG."""
    order = _order(record)
    width, height = struct.unpack_from(order + "HH", record, 2)
    body = record[32:]
    if not width or not height:
        raise ValueError(f"{width} x {height} pixels")
    if not body.startswith(b"\x89PNG"):
        if len(body) < 2 * width * height:
            raise ValueError(f"{len(body):,} bytes for {width} x {height} pixels of two")
        return np.frombuffer(body, order + "u2", width * height).reshape(height, width).astype(np.uint16)
    picture = open_image(io.BytesIO(body))
    if picture.size != (width, height) or not picture.mode.startswith("I"):
        raise ValueError(f"a picture of {picture.width} x {picture.height} (mode {picture.mode}); {width} x {height} of 16 bits is needed")
    counts = np.asarray(picture).astype(np.uint16)
    # Most cameras swap the bytes of each number in these PNG files, and nothing says which do: the right order is the smooth one.
    return min(counts, counts.byteswap(), key=_roughness)


def _roughness(counts: np.ndarray) -> float:
    values = counts.astype(np.float64)
    return float(np.abs(np.diff(values, axis=0)).sum() + np.abs(np.diff(values, axis=1)).sum())


def _camera(record: bytes) -> tuple[Calibration | None, str]:
    """Read calibration and name from the camera record; None where it is missing or its numbers make no sense."""
    if len(record) < 0x310:
        return None, ""
    order = _order(record)
    emissivity, _, reflected = struct.unpack_from(order + "fff", record, 0x20)
    r1, b, f = struct.unpack_from(order + "fff", record, 0x58)
    o, r2 = struct.unpack_from(order + "if", record, 0x308)
    camera = record[0xD4:0xF4].partition(b"\0")[0].decode("ascii", errors="replace")
    calibration = Calibration(r1, b, f, o, r2, emissivity, reflected)
    sensible = (
        all(math.isfinite(number) for number in astuple(calibration))
        and min(r1, b, r2) > 0
        and 0 < emissivity <= 1
        and 100 < reflected < 2000
        and b / reflected < 700  # e to the power of more is infinite
        and math.exp(b / reflected) > f
    )
    return (calibration if sensible else None), camera
