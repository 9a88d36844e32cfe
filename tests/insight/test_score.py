"""`score_pairs`: the mean cosine of pairs by hand, its interval, who has no partner, and the best of a group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagebind_cli.errors import UserError
from imagebind_cli.insight.score import score_pairs
from tests.stores import DIM, store, unit_rows


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """Sounds that have the cosines 0.5, 0.7, 0.9 with their pictures, and one item of each without a partner."""
    pictures, cosines = np.eye(DIM, dtype=np.float32)[:4], np.array([0.5, 0.7, 0.9, 1])
    sounds = cosines[:, None] * pictures
    sounds[:, DIM - 1] = np.sqrt(1 - cosines**2)
    metas = [{"prompt": name} for name in "aabb"]
    return [
        store(tmp_path / "a.h5", "image", ["1.png", "2.png", "3.png", "4.png"], pictures),
        store(tmp_path / "b.h5", "audio", ["s/1.wav", "s/2.wav", "s/3.wav", "s/5.wav"], sounds.astype(np.float32), metas=metas),
    ]


def test_the_score_is_the_mean_cosine_of_the_pairs(stores: list[Path]) -> None:
    found = score_pairs(stores, "stem")
    np.testing.assert_allclose(found.cosines, [0.5, 0.7, 0.9], atol=1e-6)
    line = found.as_json()
    assert (line["score"], line["score_x100"]) == (pytest.approx(0.7, abs=1e-6), pytest.approx(70, abs=1e-4))
    assert 0.5 - 1e-6 <= line["low"] < 0.7 < line["high"] <= 0.9 + 1e-6
    assert (line["pairs"], line["unpaired"]) == (3, [["4.png"], ["s/5.wav"]])
    assert [row["ids"] for row in found.rows()] == [["1.png", "s/1.wav"], ["2.png", "s/2.wav"], ["3.png", "s/3.wav"]]
    assert "low" not in score_pairs(stores, "stem", draws=0).as_json()


def test_of_a_group_the_best_pair_counts(stores: list[Path]) -> None:
    for groups in ("prompt", {"s/1.wav": "a", "s/2.wav": "a", "s/3.wav": "b"}):
        found = score_pairs(stores, "stem", best_of=groups)
        assert found.ids == [("2.png", "s/2.wav"), ("3.png", "s/3.wav")]
        assert found.as_json()["score"] == pytest.approx(0.8, abs=1e-6)
    with pytest.raises(UserError, match=r"'s/1\.wav' has no group by voice"):
        score_pairs(stores, "stem", best_of="voice")


def test_windows_of_an_item_score_as_their_mean(tmp_path: Path) -> None:
    rows = unit_rows(4)
    store(tmp_path / "a.h5", "image", ["x", "y"], rows[:2])
    store(tmp_path / "b.h5", "audio", ["x", "x", "y"], rows[1:], [(0.0, 2.0), (1.0, 3.0), (0.0, 2.0)], pool="none")
    mean = rows[1].astype(np.float64) + rows[2]
    expected = [rows[0] @ mean / np.linalg.norm(mean), rows[1] @ rows[3]]
    np.testing.assert_allclose(score_pairs([tmp_path / "a.h5", tmp_path / "b.h5"]).cosines, expected, atol=1e-6)
