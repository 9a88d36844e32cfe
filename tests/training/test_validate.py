"""Scores of a validation beside plain loops, and what a run says aloud."""

import itertools

import numpy as np
import pytest

from imagebind_cli.pages.curves import POINTS, chart, downsample
from imagebind_cli.training.log import WINDOW, LearningMonitor
from imagebind_cli.training.recipe import PairRecipe
from imagebind_cli.training.step import StepOutcome
from imagebind_cli.training.validate import _chance_of_hit, group_ranks


def test_ranks_are_those_of_a_plain_loop():
    random = np.random.default_rng(0)
    queries, found = random.standard_normal((2, 700, 4)).astype(np.float32)  # more than are scored at once
    groups = random.integers(0, 300, 700)
    ranks = list(group_ranks(queries, found, groups))
    assert len(ranks) == 700
    for query in (0, 5, 511, 512, 699):
        scores = [float(queries[query] @ row) for row in found]
        relevant = [j for j in range(700) if groups[j] == groups[query]]
        wanted = sorted(sum(other > scores[j] for other in scores) for j in relevant)
        assert ranks[query].tolist() == wanted


@pytest.mark.parametrize(("relevant", "among", "top"), [(1, 5, 1), (2, 5, 1), (2, 5, 3), (3, 6, 5), (1, 4, 10), (5, 5, 1)])
def test_chance_is_the_share_of_all_orders(relevant, among, top):
    orders = [set(order[:top]) & set(range(relevant)) for order in itertools.permutations(range(among))]
    assert _chance_of_hit(relevant, among, top) == pytest.approx(sum(map(bool, orders)) / len(orders))


def said(outcomes, warmup=0, frozen=()):
    lines = []
    watch = LearningMonitor(warmup, lines.append, frozen)
    for step, outcome in enumerate(outcomes, start=1):
        watch.check_outcome(step, PairRecipe(modalities=("image", "depth"), batch=64), outcome)
    return lines


def outcome(loss=1.0, spread=(0.1, 0.1)):
    return StepOutcome(loss, 0.5, spread)


def test_what_does_not_learn_is_said_once_and_again_when_it_comes_back():
    assert said([outcome()] * 100) == []
    assert said([outcome(loss=4.16)] * 100) == [
        f"image-depth: step {WINDOW}: the loss stays at 4.160, ln(batch) = 4.159: nothing is learnt"
    ]
    assert len(said([outcome(loss=4.16)] * 50 + [outcome(loss=1)] * 50 + [outcome(loss=4.16)] * 50)) == 2
    assert said([outcome(loss=4.16)] * 60, warmup=60) == []
    (line,) = said([outcome(spread=(0.2, 0.995))] * 40)
    assert "embeddings of depth have collapsed" in line


def test_a_frozen_anchor_has_not_collapsed_however_alike_its_embeddings_are():
    alike = [outcome(spread=(0.999, 0.2))] * 40
    assert "embeddings of image have collapsed" in said(alike)[0]
    assert said(alike, frozen=["vision"]) == []
    assert "embeddings of depth have collapsed" in said([outcome(spread=(0.999, 0.999))] * 40, frozen=["vision"])[0]


def test_curves_are_thinned_by_means_and_drawn_with_their_names():
    points = [(float(x), float(x % 2)) for x in range(4 * POINTS)]
    some = downsample(points)
    assert len(some) == POINTS
    assert some[0] == (1.5, 0.5)
    assert downsample(points[:7]) == points[:7]
    image = chart("A <title>", {"image-depth": points, "none": []})
    assert "A &lt;title&gt;" in image
    assert image.count("<polyline") == 1
    assert chart("empty", {}) == ""
    assert "nan" not in chart("flat", {"one": [(1.0, 2.0)]})
