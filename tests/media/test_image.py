"""The one limit of a picture's pixels, which holds in every format before anything is unpacked."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from imagebind_cli.media.image import MAX_PIXELS, identify

GRID = Path(__file__).parents[1] / "data" / "grid.heic"


def claims(path: Path, width: int, height: int) -> Path:
    """A picture of one pixel whose header claims this size."""
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    if path.suffix == ".bmp":
        data[18:26] = struct.pack("<ii", width, height)
    else:
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("ending", "size"), [(".bmp", (MAX_PIXELS, 1)), (".jpg", (13_377, 13_377))])
def test_as_many_pixels_as_the_limit_are_accepted_and_not_one_more(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    width, height = size
    with identify(claims(tmp_path / f"large{ending}", width, height)) as image:
        assert image.size == size
    assert (width + 1) * (height + (height > 1)) > MAX_PIXELS
    with pytest.raises(ValueError, match=f"more than {MAX_PIXELS:,} pixels, which are not unpacked"):
        identify(claims(tmp_path / f"larger{ending}", width + 1, height + (height > 1)))


def test_a_heic_picture_heeds_the_limit_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pi_heif")
    assert identify(GRID, most=512 * 384).size == (512, 384)
    monkeypatch.setattr(heif.HeifFile, "to_pillow", lambda _: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match="512 x 384 pixels; at most 196,607 are unpacked"):
        identify(GRID, most=512 * 384 - 1)
