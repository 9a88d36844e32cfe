"""Whether the packages that fit one version of PyTorch each can be imported beside the one that is there."""

from __future__ import annotations

from importlib import import_module, metadata

from imagebind_cli.errors import UserError


def check_import(name: str) -> None:
    """Import torchvision or torchaudio, which augmentation needs. Built for another PyTorch, each fails with whatever its loader raises.

    Raises:
        UserError: it cannot be imported; the line names both versions and the command that installs a pair.
    """
    try:
        import_module(name)
    except Exception as error:
        try:
            found = f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            found = f"{name}, which is not installed,"
        wanted = " ".join(repr(line) for line in metadata.requires("imagebind-cli") or () if line.startswith("torch"))
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"augmentation needs {found} beside torch {metadata.version('torch')}, and its import fails: {reason}; "
            f"install versions that belong together: pip install {wanted}"
        ) from None
