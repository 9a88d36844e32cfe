"""Records and reports of a run while it trains: `metrics.jsonl`, TensorBoard, unreadable samples, and warnings that nothing is learnt.

`metrics.jsonl` holds no times: a run that was killed and continued leaves the same bytes as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from imagebind_cli import registry
from imagebind_cli.documents import parse_json
from imagebind_cli.errors import UserError, first_line
from imagebind_cli.sources import Failure
from imagebind_cli.tabular import json_object
from imagebind_cli.training.distributed import rank
from imagebind_cli.training.recipe import PairRecipe
from imagebind_cli.training.step import StepOutcome

METRICS, ERRORS = "metrics.jsonl", "errors.jsonl"
WINDOW = 20  # steps of a pair to average
COLLAPSED = 0.99  # mean cosine of different samples above which their embeddings count as one
CHANCE = 0.99  # fraction of ln(batch) from which a loss counts as guessing


class RunLog:
    """The open files of a run. The first process writes metrics, each process its own failures."""

    def __init__(self, folder: Path, length: int, step: int, total: int = 0) -> None:
        """Open the files, and cut off what was written after the checkpoint.

        Args:
            length: of `metrics.jsonl`, in bytes, at the checkpoint from which the run continues.
            step: of that checkpoint. total: the CRC-32 of those bytes; 0 where an earlier version did not record it.
        """
        self._errors = folder / ERRORS
        self._known = read_failures(folder)
        self._metrics, self._board, self._total = None, None, 0
        if rank():
            return
        self._metrics = open(folder / METRICS, "a+b")  # noqa: SIM115 - closed in close
        if self._metrics.seek(0, os.SEEK_END) < length:
            raise UserError(f"{folder / METRICS}: shorter than at the last checkpoint; put it back, or start again in another folder")
        self._metrics.truncate(length)
        self._metrics.seek(0, os.SEEK_END)
        self._total = total or _checksum(folder, length)
        self._board = _tensorboard(folder / "tensorboard", step)

    @property
    def length(self) -> int:
        """Bytes of `metrics.jsonl`, all of them on disk."""
        if self._metrics is None:
            return 0
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return self._metrics.tell()

    @property
    def total(self) -> int:
        """The CRC-32 of all lines, as they were written."""
        return self._total

    def write(self, line: dict[str, Any]) -> None:
        """Write one line of metrics, which has a `step`."""
        if self._metrics is None:
            return
        data = json.dumps(line).encode() + b"\n"
        self._metrics.write(data)
        self._total = zlib.crc32(data, self._total)
        self._metrics.flush()
        if self._board:
            for name, value in _scalars(line):
                self._board.add_scalar(name, value, line["step"])

    def record_failures(self, failures: Iterable[Failure]) -> list[Failure]:
        """Record samples that could not be read, and return those that are new."""
        new = []
        for failure in failures:
            if failure.id not in self._known:
                self._known.add(failure.id)
                new.append(failure)
        if new:
            with open(self._errors, "a", encoding="utf-8", newline="\n") as file:
                file.writelines("\n" + json.dumps({"id": failure.id, "reason": failure.reason}) + "\n" for failure in new)
        return new

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
        if self._board:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's `metrics.jsonl`.

    Raises:
        UserError: one cannot be read.
    """
    path = folder / METRICS
    try:
        return [parse_json(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {first_line(error)}") from None


def metrics_fault(folder: Path, length: int, total: int) -> str:
    """Describe how `metrics.jsonl` differs from what a checkpoint recorded; "" if it matches, or an earlier version did not record it."""
    if not total or _checksum(folder, length) == total:
        return ""
    return f"{folder / METRICS}: damaged or edited: it does not match its checksum of the last checkpoint; the weights are not affected"


def _checksum(folder: Path, length: int) -> int:
    with open(folder / METRICS, "rb") as file:
        return zlib.crc32(file.read(length))


def read_failures(folder: Path) -> set[str]:
    """Read the ids of the samples that a run could not read."""
    path = folder / ERRORS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = (json_object(line.decode(errors="replace")) for line in lines)  # None for one that a kill tore
    return {str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row}


def _scalars(line: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the numbers of a line by name, those of a step under its pair's name."""
    if "validation" in line:
        return list(line["validation"].items())
    return [(f"{line['pair']}/{name}", value) for name, value in line.items() if isinstance(value, float)]


def _tensorboard(folder: Path, step: int) -> Any:
    """Open a TensorBoard writer; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


class LearningMonitor:
    """Warns when a run does not learn, though its loss may look harmless: once for each cause, and again if the cause returns."""

    def __init__(self, warmup: int, notify: Callable[[str], None], frozen: Collection[str] = ()) -> None:
        """Start to watch.

        Args:
            warmup: steps before which only batches are checked.
            frozen: encoders that do not train: how similar their embeddings are says nothing about the training.
        """
        self._warmup, self._notify, self._frozen = warmup, notify, frozen
        self._losses: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._active: set[tuple[str, str]] = set()

    def check_batch(self, step: int, pair: PairRecipe, negatives: bool) -> None:
        """Check before a step that the batch has negatives."""
        message = f"{pair.name}: step {step}: no sample of the batch has a negative: all are in one group"
        self._warn_if(pair, "negatives", not negatives and pair.loss_traits.negatives, message)

    def check_outcome(self, step: int, pair: PairRecipe, outcome: StepOutcome) -> None:
        """Check after a step that the loss is below that of guessing, and that embeddings have not collapsed."""
        losses = self._losses[pair.name]
        losses.append(outcome.loss)
        if step <= self._warmup or len(losses) < WINDOW:
            return
        chance, mean = math.log(pair.batch), sum(losses) / len(losses)
        message = f"{pair.name}: step {step}: the loss stays at {mean:.3f}, ln(batch) = {chance:.3f}: nothing is learnt"
        self._warn_if(pair, "chance", pair.loss_traits.guessing and mean >= CHANCE * chance, message)
        for modality, spread in zip(pair.modalities, outcome.spread, strict=True):
            message = (
                f"{pair.name}: step {step}: embeddings of {modality} have collapsed: different ones have a mean cosine of {spread:.4f}"
            )
            self._warn_if(pair, modality, spread > COLLAPSED and registry.face(modality).encoder not in self._frozen, message)

    def _warn_if(self, pair: PairRecipe, cause: str, condition: bool, message: str) -> None:
        key = pair.name, cause
        if condition and key not in self._active:
            self._notify(message)
        self._active = self._active | {key} if condition else self._active - {key}
