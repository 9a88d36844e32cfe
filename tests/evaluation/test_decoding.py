"""`--decode fast`: JPEGs decoded at a smaller scale, and the loss and the record of this and of videos' key frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.decoding import MOST, sample_files
from imagebind_cli.media.image import open_image
from imagebind_cli.model import load
from imagebind_cli.store import open_store
from tests import generate
from tests.conftest import Run
from tests.media.test_video import even, film


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    noise = Image.effect_noise((40, 30), 90).resize((640, 480), Image.Resampling.BICUBIC)
    noise.convert("RGB").save(path, quality=95)
    return path


@pytest.mark.parametrize(("short", "size"), [(0, (640, 480)), (300, (640, 480)), (240, (320, 240)), (100, (160, 120)), (1, (80, 60))])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_not_too_small(photo: Path, short: int, size: tuple[int, int]) -> None:
    assert open_image(photo, short=short).size == size


def test_vectors_move_a_little_and_facts_do_not(photo: Path) -> None:
    model = load("mini", device="cpu")
    exact, fast = (model.embed("image", [photo], decode=way)[0] for way in ("exact", "fast"))
    assert 0.98 < exact @ fast < 1 - 1e-7
    (sample,) = model.read("image", photo, decode="fast")
    assert sample.facts["size"] == [640, 480]


def test_other_formats_and_regions_are_read_as_ever(photo: Path, tmp_path: Path) -> None:
    png = tmp_path / "a.png"
    Image.open(photo).save(png)
    model = load("tiny", device="cpu")
    for path, options in ((png, {}), (photo, {"tiles": "1/2"})):
        exact, fast = (np.concatenate([s.tensor for s in model.read("image", path, decode=way, **options)]) for way in ("exact", "fast"))
        assert np.array_equal(exact, fast)


def test_a_store_records_it(imagebind: Run, photo: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.h5"
    assert imagebind("embed", "image", photo, "-o", store, "--model", "tiny", "--decode", "fast").code == 0
    assert open_store(store).provenance["options"]["decode"] == "fast"
    refused = imagebind("embed", "image", photo, "-o", store, "--model", "tiny")
    assert refused.code == 1
    assert "made with --decode fast; this run has exact" in refused.err


def test_a_store_of_videos_records_it(imagebind: Run, tmp_path: Path) -> None:
    film, store = generate.video(tmp_path / "a.mp4", 6), tmp_path / "a.h5"
    arguments = ("embed", "video", film, "-o", store, "--model", "tiny")
    done = imagebind(*arguments, "--decode", "fast")
    assert done.code == 0
    assert "frames within 1 s of a key frame are replaced by it" in done.err
    assert open_store(store).provenance["options"]["decode"] == "fast"
    refused = imagebind(*arguments)
    assert refused.code == 1
    assert "made with --decode fast; this run has exact" in refused.err
    again = imagebind(*arguments, "--decode", "fast")
    assert again.code == 0
    assert "1 there already" in again.err


def test_verify_measures_it_on_ones_own_pictures(imagebind: Run, photo: Path) -> None:
    done = imagebind("weights", "verify", "mini", "--decode", "fast", "--sample", photo.parent, "--json")
    decode = json.loads(done.out)["decode"]
    assert list(decode) == ["image"]
    measured = decode["image"]
    assert (measured["files"], measured["unchanged"]) == (1, 0)
    assert 0.98 < measured["mean"] < 1
    assert measured["faster"] > 0
    for arguments in (["--decode", "fast"], ["--sample", photo]):
        assert "give both --decode fast and --sample PATH" in imagebind("weights", "verify", "tiny", *arguments).err


def test_verify_measures_it_on_ones_own_videos(imagebind: Run, tmp_path: Path) -> None:
    """A video without near key frames counts as unchanged; the table has the figures of the JSON."""
    generate.video(tmp_path / "moving.mp4", 60)
    generate.picture(tmp_path / "a.jpg", size=(640, 480))
    film(tmp_path / "rare.mp4", even(10), g="250", sc_threshold="0")
    done = imagebind("weights", "verify", "mini", "--decode", "fast", "--sample", tmp_path, "--json")
    decode = json.loads(done.out)["decode"]
    measured = decode["video"]
    assert decode["image"]["files"] == 1
    assert (measured["files"], measured["unchanged"]) == (2, 1)
    assert 0.95 < measured["lowest"] < measured["mean"] < 1
    assert measured["faster"] > 0
    table = imagebind("weights", "verify", "mini", "--decode", "fast", "--sample", tmp_path / "moving.mp4").out.decode().splitlines()
    assert table[-1].split()[:3] == ["video", f"{measured['lowest']:.6f}", f"{measured['lowest']:.6f}"]


def test_a_sample_is_of_jpegs_and_videos_and_spread_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match="no JPEG file"):
        sample_files([tmp_path])
    for number in range(MOST["image"] + 50):
        (tmp_path / f"{number:04}.JPG").touch()
    (tmp_path / "a.MP4").touch()
    found = sample_files([tmp_path])
    assert found["video"] == [tmp_path / "a.MP4"]
    files = found["image"]
    assert len(files) == MOST["image"]
    assert (files[0].name, files[-1].name) == ("0000.JPG", f"{MOST['image'] + 49:04}.JPG")
