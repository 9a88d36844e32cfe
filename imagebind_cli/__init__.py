"""ImageBind's joint space for image, video, text, audio, depth, thermal and IMU, as shell commands and three lines of Python.

import imagebind_cli as ib

model = ib.load("huge", modalities=["audio"])
vectors = model.embed("audio", ["dog.wav", "rain.mp3"])  # float32 (2, 1024), rows of length 1
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebind_cli.errors import UserError
    from imagebind_cli.model import Model, load
    from imagebind_cli.sources import Regions, Stretch

__all__ = ["Model", "Regions", "Stretch", "UserError", "__version__", "load"]

_PUBLIC = {
    "load": "imagebind_cli.model",
    "Model": "imagebind_cli.model",
    "Regions": "imagebind_cli.sources",
    "Stretch": "imagebind_cli.sources",
    "UserError": "imagebind_cli.errors",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used (PEP 562), so that importing the package does not import torch."""
    if name == "__version__":
        return import_module("importlib.metadata").version("imagebind-cli")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
