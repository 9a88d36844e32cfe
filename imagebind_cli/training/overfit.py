"""Whether a recipe can learn at all: a few pairs, without augmentation and dropout, until each finds its other half first.

What cannot learn eight pairs by heart has something wrong with its data, its loss or its learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.training import threads
from imagebind_cli.training.batch import Batch
from imagebind_cli.training.optimizer import Optimizers, clip_gradients, make_optimizer, rate_at, set_rate
from imagebind_cli.training.precision import finer
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.setup import Design, Machinery, build, design
from imagebind_cli.training.step import Outcome, gradients
from imagebind_cli.training.validate import ranks_of

STEPS, WARMUP, EVERY = 300, 10, 10


@threads.kept()
def overfit(recipe: Recipe, count: int, device: torch.device, say: Callable[[str], None]) -> bool:
    """Train on `count` samples of each pair alone, of as many groups as there are; whether all reach 100 % R@1 both ways.

    `run.steps` steps are tried, or 300.

    Raises:
        UserError: fewer samples can be read, all are one group, or a loss that is not finite.
    """
    pairs = tuple(pair.model_copy(update={"batch": count, "augment": {}, "val": ()}) for pair in recipe.pairs)
    settings = recipe.optimizer.model_copy(update={"schedule": "constant"})
    recipe = recipe.model_copy(update={"pairs": pairs, "zeroshot": (), "optimizer": settings})
    plan = design(recipe)
    for line in finer(recipe.run, device):
        say(line)
    machinery = build(plan, device)
    for tower in machinery.towers.values():
        tower.eval()  # what is learnt by heart must not be dropped
    batches = [_batch(plan, number, count) for number in range(len(pairs))]
    encoders = {name: tower.encoder for name, tower in machinery.towers.items()}
    steps = recipe.run.steps or STEPS
    optimizer = make_optimizer(encoders, plan.sections, machinery.losses, settings)
    if device.type == "cpu" and threads.are_free():
        say(f"computes on {threads.choose_threads(partial(_gradients, plan, machinery, batches[0], 0))}")
        optimizer.zero_grad()
    for step in range(steps):
        set_rate(optimizer, rate_at(step, steps, WARMUP, settings))
        losses = [_step(plan, machinery, batch, optimizer, step) for batch in batches]
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            found = [_found_first(plan, machinery, batch) for batch in batches]
            told = ", ".join(
                f"{pair.name} loss {loss:.4f} R@1 {ways[0]:.0%} and {ways[1]:.0%}"
                for pair, loss, ways in zip(pairs, losses, found, strict=True)
            )
            say(f"step {step + 1} of {steps}: {told}")
            if all(way == 1 for ways in found for way in ways):
                return True
    return False


def _batch(plan: Design, number: int, count: int) -> Batch:
    groups = plan.data.groups(number)
    alike = groups != torch.arange(len(groups))  # a group's number is that of its first row
    if alike.sum() == len(groups) - 1:
        raise UserError(f"{plan.recipe.pairs[number].name}: all pairs are one group, so that each finds its other half first untrained")
    parts = list(plan.data.samples(number, alike.int().argsort(stable=True)[:count].tolist()))
    ids = tuple(id for part in parts for id in part.ids)
    if len(ids) < count:
        failure = next(failure for part in parts for failure in part.failures)
        raise UserError(f"{plan.recipe.pairs[number].name}: {failure.id}: {failure.reason}; all {count} samples must be readable")
    inputs = torch.cat([part.inputs[0] for part in parts]), torch.cat([part.inputs[1] for part in parts])
    return Batch(number, ids, torch.cat([part.groups for part in parts]), inputs)


def _gradients(plan: Design, machinery: Machinery, batch: Batch, step: int) -> Outcome:
    recipe = plan.recipe
    sides, loss = machinery.sides(recipe, batch.pair), machinery.loss(batch.pair)
    return gradients(sides, loss, batch, recipe.run.seed, step, recipe.run.micro_batch)


def _step(plan: Design, machinery: Machinery, batch: Batch, optimizer: Optimizers, step: int) -> float:
    recipe, loss = plan.recipe, machinery.loss(batch.pair)
    outcome = _gradients(plan, machinery, batch, step)
    if outcome.not_finite:
        raise UserError(f"step {step + 1}: the loss is not finite; look at {', '.join(outcome.not_finite)}")
    pair = recipe.pairs[batch.pair]
    clip_gradients(([*machinery.encoders.parameters()], [*machinery.losses.parameters()]), pair.clip or recipe.optimizer.clip)
    optimizer.step()
    optimizer.zero_grad()
    loss.clip()
    return outcome.loss


@torch.no_grad()
def _found_first(plan: Design, machinery: Machinery, batch: Batch) -> tuple[float, float]:
    """R@1 of the anchors and of the others."""
    size = plan.recipe.run.micro_batch or len(batch.ids)
    sides = zip(machinery.sides(plan.recipe, batch.pair), batch.inputs, strict=True)
    rows = [np.concatenate([tower.call(some).cpu().numpy() for some in torch.split(inputs, size)]) for tower, inputs in sides]
    ways = ((rows[0], rows[1]), (rows[1], rows[0]))
    groups = batch.groups.numpy()
    there, back = (float(metrics.retrieval(list(ranks_of(asked, found, groups)))["R@1"].mean()) for asked, found in ways)
    return there, back
