"""What a user may choose about reading each modality's files: one frozen dataclass each, from which the command line's flags are made.

Imports nothing heavy, so that `--help` can show the choices. A modality with no choices has no entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from imagebind_cli.errors import UserError


def choice(default: Any, help: str, *, choices: tuple[str, ...] = (), minimum: float | None = None) -> Any:
    """A dataclass field that is also a flag: what it means, and which values it takes."""
    return field(default=default, metadata={"help": help, "choices": choices, "minimum": minimum})


CLIPS = "Windows per item, evenly spaced; as many as cover it if not given. Released code: audio 3, video 5."


@dataclass(frozen=True)
class VisionOptions:
    """Pictures and videos."""

    clips: int | None = choice(None, CLIPS, minimum=1)


@dataclass(frozen=True)
class AudioOptions:
    """Sounds."""

    clips: int | None = choice(None, CLIPS, minimum=1)


@dataclass(frozen=True)
class DepthOptions:
    """Depth maps. The defaults are the first Kinect's, which NYU Depth v2 and part of SUN RGB-D were taken with."""

    depth_format: str | None = choice(None, "Unit of depth files; by their number type if not given.", choices=("metres", "mm"))
    focal: float = choice(518.86, "Focal length of the depth camera, in pixels.", minimum=1e-6)
    baseline: float = choice(0.075, "Distance between the depth sensor's eyes, in metres.", minimum=1e-6)


@dataclass(frozen=True)
class IMUOptions:
    """IMU recordings."""

    clips: int | None = choice(None, CLIPS, minimum=1)
    rate: int | None = choice(None, "Rate of the IMU recording, in Hz; 400 if not given.", minimum=1)


@dataclass(frozen=True)
class NoOptions:
    """A modality whose reading has no choices."""


OPTIONS: dict[str, type] = {"vision": VisionOptions, "audio": AudioOptions, "depth": DepthOptions, "imu": IMUOptions}
"""Encoder name to its dataclass."""


def flags() -> dict[str, Any]:
    """Every option once, by name: the dataclass field that describes it."""
    return {entry.name: entry for kind in OPTIONS.values() for entry in fields(kind)}


def read_options(encoder: str, modality: str, chosen: Mapping[str, Any]) -> Any:
    """A modality's options with the chosen ones set.

    Raises:
        UserError: a name it does not have, or a value that is none of its choices or too small.
    """
    kind = OPTIONS.get(encoder, NoOptions)
    known = {entry.name: entry.metadata for entry in fields(kind)}
    for name, value in chosen.items():
        if name not in known:
            raise UserError(f"{modality} has no option {name!r}; it has {', '.join(known) or 'none'}")
        choices, minimum = known[name]["choices"], known[name]["minimum"]
        if value is not None and choices and value not in choices:
            raise UserError(f"unknown {name} {value!r}; choose from {', '.join(choices)}")
        if value is not None and minimum is not None and value < minimum:
            raise UserError(f"{name} is {value}; at least {minimum:g} is needed")
    return kind(**chosen)
