"""The labels of a recording, by which recipes/mini/report/moments.py counts what is found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "mini" / "report"))

import moments

WALKING, SITTING = 1, 4


def labelled(*parts: tuple[int, float]) -> Any:
    return moments.Labelled(Path("a.csv"), np.concatenate([np.full(round(seconds * 50), label) for label, seconds in parts]))


def found(recording: Any, start: float, end: float, label: int = WALKING) -> tuple[bool, bool]:
    hit: Any = moments.MomentHit(None, 1, start, end, 0, start, 0)  # type: ignore[arg-type]
    return moments.is_found(hit, recording, label)


def test_stretches_of_a_label_and_those_joined_over_what_has_none() -> None:
    recording = labelled((-1, 4), (WALKING, 20), (-1, 6), (WALKING, 20), (-1, 2), (SITTING, 10), (WALKING, 8))
    assert recording.stretches(WALKING).tolist() == [[4, 24], [30, 50], [62, 70]]
    assert recording.stretches(WALKING, joined=True).tolist() == [[4, 50], [62, 70]]
    assert recording.labelled(np.array([0, 4, 24, 27, 30, 50, 70, 99])).tolist() == [0, 0, 20, 20, 20, 40, 58, 58]


def test_what_is_found_as_labelled_and_without_unlabelled_seconds() -> None:
    recording = labelled((-1, 4), (WALKING, 20), (-1, 6), (WALKING, 20), (-1, 2), (SITTING, 10))
    assert found(recording, 4, 24) == (True, True)
    assert found(recording, 0, 52) == (False, True)  # both walks and the turns between and around them
    assert found(recording, 52, 62) == (False, False)
    assert found(recording, 0, 3) == (False, False)  # no labelled second
    assert found(recording, 52, 62, SITTING) == (True, True)
    assert moments.is_found(None, recording, WALKING) == (False, False)
