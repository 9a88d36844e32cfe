"""Make the samples inside the package, small files of all seven modalities, by rule: nothing is fetched, and every run makes the same ones.

    python recipes/demo/make_samples.py [FOLDER]

Every drawing, sound, recording and map shows one thing that the bundled model has learnt, and is named after it. In `scene/` are a picture of
three drawings and a sound of four sounds.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, ImageDraw

from imagebind_cli.demo import DAY, DAY_SECONDS, SCENE, SCENE_SIZE

SAMPLES = Path(__file__).parents[2] / "imagebind_cli" / "demo" / "samples"
CANVAS, SIDE = 512, 256  # pixels of a drawing, and of the picture it becomes
COLOURS = 32  # of a picture
FILM_SECONDS, FILM_RATE = 3, 10
SOUND_SECONDS, SOUND_RATE = 4, 16_000
DEPTH_SIDE, DEPTH_FOCAL = 128, 150.0  # pixels: the camera of the renderings from which the model learnt furniture
THERMAL_WIDTH, THERMAL_HEIGHT = 256, 192
IMU_SECONDS, IMU_RATE = 5, 50
GRAVITY = 9.81  # m/s²

CAPTIONS = ("a guitar", "a person walking", "rain", "a crying baby", "a chair")

Colour = tuple[int, int, int]
Box = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Two opposite corners in metres: to the right, up, towards the camera."""


def make(folder: Path) -> None:
    """Write every sample: a folder per modality, and `captions.txt`, a sentence a line."""
    for modality, (ending, write, makers) in SAMPLES_BY_MODALITY.items():
        (folder / modality).mkdir(parents=True, exist_ok=True)
        for name, maker in makers.items():
            write(folder / modality / f"{name}.{ending}", maker)
    (folder / "scene").mkdir(exist_ok=True)
    garden().save(folder / "scene" / "garden.png", optimize=True)
    write_sound(folder / "scene" / "day.mp3", day)
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8", newline="\n")


# Drawings

WHITE, BLACK, DARK, SKIN = (255, 255, 255), (35, 30, 30), (70, 40, 20), (255, 205, 150)
RED, ORANGE, GOLD, YELLOW, GREEN, BLUE = (220, 50, 45), (230, 150, 60), (250, 190, 50), (255, 205, 40), (65, 150, 60), (60, 140, 225)


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white canvas and what draws on it."""
    picture = Image.new("RGB", (CANVAS, CANVAS), WHITE)
    return picture, ImageDraw.Draw(picture)


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """A drawing turned about its middle."""
    return picture.rotate(degrees, fillcolor=WHITE, resample=Image.Resampling.BICUBIC)


def beside(*drawings: tuple[Image.Image, tuple[int, int, int, int]]) -> Image.Image:
    """Drawings on one canvas, each scaled to its box (left, top, right, bottom); what is white in them is see-through."""
    scene, _ = blank()
    for drawing, (left, top, right, bottom) in drawings:
        small = drawing.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        scene.paste(small, (left, top), small.convert("L").point(lambda grey: 255 * (grey < 250)))
    return scene


def apple() -> Image.Image:
    picture, draw = blank()
    for left in (100, 212):
        draw.ellipse((left, 140, left + 200, 440), fill=RED)
    draw.line((256, 170, 280, 70), fill=DARK, width=16)
    draw.ellipse((285, 70, 385, 130), fill=GREEN)
    return picture


def baby() -> Image.Image:
    picture, draw = blank()
    draw.ellipse((96, 96, 416, 416), fill=SKIN)
    for left in (70, 392):
        draw.ellipse((left, 230, left + 50, 300), fill=SKIN)
    for left in (170, 307):
        draw.ellipse((left, 220, left + 35, 260), fill=DARK)
    draw.arc((200, 280, 312, 350), 20, 160, fill=(150, 60, 50), width=10)
    draw.arc((220, 60, 300, 140), 200, 420, fill=(120, 80, 40), width=12)
    return picture


def bell() -> Image.Image:
    picture, draw = blank()
    draw.ellipse((232, 50, 280, 98), fill=ORANGE)
    draw.pieslice((136, 80, 376, 420), 180, 360, fill=GOLD)
    draw.polygon([(136, 245), (376, 245), (376, 330), (430, 400), (82, 400), (136, 330)], fill=GOLD)
    draw.rounded_rectangle((76, 390, 436, 420), 14, fill=ORANGE)
    draw.pieslice((226, 385, 286, 460), 0, 180, fill=DARK)
    return picture


def drum() -> Image.Image:
    picture, draw = blank()
    draw.rectangle((110, 220, 402, 400), fill=RED)
    draw.ellipse((110, 340, 402, 450), fill=RED)
    draw.ellipse((110, 160, 402, 280), fill=(250, 240, 220), outline=GOLD, width=14)
    draw.line((60, 60, 230, 200), fill=(190, 130, 70), width=16)
    draw.line((452, 60, 290, 200), fill=(190, 130, 70), width=16)
    return picture


def flute() -> Image.Image:
    picture, draw = blank()
    draw.rounded_rectangle((60, 238, 450, 274), 16, fill=(150, 110, 70))
    for left in (110, 390):
        draw.rectangle((left, 234, left + 14, 278), fill=(220, 190, 120))
    draw.ellipse((78, 246, 98, 266), fill=DARK)
    for left in range(190, 361, 34):
        draw.ellipse((left, 248, left + 16, 264), fill=DARK)
    return turned(picture, 40)


def guitar() -> Image.Image:
    """An electric one: two horns, a pale plate, a long neck."""
    picture, draw = blank()
    draw.ellipse((160, 330, 352, 500), fill=RED)
    draw.ellipse((176, 270, 336, 400), fill=RED)
    draw.polygon([(176, 350), (168, 230), (236, 300), (276, 300), (344, 245), (336, 350)], fill=RED)
    draw.polygon([(230, 320), (300, 320), (330, 440), (270, 470), (225, 420)], fill=WHITE)
    draw.rectangle((240, 60, 272, 350), fill=(225, 180, 120))
    draw.polygon([(236, 70), (232, 0), (290, 12), (278, 70)], fill=(190, 130, 70))
    for top in (375, 415):
        draw.rectangle((226, top, 286, top + 16), fill=BLACK)
    for left in range(246, 270, 7):
        draw.line((left, 20, left, 430), fill=(120, 110, 100), width=2)
    return turned(picture, -40)


def helicopter() -> Image.Image:
    picture, draw = blank()
    draw.ellipse((60, 190, 320, 380), fill=BLUE)
    draw.polygon([(260, 240), (480, 250), (480, 280), (260, 320)], fill=BLUE)
    draw.ellipse((440, 210, 500, 300), outline=(90, 90, 100), width=10)
    draw.pieslice((70, 200, 220, 360), 180, 300, fill=(180, 225, 250))
    draw.rectangle((185, 130, 201, 200), fill=(90, 90, 100))
    draw.rounded_rectangle((20, 120, 370, 138), 8, fill=(70, 70, 80))
    for top, foot in ((110, 100), (260, 270)):
        draw.line((top, 370, foot, 420), fill=(90, 90, 100), width=10)
    draw.rounded_rectangle((60, 412, 330, 428), 8, fill=(70, 70, 80))
    return picture


def house() -> Image.Image:
    picture, draw = blank()
    draw.rectangle((120, 240, 392, 460), fill=(240, 220, 180))
    draw.polygon([(80, 250), (256, 90), (432, 250)], fill=(190, 60, 50))
    draw.rectangle((225, 340, 287, 460), fill=DARK)
    for left in (145, 307):
        draw.rectangle((left, 290, left + 60, 345), fill=(120, 190, 230))
    return picture


def maracas() -> Image.Image:
    picture, draw = blank()
    for left, colour in ((100, RED), (280, GREEN)):
        draw.rectangle((left + 60, 250, left + 80, 470), fill=DARK)
        draw.ellipse((left, 60, left + 140, 280), fill=colour)
        draw.rectangle((left + 4, 160, left + 136, 180), fill=YELLOW)
    return turned(picture, 20)


def rain(moment: float = 0) -> Image.Image:
    """A cloud and drops that fall."""
    picture, draw = blank()
    for row, column in product(range(2), range(5)):
        fallen = (row * 90 + 180 * moment) % 180
        left, top = 150 + column * 55 - fallen / 6, 290 + fallen
        draw.line((left, top, left - 18, top + 50), fill=BLUE, width=14)
    for x, y, radius in ((140, 170, 72), (212, 134, 90), (296, 158, 78), (368, 182, 60)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(150, 175, 200))
    draw.rectangle((140, 170, 368, 242), fill=(150, 175, 200))
    return picture


def sun() -> Image.Image:
    picture, draw = blank()
    for ray in range(12):
        angle = ray * math.pi / 6
        corners = ((230, 0.0), (150, 0.16), (150, -0.16))
        draw.polygon([(256 + far * math.cos(angle + by), 256 + far * math.sin(angle + by)) for far, by in corners], fill=(255, 180, 0))
    draw.ellipse((126, 126, 386, 386), fill=YELLOW)
    return picture


def sunflower() -> Image.Image:
    picture, draw = blank()
    draw.line((256, 260, 256, 500), fill=GREEN, width=22)
    draw.ellipse((270, 380, 380, 440), fill=GREEN)
    draw.ellipse((130, 350, 245, 410), fill=GREEN)
    for petal in range(16):
        x, y = 256 + 125 * math.cos(petal * math.pi / 8), 200 + 125 * math.sin(petal * math.pi / 8)
        draw.ellipse((x - 45, y - 45, x + 45, y + 45), fill=(255, 195, 20))
    draw.ellipse((166, 110, 346, 290), fill=(120, 70, 30))
    return picture


def trumpet() -> Image.Image:
    picture, draw = blank()
    draw.line((60, 250, 400, 250), fill=GOLD, width=22)
    draw.polygon([(360, 240), (480, 160), (480, 340), (360, 262)], fill=GOLD)
    draw.ellipse((462, 160, 498, 340), fill=(200, 130, 20))
    draw.rounded_rectangle((130, 250, 330, 340), 40, outline=GOLD, width=22)
    for left in (180, 225, 270):
        draw.rectangle((left, 190, left + 26, 350), fill=(200, 130, 20))
        draw.ellipse((left - 4, 170, left + 30, 196), fill=(255, 225, 130))
    draw.ellipse((40, 236, 70, 264), fill=(200, 130, 20))
    return turned(picture, 20)


def umbrella() -> Image.Image:
    picture, draw = blank()
    draw.pieslice((70, 100, 442, 472), 180, 360, fill=(150, 60, 180))
    for left in (70, 194, 318):
        draw.ellipse((left, 255, left + 124, 320), fill=WHITE)
    draw.line((256, 110, 256, 420), fill=DARK, width=14)
    draw.arc((200, 380, 262, 460), 0, 180, fill=DARK, width=14)
    for left, top in ((90, 60), (200, 30), (320, 40), (430, 80), (60, 200), (460, 220)):
        draw.ellipse((left, top, left + 20, top + 32), fill=BLUE)
    return picture


def violin() -> Image.Image:
    """With its waist, its two sound holes and its bow."""
    picture, draw = blank()
    wood = (165, 80, 30)
    draw.ellipse((160, 300, 352, 480), fill=wood)
    draw.ellipse((180, 170, 332, 320), fill=wood)
    draw.rectangle((196, 270, 316, 340), fill=wood)
    for left in (140, 306):
        draw.ellipse((left, 268, left + 66, 332), fill=WHITE)
    draw.rectangle((244, 60, 268, 330), fill=BLACK)
    draw.ellipse((236, 20, 276, 70), fill=DARK)
    for top in (58, 76):
        draw.rectangle((222, top, 290, top + 8), fill=DARK)
    draw.polygon([(238, 390), (274, 390), (266, 470), (246, 470)], fill=BLACK)
    draw.rectangle((222, 352, 290, 362), fill=(240, 210, 160))
    draw.arc((204, 290, 222, 350), 90, 270, fill=BLACK, width=7)
    draw.arc((290, 290, 308, 350), 270, 90, fill=BLACK, width=7)
    for left in range(247, 266, 6):
        draw.line((left, 70, left, 400), fill=(240, 230, 210), width=2)
    draw.line((400, 60, 400, 470), fill=DARK, width=12)
    draw.line((420, 70, 414, 470), fill=(235, 230, 220), width=6)
    return turned(picture, -40)


def walking(moment: float = 0) -> Image.Image:
    """A person in mid-stride; `moment` in seconds: the legs swing, a stride a second."""
    picture, draw = blank()
    swing = math.cos(2 * math.pi * moment)
    shirt, trousers = BLUE, (50, 60, 110)
    for side in (-1, 1):
        reach = side * swing
        knee, foot = (258 + 63 * reach, 397), (245 + 90 * reach - 15 * abs(reach), 480)
        draw.line((257, 290, *knee), fill=trousers, width=40)
        draw.line((*knee, *foot), fill=trousers, width=34)
        draw.line((262, 150, 265 - 75 * reach, 235), fill=SKIN, width=26)
    draw.line((262, 120, 255, 300), fill=shirt, width=70)
    draw.ellipse((225, 40, 305, 120), fill=SKIN)
    return picture


def wave(moment: float = 0) -> Image.Image:
    """A breaker, which rises and falls once in two seconds."""
    picture, draw = blank()
    water, lift = (50, 140, 220), round(20 * math.sin(math.pi * moment))
    draw.ellipse((60, 90 - lift, 440, 470 - lift), fill=water)
    draw.ellipse((190, 150 - lift, 470, 430 - lift), fill=WHITE)
    draw.rectangle((60, 380, 470, 470), fill=water)
    draw.ellipse((250, 150 - lift, 330, 230 - lift), fill=water)
    draw.pieslice((180, 90 - lift, 420, 330 - lift), 200, 330, fill=(220, 240, 255))
    return picture


def write_picture(path: Path, maker: Callable[[], Image.Image]) -> None:
    small = maker().resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def garden() -> Image.Image:
    """Three drawings in one picture, each in its place of the demo."""
    scene = Image.new("RGB", SCENE_SIZE, WHITE)
    for name, (left, top, right, bottom) in SCENE.items():
        scene.paste(globals()[name]().resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    return scene.quantize(COLOURS, dither=Image.Dither.NONE)


# Films


def walk_in_the_rain(moment: float) -> Image.Image:
    return beside((rain(moment), (0, 30, 270, 300)), (walking(moment), (220, 220, 490, 490)))


def walk_by_the_sea(moment: float) -> Image.Image:
    return beside((wave(moment), (200, 200, 500, 500)), (walking(moment), (20, 20, 280, 280)))


def house_in_the_rain(moment: float) -> Image.Image:
    return beside((rain(moment), (0, 30, 270, 300)), (house(), (220, 220, 490, 490)))


def house_by_the_sea(moment: float) -> Image.Image:
    return beside((wave(moment), (200, 200, 500, 500)), (house(), (20, 20, 280, 280)))


def write_film(path: Path, maker: Callable[[float], Image.Image]) -> None:
    """H.264 in MP4, without the time at which it was made."""
    with av.open(path, "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FILM_RATE, options={"crf": "28", "preset": "veryslow", "threads": "1"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FILM_SECONDS * FILM_RATE):
            frame = av.VideoFrame.from_image(maker(number / FILM_RATE).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


# Sounds

MELODY = (60, 64, 67, 72, 71, 67, 64, 62, 60, 65, 69, 72)
"""Notes as MIDI numbers, 69 being 440 Hz."""


def melody(tone: Callable[[float, float], np.ndarray], raised: int, seconds: float, gap: float) -> np.ndarray:
    """The melody, (samples,): `tone` takes hertz and seconds. raised: by how many half-tones. gap: from one note to the next."""
    sound = np.zeros((SOUND_SECONDS + 30) * SOUND_RATE)
    for number, note in enumerate(MELODY):
        played = tone(440 * 2 ** ((note + raised - 69) / 12), seconds)
        start = int(number * gap * SOUND_RATE)
        sound[start : start + len(played)] += played
    return sound[: SOUND_SECONDS * SOUND_RATE]


def plucked(hertz: float, seconds: float) -> np.ndarray:
    """A plucked string after Karplus and Strong: noise that runs round and loses its edges."""
    length = int(SOUND_RATE / hertz)
    string = np.random.default_rng(length).uniform(-1, 1, length)
    rounds = [string]
    for _ in range(int(seconds * SOUND_RATE) // length):
        string = 0.997 * (string + np.roll(string, -1)) / 2
        rounds.append(string)
    return np.convolve(np.concatenate(rounds), np.ones(4) / 4, "same")


def blown(
    hertz: float, seconds: float, *, overtones: tuple[float, ...], attack: float, vibrato: float = 0, breath: float = 0
) -> np.ndarray:
    """A held note of so much of each multiple of its pitch. attack: seconds until it is loud. breath: noise in it."""
    time = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    phase = 2 * math.pi * hertz * time + vibrato * np.sin(2 * math.pi * 5.5 * time)
    sound = sum(share * np.sin(number * phase) for number, share in enumerate(overtones, 1) if number * hertz < 7800)
    sound = sound + breath * np.random.default_rng(int(hertz)).standard_normal(len(time))
    return sound * np.minimum(1, time / attack) * np.minimum(1, (seconds - time) / 0.05) * np.exp(-time / 5)


FLUTE = partial(blown, overtones=(1, 0.25, 0.08), attack=0.06, vibrato=0.3, breath=0.02)
TRUMPET = partial(blown, overtones=(0.6, 0.9, 1, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1), attack=0.03, vibrato=0.05)
VIOLIN = partial(blown, overtones=tuple(number**-0.8 for number in range(1, 17)), attack=0.1, vibrato=0.25)


def crying() -> np.ndarray:
    """Three cries that rise and fall."""
    sound = np.zeros(SOUND_SECONDS * SOUND_RATE)
    time = np.linspace(0, 1, SOUND_RATE)
    phase = 2 * math.pi * np.cumsum(420 + 120 * np.sin(math.pi * time) + 10 * np.sin(14 * math.pi * time)) / SOUND_RATE
    cry = sum((1 if number in (2, 3, 6, 7) else 0.5) * np.sin(number * phase) for number in range(1, 12)) * np.sin(math.pi * time) ** 0.4
    for start in (0.1, 1.4, 2.7):
        sound[int(start * SOUND_RATE) :][:SOUND_RATE] += cry
    return sound


def shaken() -> np.ndarray:
    """Maracas: five short hisses a second."""
    sound = np.zeros(SOUND_SECONDS * SOUND_RATE)
    random, time = np.random.default_rng(1), np.arange(int(0.12 * SOUND_RATE)) / SOUND_RATE
    for start in range(0, len(sound), SOUND_RATE // 5):
        sound[start : start + len(time)] += np.diff(random.standard_normal(len(time) + 1)) * np.exp(-40 * time)
    return sound


def raining() -> np.ndarray:
    """A steady rush with drops in it."""
    random = np.random.default_rng(2)
    sound = 0.3 * noise(seed=3, falling=0.05)
    for start in random.integers(0, len(sound) - 80, 800):
        sound[start : start + 60] += random.exponential(0.5) * random.standard_normal(60) * np.exp(-np.arange(60) / 12)
    return sound


def surf() -> np.ndarray:
    """A wave that breaks and runs out, every four seconds."""
    time = np.arange(SOUND_SECONDS * SOUND_RATE) / SOUND_RATE
    return noise(seed=4, falling=0.5) * (0.15 + np.clip(np.sin(math.pi * time / 2 - 0.8), 0, 1) ** 2)


def noise(seed: int, falling: float) -> np.ndarray:
    """Noise whose amplitude falls as frequency ** -falling, (samples,), of unit variance."""
    random, count = np.random.default_rng(seed), SOUND_SECONDS * SOUND_RATE
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / SOUND_RATE), 1)
    parts = random.standard_normal(len(frequency)) + 1j * random.standard_normal(len(frequency))
    sound = np.fft.irfft(parts * frequency**-falling, count)
    return sound / sound.std()


def day() -> np.ndarray:
    """Sounds one after the other, each as loud as the others."""
    makers = SAMPLES_BY_MODALITY["audio"][2]
    sounds = [np.asarray(makers[name](), dtype=float)[: DAY_SECONDS * SOUND_RATE] for name in DAY]
    padded = [np.pad(sound, (0, DAY_SECONDS * SOUND_RATE - len(sound))) for sound in sounds]
    return np.concatenate([sound / abs(sound).max() for sound in padded])


def write_sound(path: Path, maker: Callable[[], np.ndarray]) -> None:
    """MP3 at a loudness that leaves the codec room: unlike Ogg, it holds no serial number drawn anew on every run."""
    sound = maker()
    soundfile.write(path, 0.7 * sound / abs(sound).max(), SOUND_RATE, format="MP3")


# Depth


def seen(furniture: list[Box], azimuth: float = 35, height: float = 20) -> np.ndarray:
    """Return what a depth camera sees of boxes on a floor before a wall, (h, w) uint16 millimetres; azimuth and height of the camera in degrees."""
    corners = np.array(furniture)  # (boxes, 2, 3)
    low, high = corners.min((0, 1)), corners.max((0, 1))
    across, up = math.radians(azimuth), math.radians(height)
    back = np.array([math.sin(across) * math.cos(up), math.sin(up), math.cos(across) * math.cos(up)])  # from the furniture to the camera
    right = np.array([math.cos(across), 0, -math.sin(across)])
    turn = np.stack([right, np.cross(right, back), -back])  # rows: right, down, forward
    middle = np.array([(low[0] + high[0]) / 2, high[1] / 2, (low[2] + high[2]) / 2])
    ends = np.array(list(product(*zip(low, high, strict=True))))
    points = (ends - middle) @ turn.T
    distance = (abs(points[:, :2]).max(1) * DEPTH_FOCAL / (0.43 * DEPTH_SIDE) - points[:, 2]).max()
    eye = middle + distance * back
    offsets = (np.arange(DEPTH_SIDE) + 0.5 - DEPTH_SIDE / 2) / DEPTH_FOCAL
    x, y = np.meshgrid(offsets, offsets)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ turn  # (h, w, 3), each one metre ahead
    wall = low[2] - 0.2 * (high - low).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        planes = [(place - eye[axis]) / rays[..., axis] for axis, place in ((1, 0.0), (2, wall))]
        nearest = np.minimum(*[np.where(plane > 0, plane, np.inf) for plane in planes])
        for box in corners:
            crossings = (box[:, None, None] - eye) / rays  # (2, h, w, 3)
            enters, leaves = crossings.min(0).max(-1), crossings.max(0).min(-1)
            nearest = np.where((enters > 0) & (enters < leaves), np.minimum(nearest, enters), nearest)
    return np.round(nearest * 1000).astype(np.uint16)


def legs(width: float, depth: float, height: float, thick: float) -> list[Box]:
    """Four of them, at the corners of what they carry."""
    return [((x, 0, z), (x + thick, height, z + thick)) for x in (0, width - thick) for z in (0, depth - thick)]


def chair() -> np.ndarray:
    return seen([*legs(0.45, 0.45, 0.45, 0.05), ((0, 0.42, 0), (0.45, 0.47, 0.45)), ((0, 0.47, 0), (0.45, 0.95, 0.05))])


def table() -> np.ndarray:
    return seen([*legs(1.4, 0.8, 0.72, 0.07), ((-0.05, 0.72, -0.05), (1.45, 0.76, 0.85))])


def bed() -> np.ndarray:
    mattress: list[Box] = [((0, 0, 0), (1.4, 0.45, 2.0)), ((0, 0, -0.06), (1.4, 0.95, 0)), ((0.1, 0.45, 0.05), (0.65, 0.57, 0.45))]
    return seen([*mattress, ((0.75, 0.45, 0.05), (1.3, 0.57, 0.45))])


def cupboard() -> np.ndarray:
    return seen([((0, 0, 0), (1.1, 2.0, 0.6))])


# Thermal

Limb = tuple[float, float, float, float, float, float]
"""Where a rounded shape starts and ends (x, y, x, y), its radius, in heights of the picture, and how warm it is from 0 to 1."""


def thermal(warmth: np.ndarray, limbs: list[Limb]) -> np.ndarray:
    """What a thermal camera sees: limbs before a background (h, w) in [0, 1], edges soft, columns uneven, (h, w) uint8."""
    x, y = np.meshgrid(np.arange(THERMAL_WIDTH) / THERMAL_HEIGHT, np.arange(THERMAL_HEIGHT) / THERMAL_HEIGHT)
    for start_x, start_y, end_x, end_y, radius, heat in limbs:
        along_x, along_y = end_x - start_x, end_y - start_y
        length = max(along_x**2 + along_y**2, 1e-9)
        position = np.clip(((x - start_x) * along_x + (y - start_y) * along_y) / length, 0, 1)
        distance = np.hypot(x - start_x - position * along_x, y - start_y - position * along_y)
        inside = 1 / (1 + np.exp((distance - radius) / 0.006))
        rounded = heat * (1 - 0.15 * np.minimum(distance / radius, 1) ** 2)
        warmth = warmth * (1 - inside) + rounded * inside
    unevenness = np.random.default_rng(7).normal(0, 0.006, size=THERMAL_WIDTH)
    return as_grey(255 * (warmth + unevenness))


def background(top: float, bottom: float) -> np.ndarray:
    """Warmth that changes evenly from the top to the bottom, (h, w)."""
    return np.repeat(np.linspace(top, bottom, THERMAL_HEIGHT)[:, None], THERMAL_WIDTH, axis=1)


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


def as_grey(values: np.ndarray) -> np.ndarray:
    """Grey levels from 0 to 255 as uint8."""
    return np.round(np.clip(values, 0, 255)).astype(np.uint8)


def write_map(path: Path, maker: Callable[[], np.ndarray]) -> None:
    Image.fromarray(maker()).save(path, optimize=True)


# IMU


def wobble(random: np.random.Generator, seconds: float) -> np.ndarray:
    """Noise that keeps its direction for about so long, (t,), of unit variance."""
    half = max(1, round(seconds * IMU_RATE))
    window = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(random.standard_normal(IMU_SECONDS * IMU_RATE + 2 * half), window / np.linalg.norm(window), "valid")


def gait() -> np.ndarray:
    """Readings (t, 6) of a telephone at the waist of a walker: each step a jolt, each second one the other leg, none quite like the last."""
    random = np.random.default_rng(2)
    step = 2 * math.pi * np.cumsum(2.05 * (1 + 0.01 * wobble(random, 0.8))) / IMU_RATE
    stride, strength = step / 2, 1 + 0.1 * wobble(random, 0.3)
    jolts = [np.exp(4 * (np.cos(step + late) - 1)) for late in (0, 1)]
    heel, toe = (jolt - jolt.mean() for jolt in jolts)
    readings = [
        GRAVITY + 1.4 * (1.6 * heel - 0.5 * toe + 0.4 * np.sin(step + 1)) * strength,
        1.4 * (np.sin(stride + 0.5) + 0.6 * np.sin(3 * stride + 1) + 0.4 * np.sin(5 * stride)) * strength - 1,
        1.2 * (np.sin(step + 5.9) + 0.6 * np.sin(2 * step + 0.4) + 0.4 * heel) * strength - 1,
        0.5 * (np.sin(stride + 0.2) + 0.5 * np.sin(step) + 0.3 * np.sin(3 * stride)),
        0.5 * (0.8 * np.sin(step + 1.1) + 0.5 * np.sin(2 * step)),
        0.5 * (0.6 * np.sin(stride + 2) + 0.4 * np.sin(step)),
    ]
    shake = np.stack([wobble(random, 0.04) for _ in range(6)], 1) * ([0.75] * 3 + [0.15] * 3)
    return np.stack(readings, 1) + shake


def still(up: tuple[float, float, float], seed: int) -> np.ndarray:
    """Readings (t, 6) of a telephone at the waist of a person who keeps still, `up` being where the sky is for it: gravity and a breath."""
    random, time = np.random.default_rng(seed), np.arange(IMU_SECONDS * IMU_RATE) / IMU_RATE
    breath = 0.01 * np.sin(math.pi * time / 2)[:, None]
    gravity = GRAVITY * np.array(up) / np.linalg.norm(up)
    shake = random.standard_normal((len(time), 6)) * ([0.03] * 3 + [0.02] * 3)
    return np.hstack([np.tile(gravity, (len(time), 1)), np.tile(breath, 3)]) + shake


def write_readings(path: Path, maker: Callable[[], np.ndarray]) -> None:
    with open(path, "w", newline="", encoding="ascii") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["time_s", *(f"a{axis} (m/s^2)" for axis in "xyz"), *(f"g{axis} (rad/s)" for axis in "xyz")])
        for number, row in enumerate(maker()):
            table.writerow([f"{number / IMU_RATE:.2f}", *(f"{value:.3f}" for value in row)])


DRAWINGS = (
    apple, baby, bell, drum, flute, guitar, helicopter, house, maracas, rain, sun, sunflower, trumpet, umbrella, violin, walking, wave,
)  # fmt: skip
FILMS = (walk_in_the_rain, walk_by_the_sea, house_in_the_rain, house_by_the_sea)
SAMPLES_BY_MODALITY: dict[str, tuple[str, Callable[..., None], dict[str, Callable[..., object]]]] = {
    "image": ("png", write_picture, {drawing.__name__: drawing for drawing in DRAWINGS}),
    "video": ("mp4", write_film, {film.__name__.replace("_", "-"): film for film in FILMS}),
    "audio": (
        "mp3",
        write_sound,
        {
            "baby": crying,
            "flute": partial(melody, FLUTE, raised=12, seconds=0.4, gap=0.38),
            "guitar": partial(melody, plucked, raised=-12, seconds=1.2, gap=0.3),
            "maracas": shaken,
            "rain": raining,
            "trumpet": partial(melody, TRUMPET, raised=0, seconds=0.4, gap=0.38),
            "violin": partial(melody, VIOLIN, raised=7, seconds=0.6, gap=0.55),
            "wave": surf,
        },
    ),
    "depth": ("png", write_map, {"bed": bed, "chair": chair, "cupboard": cupboard, "table": table}),
    "thermal": ("png", write_map, {"car": car, "cat": cat, "person": person}),
    "imu": (
        "csv",
        write_readings,
        {
            "walking": gait,
            "standing": partial(still, (1, -0.1, 0.05), 5),
            "sitting": partial(still, (0.93, 0.1, 0.35), 6),
            "lying": partial(still, (0.1, 0.75, 0.6), 7),
        },
    ),
}
"""Per modality: how its files end, what writes one, and what makes each."""


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
