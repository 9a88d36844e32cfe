"""Downloads against a real server on this machine that can be told to misbehave."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPMessage
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.weights import download, fetch, origin
from tests.site import COMMIT, Site, offer, serve, sha256

CONTENT = b"PK\x03\x04" + random.Random(0).randbytes(299_996)  # begins as a file of PyTorch does
OTHER = b"PK\x03\x04" + random.Random(1).randbytes(299_996)


@pytest.fixture
def site() -> Iterator[Site]:
    for site in serve():
        site.files["/a/model.pth"] = CONTENT
        yield site


@pytest.fixture
def other_site() -> Iterator[Site]:
    yield from serve()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("IMAGEBIND_", "HF_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IMAGEBIND_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "PAUSES", (0.0,) * 5)


def quiet(name: str, done: int, total: int | None) -> None:
    pass


def pull(site: Site, folder: Path, **options: Any) -> Path:
    return download.pull_address(f"{site.address}/a/model.pth", folder, progress=quiet, **options)


def cut_short(site: Site, folder: Path, have: int = 100_000, **options: Any) -> None:
    """Leave `have` bytes in the folder, as a run does whose connection breaks and does not come back."""
    site.cuts = [have]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "PAUSES", ())
        with pytest.raises(UserError):
            pull(site, folder, **options)
    assert (folder / "model.pth.partial").stat().st_size == have
    site.seen.clear()


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# Places


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.home() == Path(os.environ["IMAGEBIND_HOME"])
    assert not download.home().exists()
    monkeypatch.delenv("IMAGEBIND_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert download.home() == Path("/somewhere/imagebind")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/people/me")
    assert download.home() == Path("/people/me/.cache/imagebind")
    monkeypatch.delenv("HOME")
    assert download.home() == Path(os.path.expanduser("~")) / ".cache" / "imagebind"


def test_folder_of() -> None:
    assert download.folder_of("huge") == download.home() / "huge"
    assert download.folder_of("hf://me/clip-b.32") == download.home() / "hf" / "me--clip-b.32"
    assert download.folder_of("hf://me/clip@v1.0") == download.home() / "hf" / "me--clip@v1.0"


@pytest.mark.parametrize(
    "place",
    ["", "..", "a/b", "/etc", "a\\b", ".hidden", "a..b", "huge\n", "hf://", "hf://me", "hf://me/", "hf://../x", "hf://me/..",
     "hf://me/a/b", "hf://me/a@", "hf://me/a@b@c", "hf://me/a@../x", "hf://me/a@..", "hf://a--b/c", "hf://me/a b", "hf://me/a\\b",
     "hf://me/" + "x" * 300, "hf://mé/a"],
)  # fmt: skip
def test_folder_of_refuses(place: str) -> None:
    with pytest.raises(UserError):
        download.folder_of(place)


def test_pulled(site: Site) -> None:
    folder = download.folder_of("huge")
    assert download.pulled_folder("huge") is None
    cut_short(site, folder)
    assert download.pulled_folder("huge") is None
    pull(site, folder)
    assert download.pulled_folder("huge") == folder


def test_import_is_light() -> None:
    code = "import sys, imagebind_cli.weights.download; sys.exit(bool({'huggingface_hub', 'filelock', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# One file


def test_download(site: Site, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    address = f"{site.address}/a/model.pth"
    path = download.pull_address(address, tmp_path / "huge", progress=lambda *step: steps.append(step), sha256=sha256(CONTENT).upper())
    assert path == tmp_path / "huge" / "model.pth"
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == {"model.pth", "origin.json"}
    record = json.loads((path.parent / "origin.json").read_text())
    assert record.pop("fetched").endswith("+00:00")
    assert record == {"address": address, "files": {"model.pth": {"size": len(CONTENT), "sha256": sha256(CONTENT)}}}
    assert steps[0] == ("model.pth", 0, len(CONTENT))
    assert steps[-1] == ("model.pth", len(CONTENT), len(CONTENT))
    assert [step[1] for step in steps] == sorted(step[1] for step in steps)
    assert site.ranges_seen() == [None]


def test_whole_file_needs_no_network(site: Site, tmp_path: Path) -> None:
    path = pull(site, tmp_path)
    assert pull(site, tmp_path) == path
    assert pull(site, tmp_path, sha256=sha256(CONTENT)) == path
    assert len(site.seen) == 1


def test_file_of_wrong_size_is_fetched_again(site: Site, tmp_path: Path) -> None:
    path = pull(site, tmp_path)
    path.write_bytes(CONTENT[:-1])
    pull(site, tmp_path)
    assert path.read_bytes() == CONTENT


def test_file_from_another_address_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.files["/b/model.pth"] = OTHER
    pull(site, tmp_path)
    path = download.pull_address(f"{site.address}/b/model.pth", tmp_path, progress=quiet)
    assert path.read_bytes() == OTHER
    assert origin.check_origin(tmp_path) == []


def test_file_with_another_sha256_is_fetched_again(site: Site, tmp_path: Path) -> None:
    pull(site, tmp_path)
    site.files["/a/model.pth"] = OTHER
    assert pull(site, tmp_path, sha256=sha256(OTHER)).read_bytes() == OTHER
    assert origin.check_origin(tmp_path) == []


def test_file_that_lost_its_record_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(CONTENT)
    pull(site, tmp_path, sha256=sha256(CONTENT))
    assert site.seen == []
    assert origin.check_origin(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    ["ftp://127.0.0.1/a", "file:///etc/passwd", "model.pth", "http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/a/..",
     "http://127.0.0.1:1/a/%2e%2e", "http://127.0.0.1:1/a%5cb", "http://127.0.0.1:1/origin.json", "http://127.0.0.1:x/a",
     "http://127.0.0.1:1/a b", "http://127.0.0.1:1/ä", "http://[1/a", "http://me:secret@127.0.0.1:1/a"],
)  # fmt: skip
def test_bad_address(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not an http or https address|does not end in a file's name"):
        download.pull_address(address, tmp_path / "huge", progress=quiet)
    assert not (tmp_path / "huge").exists()


def test_not_found(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answered 404 Not Found"):
        download.pull_address(f"{site.address}/a/none.pth", tmp_path, progress=quiet)
    assert len(site.seen) == 1
    assert names_in(tmp_path) == set()


def test_unreachable_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSES", (1000.0,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        with pytest.raises(UserError, match="cannot be reached"):
            download.pull_address(f"http://127.0.0.1:{taken.getsockname()[1]}/model.pth", tmp_path, progress=quiet)


def test_passing_trouble_is_waited_out(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch, "PAUSES", (1.0, 2.0, 3.0))
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    site.passing = [503, 429]
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert waits == [1.0, 2.0]


def test_no_room(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 1))
    with pytest.raises(UserError, match="300,000 bytes are needed and 299,999 are free"):
        pull(site, tmp_path)
    assert names_in(tmp_path) == set()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT)))
    pull(site, tmp_path)


def test_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        pull(site, tmp_path / "file" / "huge")


def test_wrong_sha256(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        pull(site, tmp_path, sha256=sha256(OTHER))
    assert sha256(CONTENT) in str(caught.value)
    assert sha256(OTHER) in str(caught.value)
    assert names_in(tmp_path) == set()


def test_redirect(site: Site, other_site: Site, tmp_path: Path) -> None:
    other_site.files["/stored/7f"] = OTHER
    site.answers["/a/model.pth"] = (302, {"Location": f"{other_site.address}/stored/7f"}, b"")
    path = pull(site, tmp_path)
    assert path.name == "model.pth"
    assert path.read_bytes() == OTHER


def test_redirect_resumes(site: Site, other_site: Site, tmp_path: Path) -> None:
    other_site.files["/stored/7f"] = CONTENT
    other_site.cuts = [1000]
    site.answers["/a/model.pth"] = (302, {"Location": f"{other_site.address}/stored/7f"}, b"")
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert other_site.ranges_seen() == [None, "bytes=1000-"]


@pytest.mark.parametrize(("new", "refused"), [("http://b/x", True), ("ftp://b/x", True), ("https://b/x", False)])
def test_redirect_from_https(new: str, refused: bool) -> None:
    def redirect() -> Request | None:
        return fetch._Redirects().redirect_request(Request("https://a/x"), BytesIO(), 302, "Found", HTTPMessage(), new)

    if refused:
        with pytest.raises(UserError, match="not followed from https"):
            redirect()
    else:
        following = redirect()
        assert following is not None
        assert following.full_url == new


# Going on


def test_resume_asks_for_the_rest_only(site: Site, tmp_path: Path) -> None:
    cut_short(site, tmp_path)
    assert pull(site, tmp_path).read_bytes() == CONTENT
    (seen,) = site.seen
    assert seen.headers["Range"] == "bytes=100000-"
    assert seen.headers["If-Range"] == f'"{sha256(CONTENT)[:8]}"'
    assert seen.sent == len(CONTENT) - 100_000
    assert origin.check_origin(tmp_path) == []


def test_resume_needs_room_for_the_rest_only(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_short(site, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 100_000))
    assert pull(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("options", [{}, {"sha256": sha256(CONTENT)}], ids=["unknown", "known"])
def test_damaged_part_is_not_continued(site: Site, tmp_path: Path, options: dict[str, str]) -> None:
    cut_short(site, tmp_path)
    partial = tmp_path / "model.pth.partial"
    partial.write_bytes(b"?" + partial.read_bytes()[1:])
    assert pull(site, tmp_path, **options).read_bytes() == CONTENT
    assert site.ranges_seen() == [None]


def test_server_without_ranges(site: Site, tmp_path: Path) -> None:
    cut_short(site, tmp_path)
    site.ranges = False
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_seen() == ["bytes=100000-"]
    assert origin.check_origin(tmp_path) == []


def test_content_changed_between(site: Site, tmp_path: Path) -> None:
    cut_short(site, tmp_path)
    site.files["/a/model.pth"] = OTHER
    assert pull(site, tmp_path).read_bytes() == OTHER
    assert len(site.seen) == 1
    assert origin.check_origin(tmp_path) == []


@pytest.mark.parametrize("new", [OTHER, CONTENT + OTHER, OTHER[:50_000], OTHER[:100_000]], ids=["same", "longer", "shorter", "at"])
def test_content_changed_and_if_range_ignored(site: Site, tmp_path: Path, new: bytes) -> None:
    cut_short(site, tmp_path)
    site.files["/a/model.pth"] = new
    site.if_range = False
    assert pull(site, tmp_path).read_bytes() == new
    assert site.ranges_seen() == ["bytes=100000-", None]
    assert origin.check_origin(tmp_path) == []


def test_content_changed_during_the_download(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000]
    site.changes = {"/a/model.pth": OTHER}
    assert pull(site, tmp_path).read_bytes() == OTHER


def test_range_from_elsewhere_is_not_added(site: Site, tmp_path: Path) -> None:
    cut_short(site, tmp_path)
    site.shift = 1
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_seen() == ["bytes=100000-", None]


@pytest.mark.parametrize("known", [False, True])
def test_without_validator_only_a_sha256_allows_to_go_on(site: Site, tmp_path: Path, known: bool) -> None:
    site.validators = False
    options = {"sha256": sha256(CONTENT)} if known else {}
    cut_short(site, tmp_path, **options)
    assert pull(site, tmp_path, **options).read_bytes() == CONTENT
    assert site.ranges_seen() == ["bytes=100000-" if known else None]


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": '"a"', "Last-Modified": "then"}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": "then"}, "then"),
        ({"ETag": 'W/"a"'}, None),
    ],
)
def test_validator(headers: dict[str, str], validator: str | None) -> None:
    class Response:
        pass

    response: Any = Response()
    response.headers = headers
    assert fetch._validator(response) == validator


def test_broken_connection_is_resumed(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 50_000, 1, 0]
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_seen() == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-", "bytes=150001-"]
    assert sum(seen.sent for seen in site.seen) == len(CONTENT)


def test_reset_connection_is_resumed(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000]
    site.reset = True
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert len(site.seen) == 2


def test_truncated_for_good_then_finished(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match="100000 of 300000 bytes are here, and the same command continues from there"):
        pull(site, tmp_path)
    assert len(site.seen) == 6
    assert names_in(tmp_path) == {"model.pth.partial", "model.pth.partial.json"}
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_seen()[-1] == "bytes=100000-"


def test_promised_more_than_there_is(site: Site, tmp_path: Path) -> None:
    site.longer = 10
    with pytest.raises(UserError):
        pull(site, tmp_path)
    assert "model.pth" not in names_in(tmp_path)
    assert "origin.json" not in names_in(tmp_path)


def test_chunked(site: Site, tmp_path: Path) -> None:
    site.chunked = True
    assert pull(site, tmp_path).read_bytes() == CONTENT


def test_chunked_and_cut(site: Site, tmp_path: Path) -> None:
    site.chunked = True
    site.cuts = [100_000]
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert len(site.seen) > 1


@pytest.mark.parametrize("known", [False, True])
def test_without_length_only_a_sha256_allows_to_begin(site: Site, tmp_path: Path, known: bool) -> None:
    site.length = False
    if known:
        assert pull(site, tmp_path, sha256=sha256(CONTENT)).read_bytes() == CONTENT
    else:
        with pytest.raises(UserError, match="does not say how long"):
            pull(site, tmp_path)
        assert names_in(tmp_path) == set()


def test_ended_just_before_the_renaming(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "put_in_place", fail)
        with pytest.raises(UserError, match="No space left"):
            pull(site, tmp_path)
    assert names_in(tmp_path) == {"model.pth.partial", "model.pth.partial.json"}
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert len(site.seen) == 1
    assert origin.check_origin(tmp_path) == []


# Processes

CHILD = """
import sys
from pathlib import Path
from imagebind_cli.weights.download import pull_address
print("started", flush=True)
pull_address(sys.argv[1], Path(sys.argv[2]), progress=lambda *_: None)
"""


def start_child(site: Site, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, f"{site.address}/a/model.pth", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    return child


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_in_the_middle(site: Site, tmp_path: Path) -> None:
    site.hold_at = 200_000
    partial = tmp_path / "model.pth.partial"
    with start_child(site, tmp_path) as child:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 0)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    have = partial.stat().st_size
    assert 0 < have <= 200_000
    assert "origin.json" not in names_in(tmp_path)
    site.hold_at = None
    site.released.set()
    assert pull(site, tmp_path, sha256=sha256(CONTENT)).read_bytes() == CONTENT
    assert site.ranges_seen() == [None, f"bytes={have}-"]


def test_two_processes_download_once(site: Site, tmp_path: Path) -> None:
    site.hold_at = 200_000
    with start_child(site, tmp_path) as first:
        wait_for(lambda: site.seen)
        with start_child(site, tmp_path) as second:
            time.sleep(0.5)  # enough for a request, were it not for the lock
            assert second.poll() is None
            site.released.set()
    assert (first.returncode, second.returncode) == (0, 0)
    assert [seen.sent for seen in site.seen] == [len(CONTENT)]
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


# Environment


def test_mirror(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/mirror/b/model.pth"] = OTHER
    monkeypatch.setenv("IMAGEBIND_MIRROR", f"{site.address}/mirror/")
    address = "https://weights.invalid/b/model.pth?version=1"
    assert download.pull_address(address, tmp_path, progress=quiet).read_bytes() == OTHER
    record = json.loads((tmp_path / "origin.json").read_text())
    assert record["address"] == address
    assert record["mirror"] == f"{site.address}/mirror/b/model.pth?version=1"
    monkeypatch.delenv("IMAGEBIND_MIRROR")
    download.pull_address(address, tmp_path, progress=quiet)  # whole, wherever it came from
    assert len(site.seen) == 1


def test_mirror_that_is_no_address(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_MIRROR", "/srv/mirror")
    with pytest.raises(UserError, match=r"'/srv/mirror/a/model\.pth' is not an http"):
        pull(site, tmp_path)


def test_another_mirror_goes_on_where_the_sha256_is_known(
    site: Site, other_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_site.files["/a/model.pth"] = CONTENT
    cut_short(site, tmp_path, sha256=sha256(CONTENT))
    monkeypatch.setenv("IMAGEBIND_MIRROR", other_site.address)
    assert pull(site, tmp_path, sha256=sha256(CONTENT)).read_bytes() == CONTENT
    assert other_site.ranges_seen() == ["bytes=100000-"]


def test_another_mirror_with_a_file_of_another_size(site: Site, other_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_site.files["/a/model.pth"] = CONTENT + b"more"
    cut_short(site, tmp_path, sha256=sha256(CONTENT))
    monkeypatch.setenv("IMAGEBIND_MIRROR", other_site.address)
    with pytest.raises(UserError, match="SHA-256"):
        pull(site, tmp_path, sha256=sha256(CONTENT))
    assert other_site.ranges_seen() == ["bytes=100000-", None]


def test_another_mirror_starts_over_where_it_is_not(site: Site, other_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_site.files["/a/model.pth"] = OTHER
    cut_short(site, tmp_path)
    monkeypatch.setenv("IMAGEBIND_MIRROR", other_site.address)
    assert pull(site, tmp_path).read_bytes() == OTHER
    assert other_site.ranges_seen() == [None]


@pytest.mark.parametrize("setting", [None, "IMAGEBIND_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(site: Site, monkeypatch: pytest.MonkeyPatch, setting: str | None) -> None:
    folder = download.folder_of("huge")
    pull(site, folder)
    if setting:
        monkeypatch.setenv(setting, "1")
    offline = setting is None
    assert pull(site, folder, offline=offline).read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"imagebind weights pull base$"):
        pull(site, download.folder_of("base"), offline=offline)
    with pytest.raises(UserError, match=r"imagebind weights pull hf://me/clip$"):
        download.pull_hub("hf://me/clip", progress=quiet, offline=offline)
    assert len(site.seen) == 1
    assert not download.folder_of("base").exists()


def test_offline_set_to_no(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBIND_OFFLINE", "0")
    assert pull(site, tmp_path).read_bytes() == CONTENT


def test_proxy(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.address)
    address = "http://weights.invalid/a/model.pth"
    assert download.pull_address(address, tmp_path, progress=quiet).read_bytes() == CONTENT
    assert [seen.path for seen in site.seen] == [address]


# Verifying


def test_verify(site: Site, tmp_path: Path) -> None:
    path = pull(site, tmp_path)
    assert origin.check_origin(tmp_path) == []
    flipped = bytearray(CONTENT)
    flipped[150_000] ^= 1
    path.write_bytes(flipped)
    assert origin.check_origin(tmp_path) == [f"model.pth: SHA-256 {sha256(bytes(flipped))}, not {sha256(CONTENT)}"]
    path.write_bytes(CONTENT[:-1])
    assert origin.check_origin(tmp_path) == ["model.pth: 299999 bytes, not 300000"]
    path.unlink()
    assert origin.check_origin(tmp_path) == ["model.pth: missing"]
    (tmp_path / "origin.json").unlink()
    with pytest.raises(UserError, match=r"no origin\.json"):
        origin.check_origin(tmp_path)


# What came


@pytest.mark.parametrize("ends", [0, 1000])
def test_what_came_after_the_last_record_is_kept_only_where_a_sha256_will_tell(site: Site, tmp_path: Path, ends: int) -> None:
    """As after a kill or a power cut, which may leave zeros at the end."""
    for known in (False, True):
        cut_short(site, tmp_path)
        with open(tmp_path / "model.pth.partial", "ab") as partial:
            partial.write(CONTENT[100_000 : 100_000 + ends])
        options = {"sha256": sha256(CONTENT)} if known else {}
        assert pull(site, tmp_path, **options).read_bytes() == CONTENT
        assert site.ranges_seen() == [f"bytes={100_000 + (ends if known else 0)}-"]
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_part_without_its_record_is_started_over(site: Site, tmp_path: Path) -> None:
    cut_short(site, tmp_path)
    sidecar = tmp_path / "model.pth.partial.json"
    sidecar.write_text(json.dumps({key: value for key, value in json.loads(sidecar.read_text()).items() if key != "part"}))
    assert pull(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges_seen() == [None]


SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("model.pth", b"<!DOCTYPE html><title>Log in</title>", "was sent as an HTML page"),
        ("model.safetensors", b"\n <HTML>", "was sent as an HTML page"),
        ("model.pth", b"\x1f\x8b" + CONTENT, "was sent compressed with gzip"),
        ("model.pth", b"version https://git-lfs.github.com/spec/v1", "does not begin as one of PyTorch's"),
        ("model.safetensors", b"\xff" * 100, "does not begin as a safetensors file"),
        ("model.safetensors", (3).to_bytes(8, "little") + b"{}", "does not begin as a safetensors file"),
        ("model.bin", b"", "does not begin as one of PyTorch's"),
        ("merges.txt", b"<!-- portal --> <html>", "was sent as an HTML page"),
        ("merges.txt", b'<?xml version="1.0"?><Error>', "was sent as an HTML page"),
        ("config.json", b"<body>", "was sent as an HTML page"),
        ("config.json", b"not found", "is not JSON"),
        ("config.json", b' {"a": 1}', ""),
        ("merges.txt", b"<|startoftext|>", ""),
        ("model.pth", b"\x80\x02pickle", ""),
        ("model.safetensors", SAFETENSORS, ""),
        ("model.dat", b"anything", ""),
    ],
)
def test_a_file_must_begin_as_its_name_says(site: Site, tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    site.files[f"/a/{name}"] = content
    address = f"{site.address}/a/{name}"
    if not fault:
        assert download.pull_address(address, tmp_path, progress=quiet).read_bytes() == content
        return
    with pytest.raises(UserError, match=fault):
        download.pull_address(address, tmp_path, progress=quiet)
    assert names_in(tmp_path) == set()


def test_an_encoded_body_is_refused(site: Site, tmp_path: Path) -> None:
    site.answers["/a/model.pth"] = (200, {"Content-Encoding": "gzip"}, CONTENT)
    with pytest.raises(UserError, match=r"the server sends it encoded \(gzip\)"):
        pull(site, tmp_path)
    assert names_in(tmp_path) == set()
    assert site.seen[0].headers["Accept-Encoding"] == "identity"


# Secrets, and what servers say


def test_tokens_are_in_no_message_and_no_record(site: Site, other_site: Site, tmp_path: Path) -> None:
    signed = f"{other_site.address}/stored/7f?X-Amz-Signature=hidden&part=1"
    site.answers["/a/model.pth"] = (302, {"Location": signed}, b"")
    address = f"{site.address}/a/model.pth?token=hidden&version=1"
    for reached in (False, True):
        if reached:
            other_site.files["/stored/7f"] = CONTENT
            download.pull_address(address, tmp_path, progress=quiet)
            download.pull_address(address, tmp_path, progress=quiet)  # it is there
            assert len(other_site.seen) == 2
            assert json.loads((tmp_path / "origin.json").read_text())["address"] == f"{site.address}/a/model.pth?token=…&version=1"
        else:
            with pytest.raises(UserError, match=r"model\.pth\?token=…&version=1: the server answered 404") as caught:
                download.pull_address(address, tmp_path, progress=quiet)
            assert "hidden" not in str(caught.value)
        assert all(b"hidden" not in path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".json")


def test_tokens_are_in_no_part_that_is_left(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.cuts = [100_000]
    monkeypatch.setattr(fetch, "PAUSES", ())
    for token in ("hidden", "hidden", "another"):
        with pytest.raises(UserError, match="bytes are here") as caught:
            site.cuts = [1000]
            download.pull_address(f"{site.address}/a/model.pth?token={token}", tmp_path, progress=quiet)
        assert token not in str(caught.value)
        assert token not in (tmp_path / "model.pth.partial.json").read_text()
    assert site.ranges_seen() == [None, "bytes=1000-", None]  # what another token gives may be another file


@pytest.mark.parametrize("host", ["me:hidden@127.0.0.1:1", "me:hidden@127.0.0.1:x", "nowhere\x1b[2J", "[", ""])
def test_a_redirect_to_nowhere_shows_no_secrets(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(fetch, "PAUSES", ())
    site.answers["/a/model.pth"] = (302, {"Location": f"http://{host}/b?token=hidden&part=1"}, b"")
    with pytest.raises(UserError) as caught:
        pull(site, tmp_path)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_password_of_a_hub_is_in_no_message(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address.replace("//", "//me:hidden@"))
    for status, code in ((500, ""), (403, "GatedRepo")):
        hub.answers["/api/models/me/clip/revision/v1"] = (status, {"X-Error-Code": code}, b"")
        with pytest.raises(UserError) as caught:
            download.pull_hub("hf://me/clip@v1", progress=quiet)
        assert "hidden" not in str(caught.value)
        assert "…@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("address", ["http://me:hidden@127.0.0.1:1/a", "https://hidden@a b/model.pth", "http://me:hidden@h/a?token=hidden"])
def test_passwords_are_in_no_message(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an http or https address") as caught:
        download.pull_address(address, tmp_path, progress=quiet)
    assert "hidden" not in str(caught.value)


def test_control_characters_of_a_server_are_escaped(site: Site, tmp_path: Path) -> None:
    site.answers["/a/model.pth"] = (403, {"X-Error-Message": "no\x1b[2Jway\x07"}, b"")
    with pytest.raises(UserError) as caught:
        pull(site, tmp_path)
    assert str(caught.value).endswith("the server answered 403 no\\x1b[2Jway\\x07")


# The hub


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site as a hub with the model `me/clip`. HF_ENDPOINT is set after the library was imported."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", site.address + "/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    offer(site, {"model.safetensors": CONTENT, "config.json": b"{}", "pytorch_model.bin": OTHER, "README.md": b"# Clip"})
    yield site
    huggingface_hub.close_session()


def fetched(site: Site) -> list[str]:
    """The paths of the files that were asked for at the hub."""
    return [seen.path for seen in site.seen if "/resolve/" in seen.path]


def test_hub(hub: Site) -> None:
    steps: list[tuple[str, int, int | None]] = []
    folder = download.pull_hub("hf://me/clip", progress=lambda *step: steps.append(step))
    assert folder == download.home() / "hf" / "me--clip"
    assert names_in(folder) == {"model.safetensors", "config.json", "README.md", "origin.json"}
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    record = json.loads((folder / "origin.json").read_text())
    assert (record["address"], record["revision"]) == ("hf://me/clip", COMMIT)
    assert record["files"]["config.json"] == {"size": 2, "sha256": sha256(b"{}")}
    assert origin.check_origin(folder) == []
    assert ("model.safetensors", len(CONTENT), len(CONTENT)) in steps
    assert hub.seen[0].path == "/api/models/me/clip?blobs=true"
    assert {seen.headers["Authorization"] for seen in hub.seen} == {"Bearer hf_secret"}
    assert all(path.startswith(f"/me/clip/resolve/{COMMIT}/") for path in fetched(hub))
    asked = len(hub.seen)
    assert download.pull_hub("hf://me/clip", progress=quiet, offline=True) == folder
    assert download.pull_hub("hf://me/clip", progress=quiet) == folder
    assert len(hub.seen) == asked


def test_hub_revision(hub: Site) -> None:
    offer(hub, {"model.safetensors": OTHER}, revision="v1")
    folder = download.pull_hub("hf://me/clip@v1", progress=quiet)
    assert folder.name == "me--clip@v1"
    assert hub.seen[0].path == "/api/models/me/clip/revision/v1?blobs=true"
    assert (folder / "model.safetensors").read_bytes() == OTHER
    assert download.pulled_folder("hf://me/clip") is None


def test_hub_takes_pickles_only_where_it_must(hub: Site) -> None:
    offer(
        hub,
        {"part/a.bin": CONTENT, "b.pth": OTHER, "c.onnx": OTHER, "LICENSE": b"free", "merges.txt": b"a b", "origin.json": b"{}"},
    )
    folder = download.pull_hub("hf://me/clip", progress=quiet)
    assert names_in(folder) == {"part/a.bin", "b.pth", "LICENSE", "merges.txt", "origin.json"}
    assert origin.check_origin(folder) == []


def test_hub_takes_openclips_own_weights_only(hub: Site) -> None:
    offer(hub, {"open_clip_model.safetensors": CONTENT, "open_clip_config.json": b"{}", "model.safetensors": OTHER, "config.json": b"{}"})
    folder = download.pull_hub("hf://me/clip", progress=quiet)
    assert names_in(folder) == {"open_clip_model.safetensors", "open_clip_config.json", "config.json", "origin.json"}


def test_hub_takes_only_the_model_that_transformers_wrote(hub: Site) -> None:
    parts = {"pytorch_model-00001-of-00002.bin": CONTENT, "pytorch_model-00002-of-00002.bin": OTHER, "pytorch_model.bin.index.json": b"{}"}
    others = {"optimizer.bin": CONTENT, "adapter_model.bin": OTHER, "unet/pytorch_model.bin": OTHER, "checkpoint.pth": OTHER}
    offer(hub, parts | others)
    assert names_in(download.pull_hub("hf://me/clip", progress=quiet)) == {*parts, "origin.json"}
    offer(hub, {"model.safetensors": CONTENT, "adapter_model.safetensors": OTHER} | parts | others, revision="v1")
    folder = download.pull_hub("hf://me/clip@v1", progress=quiet)
    assert names_in(folder) == {"model.safetensors", "pytorch_model.bin.index.json", "origin.json"}


def test_hub_without_weights(hub: Site) -> None:
    offer(hub, {"config.json": b"{}"})
    with pytest.raises(UserError, match="no weights"):
        download.pull_hub("hf://me/clip", progress=quiet)


@pytest.mark.parametrize("name", ["../evil", "/evil.json", "a/../../evil.json", "a\\evil.json", "C:evil.json", "a//b.json", "a\nb.json"])
def test_hub_with_a_malicious_name(hub: Site, name: str) -> None:
    offer(hub, {"model.safetensors": CONTENT, name: b"evil"})
    with pytest.raises(UserError, match="unsafe file name"):
        download.pull_hub("hf://me/clip", progress=quiet)
    assert fetched(hub) == []
    assert {path.name for path in download.home().rglob("*") if path.is_file()} <= {"me--clip.lock"}


def test_hub_with_a_wrong_sha256(hub: Site) -> None:
    lfs = {"size": len(CONTENT), "sha256": sha256(OTHER), "pointerSize": 134}
    offer(hub, {"model.safetensors": CONTENT, "config.json": b"{}"}, model={"lfs": lfs})
    with pytest.raises(UserError, match=sha256(OTHER)):
        download.pull_hub("hf://me/clip", progress=quiet)
    assert download.pulled_folder("hf://me/clip") is None


def test_hub_with_a_wrong_size(hub: Site) -> None:
    offer(hub, {"model.safetensors": CONTENT, "config.json": b"{}"}, config={"size": 3})
    with pytest.raises(UserError, match="offers 2 bytes, the hub lists 3"):
        download.pull_hub("hf://me/clip", progress=quiet)
    assert download.pulled_folder("hf://me/clip") is None


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "no such model, or a private one"),
        (403, "GatedRepo", "access is granted on"),
        (404, "RevisionNotFound", "has no revision v1"),
        (500, "", "gave no list of files"),
        (200, "", "gave no list of files"),
    ],
)
def test_hub_that_refuses(hub: Site, status: int, code: str, message: str) -> None:
    hub.answers["/api/models/me/clip/revision/v1"] = (status, {"X-Error-Code": code}, b"<html>")
    with pytest.raises(UserError, match=message) as caught:
        download.pull_hub("hf://me/clip@v1", progress=quiet)
    assert "\n" not in str(caught.value)


def test_hub_that_refuses_the_files(hub: Site) -> None:
    refusal = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model me/clip is restricted."}
    hub.answers[f"/me/clip/resolve/{COMMIT}/model.safetensors"] = (403, refusal, b"")
    with pytest.raises(UserError, match=r"answered 403 Access to model me/clip is restricted\."):
        download.pull_hub("hf://me/clip", progress=quiet)


def test_hub_unreachable(hub: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UserError, match="gave no list of files"):
            download.pull_hub("hf://me/clip", progress=quiet)


def test_token_stays_with_the_hub(hub: Site, other_site: Site) -> None:
    weights = f"/me/clip/resolve/{COMMIT}/model.safetensors"
    hub.answers[weights] = (302, {"Location": "/moved"}, b"")
    hub.answers["/moved"] = (302, {"Location": f"{other_site.address}/stored/7f"}, b"")
    other_site.files["/stored/7f"] = CONTENT
    folder = download.pull_hub("hf://me/clip", progress=quiet)
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert [seen.headers["Authorization"] for seen in hub.seen if seen.path == "/moved"] == ["Bearer hf_secret"]
    assert [seen.headers["Authorization"] for seen in other_site.seen] == [None]


def test_hub_is_recorded_only_when_all_is_there(hub: Site) -> None:
    readme = f"/me/clip/resolve/{COMMIT}/README.md"
    text = hub.files.pop(readme)
    with pytest.raises(UserError, match="404"):
        download.pull_hub("hf://me/clip", progress=quiet)
    assert download.pulled_folder("hf://me/clip") is None
    hub.files[readme] = text
    hub.seen.clear()
    folder = download.pull_hub("hf://me/clip", progress=quiet)
    assert download.pulled_folder("hf://me/clip") == folder
    assert not any("safetensors" in path for path in fetched(hub))  # its SHA-256 was known and found right
    assert origin.check_origin(folder) == []


def test_hub_needs_room_for_all(hub: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300_007))
    with pytest.raises(UserError, match="300,008 bytes are needed"):  # 300,000 of weights, 2 of JSON, 6 of README
        download.pull_hub("hf://me/clip", progress=quiet)
    assert fetched(hub) == []


def test_hub_resumes_and_needs_room_for_the_rest_only(hub: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.cuts = [100_000]
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "PAUSES", ())
        with pytest.raises(UserError, match="100000 of 300000 bytes are here"):
            download.pull_hub("hf://me/clip", progress=quiet)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200_008))
    folder = download.pull_hub("hf://me/clip", progress=quiet)
    assert "bytes=100000-" in hub.ranges_seen()
    assert origin.check_origin(folder) == []
