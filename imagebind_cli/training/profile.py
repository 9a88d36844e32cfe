"""Where the time of a step goes: a few real steps, in memory alone, under PyTorch's profiler."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from imagebind_cli.training import gather
from imagebind_cli.training.batch import Batch
from imagebind_cli.training.optimizer import Optimizers, clip_gradients, make_optimizer, set_rate
from imagebind_cli.training.parallel import processes
from imagebind_cli.training.precision import finer
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.setup import Design, Machinery, build, design
from imagebind_cli.training.step import gradients

WARM, STEPS = 2, 5
PHASES = ("read", "embed", "loss", "backward", "update")


def profile_steps(recipe: Recipe, trace: Path, device: torch.device, say: Callable[[str], None]) -> None:
    """Run the first steps of a recipe, say the share of each phase, and write a trace for chrome://tracing or Perfetto. Nothing is kept."""
    with processes(device) as own_device:
        plan = design(recipe)
        if not gather.rank():
            for line in finer(recipe.run, own_device):
                say(line)
        machinery = build(plan, own_device)
        encoders = {name: tower.encoder for name, tower in machinery.towers.items()}
        optimizer = make_optimizer(encoders, plan.sections, machinery.losses, recipe.optimizer)
        batches = plan.data.batches(0, WARM + STEPS, gather.rank(), gather.world())
        with FlopCounterMode(display=False) as counter:
            _step(plan, machinery, next(batches), optimizer, 0)
        flops = counter.get_total_flops()
        for step in range(1, WARM):
            _step(plan, machinery, next(batches), optimizer, step)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library tells stderr, among other things, that there is no GPU
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if own_device.type == "cuda" else [])]
        started = time.perf_counter()
        with profile(activities=activities) as profiler:
            for step in range(WARM, WARM + STEPS):
                _step(plan, machinery, _next(batches), optimizer, step)
        seconds = (time.perf_counter() - started) / STEPS
    if gather.rank():
        return
    profiler.export_chrome_trace(str(trace))
    times = {event.key: event.cpu_time_total / 1e6 / STEPS for event in profiler.key_averages()}
    for phase in PHASES:
        say(f"{phase:<10}{times[phase]:>10.4f} s a step{times[phase] / seconds:>8.0%}")
    pairs = sum(pair.batch for pair in recipe.pairs) / len(recipe.pairs)
    say(
        f"{'step':<10}{seconds:>10.4f} s, {pairs / seconds:.1f} pairs a second, {flops / seconds / 1e12:.3f} TFLOP/s on this process; {trace}"
    )


def _next(batches: Iterator[Batch]) -> Batch:
    with record_function("read"):
        return next(batches)


def _step(plan: Design, machinery: Machinery, batch: Batch, optimizer: Optimizers, step: int) -> None:
    recipe = plan.recipe
    gradients(machinery.sides(recipe, batch.pair), machinery.loss(batch.pair), batch, recipe.run.seed, step, recipe.run.micro_batch)
    with record_function("update"):
        clip_gradients(([*machinery.encoders.parameters()], [*machinery.losses.parameters()]), recipe.optimizer.clip)
        set_rate(optimizer, 0.0)  # nothing is learnt here
        optimizer.step()
        optimizer.zero_grad()
