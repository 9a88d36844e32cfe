"""A training run from its first step, or from where it was broken off, to its last. Reads top to bottom.

Everything that decides a step follows from the recipe and the step's number, so a run that was killed anywhere and goes on ends with the same
weights and the same `metrics.jsonl`, bit for bit on a CPU in float32.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.files import locked
from imagebind_cli.training import gather, identity, plan, state, threads
from imagebind_cli.training.anchors import AnchorCache
from imagebind_cli.training.batch import Batch
from imagebind_cli.training.interruption import Interruption, Stopped
from imagebind_cli.training.loss import has_negatives
from imagebind_cli.training.optimizer import clip_gradients, make_optimizer, rate_at, set_rate
from imagebind_cli.training.parallel import processes
from imagebind_cli.training.publish import publish
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.records import Records, read_failures, read_metrics
from imagebind_cli.training.report import write_report
from imagebind_cli.training.setup import Design, Machinery, build, design
from imagebind_cli.training.start import check_weights
from imagebind_cli.training.step import Outcome, gradients
from imagebind_cli.training.validate import Validation, score_names, told
from imagebind_cli.training.watch import Watch

Say = Callable[[str], None]

BROKEN = 3
"""Steps in a row without finite gradients after which a run stops."""
LINE_SECONDS = 30.0
NAMED = 8
"""Ids that a message names; all of them stand in `metrics.jsonl`."""


@dataclass(frozen=True)
class Done:
    """How a run ended. summary: steps, the last scores, and the best one if one is followed; None on all processes but the first.

    failed: samples that could not be read.
    """

    summary: dict[str, Any] | None
    failed: int


def check(recipe: Recipe, device: torch.device, folder: Path | None = None) -> Iterator[str]:
    """The plan of a run on a device, line by line, and whether it could begin.

    Raises:
        UserError: as `train`, before its first step.
    """
    made = design(recipe)
    _check_best(made)
    yield from plan.lines(made, device)
    if folder is not None:
        identity.check(folder, made)
    check_weights(recipe)


def train(recipe: Recipe, folder: Path, device: torch.device, say: Say) -> Done:
    """Train in a run folder, or go on there.

    Args:
        say: is given each line that people should see; only the first process's.
    Raises:
        UserError: what is wrong with recipe, data, weights or folder, before the first step; or the loss stopped being finite.
    """
    with processes(device) as own_device:
        say = _silent if gather.rank() else say
        made = design(recipe)
        _check_best(made)
        identity.check(folder, made)
        if state.read_progress(folder).finished:
            say(f"{folder}: all {made.steps:,} steps are done")
            return _done(folder)
        lines = plan.lines(made, own_device)
        for line in lines:
            say(line)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            machinery = build(made, own_device)
            identity.settle(folder, made, machinery)
            with threads.kept():
                Run(made, lines, machinery, folder, own_device, say).go()
            gather.wait()
            return _done(folder)


def _done(folder: Path) -> Done:
    if gather.rank():
        return Done(None, 0)
    progress, lines = state.read_progress(folder), read_metrics(folder)
    scores = next((line["validation"] for line in reversed(lines) if "validation" in line), None)
    best = {"best": progress.best, "best_step": progress.best_step} if progress.best is not None else {}
    return Done({"steps": progress.step, **({"validation": scores} if scores else {}), **best}, len(read_failures(folder)))


class Run:
    """A run on its way: weights, optimizer, records, and how far it is."""

    def __init__(self, made: Design, lines: Sequence[str], machinery: Machinery, folder: Path, device: torch.device, say: Say) -> None:
        """lines: the plan in words, for the report."""
        self._plan, self._lines, self._machinery, self._folder, self._device, self._say = made, lines, machinery, folder, device, say
        recipe = made.recipe
        encoders = {name: tower.encoder for name, tower in machinery.towers.items()}
        self._optimizer = make_optimizer(encoders, made.sections, machinery.losses, recipe.optimizer)
        self._groups = [*machinery.encoders.parameters()], [*machinery.losses.parameters()]
        self._progress = state.restore(folder, machinery.trained, self._optimizer)
        self._records = Records(folder, self._progress.metrics_bytes, self._progress.step)
        self._validation = Validation(made, machinery, say)
        self._watch = Watch(made.warmup, say, [name for name, tower in machinery.towers.items() if not tower.trained])
        self._saved = self._told = time.monotonic()
        self._pairs = 0  # since `_told`
        self._stopped_by: int | None = None

    def go(self) -> None:
        """All steps that are left."""
        if self._progress.step:
            self._say(f"{self._folder}: goes on after step {self._progress.step:,} of {self._plan.steps:,}")
        anchors = self._anchors()
        with Interruption(alone=gather.world() == 1) as self._interruption:
            try:
                self._steps(anchors)
            except Stopped:
                self._stopped_by = self._stopped_by or self._interruption.received
                self._save()
                self._say(f"{self._folder}: stopped after step {self._progress.step:,}; the same command goes on")
            finally:
                self._records.close()
        if self._stopped_by is not None:
            gather.wait()  # whoever ends first takes the others' connections along
            signal.raise_signal(self._stopped_by)

    def _steps(self, anchors: dict[int, AnchorCache]) -> None:
        progress, run = self._progress, self._plan.recipe.run
        rank, world = gather.rank(), gather.world()
        batches = self._plan.data.batches(progress.step, self._plan.steps, rank, world, anchors)
        for batch in self._on_threads(batches):
            if progress.step == 0 or (run.validate_every and progress.step % run.validate_every == 0):
                self._validate()
            self._step(batch)
            self._stopped_by, due = self._agree(self._interruption.received, self._checkpoint_is_due())
            if self._stopped_by is not None:
                raise Stopped
            if due:
                self._checkpoint()
        self._validate()
        with self._interruption.held():
            if self._plan.recipe.run.best is None:
                publish(self._folder, self._plan, self._machinery, progress.step)
            progress.finished = True
            self._save()
            self._report()

    def _on_threads(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; before the first is used, the number of threads is found for a new run, while others are being read."""
        if self._device.type != "cpu" or gather.world() > 1:
            yield from batches
            return
        begun_with = identity.threads(self._folder)
        if begun_with is not None and begun_with != torch.get_num_threads():
            self._say(f"computes on {threads.counted(begun_with)}, as it was begun")
            torch.set_num_threads(begun_with)
        for number, batch in enumerate(batches):
            if number == 0 and begun_with is None and self._progress.step == 0:
                if threads.are_free():
                    self._say(f"computes on {threads.choose_threads(partial(self._try, batch))}")
                identity.write_threads(self._folder, torch.get_num_threads())
            yield batch

    def _try(self, batch: Batch) -> None:
        """A step that changes nothing."""
        self._gradients(batch, 0)
        self._optimizer.zero_grad()

    def _gradients(self, batch: Batch, step: int) -> Outcome:
        recipe = self._plan.recipe
        sides, loss = self._machinery.sides(recipe, batch.pair), self._machinery.loss(batch.pair)
        return gradients(sides, loss, batch, recipe.run.seed, step, recipe.run.micro_batch)

    def _step(self, batch: Batch) -> None:
        recipe, progress, step = self._plan.recipe, self._progress, self._progress.step
        pair, loss = recipe.pairs[batch.pair], self._machinery.loss(batch.pair)
        for failure in self._records.failed(batch.failures):
            self._say(f"{failure.id}: {failure.reason}; another sample takes its place")
        self._watch.batch(step + 1, pair, has_negatives(batch.groups))
        outcome = self._gradients(batch, step)
        line: dict[str, Any] = {"step": step + 1, "pair": pair.name}
        broken, norm = ("loss", math.nan) if outcome.not_finite else ("", clip_gradients(self._groups, pair.clip or recipe.optimizer.clip))
        if not broken and not math.isfinite(norm):
            broken = "gradient"
        ids = outcome.not_finite or (tuple(id for some in gather.objects(batch.ids) for id in some) if broken else ())
        with self._interruption.held():
            if broken:
                line |= {"skipped": broken, "ids": list(ids)}
            else:
                rate = rate_at(step, self._plan.steps, self._plan.warmup, recipe.optimizer)
                line |= {"loss": outcome.loss, "temperature": 1 / loss.scale, "learning_rate": recipe.optimizer.lr * rate, "norm": norm}
                line |= {"alignment": outcome.alignment, "spread": outcome.spread[0], "other_spread": outcome.spread[1]}
                set_rate(self._optimizer, rate)
                self._optimizer.step()
                loss.clip()
            self._optimizer.zero_grad()
            progress.step += 1
            progress.broken = progress.broken + 1 if broken else 0
            self._records.write(line)
        if broken:
            self._skipped(broken, ids)
        else:
            self._watch.outcome(step + 1, pair, outcome)
            self._tell(pair.batch, f"{pair.name} loss {outcome.loss:.4f}")

    def _skipped(self, broken: str, ids: tuple[str, ...]) -> None:
        step = self._progress.step
        named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else "")
        self._say(f"step {step:,} skipped: its {broken} is not finite; look at {named}")
        if self._progress.broken >= BROKEN:
            raise UserError(f"{self._folder}: stopped at step {step:,}: {BROKEN} steps in a row without a finite loss or gradient")

    def _validate(self) -> None:
        """Score the encoders, unless that was done at this step, and keep them if they are the best so far."""
        progress, best = self._progress, self._plan.recipe.run.best
        if progress.validated == progress.step or not (self._plan.val or self._plan.tests):
            return
        scores = self._validation()
        with self._interruption.held():
            for line in told(scores):
                self._say(f"step {progress.step:,}: {line}")
            if best is not None and (progress.best is None or scores[best].value > progress.best):
                publish(self._folder, self._plan, self._machinery, progress.step)
                progress.best, progress.best_step = scores[best].value, progress.step
            values = {name: score.value for name, score in scores.items()}
            ranges = {name: [score.low, score.high, score.chance] for name, score in scores.items()}
            self._records.write({"step": progress.step, "validation": values, "ranges": ranges})
            progress.validated = progress.step
            self._report()

    def _anchors(self) -> dict[int, AnchorCache]:
        """The caches of the pairs that read their anchors from one, filled."""
        caches = {}
        for number, pair in enumerate(self._plan.recipe.pairs):
            name = registry.encoder_name(pair.modalities[0])
            if not (self._plan.recipe.run.anchor_cache and pair.views):
                continue
            tower, base = self._machinery.towers[name], self._machinery.starts[name].base
            fingerprint = base["weights"] if base else f"fresh {self._plan.recipe.run.seed}"
            cache = AnchorCache(self._folder / "anchors" / pair.name, self._plan.data, number, fingerprint)
            if missing := cache.missing():
                self._say(f"{pair.name}: {missing:,} anchors to embed, once")
            with torch.no_grad():
                cache.fill(tower.call, rank=gather.rank(), world=gather.world(), report=self._filling(pair.name))
            gather.wait()
            caches[number] = cache
        return caches

    def _filling(self, name: str) -> Callable[[int, int], None]:
        def report(done: int, total: int) -> None:
            if time.monotonic() - self._told > LINE_SECONDS:
                self._say(f"{name}: {done:,} of {total:,} anchors embedded")
                self._told = time.monotonic()

        return report

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._saved > 60 * self._plan.recipe.run.checkpoint_minutes

    def _agree(self, stop: int | None, due: bool) -> tuple[int | None, bool]:
        """What any process wants, all do: end by a signal that one received, write a checkpoint."""
        if gather.world() == 1:
            return stop, due
        flags = torch.tensor([stop or 0, due], dtype=torch.int32, device=next(self._machinery.trained.parameters()).device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return int(flags[0]) or None, bool(flags[1])

    def _checkpoint(self) -> None:
        with self._interruption.held():
            self._save()
            if self._plan.recipe.run.best is None:
                publish(self._folder, self._plan, self._machinery, self._progress.step)
            self._report()

    def _save(self) -> None:
        self._progress.metrics_bytes = self._records.length
        state.save(self._folder, self._progress, self._machinery.trained, self._optimizer, self._plan.recipe.run.keep)
        self._saved = time.monotonic()

    def _report(self) -> None:
        if gather.rank() == 0:
            write_report(self._folder, self._plan.recipe, self._plan.steps, self._lines)

    def _tell(self, pairs: int, what: str) -> None:
        """Now and then, how far the run is."""
        self._pairs += pairs
        seconds, step = time.monotonic() - self._told, self._progress.step
        if seconds > LINE_SECONDS or step == self._plan.steps:
            self._say(f"step {step:,} of {self._plan.steps:,}: {what}, {self._pairs / seconds:.1f} pairs a second")
            self._told, self._pairs = time.monotonic(), 0


def _check_best(made: Design) -> None:
    best, names = made.recipe.run.best, score_names(made.recipe)
    if best is not None and best not in names:
        raise UserError(f"run.best = {best!r}: a validation of this recipe gives {', '.join(names) or 'nothing; name data with --val'}")


def _silent(text: str) -> None:
    """What the other processes have to say is what the first one says."""


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One run in a folder at a time."""
    if gather.rank():
        yield
        return
    with locked(folder / ".lock", busy=f"{folder}: another run is at work here"):
        yield
