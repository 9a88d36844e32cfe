"""Which encoders exist, as names only: looking one up imports that file and no other.

A new modality is one file in `encoders/` and one line in `ENCODERS`; one line in `PICTURES` shows its files on pages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from imagebind_cli.errors import UsageError

if TYPE_CHECKING:
    from imagebind_cli.encoder import Modality

ENCODERS = {
    "vision": "imagebind_cli.encoders.vision",
    "text": "imagebind_cli.encoders.text",
    "audio": "imagebind_cli.encoders.audio",
    "depth": "imagebind_cli.encoders.depth",
    "thermal": "imagebind_cli.encoders.thermal",
    "imu": "imagebind_cli.encoders.imu",
}

FACES = {"image": "vision", "video": "vision"}
"""Names of inputs that share an encoder: a picture and a clip are two faces of `vision`."""

PICTURES = {
    "image": "imagebind_cli.pages.pictures:photo",
    "video": "imagebind_cli.pages.pictures:film",
    "vision": "imagebind_cli.pages.pictures:photo_or_film",
    "audio": "imagebind_cli.pages.pictures:sound",
    "depth": "imagebind_cli.pages.pictures:depth_map",
    "thermal": "imagebind_cli.pages.pictures:thermal_map",
    "imu": "imagebind_cli.pages.pictures:motion",
}
"""What draws a file of a modality on a page; one without a line is shown by its name. Strings, because a page needs no torch."""

MODALITIES = (*FACES, *ENCODERS)
"""Every name a user may give, e.g. to `imagebind embed`."""


def encoder_name(modality: str) -> str:
    """The encoder behind a modality: `vision` for `image`, `video` and `vision`, else the name itself.

    Raises:
        UsageError: for an unknown name, with the known ones.
    """
    name = FACES.get(modality, modality)
    if name not in ENCODERS:
        raise UsageError(f"unknown modality {modality!r}; choose from {', '.join(MODALITIES)}")
    return name


def get(modality: str) -> Modality:
    """The contract of a modality (see `imagebind_cli.encoder.Modality`), importing its file only now."""
    return import_module(ENCODERS[encoder_name(modality)]).MODALITY
