"""Overlaps of boxes by hand, and non-maximum suppression against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from imagebind_cli.boxes import box_of, box_overlaps, holds_boxes, suppress


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate([random.uniform(0, 60, (count, 2)), random.uniform(1, 40, (count, 2))], axis=1)


def corners(boxes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))


def test_overlaps_by_hand() -> None:
    boxes = [[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10], [2, 2, 5, 5], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_overlaps(boxes[:1], boxes)[0], [1, 1 / 3, 0, 0.25, 0])
    assert box_overlaps(boxes, boxes).shape == (5, 5)
    assert box_overlaps(boxes, []).shape == (5, 0)


def test_overlaps_and_suppression_are_torchvision_s() -> None:
    boxes, scores = random_boxes(80), np.random.default_rng(1).random(80)
    np.testing.assert_allclose(box_overlaps(boxes, boxes), box_iou(corners(boxes), corners(boxes)), atol=1e-12)
    order = np.argsort(-scores)
    for most in (0.0, 0.1, 0.5, 0.9, 1.0):
        wanted = nms(corners(boxes), torch.from_numpy(scores), most).tolist()
        assert order[suppress(boxes[order].tolist(), most)].tolist() == wanted
    assert suppress([], 0.5) == []
    assert suppress([[0, 0, 1, 1]] * 3, 1.0) == [0, 1, 2]  # more than the threshold goes, and nothing is more than 1


@pytest.mark.parametrize(
    ("meta", "box"),
    [
        ({"box": [1, 2.5, 3, 4]}, [1, 2.5, 3, 4]),
        ({}, None),
        ({"box": "A3"}, None),  # a column of someone's manifest
        ({"box": [1, 2, 3]}, None),
        ({"box": [1, 2, 3, "4"]}, None),
        ({"box": [1, 2, 3, True]}, None),
    ],
)
def test_a_row_has_a_box_if_its_meta_has_one(meta: dict[str, object], box: list[float] | None) -> None:
    assert box_of(meta) == box


def test_provenance_says_whether_there_are_regions() -> None:
    assert holds_boxes({"boxes": True})
    assert holds_boxes({"options": {"tiles": "1/2"}})
    assert not holds_boxes({"options": {"tiles": None}})
    assert not holds_boxes({})
    assert not holds_boxes({"options": 5})
