"""Small media files of every kind, made from a seed: the same seed gives the same content in every format."""

from __future__ import annotations

import io
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image

RATE = 16_000
PICTURE_SIZE = (80, 60)


def pixels(seed: int = 0, size: tuple[int, int] = PICTURE_SIZE) -> np.ndarray:
    """A smooth coloured picture (h, w, 3) uint8, another for each seed, that no rotation or mirroring leaves as it is."""
    width, height = size
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def picture(path: Path, seed: int = 0, size: tuple[int, int] = PICTURE_SIZE, **options: object) -> Path:
    """A picture file of the format its name ends in."""
    Image.fromarray(pixels(seed, size)).save(path, **options)
    return path


def tone(seconds: float = 2.5, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A sound (samples,) float32: a falling tone with a little noise."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (600 + 100 * seed - 100 * time) * time) + 0.05 * random.standard_normal(len(time))
    return wave.astype(np.float32)


def audio(path: Path, seconds: float = 2.5, seed: int = 0, rate: int = RATE) -> Path:
    """A sound file of the format its name ends in: wav, flac, ogg, mp3 by libsndfile, m4a by FFmpeg."""
    samples = tone(seconds, seed, rate)
    if path.suffix == ".m4a":
        with av.open(path, "w", format="ipod") as container:
            _encode_sound(container, container.add_stream("aac", rate=rate, layout="mono"), samples)
    else:
        soundfile.write(path, (samples * 32767).astype(np.int16), rate)
    return path


def video(path: Path, seconds: float = 3, seed: int = 0, rate: int = 10, pictures: bool = True, sound: bool = False) -> Path:
    """A video whose frames change with time; without pictures, or with a sound track, if asked."""
    with av.open(path, "w") as container:
        picture_stream = container.add_stream("mpeg4", rate=rate) if pictures else None
        sound_stream = container.add_stream("aac", rate=RATE, layout="mono") if sound else None  # all streams before any packet
        if picture_stream:
            _encode_pictures(container, picture_stream, int(seconds * rate), Fraction(1, rate), seed)
        if sound_stream:
            _encode_sound(container, sound_stream, tone(seconds, seed))
    return path


def _encode_pictures(container: OutputContainer, stream: VideoStream, count: int, tick: Fraction, seed: int) -> None:
    stream.width, stream.height = PICTURE_SIZE
    stream.pix_fmt = "yuv420p"
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.roll(pixels(seed), 2 * i, axis=1), format="rgb24")
        frame.pts, frame.time_base = i, tick
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _encode_sound(container: OutputContainer, stream: AudioStream, samples: np.ndarray) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, 0, Fraction(1, stream.rate)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate, frame_size=1024)
    for block in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(block))
    container.mux(stream.encode(None))


def relief(seed: int = 0, size: tuple[int, int] = PICTURE_SIZE) -> np.ndarray:
    """Distances (h, w) in metres, from 1 to 5."""
    return 1 + 4 * pixels(seed, size)[..., 0].astype(np.float32) / 255


def depth(path: Path, seed: int = 0) -> Path:
    """A depth map: 16-bit millimetres as .png, metres as .npy."""
    if path.suffix == ".npy":
        np.save(path, relief(seed))
    else:
        Image.fromarray((relief(seed) * 1000).astype(np.uint16)).save(path)
    return path


def thermal(path: Path, seed: int = 0) -> Path:
    """A grey picture of 8 bits."""
    Image.fromarray(pixels(seed)[..., 0]).save(path)
    return path


def readings(seconds: float = 5, seed: int = 0, rate: int = 400) -> np.ndarray:
    """Accelerometer and gyroscope (t, 6) float64."""
    return np.random.default_rng(seed).standard_normal((int(seconds * rate), 6)).round(4)


def imu(path: Path, seconds: float = 5, seed: int = 0) -> Path:
    """A recording as .npy, or as .csv with column names."""
    if path.suffix == ".npy":
        np.save(path, readings(seconds, seed))
    else:
        np.savetxt(path, readings(seconds, seed), "%.4f", delimiter=",", header="ax,ay,az,gx,gy,gz", comments="")
    return path


def sample(modality: str, folder: Path, seed: int = 0) -> str:
    """An input of any modality: the path of a new file in the folder; for text a sentence."""
    if modality == "text":
        return f"sentence number {seed}"
    if modality in ("image", "vision"):
        return str(picture(folder / f"picture{seed}.png", seed))
    makers = {"video": video, "audio": audio, "depth": depth, "thermal": thermal, "imu": imu}
    endings = {"video": "mp4", "audio": "wav", "imu": "csv"}
    return str(makers[modality](folder / f"{modality}{seed}.{endings.get(modality, 'png')}", seed=seed))


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """A tar archive of these members, name and content each; one name may come twice."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            information = tarfile.TarInfo(name)
            information.size = len(data)
            archive.addfile(information, io.BytesIO(data))
    return path
