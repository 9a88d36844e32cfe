"""Files that are read in a separate process: a crash, a hang or a bomb costs one file, and nothing else changes."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from imagebind_cli.crashes import call_for
from imagebind_cli.media import isolation
from imagebind_cli.media.image import exif_clock, open_image, upright
from imagebind_cli.media.isolation import MEMORY, Apart, call_apart, time_limit
from imagebind_cli.store import open_store

HERE = __name__


def crash(source: Any, number: int) -> None:
    """Stands for a library that a damaged file crashes."""
    os.kill(os.getpid(), number)


def hang(source: Any) -> None:
    """Stands for a library that never returns."""
    time.sleep(60)


def bomb(source: Any) -> None:
    """Stands for a library that allocates what a file claims."""
    np.ones(MEMORY + 1, np.uint8)


def refuse(source: Any) -> None:
    """Raise what neither Python nor the package knows."""
    raise type("Strange", (Exception,), {})("two\nlines")


class Letters:
    """Stands for an open file."""

    notes = ("a note",)

    def __init__(self, source: Any, text: str) -> None:
        self.content = source.read() if hasattr(source, "read") else Path(source).read_bytes()
        self.text = text

    def each(self, times: int) -> Any:
        """Yield its letters."""
        for letter in self.text:
            yield letter * times
        raise ValueError("no more")

    def twice(self) -> bytes:
        return self.content * 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    return path


@pytest.fixture(params=["socket", "pipes"])
def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reach the process by a socket, or as on Windows by pipes."""
    if request.param == "pipes":
        monkeypatch.setattr(isolation, "INHERITS", False)
    monkeypatch.setattr(isolation, "_idle", idle := [])
    yield
    for worker in idle:
        worker.kill()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
@pytest.mark.usefixtures("connection")
def test_a_crash_costs_one_file(file: Path, number: int) -> None:
    with pytest.raises(ValueError, match=rf"its library crashed on it \(signal {int(number)}\)"):
        call_apart(f"{HERE}:crash", file, int(number))
    assert call_apart("builtins:str", file) == str(file)


@pytest.mark.usefixtures("connection")
def test_a_hang_costs_one_file_and_its_limit(file: Path) -> None:
    call_apart("builtins:str", file)  # a process is up
    began = time.monotonic()
    with time_limit(0.3), pytest.raises(ValueError, match="not read within 0 s"):
        call_apart(f"{HERE}:hang", file)
    assert time.monotonic() - began < 3
    assert call_apart("builtins:str", file) == str(file)


@pytest.mark.usefixtures("connection")
def test_a_bomb_costs_one_file(file: Path) -> None:
    with pytest.raises(MemoryError):
        call_apart(f"{HERE}:bomb", file)


@pytest.mark.usefixtures("connection")
def test_errors_are_raised_here_as_they_were_there(file: Path) -> None:
    with pytest.raises(RuntimeError, match="two"):
        call_apart(f"{HERE}:refuse", file)
    with pytest.raises(FileNotFoundError):
        call_apart("builtins:open", file.with_name("missing"))
    with pytest.raises(ValueError, match="the file is empty"):
        call_apart("builtins:str", _empty(file))


def _empty(file: Path) -> Path:
    file.write_bytes(b"")
    return file


@pytest.mark.parametrize("place", ["apart", "in_place"])
@pytest.mark.usefixtures("connection")
def test_an_object_is_used_by_name(file: Path, place: str, request: pytest.FixtureRequest) -> None:
    if place == "in_place":
        request.getfixturevalue("in_place")
    for source in file, io.BytesIO(b"abc"):
        with Apart(f"{HERE}:Letters", source, "xyz") as letters:
            assert letters.get("notes", "text") == (("a note",), "xyz")
            assert letters.call("twice") == b"abcabc"
            with pytest.raises(ValueError, match="no more"):
                list(letters.iterate("each", 2))
            again = letters.iterate("each", 2)
            assert [next(again), next(again)] == ["xx", "yy"]


@pytest.mark.usefixtures("connection")
def test_the_process_ends_with_its_parent_even_while_it_hangs(file: Path) -> None:
    code = f"""
import os, threading, time
from imagebind_cli.media import isolation
isolation.INHERITS = {isolation.INHERITS}
threading.Thread(target=isolation.call_apart, args=("{HERE}:hang", {str(file)!r}), daemon=True).start()
def children():
    return [open(f"/proc/self/task/{{task}}/children").read() for task in os.listdir("/proc/self/task")]
while not "".join(children()):
    time.sleep(0.01)
time.sleep(0.5)
print("".join(children()).split()[0], flush=True)
os.kill(os.getpid(), 9)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    child = Path("/proc") / run.stdout.strip()
    deadline = time.monotonic() + 5
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


PICTURES = {"webp": ("RGB", {"lossless": True}), "tiff": ("I;16", {}), "tif": ("P", {}), "jp2": ("L", {})}


@pytest.mark.parametrize("ending", PICTURES)
def test_a_picture_read_apart_is_the_picture(tmp_path: Path, ending: str, request: pytest.FixtureRequest) -> None:
    mode, options = PICTURES[ending]
    pixels = np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50
    picture = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray((pixels >> 8).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    picture.save(tmp_path / f"a.{ending}", exif=exif.tobytes(), **options)  # type: ignore[arg-type]
    apart = open_image(tmp_path / f"a.{ending}")
    request.getfixturevalue("in_place")
    here = open_image(tmp_path / f"a.{ending}")
    assert (apart.mode, apart.size, apart.format) == (here.mode, here.size, here.format)
    assert ending == "jp2" or exif_clock(here)
    assert exif_clock(apart) == exif_clock(here)
    np.testing.assert_array_equal(np.asarray(upright(apart)), np.asarray(upright(here)))


@pytest.mark.parametrize("command", ["embed", "preprocess", "zeroshot"])
def test_item_timeout_costs_one_file(imagebind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """A library that hangs in this process, where nothing can interrupt it."""
    over, names = threading.Event(), ["a.png", "late.png", "c.png"]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)

    def wait(source: Any, *others: Any, **named: Any) -> Image.Image:
        if str(source).endswith("late.png"):
            over.wait(30)
        return open_image(source, *others, **named)

    monkeypatch.setattr("imagebind_cli.encoders.vision.open_image", wait)
    more = {"embed": [], "preprocess": ["-o", str(tmp_path / "out.tar")], "zeroshot": ["--labels", "a,b"]}[command]
    run = imagebind(command, "image", *(tmp_path / name for name in names), *more, "--model", "tiny", "--item-timeout", "0.5")
    over.set()
    assert run.code == 1
    assert [line for line in run.notices if "late.png" in line and "not read within 0.5 s; --item-timeout allows more" in line], run.err
    assert command == "preprocess" or len(run.rows) == 2, run.out


class Cycle:
    """Stands for a container of PyAV: a cycle that holds threads, which `alive` counts."""

    alive = 0

    def __init__(self, source: Any) -> None:
        self.itself = self
        Cycle.alive += 1
        self.count = Cycle.alive

    def __del__(self) -> None:
        Cycle.alive -= 1


def test_what_a_file_held_is_released_before_the_next(tmp_path: Path) -> None:
    """Threads of decoders took a worker's memory, until videos failed."""
    (tmp_path / "x").write_text("x")
    for _ in range(5):
        with Apart(f"{HERE}:Cycle", tmp_path / "x") as made:
            assert made.get("count") == (1,)


CRASHING = """
import ctypes, sys
from imagebind_cli.encoders import vision
read = vision.open_image
def crash(source, *others, **named):
    if "bad" in str(source):
        ctypes.string_at(0)
    return read(source, *others, **named)
vision.open_image = crash
from imagebind_cli.__main__ import main
main()
"""


def test_a_crash_in_this_process_names_the_file_and_the_same_command_continues(imagebind: Any, python: Any, tmp_path: Path) -> None:
    """A library that crashes on a format that is read in place."""
    names = ["a.png", "bad é.png", "c.png"]
    for name in names:
        Image.effect_noise((8, 8), 50).convert("RGB").save(tmp_path / name)
    command = [
        "embed",
        "image",
        *(str(tmp_path / name) for name in names),
        "-o",
        str(tmp_path / "s.h5"),
        "--model",
        "tiny",
        "--batch-size",
        "1",
    ]
    run = python("-c", CRASHING, *command, "--workers", "1")
    assert run.returncode == -signal.SIGSEGV
    assert f'  File "<input>", line 1 in {tmp_path}/bad \\xe9.png\n' in run.stderr
    assert not [name for name in ("a.png", "c.png") if name in run.stderr]
    assert imagebind(*command).code == 0
    assert imagebind("store", "check", tmp_path / "s.h5").code == 0
    assert set(open_store(tmp_path / "s.h5").ids) == {str(tmp_path / name) for name in names}


def test_a_function_called_for_an_input_returns_and_raises_as_it_would(tmp_path: Path) -> None:
    assert call_for("a\udcff\n" * 1000, max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        call_for("", divmod, 1, 0)


def work(source: Any, seconds: float) -> None:
    """Stands for a reader that computes for a while."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_processor_time_includes_that_of_the_separate_processes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    call_apart(f"{HERE}:work", path, 0.0)
    began, here = isolation.processor_seconds(), time.process_time()
    call_apart(f"{HERE}:work", path, 0.4)
    assert isolation.processor_seconds() - began > 0.4 > 2 * (time.process_time() - here)
