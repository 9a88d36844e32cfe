"""Weights from the network to this machine, whole or not at all.

A file grows as `NAME.partial` beside what a later run needs to go on with it (`NAME.partial.json`), is checked, and is renamed
into place; `origin.json` is written last, so a folder that has one is whole. Proxies come from the usual variables
(`https_proxy`, …), mirrors from `IMAGEBIND_MIRROR` and `HF_ENDPOINT`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from imagebind_cli.errors import UsageError, UserError

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes of it that are here, and the bytes it has (None when the server does not say)."""

ORIGIN = "origin.json"
"""The record beside downloaded files: address, time, size and SHA-256 of each file."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each new attempt after a broken connection."""

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
PASSING = {408, 416, 425, 429, 500, 502, 503, 504}  # answers worth another attempt
ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[!-~]*)?", re.ASCII)
NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
HUB_PLACE = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?")
BESIDE = (".json", ".txt", "README.md", "LICENSE", "LICENSE.md")  # taken from the hub with the weights


@dataclass(frozen=True)
class _File:
    """A file to bring into a folder: its name there, where from, and as far as known its bytes and SHA-256 in hex."""

    name: str
    source: str
    size: int | None = None
    sha256: str | None = None


class _Broken(Exception):
    """An attempt ended early; another may go on from what is here."""


class _Changed(_Broken):
    """What is here does not fit what the server has; another attempt has to start over."""


class _Unreachable(_Broken):
    """No connection at all."""


class _Redirects(HTTPRedirectHandler):
    """Redirects that neither leave https for http nor take the token to another server."""

    def redirect_request(self, req: Request, *answer: Any, **named: Any) -> Request | None:
        following = super().redirect_request(req, *answer, **named)
        if following is not None:
            old, new = urlsplit(req.full_url), urlsplit(following.full_url)
            if new.scheme not in ("https", old.scheme):
                raise UserError(f"{req.full_url}: redirected to {new.geturl()}, which is not followed from {old.scheme}")
            if (old.scheme, old.netloc) != (new.scheme, new.netloc):
                following.remove_header("Authorization")
        return following


def home() -> Path:
    """Where downloaded models live: `$IMAGEBIND_HOME`, else `imagebind` in the user's cache folder. Not created here."""
    if place := os.environ.get("IMAGEBIND_HOME"):
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "imagebind"


def folder_of(place: str) -> Path:
    """The folder of a model under `home()`: `huge` for a plain name, `hf/owner--repo[@revision]` for `hf://owner/repo[@revision]`.

    Raises:
        UserError: neither a plain name nor a place on the hub.
    """
    if not place.startswith("hf://"):
        if not NAME.fullmatch(place):
            raise UserError(f"{place!r} is not a model's name")
        return home() / place
    repository, revision = _hub_parts(place)
    return home() / "hf" / (repository.replace("/", "--") + (f"@{revision}" if revision else ""))


def pulled(place: str) -> Path | None:
    """The folder of a model that is on this machine, else None.

    Raises:
        UserError: as `folder_of`.
    """
    folder = folder_of(place)
    return folder if (folder / ORIGIN).exists() else None


def read_origin(folder: Path) -> dict[str, Any]:
    """Return where a fetched model is from: address, revision and time, as far as they are recorded; {} for a folder that was not fetched."""
    record = _read_record(folder / ORIGIN)
    return {key: record[key] for key in ("address", "revision", "fetched") if key in record}


def recorded_files(folder: Path) -> int:
    """Return how many files of a fetched model have a record; 0 for a folder that was not fetched."""
    return len(_read_record(folder / ORIGIN).get("files", ()))


def pulled_addresses() -> list[str]:
    """Return the hub addresses of the models on this machine."""
    return [_read_record(origin).get("address", "") for origin in sorted((home() / "hf").glob(f"*/{ORIGIN}"))]


def pull_address(address: str, folder: Path, *, sha256: str | None = None, progress: Progress, offline: bool = False) -> Path:
    """Download one file into `folder`, unless it is there whole already, and return its path. `sha256`: its right one, in hex.

    `IMAGEBIND_MIRROR`, a base address, replaces scheme and host; `origin.json` then has both addresses.

    Raises:
        UserError: offline and not here, server or network at fault, wrong contents, disk full or not writable.
    """
    name = PurePosixPath(unquote(_checked(address).path)).name
    if name == ORIGIN or not _stays_inside(name):
        raise UserError(f"{address}: does not end in a file's name")
    sha256 = sha256.lower() if sha256 else None
    if _is_whole(folder, address, sha256):
        return folder / name
    _check_online(offline, folder.name)
    source = address
    if mirror := os.environ.get("IMAGEBIND_MIRROR"):
        parts = urlsplit(address)
        source = mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")
    with _alone(folder):
        if not _is_whole(folder, address, sha256):  # another process may have brought it while this one waited
            found = _fetch(_File(name, source, sha256=sha256), folder, {}, progress)
            _write_origin(folder, {"address": address, **({"mirror": source} if mirror else {})}, {name: found})
    return folder / name


def pull_hub(place: str, *, progress: Progress, offline: bool = False) -> Path:
    """Download a model from the Hugging Face hub, `hf://owner/repo[@revision]`, unless it is there already; return its folder.

    A revision is resolved to its commit once; a model that is there is not asked about again. Taken are the weights
    (`.pth` and `.bin` only where there is no `.safetensors`), JSON and text files, and the licence.

    Raises:
        UserError: as `pull_address`; no such repository or revision, no access to it, no weights in it, an unsafe file name.
    """
    folder = folder_of(place)
    if _is_whole(folder, place):
        return folder
    _check_online(offline, place)
    with _alone(folder):
        if _is_whole(folder, place):
            return folder
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        commit, files = _hub_files(place)
        missing = [file for file in files if not (folder / file.name).exists()]
        _check_room(folder, sum((file.size or 0) - _size(folder / f"{file.name}.partial") for file in missing))
        headers = build_hf_headers(library_name="imagebind")
        found = {file.name: _fetch(file, folder, headers, progress) for file in files}
        _write_origin(folder, {"address": place, "revision": commit}, found)
    return folder


def verify(folder: Path) -> list[str]:
    """Read every file that `origin.json` lists and return one line for each that differs: `NAME: reason`.

    Raises:
        UserError: no readable `origin.json`.
    """
    files = _read_record(folder / ORIGIN).get("files")
    if not files:
        raise UserError(f"{folder}: no {ORIGIN} to check against")
    problems = []
    for name, stated in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif _size(path) != stated["size"]:
            problems.append(f"{name}: {_size(path)} bytes, not {stated['size']}")
        elif (found := _digest(path).hexdigest()) != stated["sha256"]:
            problems.append(f"{name}: SHA-256 {found}, not {stated['sha256']}")
    return problems


def _fetch(file: _File, folder: Path, headers: Mapping[str, str], progress: Progress) -> dict[str, Any]:
    """Bring one file into place, in as many attempts as `PAUSES` allows, and return its record for `origin.json`."""
    target, partial, sidecar = (folder / f"{file.name}{ending}" for ending in ("", ".partial", ".partial.json"))
    _checked(file.source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.sha256 and target.is_file() and _digest(target).hexdigest() == file.sha256:  # a run that ended before origin.json
        return {"size": _size(target), "sha256": file.sha256}
    for attempt, pause in enumerate((*PAUSES, None)):
        try:
            found = _receive(file, partial, sidecar, headers, progress)
            break
        except _Broken as problem:
            if isinstance(problem, _Changed):
                partial.unlink(missing_ok=True)
            if pause is None or (isinstance(problem, _Unreachable) and attempt == 0):  # no network: say so at once
                have, total = _size(partial), _read_record(sidecar).get("size") or "an unknown number of"
                kept = f"; {have} of {total} bytes are here and the same command goes on from there" if have else ""
                raise UserError(f"{file.source}: {problem}{kept}") from problem
            time.sleep(pause)
    if file.sha256 not in (None, found):
        partial.unlink()
        sidecar.unlink()
        raise UserError(f"{file.source}: SHA-256 is {found}, not {file.sha256} as it should be; what came was removed")
    os.replace(partial, target)
    sidecar.unlink()
    return {"size": _size(target), "sha256": found}


def _receive(file: _File, partial: Path, sidecar: Path, headers: Mapping[str, str], progress: Progress) -> str:
    """One attempt: complete `partial` from what is there and return its SHA-256 in hex."""
    mark = _read_record(sidecar)
    known = mark.get("validator") if mark.get("source") == file.source else None
    # The rest may be added only if something tells that it belongs to this part: the server's validator, or the SHA-256 to come.
    have = _size(partial) if known or (file.sha256 and mark.get("sha256") == file.sha256) else 0
    digest = _digest(partial) if have else hashlib.sha256()
    if have and have == mark["size"]:  # the last run ended just before the renaming
        return digest.hexdigest()
    asked = ({"Range": f"bytes={have}-"} if have else {}) | ({"If-Range": known} if have and known else {})
    with _open(Request(file.source, headers={"User-Agent": "imagebind", **headers, **asked})) as response:
        start, total = _extent(response)
        validator = _validator(response)
        if start and (start != have or total not in (None, mark["size"]) or (known and validator not in (None, known))):
            raise _Changed("the file changed on the server")
        if None not in (file.size, total) and file.size != total:
            raise UserError(f"{file.source}: the server offers {total} bytes, the hub lists {file.size}")
        if total is None:
            total = mark["size"] if start else file.size
        if total is None and not file.sha256 and not response.chunked:
            raise UserError(f"{file.source}: the server does not say how long the file is, so a cut could not be noticed")
        _check_room(partial.parent, (total or 0) - start)
        with open(partial, "ab" if start else "wb") as grown:
            if not start:
                have, digest = 0, hashlib.sha256()
                mark = {"source": file.source, "validator": validator, "size": total, "sha256": file.sha256}
                sidecar.write_text(json.dumps(mark))
            progress(file.name, have, total)
            while block := _block(response):
                grown.write(block)
                digest.update(block)
                have += len(block)
                progress(file.name, have, total)
            grown.flush()
            os.fsync(grown.fileno())
    if total not in (None, have):
        raise _Broken("the connection ended too early")
    return digest.hexdigest()


def _open(request: Request) -> HTTPResponse:
    try:
        return cast(HTTPResponse, build_opener(_Redirects).open(request, timeout=TIMEOUT))
    except HTTPError as problem:
        reason = f"the server answered {problem.code} {problem.headers.get('X-Error-Message') or problem.reason}"
        problem.close()
        if problem.code not in PASSING:
            raise UserError(f"{request.full_url}: {reason}") from problem
        raise (_Changed if problem.code == 416 else _Broken)(reason) from problem
    except URLError as problem:
        raise _Unreachable(f"cannot be reached ({problem.reason})") from problem
    except (OSError, HTTPException) as problem:
        raise _Broken(f"no answer ({problem})") from problem


def _block(response: HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)  # what has come, so that a cut loses none of it
    except (OSError, HTTPException) as problem:
        raise _Broken(f"the connection broke ({problem})") from problem


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Where the body starts in the file (-1: cannot be told) and how many bytes the whole file has, as far as the server says."""
    if response.status == 206:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(?:(\d+)|\*)", response.headers.get("Content-Range", "").strip())
        return (int(stated[1]), int(stated[2]) if stated[2] else None) if stated else (-1, None)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _validator(response: HTTPResponse) -> str | None:
    tag: str = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):  # a weak tag promises the same meaning, not the same bytes
        return tag
    return response.headers.get("Last-Modified")


def _hub_parts(place: str) -> tuple[str, str | None]:
    parts = HUB_PLACE.fullmatch(place)
    if parts:
        repository, revision = parts["repository"], parts["revision"]
        # As on the hub, no "--" in names: the folder's name stands for one repository only.
        if all(NAME.fullmatch(part) for part in (*repository.split("/"), revision or "main")) and "--" not in repository:
            return repository, revision
    raise UsageError(f"{place!r} is not hf://owner/repository or hf://owner/repository@revision")


def _hub_files(place: str) -> tuple[str, list[_File]]:
    """The commit behind a place on the hub, and the files to take from it."""
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    repository, revision = _hub_parts(place)
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)  # the library reads it at its import only
    try:
        model = hub.model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
    except GatedRepoError as problem:
        raise UserError(f"{place}: access is granted on {hub.endpoint}/{repository}; then `hf auth login`") from problem
    except RepositoryNotFoundError as problem:
        raise UserError(f"{place}: no such model, or a private one and no `hf auth login`") from problem
    except RevisionNotFoundError as problem:
        raise UserError(f"{place}: the model has no revision {revision}") from problem
    except Exception as problem:  # its HTTP client's own errors (the client has changed before), or a strange answer
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise UserError(f"{place}: {hub.endpoint} gave no list of files ({reason})") from problem
    listed = {file.rfilename: file for file in model.siblings or []}
    for name in listed:
        if not _stays_inside(name):
            raise UserError(f"{place}: the unsafe file name {name!r}; nothing was downloaded")
    if "open_clip_config.json" in listed:  # such a repository often holds the same weights again for another library
        listed = {name: file for name, file in listed.items() if name.startswith("open_clip_") or name.endswith(BESIDE)}
    endings = ".safetensors" if any(name.endswith(".safetensors") for name in listed) else (".pth", ".bin")
    if not model.sha or not any(name.endswith(endings) for name in listed):
        raise UserError(f"{place}: no weights (.safetensors, .pth, .bin) in this repository")
    return model.sha, [
        _File(
            name,
            hf_hub_url(repository, name, revision=model.sha, endpoint=hub.endpoint),
            size=file.size,
            sha256=file.lfs.sha256 if file.lfs else None,
        )
        for name, file in listed.items()
        if name.endswith(endings) or (name.endswith(BESIDE) and name != ORIGIN)
    ]


def _stays_inside(name: str) -> bool:
    """Whether a name from outside names a file inside the folder it is put in, on every system."""
    parts = name.split("/")
    return name.isprintable() and not set(name) & set("\\:") and not any(part in ("", ".", "..") for part in parts)


def _checked(address: str) -> SplitResult:
    if not ADDRESS.fullmatch(address):
        raise UserError(f"{address!r} is not an http or https address")
    return urlsplit(address)


def _check_online(offline: bool, name: str) -> None:
    settings = [os.environ.get(setting, "") for setting in ("IMAGEBIND_OFFLINE", "HF_HUB_OFFLINE")]
    if offline or any(setting.lower() in ("1", "true", "yes", "on") for setting in settings):
        raise UserError(f"{name} is not on this machine, and this run is offline; with network: imagebind weights pull {name}")


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: {needed:,} bytes are needed and {free:,} are free")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder. Network errors do not get here, so an `OSError` is the disk's."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            yield
    except OSError as problem:
        raise UserError(f"{folder}: cannot be written: {problem.strerror or problem}") from problem


def _is_whole(folder: Path, address: str, sha256: str | None = None) -> bool:
    record = _read_record(folder / ORIGIN)
    return record.get("address") == address and all(
        (folder / name).is_file() and _size(folder / name) == stated["size"] and sha256 in (None, stated["sha256"])
        for name, stated in record["files"].items()
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_origin(folder: Path, about: Mapping[str, str], files: Mapping[str, Mapping[str, Any]]) -> None:
    record = {**about, "fetched": datetime.now(UTC).isoformat(timespec="seconds"), "files": files}
    temporary = folder / f"{ORIGIN}.partial"
    with open(temporary, "w") as file:
        json.dump(record, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / ORIGIN)


def _digest(path: Path) -> hashlib._Hash:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256")
