"""What a command says to people, on stderr: notices, failures, progress on a terminal. stdout is never touched."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from imagebind_cli.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 60.0


def say(text: str) -> None:
    """One line on stderr, named as ours."""
    print(f"imagebind: {text}", file=sys.stderr)  # noqa: T201


class Talk:
    """Counts of a run, as a live line on a terminal and a plain line a minute elsewhere. Use it as a context manager.

    errors: a file that gets one JSON line per failed input, beside the line on stderr. done: what has happened to the others, in a word.
    """

    def __init__(self, errors: Path | None = None, done: str = "embedded") -> None:
        self._word = done
        self.done = self.failed = self.skipped = 0
        try:
            self._errors = open(errors, "a", encoding="utf-8") if errors else None  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise UserError(f"{errors}: {error.strerror}") from None
        self._said: set[str] = set()
        self._started = self._last = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> Talk:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            # By default Rich takes stdout over as well, and lines of data are lost.
            console = Console(stderr=True)
            self._progress = Progress(
                SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
                console=console, redirect_stdout=False, redirect_stderr=True, transient=True, disable=not console.is_terminal,
            )  # fmt: skip
            self._task = self._progress.add_task("starting")
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()
        if self._errors:
            self._errors.close()

    def succeeded(self) -> None:
        """One input is done."""
        self.done += 1
        self._show()

    def failure(self, name: str, why: str) -> None:
        """One input could not be used: said at once, and counted."""
        self.failed += 1
        say(f"{printable(name)}: {why}")
        if self._errors:
            self._errors.write(json.dumps({"id": name, "reason": why}) + "\n")
            self._errors.flush()
        self._show()

    def remarks(self, name: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """What was assumed to read an input, said the first time it is met, and what was lost of it, said with its name."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                say(f"assumed: {note}")
        for warning in warnings:
            say(f"{printable(name)}: {warning}")

    def summary(self) -> str:
        """done, failed and skipped in words, with the rate."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        parts = [f"{self.done:,} {self._word}"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.skipped:,} there already"] if self.skipped else []
        return f"{', '.join(parts)} ({self.done / seconds:.1f} a second)"

    def _show(self) -> None:
        if self._progress:
            self._progress.update(self._task, description=self.summary())
        elif time.monotonic() - self._last > LINE_SECONDS:
            say(self.summary())
            self._last = time.monotonic()


def printable(name: str) -> str:
    """A name on one line: control characters and undecodable bytes as escapes, the middle of a long sentence left out."""
    if len(name) > 300:
        name = f"{name[:120]} … {name[-60:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)
