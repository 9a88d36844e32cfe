"""What happens in a run, for whoever listens: a terminal, a server, a test. A library reports it here and knows no screen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class FailureLog(Protocol):
    """What keeps failed inputs from one run to the next."""

    def add(self, id: str, reason: str) -> None:
        """Record a failure."""

    def done(self, id: str) -> None:
        """Remove an input that has succeeded."""


@dataclass
class Listener:
    """Counts what happens to the inputs of a run. Subclass it to show or log it as well.

    done, failed: inputs that could be used, and that could not. skipped: those that were there already. left: those that failed in an earlier
    run and were not tried again. failures: where failed inputs are recorded, if anywhere.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    left: int = 0
    failures: FailureLog | None = None

    def note(self, text: str) -> None:
        """Hear something about the run as a whole."""

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Hear what was assumed to read an input, and what was lost of it."""

    def begin(self, stored: int) -> None:
        """Hear that the first input is about to be read, and how many rows the store has already."""

    def succeeded(self, id: str) -> None:
        """Hear that an input is done."""
        self.done += 1
        if self.failures is not None:
            self.failures.done(id)

    def failure(self, id: str, reason: str) -> None:
        """Hear that an input could not be used, and why."""
        self.failed += 1
        if self.failures is not None:
            self.failures.add(id, reason)
