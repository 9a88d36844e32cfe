"""Broken and odd files of every modality: each is embedded, or told in one line, in bounded time and memory, and the run goes on."""

from __future__ import annotations

import io
import json
import math
import random
import re
import struct
import tarfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import OpenEXR
import pytest
import soundfile
import torch
from PIL import Image

from imagebind_cli.pipeline import reason
from imagebind_cli.printable import printable
from tests import generate
from tests.conftest import UNTRAINED, Python, Run

SECONDS = 10
LIBRARIES = "Note: ", "Warning: ", "<Python Stream>: (EXR_ERR"
"""What libsndfile's MP3 decoder and OpenEXR say on their own, and no setting stops."""

MOST_BYTES = 2_000_000_000
"""Of one process that embeds; PyTorch alone is 0.6 of them."""

EMBEDS = "embeds"
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Odd:
    """A file to be made. expected: `EMBEDS`, or a pattern that the whole reason fits somewhere."""

    modality: str
    name: str
    make: Make
    expected: str


def holding(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def cut(make: Make, keep: float | int, ending: str = "") -> Make:
    """A file without its end: a share of its bytes is kept, or a number of them."""

    def made(path: Path) -> None:
        whole = path.with_suffix(ending) if ending else path
        make(whole)
        data = whole.read_bytes()
        if whole != path:
            whole.unlink()
        path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])

    return made


def patched(make: Make, *places: tuple[bytes, int, bytes]) -> Make:
    """A file in which, at an offset behind the first place of some bytes, other bytes stand."""

    def made(path: Path) -> None:
        make(path)
        data = bytearray(path.read_bytes())
        for mark, offset, other in places:
            at = data.index(mark) + offset
            data[at : at + len(other)] = other
        path.write_bytes(data)

    return made


def renamed(make: Make, ending: str) -> Make:
    """What another ending would make, under this name."""
    return cut(make, 1.0, ending)


# Pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: int, depth: int = 8, kind: int = 2, value: int = 0, before: bytes = b"") -> Make:
    """A PNG of one value, whose header promises `height` rows and whose data holds `rows`, packed a thousand to one."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[kind]
    row = b"\0" + value.to_bytes(max(depth // 8, 1), "big") * math.ceil(width * channels * depth / 8 / max(depth // 8, 1))

    def made(path: Path) -> None:
        packer = zlib.compressobj(1)
        data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + chunk(b"IEND", b""))

    return made


def huge_bmp(path: Path) -> None:
    header = b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes(header + bytes(100))


def tiff(width: int, height: int, data: bytes, compression: int = 8, strip: int | None = None) -> Make:
    """A grey 8-bit TIFF in one strip."""
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1),
        (278, 4, height), (279, 4, len(data) if strip is None else strip),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return holding(struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + bytes(4) + data)


def saved(change: Callable[[Image.Image], Image.Image], **options: Any) -> Make:
    """The usual picture, changed, in the format its name ends in."""
    return lambda path: change(Image.fromarray(generate.pixels())).save(path, **options)


def numbers(values: np.ndarray) -> Make:
    """Numbers as a picture: uint8, uint16, int32 or float32."""
    return lambda path: Image.fromarray(values).save(path)


def moving(path: Path) -> None:
    frames = [Image.fromarray(generate.pixels(seed)) for seed in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def with_exif(data: bytes) -> Make:
    return lambda path: generate.picture(path, exif=b"Exif\0\0" + data)


EXIF_TO_NOWHERE = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 0xFFFFFF00) + bytes(4)
EXIF_LOOP = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
EXIF_ORIENTATION_WORD = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHI4s", 0x0112, 2, 4, b"up!\0") + bytes(4)
EXIF_ORIENTATION_99 = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHIHH", 0x0112, 3, 1, 99, 0) + bytes(4)
ENDLESS_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\n%%EndComments\n{} loop\nshowpage\n%%EOF\n"

KINDS = [
    ("codestream.jxl", b"\xff\x0a" + bytes(50), "JPEG XL is not supported; convert it: djxl"),
    ("boxes.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL is not supported; convert it: djxl"),
    ("plain.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG is not supported; draw it first: rsvg-convert"),
    ("long.svg", b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a comment -->\n<svg:svg width='9'/>", "SVG is not supported; draw it first"),
    ("page.html", b"<!doctype html><html><svg></svg></html>", "of no known kind"),
    ("page.pdf", b"%PDF-1.7\n", "PDF is not supported; draw it first: pdftoppm"),
    ("raw.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "camera raw is not supported; develop it first"),
    ("raw.cr3", b"\0\0\0\x18ftypcrx " + bytes(99), "camera raw is not supported; develop it first"),
    ("layers.psb", b"8BPS\0\2" + bytes(99), "PSB.* is not supported; convert it"),
]
"""Pictures that are known by their first bytes and not read."""


def with_segments(path: Path, *segments: bytes) -> None:
    """A JPEG with segments of these markers and contents behind its first two bytes."""
    generate.picture(path)
    data = path.read_bytes()
    added = b"".join(b"\xff" + segment[:1] + struct.pack(">H", len(segment) + 1) + segment[1:] for segment in segments)
    path.write_bytes(data[:2] + added + data[2:])


IMAGES = [
    Odd("image", "empty.png", holding(b""), "empty"),
    Odd("image", "header.png", cut(generate.picture, 30), "not a readable picture"),
    Odd("image", "half.png", cut(generate.picture, 0.5), "not a readable picture.*truncated"),
    Odd("image", "half.jpg", cut(generate.picture, 0.5), "not a readable picture.*truncated"),
    Odd("image", "start.jpg", cut(generate.picture, 15), "not a readable picture"),
    Odd("image", "half.webp", cut(generate.picture, 0.5), "not a readable picture"),
    Odd("image", "half.gif", cut(moving, 0.1), "not a readable picture"),
    Odd("image", "half.tif", cut(generate.picture, 0.5), "not a readable picture"),
    Odd("image", "half.bmp", cut(generate.picture, 0.5), "not a readable picture.*truncated"),
    Odd("image", "zeros.jpg", holding(bytes(5000)), "not a readable picture"),
    Odd("image", "png-named.jpg", renamed(generate.picture, ".png"), EMBEDS),
    Odd("image", "sound-named.png", renamed(generate.audio, ".wav"), "not a readable picture"),
    Odd("image", "one.png", numbers(np.full((1, 1, 3), 9, np.uint8)), EMBEDS),
    Odd("image", "line.png", lambda path: generate.picture(path, size=(1, 5000)), EMBEDS),
    Odd("image", "wide.png", lambda path: generate.picture(path, size=(60_000, 1)), EMBEDS),
    Odd("image", "flat.png", png(0, 5, 0), "not a readable picture"),
    Odd("image", "huge.png", png(100_000, 100_000, 1), "pixels"),
    Odd("image", "huge.bmp", huge_bmp, "pixels"),
    Odd("image", "huge.tif", tiff(100_000, 100_000, zlib.compress(bytes(1000))), "pixels"),
    Odd("image", "bomb.png", png(10_000, 10_000, 10_000), EMBEDS),
    Odd("image", "bomb-one-bit.png", png(7000, 7000, 7000, depth=1, kind=0), EMBEDS),
    Odd("image", "bomb-16.png", png(7000, 7000, 7000, depth=16, kind=0, value=700), EMBEDS),
    Odd("image", "bomb-text.png", png(9, 9, 9, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20), 1))), EMBEDS),
    Odd("image", "bomb.tif", tiff(7000, 7000, zlib.compress(bytes(49_000_000), 1)), EMBEDS),
    Odd("image", "far-strip.tif", tiff(80, 60, b"x", compression=1, strip=4_000_000_000), "not a readable picture"),
    Odd("image", "moving.gif", moving, EMBEDS),
    Odd("image", "moving.webp", moving, EMBEDS),
    Odd("image", "moving.png", moving, EMBEDS),
    Odd("image", "16.png", numbers(generate.pixels()[..., 0].astype(np.uint16) * 257), EMBEDS),
    Odd("image", "32.tif", numbers(generate.pixels()[..., 0].astype(np.int32) * 70_000), "32-bit picture with values"),
    Odd("image", "float.tif", numbers(generate.relief()), "floating-point picture"),
    Odd("image", "palette.png", saved(lambda image: image.quantize(7), transparency=3), EMBEDS),
    Odd("image", "cmyk.jpg", saved(lambda image: image.convert("CMYK")), EMBEDS),
    Odd("image", "ycbcr.tif", saved(lambda image: image.convert("YCbCr")), EMBEDS),
    Odd("image", "exif-cut.jpg", with_exif(b"II*\0\x08"), EMBEDS),
    Odd("image", "exif-noise.jpg", with_exif(random.Random(0).randbytes(200)), EMBEDS),
    Odd("image", "exif-nowhere.jpg", with_exif(EXIF_TO_NOWHERE), EMBEDS),
    Odd("image", "exif-loop.jpg", with_exif(EXIF_LOOP), EMBEDS),
    Odd("image", "exif-word.jpg", with_exif(EXIF_ORIENTATION_WORD), EMBEDS),
    Odd("image", "exif-99.jpg", with_exif(EXIF_ORIENTATION_99), EMBEDS),
    Odd("image", "endless.eps", holding(ENDLESS_EPS), "EPS"),
    *(Odd("image", name, holding(data), words) for name, data, words in KINDS),
    Odd("image", "cut-segments.jpg", lambda path: with_segments(path, b"\xe0JFIF\0", b"\xe2ICC_PROFILE\0", b"\xeeAdobe"), EMBEDS),
    Odd("image", "long-segments.jpg", lambda path: with_segments(path, *200 * [b"\xe1Exif\0\0" + bytes(65_000)]), EMBEDS),
    Odd("image", "comment.gif", lambda path: generate.picture(path, comment=b"x" * 3_000_000), EMBEDS),
    Odd("image", "profile.webp", lambda path: generate.picture(path, exif=bytes(99), xmp=bytes(99), icc_profile=bytes(99)), EMBEDS),
    Odd("image", "dng.tif", lambda path: generate.picture(path, tiffinfo={50706: b"\1\4\0\0"}), "camera raw"),
]


# Videos


def film(path: Path, frames: int = 20, codec: str = "mpeg4", rate: int = 10, every: int = 1, first: int = 0) -> None:
    """A video of a chosen number of frames; none at all for 0. every: ticks of the clock between frames."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        container.start_encoding()
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(generate.pixels(), i, axis=1), format="rgb24")
            frame.pts, frame.time_base = first + i * every, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def long_mkv(milliseconds: float) -> Make:
    """A Matroska video that says it lasts this long."""
    return patched(film, (b"\x44\x89\x88", 3, struct.pack(">d", milliseconds)))


VIDEOS = [
    Odd("video", "empty.mp4", holding(b""), "empty"),
    Odd("video", "start.mp4", cut(film, 20), "not a readable video"),
    Odd("video", "no-moov.mp4", cut(film, 0.6), "not a readable video"),
    Odd("video", "cut.mkv", cut(film, 0.5), "no frame|not a readable video"),
    Odd("video", "cut.avi", cut(film, 0.5), "not a readable video"),
    Odd("video", "header.mkv", cut(film, 400), "not a readable video"),
    Odd("video", "zeros.mp4", holding(bytes(5000)), "not a readable video"),
    Odd("video", "text.mp4", holding(b"no video\n" * 50), "not a readable video"),
    Odd("video", "mkv-named.mp4", renamed(film, ".mkv"), EMBEDS),
    Odd("video", "sound.mp4", lambda path: generate.video(path, pictures=False, sound=True), "no picture track"),
    Odd("video", "sound.wav", generate.audio, "no picture track"),
    Odd("video", "one-frame.mp4", lambda path: film(path, frames=1), EMBEDS),
    Odd("video", "one-frame.mkv", lambda path: film(path, frames=1), EMBEDS),
    Odd("video", "no-frame.mkv", lambda path: film(path, frames=0), "no frame|not a readable video"),
    Odd("video", "slow.mp4", lambda path: film(path, frames=3, every=30), EMBEDS),
    Odd("video", "slanted.mp4", patched(film, (b"tkhd", 44, struct.pack(">5i", 46341, 46341, 0, -46341, 46341))), "45 degrees"),
    Odd("video", "late.mkv", lambda path: film(path, first=36_000), EMBEDS),
    Odd("video", "still-rate.avi", patched(film, (b"strh", 8 + 24, bytes(4))), EMBEDS),
    Odd("video", "moving.gif", moving, EMBEDS),
    Odd("video", "raw.mjpeg", lambda path: film(path, codec="mjpeg"), EMBEDS),
    Odd("video", "long.mkv", long_mkv(1e13), "last"),
    Odd("video", "endless.mkv", long_mkv(math.inf), EMBEDS),
    Odd("video", "no-length.mkv", long_mkv(math.nan), EMBEDS),
    Odd("video", "back.mkv", long_mkv(-5e6), "last"),
    Odd("video", "huge.png", png(100_000, 100_000, 1), "pixels"),
    Odd("video", "bad-profile.png", png(9, 9, 9, before=chunk(b"iCCP", bytes(9))[:-4] + bytes(4)), EMBEDS),
    *(Odd("video", name, holding(data), f"not a video: .*{words}") for name, data, words in KINDS if name != "page.html"),
]


# Sounds


def wav(rate: int, channels: int = 1, bits: int = 16, data: bytes = bytes(64_000), promised: int | None = None, kind: int = 1) -> Make:
    """A WAV file with any header."""
    width = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data) if promised is None else promised) + data
    return holding(b"RIFF" + struct.pack("<I", len(body)) + body)


def heard(samples: np.ndarray, rate: int = generate.RATE) -> Make:
    return lambda path: soundfile.write(path, samples, rate, "FLOAT")


SOUNDS = [
    Odd("audio", "empty.wav", holding(b""), "empty"),
    Odd("audio", "header.wav", cut(generate.audio, 20), "not a readable sound"),
    Odd("audio", "cut.wav", cut(generate.audio, 0.5), EMBEDS),
    Odd("audio", "cut.mp3", cut(generate.audio, 0.5), EMBEDS),
    Odd("audio", "start.mp3", cut(generate.audio, 3), "not a readable sound"),
    Odd("audio", "cut.flac", cut(generate.audio, 0.5), EMBEDS),
    Odd("audio", "cut.ogg", cut(generate.audio, 0.5), "not a readable sound"),
    Odd("audio", "header.ogg", cut(generate.audio, 60), "not a readable sound"),
    Odd("audio", "cut.m4a", cut(generate.audio, 0.5), "not a readable sound"),
    Odd("audio", "text.wav", holding(b"no sound\n" * 50), "not a readable sound"),
    Odd("audio", "zeros.mp3", holding(bytes(5000)), "not a readable sound"),
    Odd("audio", "flac-named.wav", renamed(generate.audio, ".flac"), EMBEDS),
    Odd("audio", "silent.wav", heard(np.zeros(32_000, np.float32)), EMBEDS),
    Odd("audio", "one-sample.wav", heard(np.ones(1, np.float32)), "at least 25 ms"),
    Odd("audio", "none.wav", heard(np.ones(0, np.float32)), "holds no sound"),
    Odd("audio", "24-ms.wav", lambda path: generate.audio(path, seconds=0.024), "24.0 ms of sound; at least 25 ms"),
    Odd("audio", "nan.wav", heard(np.full(32_000, np.nan, np.float32)), "NaN"),
    Odd("audio", "infinite.wav", heard(np.full(32_000, np.inf, np.float32)), "infinite"),
    Odd("audio", "loud.wav", heard(np.float32(3e38) * np.sign(generate.tone())), "finite"),
    Odd("audio", "loud-44.wav", heard(np.float32(3e38) * np.sign(generate.tone()), 44_100), "finite"),
    Odd("audio", "rate-0.wav", wav(0), "not a readable sound"),
    Odd("audio", "rate-1.wav", wav(1), "1 Hz"),
    Odd("audio", "rate-40-million.wav", wav(40_000_003, data=bytes(4_000_000)), "40,000,003 Hz"),
    Odd("audio", "rate-4-thousand-million.wav", wav(0xFFFFFFFF), "not a readable sound"),
    Odd("audio", "no-channels.wav", wav(16_000, channels=0), "not a readable sound"),
    Odd("audio", "many-channels.wav", wav(16_000, channels=60_000), "not a readable sound"),
    Odd("audio", "endless.wav", wav(16_000, promised=0xFFFFFFFF), EMBEDS),
    Odd("audio", "odd-kind.wav", wav(16_000, kind=0x1234), "not a readable sound"),
    Odd("audio", "silent.mp4", film, "no sound track"),
    Odd("audio", "picture.png", generate.picture, "no sound track"),
    Odd("audio", "picture.jxl", holding(KINDS[1][1]), "no sound track"),
    Odd("audio", "film.mkv", lambda path: generate.video(path, sound=True), EMBEDS),
]


# Depth and thermal


def array(values: np.ndarray) -> Make:
    return lambda path: np.save(path, values)


def npy(header: str, data: bytes = bytes(100), version: tuple[int, int] = (1, 0)) -> Make:
    """An NPY file with any header."""
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return holding(b"\x93NUMPY" + bytes(version) + length + text + data)


def promises(shape: str, descr: str = "'<f4'") -> Make:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


def objects(path: Path) -> None:
    np.save(path, np.array([[{}, None]], object), allow_pickle=True)


def hdf5(values: np.ndarray, name: str = "depth") -> Make:
    def made(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset(name, data=values, compression="gzip", compression_opts=1, chunks=(1, *values.shape[1:]))

    return made


def hdf5_of_zeros(shape: tuple[int, ...], chunks: tuple[int, ...] = (100, 100)) -> Make:
    """A few kilobytes that promise much."""

    def made(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("depth", shape=shape, dtype="f8", chunks=chunks, compression="gzip", fillvalue=1.5)

    return made


def exr(path: Path) -> None:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": RELIEF}).write(str(path))


HDF5_GARBAGE = b"\x89HDF\r\n\x1a\n" + random.Random(1).randbytes(4000)
FLIR_GARBAGE = b"\xff\xd8\xff\xe1" + struct.pack(">H", 60) + b"FLIR\0\x01\0\0" + b"FFF\0" + bytes(46) + b"\xff\xd9"
RELIEF = generate.relief()
BOTH_VAST = np.where(RELIEF > 3, 1.7e308, -1.7e308)


def with_one(value: float) -> np.ndarray:
    values = RELIEF.astype(np.float64)
    values[5, 5] = value
    return values


MAPS = [
    ("nan.npy", array(np.full((60, 80), np.nan)), "no pixel has"),
    ("infinite.npy", array(np.full((60, 80), np.inf)), "no pixel has"),
    ("one-nan.npy", array(with_one(np.nan)), EMBEDS),
    ("one-infinite.npy", array(with_one(np.inf)), EMBEDS),
    ("one-vast.npy", array(with_one(1e308)), EMBEDS),
    ("long-double.npy", array(RELIEF.astype(np.longdouble)), EMBEDS),
    ("half.npy", array(RELIEF.astype(np.float16)), EMBEDS),
    ("big-endian.npy", array(RELIEF.astype(">f4")), EMBEDS),
    ("complex.npy", array(RELIEF.astype(np.complex64)), "complex64"),
    ("word.npy", array(np.array([["a", "b"]])), "numbers are needed"),
    ("line.npy", array(np.ones(40)), "shape"),
    ("four.npy", array(np.ones((2, 3, 4, 5))), "shape"),
    ("nothing.npy", array(np.ones((0, 5))), "shape"),
    ("narrow.npy", array(np.linspace(1, 5, 20_000)[None]), EMBEDS),
    ("objects.npy", objects, "numbers are needed"),
    ("cut.npy", cut(array(RELIEF), 0.5), "not a readable NPY file: it ends before"),
    ("header.npy", cut(array(RELIEF), 40), "not a readable NPY file"),
    ("huge.npy", promises("(100000, 100000)"), "promises"),
    ("vast.npy", promises(f"({10**30}, {10**30})"), "promises"),
    ("negative.npy", promises("(-5, -5)"), "promises"),
    ("nested.npy", npy("(" * 5000), "not a readable NPY file"),
    ("long-header.npy", npy("{" + " " * 60_000), "not a readable NPY file"),
    ("endless-header.npy", holding(b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(100)), "not a readable NPY file"),
    ("version-9.npy", npy("{}", version=(9, 9)), "not a readable NPY file"),
    ("garbage.h5", holding(HDF5_GARBAGE), "not a readable HDF5 file"),
    ("cut.h5", cut(hdf5(RELIEF), 0.5), "not a readable HDF5 file"),
    ("huge.h5", hdf5_of_zeros((100_000, 100_000)), "promises"),
    ("bomb.h5", hdf5_of_zeros((10_000, 12_000)), "promises"),
    ("word.h5", hdf5(np.array([[b"a", b"b"]])), "numbers"),
    ("huge.png", png(100_000, 100_000, 1, depth=16, kind=0), "pixels"),
    ("bomb.png", png(12_000, 12_000, 12_000, depth=16, kind=0, value=700), "pixels"),
    ("half.png", cut(generate.depth, 0.5), "not a readable picture"),
    ("whole.exr", exr, EMBEDS),
    ("cut.exr", cut(exr, 0.5), "not a readable OpenEXR file"),
    ("header.exr", cut(exr, 60), "not a readable OpenEXR file"),
    ("huge.exr", patched(exr, (b"dataWindow\0box2i\0", 29, struct.pack("<ii", 99_999, 99_999))), "pixels|not a readable OpenEXR file"),
    ("colour.png", generate.picture, "colour"),
    ("cut.pfm", cut(numbers(RELIEF), 0.5), "not a readable picture"),
    ("empty.tif", holding(b""), "empty"),
    ("text.png", holding(b"no map\n" * 40), "not a readable picture"),
]

DEPTHS = [
    *(Odd("depth", *odd) for odd in MAPS),
    Odd("depth", "both-vast.npy", array(BOTH_VAST), EMBEDS),
    Odd("depth", "zero.npy", array(np.zeros((60, 80), np.uint16)), "no pixel has a depth"),
    Odd("depth", "below.npy", array(-RELIEF), "no pixel has a depth"),
    Odd("depth", "8-bit.png", generate.thermal, "8-bit picture is not metric depth"),
    Odd("depth", "one.npy", array(np.ones((1, 1))), EMBEDS),
]
THERMALS = [
    *(Odd("thermal", *odd) for odd in MAPS),
    Odd("thermal", "both-vast.npy", array(BOTH_VAST), "too far apart"),
    Odd("thermal", "constant.tif", numbers(np.full((60, 80), 30_000, np.uint16)), "one value"),
    Odd("thermal", "false-colour.png", generate.picture, "--palette"),
    Odd("thermal", "flir.jpg", holding(FLIR_GARBAGE), "broken FLIR record"),
    Odd("thermal", "flir-cut.jpg", holding(FLIR_GARBAGE[:30]), "broken FLIR record"),
]


# IMU recordings


def rows(values: np.ndarray, names: str = "t,ax,ay,az,gx,gy,gz", encoding: str = "utf-8", **cells: str) -> Make:
    """A CSV file of readings; cells: text in place of single ones, by `row_column`."""
    lines = [[repr(float(value)) for value in row] for row in values]
    for place, word in cells.items():
        row, column = (int(number) for number in place.strip("_").split("_"))
        lines[row][column] = word
    return lambda path: path.write_text("\n".join([names, *(",".join(line) for line in lines)]) + "\n", encoding=encoding)


def timed(times: np.ndarray) -> np.ndarray:
    return np.column_stack([times, generate.readings()[: len(times)]])


EVEN = np.arange(2000) / 400
NAN_GAP = timed(EVEN)
NAN_GAP[500:900, 3] = np.nan
BACK = EVEN.copy()
BACK[700:] -= 0.5

RECORDINGS = [
    Odd("imu", "empty.csv", holding(b""), "empty"),
    Odd("imu", "below-zero.csv", rows(timed(EVEN - 100)), EMBEDS),
    Odd("imu", "back.csv", rows(timed(BACK)), "time goes back"),
    Odd("imu", "still.csv", rows(timed(np.ones(50))), "share one stamp in t; --rate is needed"),
    Odd("imu", "jump.csv", rows(timed(np.concatenate([EVEN[:-1], [1e18]]))), "lasts 1e"),
    Odd("imu", "vast-times.csv", rows(timed(np.concatenate([[-1.7e308], EVEN[:-2], [1.7e308]]))), "lasts inf"),
    Odd("imu", "latin-1.csv", rows(timed(EVEN), "t,ax (m/s²),ay (m/s²),az (m/s²),gx (°/s),gy (°/s),gz (°/s)", "latin-1"), EMBEDS),
    Odd("imu", "utf-16.csv", rows(timed(EVEN), encoding="utf-16"), EMBEDS),
    Odd("imu", "columns.csv", rows(timed(EVEN)[:, :5], "t,ax,ay,az,gx"), "no gyroscope"),
    Odd("imu", "cell.csv", rows(timed(EVEN), _50_3="three"), "line 52: .*'three'"),
    Odd("imu", "short-row.csv", cut(rows(timed(EVEN)), 5000), "columns"),
    Odd("imu", "quote.csv", rows(timed(EVEN), _50_3='"'), "columns"),
    Odd("imu", "one-row.csv", rows(timed(EVEN[:1])), "1 reading; at least 2"),
    Odd("imu", "names.csv", holding(b"t,ax,ay,az,gx,gy,gz\n"), "no rows"),
    Odd("imu", "nan-gap.csv", rows(NAN_GAP), "no readings for"),
    Odd("imu", "infinite.csv", rows(timed(EVEN), _50_3="inf"), "infinite"),
    Odd("imu", "vast.csv", rows(timed(EVEN) * [1, 1e300, 1, 1, 1, 1, 1]), "too large"),
    Odd("imu", "binary.csv", holding(random.Random(2).randbytes(3000)), "not a text file"),
    Odd("imu", "binary-no-nul.csv", holding(bytes(range(1, 256)) * 20), "no rows of numbers"),
    Odd("imu", "garbage.h5", holding(HDF5_GARBAGE), "not a readable HDF5 file"),
    Odd("imu", "garbage.mat", holding(b"MATLAB 5.0" + bytes(500)), "(?i)mat"),
    Odd("imu", "garbage.parquet", holding(b"PAR1" + bytes(500)), "Parquet"),
    Odd("imu", "promises.h5", hdf5_of_zeros((33_400_000, 6), chunks=(100_000, 6)), "more than 50,000,000 values"),
    Odd("imu", "huge.npy", promises("(6, 100000000000)"), "promises"),
    Odd("imu", "objects.npy", objects, "numbers are needed"),
    Odd("imu", "line.npy", array(np.ones(40)), "shape"),
    Odd("imu", "nan.npy", array(np.full((2000, 6), np.nan)), "nothing but NaN"),
    Odd("imu", "zero.npy", array(np.zeros((2000, 6))), EMBEDS),
    Odd("imu", "two-rows.npy", array(np.ones((2, 6))), EMBEDS),
    Odd("imu", "picture.png", generate.picture, "not a text file"),
]


# Sentences: a line of stdin each


def letters(count: int) -> bytes:
    return bytes(random.Random(3).choices(b"abcdefghijklmnopqrstuvwxyz", k=count))


SENTENCES = [
    (b"caf\xe9", "not UTF-8"),
    (b"\xff\xfe\x00a", "not UTF-8"),
    (b"a dog barks " * 90_000, EMBEDS),
    (letters(300_000), EMBEDS),
    (b"a" * 1_000_000, EMBEDS),
    (b"&amp;" * 200_000, EMBEDS),
    ("👩‍👩‍👧‍👦".encode() * 5000, EMBEDS),
    (b"a\0dog", EMBEDS),
    (b"\x1b[31m \r \t", EMBEDS),
    (b" ", "an empty sentence"),
    (b"<|endoftext|> a dog <|startoftext|>", EMBEDS),
    (b'{"text": ' + b"[" * 100_000, EMBEDS),
    (b'{"text": 5}', "not a string"),
    (b'{"text": "\\ud800"}', "not UTF-8"),
    (b'{"id": "\\ud800", "text": "a dog"}', EMBEDS),
    (b'{"image": "a.png"}', "no 'text'"),
]


# Tar shards


def picture_bytes(seed: int = 0) -> bytes:
    data = io.BytesIO()
    Image.fromarray(generate.pixels(seed)).save(data, "png")
    return data.getvalue()


def prepared(values: Any, about: Any = None, made: Any = None, cut_to: int | None = None) -> list[tuple[str, bytes]]:
    """The members of a shard as `preprocess` writes it, with one thing wrong."""
    data = io.BytesIO()
    np.save(data, values)
    if made is None:
        options = {"clips": None}
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        made = {"inputs": {"image": {"shape": [3, 2, 224, 224], "mean": mean, "std": std, "options": options}}}
    about = {"id": "a", "spans": {"image": [None]}, "notes": {}} if about is None else about
    return [
        ("__made__", json.dumps(made).encode()),
        ("a.image.npy", data.getvalue()[:cut_to]),
        ("a.json", about if isinstance(about, bytes) else json.dumps(about).encode()),
    ]


def link_members(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            information = tarfile.TarInfo(name)
            information.type, information.linkname = kind, "/etc/passwd"
            archive.addfile(information)


def terabyte(path: Path) -> None:
    information = tarfile.TarInfo("big.png")
    information.size = 1 << 40
    path.write_bytes(information.tobuf(tarfile.GNU_FORMAT) + bytes(2048))


def three_members(path: Path) -> None:
    generate.tar(path, *((f"{i}.png", picture_bytes(i)) for i in range(3)))


STILL = np.zeros((1, 3, 224, 224), np.float32)
NESTED_TAR = io.BytesIO()
with tarfile.open(fileobj=NESTED_TAR, mode="w") as nested:
    nested.addfile(tarfile.TarInfo("inner.png"))


def members(*pairs: tuple[str, bytes]) -> Make:
    return lambda path: generate.tar(path, *pairs)


# Per archive: how many samples embed, and the lines said: id and pattern.
SHARDS: list[tuple[str, Make, int, list[tuple[str, str]]]] = [
    ("whole.tar", three_members, 3, []),
    ("torn.tar", cut(three_members, 0.4), 1, [("torn.tar", "not a complete tar archive")]),
    ("torn-header.tar", cut(three_members, 512 + 300), 0, [("torn-header.tar", "not a complete tar archive")]),
    ("checksum.tar", patched(three_members, (b"1.png\0", 148, b"000000")), 0, [("checksum.tar", "not a complete tar archive")]),
    ("first-checksum.tar", patched(three_members, (b"0.png\0", 148, b"000000")), 0, [("first-checksum.tar", "not a complete tar archive")]),
    ("terabyte.tar", terabyte, 0, [("terabyte.tar", "promises 1,099,511,627,776 bytes")]),
    ("above.tar", members(("../../above.png", picture_bytes())), 1, []),
    ("links.tar", link_members, 0, [("links.tar", "no samples")]),
    ("no-members.tar", members(("folder/", b"")), 0, [("folder/", "no image in this sample")]),
    ("nested.tar", members(("inner.tar", NESTED_TAR.getvalue()), ("b.png", picture_bytes())), 1, [("inner", "no image in this sample")]),
    ("bad-json.tar", members(("a.png", picture_bytes()), ("a.json", b"{"), ("b.png", picture_bytes())), 1, [("a", "JSON")]),
    ("latin-json.tar", members(("a.png", picture_bytes()), ("a.json", b'{"id": "caf\xe9"}')), 0, [("a", "JSON")]),
    ("deep-json.tar", members(("a.png", picture_bytes()), ("a.json", b"[" * 100_000)), 0, [("a", "JSON")]),
    ("list-json.tar", members(("a.png", picture_bytes()), ("a.json", b"[1]")), 1, []),
    ("prepared.tar", members(*prepared(STILL)), 1, []),
    ("not-array.tar", members(*prepared(STILL)[:1], ("a.image.npy", b"no array"), ("a.json", b'{"id": "a"}')), 0, [("a", ".")]),
    ("objects.tar", members(*prepared(np.array([{}], object))), 0, [("a", ".")]),
    ("words.tar", members(*prepared(np.array(["a"]))), 0, [("a", ".")]),
    ("cut-array.tar", members(*prepared(STILL, cut_to=9000)), 0, [("a", ".")]),
    ("shape.tar", members(*prepared(STILL[:, :, :7])), 0, [("a", "shape")]),
    ("scalar.tar", members(*prepared(np.float32(3))), 0, [("a", "shape")]),
    ("no-clips.tar", members(*prepared(STILL[:0])), 0, [("a", "shape")]),
    ("nan.tar", members(*prepared(STILL * np.nan)), 0, [("a", "finite")]),
    ("no-spans.tar", members(*prepared(STILL, {"id": "a"})), 0, [("a", "spans")]),
    ("odd-spans.tar", members(*prepared(STILL, {"id": "a", "spans": {"image": [5]}})), 0, [("a", "spans")]),
    ("odd-about.tar", members(*prepared(STILL, {"id": "a", "spans": 5, "notes": 5})), 0, [("a", "spans")]),
    ("odd-made.tar", members(*prepared(STILL, made=[5])), 0, [("odd-made.tar", "__made__")]),
    ("bad-made.tar", members(("__made__", b"{"), ("a.png", picture_bytes())), 0, [("bad-made.tar", "not a complete tar archive")]),
    ("huge-array.tar", members(*prepared(STILL)[:1], ("a.image.npy", b""), ("a.json", b'{"id": "a"}')), 0, [("a", ".")]),
]


# What is asserted

ODD = [*IMAGES, *VIDEOS, *SOUNDS, *DEPTHS, *THERMALS, *RECORDINGS]
FILES = [modality for modality in dict.fromkeys(odd.modality for odd in ODD)]
LAUNCHER = """
import json, os, signal, sys
pid = os.fork()
if not pid:
    from imagebind_cli.cli import run_command_line
    run_command_line()
signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
signal.alarm(100)
while True:
    try:
        _, status, usage = os.wait4(pid, 0)
        break
    except InterruptedError:
        pass
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024]), file=open("usage.json", "w"))
"""


@dataclass(frozen=True)
class Told:
    """What a run of its own did: ids embedded, ids refused and why, in order, and the reasons that the errors file keeps by id."""

    code: int
    peak: int
    vectors: dict[str, np.ndarray]
    reasons: list[tuple[str, str]]
    kept: dict[str, str]


def run(python: Python, folder: Path, *arguments: str, stdin: bytes = b"") -> Told:
    """`imagebind embed ARGUMENTS` in a process of its own, one file at a time, in a folder."""
    options = ("--model", "tiny", "--device", "cpu", "--workers", "1", "--errors", "errors.jsonl")
    ran = python("-c", LAUNCHER, "embed", *arguments, *options, cwd=folder, input=stdin, text=False)
    code, peak = json.loads((folder / "usage.json").read_text())
    err = ran.stderr.decode()
    assert "Traceback" not in err, err[-3000:]
    own = [line for line in err.splitlines() if not line.startswith(LIBRARIES)]
    lines = [line for line in own if not any(words in line for words in (UNTRAINED, "assumed: ", "cut to the first", "cut short: "))]
    assert all(line.startswith("imagebind: ") for line in lines), err
    reasons = [(id, why) for id, _, why in (line.removeprefix("imagebind: ").partition(": ") for line in lines)]
    assert all(why.strip() and len(why) < 250 for _, why in reasons), err
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    vectors = {row["id"]: np.array(row["embedding"], np.float32) for row in found}
    errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    kept = {printable(error["id"]): error["reason"] for error in errors}
    assert len(kept) == len(errors), "an id has two lines"
    last = dict(reasons)
    assert kept == {id: last[id] for id in kept}
    assert set(kept) >= set(last) - {printable(id) for id in vectors}
    return Told(code, peak, vectors, reasons, kept)


def fits(expected: str, why: str | None) -> bool:
    return why is None if expected == EMBEDS else why is not None and bool(re.search(expected, why))


def unfit(expected: list[str], told: Told) -> list[tuple[str, str]]:
    """The reasons, in order, that do not fit."""
    return [told.reasons[i] for i, pattern in enumerate(expected) if not fits(pattern, told.reasons[i][1])]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of odd files for each modality, and a good file in each."""
    folder = tmp_path_factory.mktemp("odd")
    for modality in FILES:
        (folder / modality).mkdir()
        (folder / modality / "good").mkdir()
        generate.sample(modality, folder / modality / "good")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for odd in ODD:
            odd.make(folder / odd.modality / odd.name)
    return folder


def test_there_are_many_odd_files() -> None:
    assert len({(odd.modality, odd.name) for odd in ODD}) == len(ODD)
    assert len(ODD) + len(SENTENCES) + len(SHARDS) > 200


@pytest.mark.filterwarnings("ignore")  # the command ignores what libraries warn of, too
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd.modality}-{odd.name}")
def test_a_reader_ends_in_time_with_finite_clips_or_a_reason(corpus: Path, tiny: Any, odd: Odd) -> None:
    ended: list[str | BaseException | None] = []

    def read() -> None:
        try:
            for sample in tiny.read(odd.modality, str(corpus / odd.modality / odd.name)):
                if not torch.isfinite(sample.tensor).all():
                    raise ValueError("clips that are not finite, of which the pipeline makes a failure")
                assert tuple(sample.tensor.shape[1:]) in {tiny.config(odd.modality).shape, (3, 224, 224)}
            ended.append(None)
        except (OSError, ValueError, MemoryError) as error:
            ended.append(reason(error))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert ended, f"still reading after {SECONDS} s"
    assert not isinstance(ended[0], BaseException), ended[0]
    assert fits(odd.expected, ended[0]), ended[0]


@pytest.mark.parametrize("modality", FILES)
def test_one_run_over_all_of_them_embeds_what_can_be_and_tells_the_rest(python: Python, corpus: Path, modality: str) -> None:
    odd = [odd for odd in ODD if odd.modality == modality]
    (good,) = (path.relative_to(corpus / modality).as_posix() for path in (corpus / modality / "good").iterdir())
    told = run(python, corpus / modality, modality, *(one.name for one in odd), good)
    reasons = dict(told.reasons)
    wrong = {one.name: reasons.get(one.name) for one in odd if not fits(one.expected, reasons.get(one.name))}
    assert wrong == {}
    assert list(told.vectors) == [*(one.name for one in odd if one.expected == EMBEDS), good]
    assert told.code == 1
    for vector in told.vectors.values():
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert told.peak < MOST_BYTES, f"{told.peak:,} bytes"


def test_odd_sentences(python: Python, tmp_path: Path) -> None:
    began = time.monotonic()
    told = run(python, tmp_path, "text", stdin=b"\n\r\n\n".join([*(line for line, _ in SENTENCES), b"a good one"]))
    assert time.monotonic() - began < SECONDS * 2
    assert told.code == 1
    assert list(told.vectors)[-1] == "a good one"
    refused = [expected for _, expected in SENTENCES if expected != EMBEDS]
    assert unfit(refused, told) == []
    assert len(told.vectors) == sum(expected == EMBEDS for _, expected in SENTENCES) + 1
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in told.vectors.values())
    assert told.peak < MOST_BYTES
    assert [id for id, _ in told.reasons if id not in told.kept] == [r"\ud800"]  # a later input of this id was embedded


def test_odd_shards(python: Python, tmp_path: Path) -> None:
    generate.picture(tmp_path / "good.png")
    for name, make, _, _ in SHARDS:
        make(tmp_path / name)
    told = run(python, tmp_path, "image", *(name for name, _, _, _ in SHARDS), "good.png")
    assert told.code == 1
    wanted = [line for *_, lines in SHARDS for line in lines]
    assert [id for id, _ in told.reasons] == [id for id, _ in wanted]
    assert unfit([pattern for _, pattern in wanted], told) == []
    assert told.kept == dict(told.reasons)  # one id in many archives has one line, with the last reason
    assert list(told.vectors)[-1] == "good.png"
    assert set(told.vectors) == {"good.png", *(f"{i}" for i in range(3)), "../../above", "b", "a"}
    assert told.peak < MOST_BYTES


@pytest.mark.parametrize(("name", "make", "embedded", "lines"), SHARDS, ids=[name for name, *_ in SHARDS])
def test_an_odd_shard_through_a_pipe(embed: Run, tmp_path: Path, name: str, make: Make, embedded: int, lines: Any) -> None:
    make(tmp_path / name)
    done = embed("image", stdin=(tmp_path / name).read_bytes())
    assert len(done.rows) == embedded
    assert len(done.notices) == len(lines)
    for notice, (id, pattern) in zip(done.notices, lines, strict=True):
        assert notice.startswith("imagebind: stdin: " if id == name else f"imagebind: {id}: ")
        assert re.search(pattern, notice)


# Per manifest: its bytes, how many rows embed, and the one line said, if any.
MANIFESTS: list[tuple[str, bytes, int, str]] = [
    ("broken.jsonl", b'{"image": "good.png"}\n{"image": \n', 1, "broken.jsonl:2: not a JSON object"),
    ("list.jsonl", b'{"image": "good.png"}\n["good.png"]\n', 1, "list.jsonl:2: not a JSON object"),
    ("deep.jsonl", b'{"image": ' + b"[" * 100_000, 0, "deep.jsonl:1: not a JSON object"),
    ("digits.jsonl", b'{"image": "good.png", "n": ' + b"9" * 9000 + b"}", 0, "digits.jsonl:1: not a JSON object"),
    ("latin.jsonl", '{"image": "good.png", "who": "Zoë"}'.encode("latin-1"), 0, "latin.jsonl: .*utf-8"),
    ("latin.csv", "id,image\nZoë,good.png\n".encode("latin-1"), 0, "latin.csv: .*utf-8"),
    ("utf-16.csv", "id,image\n1,good.png\n".encode("utf-16"), 0, "utf-16.csv: .*utf-8"),
    ("column.csv", b"id,audio\n1,a.wav\n", 0, "no column 'image'; it has id, audio"),
    ("empty.csv", b"", 0, "no column 'image'; it has none"),
    ("empty.jsonl", b"", 0, ""),
    ("short.csv", b"id,image\n1\n2,good.png\n", 1, "1: short.csv:2: no 'image'"),
    ("quote.csv", b'id,image\n1,good.png\n2,"good.png\n', 1, "quote.csv:3: a quotation mark opens here and is never closed"),
    ("nul.csv", b"id,image\n1,good\0.png\n2,good.png\n", 1, r"1: good\\x00\.png: embedded null"),
    ("surrogate.jsonl", b'{"id": 1, "image": "\\ud800.png"}\n{"image": "good.png"}\n', 1, "1: .*surrogates"),
    ("number.jsonl", b'{"image": 5}\n{"image": "good.png"}\n', 1, "number.jsonl:1: image is 5, not a string"),
    ("binary.jsonl", bytes(range(128)) * 9, 0, "binary.jsonl:1: not a JSON object"),
]


@pytest.mark.parametrize(("name", "data", "embedded", "line"), MANIFESTS, ids=[name for name, *_ in MANIFESTS])
def test_an_odd_manifest(
    embed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, embedded: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    generate.picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(data)
    done = embed("image", "--manifest", name)
    assert len(done.rows) == embedded
    assert done.code == bool(line)
    assert len(done.notices) == bool(line)
    assert re.search(line, "".join(done.notices))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"# Notes\n\nWords, and more words.\n" * 9, "it seems to be text"),
        ("Größe in µm\n".encode() * 700, "it seems to be text"),
        (b"#!/bin/sh\necho hello\n", "it seems to be a script"),
        (b"\x7fELF\x02\x01\x01" + bytes(3000), "it seems to be a program"),
        (b"SQLite format 3\0" + bytes(range(256)), "it seems to be a database of SQLite"),
        (b"#EXTM3U\n#EXTINF:10,\nother.ts\n", "it seems to be a playlist, which names other files"),
        (b"\x89HDF\r\n\x1a\n" + bytes(900), "it seems to be an HDF5 file"),
        (bytes(range(7, 256)) * 9, "its format is not known, or it is damaged"),
    ],
)
@pytest.mark.parametrize(("modality", "word"), [("audio", "sound"), ("video", "video")])
def test_a_file_that_is_not_a_sound_is_refused_in_one_clear_line(
    tiny: Any, tmp_path: Path, content: bytes, kind: str, modality: str, word: str
) -> None:
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".") as refused:
        list(tiny.read(modality, str(path)))
    assert str(refused.value) == f"not a readable {word}: {kind}"


@pytest.mark.parametrize(("modality", "word"), [("audio", "sound"), ("video", "video")])
def test_a_photo_is_named_where_a_sound_or_a_video_is_needed(tiny: Any, tmp_path: Path, modality: str, word: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "dog.jpg")
    with pytest.raises(ValueError, match=f"^not a readable {word}: it seems to be a picture$"):
        list(tiny.read(modality, str(tmp_path / "dog.jpg")))
