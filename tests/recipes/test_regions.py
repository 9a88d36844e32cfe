"""Boxes of a detector labelled by sounds, on scenes of drawings that `mini` knows, with recordings of what they show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

RECIPE = Path(__file__).parents[2] / "recipes" / "regions" / "label-by-sound.sh"
SAMPLES = Path(__file__).parents[2] / "imagebind_cli" / "demo" / "samples"
SIDE = 96
SCENES = [{"guitar": (0, 20), "rain": (150, 0), "trumpet": (140, 120)}, {"baby": (10, 0), "wave": (150, 100)}]


@pytest.fixture
def folder(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures with the boxes of their drawings, some twice, and a folder of recordings for each drawing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    images, found = [], []
    for number, scene in enumerate(SCENES):
        picture = Image.new("RGB", (256, 224), "white")
        for name, (x, y) in scene.items():
            picture.paste(
                Image.open(SAMPLES / "image" / f"{name}.png").convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y)
            )
            found.append({"image_id": number, "bbox": [x + 0.5, y + 0.5, SIDE - 1, SIDE - 1], "score": 0.9})
            found.append({"image_id": number, "bbox": [x + 4, y + 4, SIDE - 8, SIDE - 8], "score": 0.5})
        picture.save(f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
    Path("pictures.json").write_text(json.dumps({"images": images}))
    Path("found.json").write_text(json.dumps(found))
    for name in {name for scene in SCENES for name in scene}:
        Path("sounds", name).mkdir(parents=True)
        shutil.copy(SAMPLES / "audio" / f"{name}.mp3", Path("sounds", name))
    return tmp_path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RECIPE, *map(str, arguments)], env={**os.environ, "IMAGEBIND_MODEL": "mini"}, capture_output=True, text=True, timeout=200
    )


def test_each_box_gets_the_name_of_its_sound(folder: Path) -> None:
    finished = run("pictures.json", "found.json", "sounds", "out")
    assert finished.returncode == 0, finished.stderr
    rows = [json.loads(line) for line in Path("out/regions.jsonl").read_text().splitlines()]
    labels = {(row["id"], row["top"][0]["class"], row["box"][0] // 10, row["box"][1] // 10) for row in rows}
    wanted = {(f"{number}.png", name, x // 10, y // 10) for number, scene in enumerate(SCENES) for name, (x, y) in scene.items()}
    assert labels == wanted
    assert len(rows) == len(wanted)  # of two boxes around one drawing, one is left
    assert Path("out/regions.html").read_text().count('<div class="boxed">') == 2
    assert "2 there already" in run("pictures.json", "found.json", "sounds", "out").stderr


def test_it_says_how_it_is_called_and_goes_on_after_a_broken_picture(folder: Path) -> None:
    finished = run("pictures.json")
    assert (finished.returncode, finished.stderr) == (2, "usage: label-by-sound.sh PICTURES DETECTIONS SOUNDS FOLDER\n")
    Path("0.png").write_bytes(b"not a picture")
    finished = run("pictures.json", "found.json", "sounds", "out")
    assert finished.returncode == 1
    assert {json.loads(line)["id"] for line in Path("out/regions.jsonl").read_text().splitlines()} == {"1.png"}
    assert run("pictures.json", "gone.json", "sounds", "other").returncode == 1
