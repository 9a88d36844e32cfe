"""The table of options: which each modality has, and every option by its name.

A modality without choices has no entry in `OPTIONS`; the options of one that another package brings are an entry point of that package.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import Field
from typing import Any

from imagebind_cli.additions import OPTIONS as ADDED
from imagebind_cli.additions import additions, load_addition
from imagebind_cli.errors import UserError
from imagebind_cli.options import NoOptions, ReadingOptions
from imagebind_cli.options.audio import AudioOptions
from imagebind_cli.options.depth import DepthOptions
from imagebind_cli.options.imu import IMUOptions
from imagebind_cli.options.text import TextOptions
from imagebind_cli.options.thermal import ThermalOptions
from imagebind_cli.options.vision import VisionOptions

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
        raise UserError(f"the options of {encoder}, {entry.value}, are not a subclass of ReadingOptions")
    return kind


def all_options() -> dict[str, type[ReadingOptions]]:
    """Return the options of all encoders by name, without those of packages that cannot be loaded; using such a package raises the error."""
    kinds = dict(OPTIONS)
    for name in additions(ADDED):
        with suppress(UserError):
            kinds[name] = options_of(name)
    return kinds


def flags() -> dict[str, Field[Any]]:
    """Return every option once, by name: the dataclass field that describes it."""
    return {entry.name: entry for kind in all_options().values() for entry in kind.flags()}
