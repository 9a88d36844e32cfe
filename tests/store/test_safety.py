"""Stores that are killed, run out of disk, are read while they are written, and are wanted by two at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.store import FORMATS, Row, Stamp, Store, open_store, writer
from imagebind_cli.store_formats import GROWING

DIM = 6
MADE = {"model": "m", "weights": "0123", "modality": "audio", "dim": DIM, "pool": "none", "version": "1"}


def item(number: int, windows: int = 1, version: int = 0) -> list[Row]:
    """An item whose vectors can be told from its number."""
    vectors = np.random.default_rng([number, version]).standard_normal((windows, DIM)).astype(np.float32)
    spans = [(float(window), window + 1.0) if windows > 1 else None for window in range(windows)]
    stamp = Stamp(size=number, mtime=version)
    return [Row(str(number), vector, span, windows, stamp=stamp) for vector, span in zip(vectors, spans, strict=True)]


def rows_of(path: Path) -> list[tuple[str, bytes]]:
    """What a reader sees."""
    reader = open_store(path)
    return list(zip(reader.ids, map(np.ndarray.tobytes, reader.vectors()), strict=True))


def wanted(*items: list[Row]) -> list[tuple[str, bytes]]:
    return [(row.id, row.vector.tobytes()) for rows in items for row in rows]


# A crash at every step of a write


class Crashed(BaseException):
    """The process is gone from here on."""


@dataclass
class Disk:
    """The system's calls that change files, of which one does not return."""

    calls_left: int
    torn: bool

    def call(self, real: Callable[..., Any], *arguments: Any) -> Any:
        self.calls_left -= 1
        if self.calls_left >= 0:
            return real(*arguments)
        if self.torn and real is PWRITE:
            file, data, place = arguments
            real(file, data[: len(data) // 2], place)
        raise Crashed


PWRITE = os.pwrite
CALLS = ("pwrite", "ftruncate", "fsync", "replace", "unlink")


def crash_while(work: Callable[[], None], disk: Disk, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether some work got to its end before the disk's calls ran out."""
    with monkeypatch.context() as patch:
        for name in CALLS:
            real = getattr(os, name)
            patch.setattr(os, name, lambda *arguments, real=real: disk.call(real, *arguments))
        try:
            work()
        except Crashed:
            return False
    return True


def copied(path: Path, name: str) -> Path:
    """The store's files in a folder of their own."""
    folder = path.parent.parent / name
    shutil.copytree(path.parent, folder)
    return folder / path.name


@pytest.fixture(params=GROWING)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store of three items, of which one has windows."""
    (tmp_path / "base").mkdir()
    path = tmp_path / "base" / f"store{request.param}"
    with Store(path, MADE) as new:
        for rows in (item(0), item(1, windows=3), item(2)):
            new.append(rows)
    return path


BEFORE = (item(0), item(1, windows=3), item(2))
ADDED = (item(3), item(1, windows=2, version=1), item(4, windows=2))
AFTER = (item(0), item(2), *ADDED)  # item 1 was embedded again


@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_at_any_step_leaves_the_rows_before_or_after(store: Path, torn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for step in range(1000):
        path = copied(store, f"{step}")
        opened = Store(path, MADE)

        def write(opened: Store = opened) -> None:
            for rows in ADDED:
                opened.append(rows)
            opened.__exit__(None, None, None)

        finished = crash_while(write, Disk(step, torn), monkeypatch)
        if not finished:
            with suppress(OSError):
                opened.format.release()  # as the system does for a process that is gone
        states.append(rows_of(path))  # a reader comes first
        with Store(path, MADE) as again:
            for rows in ADDED:
                if again.stamp(rows[0].id) != rows[0].stamp:
                    again.append(rows)
        assert sorted(rows_of(path)) == sorted(wanted(*AFTER))
        shutil.rmtree(path.parent)
        if finished:
            break
    assert len(states) > 2
    in_parts = [wanted(*BEFORE), wanted(*BEFORE, item(3)), wanted(item(0), item(2), *ADDED[:2]), wanted(*AFTER)]
    assert [state for state in states if state not in (in_parts if store.suffix in (".npy", ".jsonl") else in_parts[::3])] == []
    assert states[0] in in_parts[:3]
    assert states[-1] == wanted(*AFTER)


def test_a_crash_while_a_crash_is_undone_harms_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(200):
        path = copied(store, f"{step}")
        opened = Store(path, MADE)
        opened.append([row for number in range(3, 30) for row in item(number)])
        crash_while(lambda opened=opened: opened._flush(), Disk(6, torn=True), monkeypatch)  # type: ignore[misc]
        opened.format.release()

        def heal(path: Path = path) -> None:
            Store(path, MADE).__exit__(None, None, None)

        healed = crash_while(heal, Disk(step, torn=True), monkeypatch)
        released_by_the_system(path)
        assert rows_of(path)[:5] == wanted(*BEFORE)
        with Store(path, MADE) as again:
            assert again.stamp("1") == item(1)[0].stamp
        shutil.rmtree(path.parent)
        if healed:
            return
    raise AssertionError("never healed")


def released_by_the_system(path: Path) -> None:
    """Close what a crashed `Store(...)` left open in this process: the locks are the files'."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(str(path.parent)):
                os.close(int(name))


# A full disk


@pytest.mark.parametrize("room", range(0, 40000, 4999))
def test_a_full_disk_leaves_the_store_as_it_was(store: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    added = [item(number) for number in range(3, 200)]
    left = room

    def pwrite(file: int, data: Any, place: int) -> int:
        nonlocal left
        grows = max(0, place + len(data) - os.fstat(file).st_size)
        if grows > left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= grows
        return PWRITE(file, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    try:
        with Store(store, MADE) as opened:
            for rows in added:
                opened.append(rows)
        full = False
    except OSError as error:
        full = error.errno == errno.ENOSPC
    monkeypatch.undo()
    assert rows_of(store) == wanted(*BEFORE, *([] if full else added))
    with Store(store, MADE) as again:
        for rows in added if full else []:
            again.append(rows)
    assert rows_of(store) == wanted(*BEFORE, *added)


LIMITED = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from imagebind_cli.store import Store
from tests.store.test_safety import MADE, item
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with Store(Path(sys.argv[1]), MADE) as store:
        for number in range(5000):
            store.append(item(number))
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("ending", GROWING)
def test_a_file_that_may_not_grow_keeps_what_was_flushed(tmp_path: Path, ending: str) -> None:
    """The kernel's own refusal, as a quota or a full disk gives it."""
    path = tmp_path / f"store{ending}"
    limit = {".h5": 600_000, ".jsonl": 400_000}.get(ending, 150_000)
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, path, str(limit), Path(__file__).parents[2]], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr, int(run.stdout)) == (0, "", errno.EFBIG)
    rows = rows_of(path)
    assert len(rows) % writer.FLUSH_ROWS == 0
    assert 0 < len(rows) < 5000
    assert rows == wanted(*map(item, range(len(rows))))
    with Store(path, MADE) as again:
        for number in range(len(rows), 5000):
            again.append(item(number))
    assert rows_of(path) == wanted(*map(item, range(5000)))


# Killed by the system


WRITES = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from imagebind_cli.store import Store, writer
from tests.store.test_safety import MADE, item
writer.FLUSH_ROWS = 7
with Store(Path(sys.argv[1]), MADE) as store:
    print("open", flush=True)
    for number in range(int(sys.argv[2])):
        if store.stamp(str(number)) is None:
            store.append(item(number, windows=1 + number % 3))
"""


@pytest.fixture
def writing() -> Iterator[Callable[[Path, int], subprocess.Popen[bytes]]]:
    """Start a process that writes so many items; it has the store open when this returns."""
    started: list[subprocess.Popen[bytes]] = []

    def start(path: Path, items: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WRITES, path, str(items), Path(__file__).parents[2]]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        assert started[-1].stdout
        assert started[-1].stdout.readline() == b"open\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


Writing = Callable[[Path, int], "subprocess.Popen[bytes]"]


@pytest.mark.parametrize("ending", GROWING)
def test_a_writer_killed_again_and_again_ends_with_every_row_once(tmp_path: Path, ending: str, writing: Writing) -> None:
    path, random = tmp_path / f"store{ending}", np.random.default_rng(0)
    seen = 0
    for _ in range(4 if ending in (".h5", ".store") else 2):
        process = writing(path, 100_000)
        time.sleep(random.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        rows = rows_of(path) if path.stat().st_size else []
        assert len(rows) >= seen
        seen = len(rows)
    ids = list(dict.fromkeys(id for id, _ in rows))
    assert rows == wanted(*(item(number, 1 + number % 3) for number in range(len(ids))))
    process = writing(path, len(ids) + 10)
    assert process.wait(30) == 0
    assert rows_of(path) == wanted(*(item(number, 1 + number % 3) for number in range(len(ids) + 10)))
    assert [file.name for file in tmp_path.iterdir() if "journal" in file.name or "partial" in file.name] == []


def test_h5py_alone_reads_what_a_killed_writer_left_once_it_was_opened_again(tmp_path: Path, writing: Writing) -> None:
    path = tmp_path / "store.h5"
    process = writing(path, 100_000)
    time.sleep(0.3)
    process.kill()
    process.wait()
    Store(path, MADE).__exit__(None, None, None)
    with h5py.File(path) as file:
        assert {name: len(file[name]) for name in ("embeddings", "ids", "spans", "inputs", "meta")} == dict.fromkeys(
            ("embeddings", "ids", "spans", "inputs", "meta"), len(rows_of(path))
        )
        assert file["embeddings"][:].tobytes() == open_store(path).vectors().tobytes()


# Two at once


@pytest.mark.parametrize("ending", FORMATS)
def test_a_second_writer_is_refused_at_once_and_not_after_the_first_was_killed(tmp_path: Path, ending: str, writing: Writing) -> None:
    path = tmp_path / f"store{ending}"
    process = writing(path, 10_000_000)
    before = {file.name for file in tmp_path.rglob("*")}
    started = time.monotonic()
    with pytest.raises(UserError, match=f"^{path}: another run is writing to it; [^\n]*$"):
        Store(path, MADE)
    assert time.monotonic() - started < 0.5
    assert {file.name for file in tmp_path.rglob("*")} >= before
    process.kill()
    process.wait()
    with Store(path, MADE) as store:
        store.append(item(10**9))
    assert rows_of(path)[-1:] == wanted(item(10**9))
    assert [file.name for file in tmp_path.iterdir() if "journal" in file.name or "partial" in file.name] == []


@pytest.mark.parametrize("ending", GROWING)
def test_readers_see_whole_rows_while_a_writer_writes(tmp_path: Path, ending: str, writing: Writing) -> None:
    path = tmp_path / f"store{ending}"
    process = writing(path, 10_000_000)
    lengths, looks, deadline = [0], 0, time.monotonic() + 1
    while time.monotonic() < deadline or looks < 3:
        reader = open_store(path)
        ids = reader.ids
        assert len(ids) == len(reader)
        assert len(reader) >= lengths[-1]
        lengths.append(len(reader))
        some = np.random.default_rng(looks).integers(0, len(reader), 20) if len(reader) else []
        blocks = np.concatenate([*reader.blocks(), np.empty((0, DIM), np.float32)])
        spans = reader.spans
        for row in some:
            windows = item(int(ids[row]), 1 + int(ids[row]) % 3)
            mine = next(each for each in windows if each.vector.tobytes() == blocks[row].tobytes())
            assert reader.rows([row])[0].tobytes() == blocks[row].tobytes()
            assert mine.span is None or (spans is not None and tuple(spans[row]) == mine.span)
        looks += 1
    assert process.poll() is None
    assert lengths[-1] > lengths[1]
