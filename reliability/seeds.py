"""Good files of every kind that is read, made by rule and small: what damage is done to."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import soundfile
from PIL import Image

RATE = 16000


@dataclass(frozen=True)
class Kind:
    """Files of one kind: the modality they are embedded as, the ending, and the function that writes one."""

    modality: str
    name: str
    write: Callable[[Path], None]
    arguments: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix


def picture(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth picture of a Pillow mode."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    values = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 200 + 1)
    return Image.fromarray(values).convert(mode)


def tone(seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """A falling tone (samples,) float32."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (600 - 200 * time) * time)).astype(np.float32)


def relief() -> np.ndarray:
    """Distances (h, w) float32 in metres."""
    return 1 + np.asarray(picture("L"), np.float32) / 80


def readings(seconds: float = 3, rate: int = 100) -> np.ndarray:
    """Times, accelerometer and gyroscope (t, 7) float64."""
    time = np.arange(int(seconds * rate)) / rate
    return np.column_stack([time, *(np.sin(time * (1 + axis)) for axis in range(6))]).round(5)


AXES = ("time", "accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z")


def _save(mode: str, **options: object) -> Callable[[Path], None]:
    return lambda path: picture(mode).save(path, **options)


def _animated(path: Path) -> None:
    frames = [picture("RGB").rotate(10 * turn) for turn in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def _sound(**options: str) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, tone(), RATE, **options)


def _encoded(video: str | None = None, sound: str | None = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with av.open(path, "w") as container:
            pictures = container.add_stream(video, rate=10) if video else None
            heard = container.add_stream(sound, rate=RATE) if sound else None
            if pictures is not None:
                pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuvj420p" if video == "mjpeg" else "yuv420p"
                for number in range(10):
                    frame = av.VideoFrame.from_image(picture("RGB", (64, 48)).rotate(5 * number))
                    frame.pts, frame.time_base = number, Fraction(1, 10)
                    container.mux(pictures.encode(frame))
                container.mux(pictures.encode(None))
            if heard is not None:
                frame = av.AudioFrame.from_ndarray(tone()[None], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
                for piece in av.AudioResampler(format="fltp", layout="mono", rate=RATE, frame_size=1024).resample(frame):
                    container.mux(heard.encode(piece))
                container.mux(heard.encode(None))

    return write


def _pfm(path: Path) -> None:
    height, width = relief().shape
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % (width, height) + relief()[::-1].astype("<f4").tobytes())


def _exr(path: Path) -> None:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": relief()}) as file:
        file.write(str(path))


def _hdf5(**arrays: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, chunks=array.shape, compression="gzip")

    return write


def _matlab(path: Path) -> None:
    from scipy.io import savemat

    savemat(path, {"acc": readings()[:, 1:4], "gyr": readings()[:, 4:], "time": readings()[:, 0]}, do_compression=True)


def _parquet(path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    parquet.write_table(arrow.table(dict(zip(AXES, readings().T, strict=True))), path)


def _table(delimiter: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with open(path, "w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([AXES, *readings().tolist()])

    return write


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, columns in (("Accelerometer.csv", (0, 1, 2, 3)), ("Gyroscope.csv", (0, 4, 5, 6))):
            lines = io.StringIO()
            csv.writer(lines).writerows([("seconds_elapsed", "x", "y", "z"), *readings()[:, columns].tolist()])
            archive.writestr(name, lines.getvalue())


def _text_map(path: Path) -> None:
    np.savetxt(path, relief() * 10, fmt="%.2f", delimiter=",")


def _saved(array: Callable[[], np.ndarray]) -> Callable[[Path], None]:
    return lambda path: np.save(path, array())


def _sample_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for number in range(3):
            data = io.BytesIO()
            picture("RGB").rotate(90 * number).save(data, "png")
            for name, body in ((f"{number}.png", data.getvalue()), (f"{number}.json", json.dumps({"n": number}).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))


MILLIMETRES = ("--depth-format", "mm")
KINDS = [
    *(Kind("image", f"{mode.replace(';', '')}.png", _save(mode)) for mode in ("RGB", "RGBA", "P", "LA", "1", "I;16")),
    Kind("image", "i.jpg", _save("RGB", quality=80)),
    Kind("image", "progressive.jpg", _save("RGB", progressive=True)),
    Kind("image", "cmyk.jpg", _save("CMYK")),
    *(Kind("image", f"i.{ending}", _save("RGB")) for ending in ("webp", "bmp", "gif", "ppm", "tga", "avif", "jp2")),
    Kind("image", "i.tiff", _save("RGB", compression="tiff_lzw")),
    *(Kind("video", f"v.{ending}", _animated) for ending in ("gif", "webp", "png")),
    Kind("video", "v.mp4", _encoded("mpeg4", "aac")),
    Kind("video", "v.mkv", _encoded("mpeg4")),
    Kind("video", "v.avi", _encoded("mjpeg")),
    Kind("video", "v.webm", _encoded("libvpx")),
    Kind("audio", "a.wav", _sound()),
    Kind("audio", "a24.wav", _sound(subtype="PCM_24")),
    Kind("audio", "adpcm.wav", _sound(subtype="IMA_ADPCM")),
    *(Kind("audio", f"a.{ending}", _sound()) for ending in ("flac", "ogg", "mp3", "aiff", "au", "caf", "w64")),
    Kind("audio", "a.m4a", _encoded(None, "aac")),
    Kind("audio", "a.mka", _encoded(None, "aac")),
    Kind("depth", "d.png", _save("I;16"), MILLIMETRES),
    Kind("depth", "d.tiff", _save("I;16"), MILLIMETRES),
    Kind("depth", "d.npy", _saved(relief)),
    Kind("depth", "d.npz", lambda path: np.savez_compressed(path, depth=relief())),
    Kind("depth", "d.pfm", _pfm),
    Kind("depth", "d.exr", _exr),
    Kind("depth", "d.h5", _hdf5(depth=relief())),
    Kind("depth", "d.csv", _text_map),
    Kind("thermal", "t.png", _save("L")),
    Kind("thermal", "t16.png", _save("I;16")),
    Kind("thermal", "t.npy", _saved(lambda: relief().astype(np.float16))),
    Kind("thermal", "t.csv", _text_map),
    Kind("thermal", "t.h5", _hdf5(thermal=relief())),
    Kind("imu", "m.npy", _saved(lambda: readings()[:, 1:])),
    Kind("imu", "m.npz", lambda path: np.savez(path, time=readings()[:, 0], acc=readings()[:, 1:4], gyr=readings()[:, 4:])),
    Kind("imu", "m.csv", _table(",")),
    Kind("imu", "m.tsv", _table("\t")),
    Kind("imu", "m.h5", _hdf5(time=readings()[:, 0], acc=readings()[:, 1:4], gyr=readings()[:, 4:])),
    Kind("imu", "m.mat", _matlab),
    Kind("imu", "m.parquet", _parquet),
    Kind("imu", "m.zip", _zipped),
    Kind("image", "samples.tar", _sample_tar),
]
"""Inputs of `imagebind embed`."""
