"""Events of a run, for any listener: a terminal, a server, a test. Libraries report here and know nothing of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class FailureLog(Protocol):
    """Keeps failed inputs from one run to the next."""

    def add(self, id: str, reason: str) -> None:
        """Record a failure."""

    def done(self, id: str) -> None:
        """Remove an input that has succeeded."""


@dataclass
class Listener:
    """Counts what happens to the inputs of a run. Subclass it to show or log it as well.

    done, failed: inputs that could be used, and that could not. skipped: those that were done before. left: those that failed in an earlier
    run and were not tried again. failures: where failed inputs are recorded, if anywhere.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    left: int = 0
    failures: FailureLog | None = None

    def note(self, text: str) -> None:
        """Report something about the run as a whole."""

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Report what was assumed to read an input, and what of the input was lost."""

    def begin(self, stored: int, count: Callable[[], int | None] | None = None) -> None:
        """Report that the first input is about to be read, and how many rows the store has already.

        count: returns how many inputs there are, None if that is unknown. It may take long; call it in a thread.
        """

    def succeeded(self, id: str) -> None:
        """Count an input that is done."""
        self.done += 1
        if self.failures is not None:
            self.failures.done(id)

    def failure(self, id: str, reason: str) -> None:
        """Count an input that could not be used, and report why."""
        self.failed += 1
        if self.failures is not None:
            self.failures.add(id, reason)


class TrainingListener(Listener):
    """Hears a training run, too. Its plan comes as notes, `begin` with the steps taken before, a sample that cannot be read as a failure."""

    def anchors(self, pair: str, done: int, total: int) -> None:
        """Report how many of a pair's anchors are in its cache."""

    def step(self, record: Mapping[str, Any], steps: int, pairs: int) -> None:
        """Report a step: its line of `metrics.jsonl`, how many steps the run has, and how many pairs this one took."""

    def validated(self, record: Mapping[str, Any]) -> None:
        """Report a validation: its line of `metrics.jsonl`."""
