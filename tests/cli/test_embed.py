"""`imagebind embed` on true files: the same vectors by every way in and out, clear words for what is bad, and quiet ends."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
from PIL import Image

from imagebind_cli import registry
from imagebind_cli.store import FORMATS, is_store, open_store
from imagebind_cli.store_formats import GROWING
from imagebind_cli.weights import model_config, rule
from imagebind_cli.weights.convert import convert
from tests import generate
from tests.conftest import UNTRAINED, Run, Start
from tests.stores import read_plainly, store

ENDINGS = list(FORMATS)
ONE_BY_ONE = ("--batch-size", 1)  # the last bits of a vector depend on the batch it was in


MAKERS: dict[str, Callable[..., Path]] = {"image": generate.picture, "audio": generate.audio, "video": generate.video}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Every way in


@pytest.mark.parametrize("modality", registry.MODALITIES)
def test_every_modality_embeds_the_same_from_argument_stdin_and_json(embed: Run, folder: Path, modality: str) -> None:
    given = generate.sample(modality, folder)
    wanted = embed(modality, given)
    assert (wanted.code, wanted.ids) == (0, [given])
    (row,) = wanted.rows
    assert row.keys() == {"id", "modality", "embedding"}
    assert row["modality"] == modality
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)
    lines, dash, objects = (
        embed(modality, stdin=f"{given}\n".encode()),
        embed(modality, "-", stdin=given.encode()),
        embed(modality, stdin=json.dumps({"id": given, modality: given}).encode() + b"\n"),
    )
    assert lines.out == dash.out == objects.out == wanted.out


def test_a_picture_has_one_vector_whatever_names_it(embed: Run, folder: Path) -> None:
    (folder / "sub").mkdir()
    generate.picture(folder / "sub/dog.png")
    (folder / "pairs.jsonl").write_text('{"id": "dog", "image": "sub/dog.png", "text": "a dog"}\n')
    (folder / "pairs.csv").write_text("id,image\ndog,sub/dog.png\n")
    (folder / "sub/pairs.tsv").write_text("id\timage\ndog\tdog.png\n")
    wanted = embed("image", "sub/dog.png", *ONE_BY_ONE).vectors.tobytes()
    runs = {
        "folder": embed("image", "sub/", "--batch-size", 1, "--errors", "errors.jsonl"),
        "pattern": embed("image", "*/d?g.png", *ONE_BY_ONE),
        "nul": embed("image", "-0", stdin=b"sub/dog.png\0"),
        "crlf": embed("image", stdin=b"sub/dog.png\r\n"),
        "jsonl": embed("image", "--manifest", "pairs.jsonl"),
        "csv": embed("image", "--manifest", folder / "pairs.csv"),
        "tsv": embed("image", "--manifest", "sub/pairs.tsv"),
    }
    assert {name: run.vectors.tobytes() == wanted for name, run in runs.items()} == dict.fromkeys(runs, True)
    assert {run.code for name, run in runs.items() if name != "folder"} == {0}
    assert runs["jsonl"].ids == runs["csv"].ids == runs["tsv"].ids == ["dog"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_holds_the_bits_that_stdout_shows(embed: Run, folder: Path, ending: str) -> None:
    names = [str(generate.picture(folder / f"{seed}.png", seed)) for seed in range(3)]
    wanted = embed("image", *names, *ONE_BY_ONE)
    run = embed("image", *names, *ONE_BY_ONE, "-o", f"store{ending}")
    assert (run.code, run.out) == (0, b"")
    assert any("3 embedded" in line for line in run.notices)
    ids, vectors = read_plainly(folder / f"store{ending}")[:2]
    assert ids == wanted.ids == names
    assert vectors.dtype == np.float32
    assert vectors.tobytes() == wanted.vectors.tobytes()


def test_the_python_call_gives_the_vectors_of_the_command(embed: Run, folder: Path, tiny: Any) -> None:
    name = generate.sample("audio", folder)
    assert tiny.embed("audio", [name]).tobytes() == embed("audio", name).vectors.tobytes()


def test_odd_file_names_come_through_whole(embed: Run, folder: Path) -> None:
    picture = generate.picture(folder / "plain.png").read_bytes()
    names = ["new\nline.png", os.fsdecode(b"caf\xe9.png"), " spaces .png", "-dash.png", "[1]*.png", "日本.png"]
    for name in names:
        (folder / name).write_bytes(picture)
    (folder / "plain.png").unlink()
    given = "\0".join(names).encode("utf-8", "surrogateescape")
    run = embed("image", "-0", stdin=given)
    assert (run.code, run.ids) == (0, names)
    for ending in ENDINGS:
        assert embed("image", "-0", "-o", f"../{folder.name}.{ending[1:]}-store{ending}", stdin=given).code == 0
        assert read_plainly(folder.parent / f"{folder.name}.{ending[1:]}-store{ending}")[0] == names
    assert embed("image", ".").ids == sorted(f"./{name}" for name in names)


@pytest.mark.parametrize(
    "modality",
    [name for name in registry.MODALITIES if name != "text"],
)
def test_a_name_of_undecodable_bytes_embeds_in_every_modality(embed: Run, folder: Path, modality: str) -> None:
    plain = Path(generate.sample(modality, folder))
    odd = os.fsdecode(os.fsencode(plain.stem) + b"\xff" + os.fsencode(plain.suffix))
    shutil.copy(plain, odd)
    run = embed(modality, odd)
    assert (run.code, run.ids) == (0, [odd])
    assert run.vectors.tobytes() == embed(modality, plain).vectors.tobytes()


@pytest.mark.parametrize(
    ("modality", "name"),
    [
        ("image", "12:30.png"),
        ("audio", "12:30.wav"),
        ("audio", "12:30.m4a"),
        ("video", "12:30.mp4"),
    ],
)
def test_a_colon_in_a_relative_name_means_nothing(embed: Run, folder: Path, modality: str, name: str) -> None:
    MAKERS[modality](folder / name)
    assert embed(modality, name).ids == [name]


def test_sentences_need_no_files_and_one_that_names_a_file_is_noted(embed: Run, folder: Path) -> None:
    (folder / "dog").write_text("a line inside\n")
    run = embed("text", "dog", "a dog barks")
    assert (run.code, run.ids) == (0, ["dog", "a dog barks"])
    (notice,) = run.notices
    assert "'dog' is embedded as a sentence" in notice
    assert embed("text", stdin=b"a dog barks\r\n{no json\n").ids == ["a dog barks", "{no json"]


def test_notices_go_to_stderr_and_each_assumption_is_said_once(embed: Run, folder: Path) -> None:
    names = [generate.sample("depth", folder, seed) for seed in range(3)]
    run = embed("depth", *names)
    assert run.ids == names
    assert [line for line in run.notices if "assumed: depth read as mm, focal 518.86 px, baseline 0.075 m" in line] == run.notices
    assert len(run.notices) == 1
    assert UNTRAINED in run.err
    assert all(line.startswith("imagebind: ") for line in run.err.splitlines())


# Windows


def spans(run: Any) -> list[tuple[float, float]]:
    return [(row["start"], row["end"]) for row in run.rows]


@pytest.mark.parametrize(("modality", "name", "close"), [("audio", "5.wav", 1e-6), ("video", "5.mp4", 1e-3)])
def test_windows_cover_an_item_and_average_to_its_vector(embed: Run, folder: Path, modality: str, name: str, close: float) -> None:
    """A window of a video is itself the mean of three views, so that the mean of the windows is not exactly the mean of all views."""
    MAKERS[modality](folder / name, seconds=5)
    run = embed(modality, name, "--pool", "none")
    assert run.ids == [name] * 3
    assert np.array(spans(run)) == pytest.approx(np.array([(0, 2), (1.5, 3.5), (3, 5)]), abs=1e-6)
    assert np.linalg.norm(run.vectors, axis=1) == pytest.approx(1, abs=1e-6)
    mean = run.vectors.mean(axis=0)
    assert embed(modality, name).vectors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=close)
    assert np.array(spans(embed(modality, name, "--pool", "none", "--clips", 2))) == pytest.approx(np.array([(0, 2), (3, 5)]), abs=1e-6)


def test_a_store_keeps_the_windows_apart(embed: Run, folder: Path) -> None:
    generate.imu(folder / "walk.npy", seconds=10)
    assert embed("imu", "walk.npy", "--pool", "none", "-o", "walk.h5").code == 0
    with h5py.File(folder / "walk.h5") as file:
        assert file["spans"][:].tolist() == [[0, 5], [5, 10]]
        assert json.loads(file.attrs["made"])["pool"] == "none"


# Formats of pictures and sounds


def test_folders_of_frames_are_videos_where_their_rate_is_given(embed: Run, folder: Path) -> None:
    for name in ("walk", "run"):
        (folder / name).mkdir()
        for number in range(12):
            generate.picture(folder / name / f"{number}.png", seed=number + len(name))
    assert len(embed("image", "walk").rows) == 12
    run = embed("video", "walk/", "run", "--fps", 4, "--pool", "none", "-o", "frames.h5")
    assert run.code == 0, run.err
    assert [(row.id, row.span) for item in open_store(folder / "frames.h5").items() for row in item] == [
        ("walk", (0, 2)),
        ("walk", (1, 3)),
        ("run", (0, 2)),
        ("run", (1, 3)),
    ]
    (folder / "run/9.png").write_bytes((folder / "walk/0.png").read_bytes())
    again = embed("video", "walk", "run/", "--fps", 4, "--pool", "none", "-o", "frames.h5")
    assert "1 embedded" in again.err, again.err
    assert "1 there already" in again.err, again.err
    (folder / "run/11.png").write_bytes(b"no picture")
    broken = embed("video", "walk", "run", "--fps", 4)
    assert [row["id"] for row in broken.rows] == ["walk"]
    told(broken.err, {"run": "11.png: not a readable picture"})


def same(embed: Run, modality: str, *names: str) -> float:
    """The smallest cosine between the first of these files and the others."""
    run = embed(modality, *names, *ONE_BY_ONE)
    assert run.ids == list(names)
    return float((run.vectors[1:] @ run.vectors[0]).min())


def bits(embed: Run, modality: str, *names: str) -> set[bytes]:
    """The different vectors among these files."""
    run = embed(modality, *names, *ONE_BY_ONE)
    assert run.ids == list(names)
    return {vector.tobytes() for vector in run.vectors}


def test_sound_is_heard_in_every_container(embed: Run, folder: Path) -> None:
    names = [generate.audio(folder / f"sound.{ending}").name for ending in ("wav", "flac", "ogg", "mp3", "m4a")]
    generate.video(folder / "film.mp4", seconds=2.5, sound=True)
    generate.video(folder / "sound.mp4", seconds=2.5, pictures=False, sound=True)
    generate.audio(folder / "other.wav", seed=9)
    assert len(bits(embed, "audio", "sound.wav", "sound.flac")) == 1
    assert same(embed, "audio", *names, "film.mp4", "sound.mp4") > 0.98
    assert same(embed, "audio", "sound.wav", "other.wav") < 0.95


def test_the_first_channel_is_heard_at_any_rate(embed: Run, folder: Path) -> None:
    generate.audio(folder / "16.wav")
    left = generate.tone()
    finer = 3 * np.fft.irfft(np.fft.rfft(left), 3 * len(left))  # the same sound, sampled three times as often
    soundfile.write(folder / "48.wav", finer, 3 * generate.RATE)
    soundfile.write(folder / "stereo.wav", np.stack([left, np.zeros_like(left)], axis=1), generate.RATE)
    assert same(embed, "audio", "16.wav", "48.wav") > 0.98
    assert same(embed, "audio", "16.wav", "stereo.wav") > 0.99


def test_an_animated_gif_is_its_first_frame(embed: Run, folder: Path) -> None:
    frames = [Image.fromarray(generate.pixels(seed)).quantize(64) for seed in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(folder / "still.gif")
    frames[1].save(folder / "second.gif")
    assert len(bits(embed, "image", "moving.gif", "still.gif")) == 1
    assert len(bits(embed, "image", "moving.gif", "second.gif")) == 2


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}
"""EXIF orientation to what is done to the stored pixels to see them upright."""


def test_a_picture_is_turned_upright_as_its_exif_says(embed: Run, folder: Path) -> None:
    for orientation, turn in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        generate.picture(folder / f"{orientation}.jpg", exif=exif)
        with Image.open(folder / f"{orientation}.jpg") as image:
            Image.fromarray(np.ascontiguousarray(turn(np.asarray(image)))).save(folder / f"{orientation}.png")
    pairs = [embed("image", f"{orientation}.jpg", f"{orientation}.png", *ONE_BY_ONE).vectors for orientation in UPRIGHT]
    assert all(jpeg.tobytes() == png.tobytes() for jpeg, png in pairs)
    assert len({jpeg.tobytes() for jpeg, _ in pairs}) == 8


def test_pictures_of_every_mode_are_seen_as_in_rgb(embed: Run, folder: Path) -> None:
    colour = Image.fromarray(generate.pixels())
    grey = colour.convert("L")
    grey.save(folder / "8.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "16.png")
    grey.convert("RGB").save(folder / "grey.png")
    grey.convert("LA").save(folder / "alpha.png")
    assert len(bits(embed, "image", "8.png", "16.png", "grey.png", "alpha.png")) == 1
    palette = colour.quantize(32)
    palette.save(folder / "palette.png")
    palette.convert("RGB").save(folder / "unpacked.png")
    assert len(bits(embed, "image", "palette.png", "unpacked.png")) == 1
    colour.save(folder / "colour.png")
    colour.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    assert same(embed, "image", "colour.png", "cmyk.jpg") > 0.99
    colour.convert("1").save(folder / "1.png")
    assert embed("image", "1.png").code == 0


def test_depth_and_thermal_read_pictures_and_arrays_alike(embed: Run, folder: Path) -> None:
    generate.depth(folder / "depth.png")
    generate.depth(folder / "depth.npy")
    assert same(embed, "depth", "depth.png", "depth.npy") > 0.9999
    generate.thermal(folder / "thermal.png")
    np.save(folder / "thermal.npy", generate.pixels()[..., 0])
    assert len(bits(embed, "thermal", "thermal.png", "thermal.npy")) == 1


def test_a_thermal_picture_of_one_bit_is_read(embed: Run, folder: Path) -> None:
    Image.fromarray(generate.pixels()[..., 0] > 128).save(folder / "bit.png")
    assert embed("thermal", "bit.png").code == 0


def test_thermal_values_may_fill_the_range_of_their_type(embed: Run, folder: Path) -> None:
    values = generate.pixels()[..., 0].astype(np.int32) * 257 - 32768  # the whole range of int16
    np.save(folder / "signed.npy", values.astype(np.int16))
    np.save(folder / "float.npy", values.astype(np.float64))
    assert same(embed, "thermal", "float.npy", "signed.npy") > 0.9999


# Bad files


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    """A few hundred bytes whose header promises 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def told(stderr: str, wanted: dict[str, str]) -> None:
    """Assert that stderr has one line for each bad file, in this order, with these words, and no other line."""
    lines = [line for line in stderr.splitlines() if UNTRAINED not in line and "assumed: " not in line]
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == list(wanted)
    for line, (name, words) in zip(lines, wanted.items(), strict=True):
        assert line.startswith(f"imagebind: {name}: ")
        assert words in line.lower()
        assert len(line) < 250


def test_a_folder_of_a_hundred_with_bad_ones_gives_the_good_ones_in_order(start: Start, folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(100):
        generate.picture(folder / f"many/{number:03}.jpg", number, size=(32, 24))
    whole = (folder / "many/000.jpg").read_bytes()

    def bad(number: int) -> Path:
        (folder / f"many/{number:03}.jpg").unlink()
        return folder / f"many/{number:03}.jpg"

    bad(3).touch()
    bad(10).write_bytes(whole[: len(whole) // 2])
    bad(11).write_bytes(whole[:15])
    bad(20).write_text("no picture at all\n" * 20)
    bad(30).symlink_to("/proc/self/mem")
    bad(40).symlink_to("nowhere")
    os.mkfifo(bad(50))
    bad(60).write_bytes(huge_png())
    (folder / "many/070\n.jpg").write_text("a name of two lines")
    process = start("embed", "image", "--model", "tiny", "many", "--errors", "errors.jsonl")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    wanted = {
        "many/003.jpg": "empty",
        "many/010.jpg": "truncated",
        "many/011.jpg": "not a readable picture",
        "many/020.jpg": "not a readable picture",
        "many/030.jpg": "",
        "many/040.jpg": "no such file",
        "many/050.jpg": "not a regular file",
        "many/060.jpg": "pixels",
        "many/070\\n.jpg": "not a readable picture",
    }
    told(err.decode(), wanted)
    good = [name for number in range(100) if (name := f"many/{number:03}.jpg") not in wanted]
    assert [json.loads(line)["id"] for line in out.splitlines()] == good
    errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert [error["id"] for error in errors] == [name.replace("\\n", "\n") for name in wanted]
    assert all(error["reason"] for error in errors)


def test_a_file_that_even_root_cannot_read_says_so(embed: Run, folder: Path) -> None:
    name = generate.picture(folder / "good.png").name
    run = embed("image", "/proc/self/mem", name)
    assert (run.code, run.ids) == (1, [name])
    told(run.err, {"/proc/self/mem": "input/output error"})


def test_bad_sounds_are_told_one_by_one(embed: Run, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = generate.audio(folder / "good.wav").read_bytes()
    (folder / "empty.wav").touch()
    (folder / "header.wav").write_bytes(whole[:20])
    (folder / "text.wav").write_text("no sound\n" * 50)
    soundfile.write(folder / "none.wav", np.zeros(0, np.float32), generate.RATE)
    generate.audio(folder / "short.wav", seconds=0.01)
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), generate.RATE, "FLOAT")
    generate.video(folder / "silent.mp4")
    huge = bytearray(generate.audio(folder / "huge.flac").read_bytes())
    huge[21] |= 0x0F  # the count of samples: 36 bits from here on
    huge[22:26] = b"\xff" * 4
    (folder / "huge.flac").write_bytes(huge)
    wanted = {
        "empty.wav": "empty",
        "header.wav": "not a readable sound",
        "text.wav": "not a readable sound",
        "none.wav": "holds no sound",
        "short.wav": "10.0 ms of sound; at least 25 ms are needed",
        "nan.wav": "nan",
        "silent.mp4": "no sound track",
    }
    run = embed("audio", *wanted, "huge.flac", "good.wav")  # what a header promises is not believed: what is there is read
    assert (run.code, run.ids) == (1, ["huge.flac", "good.wav"])
    told(run.err, wanted | {"huge.flac": "cut short: 2.50 s of"})
    assert capfd.readouterr().err == ""  # the libraries say nothing of their own


def test_a_sound_of_an_absurd_rate_fails_alone(embed: Run, folder: Path) -> None:
    soundfile.write(folder / "fast.wav", np.zeros(2_000_000, np.float32), 40_000_003)
    generate.audio(folder / "good.wav")
    run = embed("audio", "fast.wav", "good.wav")
    assert (run.code, run.ids) == (1, ["good.wav"])
    told(run.err, {"fast.wav": "hz"})


def test_bad_videos_are_told_one_by_one(embed: Run, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = generate.video(folder / "good.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    longer = generate.video(folder / "longer.mkv", seconds=8).read_bytes()
    (folder / "cut.mkv").write_bytes(longer[: len(longer) // 2])
    (folder / "text.mp4").write_text("no video\n" * 50)
    generate.video(folder / "sound.mp4", pictures=False, sound=True)
    generate.audio(folder / "sound.wav")
    (folder / "huge.png").write_bytes(huge_png())
    wanted = {
        "empty.mp4": "empty",
        "cut.mp4": "not a readable video",
        "cut.mkv": "no frame between",
        "text.mp4": "not a readable video",
        "sound.mp4": "no picture track",
        "sound.wav": "no picture track",
        "huge.png": "",
    }
    run = embed("video", *wanted, "good.mp4")
    assert (run.code, run.ids) == (1, ["good.mp4"])
    told(run.err, wanted)
    assert capfd.readouterr().err == ""


def npy_header(path: Path, shape: tuple[int, ...]) -> str:
    """An NPY file that promises much and holds 100 bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    path.write_bytes(header.getvalue() + bytes(100))
    return path.name


def test_bad_recordings_are_told_one_by_one(embed: Run, folder: Path) -> None:
    lines = generate.imu(folder / "good.csv").read_text().splitlines()
    (folder / "cell.csv").write_text("\n".join([*lines[:9], "1,2,three,4,5,6", *lines[9:]]))
    (folder / "row.csv").write_text("\n".join([*lines[:9], "1,2,3", *lines[9:]]))
    (folder / "names.csv").write_text(lines[0] + "\n")
    (folder / "columns.csv").write_text("1,2,3\n" * 9)
    (folder / "nan.csv").write_text("1,2,3,4,5,nan\n" * 9)
    (folder / "bytes.csv").write_bytes(bytes(range(256)))
    np.save(folder / "objects.npy", np.array([{"a": 1}, print], dtype=object), allow_pickle=True)
    np.save(folder / "words.npy", np.array(["a", "b"]))
    npy_header(folder / "huge.npy", (10**6, 10**6))
    npy_header(folder / "large.npy", (6, 30_000_000))
    wanted = {
        "cell.csv": "line 10: could not convert string to float: 'three'",
        "row.csv": "line 10: 3 columns, 6 before",
        "names.csv": "no rows of numbers",
        "columns.csv": "six channels are needed",
        "nan.csv": "nan",
        "bytes.csv": "not a text file",
        "objects.npy": "holds object",
        "words.npy": "holds <u1",
        "huge.npy": "promises (1000000, 1000000) values",
        "large.npy": "promises (6, 30000000) values; at most 50,000,000 are unpacked",
    }
    run = embed("imu", *wanted, "good.csv")
    assert (run.code, run.ids) == (1, ["good.csv"])
    told(run.err, wanted)


def test_bad_depth_maps_are_told_one_by_one(embed: Run, folder: Path) -> None:
    generate.depth(folder / "good.png")
    generate.thermal(folder / "grey8.png")
    generate.picture(folder / "colour.png")
    np.save(folder / "zero.npy", np.zeros((4, 4), np.uint16))
    np.save(folder / "line.npy", np.ones(4, np.float32))
    (folder / "huge.png").write_bytes(huge_png())
    wanted = {
        "grey8.png": "an 8-bit picture is not metric depth",
        "colour.png": "a colour picture",
        "zero.npy": "no pixel has a depth",
        "line.npy": "shape (4,)",
        "huge.png": "pixels",
    }
    run = embed("depth", *wanted, "good.png")
    assert (run.code, run.ids) == (1, ["good.png"])
    told(run.err, wanted)


def test_a_name_that_is_not_there_fails_and_the_rest_goes_on(embed: Run, folder: Path) -> None:
    generate.picture(folder / "good.png")
    run = embed("image", "gone.png", "*.tiff", "good.png", "--errors", "errors.jsonl")
    assert (run.code, run.ids) == (1, ["good.png"])
    told(run.err, {"gone.png": "no such file or folder", "*.tiff": "no file matches this pattern"})
    embed("image", "gone.png", "--errors", "errors.jsonl")
    errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert errors == [{"id": "gone.png", "reason": "no such file or folder"}, {"id": "*.tiff", "reason": "no file matches this pattern"}]


# Going on with a store


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same name and shape as `tiny`, with other weights."""
    config = dataclasses.replace(model_config.packaged_config("tiny"), rule_seed=2)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    convert(rule.checkpoint_by_rule(config), folder, {})
    return folder


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_command_again_adds_only_what_is_new(embed: Run, folder: Path, ending: str) -> None:
    (folder / "in").mkdir()
    for seed in (1, 3):
        generate.picture(folder / f"in/{seed}.png", seed)
    command = ("image", "in", "-o", f"store{ending}", *ONE_BY_ONE)
    assert embed(*command).code == 0
    before = read_plainly(folder / f"store{ending}")[:2]
    again = embed(*command)
    assert again.code == 0
    assert any("0 embedded, 2 there already" in line for line in again.notices)
    assert read_plainly(folder / f"store{ending}")[0] == before[0]
    generate.picture(folder / "in/2.png", 2)
    third = embed(*command)
    assert any("1 embedded, 2 there already" in line for line in third.notices)
    ids, vectors = read_plainly(folder / f"store{ending}")[:2]
    assert ids == ["in/1.png", "in/3.png", "in/2.png"]
    assert vectors.tobytes() == embed("image", *ids, *ONE_BY_ONE).vectors.tobytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_another_model_or_modality_is_refused_in_one_line(embed: Run, imagebind: Run, folder: Path, other_model: Path, ending: str) -> None:
    name, store = generate.picture(folder / "a.png").name, f"store{ending}"
    assert embed("image", name, "-o", store).code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for run, words in [
        (imagebind("embed", "image", name, "--model", other_model, "-o", store), "made with weights"),
        (embed("vision", name, "-o", store), "made with modality 'image'; this run has 'vision'"),
        (embed("image", name, "-o", store, "--pool", "none"), "made with pool 'mean'; this run has 'none'"),
    ]:
        assert run.code == 1
        (line,) = run.notices
        assert line.startswith(f"imagebind: {store}: {words}")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("ending", [".jsonl", ".npy"])
def test_a_torn_store_is_healed_by_the_same_command(embed: Run, folder: Path, ending: str) -> None:
    sentences = [f"sentence {number}" for number in range(4)]
    command = ("text", *sentences, "-o", f"store{ending}", *ONE_BY_ONE)
    embed(*command)
    wanted = read_plainly(folder / f"store{ending}")[:2]
    os.truncate(folder / f"store{ending}", (folder / f"store{ending}").stat().st_size - 7)
    run = embed(*command)
    assert any("1 embedded, 3 there already" in line for line in run.notices)
    ids, vectors = read_plainly(folder / f"store{ending}")[:2]
    assert ids == wanted[0] == sentences
    assert vectors.tobytes() == wanted[1].tobytes()


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize("ending", GROWING)
def test_a_killed_run_is_completed_by_the_same_command(start: Start, embed: Run, folder: Path, ending: str) -> None:
    sentences = [f"sentence {number}" for number in range(700)]
    path = folder / f"store{ending}"
    process = start("embed", "text", "--model", "tiny", "--device", "cpu", "-o", path)
    assert process.stdin
    process.stdin.write("".join(f"{sentence}\n" for sentence in sentences[:600]).encode())
    process.stdin.flush()
    wait_until(lambda: path.exists() and is_store(path) and len(open_store(path)) > 0)
    process.send_signal(signal.SIGKILL)
    assert process.wait(5) == -signal.SIGKILL
    run = embed("text", "-o", path, stdin="\n".join(sentences).encode())
    assert run.code == 0
    assert " there already" in run.err
    ids, vectors = read_plainly(path)[:2]
    assert ids == sentences
    some = [0, 255, 256, 512, 599, 600, 699]
    assert np.abs(vectors[some] - embed("text", *[sentences[i] for i in some]).vectors).max() <= 1e-6


# Pipes and signals


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory, program: Path) -> subprocess.CompletedProcess[str]:
    """A run of many sentences into `head -n 1`; the exit codes of both are the last line."""
    folder = tmp_path_factory.mktemp("head")
    (folder / "sentences").write_text("".join(f"sentence {number}\n" for number in range(3000)))
    script = f'"{program}" embed text --model tiny < sentences | head -n 1; echo "${{PIPESTATUS[@]}}"'
    return subprocess.run(["bash", "-o", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)


def test_head_ends_the_command_quietly(headed: subprocess.CompletedProcess[str]) -> None:
    first, codes = headed.stdout.splitlines()
    assert json.loads(first)["id"] == "sentence 0"
    assert [line for line in headed.stderr.splitlines() if UNTRAINED not in line] == []
    assert codes != "0 0"


def test_a_command_ended_by_head_exits_141(headed: subprocess.CompletedProcess[str]) -> None:
    assert headed.stdout.splitlines()[-1] == "141 0"


def read_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout
    return json.loads(process.stdout.readline())


@pytest.mark.timeout(60)
def test_a_slow_producer_sees_each_result_and_an_interrupt_ends_the_wait(start: Start) -> None:
    process = start("embed", "text", "--model", "tiny")
    assert process.stdin
    for number in range(2):
        process.stdin.write(b"line %d\n" % number)
        process.stdin.flush()
        assert read_line(process)["id"] == f"line {number}"  # before another line is sent
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - started < 5
    assert process.stdout
    assert process.stderr
    assert process.stdout.read() == b""
    assert b"Traceback" not in process.stderr.read()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_a_terminated_run_leaves_what_was_done(start: Start, folder: Path, ending: str) -> None:
    path = folder / f"store{ending}"
    process = start("embed", "text", "--model", "tiny", "-o", path)
    assert process.stdin
    assert process.stderr
    process.stdin.write(b'one\ntwo\nthree\n{"id": "bad"}\n')
    process.stdin.flush()
    assert UNTRAINED.encode() in process.stderr.readline()
    assert process.stderr.readline().startswith(b"imagebind: bad: ")  # told in its turn, when the rows before it are in memory
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert time.monotonic() - started < 5
    assert process.stderr.read().decode().startswith(f"imagebind: {path}: 3 embedded, 1 failed (")
    ids, vectors = read_plainly(path)[:2]
    assert ids == ["one", "two", "three"]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_a_full_disk_behind_stdout_is_told_in_one_line(embed: Run) -> None:
    run = embed("text", "a dog", stdout="/dev/full")
    assert run.code == 1
    assert [line for line in run.notices if "No space left on device" in line or "no space left on device" in line] == run.notices


@pytest.mark.parametrize("lost", ["2>&-", "2>/dev/full"])
def test_what_cannot_be_said_costs_no_data(lost: str, folder: Path, program: Path) -> None:
    generate.picture(folder / "a.png")
    script = f'"{program}" embed image nope.png a.png --model tiny {lost}'
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert [json.loads(line)["id"] for line in run.stdout.splitlines()] == ["a.png"]


@pytest.mark.parametrize("command", ["embed text dog --model tiny", "weights list", "--help"])
def test_a_closed_stdout_is_told_in_one_line(command: str, folder: Path, program: Path) -> None:
    run = subprocess.run(["sh", "-c", f'"{program}" {command} >&-'], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].endswith(": Bad file descriptor")
    assert "Traceback" not in run.stderr


def test_a_closed_stream_gives_its_number_to_no_file(folder: Path, program: Path) -> None:
    done = subprocess.run(["sh", "-c", f'"{program}" embed text dog -o dog.h5 --model tiny <&- 2>&- >&-'], timeout=60)
    assert done.returncode == 0
    assert read_plainly(folder / "dog.h5")[0] == ["dog"]


# Bad requests


def test_an_option_of_another_modality_is_a_usage_error(embed: Run, folder: Path) -> None:
    run = embed("audio", generate.sample("audio", folder), "--focal", 500)
    assert (run.code, run.out) == (2, b"")
    assert "focal" in run.err
    assert "clips" in run.err


def test_an_unknown_modality_is_a_usage_error_that_lists_the_known(imagebind: Run) -> None:
    run = imagebind("embed", "smell", "rose.png")
    assert (run.code, run.out) == (2, b"")
    assert f"imagebind: unknown modality 'smell'; choose from {', '.join(registry.MODALITIES)}\n" in run.err


def test_inputs_beside_a_manifest_are_a_usage_error(embed: Run, folder: Path) -> None:
    (folder / "pairs.jsonl").write_text('{"image": "a.png"}\n')
    run = embed("image", "a.png", "--manifest", "pairs.jsonl")
    assert (run.code, run.out) == (2, b"")
    assert "not both" in run.err


def test_no_inputs_with_a_terminal_on_stdin_is_a_usage_error(program: Path) -> None:
    own, terminal = pty.openpty()
    run = subprocess.run([program, "embed", "image"], stdin=terminal, capture_output=True, text=True, timeout=20)
    os.close(own)
    os.close(terminal)
    assert (run.returncode, run.stdout) == (2, "")
    assert "no inputs" in run.stderr


def test_a_photo_folder_is_its_pictures_and_one_line_counts_the_rest(embed: Run, imagebind: Run, folder: Path) -> None:
    (folder / "photos/sub").mkdir(parents=True)
    names = ["photos/a.png", "photos/b.JPG", "photos/sub/c.png"]
    for seed, name in enumerate(names):
        generate.picture(folder / name, seed)
    for name in ("README.md", ".DS_Store", "notes.txt", "desktop.ini", "sub/data.json"):
        (folder / "photos" / name).write_text("of another kind")
    generate.audio(folder / "photos/a.wav")
    run = embed("image", "photos")
    assert (run.code, run.ids, len(run.notices)) == (0, names, 1)
    assert "3 embedded, 6 other files skipped (" in run.notices[0]
    for _ in range(2):
        run = embed("image", "photos", "-o", "p.h5")
        assert (run.code, len(run.notices)) == (0, 1)
        assert "6 other files skipped (" in run.notices[0]
    for ending in ENDINGS:  # a store beside its pictures
        for counts in ("3 embedded, 6 other", "0 embedded, 3 there already, "):
            run = embed("image", "photos", "-o", f"photos/p{ending}")
            assert (run.code, len(run.notices)) == (0, 1), run.err
            assert f"photos/p{ending}: {counts}" in run.notices[0]
        for path in (*Path("photos").glob("p.*"), *Path("photos").glob(".p.*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = imagebind("preprocess", "image", "photos", "-o", "p.tar", "--model", "tiny")
    assert (run.code, len(run.notices)) == (0, 1)
    assert "p.tar: 3 prepared, 6 other files skipped (" in run.notices[0]
    run = imagebind("zeroshot", "image", "photos", "--labels", '"table, wooden",chair', "--model", "tiny")
    assert (run.code, run.ids) == (0, names)
    assert (
        [line for line in run.notices if "skipped" in line]
        == [line for line in run.notices if "3 classified, 6 other files skip" in line]
        != []
    )
    strict = embed("image", "photos", "--strict")
    assert (strict.code, strict.ids, len(strict.notices)) == (1, names, 6)
    (folder / "photos/broken.png").write_bytes(b"no picture")
    run = embed("image", "photos")
    assert (run.code, run.ids) == (1, names)
    run = embed("image", "photos/a.wav", "photos/a.png")
    assert (run.code, run.ids) == (1, ["photos/a.png"])
    run = embed("depth", "photos/sub/*.json")
    assert (run.code, run.notices) == (
        1,
        ["imagebind: photos/sub/*.json: no depth among its files: 1 of other kinds, the first photos/sub/data.json"],
    )


def test_a_folder_of_frames_may_hold_files_of_other_kinds(embed: Run, folder: Path) -> None:
    (folder / "walk").mkdir()
    for number in range(4):
        generate.picture(folder / f"walk/{number}.png", number)
    plain = embed("video", "walk", "--fps", 2)
    for name in ("Thumbs.db", "README.md", "frames.json"):
        (folder / "walk" / name).write_text("of another kind")
    among = embed("video", "walk", "--fps", 2)
    assert (among.code, among.out) == (0, plain.out)
    assert any("other files in the folder left out: 3" in line for line in among.notices)


def test_a_name_too_long_to_be_one_is_told_in_one_line(imagebind: Run, folder: Path) -> None:
    long = "x" * 5000
    generate.picture(folder / "a.png")
    for arguments in (
        ["embed", "image", "a.png", "--model", long],
        ["embed", "image", "a.png", "--config", long],
        ["embed", "image", "a.png", "-o", f"{long}.h5"],
        ["embed", "image", "a.png", "--errors", long],
        ["embed", "image", "--manifest", f"{long}.csv"],
        ["embed", "image", long],
        ["zeroshot", "image", "a.png", "--labels", long],
        ["zeroshot", "image", "a.png", "--labels", "a,b", "--templates", long],
        ["zeroshot", "image", "a.png", "--labels", "a,b", "--truth", f"{long}.csv"],
        ["zeroshot", "image", "a.png", "--labels", "a,b", "--save-classes", f"{long}.h5"],
        ["zeroshot", "image", "a.png", "--classes", long],
        ["zeroshot", "--suite", f"{long}.toml", "--root", "."],
        ["zeroshot", "--suite", "esc50", "--root", long],
        ["preprocess", "image", "a.png", "-o", f"{long}.tar"],
        ["preprocess", "image", "a.png", "--preview", long],
        ["retrieve", long, "--text", "a"],
        ["store", "info", long],
        ["store", "check", long],
        ["weights", "info", long],
        ["train", "--recipe", long, "--data", "a.jsonl", "--out", "b"],
        ["train", "--pairs", "image-depth", "--data", f"{long}.jsonl", "--out", "b", "--dry-run"],
    ):
        run = imagebind(*arguments)
        assert run.code in (1, 2), arguments
        assert "Traceback" not in run.err, arguments
        assert len(run.notices) == 1 or run.code == 2 or arguments[1] == "check", (arguments, run.err)


def test_a_stdin_with_nothing_in_it_is_said(embed: Run) -> None:
    for arguments in ([], ["-"], ["-0"]):
        run = embed("image", *arguments, stdin=b"")
        assert (run.code, run.out) == (0, b"")
        assert run.notices == ["imagebind: stdin is empty: there are no inputs"]


def test_no_inputs_with_a_closed_stdin_is_a_usage_error(embed: Run) -> None:
    assert embed("image", stdin=None).code == 2


def test_a_dash_with_a_closed_stdin_is_told_without_a_traceback(embed: Run) -> None:
    assert embed("image", "-", stdin=None).code in (1, 2)


def test_what_cannot_be_done_is_told_in_one_line(embed: Run, imagebind: Run, folder: Path) -> None:
    (folder / "pairs.csv").write_text("id,audio\n1,a.wav\n")
    (folder / "empty").mkdir()
    for run, words in [
        (imagebind("embed", "text", "a dog", "--model", "enormous"), "no model 'enormous'"),
        (imagebind("embed", "text", "a dog", "--model", "huge"), "imagebind weights pull huge"),
        (imagebind("embed", "text", "a dog", "--model", "empty"), "no model here"),
        (embed("text", "a dog", "-o", "store.csv"), "unknown ending '.csv'; choose from .jsonl"),
        (embed("text", "a dog", "-o", "none/store.h5"), "there is no folder none"),
        (embed("image", "--manifest", "pairs.csv"), "no column 'image'; it has id, audio"),
        (embed("image", "--manifest", "none.jsonl"), "none.jsonl: No such file"),
    ]:
        assert (run.code, run.out) == (2 if "ending" in words else 1, b"")
        line = run.notices[0]
        assert len(run.notices) == run.code  # bad usage has a hint
        assert line.startswith("imagebind: ")
        assert words in line


def test_an_errors_file_that_cannot_be_written_is_told_in_one_line(embed: Run, folder: Path) -> None:
    run = embed("text", "a dog", "--errors", "none/errors.jsonl")
    assert (run.code, run.out) == (1, b"")
    (line,) = run.notices
    assert "none/errors.jsonl" in line


HELP_OF_ALL = """
import sys, typer
from imagebind_cli.cli import app

def names(command, path):
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from names(below, [*path, name])

for path in names(typer.main.get_command(app), []):
    try:
        app([*path, "--help"])
    except SystemExit as error:
        assert not error.code, path
    print("helped:", *path)
    heavy = {"torch", "numpy", "av", "PIL", "h5py"} & set(sys.modules)
    assert not heavy, (path, heavy)
"""


def test_help_imports_nothing_heavy() -> None:
    run = subprocess.run([sys.executable, "-c", HELP_OF_ALL], capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stderr) == (0, "")
    helped = [line for line in run.stdout.splitlines() if line.startswith("helped:")]
    assert "helped: embed" in helped
    assert "helped: weights verify" in helped
    assert run.stdout.count("Usage: ") == len(helped)


def test_ctrl_c_while_the_commands_are_imported_is_quiet() -> None:
    code = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "imagebind_cli.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from imagebind_cli.__main__ import main
main()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, b"", b"")


def test_a_row_with_an_id_of_its_own_fails_with_its_file_and_column(imagebind: Run, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"id": "one", "image": "gone.png"}\n')
    (tmp_path / "two.jsonl").write_text('{"id": "two", "image": "here.png", "depth": "gone.npy"}\n')
    generate.picture(tmp_path / "here.png")
    run = imagebind("embed", "image", "--manifest", tmp_path / "one.jsonl", "--model", "tiny")
    assert f"imagebind: one: {tmp_path}/gone.png: no such file or directory" in run.notices
    run = imagebind("preprocess", "image,depth", "--manifest", tmp_path / "two.jsonl", "-o", tmp_path / "out.tar")
    assert f"imagebind: two: depth {tmp_path}/gone.npy: no such file or directory" in run.notices


def test_inputs_that_hold_nothing_of_their_modality_say_so(embed: Run, folder: Path) -> None:
    generate.picture(folder / "a.png")
    assert embed("image", "a.png", "-o", "vectors.h5").code == 0
    (folder / "nothing").mkdir()
    for modality, given, wanted in (
        ("image", "vectors.h5", "imagebind: vectors.h5: a store of vectors; give the files that they were made from"),
        ("image", "nothing", "imagebind: nothing: no file in this folder"),
    ):
        run = embed(modality, given)
        assert (run.code, run.out) == (1, b"")
        assert wanted in run.notices


def test_still_pictures_take_no_options_of_videos(embed: Run, folder: Path) -> None:
    generate.picture(folder / "a.png")
    run = embed("image", "a.png", "--clips", "3")
    assert (run.code, run.out) == (2, b"")
    assert "image has no option 'clips', which is for videos" in " ".join(run.err.split())
    assert embed("vision", "a.png", "--clips", "3").code == 0


def test_a_number_type_without_a_store_is_refused(embed: Run, folder: Path) -> None:
    run = embed("text", "a dog", "--array", "float16")
    assert (run.code, run.out) == (2, b"")
    assert "--array is the number type of a store" in " ".join(run.err.split())


@pytest.mark.parametrize("sentence", ["", "  ", "\t\n", "&nbsp;", "\u3000"])
def test_a_sentence_without_words_is_refused(embed: Run, sentence: str) -> None:
    run = embed("text", sentence, "a dog")
    assert (run.code, run.ids) == (1, ["a dog"])
    assert run.notices[0].endswith(": an empty sentence: there are no words to embed")


MISTAKES = (
    ("embed", "image", "a.png", "--device", "gpu"),
    ("embed", "image", "a.png", "--dtype", "fp8"),
    ("embed", "image", "a.png", "-o", "a.xyz"),
    ("embed", "smell", "a.png"),
    ("embed", "audio", "a.wav", "--channels", "left"),
    ("embed", "audio", "a.wav", "--fps", "3"),
    ("preprocess", "smell", "a.png", "-o", "a.tar"),
    ("preprocess", "image", "a.png", "-o", "a.xyz"),
    ("zeroshot", "image", "a.png", "--labels", "a,b", "--device", "gpu"),
    ("zeroshot", "image", "a.png", "--labels", "a,b", "--save-classes", "a.xyz"),
    ("store", "export", "a.h5", "-o", "a.xyz"),
)
"""One word of each is wrong, whatever the files hold."""


@pytest.mark.parametrize("mistake", MISTAKES, ids=" ".join)
def test_a_wrong_word_in_a_command_exits_2(imagebind: Run, folder: Path, mistake: tuple[str, ...]) -> None:
    generate.picture(folder / "a.png")
    store(folder / "a.h5", "image", ["a"])
    run = imagebind(*mistake)
    assert (run.code, run.out) == (2, b""), run.err
    told, hint = run.err.splitlines()
    assert told.startswith("imagebind: ")
    assert "Value error" not in told
    assert hint.startswith(f"imagebind: hint: imagebind {mistake[0]} ")


MISSING = (
    ("embed", "image", "nothing.png"),
    ("embed", "image", "a.png", "--model", "nothing"),
    ("retrieve", "nothing.h5", "--text", "a dog"),
    ("zeroshot", "image", "a.png", "--labels", "nothing.txt"),
    ("zeroshot", "image", "a.png", "--labels", "a,b", "--templates", "nothing"),
    ("zeroshot", "image", "a.png", "--classes", "nothing"),
    ("zeroshot", "--suite", "nothing", "--root", "."),
    ("store", "info", "nothing.h5"),
    ("weights", "info", "nothing"),
    ("weights", "pull", "nothing"),
    ("train", "--recipe", "nothing", "--out", "run"),
)
"""One thing each is not there."""


@pytest.mark.parametrize("missing", MISSING, ids=" ".join)
def test_what_is_not_there_exits_1(imagebind: Run, folder: Path, missing: tuple[str, ...]) -> None:
    generate.picture(folder / "a.png")
    run = imagebind(*missing)
    assert (run.code, run.out) == (1, b""), run.err
    assert "nothing" in run.err
    assert "Traceback" not in run.err


@pytest.mark.parametrize("modality", ["depth", "thermal", "imu", "image", "audio"])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_store_among_its_own_inputs_is_no_input(embed: Run, folder: Path, modality: str, ending: str) -> None:
    """A folder's stores are skipped, one that is named is refused: an array of vectors could be read as a map."""
    (folder / "in").mkdir()
    name = Path(generate.sample(modality, folder / "in")).name
    output = f"in/v{ending}"
    assert embed(modality, "in", "-o", output).code == 0
    again = embed(modality, "in", "-o", output)
    assert (again.code, "0 embedded, 1 there already" in again.err) == (0, True), again.err
    assert open_store(output).ids == [f"in/{name}"]
    named = embed(modality, output)
    assert (named.code, named.out) == (1, b"")
    assert f"{output}: a store of vectors; give the files that they were made from" in named.err


def test_failures_are_tried_again_among_inputs_that_are_named(embed: Run, folder: Path) -> None:
    run = embed("image", "-o", "a.h5", "--errors", "e.jsonl", "--retry-errors")
    assert (run.code, run.out) == (2, b"")
    assert "give the same inputs again" in run.err
