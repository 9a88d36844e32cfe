"""recipes/mini/train/distil_image.py: the image encoder comes nearer to its teacher and tells concepts apart, and is a model that loads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import imagebind_cli as ib

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "mini" / "train"))

import distil_image as distil

from imagebind_cli.weights.find import find_checkpoint


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Forty pictures of one colour, two a concept but for the last two drawings, and a teacher whose figures follow from it."""
    random = np.random.default_rng(0)
    mixed = random.standard_normal((3, 1280))
    vectors = []
    for folder, manifest, count in (("drawings", "train.jsonl", 30), ("furniture", "image-text.jsonl", 10)):
        place = tmp_path / "data" / folder
        place.mkdir(parents=True)
        colours = random.integers(0, 256, (count, 3))
        for number, colour in enumerate(colours):
            Image.new("RGB", (20, 20), tuple(map(int, colour))).save(place / f"{number // 2}-{number % 2}.png")
        rows = [
            {
                "image": f"{number // 2}-{number % 2}.png",
                "text": str(number),
                "group": str(number // 2),
                "source": "openclipart" if number // 2 == 14 else "noto",
            }
            for number in range(count)
            for _ in range(2)
        ]
        (place / manifest).write_text("".join(json.dumps(row) + "\n" for row in rows))
        vectors.append(np.tanh(colours / 127.5 - 1) @ mixed)
    torch.save(torch.from_numpy(np.concatenate(vectors)).half(), tmp_path / "teacher-image.pt")
    return tmp_path


def test_each_picture_is_there_once_and_furniture_is_known(work: Path) -> None:
    paths, furniture, _ = distil.pictures(work)
    assert len(paths) == len(set(paths)) == 40
    assert furniture.tolist() == ["furniture" in str(path) for path in paths] == [False] * 30 + [True] * 10


def test_a_round_shows_each_picture_as_often_as_it_says() -> None:
    source = distil.batches(np.repeat(np.arange(distil.BATCH), [3, *[1] * (distil.BATCH - 3), 2, 1]))  # of 259
    shown = np.bincount(np.concatenate([next(source) for _ in range(259)]))
    assert shown.tolist() == [3 * 256, *[256] * (distil.BATCH - 3), 2 * 256, 256]


def test_views_and_drawings_share_a_concept_and_clip_art_has_none(work: Path) -> None:
    _, _, concepts = distil.pictures(work)
    assert concepts[:28].tolist() == [number // 2 for number in range(28)]
    assert concepts[28:30].tolist() == [-1, -1]
    assert concepts[30:].tolist() == [14 + number // 2 for number in range(10)]


def test_principal_directions_are_those_of_the_largest_spread_and_have_one_sign() -> None:
    vectors = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 0.1, 5.0, 0.1, 0.1, 2.0])
    vectors -= vectors.mean(0)
    found = distil.principal(vectors, 3)
    assert found.abs().argmax(1).tolist() == [0, 2, 5]
    assert (found.amax(1) == found.abs().amax(1)).all()
    assert torch.allclose((vectors @ found.T).std(0), torch.tensor([9.0, 5.0, 2.0]).sqrt(), rtol=0.1)
    assert torch.equal(distil.principal(vectors.flip(0), 3).argmax(1), found.argmax(1))


def test_what_has_no_concept_does_not_count() -> None:
    wanted = torch.eye(4)
    concepts = distil.Concepts(wanted, torch.tensor([0, 1, -1, -1]))
    first, second = torch.tensor([0, 1]), torch.tensor([0, 1, 2, 3])
    assert torch.allclose(concepts(wanted[first], first), concepts(wanted[second], second))
    assert concepts(wanted[first], first) < concepts(wanted[first].flip(0), first)


def test_crops_are_parts_of_their_picture() -> None:
    ramp = torch.linspace(0, 1, 96).expand(8, 3, 96, 96).clone()
    made = distil.random_crops(ramp, 64)
    assert made.shape == (8, 3, 64, 64)
    assert made.min() >= 0
    assert made.max() <= 1
    spans = made.amax((1, 2, 3)) - made.amin((1, 2, 3))
    assert bool((spans > 0.5).all())  # the least area is half, the narrowest ratio 3 to 4


def test_colours_are_drawn_anew_and_shapes_stay() -> None:
    torch.manual_seed(0)
    batch = torch.full((200, 3, 8, 8), 0.2)
    batch[:, :, :, 4:] = torch.tensor([0.9, 0.3, 0.2]).view(3, 1, 1)
    made = distil.recolour(batch)
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(made[..., :4], made[..., :1].expand(-1, -1, -1, 4))  # what is of one colour stays so
    grey = (made.amax(1) - made.amin(1)).amax((1, 2)) < 1e-6
    assert 0.15 < grey.float().mean() < 0.45
    colours = made[:, :, 0, 7]
    assert colours.argmax(1).unique().numel() == 3
    assert colours.std(0).min() > 0.1


def test_furniture_alone_is_recoloured() -> None:
    torch.manual_seed(0)
    shape = distil.foreign_config.read_config(distil.CONFIG).encoders["vision"]
    kept = torch.tensor([200, 60, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand(64, 3, 96, 96).contiguous()
    furniture = torch.arange(64) >= 32
    seen = distil.Pictures(kept, furniture, shape)
    plain, coloured = (seen.crops_of(torch.arange(64), share) for share in (0.0, 0.5))
    changed = (coloured - plain).abs().amax((1, 2, 3)) > 1e-3
    assert not changed[:32].any()
    assert 8 <= changed[32:].sum() <= 24


def test_what_is_wanted_of_furniture_is_the_mean_over_its_colourings() -> None:
    torch.manual_seed(0)
    shape = distil.foreign_config.read_config(distil.CONFIG).encoders["vision"]
    kept = torch.tensor([200, 60, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 96, 96).contiguous()

    class Colour(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(batch.mean((2, 3)), dim=-1)

    made = distil.Pictures(kept, torch.tensor([False, False, True, True]), shape).directions(Colour())
    assert torch.allclose(made.norm(dim=-1), torch.ones(4))
    assert torch.equal(made[0], made[1])
    assert (made[2] @ made[0]) < 0.999


def test_a_teacher_of_other_pictures_is_refused(work: Path) -> None:
    torch.save(torch.zeros(7, 1280), work / "teacher-image.pt")
    with pytest.raises(SystemExit, match="holds 7 vectors, and there are 40 pictures"):
        distil.main(work)


def test_the_encoder_learns_what_its_teacher_says(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(distil, "ROUNDS", {"first": distil.Round(40, 3e-3), "second": distil.Round(40, 1.5e-3, concepts=0.1)})
    monkeypatch.setattr(distil, "BATCH", 32)
    monkeypatch.setattr(distil, "WARMUP", 5)
    config = json.loads(distil.CONFIG.read_text())
    config["encoders"]["vision"]["trunk"] |= {"width": 64, "layers": 2, "heads": 2}
    config |= {"dim": 3, "encoders": {"vision": config["encoders"]["vision"]}}
    (work / "small.json").write_text(json.dumps(config))
    monkeypatch.setattr(distil, "CONFIG", work / "small.json")

    distil.main(work)

    paths, _, of = distil.pictures(work)
    wanted = distil.targets(torch.load(work / "teacher-image.pt", weights_only=True).float(), 3)
    losses = []
    for name in distil.ROUNDS:
        vectors = torch.from_numpy(ib.load(work / name, device="cpu").embed("image", paths))
        assert (vectors * wanted).sum(-1).mean() > 0.6
        losses.append(distil.Concepts(vectors, of)(vectors, torch.arange(40)))
    assert losses[1] < losses[0]
    assert "cosine to what is wanted" in capsys.readouterr().err
    before = (work / "second" / "vision.safetensors").stat().st_mtime_ns
    distil.main(work)
    assert (work / "second" / "vision.safetensors").stat().st_mtime_ns == before


def test_the_second_round_goes_on_from_the_first(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "BATCH", 8)
    rounds = {"first": distil.Round(2, 3e-3), "second": distil.Round(1, 1e-9, concepts=0.1)}
    monkeypatch.setattr(distil, "ROUNDS", {"first": rounds["first"]})
    distil.main(work)
    monkeypatch.setattr(distil, "ROUNDS", rounds)
    distil.main(work)
    first, second = (dict(find_checkpoint(work / name).read("vision")) for name in rounds)
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)


def test_the_third_round_takes_colour_from_furniture_and_needs_no_teacher(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "BATCH", 32)
    monkeypatch.setattr(distil, "WARMUP", 5)
    rounds = {"second": distil.Round(30, 3e-3), "third": distil.Round(60, 2e-3, furniture=8, recoloured=0.7)}
    monkeypatch.setattr(distil, "ROUNDS", {"second": rounds["second"]})
    config = json.loads(distil.CONFIG.read_text())
    config["encoders"]["vision"]["trunk"] |= {"width": 64, "layers": 2, "heads": 2}
    config |= {"dim": 3, "encoders": {"vision": config["encoders"]["vision"]}}
    (work / "small.json").write_text(json.dumps(config))
    monkeypatch.setattr(distil, "CONFIG", work / "small.json")
    distil.main(work)
    (work / "teacher-image.pt").unlink()
    monkeypatch.setattr(distil, "ROUNDS", rounds)
    distil.main(work)

    paths, furniture, _ = distil.pictures(work)
    some = [path for path, chosen in zip(paths, furniture.tolist(), strict=True) if chosen]
    grey = []
    for path in some:
        with Image.open(path) as picture:
            grey.append(np.asarray(picture.convert("L").convert("RGB")))
    kept = []
    for name in rounds:
        encoder = ib.load(work / name, device="cpu")
        kept.append((encoder.embed("image", some) * encoder.embed("image", grey)).sum(1).mean())
    assert kept[1] > kept[0] + 0.05
