"""PyTorch and the packages built for one version of it each: whether they can be imported together, and how to install a set that fits."""

from __future__ import annotations

from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from imagebind_cli.errors import UserError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

TORCH_FAMILY = ("torch", "torchvision", "torchaudio")  # built for each other; versions must be changed together


def requirement(name: str) -> Requirement:
    """Return the version of a package that this one declares."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    declared = map(Requirement, metadata.requires("imagebind-cli") or [])
    return next((each for each in declared if canonicalize_name(each.name) == name and each.marker is None), Requirement(name))


def install_command(name: str, flag: str = "") -> str:
    """Return the command that installs a package as declared; for one of PyTorch's family, all of them."""
    return f"pip install{flag} " + " ".join(f"'{requirement(each)}'" for each in (TORCH_FAMILY if name in TORCH_FAMILY else [name]))


def import_fault(name: str) -> str | None:
    """Return why a package cannot be imported, with the version of PyTorch it has to fit; None where it can be."""
    try:
        import_module(name)
    except Exception as error:  # a package built for another PyTorch fails with whatever its loader raises
        beside = f" beside torch {metadata.version('torch')}" if name in TORCH_FAMILY[1:] and find_spec("torch") else ""
        return f"its import fails{beside}: {str(error).partition(chr(10))[0] or type(error).__name__}"
    return None


def require(name: str, purpose: str) -> None:
    """Import a package that fits PyTorch.

    Args:
        purpose: what needs it, for the error line.
    Raises:
        UserError: it is not installed, or its import fails, with the command that installs versions that fit.
    """
    fault = import_fault(name)
    if fault is None:
        return
    try:
        version = f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        raise UserError(f"{purpose} needs {name}, which is not installed: {install_command(name)}") from None
    raise UserError(f"{purpose} needs {version}, but {fault}; install versions that fit each other: {install_command(name)}")
