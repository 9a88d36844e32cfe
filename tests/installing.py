"""A distribution of this repository installed by pip into a folder, as a user's environment has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def install(distribution: str, source: Path, place: Path) -> None:
    """Copy the folder of a distribution to `source`, which is then free of what building leaves, and install it into `place`."""
    shutil.copytree(REPOSITORY / distribution, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, place, source], check=True)
