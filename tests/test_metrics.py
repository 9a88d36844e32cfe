"""Every score equal to scikit-learn's, or to a case worked out on paper, to 1e-12."""

from __future__ import annotations

import numpy as np
import pytest

from imagebind_cli import metrics
from tests.later import Later

sklearn = Later("sklearn.metrics")

CLOSE = 1e-12


def close(value: object) -> object:
    return pytest.approx(value, rel=CLOSE, abs=CLOSE, nan_ok=True)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


# Classification


@pytest.mark.parametrize("k", [1, 2, 5])
def test_accuracy_is_that_of_scikit_learn(random: np.random.Generator, k: int) -> None:
    scores, truth = random.normal(size=(300, 7)), random.integers(0, 7, 300)
    wanted = sklearn.top_k_accuracy_score(truth, scores, k=k, labels=range(7))
    assert metrics.accuracy(scores, truth, k).mean() == close(wanted)


def test_the_class_that_comes_first_wins_a_tie() -> None:
    scores, truth = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]), np.array([1, 0, 2])
    assert metrics.class_ranks(scores, truth).tolist() == [1, 0, 2]
    assert metrics.accuracy(scores, truth).tolist() == [0, 1, 0]
    assert metrics.accuracy(scores, truth).mean() == np.mean(scores.argmax(axis=1) == truth)
    assert metrics.accuracy(scores, truth, 2).tolist() == [1, 1, 0]


def test_mean_per_class_is_balanced_accuracy(random: np.random.Generator) -> None:
    truth = random.choice(6, 400, p=[0.5, 0.3, 0.1, 0.05, 0.0, 0.05])  # a class without items among them
    predicted = np.where(random.random(400) < 0.4, truth, random.choice([0, 1, 2, 3, 5], 400))
    correct = (predicted == truth).astype(float)
    assert metrics.mean_per_class(correct, truth) == close(sklearn.balanced_accuracy_score(truth, predicted))
    wanted = sklearn.recall_score(truth, predicted, average=None, labels=range(6), zero_division=np.nan)
    assert metrics.per_class(correct, truth, 6) == close(wanted)


def test_confusion_is_that_of_scikit_learn(random: np.random.Generator) -> None:
    truth, predicted = random.integers(0, 5, 200), random.integers(0, 4, 200)
    ours = metrics.confusion(truth, predicted, 6)
    assert (ours == sklearn.confusion_matrix(truth, predicted, labels=range(6))).all()
    assert ours.sum() == 200


# Average precision


@pytest.mark.parametrize("digits", [16, 1], ids=["no ties", "ties"])
def test_average_precision_is_that_of_scikit_learn(random: np.random.Generator, digits: int) -> None:
    scores = random.normal(size=(250, 9)).round(digits)
    relevant = random.random((250, 9)) < np.linspace(0.02, 0.9, 9)
    ours = metrics.average_precision(scores, relevant)
    assert ours == close([sklearn.average_precision_score(relevant[:, c], scores[:, c]) for c in range(9)])
    assert ours.mean() == close(sklearn.average_precision_score(relevant, scores, average="macro"))


def test_average_precision_with_counts_is_scikit_learns_with_weights(random: np.random.Generator) -> None:
    scores, relevant = random.normal(size=(60, 3)).round(1), random.random((60, 3)) < 0.3
    counts = random.multinomial(60, np.full(60, 1 / 60), size=5)
    ours = metrics.average_precision(scores, relevant, counts)
    assert ours.shape == (5, 3)
    for row, weights in zip(ours, counts, strict=True):
        wanted = [sklearn.average_precision_score(relevant[:, c], scores[:, c], sample_weight=weights) for c in range(3)]
        assert row == close(wanted)
        repeated = np.repeat(np.arange(60), weights)
        assert row == close(metrics.average_precision(scores[repeated], relevant[repeated]))


def test_average_precision_on_paper() -> None:
    scores = np.array([[0.9, 1, 0.5], [0.8, 1, 0.5], [0.7, 1, 0.5], [0.6, 0, 0.5]])
    relevant = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    # First: found at places 1 and 3: (1/1 + 2/3) / 2. Second: three tied items enter together: 1/3. Third: no item has the class.
    assert metrics.average_precision(scores, relevant) == close([5 / 6, 1 / 3, np.nan])


# Retrieval


def test_retrieval_on_paper() -> None:
    scores = metrics.retrieval([np.array([0]), np.array([1, 4]), np.array([12]), np.array([2, 3, 10])])
    log = np.log2
    assert {name: values.tolist() for name, values in scores.items()} == {
        **{f"R@{k}": close([float(first < k) for first in (0, 1, 12, 2)]) for k in metrics.CUTOFFS},
        "rank": close([1, 2, 13, 3]),
        "AP": close([1, (1 / 2 + 2 / 5) / 2, 1 / 13, (1 / 3 + 2 / 4 + 3 / 11) / 3]),
        "nDCG@10": close([1, (1 / log(3) + 1 / log(6)) / (1 + 1 / log(3)), 0, (1 / log(4) + 1 / log(5)) / (1 + 1 / log(3) + 1 / log(4))]),
    }


def test_retrieval_is_that_of_scikit_learn(random: np.random.Generator) -> None:
    scores, relevant = random.normal(size=(40, 30)), random.random((40, 30)) < random.choice([0.05, 0.6], 40)[:, None]
    relevant[:, 0] |= ~relevant.any(axis=1)
    order = np.argsort(-scores, axis=1)
    ours = metrics.retrieval([np.flatnonzero(relevant[q][order[q]]) for q in range(40)])
    assert ours["nDCG@10"].mean() == close(sklearn.ndcg_score(relevant, scores, k=10))
    assert ours["AP"] == close([sklearn.average_precision_score(relevant[q], scores[q]) for q in range(40)])
    assert ours["AP"].mean() == close(sklearn.label_ranking_average_precision_score(relevant, scores))
    best = np.array([np.where(relevant[q], scores[q], -np.inf).max() for q in range(40)])
    rank = (scores > best[:, None]).sum(axis=1)
    assert ours["rank"].tolist() == (rank + 1).tolist()
    for k in metrics.CUTOFFS:
        assert ours[f"R@{k}"].tolist() == (rank < k).tolist()


def test_retrieval_of_no_queries_is_empty() -> None:
    names = metrics.retrieval([np.array([0])])
    assert {name: values.shape for name, values in metrics.retrieval([]).items()} == dict.fromkeys(names, (0,))


@pytest.mark.parametrize("ranks", [[[0], []], [[3, 1]], [[2, 2]], [[-1]], [[0, 1], [5, 4]]])
def test_ranks_that_make_no_sense_are_refused(ranks: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="rank|relevant"):
        metrics.retrieval([np.array(own, int) for own in ranks])


# Intervals


def test_an_interval_is_the_normal_one_where_that_holds(random: np.random.Generator) -> None:
    values = (random.random(4000) < 0.3).astype(float)
    low, high = metrics.interval(values)
    half = 1.959964 * np.sqrt(values.mean() * (1 - values.mean()) / len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    assert metrics.interval(values) == (low, high)
    assert metrics.interval(values, seed=1) != (low, high)


def test_an_interval_of_any_statistic() -> None:
    assert metrics.interval(np.full(20, 3.0), np.median) == (3, 3)
    pairs = np.column_stack([np.arange(50.0), 2 * np.arange(50.0)])
    low, high = metrics.interval(pairs, lambda rows: rows[:, 1].mean() / rows[:, 0].mean())  # rows are drawn whole
    assert (low, high) == close((2, 2))
    narrow, wide = (np.ptp(metrics.interval(np.arange(100.0), level=level)) for level in (0.5, 0.99))
    assert narrow < wide
    with pytest.raises(ValueError, match="no values"):
        metrics.interval(np.empty(0))


def test_an_interval_covers_the_truth_as_often_as_it_says(random: np.random.Generator) -> None:
    covered = 0
    for seed in range(200):
        low, high = metrics.interval((random.random(100) < 0.5).astype(float), draws=200, seed=seed)
        covered += low <= 0.5 <= high
    assert 0.88 < covered / 200 < 0.99


# Places


def test_overlaps_of_a_map_with_the_truth_by_hand() -> None:
    heat = np.array([[9.0, 8, 1, 1], [7, 2, 1, 1]])
    truth = np.array([[1.0, 0.5, 0, 0], [0, 0, 0, 0]])
    scores = metrics.localisation([heat], [truth])
    # The median is 1.5: 9, 8, 7 and 2 are marked, two of them outside the truth of 1.5.
    assert scores["cIoU"].tolist() == [1.5 / (1.5 + 2)]
    assert scores["adaptive cIoU"].tolist() == [1.0]  # the truth has two cells; 9 and 8 are marked
    assert scores["pointing"].tolist() == [1.0]
    missed = metrics.localisation([heat[:, ::-1]], [truth])
    assert (missed["cIoU"][0], missed["adaptive cIoU"][0], missed["pointing"][0]) == (0, 0, 0)


def test_the_published_threshold_marks_half_a_picture() -> None:
    """A thing of a twentieth of the picture cannot reach a cIoU of 0.5, though the map is the truth itself."""
    truth = np.zeros((10, 20))
    truth[:2, :5] = 1
    ramp = truth + np.arange(200).reshape(10, 20) / 1000
    scores = metrics.localisation([ramp], [truth])
    assert scores["cIoU"][0] == 10 / 100
    assert scores["adaptive cIoU"][0] == 1


def test_the_area_under_the_success_curve() -> None:
    assert metrics.success_area(np.array([1.0, 1.0])) == pytest.approx(1)
    assert metrics.success_area(np.array([0.0])) == pytest.approx(0.025)  # every overlap reaches 0
    assert metrics.success_area(np.array([0.5])) == pytest.approx(0.525)


def test_maps_and_truths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="item 0"):
        metrics.localisation([np.zeros((2, 2))], [np.ones((2, 3))])
    with pytest.raises(ValueError, match="of 0 cells"):
        metrics.localisation([np.zeros((2, 2))], [np.zeros((2, 2))])


# Moments


def test_overlaps_of_stretches_by_hand() -> None:
    found = metrics.overlaps(np.array([(0, 4), (5, 6), (2, 2)]), np.array([(2, 6), (4, 5), (0, 4)]))
    assert found.tolist() == [[close(2 / 6), 0, 1], [close(1 / 4), 0, 0], [0, 0, 0]]
    assert metrics.overlaps(np.empty((0, 2)), np.array([(0, 1)])).shape == (0, 1)


def test_the_first_moment_counts_with_the_best_of_the_truth() -> None:
    scores = metrics.moment_retrieval(np.array([(0, 6), (20, 30)]), np.array([(20, 30), (0, 10)]))
    assert (scores["R@1 IoU 0.5"], scores["R@1 IoU 0.7"]) == (1, 0)
    assert metrics.moment_retrieval(np.array([(0, 5)]), np.array([(0, 10)]))["R@1 IoU 0.5"] == 1  # 0.5 itself


def test_average_precision_of_moments_by_hand() -> None:
    """Right, wrong, a second time the same, right: precision 1 up to half of the truth, then 2 of 4."""
    found, truth = np.array([(0, 10), (50, 60), (0, 9), (20, 30)]), np.array([(0, 10), (20, 30)])
    assert metrics.moment_retrieval(found, truth)["mAP"] == close(0.5 * 1 + 0.5 * 2 / 4)
    assert metrics.moment_retrieval(found[:2], truth)["mAP"] == close(0.5)
    assert metrics.moment_retrieval(found[1:2], truth)["mAP"] == 0
    assert metrics.moment_retrieval(np.empty((0, 2)), truth) == {
        "R@1 IoU 0.5": 0, "R@1 IoU 0.7": 0, "mAP@0.5": 0, "mAP@0.75": 0, "mAP": 0,
    }  # fmt: skip


def test_a_moment_counts_at_the_overlaps_that_it_reaches() -> None:
    scores = metrics.moment_retrieval(np.array([(0, 7.2)]), np.array([(0, 10)]))  # 0.72: reaches 0.5, 0.55, 0.6, 0.65 and 0.7
    assert (scores["mAP@0.5"], scores["mAP@0.75"], scores["mAP"]) == (1, 0, close(0.5))
    both = metrics.moment_retrieval(np.array([(0, 10), (0, 8)]), np.array([(0, 9), (0, 10)]))  # the second takes what the first leaves
    assert both["mAP@0.75"] == 1


def test_highlights_by_hand() -> None:
    saliency = np.array([[4, 0, 2], [3, 4, 0], [0, 0, 4], [4, 0, 0]])
    scores = metrics.highlight_detection(np.array([0.1, 0.9, 0.5, 0.3]), saliency)
    # First rater: clips 0 and 3 are the last two, precision 1/3 then 2/4, and 2/4 holds for both; second: the first; third: the second.
    assert scores == {"HIT@1": 1, "highlight mAP": close((0.5 + 1 + 0.5) / 3)}
    assert metrics.highlight_detection(np.array([0.9]), saliency)["HIT@1"] == 1
    assert metrics.highlight_detection(np.array([0.0, 0.9]), np.array([[4], [0]])) == {"HIT@1": 0, "highlight mAP": close(0.5)}
    assert metrics.highlight_detection(np.array([1.0, 1.0]), np.array([[4], [0]]))["highlight mAP"] == close(0.5)  # a tie enters together
    assert metrics.highlight_detection(np.array([1.0]), np.array([[3]])) == {"HIT@1": 0, "highlight mAP": 0}


# Maps and masks

MASK = np.array([[0, 0, 0, 0], [0, 1, 1, 0]], bool)
MAP = np.array([[0.0, 0.1, 0.2, 0.3], [0.4, 0.8, 0.5, 1.0]])


def test_overlap_with_a_mask_by_hand() -> None:
    """Above 0.5 are the cells of 0.8 and 1.0: one of them is true, of three together. The two largest are the same."""
    assert metrics.mask_overlap(MAP, MASK) == {"IoU": 1 / 3, "adaptive IoU": 1 / 3, "pointing": 0.0}
    assert metrics.mask_overlap(5 * MAP - 3, MASK) == metrics.mask_overlap(MAP, MASK)  # of any range
    assert metrics.mask_overlap(MASK.astype(float), MASK) == {"IoU": 1.0, "adaptive IoU": 1.0, "pointing": 1.0}


def test_where_nothing_is_true_the_cells_left_unmarked_count() -> None:
    nothing = metrics.mask_overlap(MAP, np.zeros_like(MASK))
    assert nothing["IoU"] == 6 / 8
    assert np.isnan([nothing["adaptive IoU"], nothing["pointing"]]).all()
    assert np.isnan(metrics.f_curve(MAP, np.zeros_like(MASK))).all()


def test_the_f_curve_by_hand_and_by_scikit_learn() -> None:
    curve = metrics.f_curve(MAP, MASK)
    assert curve[0] == pytest.approx(1.3 * (2 / 8) * 1 / (0.3 * 2 / 8 + 1))  # everything is marked
    middle = np.searchsorted(metrics.F_THRESHOLDS, 0.45)  # 0.5, 0.8 and 1.0 are marked
    assert curve[middle] == pytest.approx(1.3 * (2 / 3) / (0.3 * 2 / 3 + 1))
    assert curve[-1] == 0  # 1.0 alone, which is not true
    for threshold, value in zip(metrics.F_THRESHOLDS[::40], curve[::40], strict=True):
        wanted = sklearn.fbeta_score(MASK.ravel(), MAP.ravel() >= threshold, beta=0.3**0.5, zero_division=0)
        assert value == pytest.approx(wanted)


def test_foreground_is_what_is_above_the_mean() -> None:
    """The mean is 0.4125: 0.8, 0.5 and 1.0 are foreground, two of them rightly."""
    scores = metrics.segmentation(MAP, MASK)
    assert {name: scores[name] for name in ("correct", "cells", "common", "joint")} == {"correct": 7, "cells": 8, "common": 2, "joint": 3}
    assert (scores["common rest"], scores["joint rest"]) == (5, 6)
    both = np.concatenate([1 - MAP.ravel(), MAP.ravel()]), np.concatenate([~MASK.ravel(), MASK.ravel()])
    assert scores["AP"] == pytest.approx(sklearn.average_precision_score(both[1], both[0]))
    lower = np.where(MAP < 0.45, MAP - 9, MAP)  # below 0 it does not matter how far
    assert metrics.segmentation(lower, MASK)["correct"] == 7
    assert metrics.segmentation(-MAP - 1, MASK)["correct"] == 6  # nothing is foreground
