"""A training run from its first step, or from its last checkpoint, to its end. Reads top to bottom.

Everything that determines a step follows from the recipe and the step's number. A run that was killed at any time and continued ends with the
same weights and the same `metrics.jsonl`, bit for bit on a CPU in float32.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.events import TrainingListener
from imagebind_cli.files import locked
from imagebind_cli.training import compute, distributed, folder
from imagebind_cli.training.anchors import Targets
from imagebind_cli.training.data import Batch
from imagebind_cli.training.interruption import Interruption, Stopped
from imagebind_cli.training.log import METRICS, LearningMonitor, RunLog, metrics_fault, read_failures, read_metrics
from imagebind_cli.training.loss import has_negatives
from imagebind_cli.training.optimizer import clip_gradients, make_optimizer, rate_at, set_rate
from imagebind_cli.training.plan import Plan, make_plan
from imagebind_cli.training.plan_lines import plan_lines
from imagebind_cli.training.recipe import Recipe, RecipeError
from imagebind_cli.training.recipe_files import rounds
from imagebind_cli.training.report import write_report
from imagebind_cli.training.start import Components, build_components, check_weights
from imagebind_cli.training.step import StepOutcome, compute_gradients
from imagebind_cli.training.teachers import check_teacher_weights, open_targets
from imagebind_cli.training.validate import Validation, score_names

BROKEN = 3  # steps in a row without finite gradients, after which a run stops


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    summary: steps, the last scores, and the best score where `run.best` names one; None in all processes except the first. failed: number
    of samples that could not be read.
    """

    summary: dict[str, Any] | None
    failed: int


def check_run(recipe: Recipe, device: torch.device, place: Path | None = None) -> Iterator[str]:
    """Yield the plan of a run, or of each of its rounds, line by line, and check that it could begin.

    Args:
        place: the run folder, if it is known.
    Raises:
        UserError: whatever `train` would raise before its first step.
    """
    recipes = list(rounds(recipe, place or Path("OUT")))
    for number, (round_, own) in enumerate(recipes):
        if recipe.rounds:
            yield f"round {number + 1} of {len(recipe.rounds)}{f', in {own}' if place else ''}"
        _check_best(round_)
        plan = make_plan(round_)
        yield from plan_lines(plan, device)
        if place is not None:
            folder.check_folder(own, plan)
    check_weights(recipes[0][0])  # later rounds start from this one's
    for round_, _ in recipes:
        check_teacher_weights(round_)


def train(recipe: Recipe, place: Path, device: torch.device, listener: TrainingListener | None = None) -> RunResult:
    """Train in a run folder, or continue the run in it.

    Args:
        place: the run folder.
        listener: receives the plan, steps, scores and failures, in the first process only.
    Raises:
        UserError: a mistake in recipe, data, weights or folder, before the first step; or the loss stopped being finite.
    """
    with distributed.join_processes(device) as own_device:
        listener = TrainingListener() if listener is None or distributed.rank() else listener
        results, anchors = [], None
        for round_, own_place in rounds(recipe, place):
            anchors = anchors or own_place / "anchors"  # teachers' vectors that later rounds need as well are not computed again
            results.append(_train_round(round_, own_place, anchors, own_device, listener))
        return replace(results[-1], failed=sum(result.failed for result in results))


def _train_round(recipe: Recipe, place: Path, anchors: Path, device: torch.device, listener: TrainingListener) -> RunResult:
    """Train one round in its own folder. anchors: folder of the teachers' vectors."""
    _check_best(recipe)
    plan = make_plan(recipe)
    folder.check_folder(place, plan)
    if (progress := folder.read_progress(place)).finished:
        _note_damaged_metrics(place, progress, listener)
        listener.note(f"{place}: all {plan.steps:,} steps are done")
        return _result(place)
    lines = plan_lines(plan, device)
    for line in lines:
        listener.note(line)
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place):
        components = build_components(plan, device)
        folder.record_run(place, plan, components)
        with compute.restore_threads():
            Run(plan, lines, components, place, anchors, device, listener).run()
        distributed.barrier()
        return _result(place)


def _note_damaged_metrics(place: Path, progress: folder.Progress, listener: TrainingListener) -> None:
    if (place / METRICS).exists() and (fault := metrics_fault(place, progress.metrics_bytes, progress.metrics_crc32)):
        listener.note(fault)


def _result(place: Path) -> RunResult:
    if distributed.rank():
        return RunResult(None, 0)
    progress, lines = folder.read_progress(place), read_metrics(place)
    scores = next((line["validation"] for line in reversed(lines) if "validation" in line), None)
    best = {"best": progress.best, "best_step": progress.best_step} if progress.best is not None else {}
    return RunResult({"steps": progress.step, **({"validation": scores} if scores else {}), **best}, len(read_failures(place)))


class Run:
    """A run in progress: weights, optimizer, log, and how far it is."""

    def __init__(
        self,
        plan: Plan,
        lines: Sequence[str],
        components: Components,
        place: Path,
        anchors: Path,
        device: torch.device,
        listener: TrainingListener,
    ) -> None:
        """Restore the run from its last checkpoint. lines: the plan in words, for the report. anchors: folder of the teachers' vectors."""
        self._plan, self._lines, self._components, self._folder, self._device = plan, lines, components, place, device
        self._anchors, self._listener = anchors, listener
        recipe = plan.recipe
        encoders = {name: tower.encoder for name, tower in components.towers.items()}
        self._optimizer = make_optimizer(encoders, plan.encoders, components.losses, recipe.optimizer)
        self._groups = [*components.encoders.parameters()], [*components.losses.parameters()]
        self._progress = folder.restore_checkpoint(place, components.trained, self._optimizer)
        self._log = RunLog(place, self._progress.metrics_bytes, self._progress.step, self._progress.metrics_crc32)
        if distributed.rank() == 0:
            _note_damaged_metrics(place, self._progress, listener)
        self._validation = Validation(plan, components, listener)
        frozen = [name for name, tower in components.towers.items() if not tower.trained]
        self._monitor = LearningMonitor(plan.warmup, listener.note, frozen)
        self._saved = time.monotonic()
        self._stopped_by: int | None = None

    def run(self) -> None:
        """Take all steps that are left."""
        self._listener.begin(self._progress.step)
        if self._progress.step:
            self._listener.note(f"{self._folder}: continues after step {self._progress.step:,} of {self._plan.steps:,}")
        anchors = self._fill_anchor_caches()
        with Interruption(alone=distributed.world() == 1) as self._interruption:
            try:
                self._take_steps(anchors)
            except Stopped:
                self._stopped_by = self._stopped_by or self._interruption.received
                self._save()
                self._listener.note(f"{self._folder}: stopped after step {self._progress.step:,}; the same command continues it")
            finally:
                self._log.close()
        if self._stopped_by is not None:
            distributed.barrier()  # the first process to end closes the others' connections
            signal.raise_signal(self._stopped_by)

    def _take_steps(self, anchors: dict[int, Targets]) -> None:
        progress, run = self._progress, self._plan.recipe.run
        batches = self._plan.data.batches(progress.step, self._plan.steps, distributed.rank(), distributed.world(), anchors)
        for batch in self._with_threads(batches):
            if progress.step == 0 or (run.validate_every and progress.step % run.validate_every == 0):
                self._validate()
            self._step(batch)
            self._stopped_by, due = self._agree(self._interruption.received, self._checkpoint_is_due())
            if self._stopped_by is not None:
                raise Stopped
            if due:
                self._checkpoint()
        self._validate()
        with self._interruption.delayed():
            if self._plan.recipe.run.best is None:
                folder.publish_model(self._folder, self._plan, self._components, progress.step)
            progress.finished = True
            self._save()
            self._write_report()

    def _with_threads(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches. On a CPU, set the number of threads first; a new run measures it while more batches are read."""
        if self._device.type != "cpu" or distributed.world() > 1:
            yield from batches
            return
        recorded = folder.recorded_threads(self._folder)
        if recorded is not None and recorded != torch.get_num_threads():
            self._listener.note(f"computes on {compute.format_threads(recorded)}, as when it was begun")
            torch.set_num_threads(recorded)
        for number, batch in enumerate(batches):
            if number == 0 and recorded is None and self._progress.step == 0:
                if compute.may_choose_threads():
                    self._listener.note(f"computes on {compute.choose_threads(partial(self._try_step, batch))}")
                folder.record_threads(self._folder, torch.get_num_threads())
            yield batch

    def _try_step(self, batch: Batch) -> None:
        """Take a step that changes nothing."""
        self._gradients(batch, 0)
        self._optimizer.zero_grad()

    def _gradients(self, batch: Batch, step: int) -> StepOutcome:
        recipe = self._plan.recipe
        towers, loss = self._components.pair_towers(recipe, batch.pair), self._components.loss(batch.pair)
        return compute_gradients(towers, loss, batch, recipe.run.seed, step, recipe.run.micro_batch)

    def _step(self, batch: Batch) -> None:
        recipe, progress, step = self._plan.recipe, self._progress, self._progress.step
        pair, loss = recipe.pairs[batch.pair], self._components.loss(batch.pair)
        for failure in self._log.record_failures(batch.failures):
            self._listener.failure(failure.id, f"{failure.reason}; another sample takes its place")
        self._monitor.check_batch(step + 1, pair, has_negatives(batch.groups))
        outcome = self._gradients(batch, step)
        line: dict[str, Any] = {"step": step + 1, "pair": pair.name}
        broken, norm = ("loss", math.nan) if outcome.not_finite else ("", clip_gradients(self._groups, pair.clip or recipe.optimizer.clip))
        if not broken and not math.isfinite(norm):
            broken = "gradient"
        ids = outcome.not_finite
        if broken and not ids:
            ids = tuple(id for batch_ids in distributed.gather_objects(batch.ids) for id in batch_ids)
        with self._interruption.delayed():
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
            self._log.write(line)
        if not broken:
            self._monitor.check_outcome(step + 1, pair, outcome)
        self._listener.step(line, self._plan.steps, pair.batch)
        if progress.broken >= BROKEN:
            raise UserError(f"{self._folder}: stopped at step {step + 1:,}: {BROKEN} steps in a row without a finite loss or gradient")

    def _validate(self) -> None:
        """Score the encoders, unless that was done at this step, and publish them if they are the best so far."""
        progress, best = self._progress, self._plan.recipe.run.best
        if progress.validated == progress.step or not (self._plan.val or self._plan.tests):
            return
        scores = self._validation()
        values = {name: score.value for name, score in scores.items()}
        ranges = {name: [score.low, score.high, score.chance] for name, score in scores.items()}
        record = {"step": progress.step, "validation": values, "ranges": ranges}
        with self._interruption.delayed():
            self._listener.validated(record)
            if best is not None and (progress.best is None or scores[best].value > progress.best):
                folder.publish_model(self._folder, self._plan, self._components, progress.step)
                progress.best, progress.best_step = scores[best].value, progress.step
            self._log.write(record)
            progress.validated = progress.step
            self._write_report()

    def _fill_anchor_caches(self) -> dict[int, Targets]:
        """Fill the caches of the pairs that read their anchors from one, and return them by pair."""
        caches: dict[int, Targets] = {}
        for number, pair in enumerate(self._plan.recipe.pairs):
            name = registry.face(pair.modalities[0]).encoder
            report = partial(self._listener.anchors, pair.name)
            if pair.teacher:
                place, run = self._anchors / pair.name, self._plan.recipe.run
                data, dim = self._plan.data, self._plan.config.dim
                caches[number] = open_targets(pair, data, number, dim, place, run, self._device, self._listener.note, report)
            if pair.teacher or not (self._plan.recipe.run.anchor_cache and pair.views):
                continue
            tower, base = self._components.towers[name], self._components.initial[name].base
            fingerprint = base["weights"] if base else f"fresh {self._plan.recipe.run.seed}"
            cache = self._plan.data.anchor_cache(number, self._folder / "anchors" / pair.name, fingerprint)
            if missing := cache.missing():
                self._listener.note(f"{pair.name}: {missing:,} anchors to embed, once")
            with torch.no_grad():
                cache.fill(tower.call, rank=distributed.rank(), world=distributed.world(), report=report)
            distributed.barrier()
            caches[number] = cache
        return caches

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._saved > 60 * self._plan.recipe.run.checkpoint_minutes

    def _agree(self, stop: int | None, due: bool) -> tuple[int | None, bool]:
        """Let all processes do what any of them wants: end by a signal that it received, write a checkpoint."""
        if distributed.world() == 1:
            return stop, due
        flags = torch.tensor([stop or 0, due], dtype=torch.int32, device=next(self._components.trained.parameters()).device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return int(flags[0]) or None, bool(flags[1])

    def _checkpoint(self) -> None:
        with self._interruption.delayed():
            self._save()
            if self._plan.recipe.run.best is None:
                folder.publish_model(self._folder, self._plan, self._components, self._progress.step)
            self._write_report()

    def _save(self) -> None:
        self._progress.metrics_bytes, self._progress.metrics_crc32 = self._log.length, self._log.total
        folder.save_checkpoint(self._folder, self._progress, self._components.trained, self._optimizer, self._plan.recipe.run.keep)
        self._saved = time.monotonic()

    def _write_report(self) -> None:
        if distributed.rank() == 0:
            write_report(self._folder, self._plan.recipe, self._plan.steps, self._lines)


def _check_best(recipe: Recipe) -> None:
    best, names = recipe.run.best, score_names(recipe)
    if best is not None and best not in names:
        raise RecipeError(
            "run.best", f"run.best = {best!r}: a validation of this recipe gives {', '.join(names) or 'nothing; name data with --val'}"
        )


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Keep other runs out of the folder."""
    if distributed.rank():
        yield
        return
    with locked(place / ".lock", busy=f"{place}: another run is using this folder"):
        yield
