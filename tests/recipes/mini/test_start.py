"""recipes/mini/train/start_from_image.py: encoders bound to pictures begin by seeing as the image encoder does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "mini" / "train"))

import join_encoders
import start_from_image

from imagebind_cli.encoder import Encoder
from imagebind_cli.weights import checkpoint
from imagebind_cli.weights.find import find_checkpoint


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "begun"
    start_from_image.main(Path("mini"), folder)
    return folder


def loaded(place: str | Path, name: str) -> Encoder:
    return checkpoint.load_encoder(find_checkpoint(str(place)), name, torch.device("cpu"), torch.float32).eval()


@pytest.mark.parametrize("name", ["depth", "thermal"])
@torch.inference_mode()
def test_a_map_is_seen_as_a_grey_picture(begun: Path, name: str) -> None:
    maps = torch.randn(3, 1, 64, 64)
    seen = loaded("mini", "vision")(maps.expand(-1, 3, -1, -1))
    torch.testing.assert_close(loaded(begun, name)(maps), seen, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_sound_has_larger_patches_on_another_grid(begun: Path) -> None:
    """One colour gives a stretched kernel what it gives the small one; the positions are those of the picture at the same place."""
    sound, vision = loaded(begun, "audio"), loaded("mini", "vision")
    small = vision.stem(torch.ones(1, 3, 64, 64)) - vision.stem.pos[:, :65]
    large = sound.stem(torch.ones(1, 1, 128, 204)) - sound.stem.pos
    torch.testing.assert_close(large[0, 1], small[0, 1], rtol=0.02, atol=0.02)
    torch.testing.assert_close(large[0, 0], small[0, 0], rtol=1e-4, atol=1e-5)
    # 8 x 12 places where there were 8 x 8: the rows stay, and a row's mean is nearly kept
    before, after = vision.stem.pos[0, 1:65].view(8, 8, -1), sound.stem.pos[0, 1:].view(8, 12, -1)
    torch.testing.assert_close(after.mean(1), before.mean(1), rtol=0.1, atol=0.05)


def test_a_start_that_is_there_is_left_alone(begun: Path) -> None:
    before = (begun / "config.json").stat().st_mtime_ns
    start_from_image.main(Path("nowhere"), begun)
    assert (begun / "config.json").stat().st_mtime_ns == before


def test_encoders_of_several_folders_are_joined_as_they_are(tmp_path: Path, begun: Path) -> None:
    join_encoders.main(tmp_path / "both", {"text": "mini", "depth": str(begun)})
    made = find_checkpoint(tmp_path / "both")
    assert set(made.config.encoders) == {"text", "depth"}
    assert made.config.origin == {"steps": {"text": find_checkpoint("mini").config.origin["steps"], "depth": None}}
    for name, place in (("text", "mini"), ("depth", begun)):
        wanted, found = dict(find_checkpoint(place).read(name)), dict(made.read(name))
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    before = (tmp_path / "both" / "config.json").stat().st_mtime_ns
    join_encoders.main(tmp_path / "both", {"text": "nowhere"})
    assert (tmp_path / "both" / "config.json").stat().st_mtime_ns == before
