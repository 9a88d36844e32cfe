"""What a run writes down as it goes: `metrics.jsonl`, the same in TensorBoard where that is installed, and samples that could not be read.

`metrics.jsonl` has no times in it: a run that was killed and went on leaves the same bytes as one that was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.sources import Failure
from imagebind_cli.training.gather import rank

METRICS, ERRORS = "metrics.jsonl", "errors.jsonl"


class Records:
    """The open files of a run; the first process writes metrics, each process its own failures."""

    def __init__(self, folder: Path, length: int, step: int) -> None:
        """length: of `metrics.jsonl` at the checkpoint the run goes on from; what is behind it is cut off. step: of that checkpoint."""
        self._errors = folder / ERRORS
        self._known = read_failures(folder)
        self._metrics, self._board = None, None
        if rank():
            return
        self._metrics = open(folder / METRICS, "a+b")  # noqa: SIM115 - closed in close
        if self._metrics.seek(0, os.SEEK_END) < length:
            raise UserError(f"{folder / METRICS}: shorter than at the last checkpoint; put it back, or begin anew in another folder")
        self._metrics.truncate(length)
        self._metrics.seek(0, os.SEEK_END)
        self._board = _tensorboard(folder / "tensorboard", step)

    @property
    def length(self) -> int:
        """Bytes of `metrics.jsonl`, all on the disk."""
        if self._metrics is None:
            return 0
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return self._metrics.tell()

    def write(self, line: dict[str, Any]) -> None:
        """One line, with its `step`."""
        if self._metrics is None:
            return
        self._metrics.write(json.dumps(line).encode() + b"\n")
        self._metrics.flush()
        if self._board:
            for name, value in _numbers(line):
                self._board.add_scalar(name, value, line["step"])

    def failed(self, failures: Iterable[Failure]) -> list[Failure]:
        """Write down samples that could not be read; those that are met for the first time."""
        new = []
        for failure in failures:
            if failure.id not in self._known:
                self._known.add(failure.id)
                new.append(failure)
        if new:
            with open(self._errors, "a", encoding="utf-8") as file:
                file.writelines("\n" + json.dumps({"id": failure.id, "reason": failure.reason}) + "\n" for failure in new)
        return new

    def close(self) -> None:
        """Close the files."""
        if self._metrics is not None:
            self._metrics.close()
        if self._board:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def read_failures(folder: Path) -> set[str]:
    """Ids of the samples that a run could not read."""
    path = folder / ERRORS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return {json.loads(line)["id"] for line in lines if line.startswith(b"{") and line.endswith(b"}\n")}  # others were torn by a kill


def _numbers(line: dict[str, Any]) -> list[tuple[str, float]]:
    """The numbers of a line by name: of a step under its pair's name."""
    if "validation" in line:
        return list(line["validation"].items())
    return [(f"{line['pair']}/{name}", value) for name, value in line.items() if isinstance(value, float)]


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
