"""Files of boxes: COCO's JSON, detections with their pictures, tables; which input each box is of, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.media.masks import PictureMask, PolygonMask
from imagebind_cli.sources import Failure, Inputs, Item, Regions, read_boxes

IMAGES = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "in/b.png"}, {"id": 3, "file_name": "c.png"}]
CATEGORIES = [{"id": 7, "name": "dog"}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def coco(annotations: list[Any], path: str = "coco.json", **changes: Any) -> Path:
    Path(path).write_text(json.dumps({"images": IMAGES, "annotations": annotations, "categories": CATEGORIES} | changes))
    return Path(path)


def lines(path: str, *rows: Any) -> Path:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(path)


def regions(item: Item | Failure) -> list[tuple[Any, dict[str, Any]]]:
    assert isinstance(item, Item), item
    assert isinstance(item.payload, Regions)
    return [(region.box, dict(region.about)) for region in item.payload.regions]  # type: ignore[union-attr]


def whys(items: Any) -> dict[str, str]:
    return {item.id: item.reason for item in items if isinstance(item, Failure)}


def test_the_pictures_of_coco_are_the_inputs_in_their_order_with_their_labels() -> None:
    path = coco(
        [
            {"id": 10, "image_id": 2, "bbox": [1, 2, 3, 4], "category_id": 7, "segmentation": [[0, 0, 5, 0, 5, 5]]},
            {"id": 11, "image_id": 1, "bbox": [5, 6, 7, 8], "category_id": 8, "iscrowd": 0, "segmentation": []},
            {"id": 12, "image_id": 2, "bbox": [9, 9, 9, 9]},
        ]
    )
    found = read_boxes(path, "image")
    first, second = found.items()
    assert isinstance(first, Item)
    assert (first.id, first.payload.source) == ("a.png", "a.png")
    assert regions(first) == [((5, 6, 7, 8), {"annotation": 11, "label": 8})]
    assert regions(second) == [((1, 2, 3, 4), {"annotation": 10, "label": "dog"}), ((9, 9, 9, 9), {"annotation": 12})]
    assert isinstance(second.payload.regions[0].mask, PolygonMask)  # type: ignore[union-attr]
    assert len(found) == 2
    notes: list[str] = []
    assert len(list(Inputs(warn=notes.append).with_boxes(path, "image").items(("image",)))) == 2
    assert notes == ["coco.json: left out, since they have no box: 1 of 3 pictures"]
    assert Inputs().with_boxes(path, "image").count(("image",)) == 2


def test_a_list_of_detections_needs_its_pictures() -> None:
    coco([], "pictures.json")
    Path("found.json").write_text(json.dumps([
        {"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 7}, {"image_id": 9, "bbox": [0, 0, 1, 1], "score": 0.1},
    ]))  # fmt: skip
    with pytest.raises(UsageError, match="found.json is a list of detections, .* name the JSON that lists these with --pictures"):
        read_boxes("found.json", "image")
    found = read_boxes("found.json", "image", "pictures.json")
    assert [regions(item) for item in found.items()] == [[((1, 2, 3, 4), {"label": "dog", "score": 0.5})]]
    assert found.notes == ("found.json: left out, as of pictures that pictures.json does not have: 1 of 2 boxes",)
    with pytest.raises(UsageError, match="pictures.json has pictures of its own"):
        read_boxes("pictures.json", "image", "pictures.json")


def test_the_pictures_are_beside_the_json_that_names_them() -> None:
    Path("data").mkdir()
    coco([], "data/pictures.json")
    Path("found.json").write_text(json.dumps([{"image_id": 2, "bbox": [1, 2, 3, 4]}]))
    for path, pictures in (("found.json", "data/pictures.json"), (coco([{"image_id": 2, "bbox": [1, 2, 3, 4]}], "data/all.json"), None)):
        (item,) = read_boxes(path, "image", pictures).items()
        assert isinstance(item, Item)
        assert (item.id, item.payload.source) == ("in/b.png", os.path.join("data", "in/b.png"))


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x.png", "in/../../x.png", "..", "\\\\server\\x.png", "in\\..\\..\\x.png", "C:\\x.png", "C:x.png", "a\0b.png"],
)
def test_no_picture_outside_the_folder_is_read(name: str) -> None:
    path = coco([{"image_id": 1, "bbox": [0, 0, 1, 1]}], images=[{"id": 1, "file_name": name}])
    with pytest.raises(UserError, match="outside its folder; it is refused"):
        read_boxes(path, "image")


def test_inputs_are_known_by_the_end_of_their_path() -> None:
    path = coco(
        [{"image_id": number, "bbox": [number, 0, 1, 1]} for number in (1, 2, 3, 4)],
        images=[*IMAGES, {"id": 4, "file_name": "b.png"}],
    )
    found = read_boxes(path, "image")
    names = ["elsewhere/a.png", "in/b.png", "other/b.png", "./c.png", "a.jpg", "xa.png"]
    asked = list(found.attach([*(Item(name, name) for name in names), Failure("bad", "is bad")]))
    assert [regions(item)[0][0][0] for item in asked[:4]] == [1, 2, 4, 3]  # the longest name counts
    assert whys(asked) == {"a.jpg": "coco.json has no box for it", "xa.png": "coco.json has no box for it", "bad": "is bad"}


def test_one_broken_box_costs_its_picture_alone() -> None:
    path = coco(
        [
            {"id": 5, "image_id": 1, "bbox": [1, 2, 3]},
            {"id": 6, "image_id": 1, "bbox": [1, 2, 3, 4]},
            {"image_id": 2, "bbox": [1, 2, 3, 4]},
            {"id": 8, "image_id": 3},
        ]
    )
    items = list(read_boxes(path, "image").items())
    assert whys(items) == {
        "a.png": "coco.json: annotation 5: box [1, 2, 3] is not x, y, width and height",
        "c.png": "coco.json: annotation 8: neither bbox nor segmentation",
    }
    assert len(items) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("5", "no list of 'annotations'"),
        ("{}", "no list of 'annotations' in it, which JSON of COCO's form has"),
        ('{"annotations": []}', "no list of 'images'"),
        ('{"annotations": [], "images": [{"id": 1}]}', "image 0 has no id or no file_name"),
        ('{"annotations": [], "images": [5]}', "image 0 has no id or no file_name"),
        ('{"annotations": [], "images": [{"id": [1], "file_name": "a"}]}', "image 0 has no id or no file_name"),
        ("[" * 200 + "]" * 200, "nested"),
    ],
)
def test_json_of_another_form_is_one_line(text: str, words: str) -> None:
    Path("x.json").write_text(text)
    with pytest.raises(UserError, match=words) as raised:
        read_boxes("x.json", "image")
    assert "\n" not in str(raised.value)


def test_annotations_of_any_shape_cost_no_traceback() -> None:
    path = coco([5, None, {"image_id": [1]}, {"image_id": 1, "bbox": "x", "category_id": {}}], categories=[3, {"id": 1}])
    found = read_boxes(path, "image")
    assert list(whys(found.items())) == ["a.png"]
    assert found.notes == ("coco.json: left out, as of pictures that coco.json does not have: 3 of 4 boxes",)


def test_a_table_has_a_row_for_each_box_and_its_other_columns_are_kept() -> None:
    path = lines(
        "boxes.jsonl",
        {"image": "a.png", "box": [1, 2, 3, 4], "label": "dog", "score": 0.5},
        {"image": "b.png", "mask": "masks/b.png"},
        {"image": "a.png", "box": "5 6 7 8", "breed": "pug"},
        {"id": "mine", "image": "a.png", "box": [9, 9, 9, 9]},
    )
    first, second, third = read_boxes(path, "image").items()
    assert regions(first) == [((1, 2, 3, 4), {"label": "dog", "score": 0.5}), ((5, 6, 7, 8), {"breed": "pug"})]
    assert second.payload.regions[0].mask == PictureMask("masks/b.png")  # type: ignore[union-attr]
    assert (third.id, regions(third)) == ("mine", [((9, 9, 9, 9), {})])


def test_a_csv_may_have_other_names_and_numbers_are_numbers() -> None:
    Path("boxes.csv").write_text('file,region,label,score\na.png,"1,2,3,4",dog,0.25\na.png,5 6 7 8,cat,high\n')
    found = read_boxes("boxes.csv", "depth", columns={"depth": "file", "box": "region"})
    (item,) = found.items()
    assert regions(item) == [((1, 2, 3, 4), {"label": "dog", "score": 0.25}), ((5, 6, 7, 8), {"label": "cat", "score": "high"})]


def test_bad_rows_are_one_line_each_and_the_others_are_read() -> None:
    Path("boxes.csv").write_text("image,box,mask\na.png,1 2 3,\nb.png,1 2 3 4,\n,1 2 3 4,\nc.png,,\nd.png,1 2 3 4\n")
    items = list(read_boxes("boxes.csv", "image").items())
    assert whys(items) == {
        "boxes.csv:4": "no 'image' in this row; it has box",
        "a.png": "boxes.csv: line 2: box 1 2 3 is not x, y, width and height",
        "c.png": "boxes.csv: line 5: neither box nor mask; it has image",
        "d.png": "boxes.csv: line 6: has 2 cells for 3 columns; a cell that is empty has its delimiter, too",
    }
    assert [item.id for item in items if isinstance(item, Item)] == ["b.png"]
    path = lines("boxes.jsonl", {"id": "x", "image": "a.png", "box": [1, 2, 3, 4]}, {"id": "x", "image": "b.png", "box": [1, 2, 3, 4]})
    assert whys(read_boxes(path, "image").items()) == {"x": "boxes.jsonl: line 2: the id 'x' belongs to 'a.png' in an earlier row"}
    with pytest.raises(UserError, match="no column 'image'"):
        Path("other.csv").write_text("file,box\na.png,1 2 3 4\n")
        read_boxes("other.csv", "image")


@pytest.mark.parametrize("modality", ["audio", "text", "video", "vision", "imu"])
def test_what_is_not_a_picture_has_no_regions(modality: str) -> None:
    with pytest.raises(UsageError, match=f"{modality} has no regions"):
        read_boxes(coco([]), modality)


def test_several_modalities_have_none_together() -> None:
    with pytest.raises(UsageError, match="boxes are of one modality at a time"):
        list(Inputs().with_boxes(coco([{"image_id": 1, "bbox": [0, 0, 1, 1]}]), "image").items(("image", "depth")))


def test_regions_may_be_plain_boxes() -> None:
    assert [region.box for region in Regions("a.png", [[1, 2, 3, 4], (5, 6, 7, 8)]).regions] == [(1, 2, 3, 4), (5, 6, 7, 8)]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="box 7 is not"):
        Regions("a.png", [7])  # type: ignore[list-item]
