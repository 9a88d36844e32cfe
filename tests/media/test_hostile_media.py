"""Files made to hurt: small ones that ask for much memory or time, reach into other files, or make a decoder raise what it should not.

All are read in one real process that may take 2 GB beyond its start.
"""

import ast
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from imagebind_cli.media.decoding import decoding
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.holes import LONGEST_SIDE, fill_nearest
from imagebind_cli.media.motion.recordings import read_recording
from imagebind_cli.media.video.animation import Animation, is_animation
from imagebind_cli.media.windows import windows

MEDIA = Path(__file__).parents[2] / "imagebind_cli" / "media"
SECONDS = 10  # of processor time
READ_ALL = """
import json, resource, sys, time
import numpy as np
from imagebind_cli.media.maps.formats import read_map
from imagebind_cli.media.maps.holes import fill_nearest
from imagebind_cli.media.motion.recordings import read_recording
from imagebind_cli.media.video.animation import Animation
from imagebind_cli.media.windows import windows
import h5py, pyarrow.parquet

def animation(path):
    with Animation(path) as moving:
        return sum(1 for _ in moving.clips(windows(moving.duration, 2), 2))

def filled(path):
    depth = read_map(path)
    return fill_nearest(depth.values.astype(np.float32), depth.values > 0)

readers = {"imu": read_recording, "depth": filled, "video": animation}
start = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (start + 2_000_000_000,) * 2)
for path in sys.argv[1:]:
    began = time.process_time()
    try:
        readers[path.rpartition("/")[2].partition("-")[0]](path)
        result = ""
    except (OSError, ValueError) as error:
        result = str(error)
    except MemoryError:
        result = "MemoryError"
    print(json.dumps([path.rpartition("/")[2], result, time.process_time() - began]), flush=True)
"""


def h5_of(kind: object, shape: tuple[int, ...] = (6_000_000,)) -> Callable[[Path], None]:
    """A dataset of which nothing is written: its file takes 1,400 bytes."""

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("data", shape, kind)

    return write


def long_strings(path: Path) -> None:
    """Five million cells, each of which may be as long as the file."""
    with h5py.File(path, "w") as file:
        cells = file.create_dataset("data", (20_000,), h5py.string_dtype(), chunks=(1000,))
        cells[0] = "x" * 30_000
        cells[1:] = "y"
        file.create_dataset("other", (5_400_000,), h5py.string_dtype())


def parquet(path: Path) -> None:
    """Three million rows of one long word, which the file holds once."""
    pyarrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    words = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(3_000_000, np.int32)), ["x" * 9000])
    writer.write_table(pyarrow.table({"a": words, "b": pyarrow.array(np.zeros(3_000_000))}), path)


def zipped(*lines: str, copies: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.csv", "w") as member:
            block = "".join(lines).encode() * 1000
            for _ in range(copies // 1000):
                member.write(block)

    return write


def npz(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros(8_000_000, "U1"))


def matlab(shape: tuple[int, int], promised: int, data: bytes) -> Callable[[Path], None]:
    """A compressed variable. promised: bytes that its numbers are said to take."""

    def write(path: Path) -> None:
        parts = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, *shape) + struct.pack("<II", 1, 1) + b"a" + bytes(7)
        element = parts + struct.pack("<II", 9, promised) + data
        packed = zlib.compress(struct.pack("<II", 14, len(element)) + element)
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed)

    return write


def gif(frames: int, side: int) -> Callable[[Path], None]:
    """Frames of one pixel on a canvas: 23 bytes each."""

    def write(path: Path) -> None:
        frame = b"\x21\xf9\x04\0\x0a\0\0\0," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x4c\x01\0"
        path.write_bytes(b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + bytes(3) + b"\xff" * 3 + frame * frames + b";")

    return write


def thin_map(width: int, height: int) -> Callable[[Path], None]:
    """One pixel of a map is known, at its end."""

    def write(path: Path) -> None:
        values = np.zeros((height, width), np.uint16)
        values[-1, -1] = 1000
        Image.fromarray(values).save(path, compress_level=1)

    return write


def tiff(path: Path) -> None:
    """Twenty thousand pages of no pixels."""
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    for _ in range(20_000):
        tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 1)]
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
        data += struct.pack("<I", len(data) + 4)
    path.write_bytes(data + bytes(6))


TEXT, SIZE = "text takes more than 800 MB", "more than 50,000,000 values"
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "imu-strings.h5": (h5_of("S8"), TEXT),
    "imu-many-strings.h5": (h5_of("S1", (40_000_000,)), TEXT),
    "imu-wide-strings.h5": (h5_of("S4000", (1_000_000,)), SIZE),
    "imu-any-strings.h5": (h5_of(h5py.string_dtype()), TEXT),
    "imu-long-strings.h5": (long_strings, "takes more than 800 MB"),
    "imu-lists.h5": (h5_of(h5py.vlen_dtype(np.float64), (20_000_000,)), "holds no rows of numbers"),
    "imu-compound.h5": (h5_of([(f"f{i}", "f8") for i in range(200)]), SIZE),
    "imu-compound-strings.h5": (h5_of([("a", "S8"), ("b", h5py.string_dtype())]), TEXT),
    "imu-largest.h5": (h5_of("f8", (7_100_000, 7)), "channels|columns"),
    "imu-dictionary.parquet": (parquet, "no accelerometer or gyroscope|columns"),
    "imu-words.zip": (zipped("ab,1\n", copies=8_000_000), "times its size"),
    "imu-heading.zip": (zipped("ab,cd,ef\n", copies=300_000), "holds no rows"),
    "imu-line.zip": (zipped("1,", copies=4_000_000), "a line of more than"),
    "imu-quoted.zip": (zipped('1,"\n",', copies=1_000_000), "a line of more than"),
    "imu-strings.npz": (npz, TEXT),
    "imu-promise.mat": (matlab((4, 6), 1 << 31, bytes(99)), "not a readable MATLAB file"),
    "imu-short.mat": (matlab((40_000, 1000), 8 * 40_000_000, bytes(99)), "not a readable MATLAB file"),
    "imu-large.mat": (matlab((40_000, 10_000), 8 * 400_000_000, bytes(99)), SIZE),
    "depth-thin.png": (thin_map(1_000_000, 1), ""),
    "depth-thinnest.png": (thin_map(1, 32_000_000), ""),
    "depth-long.png": (thin_map(LONGEST_SIDE, 64), ""),
    "depth-longest.png": (thin_map(LONGEST_SIDE, 976), ""),
    "depth-square.png": (thin_map(5600, 5600), ""),
    "depth-wide.png": (thin_map(2000, 2000), ""),
    "depth-pages.tiff": (tiff, "pages; split it"),
    "video-frames.gif": (gif(50_000, 16), ""),
    "video-canvas.gif": (gif(50_000, 2000), "take too long to draw"),
}


def test_no_small_file_takes_much_memory_or_time(tmp_path: Path) -> None:
    for name, (write, _) in HOSTILE.items():
        write(tmp_path / name)
        assert (tmp_path / name).stat().st_size < 3_000_000, name
    paths = [str(tmp_path / name) for name in HOSTILE]
    run = subprocess.run([sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True)
    results = {name: (result, seconds) for name, result, seconds in map(json.loads, run.stdout.splitlines())}
    assert run.returncode == 0, run.stderr
    assert list(results) == list(HOSTILE)
    for name, (result, seconds) in results.items():
        expected = HOSTILE[name][1]
        assert any(part in result for part in expected.split("|")) if expected else not result, (name, result)
        assert seconds < SECONDS, (name, seconds)


def test_cells_of_text_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table's rows and in its headings."""
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"walk,{i}\n" for i in range(2000)))
    (tmp_path / "names.csv").write_text("a,b\n" * 2000)
    (tmp_path / "distinct.csv").write_text("a,b\n" + "".join(f"{'x' * 900}{i}x,{i}\n" for i in range(200)))
    monkeypatch.setattr("imagebind_cli.media.motion.tables.table.MAX_TEXT_BYTES", 200_000)
    for name in "rows.csv", "names.csv", "distinct.csv":
        with pytest.raises(ValueError, match="its text takes more than"):
            read_recording(tmp_path / name)


def test_no_hdf5_file_reaches_into_another(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(200, 6))
    (tmp_path / "raw").write_bytes(values.tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["imu"] = values
    layout = h5py.VirtualLayout((200, 6), np.float64)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "imu", (200, 6))
    for name in "external", "virtual", "link", "soft":
        with h5py.File(tmp_path / f"{name}.h5", "w", userblock_size=512) as file:
            if name == "external":
                file.create_dataset("imu", (200, 6), np.float64, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
            elif name == "virtual":
                file.create_virtual_dataset("imu", layout)
            else:
                file["imu"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "imu") if name == "link" else h5py.SoftLink("/elsewhere")
        with open(tmp_path / f"{name}.h5", "r+b") as block:
            block.write(b"MATLAB 7.3 MAT-file")
        reason = "lies in other files|holds no rows of numbers|is a link"
        for read in (read_recording, read_map):
            with pytest.raises(ValueError, match=reason):
                read(tmp_path / f"{name}.h5")


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_an_animation_cut_anywhere_is_read_or_refused_in_one_way(tmp_path: Path, ending: str) -> None:
    """A GIF file cut within its second frame makes Pillow raise an IndexError."""
    buffer = io.BytesIO()
    frames = [Image.effect_noise((8, 8), 50 + i) for i in range(3)]
    frames[0].save(buffer, ending, save_all=True, append_images=frames[1:], duration=100)
    messages = set()
    for stop in range(1, len(buffer.getvalue())):
        data = io.BytesIO(buffer.getvalue()[:stop])
        try:
            is_animation(data)
            with Animation(data) as moving:
                list(moving.clips(windows(moving.duration, 2), 2))
        except ValueError as error:
            messages.add(str(error).partition(":")[0])
    assert messages <= {"not a readable animation", "not a readable picture"}


def test_an_animation_is_drawn_once_and_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gif(95, 4)(tmp_path / "a.gif")
    drawn: list[int] = []
    with Animation(tmp_path / "a.gif") as moving:
        frame = moving._frame
        monkeypatch.setattr(moving, "_frame", lambda number: drawn.append(number) or frame(number))
        clips = list(moving.clips(windows(moving.duration, 2, 9), 2))
    assert len(clips) == 9
    assert drawn == sorted(set(drawn))


class Surprise(Exception):
    """What no reader has heard of."""


def test_the_fence_turns_every_exception_into_one_kind() -> None:
    for error in (Surprise("x"), IndexError(), UnicodeDecodeError("ascii", b"x", 0, 1, "no"), RecursionError("deep"), OSError("no errno")):
        with pytest.raises(ValueError, match="^not a readable thing: "), decoding("thing"):
            raise error
    for error in (ValueError("own words"), FileNotFoundError(2, "gone"), MemoryError()):
        with pytest.raises(type(error)) as caught, decoding("thing"):
            raise error
        assert caught.value is error


def fenced(function: ast.FunctionDef) -> bool:
    """Check whether a function is decorated with the fence, uses it, or does nothing but call functions that are."""
    names = {node.func.id for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return bool(names & {"decoding", "open_hdf5", "call_apart"})


def test_no_reader_is_outside_the_fence() -> None:
    """Every public function of a media file that takes a source, the few apart that are only called by those."""
    inner = {"check_file", "opened", "first_bytes", "open_container", "open_tracks", "essential_png", "essential_jpeg", "frame_durations"}
    inner |= {
        "is_picture",
        "open_video",
        "is_folder",
        "find_layout",
        "read_npy_table",
        "call_apart",
    }  # these call fenced ones alone
    outside = [
        f"{path.name}: {node.name}"
        for path in MEDIA.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in inner
        if any(argument.arg == "source" for argument in node.args.args) and not fenced(node)
    ]
    assert outside == []


def test_the_middle_of_a_very_long_map_is_filled() -> None:
    """From known pixels within it, or from the nearest one outside."""
    for shape in (1, LONGEST_SIDE + 10), (LONGEST_SIDE + 10, 1):
        values, middle = np.zeros(shape), LONGEST_SIDE // 2 + 5
        values.ravel()[[3, middle - 2, -5]] = 1, 2, 3
        filled = fill_nearest(values, values > 0).ravel()
        assert (filled[middle - 16 : middle + 16] == 2).all()
        values.ravel()[middle - 2] = 0
        assert (fill_nearest(values, values > 0).ravel()[middle - 16 : middle + 16] == 3).all()


@pytest.mark.parametrize("name", ["root.h5"])
def test_a_damaged_file_of_the_fuzzer_costs_one_line(embed: Callable[..., Any], tmp_path: Path, name: str) -> None:
    good = tmp_path / "good.png"
    Image.new("L", (8, 8), 9).save(good)
    run = embed("thermal", good, Path(__file__).parents[1] / "data" / "damaged" / name)
    assert (run.code, run.ids) == (1, [str(good)]), run.err
    assert len([line for line in run.notices if name in line]) == 1, run.err
