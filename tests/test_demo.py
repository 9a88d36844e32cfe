"""The demo: its samples are what the script beside them makes, and what it prints is what one can check by eye."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

DEMO = Path(__file__).parents[1] / "recipes" / "demo"
SAMPLES = DEMO / "samples"
FILES = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file())
MODALITIES = ("image", "video", "audio", "depth", "thermal", "imu", "text")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of samples made anew."""
    folder = tmp_path_factory.mktemp("samples")
    runpy.run_path(str(DEMO / "make_samples.py"))["make"](folder)
    return folder


def decoded(path: Path) -> tuple[Any, np.ndarray]:
    """What must be equal between two files, and the values that may differ a little, because codecs and roundings do."""
    match path.suffix:
        case ".jpg" | ".png":
            with Image.open(path) as image:
                return (image.mode, image.size), np.asarray(image, dtype=float)
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


TOLERANCES = {".jpg": 1.5, ".mp4": 1.5, ".mp3": 0.01, ".csv": 0.001, ".png": 0.5, ".txt": 0}
"""Mean difference: grey levels or millimetres; parts of full loudness; m/s² and rad/s."""


def test_samples_are_all_those_made(made: Path) -> None:
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()) == FILES
    assert {name.split("/")[0] for name in FILES} == {*MODALITIES, "captions.txt"} - {"text"}
    assert sum((SAMPLES / name).stat().st_size for name in FILES) < 600_000


@pytest.mark.parametrize("name", FILES)
def test_sample_is_what_the_script_makes(name: str, made: Path) -> None:
    (facts, values), (facts_made, values_made) = decoded(SAMPLES / name), decoded(made / name)
    assert facts == facts_made
    assert values.shape == values_made.shape
    if values.size:
        assert np.abs(values - values_made).mean() <= TOLERANCES[Path(name).suffix]
        assert values.std() > 10 * TOLERANCES[Path(name).suffix]  # else the tolerance would let anything pass


def test_samples_hold_the_units_and_lengths_they_should() -> None:
    for path in (SAMPLES / "depth").iterdir():
        (mode, _), millimetres = decoded(path)
        assert mode == "I;16"
        assert 500 < millimetres.min() < millimetres.max() < 15_000
    for path in (SAMPLES / "thermal").iterdir():
        (mode, _), _ = decoded(path)
        assert mode == "L"
    for path in (SAMPLES / "audio").iterdir():
        assert 2 <= soundfile.info(path).duration <= 4
    for path in (SAMPLES / "imu").iterdir():
        header, readings = decoded(path)
        assert header == ["accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z"]
        assert len(readings) == 5 * 400
        assert np.linalg.norm(readings[:, :3].mean(axis=0)) == pytest.approx(9.81, abs=0.3)  # gravity


def run(*command: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEBIND") and name not in ("PYTHON", "FORCE_COLOR")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env=kept | {"PATH": path} | environment,
        timeout=110,
    )


def words(text: str) -> list[str]:
    """The lines of a text, runs of spaces made one."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_demo_runs_every_modality_once(tmp_path: Path) -> None:
    done = run("sh", DEMO / "demo.sh", IMAGEBIND_MODEL="tiny", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\$ imagebind embed (\w+)", done.stdout, re.MULTILINE) == list(MODALITIES)
    matrix = done.stdout[done.stdout.index("\nimage  ") : done.stdout.index("From far to near")]
    assert re.findall(r"^([a-z]+)  -?[01]\.\d+", matrix, re.MULTILINE) == list(MODALITIES)
    samples = len(FILES) - 1 + len((SAMPLES / "captions.txt").read_text().splitlines())
    assert re.findall(r"^ *(\d+) \w", matrix, re.MULTILINE) == [str(number + 1) for number in range(samples)]
    assert "--untrained vectors.jsonl" in done.stdout
    assert "ACROSS modalities is chance" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout[done.stdout.index("Untrained") :].splitlines())) <= 100
    assert list(tmp_path.glob("*/vectors.jsonl")) == []  # its own folder is gone
    # Even an untrained encoder gives like for like: a picture and a video of one street, two waters, two gaits.
    neighbours = done.stdout[done.stdout.index("nearest of its modality") :]
    assert re.search(r"^image +city .* video +city +0\.99", neighbours, re.MULTILINE)
    assert re.search(r"^ +rain +surf +0\.", neighbours, re.MULTILINE)
    assert re.search(r"^ +walking +running +0\.", neighbours, re.MULTILINE)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program in place of `imagebind`, which notes its arguments, calls its model trained and fails where BROKEN says."""
    program = tmp_path / "stand in"
    program.write_text(
        f"""#!/bin/sh
echo "$*" >> '{tmp_path}/calls'
if [ "$1" = weights ]; then echo '{{"untrained": false}}'; exit; fi
if [ "$2" = "${{BROKEN:-}}" ]; then echo "cannot read $2" >&2; exit 3; fi
if [ "$2" = text ]; then while read -r line; do echo '{{"id": "'"$line"'", "modality": "text", "embedding": [1, 0]}}'; done
else echo '{{"id": "a.x", "modality": "'"$2"'", "embedding": [0.6, 0.8]}}'; fi
"""
    )
    program.chmod(0o755)
    return program


def test_demo_hands_its_options_on(stand_in: Path) -> None:
    options = ("--model", "my model", "--config=ViT", "--device", "cpu")
    done = run("sh", DEMO / "demo.sh", *options, IMAGEBIND=str(stand_in), PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    calls = (stand_in.parent / "calls").read_text().splitlines()
    given = {"text": "embed text"} | {name: f"embed {name} {SAMPLES / name}" for name in MODALITIES[:-1]}
    assert sorted(calls) == sorted(
        [f"{call} {' '.join(options)}" for call in given.values()] + ["weights info my model --config ViT --json"]
    )
    assert "Untrained" not in done.stdout
    assert "--untrained" not in done.stdout
    assert "sunset over the sea" in done.stdout


def test_demo_stops_where_a_command_fails(stand_in: Path) -> None:
    done = run("sh", DEMO / "demo.sh", IMAGEBIND=str(stand_in), PYTHON=sys.executable, BROKEN="depth")
    assert done.returncode == 3
    assert "cannot read depth" in done.stderr
    assert "thermal" not in done.stdout


def test_demo_says_what_is_missing() -> None:
    done = run("sh", DEMO / "demo.sh", IMAGEBIND="no-such-program")
    assert done.returncode == 1
    assert "pip install" in done.stderr


COMPASS = [
    {"id": "maps/east.png", "modality": "image", "embedding": [2, 0]},  # near.py divides by the length
    {"id": "north east", "modality": "text", "embedding": [0.6, 0.8]},
    {"id": "maps/easterly.png", "modality": "image", "embedding": [0.8, 0.6]},
    {"id": "maps/north.png", "modality": "image", "embedding": [0, 1]},
    {"id": "south", "modality": "text", "embedding": [0, -1]},
]


def near(rows: list[dict[str, object]], *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return run(sys.executable, DEMO / "near.py", *options, stdin=lines, **environment)


def test_near_gives_the_neighbours_one_can_check_by_eye() -> None:
    done = near(COMPASS)
    assert done.returncode == 0, done.stderr
    assert words(done.stdout)[-5:] == [
        "image east easterly 0.8000 text north east 0.6000",
        "easterly east 0.8000 text north east 0.9600",
        "north easterly 0.6000 text north east 0.8000",
        "text north east south -0.8000 image easterly 0.9600",
        "south north east -0.8000 image east 0.0000",
    ]
    lines = done.stdout.splitlines()
    assert lines[1] == "image  0.0000 to 0.8000 among themselves"
    assert lines[2:5] == [  # images from 0 to 0.8 among themselves; images and texts from -1 to 0.96
        "1 east        · ██   ██▒▒",
        "2 easterly    ██· ▓▓ ██░░",
        "3 north         ▓▓·  ██  ",
    ]
    assert "Untrained" not in done.stdout
    assert "chance" not in done.stdout
    assert "\x1b" not in done.stdout


def test_near_says_what_is_chance() -> None:
    rows = [*COMPASS, {"id": "clip.mp4", "modality": "video", "embedding": [0.8, 0.6]}]
    done = near(rows, "--untrained")
    assert words(done.stdout)[0].startswith("Untrained model: nearness ACROSS modalities is chance.")
    assert words(done.stdout)[-6:] == [  # an image and a video go through one encoder: no chance
        "image east easterly 0.8000 video clip 0.8000",
        "easterly east 0.8000 video clip 1.0000",
        "north easterly 0.6000 text north east 0.8000 chance",
        "text north east south -0.8000 image easterly 0.9600 chance",
        "south north east -0.8000 image east 0.0000 chance",
        "video clip – image easterly 1.0000",
    ]


def test_near_shows_small_differences() -> None:
    rows = [{"id": "a", "modality": "depth", "embedding": [np.cos(angle), np.sin(angle)]} for angle in (0, 0.001, 0.003)]
    done = near(rows)
    assert "depth  0.9999955 to 0.9999995 among themselves" in done.stdout
    assert "Within depth every cosine is above 0.99" in " ".join(words(done.stdout))
    assert [line[5:] for line in done.stdout.splitlines() if re.match(r"\d ", line)] == ["· ██  ", "██· ▓▓", "  ▓▓· "]


def test_near_writes_numbers_on_colours_on_a_terminal() -> None:
    done = near(COMPASS, FORCE_COLOR="1", COLUMNS="90", TERM="xterm-256color", COLORTERM="truecolor")
    assert re.search(r"48;2;253;231;60m 80\x1b", done.stdout)  # the brightest, for the highest
    assert re.search(r"48;2;34;30;64m  0\x1b", done.stdout)
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
    assert "east          · 80  0  60  0" in plain
    assert "north         0 60  ·  80-1." in plain


def test_near_leaves_out_a_matrix_that_does_not_fit() -> None:
    done = near([{"id": f"{number}", "modality": "text", "embedding": [1, number]} for number in range(60)])
    assert done.returncode == 0
    assert "A matrix of 60 by 60 takes 131 columns, here are 100: left out." in done.stdout
    assert len(words(done.stdout)) == 1 + 1 + 1 + 60


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1, 2]", "not a JSON object"),
        ('{"id": "a", "modality": "text"}', "not a JSON object with id, modality and embedding"),
        ('{"id": "a", "modality": "text", "embedding": [0, 0]}', "no direction"),
        ('{"id": "a", "modality": "text", "embedding": [1, 0, 0]}', "3 numbers, 2 before"),
    ],
)
def test_near_names_a_line_it_cannot_use(line: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "vectors.jsonl"
    file.write_text(f"{json.dumps(COMPASS[0])}\n{line}\n")
    done = run(sys.executable, DEMO / "near.py", file)
    assert done.returncode == 1
    assert done.stderr.startswith(f"near.py: {file}:2: ")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
