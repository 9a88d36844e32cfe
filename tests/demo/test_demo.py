"""The demo: its samples are what the script makes and what the bundled model knows, and its story holds wherever it is told."""

from __future__ import annotations

import csv
import os
import re
import runpy
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import imagebind_cli as ib
from imagebind_cli.demo import DAY, DAY_SECONDS, MODEL, SAMPLES, SCENE, SceneChapter, SearchChapter, TimelineChapter, chapters
from imagebind_cli.grounding.locate import locate
from imagebind_cli.grounding.locator import BOTH
from imagebind_cli.grounding.moments import find_moments
from tests.browsing import browser, complaints
from tests.conftest import PROGRAM, Run, Start

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file())
MODALITIES = ("image", "video", "audio", "depth", "thermal", "imu")
PAGE = "imagebind-demo.html"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of samples made anew."""
    folder = tmp_path_factory.mktemp("samples")
    runpy.run_path(str(ROOT / "recipes" / "demo" / "make_samples.py"))["make"](folder)
    return folder


@pytest.fixture(scope="module")
def mini() -> Any:
    return ib.load(MODEL, device="cpu")


@pytest.fixture(scope="module")
def story(mini: Any) -> dict[str, Any]:
    """The chapters by what is searched with."""
    return {" + ".join(given for _, given in chapter.query): chapter for chapter in chapters(mini)}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# The samples


def decoded(path: Path) -> tuple[Any, np.ndarray]:
    """What must be equal between two files, and the values that may differ a little, because codecs and roundings do."""
    match path.suffix:
        case ".png":
            with Image.open(path) as image:
                return (image.mode, image.size), np.asarray(image.convert("RGB") if image.mode == "P" else image, dtype=float)
        case ".mp4":
            with av.open(path) as container:
                frames = np.array([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], dtype=float)
                stream = container.streams.video[0]
                return (stream.average_rate, stream.duration * stream.time_base), frames
        case ".mp3":
            sound, rate = soundfile.read(path)
            return rate, sound
        case ".csv":
            with open(path, newline="") as file:
                header, *rows = csv.reader(file)
            return header, np.array(rows, dtype=float)
        case _:
            return path.read_bytes(), np.zeros(0)


TOLERANCES = {".mp4": 1.5, ".mp3": 0.003, ".csv": 0.001, ".png": 0.5, ".txt": 0}
"""Mean difference: grey levels or millimetres; parts of full loudness; m/s² and rad/s."""


def test_samples_are_all_those_made(made: Path) -> None:
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()) == FILES
    assert {name.split("/")[0] for name in FILES} == {*MODALITIES, "scene", "captions.txt"}
    assert min(len(list((SAMPLES / modality).iterdir())) for modality in MODALITIES) >= 2
    assert len((SAMPLES / "captions.txt").read_text().splitlines()) >= 2
    assert sum((SAMPLES / name).stat().st_size for name in FILES) < 400_000


@pytest.mark.parametrize("name", FILES)
def test_sample_is_what_the_script_makes(name: str, made: Path) -> None:
    (facts, values), (facts_made, values_made) = decoded(SAMPLES / name), decoded(made / name)
    assert facts == facts_made
    assert values.shape == values_made.shape
    if values.size:
        assert np.abs(values - values_made).mean() <= TOLERANCES[Path(name).suffix]
        assert values.std() > 10 * TOLERANCES[Path(name).suffix]  # else the tolerance would let anything pass


def test_samples_hold_the_units_and_lengths_they_should() -> None:
    for path in (SAMPLES / "image").iterdir():
        (_, size), _ = decoded(path)
        assert size == (256, 256)
    for path in (SAMPLES / "video").iterdir():
        (rate, seconds), _ = decoded(path)
        assert (rate, seconds) == (10, 3)
    for path in (SAMPLES / "depth").iterdir():
        (mode, _), millimetres = decoded(path)
        assert mode == "I;16"
        assert 500 < millimetres.min() < millimetres.max() < 15_000
    for path in (SAMPLES / "thermal").iterdir():
        (mode, _), _ = decoded(path)
        assert mode == "L"
    for path in (SAMPLES / "audio").iterdir():
        facts = soundfile.info(path)
        assert (facts.samplerate, facts.channels) == (16_000, 1)
        assert 3.9 <= facts.duration <= 4.2
    for path in (SAMPLES / "imu").iterdir():
        header, readings = decoded(path)
        assert header[0] == "time_s"
        assert header[1::3] == ["ax (m/s^2)", "gx (rad/s)"]
        assert len(readings) == 5 * 50
        assert np.linalg.norm(readings[:, 1:4].mean(axis=0)) == pytest.approx(9.81, abs=0.4)  # gravity


def test_every_sample_is_shipped() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["imagebind_cli"]
    package = ROOT / "imagebind_cli"
    shipped = {
        path.relative_to(SAMPLES).as_posix() for pattern in patterns for path in package.glob(pattern) if path.is_relative_to(SAMPLES)
    }
    assert shipped == set(FILES)


@pytest.mark.parametrize(("modality", "margin"), [(name, 0.02 if name == "video" else 0.05) for name in MODALITIES])
def test_the_model_names_the_samples(modality: str, margin: float, mini: Any) -> None:
    """Every sample is named right among the names of its modality, but for the violin, whose mistake the demo shows."""
    paths = sorted((SAMPLES / modality).iterdir())
    names = [path.stem.replace("-", " ") for path in paths]
    phrases = ["person walking" if (name, modality) == ("walking", "image") else name for name in names]
    options = {"focal": 150.0} if modality == "depth" else {}  # the camera of make_samples.py
    scores = mini.embed(modality, paths, **options) @ mini.embed("text", phrases).T
    named = {name: names[place] for name, place in zip(names, scores.argmax(axis=1), strict=True)}
    wrong = {name: given for name, given in named.items() if name != given}
    assert wrong == ({"violin": "trumpet"} if modality == "audio" else {})
    first, second = np.sort(scores, axis=1)[:, :-3:-1].T
    assert (first - second).min() > margin  # no toss-up that another machine's rounding could turn


def test_every_caption_finds_a_sample(mini: Any) -> None:
    samples = [path for modality in MODALITIES for path in sorted((SAMPLES / modality).iterdir())]
    vectors = np.concatenate([mini.embed(modality, sorted((SAMPLES / modality).iterdir())) for modality in MODALITIES])
    captions = (SAMPLES / "captions.txt").read_text().splitlines()
    best = {caption: samples[row].stem for caption, row in zip(captions, (mini.embed("text", captions) @ vectors.T).argmax(1), strict=True)}
    wanted = {"a guitar": "guitar", "a person walking": "walking", "rain": "rain", "a crying baby": "baby"}
    assert {caption: best[caption] for caption in wanted} == wanted


# What it claims


def best(chapter: SearchChapter, count: int = 3) -> list[str]:
    return [answer.name for answer in chapter.answers[:count]]


def margin(chapter: SearchChapter) -> float:
    return chapter.answers[0].score - chapter.answers[1].score


def test_a_melody_finds_its_instrument(story: dict[str, Any]) -> None:
    chapter = story["audio/guitar.mp3"]
    assert best(chapter, 1) == ["guitar"]
    assert margin(chapter) > 0.15
    assert {"violin", "trumpet", "flute", "drum", "maracas"} <= {answer.name for answer in chapter.answers}  # it had a choice
    assert [answer.score for answer in chapter.answers] == sorted((answer.score for answer in chapter.answers), reverse=True)


def test_rain_finds_the_two_pictures_with_drops(story: dict[str, Any]) -> None:
    chapter = story["audio/rain.mp3"]
    assert set(best(chapter, 2)) == {"umbrella", "rain"} == set(chapter.expected)
    assert chapter.answers[1].score - chapter.answers[2].score > 0.1


def test_a_cry_finds_the_baby_and_nothing_else_comes_near(mini: Any) -> None:
    pictures = sorted((SAMPLES / "image").iterdir())
    (cry,) = mini.embed("audio", [SAMPLES / "audio/baby.mp3"])
    scores = dict(zip([path.stem for path in pictures], mini.embed("image", pictures) @ cry, strict=True))
    best, second = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
    assert best == "baby"
    assert scores[best] - scores[second] > 0.2


def test_a_cry_points_at_the_baby_in_a_scene_of_three(story: dict[str, Any]) -> None:
    chapter = story["audio/baby.mp3"]
    assert isinstance(chapter, SceneChapter)
    assert (chapter.name, chapter.is_right) == ("baby", True)
    assert chapter.located.size == (364, 220)
    left, top, right, bottom = SCENE["baby"]
    x, y = chapter.located.spots[0].peak
    assert min(x - left, right - x, y - top, bottom - y) > 15  # not at its edge, where another machine might fall out of it


@pytest.mark.parametrize(("sound", "thing"), [("guitar", "guitar"), ("rain", "umbrella")])
def test_another_sound_points_at_another_thing_of_the_scene(sound: str, thing: str, mini: Any) -> None:
    (located,) = locate([SAMPLES / "scene/garden.png"], model=mini, method=BOTH, audio=SAMPLES / "audio" / f"{sound}.mp3")
    left, top, right, bottom = SCENE[thing]
    x, y = located.spots[0].peak
    assert left < x < right
    assert top < y < bottom


def test_an_umbrella_finds_the_rain_among_four_sounds(story: dict[str, Any]) -> None:
    chapter = story["image/umbrella.png"]
    assert isinstance(chapter, TimelineChapter)
    assert chapter.expected == (8, 12)
    assert chapter.is_right
    assert chapter.best.end - chapter.best.start >= 2
    assert soundfile.info(SAMPLES / chapter.file).duration == pytest.approx(len(DAY) * DAY_SECONDS, abs=0.1)


@pytest.mark.parametrize("name", ["guitar", "baby", "trumpet"])
def test_each_other_picture_finds_its_own_sound(name: str, mini: Any) -> None:
    best = find_moments([SAMPLES / "scene/day.mp3"], model=mini, hop=0.5, image=SAMPLES / "image" / f"{name}.png")[0]
    start = DAY.index(name) * DAY_SECONDS
    assert start - 1 <= best.start < best.end <= start + DAY_SECONDS + 1  # a window reaches over the border
    assert best.end - best.start >= 2


def test_a_sentence_finds_a_walk_among_recordings(story: dict[str, Any]) -> None:
    chapter = story["a person walking"]
    assert {answer.name for answer in chapter.answers} == {"walking", "standing", "sitting", "lying"}
    assert best(chapter, 1) == ["walking"]
    assert margin(chapter) > 0.3


def test_a_picture_plus_a_sound_finds_both(story: dict[str, Any], mini: Any) -> None:
    chapter = story["image/walking.png + audio/rain.mp3"]
    assert best(chapter, 1) == ["walk in the rain"]
    assert margin(chapter) > 0.1
    films = sorted((SAMPLES / "video").iterdir())
    vectors = dict(zip([film.stem for film in films], mini.embed("video", films), strict=True))
    (walker,), (surf,) = mini.embed("image", [SAMPLES / "image/walking.png"]), mini.embed("audio", [SAMPLES / "audio/wave.mp3"])
    alone = {name: float(vector @ walker) for name, vector in vectors.items()}
    rain, sea, *houses = sorted(alone, key=alone.__getitem__, reverse=True)
    assert {rain, sea} == {"walk-in-the-rain", "walk-by-the-sea"}
    assert alone[rain] - alone[sea] < 0.03  # the picture alone cannot choose
    assert f"({alone[rain]:.2f} and {alone[sea]:.2f})" in chapter.words
    with_surf = {name: float(vector @ (walker + surf)) for name, vector in vectors.items()}
    assert max(with_surf, key=with_surf.__getitem__) == "walk-by-the-sea"
    assert chapter.words.endswith("it is the walk by the sea.")
    assert len(houses) == 2


def test_one_answer_is_wrong_and_explained(story: dict[str, Any]) -> None:
    wrong = [chapter for chapter in story.values() if not chapter.is_right]
    assert [chapter.query for chapter in wrong] == [(("audio", "audio/violin.mp3"),)]
    assert best(wrong[0], 1) == ["trumpet"]
    assert "violin" in {answer.name for answer in wrong[0].answers}  # the right picture was there
    assert "It was a violin" in wrong[0].words


def test_the_library_knows_no_terminal() -> None:
    program = "import sys, imagebind_cli.demo; print([name for name in ('typer', 'rich') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# The command


def test_the_story_fits_a_screen(imagebind: Run, empty: Path) -> None:
    done = imagebind("demo")  # IMAGEBIND_MODEL names another model here: the story is mini's all the same
    assert (done.code, done.err) == (0, "")
    lines = done.out.decode().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in done.out.decode()
    assert [line[0] for line in lines if re.match(r"\d\. ", line)] == list("1234567")
    assert re.findall(r"^ ([✓✗]) (.+?)(?: +█|, at x|:)", done.out.decode(), re.MULTILINE) == [
        ("✓", "guitar"),
        ("✓", "umbrella"),
        ("✓", "baby"),
        ("✓", "walking"),
        ("✓", "walk in the rain"),
        ("✓", "from 9 to 11 s of 16 s"),
        ("✗", "trumpet"),
    ]
    assert f"See and hear it: {empty / PAGE}" in lines
    assert os.listdir(empty) == [PAGE]


def test_bars_are_as_long_as_the_scores(imagebind: Run, empty: Path) -> None:
    bars = re.findall(r"^ [ ✓✗] .{18} (█*) *(-?\d\.\d\d)$", imagebind("demo").out.decode(), re.MULTILINE)
    assert len(bars) == 5 * 3
    for bar, score in bars:
        assert len(bar) == pytest.approx(max(0.0, 40 * float(score)), abs=0.8)


def test_a_process_in_an_empty_folder_without_a_home(tmp_path: Path) -> None:
    """As a stranger runs it: no terminal, a locale of ASCII alone, nowhere to keep models."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "HOME": str(tmp_path / "none")}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    folder = tmp_path / "leer ö"
    folder.mkdir()
    done = subprocess.run([PROGRAM, "demo"], capture_output=True, cwd=folder, env=environment, timeout=110)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count("█".encode()) > 100
    assert done.stdout.splitlines()[-2].decode().startswith(f"See and hear it: {folder}")
    assert os.listdir(folder) == [PAGE]
    assert not (tmp_path / "none").exists()


def test_a_reader_that_stops_early(start: Start, empty: Path) -> None:
    """As in `imagebind demo | head -1`."""
    process = start("demo")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"One space")
    process.stdout.close()
    assert process.wait(timeout=110) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    assert os.listdir(empty) == []  # no half a page either


def test_a_full_disk_is_one_line(imagebind: Run, empty: Path) -> None:
    done = imagebind("demo", stdout="/dev/full")
    assert (done.code, done.err) == (1, "imagebind: stdout: No space left on device\n")
    assert os.listdir(empty) == []


def test_the_page_goes_where_it_is_told_and_replaces_the_last(imagebind: Run, empty: Path) -> None:
    (empty / "pages").mkdir()
    for _ in range(2):
        done = imagebind("demo", "--html", "pages/mine.html")
        assert done.code == 0, done.err
        assert f"See and hear it: {empty / 'pages' / 'mine.html'}\n" in done.out.decode()
        assert os.listdir(empty / "pages") == ["mine.html"]
    assert os.listdir(empty) == ["pages"]


@pytest.mark.parametrize("place", [".", "", "missing/page.html", "file/page.html"])
def test_a_place_that_takes_no_page_is_one_line(place: str, imagebind: Run, empty: Path) -> None:
    (empty / "file").touch()
    done = imagebind("demo", "--html", place)
    assert done.code == 1
    assert done.out == b""  # refused before anything is told
    assert re.fullmatch(rf"imagebind: {re.escape(place or '.')}: .+\n", done.err)
    assert os.listdir(empty) == ["file"]


def test_only_one_model_is_told_of(imagebind: Run, empty: Path) -> None:
    done = imagebind("demo", "--model", "huge")
    assert done.code == 2
    assert "--model" in done.err
    assert imagebind("demo", "more").code == 2
    assert os.listdir(empty) == []


def test_make_demo_is_the_command() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/installed", "demo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == ".venv/bin/imagebind demo"


def test_the_page_in_a_browser(imagebind: Run, empty: Path, tmp_path: Path, story: dict[str, Any]) -> None:
    assert imagebind("demo").code == 0
    with browser(tmp_path) as driver:
        driver.get((empty / PAGE).as_uri())
        pictures = driver.execute_script("return [...document.images].map(i => [i.alt, i.naturalWidth, i.naturalHeight])")
        # answers of five searches; what asks: five files alone and two together, once a sentence; a heat map and a strip under a timeline
        assert len(pictures) == 5 * 3 + 5 + 2 + 2
        assert min(min(width, height) for _, width, height in pictures) > 70
        assert [alt for alt, *_ in pictures if "heat map" in alt or "over time" in alt] == [
            f"heat map of {SAMPLES / 'audio/baby.mp3'} over scene/garden.png",
            "scene/day.mp3 over time",
        ]
        assert [quote.text for quote in driver.find_elements(By.TAG_NAME, "blockquote")] == ["a person walking"]
        ready = "return [...document.querySelectorAll('audio')].every(a => a.duration > 1.5 && a.duration < 4.5)"
        WebDriverWait(driver, 20).until(lambda opened: opened.execute_script(ready))
        assert len(driver.find_elements(By.TAG_NAME, "audio")) == 5 + 1
        assert [heading.text[3:] for heading in driver.find_elements(By.TAG_NAME, "h2")] == [chapter.title for chapter in story.values()]
        text = driver.find_element(By.TAG_NAME, "body").text
        assert all(chapter.words in text for chapter in story.values())
        assert (text.count("right\n"), text.count("wrong\n")) == (6, 1)
        answers = [answer for chapter in story.values() if isinstance(chapter, SearchChapter) for answer in chapter.answers[:3]]
        meters = [float(meter.get_attribute("value")) for meter in driver.find_elements(By.TAG_NAME, "meter")]
        assert meters == [pytest.approx(max(0, answer.score), abs=1e-4) for answer in answers]
        assert driver.execute_script("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
        assert complaints(driver) == []
