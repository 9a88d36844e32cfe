"""The linear probe: trained as PyTorch would, on examples that are drawn for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation import probe
from tests import generate
from tests.conftest import Run
from tests.stores import DIM, unit_rows


def test_the_probe_trains_as_torch_does() -> None:
    vectors, true = unit_rows(50, seed=5), np.random.default_rng(6).integers(0, 4, 50)
    how = probe.ProbeTraining(5, learning_rate=0.01, weight_decay=0.3, epochs=7, batch_size=16, seed=3)
    found = probe.train_probe(vectors, true, 4, how)
    layer = torch.nn.Linear(DIM, 4, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=0.3)
    random, inputs, wanted = np.random.default_rng(3), torch.from_numpy(vectors.astype(np.float64)), torch.from_numpy(true)
    for _ in range(7):
        for batch in np.array_split(random.permutation(50), [16, 32, 48]):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(inputs[batch]), wanted[batch]).backward()
            optimizer.step()
    assert found.weights == pytest.approx(layer.weight.detach().numpy(), abs=1e-12)
    assert found.bias == pytest.approx(layer.bias.detach().numpy(), abs=1e-12)
    assert found.scores(vectors) == pytest.approx(layer(inputs).detach().numpy(), abs=1e-12)


def test_shots_are_drawn_per_class_and_the_rest_is_tested() -> None:
    true = np.array([0, 1, 0, 1, -1, 0, 1, 0])
    how = probe.ProbeTraining(2)
    learnt, tested = probe.draw_examples(true, ["a", "b"], how, [], "1")
    assert true[learnt].tolist() == [0, 0, 1, 1]
    assert sorted([*learnt, *tested]) == list(range(8))
    assert probe.draw_examples(true, ["a", "b"], how, [], "1")[0].tolist() == learnt.tolist()
    assert any(
        probe.draw_examples(true, ["a", "b"], probe.ProbeTraining(2, seed=seed), [], "1")[0].tolist() != learnt.tolist()
        for seed in range(1, 9)
    )
    folds = ["1", "1", "2", "2", "2", "2", "2", "1"]
    learnt, tested = probe.draw_examples(true, ["a", "b"], how, folds, "1")
    assert (sorted(learnt.tolist()), tested.tolist()) == ([2, 3, 5, 6], [0, 1, 7])
    with pytest.raises(UserError, match="class 'a' has 2 items to learn from; 3 shots"):
        probe.draw_examples(true, ["a", "b"], probe.ProbeTraining(3), folds, "1")
    with pytest.raises(UserError, match="no item is in fold '9'; choose from 1, 2"):
        probe.draw_examples(true, ["a", "b"], how, folds, "9")


def test_published_training_is_that_of_the_paper() -> None:
    assert probe.published_training("audio") == probe.ProbeTraining(1, 1.6e-3, 0.05, 50)
    assert probe.published_training("depth") == probe.ProbeTraining(1, 1e-2, 0.0, 60)


def test_a_single_class_is_not_learned(imagebind: Run, tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    for seed in range(4):
        generate.picture(tmp_path / f"dogs/{seed}.png", seed)
    done = imagebind("zeroshot", "image", tmp_path / "dogs", "--truth", "folder", "--shots", 2)
    assert (done.code, done.out) == (1, b"")
    assert done.notices[-1] == "imagebind: a probe needs at least two classes; the true labels have 'dogs' alone"
