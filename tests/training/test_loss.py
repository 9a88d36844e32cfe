"""The losses, beside loops written plainly in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from imagebind_cli.encoder import LARGEST_SCALE
from imagebind_cli.training.loss import PairLoss, has_negatives
from imagebind_cli.training.recipe import PairRecipe

KINDS = ("infonce", "sigmoid", "regression")


def make_loss(chunk=1024, **choices):
    return PairLoss(PairRecipe(modalities=("vision", "depth"), **choices), chunk).double()


def unit_rows(count, seed, dim=16):
    rows = torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=1)


def groups_of(count):
    """Some rows share a group: 0 1 2 0 1 5 6 …"""
    return torch.tensor([i - 3 if i in (3, 4) else i for i in range(count)])


def infonce_by_loop(anchor, other, groups, scale):
    """ImageBind's equation, a row and a direction at a time."""
    total = 0.0
    for x, y in ((anchor, other), (other, anchor)):
        for i in range(len(x)):
            negatives = [j for j in range(len(y)) if groups[j] != groups[i]]
            scores = [scale * math.fsum((x[i] * y[j]).tolist()) for j in [i, *negatives]]
            total += math.log(math.fsum(math.exp(score) for score in scores)) - scores[0]
    return total / (2 * len(anchor))


def sigmoid_by_loop(anchor, other, groups, scale, bias):
    """SigLIP's pseudocode, an entry at a time."""
    total = 0.0
    for i in range(len(anchor)):
        for j in range(len(other)):
            if i != j and groups[i] == groups[j]:
                continue
            score = scale * float(anchor[i] @ other[j]) + bias
            total += math.log1p(math.exp(-score if i == j else score))
    return total / len(anchor)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_infonce_with_masked_duplicates_is_the_plain_loop(temperature):
    anchor, other, groups = unit_rows(9, 0), unit_rows(9, 1), groups_of(9)
    loss = make_loss(temperature=temperature)(anchor, other, groups)
    assert loss.item() == pytest.approx(infonce_by_loop(anchor, other, groups, 1 / temperature), abs=1e-6)


def test_sigmoid_with_masked_duplicates_is_the_plain_loop():
    anchor, other, groups = unit_rows(9, 0), unit_rows(9, 1), groups_of(9)
    loss = make_loss(loss="sigmoid", temperature=0.1)(anchor, other, groups)
    assert loss.item() == pytest.approx(sigmoid_by_loop(anchor, other, groups, 10, -10), abs=1e-6)


def test_regression_is_the_squared_distance():
    anchor, other = unit_rows(9, 0), unit_rows(9, 1)
    cosines = (anchor * other).sum(dim=1)
    loss = make_loss(loss="regression")(anchor, other, torch.arange(9))
    assert loss.item() == pytest.approx((2 - 2 * cosines).mean().item(), abs=1e-12)


def test_an_unknown_loss_is_not_trained_as_another():
    loss = PairLoss(PairRecipe(modalities=("vision", "depth")).model_copy(update={"loss": "hinge"}), 1024)
    with pytest.raises(NotImplementedError, match="'hinge'"):
        loss(unit_rows(3, 0).float(), unit_rows(3, 1).float(), groups_of(3))


def test_a_duplicate_pushes_nothing_away():
    """Row 3 shares row 0's group: moving it changes nothing for row 0's loss, and its gradient from row 0 is nought."""
    anchor, other, groups = unit_rows(4, 0), unit_rows(4, 1), torch.tensor([0, 1, 2, 0])
    anchor.requires_grad_()
    loss = make_loss()
    scores = loss._rows(anchor[:1], other[:1], anchor, other, groups, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(scores, anchor)
    assert gradient[3].abs().max() == 0
    assert gradient[1].abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 4, 7, 9])
def test_chunked_is_equal_to_plain(kind, chunk):
    gradients = []
    for size in (chunk, 1024):
        anchor, other = unit_rows(9, 0).requires_grad_(), unit_rows(9, 1).requires_grad_()
        loss = make_loss(chunk=size, loss=kind, learn_temperature=kind != "regression")
        value = loss(anchor, other, groups_of(9))
        value.backward()
        gradients.append([value, anchor.grad, other.grad, *(parameter.grad for parameter in loss.parameters() if parameter.requires_grad)])
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-9, rtol=0)


def test_memory_of_the_scores_does_not_grow_with_the_square_of_the_batch():
    kept = []
    for chunk in (64, 1024):
        sizes = []
        anchor, other = (unit_rows(512, seed).requires_grad_() for seed in (0, 1))

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            make_loss(chunk=chunk)(anchor, other, torch.arange(512))
        kept.append(max(sizes))
    assert kept == [512 * 16, 512 * 512]


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_the_gradient_of_the_temperature_is_the_difference_quotient(kind):
    anchor, other, groups = unit_rows(9, 0), unit_rows(9, 1), groups_of(9)
    loss = make_loss(loss=kind, temperature=0.1, learn_temperature=True)
    loss(anchor, other, groups).backward()
    values = []
    for step in (1e-6, -1e-6):
        moved = make_loss(loss=kind, temperature=0.1)
        moved.log_scale.data += step
        values.append(moved(anchor, other, groups).item())
    assert loss.log_scale.grad.item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_a_fixed_temperature_has_no_gradient_and_a_learnt_one_is_bounded():
    fixed, learnt = make_loss(), make_loss(learn_temperature=True)
    assert not [parameter for parameter in fixed.parameters() if parameter.requires_grad]
    learnt.log_scale.data.fill_(9.0)
    learnt.clip()
    assert learnt.scale == pytest.approx(LARGEST_SCALE)


def test_whether_a_batch_has_negatives():
    assert has_negatives(torch.tensor([3, 3, 4]))
    assert not has_negatives(torch.tensor([3, 3, 3]))
    loss = make_loss()(unit_rows(3, 0), unit_rows(3, 1), torch.tensor([3, 3, 3]))
    assert loss.item() == 0
