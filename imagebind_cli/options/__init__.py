"""The reading options of each modality: one frozen dataclass each, from which the command line's flags are made.

A new option is a field of a modality's file, with a default, and its use in the modality's reader; flags, checks, records and the resuming
of older stores follow. Imports nothing heavy, so that `--help` can show the choices.

What an option is, and how chosen ones are checked, is in this file. Beside it:

drawn.py         the options that pictures and maps share
vision.py, audio.py, depth.py, thermal.py, imu.py, text.py    the options of an encoder's readers
modalities.py    the table of them all, with those that other packages bring
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, get_args, get_type_hints

from imagebind_cli.errors import OptionError

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

# Records leave these out at their defaults, as records made before the options existed do. Add nothing: records are compared by
# `with_defaults`, so that an older record, which lacks a new option, equals one that has it at its default. Those of `FAMILY_ONLY` are also
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
    def names(cls, *, timed: bool | None = None) -> list[str]:
        """Return the names of the options; timed: only of those for inputs with a duration (True) or without one (False)."""
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


@dataclass(frozen=True)
class NoOptions(ReadingOptions):
    """The options of a modality that has none."""


# Help of options that several modalities have.
CLIPS = "Evenly spaced windows per input; by default as many as cover it."
HOP = "Seconds from one window to the next, instead of evenly spaced ones."
TRACK = "Track, counted from 1; by default the one flagged as default, else the first."
DATASET = "Dataset, group, variable or channel to read from an HDF5, NPZ, MATLAB, zip or OpenEXR file."
FRAME = "Frame of an HDF5 file with several, or page of a TIFF, counted from 0."

RATE_ALONE = "rate replaces timestamps; leave out time_column and time_unit"
TIME_WINDOWS = frozenset({"clips", "hop", "centres", "adjacent"})  # options that choose windows in time; None for those that cover an input
# Sets of options of which only one may be given, and the message about several, in which {} stands for their names.
EXCLUSIVE = {
    TIME_WINDOWS: "{} exclude each other; give one",
    frozenset({"rate", "time_column"}): RATE_ALONE,
    frozenset({"rate", "time_unit"}): RATE_ALONE,
}
NEEDED = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}  # what an option of a type takes, in words


def read_options(kind: type[ReadingOptions], modality: str, chosen: Mapping[str, Any], timed: bool | None = None) -> ReadingOptions:
    """Return options with the chosen ones set; see `registry.Face.read_options`.

    Args:
        modality: as the user calls it, for the messages. timed: whether its inputs have a duration.
    Raises:
        OptionError: a name that the modality does not have, or a value of another type, not among the choices, or too small.
    """
    known = {entry.name: entry for entry in fields(kind) if entry.name != "chosen"}
    types = _types(kind)  # type: ignore[arg-type]  # mypy takes the hash of its instances for that of a class
    for name, value in chosen.items():
        entry = known.get(name)
        if entry is None:
            raise OptionError(
                f"{modality} has no option {name!r}; it has {', '.join(kind.names(timed=timed)) or 'none'}", [name, *kind.names()]
            )
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


@cache
def _types(kind: type[ReadingOptions]) -> dict[str, Any]:
    """Return the type of each option; a server asks for every input."""
    return get_type_hints(kind)


def _is_of_others(entry: Field[Any], timed: bool) -> bool:
    """Check whether an option is for pictures alone where the inputs are timed, or for videos alone where they are not."""
    return bool(entry.metadata.get("only") == (FOR_PICTURES if timed else FOR_VIDEOS))


def _is_one_of(value: Any, types: tuple[type, ...]) -> bool:
    """Check a value's type; an int is also a float, and a bool is neither."""
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (float in types and isinstance(value, int))


def folders_are_frames(chosen: Mapping[str, Any]) -> bool:
    """Check whether chosen options make a folder one item, whose pictures are the frames of a video."""
    return chosen.get("fps") is not None


def both_values(name: str, one: Any, other: Any) -> tuple[str, str]:
    """Return two different values of an option as typed, the second without the flag where that is clear: `--channels first` and `mix`."""
    plain = not any(value is None or isinstance(value, bool) for value in (one, other))
    return _typed(name, one), str(other) if plain else _typed(name, other)


def _typed(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {flag}"
    return flag if value is True else f"{flag} {value}"
