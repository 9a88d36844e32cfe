"""Fetch one file over HTTP: retry, continue where a download broke off, and move the file into place once it is complete and checked.

It grows as `NAME.partial` beside `NAME.partial.json`, which records its address and the SHA-256 of the part so far. A part is compared
with that record before it is continued, so that a damaged part never becomes a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from imagebind_cli.errors import UserError
from imagebind_cli.files import open_no_link, put_in_place, write_json
from imagebind_cli.printable import escaped
from imagebind_cli.weights.origin import PartRecord, file_hash, file_size, read_record

# Called with a file's name, the bytes received, and the bytes in all, None where the server does not say.
Progress = Callable[[str, int, int | None], None]

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each new attempt after a broken connection
BLOCK = 1 << 20
RECORDED = 1 << 26  # bytes between records of what has come; without a stated SHA-256, a kill loses no more
TIMEOUT = 60.0  # seconds without a byte
PASSING = {408, 416, 425, 429, 500, 502, 503, 504}  # answers worth another attempt
ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[!-~]*)?", re.ASCII)
PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml")  # how web pages begin
LOGIN = re.compile(r"(?<=//)[^/?#]*@")
SECRET = re.compile(r"([?&;][^=&#]*(?:token|sig|key|pass|secret|cred|auth|policy)[^=&#]*=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: its name in the folder, its address, and where known its bytes and SHA-256 in hex."""

    name: str
    address: str
    size: int | None = None
    sha256: str | None = None


class _Broken(Exception):
    """An attempt ended early; another may continue from what was received."""


class _Changed(_Broken):
    """What was received does not fit the server's file; another attempt starts over."""


class _Unreachable(_Broken):
    """There is no connection at all."""


def fetch_file(file: RemoteFile, folder: Path, headers: Mapping[str, str], progress: Progress) -> dict[str, Any]:
    """Fetch a file into a folder, in as many attempts as `PAUSES` allows.

    Returns:
        Its `size` and `sha256`, for the record.
    Raises:
        UserError: server or network at fault, wrong contents, or no room.
    """
    target, partial, sidecar = (folder / f"{file.name}{ending}" for ending in ("", ".partial", ".partial.json"))
    split_address(file.address)
    shown = public_address(file.address)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.sha256 and target.is_file() and file_hash(target) == file.sha256:  # from a run that ended before it wrote the record
        return {"size": file_size(target), "sha256": file.sha256}
    for attempt, pause in enumerate((*PAUSES, None)):
        try:
            sha256 = _receive(file, partial, sidecar, headers, progress)
            break
        except _Broken as problem:
            if isinstance(problem, _Changed):
                partial.unlink(missing_ok=True)
            if pause is None or (isinstance(problem, _Unreachable) and attempt == 0):  # no network: report it at once
                have, total = file_size(partial), read_record(sidecar, PartRecord).get("size") or "an unknown number of"
                kept = f"; {have} of {total} bytes are here, and the same command continues from there" if have else ""
                raise UserError(f"{shown}: {problem}{kept}") from problem
            time.sleep(pause)
    fault = f"SHA-256 is {sha256}, not {file.sha256} as it should be" if file.sha256 not in (None, sha256) else ""
    if not file.sha256:
        fault = _content_fault(partial, file.name)
    if fault:
        partial.unlink()
        sidecar.unlink()
        raise UserError(f"{shown}: {fault}; the received data was removed")
    put_in_place(partial, target)
    sidecar.unlink()
    return {"size": file_size(target), "sha256": sha256}


def _receive(file: RemoteFile, partial: Path, sidecar: Path, headers: Mapping[str, str], progress: Progress) -> str:
    """Make one attempt to complete `partial` from what was received, and return its SHA-256 in hex."""
    record = read_record(sidecar, PartRecord)
    validator = record.get("validator") if record.get("source") == _identity(file.address) else None
    # The rest may be added only if something shows that it belongs to this part: the server's validator, or the SHA-256 to come.
    have, digest = 0, hashlib.sha256()
    if validator or (file.sha256 and record.get("sha256") == file.sha256):
        have, digest = _checked_part(partial, record, file.sha256 is not None)
    if have and have == record["size"]:  # the last run ended just before the file was put in place
        return digest.hexdigest()
    asked = ({"Range": f"bytes={have}-"} if have else {}) | ({"If-Range": validator} if have and validator else {})
    with _open(Request(file.address, headers={"User-Agent": "imagebind", **headers, **asked})) as response:
        start, total = _extent(response)
        served = _validator(response)
        if start and (start != have or total not in (None, record["size"]) or (validator and served not in (None, validator))):
            raise _Changed("the file changed on the server")
        shown = public_address(file.address)
        if (encoding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise UserError(f"{shown}: the server sends it encoded ({public_address(encoding)}), not as it is")
        if None not in (file.size, total) and file.size != total:
            raise UserError(f"{shown}: the server offers {total} bytes, the hub lists {file.size}")
        if total is None:
            total = record["size"] if start else file.size
        if total is None and not file.sha256 and not response.chunked:
            raise UserError(f"{shown}: the server does not say how long the file is, so a truncated download could not be detected")
        check_room(partial.parent, (total or 0) - start)
        with open(partial, "ab" if start else "wb", opener=open_no_link) as grown:
            if not start:
                have, digest = 0, hashlib.sha256()
                record = {"source": _identity(file.address), "validator": served, "size": total, "sha256": file.sha256}
                write_json(sidecar, record)
            progress(file.name, have, total)
            recorded = have
            try:
                while block := _block(response):
                    grown.write(block)
                    digest.update(block)
                    have += len(block)
                    progress(file.name, have, total)
                    if have - recorded >= RECORDED:
                        _record_part(sidecar, record, grown, have, digest)
                        recorded = have
            finally:
                _record_part(sidecar, record, grown, have, digest)
    if total not in (None, have):
        raise _Broken("the connection ended too early")
    return digest.hexdigest()


def _record_part(sidecar: Path, record: PartRecord, grown: BinaryIO, have: int, digest: hashlib._Hash) -> None:
    """Record how much has come and its SHA-256, once it is on the disk."""
    grown.flush()
    os.fsync(grown.fileno())
    write_json(sidecar, record | {"part": {"size": have, "sha256": digest.hexdigest()}})


def _checked_part(partial: Path, record: PartRecord, keep_rest: bool) -> tuple[int, hashlib._Hash]:
    """Compare a part with its record. Returns how many of its bytes can be continued, and the hash of these.

    Args:
        keep_rest: whether bytes that came after the last record, before a kill, are kept, because the whole file's SHA-256 will be compared.
    """
    stated = record.get("part") or {"size": 0, "sha256": hashlib.sha256().hexdigest()}
    digest, nothing = hashlib.sha256(), (0, hashlib.sha256())
    if file_size(partial) < stated["size"]:
        return nothing
    with open(partial, "r+b", opener=open_no_link) as file:
        left = stated["size"]
        while left and (block := file.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
        if digest.hexdigest() != stated["sha256"]:
            return nothing
        if not keep_rest:
            file.truncate(stated["size"])
        while block := file.read(BLOCK):
            digest.update(block)
        return file.tell(), digest


def _content_fault(path: Path, name: str) -> str:
    """Return why a file is not what its name says, by its first bytes; "" where nothing speaks against it."""
    with open(path, "rb") as file:
        head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if (text.startswith(PAGES) or (text.startswith(b"<!--") and b"<html" in text)) and not name.endswith((".md", ".html")):
        return "was sent as an HTML page, such as a login or an error, instead of the file"
    if head.startswith(b"\x1f\x8b") and not name.endswith("gz"):
        return "was sent compressed with gzip, not as it is"
    if name.endswith(".json") and not text.startswith((b"{", b"[")):
        return "is not JSON"
    if name.endswith((".pth", ".pt", ".bin")) and not head.startswith((b"PK", b"\x80")):
        return "is not a weight file: it does not begin as one of PyTorch's"
    if name.endswith(".safetensors"):
        length = int.from_bytes(head[:8], "little")
        if head[8:9] != b"{" or length > file_size(path) - 8:
            return "is not a weight file: it does not begin as a safetensors file"
    return ""


class _Redirects(HTTPRedirectHandler):
    """Redirects that neither leave https for http nor take the token to another server."""

    def redirect_request(self, req: Request, *answer: Any, **named: Any) -> Request | None:
        following = super().redirect_request(req, *answer, **named)
        if following is not None:
            old, new = urlsplit(req.full_url), urlsplit(following.full_url)
            if new.scheme not in ("https", old.scheme):
                place = public_address(following.full_url)
                raise UserError(f"{public_address(req.full_url)}: redirected to {place}, which is not followed from {old.scheme}")
            if (old.scheme, old.netloc) != (new.scheme, new.netloc):
                following.remove_header("Authorization")
        return following

    def http_error_302(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except BaseException:
            fp.close()  # urllib leaves an answer open that leads nowhere
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


def _open(request: Request) -> HTTPResponse:
    try:
        return cast(HTTPResponse, build_opener(_Redirects).open(request, timeout=TIMEOUT))
    except HTTPError as problem:
        reason = f"the server answered {problem.code} {public_address(problem.headers.get('X-Error-Message') or problem.reason)}"
        problem.close()
        if problem.code not in PASSING:
            raise UserError(f"{public_address(request.full_url)}: {reason}") from problem
        raise (_Changed if problem.code == 416 else _Broken)(reason) from problem
    except URLError as problem:
        raise _Unreachable(f"cannot be reached ({public_address(str(problem.reason))})") from problem
    except (OSError, HTTPException, ValueError) as problem:  # ValueError: a redirect to what is not an address
        raise _Broken(f"no answer ({public_address(str(problem))})") from problem


def _block(response: HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)  # what has come, so that a broken connection loses none of it
    except (OSError, HTTPException) as problem:
        raise _Broken(f"the connection broke ({public_address(str(problem))})") from problem


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Return where the body starts in the file, -1 if that is unknown, and the bytes of the whole file, where the server gives them."""
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


def _identity(address: str) -> str:
    """Return an address for comparison in a file: without its secrets, but other secrets make another one."""
    shown = public_address(address)
    return shown if shown == address else f"{shown}#{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def split_address(address: str) -> SplitResult:
    """Split an address.

    Raises:
        UserError: it is not an http or https one.
    """
    if not ADDRESS.fullmatch(address):
        raise UserError(f"{public_address(address)!r} is not an http or https address")
    return urlsplit(address)


def public_address(text: str) -> str:
    """Return an address, or a text from a server, as it may be shown and recorded.

    It has at most 500 characters on one line, without passwords in addresses, and without the values of tokens and signatures.
    """
    return escaped(SECRET.sub(r"\1…", LOGIN.sub("…@", text))[:500])


def is_safe_name(name: str) -> bool:
    """Check that a name from outside is that of a file inside the folder it is put in, on every system."""
    parts = name.split("/")
    return name.isprintable() and not set(name) & set("\\:") and not any(part in ("", ".", "..") for part in parts)


def check_room(folder: Path, needed: int) -> None:
    """Raise a UserError if the disk has fewer bytes free than are needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: {needed:,} bytes are needed and {free:,} are free")
