"""`imagebind --version`, and with -v what it runs on: the lines that belong in a bug report."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import imagebind_cli


def version_lines(verbose: bool) -> list[str]:
    """Return the version; verbose: and Python, torch, its device, the platform and, in a checkout, the commit."""
    if not verbose:
        return [imagebind_cli.__version__]
    import torch

    from imagebind_cli.model import choose_device

    commit = _commit(Path(imagebind_cli.__file__).parent)
    return [
        f"imagebind {imagebind_cli.__version__}" + (f", commit {commit}" if commit else ""),
        f"python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"device {choose_device()}",
        f"platform {platform.platform()}",
    ]


def _commit(package: Path) -> str | None:
    """Return the commit of the checkout that contains the package; None where it is installed without one, or git is missing."""
    if not (package.parent / ".git").exists():
        return None
    git = ["git", "-C", str(package.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
