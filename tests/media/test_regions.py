"""Regions by hand: boxes to pixels, squares, masks of every kind, tiles; and each cut as the array that a person would cut."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebind_cli.media.masks import PictureMask, PolygonMask, RunLengthMask, parse_segmentation
from imagebind_cli.media.regions import Cuts, Region, cut_regions, parse_box, tiles
from imagebind_cli.options.depth import DepthOptions
from imagebind_cli.options.vision import VisionOptions
from tests import generate

WIDTH, HEIGHT = generate.PICTURE_SIZE
FILL = (0.5, 0.25, 1.0)
COLOUR = [128, 64, 255]


def cut(*regions: Region, shape: str = "box") -> Cuts:
    return cut_regions(VisionOptions(regions=regions, region_shape=shape), WIDTH, HEIGHT)


def boxes(cuts: Cuts) -> list[Any]:
    return [one.record["box"] for one in cuts.cuts]


# Boxes


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((10, 5, 30, 40), [10, 5, 30, 40]),
        ((1.5, 2, 20, 30.2), [1, 2, 21, 31]),  # every pixel that it touches
        ((236.98 - 200, 2.51, 24.7, 7.49), [36, 2, 26, 8]),
        ((0.1 + 0.2, 0, 0.7, 1), [0, 0, 1, 1]),  # 1.0000000000000002 in floats
        ((-5, -7, 20, 20), [0, 0, 15, 13]),
        ((70, 50, 1e9, 1e9), [70, 50, 10, 10]),
        ((-1e308, 50, 1.7e308, 1e308), [0, 50, 80, 10]),
        ((79.5, 59.5, 0.2, 0.2), [79, 59, 1, 1]),
    ],
)
def test_a_box_is_the_pixels_that_it_touches_inside_the_picture(box: tuple[float, ...], pixels: list[int]) -> None:
    picture = Image.fromarray(generate.pixels())
    cuts = cut(Region(box))  # type: ignore[arg-type]
    assert boxes(cuts) == [pixels]
    x, y, width, height = pixels
    np.testing.assert_array_equal(np.asarray(cuts.cuts[0].of(picture, FILL)), generate.pixels()[y : y + height, x : x + width])


def test_clipped_and_empty_boxes_are_counted_and_none_is_an_error() -> None:
    cuts = cut(Region((70, 0, 20, 10)), Region((1, 1, 0, 5)), Region((5, 5, -2, 5)), Region((90, 5, 5, 5)), Region((0, 0, 8, 8)))
    assert boxes(cuts) == [[70, 0, 10, 10], [0, 0, 8, 8]]
    assert cuts.warnings == (
        "clipped, since they reach outside the picture: 1 of 5 boxes",
        "left out, since they are empty or outside the picture: 3 of 5 boxes",
    )
    with pytest.raises(ValueError, match="none of its 2 boxes has a pixel of the picture, which is 80 x 60"):
        cut(Region((0, 0, 0, 0)), Region((80, 0, 5, 5)))
    with pytest.raises(ValueError, match="10,001 boxes; at most 10,000"):
        cut(*[Region((0, 0, 5, 5))] * 10_001)


def test_what_is_not_seen_of_a_box_is_said_and_a_square_needs_no_words() -> None:
    assert cut(Region((0, 0, 8, 8))).notes == ()
    assert "--region-shape square" in cut(Region((0, 0, 8, 9))).notes[0]
    assert cut(Region((0, 0, 8, 9)), shape="square").notes == ()
    assert cut(Region((0, 0, 8, 8), PolygonMask(((0, 0, 5, 0, 5, 5),)))).notes == ("masks are not applied; --region-shape mask does",)


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((30, 20, 20, 10), (30, 15, 50, 35)),
        ((30, 20, 11, 20), (26, 20, 46, 40)),
        ((70, 0, 10, 20), (60, 0, 80, 20)),  # moved inside at the right
        ((10, 55, 20, 5), (10, 40, 30, 60)),  # and at the bottom
    ],
)
def test_a_square_is_around_its_box_and_inside_the_picture(box: tuple[int, ...], square: tuple[int, ...]) -> None:
    cuts = cut(Region(box), shape="square")  # type: ignore[arg-type]
    assert boxes(cuts) == [list(box)]  # a row keeps its box
    left, top, right, bottom = square
    seen = cuts.cuts[0].of(Image.fromarray(generate.pixels()), FILL)
    np.testing.assert_array_equal(np.asarray(seen), generate.pixels()[top:bottom, left:right])


def test_a_square_larger_than_the_picture_has_the_mean_colour_beside_it() -> None:
    (one,) = cut(Region((0, 10, 80, 30)), shape="square").cuts
    seen = np.asarray(one.of(Image.fromarray(generate.pixels()), FILL))
    assert seen.shape == (80, 80, 3)
    above = (80 - 30) // 2 - 10
    np.testing.assert_array_equal(seen[above : above + HEIGHT], generate.pixels())
    assert (seen[:above] == COLOUR).all()
    assert (seen[above + HEIGHT :] == COLOUR).all()


def test_a_square_that_would_fill_memory_is_refused() -> None:
    options = VisionOptions(regions=(Region((0, 0, 100_000, 10)),), region_shape="square")
    with pytest.raises(
        ValueError, match="a square around a box of 100,000 pixels; at most 14,000 are cut out, or choose --region-shape box"
    ):
        cut_regions(options, 100_000, 2_000)


def test_of_a_very_long_box_the_middle_is_cut_as_of_a_very_long_picture() -> None:
    options = VisionOptions(regions=(Region((0, 3, 1000, 2)),))
    (one,) = cut_regions(options, 1000, 10).cuts
    assert (one.box, one.edges) == ((0, 3, 1000, 5), (468, 3, 532, 5))


# Masks


def test_polygons_have_the_pixels_whose_centres_they_hold() -> None:
    square = PolygonMask(((1, 1, 4, 1, 4, 3, 1, 3),)).plane(6, 5)
    wanted = np.zeros((5, 6), bool)
    wanted[1:3, 1:4] = True
    np.testing.assert_array_equal(square, wanted)
    np.testing.assert_array_equal(PolygonMask(((1, 3, 4, 3, 4, 1, 1, 1),)).plane(6, 5), wanted)  # the other way round
    half = PolygonMask(((0, 0, 4, 0, 0, 4),)).plane(4, 4)  # centres on the line are outside on the right
    np.testing.assert_array_equal(half, [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    outside = PolygonMask(((-50, -50, 500, -50, 500, 2, -50, 2),)).plane(4, 4)
    np.testing.assert_array_equal(outside, [[1] * 4, [1] * 4, [0] * 4, [0] * 4])
    both = PolygonMask(((0, 0, 2, 0, 2, 2, 0, 2), (1, 1, 3, 1, 3, 3, 1, 3))).plane(4, 4)  # a union, and not even-odd
    np.testing.assert_array_equal(both, [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    ring = PolygonMask(((0, 0, 5, 0, 5, 5, 0, 5, 0, 0, 1, 1, 1, 4, 4, 4, 4, 1, 1, 1),)).plane(5, 5)
    np.testing.assert_array_equal(ring[2], [1, 0, 0, 0, 1])


def test_a_polygon_agrees_with_the_corner_rule_of_another_program() -> None:
    """Pixels well inside and well outside of a random polygon are those that Pillow fills or leaves."""
    from PIL import ImageDraw, ImageFilter

    corners = np.random.default_rng(0).uniform(2, 58, (9, 2))
    corners = corners[np.argsort(np.arctan2(*(corners - 30).T))]  # a star, which crosses itself nowhere
    drawn = Image.new("L", (60, 60))
    ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in corners], fill=255)
    ours = PolygonMask((tuple(corners.ravel().tolist()),)).plane(60, 60)
    assert ours[np.asarray(drawn.filter(ImageFilter.MinFilter(5))) == 255].all()
    assert not ours[np.asarray(drawn.filter(ImageFilter.MaxFilter(5))) == 0].any()


def packed(counts: list[int]) -> str:
    """Run lengths as COCO's text: the reverse of what is tested, written from its description."""
    text = ""
    for place, count in enumerate(counts):
        number = count - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits = number & 31
            number >>= 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 if more else bits))
    return text


def test_run_lengths_go_down_the_columns() -> None:
    mask = parse_segmentation({"size": [3, 4], "counts": [1, 2, 3, 1, 5]})
    assert mask is not None
    np.testing.assert_array_equal(mask.plane(4, 3), [[0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    everything = parse_segmentation({"size": [2, 2], "counts": [0, 4]})
    assert everything is not None
    assert everything.plane(2, 2).all()


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("123", (1, 2, 3)),
        ("12310", (1, 2, 3, 3, 3)),  # from the fourth on, differences from the last but one: 2 + 1, 3 + 0
        ("0P1", (0, 32)),  # 32 takes two letters: 0 and more, then 1
        ("5?N", (5, 15, 30 - 32)),  # the highest bit is the sign
    ],
)
def test_coco_text_of_run_lengths_by_hand(text: str, counts: tuple[int, ...]) -> None:
    mask = parse_segmentation({"size": [10, 10], "counts": text})
    assert isinstance(mask, RunLengthMask)
    assert mask.counts == counts


def test_coco_text_of_run_lengths_comes_back() -> None:
    random = np.random.default_rng(1)
    inside = random.random((37, 53)) < 0.02
    inside[5:30, 10:40] = True
    flat = np.concatenate([[False], inside.T.ravel(), [not inside.T.ravel()[-1]]])
    counts = np.diff(np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))).tolist()
    counts[0] -= 1
    mask = parse_segmentation({"size": [37, 53], "counts": packed(counts)})
    assert mask is not None
    np.testing.assert_array_equal(mask.plane(53, 37), inside)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[1, 2, 3, 4]], "three corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "three corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three corners"),
        (["abcdef"], "three corners"),
        ("abc", "neither polygons nor run lengths"),
        ({"counts": [1]}, "neither polygons nor run lengths"),
        ({"counts": [1], "size": [0, 5]}, "neither polygons nor run lengths"),
        ({"counts": [1.5], "size": [5, 5]}, "neither numbers nor COCO's text"),
        ({"counts": "\x01", "size": [5, 5]}, "damaged"),
        ({"counts": "P", "size": [5, 5]}, "torn"),
        ({"counts": "o" * 100, "size": [5, 5]}, "damaged"),
    ],
)
def test_broken_masks_are_refused_in_words(segmentation: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_segmentation(segmentation)


@pytest.mark.parametrize("counts", [[3, 4], [-1, 26], [10**9, 25 - 10**9]])
def test_run_lengths_that_are_not_of_their_picture_are_refused_before_memory_is_taken(counts: list[int]) -> None:
    mask = parse_segmentation({"counts": counts, "size": [5, 5]})
    assert mask is not None
    with pytest.raises(ValueError, match="run lengths of"):
        mask.plane(5, 5)
    with pytest.raises(ValueError, match="a mask of 5 x 5 pixels; the picture has 6 x 5"):
        mask.plane(6, 5)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_a_picture_is_a_mask_where_it_is_not_black(tmp_path: Path, mode: str) -> None:
    inside = generate.pixels()[..., 0] > 128
    if mode == "I;16":
        image = Image.fromarray(inside.astype(np.uint16))
    else:
        image = Image.fromarray(inside.astype(np.uint8) * 255).convert(mode if mode != "P" else "L")
        image = image.convert("P") if mode == "P" else image
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(PictureMask(str(tmp_path / "mask.png")).plane(WIDTH, HEIGHT), inside)


def test_a_masked_region_is_a_square_of_the_mean_colour_with_what_is_inside() -> None:
    mask = PolygonMask(((10, 5, 40, 5, 40, 25),))
    cuts = cut(Region((10, 5, 30, 20), mask, {"label": "dog"}), shape="mask")
    assert [one.record for one in cuts.cuts] == [{"label": "dog", "box": [10, 5, 30, 20]}]
    whole = np.where(mask.plane(WIDTH, HEIGHT)[..., None], generate.pixels(), np.array(COLOUR, np.uint8))
    wanted = np.concatenate([whole[:25], np.broadcast_to(np.array(COLOUR, np.uint8), (5, 80, 3))])[0:30, 10:40]
    np.testing.assert_array_equal(np.asarray(cuts.cuts[0].of(Image.fromarray(generate.pixels()), FILL)), wanted)


def test_a_mask_without_a_box_has_the_one_around_it_and_a_box_without_a_mask_is_said() -> None:
    mask = PolygonMask(((10, 5, 40, 5, 40, 25),))
    cuts = cut(Region(None, mask), Region((0, 0, 5, 9)), shape="mask")
    assert boxes(cuts) == [[11, 5, 29, 20], [0, 0, 5, 9]]
    assert cuts.warnings == ("cut as a box, since they have no mask: 1 of 2 boxes",)
    assert cuts.cuts[1].edges == (0, 0, 5, 9)
    assert cut(Region(None, PolygonMask(((90, 90, 95, 90, 95, 95),))), Region((0, 0, 5, 5))).warnings[0].startswith("left out")


def test_a_map_is_cut_as_a_picture_is() -> None:
    values = generate.relief()
    options = DepthOptions(regions=(Region((10, 5, 30, 20), PolygonMask(((10, 5, 40, 5, 40, 25),))),), region_shape="mask")
    (one,) = cut_regions(options, WIDTH, HEIGHT).cuts
    inside = PolygonMask(((10, 5, 40, 5, 40, 25),)).plane(WIDTH, HEIGHT)
    np.testing.assert_array_equal(one.of(values, (7.0,)), np.where(inside, values, np.float32(7))[0:30, 10:40])
    plain = cut_regions(DepthOptions(regions=(Region((10, 5, 30, 20)),)), WIDTH, HEIGHT).cuts[0]
    np.testing.assert_array_equal(plain.of(values, (7.0,)), values[5:25, 10:40])


# Tiles


@pytest.mark.parametrize("size", [(80, 60), (61, 47), (300, 20), (7, 90), (1, 1)])
def test_tiles_cover_everything_and_overlap_by_half(size: tuple[int, int]) -> None:
    width, height = size
    for side in (Fraction(1), Fraction(1, 2), Fraction(1, 3)):
        covered = np.zeros((height, width), int)
        found = tiles(width, height, [side])
        pixels = max(1, round(min(size) * side))
        for left, top, right, bottom in found:
            assert (right - left, bottom - top) == (pixels, pixels)
            assert 0 <= left <= right <= width
            assert 0 <= top <= bottom <= height
            covered[top:bottom, left:right] += 1
        assert covered.all()
        steps = np.diff(sorted({left for left, *_ in found}))
        assert (steps <= pixels / 2 + 1).all()
    assert tiles(80, 60, [Fraction(1), Fraction(1, 2)]) == [*tiles(80, 60, [Fraction(1)]), *tiles(80, 60, [Fraction(1, 2)])]


def test_tiles_by_hand_and_too_many_of_them() -> None:
    assert tiles(60, 60, [Fraction(1)]) == [(0, 0, 60, 60)]
    assert tiles(90, 60, [Fraction(1)]) == [(0, 0, 60, 60), (30, 0, 90, 60)]
    assert len(tiles(60, 60, [Fraction(1, 2)])) == 9
    with pytest.raises(ValueError, match="more than 10,000 tiles in 4000 x 3000 pixels; choose larger ones"):
        tiles(4000, 3000, [Fraction(1, 1000)])


@pytest.mark.parametrize("text", ["", "0", "2", "1/0", "a", "1/2,", "-1/2", "1/2 1/3"])
def test_sides_of_tiles_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Exception, match="tiles is '.*'; fractions of the short side are needed"):
        VisionOptions(tiles=text)


# Boxes as text


@pytest.mark.parametrize("value", [[1, 2, 3, 4], (1.0, 2.0, 3.0, 4.0), "1 2 3 4", "1,2,3,4", "[1, 2, 3, 4]", " (1,2, 3 ,4) "])
def test_boxes_are_four_numbers(value: Any) -> None:
    assert parse_box(value) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "value", [None, [], [1, 2, 3], [1, 2, 3, 4, 5], "a b c d", [1, 2, 3, float("nan")], {"x": 1}, 7, "", [1, 2, 3, None]]
)
def test_other_values_are_not(value: Any) -> None:
    with pytest.raises(ValueError, match="is not x, y, width and height"):
        parse_box(value)
