"""Regions of pictures and maps as rows: equal to arrays cut by hand, recognised by a second run, kept apart from whole pictures."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

import imagebind_cli as ib
from imagebind_cli import corpus
from imagebind_cli.boxes import box_of
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener
from imagebind_cli.media.masks import PolygonMask
from imagebind_cli.media.regions import Region
from imagebind_cli.sources import Regions
from imagebind_cli.store import FORMATS, is_store, open_store
from tests import generate
from tests.conftest import Finished, Run, Start

PYTHON = Path(__file__).parents[2] / "docs" / "python.md"
SAMPLES = Path(__file__).parents[2] / "imagebind_cli" / "demo" / "samples"
BOXES = [[10, 5, 30, 40], [0, 0, 80, 60], [50, 20, 9, 9], [70, 50, 30, 30]]
PIXELS = [[10, 5, 30, 40], [0, 0, 80, 60], [50, 20, 9, 9], [70, 50, 10, 10]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Kept(Listener):
    """Keeps what is assumed, lost and failed."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        self.words.append(f"{id}: {reason}")

    def remarks(self, id: str, notes: Any, warnings: Any) -> None:
        self.words += [*notes, *warnings]

    def note(self, text: str) -> None:
        self.words.append(text)


def table(*rows: Any, path: str = "boxes.jsonl") -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def cut(values: np.ndarray, box: list[int]) -> np.ndarray:
    x, y, width, height = box
    return values[y : y + height, x : x + width]


def rows(path: str) -> list[tuple[str, Any]]:
    reader = open_store(path)
    return [(id, box_of(reader.meta(row))) for row, id in enumerate(reader.ids)]


def done(run: Finished) -> str:
    return run.notices[-1].split(": ", 2)[2].rpartition(" (")[0]


# The same vectors


@pytest.mark.parametrize("kind", ["image", "depth", "thermal"])
def test_regions_have_the_vectors_of_arrays_cut_by_hand(folder: Path, tiny: Any, kind: str) -> None:
    path = generate.sample(kind, folder)
    whole = {"image": generate.pixels(), "depth": (generate.relief() * 1000).astype(np.uint16), "thermal": generate.pixels()[..., 0]}[kind]
    regions = tiny.embed(kind, [Regions(path, BOXES)], batch_size=4, listener=Kept())
    by_hand = tiny.embed(kind, [np.ascontiguousarray(cut(whole, box)) for box in PIXELS], batch_size=4, listener=Kept())
    assert regions.tobytes() == by_hand.tobytes()
    assert np.ptp(regions @ regions.T) > 1e-4


def test_a_turned_picture_has_boxes_in_its_upright_pixels(folder: Path, tiny: Any) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(generate.pixels())).save("turned.png", exif=exif)
    regions = tiny.embed("image", [Regions("turned.png", BOXES)], batch_size=4, listener=Kept())
    assert regions.tobytes() == tiny.embed("image", [cut(generate.pixels(), box) for box in PIXELS], batch_size=4).tobytes()


def test_masks_are_filled_with_what_the_encoder_takes_for_nothing(folder: Path, tiny: Any) -> None:
    generate.picture(Path("a.png"))
    mask = PolygonMask(((10, 5, 40, 5, 40, 35),))
    whole = generate.pixels().copy()
    whole[~mask.plane(80, 60)] = [round(255 * mean) for mean in tiny.config("image").mean]
    regions = tiny.embed("image", [Regions("a.png", [Region((10, 5, 30, 30), mask)])], region_shape="mask")
    assert regions.tobytes() == tiny.embed("image", [cut(whole, [10, 5, 30, 30])]).tobytes()
    (sample,) = tiny.read("image", Regions("a.png", [Region((10, 5, 30, 30), mask)]), region_shape="mask")
    assert abs(sample.tensor[0, :, -1, 0]).max() < 0.01
    (sample,) = tiny.read("depth", Regions(generate.relief(), [Region((10, 5, 30, 30), mask)]), region_shape="mask")
    assert abs(sample.tensor[0, :, -1, 0]).max() < 1e-6


def test_a_map_is_scaled_as_a_whole_before_it_is_cut(folder: Path, tiny: Any) -> None:
    """A region of 16-bit thermal values has the range of its picture, and not one of its own."""
    values = (generate.relief() * 1000).astype(np.uint16)
    scaled = (values - values.min()) / (values.max() - values.min())
    (sample,) = tiny.read("thermal", Regions(values, [[10, 5, 32, 32]]))
    (whole,) = tiny.read("thermal", scaled[5:37, 10:42].astype(np.float32), thermal_range="0:1")
    np.testing.assert_allclose(sample.tensor, whole.tensor, atol=1e-6)


def test_many_regions_come_in_several_samples(folder: Path, tiny: Any) -> None:
    generate.picture(Path("a.png"))
    samples = list(tiny.read("image", Regions("a.png", [[number % 70, 0, 10, 10] for number in range(150)])))
    assert [len(sample.tensor) for sample in samples] == [64, 64, 22]
    assert [region["box"][0] for sample in samples for region in sample.regions] == [number % 70 for number in range(150)]
    assert [bool(sample.facts) for sample in samples] == [True, False, False]


def test_all_of_a_very_long_picture_has_regions(folder: Path, tiny: Any) -> None:
    whole = generate.pixels(size=(2000, 20))
    Image.fromarray(whole).save("long.png")
    regions = tiny.embed("image", [Regions("long.png", [[0, 0, 20, 20], [1980, 0, 20, 20]])], batch_size=2)
    assert regions.tobytes() == tiny.embed("image", [whole[:, :20], whole[:, 1980:]], batch_size=2).tobytes()


def test_tiles_are_rows_that_no_pool_averages(embed: Run, folder: Path) -> None:
    generate.picture(Path("a.png"))
    for pool in ("mean", "none"):
        run = embed("image", "a.png", "--tiles", "1,1/2", "--pool", pool)
        assert run.code == 0, run.err
        found = [row["meta"]["box"] for row in run.rows]
        assert found[:2] == [[0, 0, 60, 60], [20, 0, 60, 60]]
        assert len(found) == 2 + 5 * 3
    by_hand = ib.load("tiny", device="cpu").embed("image", [cut(generate.pixels(), box) for box in found])
    np.testing.assert_array_equal(run.vectors, by_hand)
    depth = embed("depth", generate.depth(Path("d.png")), "--tiles", "1/2")
    assert len(depth.rows) == 15


def test_other_options_are_refused_with_words(embed: Run, tiny: Any, folder: Path) -> None:
    generate.picture(Path("a.png"))
    boxes = table({"image": "a.png", "box": [1, 2, 3, 4]})
    for words, arguments in {
        "tiles divide whole pictures; leave out tiles if boxes are given": ["image", "--boxes", boxes, "--tiles", "1/2"],
        "region-shape is for boxes; give --boxes FILE": ["image", "a.png", "--region-shape", "square"],
        "video has no option 'tiles', which is for pictures: name the modality image": ["video", "a.png", "--tiles", "1/2"],
        "audio has no option 'tiles'; it has clips": ["audio", "a.png", "--tiles", "1/2"],
        "audio has no regions; boxes are of image, depth or thermal": ["audio", "a.png", "--boxes", boxes],
        "--pictures goes with a list of detections": ["image", "a.png", "--pictures", boxes],
        "does not apply to a live stream": ["video", "-", "--live", "--boxes", boxes],
    }.items():
        run = embed(*arguments)
        assert (run.code, run.out) == (2, b"")
        assert words in run.err
    with pytest.raises(UserError, match="video has no regions"):
        tiny.embed("video", [Regions("a.mp4", BOXES)])
    with pytest.raises(UsageError, match="tiles divide whole pictures"):
        tiny.embed("image", [Regions("a.png", BOXES)], tiles="1/2")


# Inputs, failures and remarks


def test_each_fault_is_a_line_and_the_others_are_embedded(embed: Run, folder: Path) -> None:
    for number, name in enumerate("abcd"):
        generate.picture(Path(f"{name}.png"), number)
    Image.new("1", (5, 5)).save("small.png")
    boxes = table(
        {"image": "a.png", "box": [1, 2, 30, 40], "label": "dog"},
        {"image": "a.png", "box": [70, 2, 30, 40], "label": "cat"},
        {"image": "a.png", "box": [5, 5, 0, 0]},
        {"image": "b.png", "box": [90, 2, 30, 40]},
        {"image": "c.png", "box": "x"},
        {"image": "d.png", "box": [1, 2, 3, 4], "mask": "small.png"},
        {"image": "gone.png", "box": [1, 2, 3, 4]},
        {"box": [1, 2, 3, 4]},
    )
    run = embed("image", "--boxes", boxes, "--region-shape", "mask")
    assert run.code == 1
    assert [(row["id"], row["meta"]) for row in run.rows] == [
        ("a.png", {"label": "dog", "box": [1, 2, 30, 40]}), ("a.png", {"label": "cat", "box": [70, 2, 10, 40]}),
    ]  # fmt: skip
    assert sorted(run.notices) == sorted(
        [
            "imagebind: boxes.jsonl:8: no 'image' in this row; it has box",
            "imagebind: a.png: cut as a box, since they have no mask: 2 of 3 boxes",
            "imagebind: a.png: clipped, since they reach outside the picture: 1 of 3 boxes",
            "imagebind: a.png: left out, since they are empty or outside the picture: 1 of 3 boxes",
            "imagebind: b.png: none of its 1 boxes has a pixel of the picture, which is 80 x 60",
            "imagebind: c.png: boxes.jsonl: line 5: box x is not x, y, width and height",
            "imagebind: d.png: a mask of 5 x 5 pixels; the picture has 80 x 60",
            "imagebind: gone.png: no such file or directory",
        ]
    )


def test_inputs_manifests_archives_and_stdin_get_their_boxes(embed: Run, folder: Path) -> None:
    Path("in").mkdir()
    for number, name in enumerate("ab"):
        generate.picture(Path(f"in/{name}.png"), number)
    generate.tar(Path("a.tar"), ("a.png", Path("in/a.png").read_bytes()))
    table({"id": "first", "image": "in/a.png", "species": "cat"}, path="manifest.jsonl")
    boxes = table({"image": "a.png", "box": [1, 2, 30, 40]}, {"image": "a", "box": [5, 5, 5, 5]})
    assert [row["meta"]["box"] for row in embed("image", "in/", "--boxes", boxes).rows] == [[1, 2, 30, 40]]
    (row,) = embed("image", "--manifest", "manifest.jsonl", "--boxes", boxes).rows
    assert (row["id"], row["meta"]) == ("first", {"image": "in/a.png", "species": "cat", "box": [1, 2, 30, 40]})
    assert embed("image", "-", "--boxes", boxes, stdin=b"in/a.png\n").ids == ["in/a.png"]
    assert [row["meta"]["box"] for row in embed("image", "a.tar", "--boxes", boxes).rows] == [[5, 5, 5, 5]]
    Path("other.csv").write_text("file,where\nin/b.png,1 2 3 4\n")
    run = embed("image", "--boxes", "other.csv", "--column", "image=file", "--column", "box=where")
    assert [row["meta"]["box"] for row in run.rows] == [[1, 2, 3, 4]]


def test_from_python_a_file_of_boxes_needs_no_inputs(folder: Path, tiny: Any) -> None:
    generate.picture(Path("a.png"))
    listener = Kept()
    boxes = table({"image": "a.png", "box": [1, 2, 30, 40], "label": "dog"})
    corpus.embed(tiny, "image", (), "a.h5", boxes=boxes, listener=listener, region_shape="square")
    reader = open_store("a.h5")
    assert (reader.ids, reader.meta(0), reader.provenance["boxes"]) == (["a.png"], {"label": "dog", "box": [1, 2, 30, 40]}, True)
    assert reader.provenance["options"]["region_shape"] == "square"
    assert listener.words == []
    plan = corpus.estimate(tiny, "image", (), "b.h5", boxes=boxes)
    assert (plan.inputs, plan.vectors, len(plan.assumed)) == (1, 1, 1)


# Stores


@pytest.mark.parametrize("ending", FORMATS)
def test_changed_boxes_replace_all_rows_of_their_picture(embed: Run, imagebind: Run, folder: Path, ending: str) -> None:
    for number, name in enumerate("ab"):
        generate.picture(Path(f"{name}.png"), number)
    command, store = ("image", "--boxes", "boxes.jsonl", "-o", f"s{ending}"), f"s{ending}"
    first = [
        {"image": "a.png", "box": [0, 0, 9, 9]},
        {"image": "a.png", "box": [0, 0, 9, 9]},
        {"image": "b.png", "box": [1, 1, 9, 9], "label": "x"},
    ]
    table(*first)
    assert done(embed(*command)) == "2 embedded"
    assert done(embed(*command)) == "0 embedded, 2 there already"
    assert rows(store) == [("a.png", [0, 0, 9, 9]), ("a.png", [0, 0, 9, 9]), ("b.png", [1, 1, 9, 9])]
    table({"image": "a.png", "box": [5, 5, 9, 9]}, first[2])
    assert done(embed(*command)) == "1 embedded, 1 there already"
    assert sorted(rows(store)) == [("a.png", [5, 5, 9, 9]), ("b.png", [1, 1, 9, 9])]
    table({"image": "a.png", "box": [5, 5, 9, 9]}, first[2] | {"label": "y"})  # a row would say what is no longer so
    assert done(embed(*command)) == "1 embedded, 1 there already"
    assert done(embed(*command)) == "0 embedded, 2 there already"
    assert "clean" in imagebind("store", "check", store).err


def test_a_changed_mask_replaces_its_rows(embed: Run, folder: Path) -> None:
    generate.picture(Path("a.png"))
    table({"image": "a.png", "mask": "mask.png"})
    for side in (20, 20, 30):
        mask = Image.new("L", (80, 60))
        mask.paste(255, (0, 0, side, side))
        mask.save("mask.png")
        embed("image", "--boxes", "boxes.jsonl", "--region-shape", "mask", "-o", "s.h5")
    assert rows("s.h5") == [("a.png", [0, 0, 30, 30])]


def test_whole_pictures_tiles_and_boxes_are_not_one_store(embed: Run, imagebind: Run, folder: Path) -> None:
    generate.picture(Path("a.png"))
    boxes = table({"image": "a.png", "box": [1, 2, 30, 40]})
    ways: dict[str, list[str]] = {"whole.h5": ["a.png"], "boxes.h5": ["--boxes", boxes], "tiles.h5": ["a.png", "--tiles", "1/2"]}
    for store, arguments in ways.items():
        assert embed("image", *arguments, "-o", store).code == 0
        assert "clean" in imagebind("store", "check", store).err
    for store in ways:
        for other, arguments in ways.items():
            if other != store:
                run = embed("image", *arguments, "-o", store)
                assert run.code == 1
                assert f"{store}: made with " in run.notices[-1]
    assert "made with no --boxes; this run has --boxes; write to another file" in embed("image", "--boxes", boxes, "-o", "whole.h5").err
    assert "cannot be one store" in imagebind("store", "merge", "whole.h5", "boxes.h5", "-o", "all.h5").err


def test_merged_exported_and_renamed_rows_keep_their_boxes(embed: Run, imagebind: Run, folder: Path) -> None:
    for number, name in enumerate("ab"):
        generate.picture(Path(f"{name}.png"), number)
        embed("image", f"{name}.png", "--tiles", "1", "--verify", "-o", f"{name}.h5")
    assert imagebind("store", "merge", "a.h5", "b.h5", "-o", "all.jsonl").code == 0
    assert imagebind("store", "export", "all.jsonl", "-o", "all.store").code == 0
    wanted = [(f"{name}.png", box) for name in "ab" for box in ([0, 0, 60, 60], [20, 0, 60, 60])]
    assert rows("all.store") == wanted
    Path("a.png").rename("c.png")
    assert "taken from the store" in embed("image", "c.png", "--tiles", "1", "--verify", "-o", "a.h5").err
    assert rows("a.h5")[2:] == [("c.png", [0, 0, 60, 60]), ("c.png", [20, 0, 60, 60])]


def test_a_killed_run_continues_with_every_region_once(start: Start, embed: Run, folder: Path) -> None:
    for number in range(8):
        generate.picture(Path(f"{number}.png"), number)
    boxes = table(*({"image": f"{number}.png", "box": [part, 0, 20, 20]} for number in range(8) for part in range(5)))
    process = start("embed", "image", "-", "--boxes", boxes, "--model", "tiny", "--device", "cpu", "-o", "s.h5")
    assert process.stdin
    process.stdin.write("".join(f"{number}.png\n" for number in range(4)).encode())
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not is_store("s.h5") or not len(open_store("s.h5")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    there = len(open_store("s.h5")) // 5
    assert 0 < there <= 4
    assert done(embed("image", "--boxes", boxes, "-o", "s.h5")) == f"{8 - there} embedded, {there} there already"
    assert sorted(rows("s.h5")) == [(f"{number}.png", [part, 0, 20, 20]) for number in range(8) for part in range(5)]
    fresh = {(row["id"], *row["meta"]["box"]): row["embedding"] for row in embed("image", "--boxes", boxes).rows}
    reader = open_store("s.h5")
    for row, vector in enumerate(reader.vectors()):
        np.testing.assert_allclose(vector, fresh[(reader.id(row), *reader.meta(row)["box"])], atol=1e-6)


# Prepared samples


def test_prepared_tiles_keep_their_boxes(embed: Run, imagebind: Run, folder: Path) -> None:
    generate.picture(Path("a.png"))
    wanted = embed("image", "a.png", "--tiles", "1")
    for target in ("p.tar", "p.h5"):
        assert imagebind("preprocess", "image", "a.png", "--tiles", "1", "-o", target, "--model", "tiny").code == 0
        run = embed("image", target)
        assert [(row["id"], row["meta"]["box"]) for row in run.rows] == [("a.png", row["meta"]["box"]) for row in wanted.rows]
        np.testing.assert_array_equal(run.vectors, wanted.vectors)
    assert "was prepared with --tiles 1; 1/2 is asked for" in embed("image", "p.tar", "--tiles", "1/2").err
    boxes = table({"image": "a.png", "box": [1, 2, 30, 40]})
    assert "prepared samples hold no whole picture to cut regions out of" in embed("image", "p.tar", "--boxes", boxes).err


# docs/python.md


def test_the_page_reads_regions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/python.md, as it stands."""
    section = PYTHON.read_text().split("\n## Regions\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    model = ib.load("mini", device="cpu")
    picture = Image.new("RGB", (192, 192), "white")
    picture.paste(Image.open(SAMPLES / "image" / "guitar.png").convert("RGB").resize((96, 96)))
    picture.save("yard.png")
    table(*({"image": "yard.png", "box": box} for box in ([0, 0, 96, 96], [4, 4, 92, 92], [96, 96, 96, 96])))
    values: dict[str, Any] = {"ib": ib, "model": model}
    exec(code, values)
    assert (values["crops"].shape[0], values["tiles"].shape[0]) == (2, 9)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("yard.png [0, 0, 96, 96]") or first.startswith("yard.png [4, 4, 92, 92]")
    assert second.startswith("yard.png [96, 96, 96, 96]")
