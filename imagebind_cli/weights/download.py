"""Download models to this machine, all or nothing: `pull_address` for one file, `pull_hub` for a repository on the hub.

Proxies come from the usual variables (`https_proxy`, …), mirrors from `IMAGEBIND_MIRROR` and `HF_ENDPOINT`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from imagebind_cli.errors import UserError
from imagebind_cli.files import locked
from imagebind_cli.weights import hub
from imagebind_cli.weights.fetch import Progress, RemoteFile, check_room, fetch_file, is_safe_name, public_address, split_address
from imagebind_cli.weights.origin import ORIGIN, OriginRecord, file_size, is_fetched, read_record, write_origin


def home() -> Path:
    """Return where downloaded models are: `$IMAGEBIND_HOME`, else `imagebind` in the user's cache folder. Does not create it."""
    if place := os.environ.get("IMAGEBIND_HOME"):  # a variable without an option is also named in cli/variables.NO_OPTIONS
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "imagebind"


def folder_of(place: str) -> Path:
    """Return the folder of a model under `home()`: `huge` for a plain name, `hf/owner--repo[@revision]` for `hf://owner/repo[@revision]`.

    Raises:
        UserError: neither a plain name nor a place on the hub.
    """
    if not place.startswith("hf://"):
        if not hub.NAME.fullmatch(place):
            raise UserError(f"{place!r} is not a model's name")
        return home() / place
    repository, revision = hub.split_place(place)
    return home() / "hf" / (repository.replace("/", "--") + (f"@{revision}" if revision else ""))


def pulled_folder(place: str) -> Path | None:
    """Return the folder of a model if it is on this machine, else None.

    Raises:
        UserError: as `folder_of`.
    """
    folder = folder_of(place)
    return folder if (folder / ORIGIN).exists() else None


def pulled_addresses() -> list[str]:
    """Return the hub addresses of the models on this machine."""
    return [read_record(origin, OriginRecord).get("address", "") for origin in sorted((home() / "hf").glob(f"*/{ORIGIN}"))]


def pull_address(address: str, folder: Path, *, sha256: str | None = None, progress: Progress, offline: bool = False) -> Path:
    """Download one file into a folder, unless it is there in full already, and return its path.

    `IMAGEBIND_MIRROR`, a base address, replaces scheme and host; `origin.json` then has both addresses, without their secrets.

    Args:
        sha256: what the file must have, in hex; without one, it is only checked that it begins as its name says.

    Raises:
        UserError: offline and not here, server or network at fault, wrong contents, or the disk is full or cannot be written to.
    """
    name = PurePosixPath(unquote(split_address(address).path)).name
    if name == ORIGIN or not is_safe_name(name):
        raise UserError(f"{public_address(address)}: does not end in a file's name")
    shown = public_address(address)
    sha256 = sha256.lower() if sha256 else None
    if is_fetched(folder, shown, sha256):
        return folder / name
    _check_online(offline, folder.name)
    source = address
    if mirror := os.environ.get("IMAGEBIND_MIRROR"):
        parts = urlsplit(address)
        source = mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")
    with _alone(folder):
        if not is_fetched(folder, shown, sha256):  # another process may have fetched it while this one waited
            record = fetch_file(RemoteFile(name, source, sha256=sha256), folder, {}, progress)
            write_origin(folder, {"address": shown, **({"mirror": public_address(source)} if mirror else {})}, {name: record})
    return folder / name


def pull_hub(place: str, *, progress: Progress, offline: bool = False) -> Path:
    """Download a model from the Hugging Face hub, `hf://owner/repo[@revision]`, unless it is there already; return its folder.

    A revision is resolved to its commit once; a model that is there causes no request. `hub.list_files` says which files are taken.

    Raises:
        UserError: as `pull_address`; no such repository or revision, no access to it, no weights in it, an unsafe file name.
    """
    folder = folder_of(place)
    if is_fetched(folder, place):
        return folder
    _check_online(offline, place)
    with _alone(folder):
        if is_fetched(folder, place):
            return folder
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        commit, files = hub.list_files(place)
        missing = [file for file in files if not (folder / file.name).exists()]
        check_room(folder, sum((file.size or 0) - file_size(folder / f"{file.name}.partial") for file in missing))
        headers = build_hf_headers(library_name="imagebind")
        records = {file.name: fetch_file(file, folder, headers, progress) for file in files}
        write_origin(folder, {"address": place, "revision": commit}, records)
    return folder


def _check_online(offline: bool, name: str) -> None:
    settings = [os.environ.get(setting, "") for setting in ("IMAGEBIND_OFFLINE", "HF_HUB_OFFLINE")]
    if offline or any(setting.lower() in ("1", "true", "yes", "on") for setting in settings):
        raise UserError(f"{name} is not on this machine, and this run is offline; with network: imagebind weights pull {name}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. Network errors do not get here, so an `OSError` is the disk's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{folder}.lock")):
            yield
    except OSError as problem:
        raise UserError(f"{folder}: cannot be written: {problem.strerror or problem}") from problem
