"""Runs that keep nothing: whether a recipe can learn at all, and where the time of a step goes.

A recipe that cannot memorise eight pairs, without augmentation and dropout, has a mistake in its data, its loss or its learning rate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from imagebind_cli import metrics
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.training import compute
from imagebind_cli.training.data import Batch
from imagebind_cli.training.distributed import join_processes, rank, world
from imagebind_cli.training.optimizer import Optimizers, clip_gradients, make_optimizer, rate_at, set_rate
from imagebind_cli.training.plan import Plan, make_plan
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.start import Components, build_components
from imagebind_cli.training.step import StepOutcome, compute_gradients
from imagebind_cli.training.validate import group_ranks

OVERFIT_STEPS, OVERFIT_WARMUP, REPORT_EVERY = 300, 10, 10
UNPROFILED_STEPS, PROFILED_STEPS = 2, 5
PHASES = ("read", "embed", "loss", "backward", "update")


@compute.restore_threads()
def overfit(recipe: Recipe, count: int, device: torch.device, listener: Listener) -> bool:
    """Train on `count` samples of each pair alone, of as many groups as there are, and return whether all reach 100 % R@1 both ways.

    Takes `run.steps` steps, or 300.

    Raises:
        UserError: fewer samples can be read, all are in one group, or the loss is not finite.
    """
    _check_two_modalities(recipe, "--overfit")
    changes = {"batch": count, "augment": {}, "val": (), "val_fraction": None}
    pairs = tuple(pair.model_copy(update=changes) for pair in recipe.pairs)
    settings = recipe.optimizer.model_copy(update={"schedule": "constant"})
    recipe = recipe.model_copy(update={"pairs": pairs, "zeroshot": (), "optimizer": settings})
    plan = make_plan(recipe)
    for line in compute.precision_lines(recipe.run, device):
        listener.note(line)
    components = build_components(plan, device)
    for tower in components.towers.values():
        tower.eval()  # dropout would hinder memorising
    batches = [_overfit_batch(plan, number, count) for number in range(len(pairs))]
    encoders = {name: tower.encoder for name, tower in components.towers.items()}
    steps = recipe.run.steps or OVERFIT_STEPS
    optimizer = make_optimizer(encoders, plan.encoders, components.losses, settings)
    if device.type == "cpu" and compute.may_choose_threads():
        listener.note(f"computes on {compute.choose_threads(partial(_gradients, plan, components, batches[0], 0))}")
        optimizer.zero_grad()
    for step in range(steps):
        set_rate(optimizer, rate_at(step, steps, OVERFIT_WARMUP, settings))
        losses = [_overfit_step(plan, components, batch, optimizer, step) for batch in batches]
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            recalls = [_recalls(plan, components, batch) for batch in batches]
            results = zip(pairs, losses, recalls, strict=True)
            line = ", ".join(f"{pair.name} loss {loss:.4f} R@1 {there:.0%} and {back:.0%}" for pair, loss, (there, back) in results)
            listener.note(f"step {step + 1} of {steps}: {line}")
            if all(recall == 1 for both in recalls for recall in both):
                return True
    return False


def _overfit_batch(plan: Plan, number: int, count: int) -> Batch:
    name, groups = plan.recipe.pairs[number].name, plan.data.groups(number)
    repeated = groups != torch.arange(len(groups))  # a group's number is that of its first row
    if repeated.sum() == len(groups) - 1:
        raise UserError(f"{name}: all pairs are in one group, so each finds its other half first without training")
    parts = list(plan.data.samples(number, repeated.int().argsort(stable=True)[:count].tolist()))
    ids = tuple(id for part in parts for id in part.ids)
    if len(ids) < count:
        failure = next(failure for part in parts for failure in part.failures)
        raise UserError(f"{name}: {failure.id}: {failure.reason}; all {count} samples must be readable")
    inputs = torch.cat([part.inputs[0] for part in parts]), torch.cat([part.inputs[1] for part in parts])
    return Batch(number, ids, torch.cat([part.groups for part in parts]), inputs)


def _gradients(plan: Plan, components: Components, batch: Batch, step: int) -> StepOutcome:
    towers, loss, run = components.pair_towers(plan.recipe, batch.pair), components.loss(batch.pair), plan.recipe.run
    return compute_gradients(towers, loss, batch, run.seed, step, run.micro_batch)


def _clip(plan: Plan, components: Components, batch: Batch) -> None:
    largest = plan.recipe.pairs[batch.pair].clip or plan.recipe.optimizer.clip
    clip_gradients(([*components.encoders.parameters()], [*components.losses.parameters()]), largest)


def _overfit_step(plan: Plan, components: Components, batch: Batch, optimizer: Optimizers, step: int) -> float:
    outcome = _gradients(plan, components, batch, step)
    if outcome.not_finite:
        raise UserError(f"step {step + 1}: the loss is not finite; look at {', '.join(outcome.not_finite)}")
    _clip(plan, components, batch)
    optimizer.step()
    optimizer.zero_grad()
    components.loss(batch.pair).clip()
    return outcome.loss


@torch.no_grad()
def _recalls(plan: Plan, components: Components, batch: Batch) -> tuple[float, float]:
    """Return R@1 of the anchors and of the others."""
    size = plan.recipe.run.micro_batch or len(batch.ids)
    towers = zip(components.pair_towers(plan.recipe, batch.pair), batch.inputs, strict=True)
    rows = [np.concatenate([tower.call(part).cpu().numpy() for part in torch.split(inputs, size)]) for tower, inputs in towers]
    ways, groups = ((rows[0], rows[1]), (rows[1], rows[0])), batch.groups.numpy()
    there, back = (float(metrics.retrieval(list(group_ranks(queries, others, groups)))["R@1"].mean()) for queries, others in ways)
    return there, back


def profile_steps(recipe: Recipe, trace: Path, device: torch.device, listener: Listener) -> None:
    """Take the first steps of a recipe under PyTorch's profiler, in memory alone.

    Args:
        trace: file to write, for chrome://tracing or Perfetto.
        listener: receives the time and share of each phase.
    """
    _check_two_modalities(recipe, "--profile")
    with join_processes(device) as own_device:
        plan = make_plan(recipe)
        if not rank():
            for line in compute.precision_lines(recipe.run, own_device):
                listener.note(line)
        components = build_components(plan, own_device)
        encoders = {name: tower.encoder for name, tower in components.towers.items()}
        optimizer = make_optimizer(encoders, plan.encoders, components.losses, recipe.optimizer)
        batches = plan.data.batches(0, UNPROFILED_STEPS + PROFILED_STEPS, rank(), world())
        with FlopCounterMode(display=False) as counter:
            _profile_step(plan, components, next(batches), optimizer, 0)
        flops = counter.get_total_flops()
        for step in range(1, UNPROFILED_STEPS):
            _profile_step(plan, components, next(batches), optimizer, step)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's library reports on stderr that there is no GPU
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if own_device.type == "cuda" else [])]
        started = time.perf_counter()
        with profile(activities=activities) as profiler:
            for step in range(UNPROFILED_STEPS, UNPROFILED_STEPS + PROFILED_STEPS):
                _profile_step(plan, components, _next_batch(batches), optimizer, step)
        seconds = (time.perf_counter() - started) / PROFILED_STEPS
    if rank():
        return
    profiler.export_chrome_trace(str(trace))
    times = {event.key: event.cpu_time_total / 1e6 / PROFILED_STEPS for event in profiler.key_averages()}
    for phase in PHASES:
        listener.note(f"{phase:<10}{times[phase]:>10.4f} s a step{times[phase] / seconds:>8.0%}")
    speed = sum(pair.batch for pair in recipe.pairs) / len(recipe.pairs) / seconds
    listener.note(
        f"{'step':<10}{seconds:>10.4f} s, {speed:.1f} pairs a second, {flops / seconds / 1e12:.3f} TFLOP/s on this process; {trace}"
    )


def _check_two_modalities(recipe: Recipe, flag: str) -> None:
    """Check that every pair has two encoders that a step runs."""
    if name := next((pair.name for pair in recipe.pairs if pair.teacher), None):
        raise UserError(f"{flag} is for pairs of two modalities, not for a distillation ({name}); take a few steps: --set run.steps=20")


def _next_batch(batches: Iterator[Batch]) -> Batch:
    with record_function("read"):
        return next(batches)


def _profile_step(plan: Plan, components: Components, batch: Batch, optimizer: Optimizers, step: int) -> None:
    _gradients(plan, components, batch, step)
    with record_function("update"):
        _clip(plan, components, batch)
        set_rate(optimizer, 0.0)  # the weights do not change
        optimizer.step()
        optimizer.zero_grad()
