"""recipes/mini/distil.py: the image encoder comes nearer to its teacher, and is a model that loads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import imagebind_cli as ib

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "mini"))

import distil


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Forty pictures of one colour, and a teacher whose figures follow from it."""
    random = np.random.default_rng(0)
    mixed = random.standard_normal((3, 1280))
    vectors = []
    for folder, manifest, count in (("drawings", "train.jsonl", 30), ("furniture", "image-text.jsonl", 10)):
        place = tmp_path / "data" / folder
        place.mkdir(parents=True)
        colours = random.integers(0, 256, (count, 3))
        for number, colour in enumerate(colours):
            Image.new("RGB", (20, 20), tuple(map(int, colour))).save(place / f"{number}.png")
        rows = [{"image": f"{number}.png", "text": str(number)} for number in range(count) for _ in range(2)]
        (place / manifest).write_text("".join(json.dumps(row) + "\n" for row in rows))
        vectors.append(np.tanh(colours / 127.5 - 1) @ mixed)
    torch.save(torch.from_numpy(np.concatenate(vectors)).half(), tmp_path / "teacher-image.pt")
    return tmp_path


def test_pictures_are_seen_once_each_and_furniture_three_times(work: Path) -> None:
    paths, shown = distil.pictures(work)
    assert len(paths) == len(set(paths)) == 40
    assert np.bincount(shown).tolist() == [1] * 30 + [3] * 10


def test_crops_are_parts_of_their_picture() -> None:
    ramp = torch.linspace(0, 1, 96).expand(8, 3, 96, 96).clone()
    made = distil.crops(ramp, 64)
    assert made.shape == (8, 3, 64, 64)
    assert made.min() >= 0
    assert made.max() <= 1
    spans = made.amax((1, 2, 3)) - made.amin((1, 2, 3))
    assert bool((spans > 0.5).all())  # the least area is half, the narrowest ratio 3 to 4


def test_a_teacher_of_other_pictures_is_refused(work: Path) -> None:
    torch.save(torch.zeros(7, 1280), work / "teacher-image.pt")
    with pytest.raises(SystemExit, match="holds 7 vectors, and there are 40 pictures"):
        distil.main(work)


def test_the_encoder_learns_what_its_teacher_says(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(distil, "STEPS", 40)
    monkeypatch.setattr(distil, "BATCH", 32)
    monkeypatch.setattr(distil, "WARMUP", 5)
    config = json.loads(distil.CONFIG.read_text())
    config["encoders"]["vision"]["trunk"] |= {"width": 64, "layers": 2, "heads": 2}
    config |= {"dim": 3, "encoders": {"vision": config["encoders"]["vision"]}}
    (work / "small.json").write_text(json.dumps(config))
    monkeypatch.setattr(distil, "CONFIG", work / "small.json")

    distil.main(work)

    paths, _ = distil.pictures(work)
    model = ib.load(work / "start-image", device="cpu")
    vectors = torch.from_numpy(model.embed("image", paths))
    torch.manual_seed(distil.SEED)  # which decides the directions' signs
    wanted = distil.targets(torch.load(work / "teacher-image.pt", weights_only=True).float(), model.dim)
    assert (vectors * wanted).sum(-1).mean() > 0.6
    assert "cosine to the teacher" in capsys.readouterr().err
    before = (work / "start-image" / "vision.safetensors").stat().st_mtime_ns
    distil.main(work)
    assert (work / "start-image" / "vision.safetensors").stat().st_mtime_ns == before
