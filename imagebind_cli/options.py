"""What a user may choose about reading each modality's files: one frozen dataclass each, from which the command line's flags are made.

Imports nothing heavy, so that `--help` can show the choices. A modality with no choices has no entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from imagebind_cli.errors import UsageError


def choice(
    default: Any, help: str, *, choices: tuple[str, ...] = (), minimum: float | None = None, moving: bool = False, later: bool = False
) -> Any:
    """A dataclass field that is also a flag: what it means, which values it takes, and whether still pictures have none of it.

    later: it came after outputs were made without it. At its default it is left out of records, so that those outputs can be added to.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "moving": moving, "later": later}
    return field(default=default, metadata=metadata)


HIDDEN = {"hidden": True, "choices": (), "minimum": None, "moving": False, "later": False}
"""Of a dataclass field that is no flag and stands in no record: what belongs to one sample alone."""


CLIPS = "Evenly spaced windows per input; by default as many as cover it."

TRACK = "Track of the file, from 1; by default the one that it marks, else the first."


EXCLUSIVE = ({"clips", "hop", "centres"}, {"rate", "time_column"}, {"rate", "time_unit"})
"""Options of which one alone may be given."""


@dataclass(frozen=True)
class VisionOptions:
    """Pictures and videos."""

    clips: int | None = choice(None, CLIPS, minimum=1, moving=True)
    crops: str = choice(
        "3", "Views of each video clip: both ends and the middle, as published, or the middle alone.", choices=("3", "1"), moving=True
    )
    fps: float | None = choice(
        None,
        "Read each folder given as one video, its pictures as frames at this rate.",
        minimum=0.001,
        moving=True,
    )
    track: int | None = choice(None, TRACK, minimum=1, moving=True, later=True)
    view: Any = field(default=None, metadata=HIDDEN)  # media.views.View, in place of the centre crop
    moment: Any = field(default=None, metadata=HIDDEN)  # media.windows.Moment, in place of windows that cover the item
    stretch: Any = field(default=None, metadata=HIDDEN)  # (start, end) in seconds: all that is read of the item; see sources.Stretch


@dataclass(frozen=True)
class AudioOptions:
    """Sounds."""

    clips: int | None = choice(None, CLIPS, minimum=1)
    channels: str = choice("first", "Use the first channel, or all channels mixed.", choices=("first", "mix"))
    track: int | None = choice(None, TRACK, minimum=1, later=True)
    moment: Any = field(default=None, metadata=HIDDEN)
    stretch: Any = field(default=None, metadata=HIDDEN)


DATASET = "Name of the dataset, group, variable or channel to read from an HDF5, NPZ, MATLAB, zip or OpenEXR file."
FRAME = "Frame of an HDF5 file with several, or page of a TIFF, from 0."


@dataclass(frozen=True)
class DepthOptions:
    """Depth maps. The defaults are the first Kinect's, which NYU Depth v2 and part of SUN RGB-D were taken with."""

    depth_format: str | None = choice(
        None,
        "What the numbers are; by default whole numbers are millimetres, others metres.",
        choices=("metres", "mm", "sunrgbd", "disparity", "relative"),
    )
    sensor: str | None = choice(None, "Depth camera, which sets the baseline.", choices=("kv1", "kv1_b", "kv2", "realsense", "xtion"))
    focal: float | None = choice(
        None, "Focal length of the depth camera in pixels; by default from intrinsics.txt, else 518.86.", minimum=1e-6
    )
    baseline: float | None = choice(
        None, "Distance between the two eyes of the sensor in metres; by default --sensor's, else 0.075.", minimum=1e-6
    )
    fill: str = choice(
        "nearest",
        "Depth of a pixel without one: that of the nearest known pixel, the farthest, or none (infinitely far).",
        choices=("nearest", "far", "none"),
    )
    depth_clamp: float = choice(75.0, "Largest disparity in pixels: values are cut off there and divided by it.", minimum=1)
    depth_normalise: str = choice(
        "omnivore",
        "Normalise as Omnivore's inference code does (mean 0.0418, deviation 0.0295), or not at all.",
        choices=("omnivore", "none"),
    )
    dataset: str | None = choice(None, DATASET)
    frame: int = choice(0, FRAME, minimum=0)
    view: Any = field(default=None, metadata=HIDDEN)


DEGREES = {"C": (1.0, 0.0), "K": (1.0, 273.15), "F": (1.8, 32.0)}
"""Letter of a unit of temperature to its steps in a degree Celsius, and its number at 0 °C."""


@dataclass(frozen=True)
class ThermalOptions:
    """Thermal pictures."""

    thermal_unit: str | None = choice(
        None,
        "Unit of thermal files; by default whole numbers of more than 8 bits are counts, others plain numbers.",
        choices=("counts", "centikelvin", "celsius", "kelvin"),
    )
    thermal_range: str = choice(
        "auto",
        "What becomes 0 and 1: auto, percentile (1st to 99th), degrees (20C:40C, also K and F) or MIN:MAX. See docs/thermal.md.",
    )
    thermal_invert: bool = choice(False, "Invert the picture, which is black-hot.")
    palette: str | None = choice(
        None, "Palette of a false-colour picture, to be undone.", choices=("grey", "iron", "rainbow", "jet", "hot")
    )
    dataset: str | None = choice(None, DATASET)
    frame: int = choice(0, FRAME, minimum=0)
    view: Any = field(default=None, metadata=HIDDEN)

    def __post_init__(self) -> None:
        if self.thermal_range not in ("auto", "percentile"):
            try:
                low, high, _ = self.limits()
            except ValueError:
                low = high = 0.0
            if not float("-inf") < low < high < float("inf"):
                raise UsageError(
                    f"unknown thermal_range {self.thermal_range!r}; choose auto, percentile or MIN:MAX, as in 10:40 or 20C:40C"
                )

    def limits(self) -> tuple[float, float, bool]:
        """The two ends of a `thermal_range` that has some, and whether they are temperatures, which come in degrees Celsius.

        Raises:
            ValueError: they are not numbers, or only the first has a unit.
        """
        low, _, high = self.thermal_range.upper().replace("°", "").partition(":")
        if high[-1:] not in DEGREES:
            return float(low), float(high), False
        scale, zero = DEGREES[high[-1]]
        low_scale, low_zero = DEGREES.get(low[-1:], (scale, zero))  # 20:40C is 20C:40C
        low = low[:-1] if low[-1:] in DEGREES else low
        return (float(low) - low_zero) / low_scale, (float(high[:-1]) - zero) / scale, True


@dataclass(frozen=True)
class IMUOptions:
    """IMU recordings."""

    clips: int | None = choice(None, CLIPS, minimum=1)
    hop: float | None = choice(None, "Seconds from one window to the next, instead of evenly spaced ones.", minimum=0.01)
    centres: str | None = choice(None, "Take windows around these seconds: T,T,... or a file with one on each line.")
    rate: float | None = choice(None, "Rate in Hz, instead of timestamps; 400 where there are none.", minimum=0.1)
    columns: str | None = choice(None, "Six columns by name or position from 1: accelerometer x,y,z, gyroscope x,y,z.")
    dataset: str | None = choice(None, DATASET)
    time_column: str | None = choice(None, "Column of the timestamps; by default found by its name.")
    time_unit: str | None = choice(None, "Unit of the timestamps.", choices=("s", "ms", "us", "ns", "iso"))
    accel: str | None = choice(None, "Unit of the accelerometer; by default read from its columns' names.", choices=("g", "m/s2"))
    gyro: str | None = choice(None, "Unit of the gyroscope; by default read from its columns' names.", choices=("deg/s", "rad/s"))
    max_gap: float = choice(
        0.1, "Bridge gaps of up to this many seconds by a straight line; windows with longer ones are left out.", minimum=0
    )
    imu_layout: str = choice(
        "auto",
        "Kind of file; auto recognises it by content and name.",
        choices=("auto", "plain", "ego4d", "ucihar", "hapt", "pamap2"),
    )
    placement: str = choice("hand", "Sensor of a PAMAP2 recording.", choices=("hand", "chest", "ankle"))
    row: int = choice(0, "Window of a UCI HAR file, from 0.", minimum=0)
    remove_gravity: bool = choice(False, "Subtract from the accelerometer what changes more slowly than 0.3 Hz.")
    standardise: bool = choice(False, "Scale each channel to mean 0 and deviation 1 over the recording.")
    moment: Any = field(default=None, metadata=HIDDEN)
    stretch: Any = field(default=None, metadata=HIDDEN)

    def __post_init__(self) -> None:
        chosen = [name for name in ("clips", "hop", "centres") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} exclude each other")
        if self.rate is not None and (self.time_column or self.time_unit):
            raise UsageError("rate is in place of timestamps; it excludes time_column and time_unit")
        if self.columns is not None and len(self.columns.split(",")) != 6:
            raise UsageError(f"columns names {len(self.columns.split(','))}; six are needed: accelerometer x,y,z, gyroscope x,y,z")


@dataclass(frozen=True)
class TextOptions:
    """Sentences."""

    long_text: str = choice(
        "truncate",
        "Text of more than 75 tokens: cut it with a warning, average windows of it, or fail.",
        choices=("truncate", "window", "error"),
    )


@dataclass(frozen=True)
class NoOptions:
    """A modality whose reading has no choices."""


OPTIONS: dict[str, type] = {
    "vision": VisionOptions,
    "text": TextOptions,
    "audio": AudioOptions,
    "depth": DepthOptions,
    "thermal": ThermalOptions,
    "imu": IMUOptions,
}
"""Encoder name to its dataclass."""


# Modality to what its files are, for the list in help. One that is not here is listed by its name alone.
SUMMARIES = {
    "image": "pictures",
    "video": "videos, animations, and folders of frames (--fps)",
    "vision": "pictures and videos together",
    "text": "sentences",
    "audio": "sounds, and the sound of videos",
    "depth": "depth maps, in metres, millimetres or disparity",
    "thermal": "thermal pictures",
    "imu": "motion recordings: accelerometer and gyroscope",
}


def flags() -> dict[str, Any]:
    """Every option once, by name: the dataclass field that describes it."""
    return {entry.name: entry for kind in OPTIONS.values() for entry in fields(kind) if "hidden" not in entry.metadata}


def names(encoder: str) -> list[str]:
    """The options an encoder's readers take."""
    return [entry.name for entry in fields(OPTIONS.get(encoder, NoOptions)) if "hidden" not in entry.metadata]


def modality_names(encoder: str, modality: str) -> list[str]:
    """Return the options of a modality: those of its encoder, for still pictures without those of videos."""
    known = {entry.name: entry.metadata for entry in fields(OPTIONS.get(encoder, NoOptions))}
    return [name for name in names(encoder) if not (known[name]["moving"] and modality == "image")]


def is_drawn(encoder: str, what: str) -> bool:
    """Check whether an encoder's files take a `view`, a `moment` or a `stretch` of their own."""
    return any(entry.name == what and "hidden" in entry.metadata for entry in fields(OPTIONS.get(encoder, NoOptions)))


def record(options: Any) -> dict[str, Any]:
    """A modality's options by name, for what is written beside outputs."""
    made = {}
    for entry in fields(options):
        value = getattr(options, entry.name)
        if "hidden" not in entry.metadata and not (entry.metadata["later"] and value == entry.default):
            made[entry.name] = value
    return made


def read_options(encoder: str, modality: str, chosen: Mapping[str, Any]) -> Any:
    """A modality's options with the chosen ones set.

    Raises:
        UserError: a name it does not have, or a value that is none of its choices or too small.
    """
    kind = OPTIONS.get(encoder, NoOptions)
    known, defaults = ({entry.name: getattr(entry, what) for entry in fields(kind)} for what in ("metadata", "default"))
    for name, value in chosen.items():
        if modality == "image" and name in known and known[name]["moving"] and value != defaults[name]:  # a store's record has all
            raise UsageError(f"image has no option {name!r}, which is for videos: name the modality video, or vision for both")
        if name not in known:
            raise UsageError(f"{modality} has no option {name!r}; it has {', '.join(modality_names(encoder, modality)) or 'none'}")
        choices, minimum = known[name]["choices"], known[name]["minimum"]
        if value is not None and choices and value not in choices:
            raise UsageError(f"unknown {name} {value!r}; choose from {', '.join(choices)}")
        if value is not None and minimum is not None and not isinstance(value, int | float):
            raise UsageError(f"{name} is {value!r}; a number is needed")
        if value is not None and minimum is not None and value < minimum:
            raise UsageError(f"{name} is {value}; at least {minimum:g} is needed")
    return kind(**chosen)
