"""Small sample files of all seven modalities, made by rule: nothing is fetched, and every run makes the same ones.

    python recipes/demo/make_samples.py [FOLDER]

Things come in likes and unlikes (sunset and noon over the sea, a walk and a run), so that nearness has something to find.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, ImageDraw

SAMPLES = Path(__file__).parent / "samples"
SIDE = 256  # pixels of a picture
MAP_WIDTH, MAP_HEIGHT = 256, 192  # depth and thermal cameras are coarser and wider
VIDEO_SECONDS, VIDEO_RATE = 4, 12
SOUND_SECONDS, SOUND_RATE = 3, 16_000
IMU_SECONDS, IMU_RATE = 5, 400
GRAVITY = 9.81

CAPTIONS = ("sunset over the sea", "a forest of firs", "a city at night", "birds singing", "a person walking", "an empty corridor")

Colour = tuple[float, float, float]


def make(folder: Path) -> None:
    """Write every sample: a folder per modality, and `captions.txt`, a sentence a line."""
    for modality, (ending, write, makers) in SAMPLES_BY_MODALITY.items():
        (folder / modality).mkdir(parents=True, exist_ok=True)
        for name, maker in makers.items():
            write(folder / modality / f"{name}.{ending}", maker)
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8", newline="\n")


# Pictures and videos


def sea(evening: float) -> np.ndarray:
    """The sea and the sun above it, (h, w, 3) uint8: noon at 0, sunset at 1, dusk past it. The water is the sky, mirrored in ripples."""
    x, y = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
    horizon = 0.58
    below = np.maximum(y - horizon, 0)
    nearness = below / (1 - horizon)
    waves = np.sin(24 / (nearness + 0.12) + 9 * x) + np.sin(41 / (nearness + 0.15) - 17 * x + 2) + np.sin(60 * x + 90 * nearness)
    mirrored_y = np.where(y > horizon, horizon - below * 0.8 + 0.05 * nearness * waves, y)
    mirrored_x = np.where(y > horizon, x + 0.03 * (0.3 + nearness) * waves, x)
    colours = sky(mirrored_x, mirrored_y, evening, horizon)
    water = np.where(y > horizon, 0.72 - 0.25 * nearness + 0.05 * waves, 1)[..., None]
    return as_picture(colours * water + (1 - water) * np.array((8, 26, 62)))


def sky(x: np.ndarray, y: np.ndarray, evening: float, horizon: float) -> np.ndarray:
    """Colours (h, w, 3) of the sky at points of the picture, the sun in it."""
    hours = np.array([0, 0.6, 1, 1.3])
    top = shade(hours, [(55, 130, 225), (60, 100, 190), (45, 45, 105), (20, 22, 60)], evening)
    low = shade(hours, [(195, 228, 248), (250, 205, 140), (250, 125, 60), (150, 60, 75)], evening)
    disk = shade(hours, [(255, 255, 240), (255, 245, 190), (255, 215, 130), (235, 110, 60)], evening)
    height = np.clip((horizon - y) / horizon, 0, 1)[..., None] ** 0.7
    colours = low * (1 - height) + top * height
    distance = np.hypot(x - (0.35 + 0.15 * evening), y - (0.12 + 0.38 * evening))
    glow = 0.75 * np.exp(-distance / 0.13)[..., None]
    colours = colours * (1 - glow) + disk * glow
    sun = np.clip((0.07 - distance) * SIDE / 2, 0, 1)[..., None]
    return colours * (1 - sun) + disk * sun


def shade(stops: np.ndarray, colours: list[Colour], position: float) -> np.ndarray:
    """The colour at a position along a row of colours, (3,)."""
    return np.array([np.interp(position, stops, channel) for channel in zip(*colours, strict=True)])


def forest() -> np.ndarray:
    """Rows of firs, the far ones pale with mist, (h, w, 3) uint8."""
    random = np.random.default_rng(1)
    picture = Image.fromarray(as_picture(gradient((150, 185, 205), (215, 228, 215), 2 * SIDE)))
    draw = ImageDraw.Draw(picture)
    for row in range(5):
        near = row / 4
        ground = SIDE * 2 * (0.5 + 0.62 * near)
        colour = tuple(round(far + (close - far) * near) for far, close in zip((150, 180, 165), (18, 52, 34), strict=True))
        draw.rectangle((0, ground - 4, 2 * SIDE, 3 * SIDE), fill=colour)
        for centre in np.arange(0, 2 * SIDE + 40, 24 + 40 * near):
            height = (70 + 260 * near) * random.uniform(0.75, 1.25)
            fir(draw, centre + random.uniform(-14, 14), ground, height, colour)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def fir(draw: ImageDraw.ImageDraw, centre: float, ground: float, height: float, colour: tuple[int, ...]) -> None:
    """One tree: triangles, each wider than the one above it."""
    draw.rectangle((centre - height * 0.03, ground - height * 0.1, centre + height * 0.03, ground), fill=colour)
    for tier in range(4):
        tip, foot = ground - height * (1 - 0.2 * tier), ground - height * (0.62 - 0.18 * tier)
        half = height * (0.1 + 0.05 * tier)
        draw.polygon([(centre, tip), (centre - half, foot), (centre + half, foot)], fill=colour)


def city(seconds: float) -> np.ndarray:
    """A street at night under lit windows, its cars on the way, (h, w, 3) uint8."""
    random = np.random.default_rng(2)
    picture = Image.fromarray(as_picture(gradient((8, 10, 30), (50, 42, 70), SIDE)))
    draw = ImageDraw.Draw(picture)
    street = round(SIDE * 0.82)
    left = 0
    while left < SIDE:
        width, height = int(random.integers(26, 46)), int(random.integers(70, 175))
        draw.rectangle((left, street - height, left + width - 2, street), fill=(16, 17, 28))
        for top in range(street - height + 6, street - 8, 10):
            for window in range(left + 4, left + width - 8, 8):
                if random.random() < 0.45:
                    draw.rectangle((window, top, window + 3, top + 4), fill=(255, int(random.integers(190, 235)), 120))
        left += width
    draw.rectangle((0, street, SIDE, SIDE), fill=(22, 22, 28))
    lights = np.zeros((SIDE, SIDE, 3))
    for lane, speed, colour in ((0.88, 0.22, (255, 240, 200)), (0.95, -0.3, (255, 40, 25))):
        for start in (0.1, 0.55, 0.9):
            lights += light((start + speed * seconds) % 1.2 - 0.1, lane, colour)
    return as_picture(np.asarray(picture) + lights)


def light(x: float, y: float, colour: Colour) -> np.ndarray:
    """A lamp and its glow, to be added to a picture (h, w, 3)."""
    across, down = np.meshgrid(np.linspace(0, 1, SIDE) - x, np.linspace(0, 1, SIDE) - y)
    distance = np.hypot(across, down)
    return (np.exp(-((distance / 0.012) ** 2)) + 0.4 * np.exp(-distance / 0.03))[..., None] * np.array(colour)


def gradient(top: Colour, bottom: Colour, side: int) -> np.ndarray:
    """Colours (side, side, 3) from one at the top to another at the bottom."""
    position = np.linspace(0, 1, side)[:, None, None]
    return np.broadcast_to(np.array(top) * (1 - position) + np.array(bottom) * position, (side, side, 3))


def as_picture(colours: np.ndarray) -> np.ndarray:
    """Any numbers as uint8, cut off at both ends."""
    return np.clip(np.round(colours), 0, 255).astype(np.uint8)


def write_picture(path: Path, maker: Callable[[], np.ndarray]) -> None:
    Image.fromarray(maker()).save(path, quality=85)


def write_video(path: Path, maker: Callable[[float], np.ndarray]) -> None:
    """H.264 where the library has an encoder for it, MPEG-4 elsewhere. One thread, because the bytes depend on their number."""
    with av.open(path, "w") as container:
        if "libx264" in av.codecs_available:
            stream = container.add_stream("libx264", rate=VIDEO_RATE, options={"crf": "26", "threads": "1"})
        else:
            stream = container.add_stream("mpeg4", rate=VIDEO_RATE)
            stream.bit_rate = 200_000
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(VIDEO_SECONDS * VIDEO_RATE):
            frame = av.VideoFrame.from_ndarray(maker(number / VIDEO_RATE), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


# Sounds


def bell() -> np.ndarray:
    """Two strokes of a bell, (samples,): a minor-third chord of partials, the higher the sooner gone."""
    sound = np.zeros(SOUND_SECONDS * SOUND_RATE)
    for start in (0.05, 1.5):
        time = np.maximum(moments() - start, 0)
        for ratio, strength in ((0.5, 0.6), (1, 1), (1.2, 0.8), (1.5, 0.5), (2, 0.7), (2.67, 0.3), (3, 0.3), (4.2, 0.2)):
            sound += strength * np.sin(2 * math.pi * 523 * ratio * time) * np.exp(-1.6 * ratio * time)
    return sound


def birds() -> np.ndarray:
    """Phrases of whistles that glide between 2 and 6 kHz, (samples,)."""
    random = np.random.default_rng(3)
    sound = 0.002 * random.standard_normal(SOUND_SECONDS * SOUND_RATE)
    for phrase in np.arange(0.1, SOUND_SECONDS - 0.5, 0.6):
        start, pitch, glide = phrase, random.uniform(2600, 4600), random.uniform(-9000, 9000)
        for _ in range(random.integers(2, 5)):
            length = random.uniform(0.06, 0.11)
            time = moments() - start
            sings = (time >= 0) & (time < length)
            envelope = np.where(sings, np.sin(math.pi * np.clip(time / length, 0, 1)) ** 2, 0)
            sound += envelope * np.sin(2 * math.pi * (pitch * time + glide * time**2 / 2))
            start += length + 0.03
    return sound


def surf() -> np.ndarray:
    """Waves that break and run out, (samples,)."""
    swell = 0.25 + np.sin(math.pi * moments() / 1.5) ** 4
    return swell * noise(seed=4, falling=0.75)


def rain() -> np.ndarray:
    """A steady rush with drops in it, (samples,)."""
    random = np.random.default_rng(5)
    sound = noise(seed=6, falling=0.3)
    for start in random.uniform(0, SOUND_SECONDS, size=90):
        time = moments() - start
        drop = np.exp(-500 * np.maximum(time, 0)) * np.sin(2 * math.pi * random.uniform(1500, 5000) * time)
        sound += np.where(time >= 0, random.uniform(1, 4) * drop, 0)
    return sound


def noise(seed: int, falling: float) -> np.ndarray:
    """Noise whose amplitude falls as frequency ** -falling, (samples,), of unit variance."""
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(SOUND_SECONDS * SOUND_RATE))
    frequency = np.maximum(np.fft.rfftfreq(SOUND_SECONDS * SOUND_RATE, 1 / SOUND_RATE), 60)
    sound = np.fft.irfft(white * frequency**-falling)
    return sound / sound.std()


def moments() -> np.ndarray:
    """The time of every sample in seconds, (samples,)."""
    return np.arange(SOUND_SECONDS * SOUND_RATE) / SOUND_RATE


def write_sound(path: Path, maker: Callable[[], np.ndarray]) -> None:
    """MP3 at a loudness that leaves the codec room: unlike Ogg, it holds no serial number drawn anew on every run."""
    sound = maker()
    soundfile.write(path, 0.7 * sound / abs(sound).max(), SOUND_RATE, format="MP3")


# Depth

Box = tuple[Colour, Colour]
"""Two opposite corners in metres: right of the camera, below it, ahead of it."""


def depth(walls: Box, things: list[Box]) -> np.ndarray:
    """What a depth camera sees from inside a box with boxes in it: metres ahead, (h, w) uint16 millimetres in steps of 10."""
    focal = 0.9 * MAP_WIDTH
    x, y = np.meshgrid(np.arange(MAP_WIDTH) - MAP_WIDTH / 2 + 0.5, np.arange(MAP_HEIGHT) - MAP_HEIGHT / 2 + 0.5)
    rays = np.stack([x / focal, y / focal, np.ones_like(x)], axis=-1)  # (h, w, 3), each one metre ahead
    nearest = crossings(rays, walls).max(axis=-1).min(axis=-1)
    for thing in things:
        planes = crossings(rays, thing)
        enters, leaves = planes.min(axis=-1).max(axis=-1), planes.max(axis=-1).min(axis=-1)
        nearest = np.where((enters > 0) & (enters < leaves), np.minimum(nearest, enters), nearest)
    return (np.round(nearest * 100) * 10).astype(np.uint16)


def crossings(rays: np.ndarray, box: Box) -> np.ndarray:
    """How far along each ray the six planes of a box lie, (h, w, 3, 2): per axis, the first corner's and the second's."""
    return np.array(box).T / rays[..., None]


def room() -> np.ndarray:
    """A room with a table, a cupboard and a bed."""
    table = [((-0.7, 0.25, 2.2), (0.5, 0.32, 3.0)), *(((x, 0.32, z), (x + 0.08, 1.1, z + 0.08)) for x in (-0.7, 0.42) for z in (2.2, 2.92))]
    return depth(((-2, -1.4, -1), (2, 1.1, 4.5)), [*table, ((1.2, -0.9, 3.4), (2, 1.1, 4.5)), ((-2, 0.6, 3.2), (-0.9, 1.1, 4.5))])


def corridor() -> np.ndarray:
    """A long corridor, doors ajar on both sides."""
    doors: list[Box] = [((x, -0.7, z), (x + 0.25, 1.2, z + 0.06)) for x, z in ((-1, 2.5), (0.75, 3.5), (-1, 5.5), (0.75, 7.5))]
    return depth(((-1, -1.2, -1), (1, 1.2, 12)), doors)


def stairs() -> np.ndarray:
    """A flight of stairs that leads up between two walls."""
    steps: list[Box] = [((-1.2, 1.3 - 0.18 * (step + 1), 1.8 + 0.28 * step), (1.2, 1.3, 6)) for step in range(12)]
    return depth(((-1.2, -2.2, -1), (1.2, 1.3, 6)), steps)


# Thermal

Limb = tuple[float, float, float, float, float, float]
"""Where a rounded shape starts and ends (x, y, x, y), its radius, in heights of the picture, and how warm it is from 0 to 1."""


def thermal(warmth: np.ndarray, limbs: list[Limb]) -> np.ndarray:
    """What a thermal camera sees: limbs before a background (h, w) in [0, 1], edges soft, columns uneven, (h, w) uint8."""
    x, y = np.meshgrid(np.arange(MAP_WIDTH) / MAP_HEIGHT, np.arange(MAP_HEIGHT) / MAP_HEIGHT)
    for start_x, start_y, end_x, end_y, radius, heat in limbs:
        along_x, along_y = end_x - start_x, end_y - start_y
        length = max(along_x**2 + along_y**2, 1e-9)
        position = np.clip(((x - start_x) * along_x + (y - start_y) * along_y) / length, 0, 1)
        distance = np.hypot(x - start_x - position * along_x, y - start_y - position * along_y)
        inside = 1 / (1 + np.exp((distance - radius) / 0.006))
        rounded = heat * (1 - 0.15 * np.minimum(distance / radius, 1) ** 2)
        warmth = warmth * (1 - inside) + rounded * inside
    unevenness = np.random.default_rng(7).normal(0, 0.006, size=MAP_WIDTH)
    return as_picture(255 * (warmth + unevenness))


def background(top: float, bottom: float) -> np.ndarray:
    """Warmth that changes evenly from the top to the bottom, (h, w)."""
    return np.repeat(np.linspace(top, bottom, MAP_HEIGHT)[:, None], MAP_WIDTH, axis=1)


def person() -> np.ndarray:
    """A person before a cool wall: the face and hands warmest, clothes less."""
    body: list[Limb] = [(0.62, 0.72, 0.58, 1.1, 0.06, 0.55), (0.71, 0.72, 0.75, 1.1, 0.06, 0.55), (0.665, 0.4, 0.665, 0.7, 0.11, 0.62)]
    arms: list[Limb] = [(0.56, 0.36, 0.47, 0.62, 0.04, 0.6), (0.77, 0.36, 0.88, 0.58, 0.04, 0.6)]
    skin: list[Limb] = [(0.46, 0.65, 0.45, 0.68, 0.033, 0.85), (0.9, 0.61, 0.92, 0.63, 0.033, 0.85), (0.665, 0.2, 0.665, 0.24, 0.075, 0.95)]
    return thermal(background(0.22, 0.16), [*body, *arms, *skin])


def cat() -> np.ndarray:
    """A cat on a cool floor, its eyes and ears warmest."""
    body: list[Limb] = [(0.5, 0.68, 0.82, 0.64, 0.12, 0.66), (0.88, 0.62, 1.08, 0.42, 0.025, 0.5), (0.46, 0.48, 0.44, 0.5, 0.1, 0.74)]
    legs: list[Limb] = [(x, 0.72, x, 0.88, 0.032, 0.55) for x in (0.48, 0.58, 0.75, 0.85)]
    head: list[Limb] = [(0.385, 0.41, 0.375, 0.385, 0.024, 0.9), (0.515, 0.41, 0.525, 0.385, 0.024, 0.9)]
    eyes: list[Limb] = [(0.41, 0.48, 0.41, 0.48, 0.014, 0.98), (0.48, 0.48, 0.48, 0.48, 0.014, 0.98)]
    return thermal(background(0.18, 0.26), [*legs, *body, *head, *eyes])


def car() -> np.ndarray:
    """A car that has just been driven: bonnet, tyres and exhaust hot, windows and sky cold."""
    shell: list[Limb] = [(0.3, 0.62, 1.02, 0.62, 0.1, 0.4), (0.48, 0.48, 0.8, 0.48, 0.08, 0.36), (0.9, 0.6, 1.04, 0.62, 0.08, 0.85)]
    windows: list[Limb] = [(0.5, 0.48, 0.58, 0.48, 0.045, 0.12), (0.7, 0.48, 0.78, 0.48, 0.045, 0.12)]
    hot: list[Limb] = [(x, 0.73, x, 0.73, 0.075, 0.7) for x in (0.4, 0.92)] + [(0.17, 0.71, 0.2, 0.71, 0.02, 0.97)]
    return thermal(np.where(background(0, 1) < 0.55, background(0.04, 0.12), background(0.2, 0.32)), [*shell, *windows, *hot])


def write_map(path: Path, maker: Callable[[], np.ndarray]) -> None:
    Image.fromarray(maker()).save(path, optimize=True)


# IMU


def gait(steps_a_second: float, force: float, seed: int) -> np.ndarray:
    """Readings (t, 6) of a sensor worn upright on somebody who walks or runs: every step shakes it, every second one sways it."""
    time = np.arange(IMU_SECONDS * IMU_RATE) / IMU_RATE
    step = 2 * math.pi * steps_a_second * time
    stride = step / 2
    jolt = force * (np.sin(step) + 0.5 * np.sin(2 * step + 0.8) + 0.25 * np.sin(3 * step + 1.9))
    forth = 0.5 * force * (np.cos(step) + 0.4 * np.sin(2 * step))
    readings = [0.4 * force * np.sin(stride), forth, GRAVITY + jolt]
    readings += [0.12 * force * np.sin(step + 0.5), 0.15 * force * np.sin(stride + 1), 0.2 * force * np.cos(stride)]
    return np.stack(readings, axis=1) + sensor_noise(seed)


def lying() -> np.ndarray:
    """Readings (t, 6) of a sensor on somebody who lies still: gravity across, a breath every four seconds."""
    time = np.arange(IMU_SECONDS * IMU_RATE) / IMU_RATE
    breath = np.sin(2 * math.pi * time / 4)
    still = np.zeros_like(time)
    return np.stack([GRAVITY + 0.05 * breath, still, 0.08 * breath, still, 0.02 * breath, still], axis=1) + sensor_noise(seed=10)


def sensor_noise(seed: int) -> np.ndarray:
    """What a resting sensor reports, (t, 6): metres per second squared, then radians per second."""
    return np.random.default_rng(seed).standard_normal((IMU_SECONDS * IMU_RATE, 6)) * ([0.04] * 3 + [0.01] * 3)


def write_readings(path: Path, maker: Callable[[], np.ndarray]) -> None:
    with open(path, "w", newline="", encoding="ascii") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([f"{sensor}_{axis}" for sensor in ("accel", "gyro") for axis in "xyz"])
        table.writerows([f"{value:.2f}" for value in row] for row in maker())


SAMPLES_BY_MODALITY: dict[str, tuple[str, Callable[..., None], dict[str, Callable[..., np.ndarray]]]] = {
    "image": ("jpg", write_picture, {"sunset": partial(sea, 0.9), "noon": partial(sea, 0), "forest": forest, "city": partial(city, 0.5)}),
    "video": ("mp4", write_video, {"sunset": lambda seconds: sea(0.7 + 0.12 * seconds), "city": city}),
    "audio": ("mp3", write_sound, {"bell": bell, "birds": birds, "surf": surf, "rain": rain}),
    "depth": ("png", write_map, {"room": room, "corridor": corridor, "stairs": stairs}),
    "thermal": ("png", write_map, {"person": person, "cat": cat, "car": car}),
    "imu": ("csv", write_readings, {"walking": partial(gait, 1.9, 2.0, 8), "running": partial(gait, 2.7, 6.0, 9), "lying": lying}),
}
"""Per modality: how its files end, what writes one, and what makes each."""


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
