"""Events of a run, for any listener: a terminal, a server, a test. Libraries report here and know nothing of a terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from imagebind_cli.printable import escaped

LOG = logging.getLogger(__name__)


class FailureLog(Protocol):
    """Keeps failed inputs from one run to the next."""

    def add(self, id: str, reason: str) -> None:
        """Record a failure."""

    def done(self, id: str) -> None:
        """Remove an input that has succeeded."""


@dataclass
class Listener:
    """Counts the outcomes of the inputs of a run. Subclass it to show them as well, and pass it as `listener=` to functions that read inputs.

    These are `Model.embed`, `corpus.embed`, `corpus.preprocess`, `corpus.estimate`, `evaluation.classify`, `few_shot` and `run_suite`, and
    `retrieval.Finder.answer`. Without one they use a `LogListener`.

    done, failed: inputs that could be used, and that could not. skipped: those that were done before. repeated: those that came before in
    the same run. failed_before: those that failed in an earlier run and were not tried again. failures: where failed inputs are recorded, if
    anywhere.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    repeated: int = 0
    failed_before: int = 0
    failures: FailureLog | None = None

    def note(self, text: str) -> None:
        """Report something about the run as a whole."""

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Report the assumptions made to read an input, and warnings of what was lost."""

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


@dataclass
class LogListener(Listener):
    """Logs all reports, each assumption once, as warnings of the logger `imagebind_cli.events`, which Python prints on stderr by default."""

    _assumed: set[str] = field(default_factory=set, repr=False)

    def note(self, text: str) -> None:
        """Log something about the run as a whole."""
        log_note(text)

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Log each assumption made to read an input the first time it occurs, and warnings of what was lost."""
        for note in notes:
            if note not in self._assumed:
                self._assumed.add(note)
                log_note(f"assumed: {note}")
        for warning in warnings:
            log_note(f"{id}: {warning}")

    def failure(self, id: str, reason: str) -> None:
        """Count and log an input that could not be used."""
        super().failure(id, reason)
        log_note(f"{id}: {reason}")


class KeptFailures(Listener):
    """Keeps why inputs failed, by their ids in `reasons`, and passes on to a listener what was assumed to read others."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self.reasons: dict[str, str] = {}

    def failure(self, id: str, reason: str) -> None:
        """Keep why an input failed."""
        self.reasons[id] = reason

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Pass on the assumptions made to read an input."""
        self._listener.remarks(id, notes, warnings)


def log_note(text: str) -> None:
    """Log a line of text as a warning, with control characters escaped."""
    LOG.warning("%s", escaped(text))


class TrainingListener(Listener):
    """Receives a training run, too. Its plan comes as notes, `begin` with the steps taken before, a sample that cannot be read as a failure."""

    def anchors(self, pair: str, done: int, total: int) -> None:
        """Report how many of a pair's anchors are in its cache."""

    def step(self, record: Mapping[str, Any], steps: int, pairs: int) -> None:
        """Report a step: its line of `metrics.jsonl`, how many steps the run has, and how many pairs this one took."""

    def validated(self, record: Mapping[str, Any]) -> None:
        """Report a validation: its line of `metrics.jsonl`."""
