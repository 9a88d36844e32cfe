"""The import name `imagebind` over `imagebind_cli`: code written for the published ImageBind runs unchanged."""

from __future__ import annotations

import re
from importlib import metadata

DISTRIBUTION = "imagebind-compat"


def refuse_second_provider() -> None:
    """Check that no other installed distribution provides `imagebind`: both would write the same files, and which won is chance.

    Raises:
        ImportError: another one does; the message names it, and how to keep one.
    """
    providers = {found.name.lower().replace("_", "-") for found in metadata.distributions() if _provides(found, __name__)}
    if others := sorted(providers - {DISTRIBUTION}):
        names = " ".join([DISTRIBUTION, *others])
        raise ImportError(
            f"{' and '.join([DISTRIBUTION, *others])} both provide the package imagebind, and their files may be mixed; "
            f"remove both, pip uninstall -y {names}, and install the one to keep"
        )


def _provides(distribution: metadata.Distribution, package: str) -> bool:
    """Check whether a distribution has a top-level package, by the lines of its files: `packages_distributions` parses those of all, 2 s."""
    if declared := distribution.read_text("top_level.txt"):
        return package in declared.split()
    return re.search(rf"^{package}(/|\.py,)", distribution.read_text("RECORD") or "", re.MULTILINE) is not None


refuse_second_provider()

from imagebind import data, models  # noqa: E402 - only once the check has passed
from imagebind.data import (  # noqa: E402
    load_and_transform_audio_data,
    load_and_transform_text,
    load_and_transform_video_data,
    load_and_transform_vision_data,
)
from imagebind.models import imagebind_model  # noqa: E402
from imagebind.models.imagebind_model import ImageBindModel, ModalityType, imagebind_huge  # noqa: E402

__all__ = [
    "ImageBindModel",
    "ModalityType",
    "data",
    "imagebind_huge",
    "imagebind_model",
    "load_and_transform_audio_data",
    "load_and_transform_text",
    "load_and_transform_video_data",
    "load_and_transform_vision_data",
    "models",
]
