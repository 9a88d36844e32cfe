"""The reading options of each modality: one frozen dataclass each, from which the command line's flags are made.

A new option is a field here, with a default, and its use in the modality's reader; flags, checks, records and the resuming of older stores
follow. Imports nothing heavy, so that `--help` can show the choices. A modality without choices has no entry in `OPTIONS`; the options of
one that another package brings are an entry point of that package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import Field, dataclass, field, fields
from fractions import Fraction
from typing import Any, ClassVar, get_args, get_type_hints

from imagebind_cli.additions import OPTIONS as ADDED
from imagebind_cli.additions import additions, load_addition
from imagebind_cli.errors import OptionError, UsageError, UserError

Floats = Sequence[float]


def choice(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    only: str = "",
    windows: bool = False,
) -> Any:
    """Define a dataclass field that is also a flag.

    Args:
        default: must not change once stores have been made with it: a record without the option means this value.
        help: what the option means. choices: the values it takes, if they are few. minimum: its smallest value.
        only: for an option that not all inputs of an encoder have, which of them do: `FOR_VIDEOS` or `FOR_PICTURES`.
        windows: it chooses windows or crops, which training draws at random, so that a recipe cannot set it.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "only": only, "windows": windows}
    return field(default=default, metadata=metadata)


FOR_VIDEOS = "is for videos: name the modality video, or vision for both"  # the words after "which"
FOR_PICTURES = "is for pictures: name the modality image"

PER_ITEM = {"per_item": True}  # metadata of a field that is neither a flag nor recorded: it is set item by item, with `dataclasses.replace`

# Options that no modality of ImageBind has; families name those that they have, see `encoder.Modality.options`.
FAMILY_ONLY = frozenset({"resize"})

# Records leave these out at their defaults, as those from before the options existed do. Add nothing: records are compared by
# `with_defaults`, so that an older one, which lacks a new option, equals one that has it at its default. Those of `FAMILY_ONLY` are also
# left out: they would be in the records of all families.
UNRECORDED_DEFAULTS = frozenset({"track"}) | FAMILY_ONLY


@dataclass(frozen=True)
class ReadingOptions:
    """The base of all modalities' options. Get checked ones from `registry.Face.read_options`.

    chosen: names of the options that were set, even if to their defaults. Prepared samples must agree with these alone.
    augmentations: fields of a training recipe's `augment` that fit, besides those of pictures where there is a `view`.
    """

    augmentations: ClassVar[tuple[str, ...]] = ()

    chosen: frozenset[str] = field(default=frozenset(), kw_only=True, compare=False, metadata=PER_ITEM)

    @classmethod
    def flags(cls) -> list[Field[Any]]:
        """Return the fields that a user may choose."""
        return [entry for entry in fields(cls) if "help" in entry.metadata]

    @classmethod
    def names(cls, timed: bool | None = None) -> list[str]:
        """Return the names of the options; timed: of those alone that inputs with seconds, or without, have."""
        return [entry.name for entry in cls.flags() if timed is None or not _is_of_others(entry, timed)]

    @classmethod
    def has(cls, name: str) -> bool:
        """Check whether the reader takes a `view`, a `moment` or a `stretch` for each item."""
        return any(entry.name == name and "per_item" in entry.metadata for entry in fields(cls))

    @classmethod
    def with_defaults(cls, record: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a record, which may have been made before some of the options existed, with their defaults."""
        return {entry.name: entry.default for entry in cls.flags()} | dict(record)

    def __post_init__(self) -> None:
        """Check the options against each other."""
        for group, fault in EXCLUSIVE.items():
            given = [name for name in self.names() if name in group and getattr(self, name) is not None]
            if len(given) > 1:
                raise OptionError(fault.format(" and ".join(given)), self.names())

    def choices(self) -> dict[str, Any]:
        """Return the options that were set, by name."""
        return {name: getattr(self, name) for name in self.names() if name in self.chosen}

    def record(self) -> dict[str, Any]:
        """Return all options by name, for the provenance of outputs."""
        values = ((entry, getattr(self, entry.name)) for entry in self.flags())
        return {entry.name: value for entry, value in values if not (entry.name in UNRECORDED_DEFAULTS and value == entry.default)}

    @classmethod
    def normalisation(cls, record: Mapping[str, Any], mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        """Return the mean and deviation per channel that samples of such a record are normalised with."""
        return mean, std


CLIPS = "Evenly spaced windows per input; by default as many as cover it."
HOP = "Seconds from one window to the next, instead of evenly spaced ones."
ALL_FRAMES, HIGHEST_RATE = "all", 1000  # what `adjacent` takes in place of a rate, and the highest one in Hz
TRACK = "Track of the file, from 1; by default the one that it marks, else the first."
PINNED, RECENT = "pinned", "recent"
EXACT, FAST = "exact", "fast"
RESIZE = "LanguageBind: without antialiasing, as published, or (recent) with it."

RATE_ALONE = "rate is in place of timestamps; it excludes time_column and time_unit"
# Sets of options of which only one may be given, and the message about several, in which {} stands for their names.
EXCLUSIVE = {
    frozenset({"clips", "hop", "centres", "adjacent"}): "{} exclude each other",
    frozenset({"rate", "time_column"}): RATE_ALONE,
    frozenset({"rate", "time_unit"}): RATE_ALONE,
}
NEEDED = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}  # what an option of a type takes, in words


@dataclass(frozen=True)
class DrawnOptions(ReadingOptions):
    """The base of the options of pictures and maps: which part of one is an input of the encoder, or which parts are one each."""

    tiles: str | None = choice(
        None,
        "A row for each of overlapping squares, with these fractions of the short side: 1/2,1/3.",
        only=FOR_PICTURES,
        windows=True,
    )
    region_shape: str = choice(
        "box",
        "What is seen of a box: its middle, the square around it, or there its mask alone.",
        choices=("box", "square", "mask"),
        only=FOR_PICTURES,
        windows=True,
    )
    view: Any = field(default=None, metadata=PER_ITEM)  # media.views.View, in place of the centre crop
    regions: Any = field(default=None, metadata=PER_ITEM)  # of media.regions.Region, in place of the whole; see sources.Regions

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tiles is not None and self.regions is not None:
            raise OptionError("tiles are of whole pictures; leave tiles out where boxes are given", self.names())
        if self.tiles is not None:
            self.tile_sides()

    @property
    def has_regions(self) -> bool:
        """Check whether parts of an input are read, and not the whole."""
        return self.tiles is not None or self.regions is not None

    def tile_sides(self) -> tuple[Fraction, ...]:
        """Return the sides of the tiles as fractions of the short side.

        Raises:
            OptionError: they are not fractions from 0 to 1.
        """
        try:
            sides = tuple(Fraction(text.strip()) for text in (self.tiles or "").split(","))
        except (ValueError, ZeroDivisionError):
            sides = (Fraction(0),)
        if not all(0 < side <= 1 for side in sides):
            raise OptionError(f"tiles is {self.tiles!r}; fractions of the short side are needed, as in 1/2,1/3", self.names())
        return sides


REGION_OPTIONS = ("tiles", "region_shape")  # those of a reader that reads regions


@dataclass(frozen=True)
class VisionOptions(DrawnOptions):
    """Pictures and videos."""

    clips: int | None = choice(None, CLIPS, minimum=1, only=FOR_VIDEOS, windows=True)
    hop: float | None = choice(None, HOP, minimum=0.01, only=FOR_VIDEOS, windows=True)
    crops: str = choice(
        "3",
        "Views of each clip: both ends and middle, as published, or the middle alone.",
        choices=("3", "1"),
        only=FOR_VIDEOS,
        windows=True,
    )
    adjacent: str | None = choice(
        None,
        "Every two adjacent frames are a clip, instead of windows: of `all` frames, or of those taken at this rate in Hz.",
        only=FOR_VIDEOS,
        windows=True,
    )
    fps: float | None = choice(
        None,
        "Read each folder given as one video, its pictures as frames at this rate.",
        minimum=0.001,
        only=FOR_VIDEOS,
    )
    track: int | None = choice(None, TRACK, minimum=1, only=FOR_VIDEOS)
    resize: str = choice(PINNED, RESIZE, choices=(PINNED, RECENT))
    decode: str = choice(
        EXACT,
        "Decode JPEGs whole, or (fast) at the smallest scale that suffices.",
        choices=(EXACT, FAST),
        only=FOR_PICTURES,
        windows=True,
    )
    moment: Any = field(default=None, metadata=PER_ITEM)  # media.windows.Moment, in place of windows that cover the item
    stretch: Any = field(default=None, metadata=PER_ITEM)  # (start, end) in seconds: the part of the item that is read; see sources.Stretch

    def __post_init__(self) -> None:
        super().__post_init__()
        with suppress(ValueError):
            if self.adjacent in (None, ALL_FRAMES) or 0 < float(self.adjacent) <= HIGHEST_RATE:
                return
        raise OptionError(f"adjacent is {self.adjacent!r}; {ALL_FRAMES} is needed, or a rate of at most {HIGHEST_RATE} Hz", self.names())


@dataclass(frozen=True)
class AudioOptions(ReadingOptions):
    """Sounds."""

    augmentations = ("frequency_mask",)

    clips: int | None = choice(None, CLIPS, minimum=1, windows=True)
    hop: float | None = choice(None, HOP, minimum=0.01, windows=True)
    channels: str = choice("first", "Use the first channel, or all channels mixed.", choices=("first", "mix"))
    track: int | None = choice(None, TRACK, minimum=1)
    moment: Any = field(default=None, metadata=PER_ITEM)
    stretch: Any = field(default=None, metadata=PER_ITEM)


DATASET = "Name of the dataset, group, variable or channel to read from an HDF5, NPZ, MATLAB, zip or OpenEXR file."
FRAME = "Frame of an HDF5 file with several, or page of a TIFF, from 0."


@dataclass(frozen=True)
class DepthOptions(DrawnOptions):
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
    resize: str = choice(PINNED, RESIZE, choices=(PINNED, RECENT))

    @classmethod
    def normalisation(cls, record: Mapping[str, Any], mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        """Return the encoder's mean and deviation, or 0 and 1 where the record says so."""
        return ((0.0,), (1.0,)) if record.get("depth_normalise") == "none" else (mean, std)


DEGREES = {"C": (1.0, 0.0), "K": (1.0, 273.15), "F": (1.8, 32.0)}  # a unit's steps in a degree Celsius, and its number at 0 °C


@dataclass(frozen=True)
class ThermalOptions(DrawnOptions):
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
    resize: str = choice(PINNED, RESIZE, choices=(PINNED, RECENT))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thermal_range not in ("auto", "percentile"):
            try:
                low, high, _ = self.limits()
            except ValueError:
                low = high = 0.0
            if not float("-inf") < low < high < float("inf"):
                known = "choose auto, percentile or MIN:MAX, as in 10:40 or 20C:40C"
                raise OptionError(f"unknown thermal_range {self.thermal_range!r}; {known}", self.names())

    def limits(self) -> tuple[float, float, bool]:
        """Return the two ends of a `thermal_range` that gives them, and whether they are temperatures, then in degrees Celsius.

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
class IMUOptions(ReadingOptions):
    """IMU recordings."""

    augmentations = ("turn",)

    clips: int | None = choice(None, CLIPS, minimum=1, windows=True)
    hop: float | None = choice(None, HOP, minimum=0.01, windows=True)
    centres: str | None = choice(None, "Take windows around these seconds: T,T,... or a file with one on each line.", windows=True)
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
    moment: Any = field(default=None, metadata=PER_ITEM)
    stretch: Any = field(default=None, metadata=PER_ITEM)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns is not None and len(self.columns.split(",")) != 6:
            raise UsageError(f"columns names {len(self.columns.split(','))}; six are needed: accelerometer x,y,z, gyroscope x,y,z")


@dataclass(frozen=True)
class TextOptions(ReadingOptions):
    """Sentences."""

    long_text: str = choice(
        "truncate",
        "Text of more than 75 tokens: cut it with a warning, average windows of it, or fail.",
        choices=("truncate", "window", "error"),
    )


@dataclass(frozen=True)
class NoOptions(ReadingOptions):
    """The options of a modality that has none."""


OPTIONS: dict[str, type[ReadingOptions]] = {  # by encoder name
    "vision": VisionOptions,
    "text": TextOptions,
    "audio": AudioOptions,
    "depth": DepthOptions,
    "thermal": ThermalOptions,
    "imu": IMUOptions,
}


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


def options_of(encoder: str) -> type[ReadingOptions]:
    """Return the options of an encoder's readers, those of another package's included.

    Raises:
        UserError: that package cannot be loaded.
    """
    if encoder in OPTIONS:
        return OPTIONS[encoder]
    entry = additions(ADDED).get(encoder)
    if entry is None:
        return NoOptions
    kind = load_addition(entry, "OPTIONS")
    if not (isinstance(kind, type) and issubclass(kind, ReadingOptions)):
        raise UserError(f"the options of {encoder}, {entry.value}, are not a class of ReadingOptions")
    return kind


def all_options() -> dict[str, type[ReadingOptions]]:
    """Return the options of all encoders by name. Those of a package that cannot be loaded are left out, and missed where it is used."""
    kinds = dict(OPTIONS)
    for name in additions(ADDED):
        with suppress(UserError):
            kinds[name] = options_of(name)
    return kinds


def flags() -> dict[str, Field[Any]]:
    """Return every option once, by name: the dataclass field that describes it."""
    return {entry.name: entry for kind in all_options().values() for entry in kind.flags()}


def both_values(name: str, one: Any, other: Any) -> tuple[str, str]:
    """Return two different values of an option as typed, the second without the flag where that is clear: `--channels first` and `mix`."""
    plain = not any(value is None or isinstance(value, bool) for value in (one, other))
    return _typed(name, one), str(other) if plain else _typed(name, other)


def _typed(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {flag}"
    return flag if value is True else f"{flag} {value}"


def _is_of_others(entry: Field[Any], timed: bool) -> bool:
    """Check whether an option is for pictures alone where the inputs are timed, or for videos alone where they are not."""
    return bool(entry.metadata.get("only") == (FOR_PICTURES if timed else FOR_VIDEOS))


def folders_are_frames(chosen: Mapping[str, Any]) -> bool:
    """Check whether chosen options make a folder one item, whose pictures are the frames of a video."""
    return chosen.get("fps") is not None


def read_options(kind: type[ReadingOptions], modality: str, chosen: Mapping[str, Any], timed: bool | None = None) -> ReadingOptions:
    """Return options with the chosen ones set; see `registry.Face.read_options`.

    Args:
        modality: as the user calls it, for the messages. timed: whether its inputs have seconds.
    Raises:
        OptionError: a name that the modality does not have, or a value of another type, not among the choices, or too small.
    """
    known, types = {entry.name: entry for entry in fields(kind) if entry.name != "chosen"}, get_type_hints(kind)
    for name, value in chosen.items():
        entry = known.get(name)
        if entry is None:
            raise OptionError(f"{modality} has no option {name!r}; it has {', '.join(kind.names(timed)) or 'none'}", [name, *kind.names()])
        if "per_item" in entry.metadata:
            continue
        if timed is not None and _is_of_others(entry, timed) and value != entry.default:  # the record of a store names them all
            raise OptionError(f"{modality} has no option {name!r}, which {entry.metadata['only']}", [name])
        accepted = get_args(types[name]) or (types[name],)
        if not _is_one_of(value, accepted):
            raise OptionError(f"{name} is {value!r}; {NEEDED[accepted[0]]} is needed", [name])
        choices, minimum = entry.metadata["choices"], entry.metadata["minimum"]
        if value is not None and choices and value not in choices:
            raise OptionError(f"unknown {name} {value!r}; choose from {', '.join(choices)}", [name])
        if value is not None and minimum is not None and value < minimum:
            raise OptionError(f"{name} is {value}; at least {minimum:g} is needed", [name])
    return kind(**chosen, chosen=frozenset(chosen).intersection(kind.names()))


def _is_one_of(value: Any, types: tuple[type, ...]) -> bool:
    """Check a value's type; an int is also a float, and a bool is neither."""
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (float in types and isinstance(value, int))
