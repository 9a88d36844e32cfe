"""What a command prints for people, on stderr: notices, errors, progress on a terminal. stdout is never touched."""

from __future__ import annotations

import enum
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imagebind_cli.cli.output import StdoutClosed
from imagebind_cli.cli.pace import Pace
from imagebind_cli.errors import UsageError
from imagebind_cli.events import Listener
from imagebind_cli.file_kinds import Others
from imagebind_cli.printable import escaped, printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from imagebind_cli.corpus.failures import FailureFile

LINE_SECONDS = 60.0  # between lines of progress where stderr is not a terminal

Level = enum.IntEnum("Level", ["QUIET", "NORMAL", "VERBOSE"])


class _Chosen:
    """How much is printed, and whether the command line asked for it."""

    level = Level.NORMAL
    typed = False


def choose_level(level: Level, typed: bool = False) -> None:
    """Choose how much is printed. The command line overrides files and variables.

    Raises:
        UsageError: both --quiet and --verbose were typed.
    """
    if _Chosen.typed and typed and level is not _Chosen.level:
        raise UsageError("--quiet and --verbose exclude each other")
    if typed or not _Chosen.typed:
        _Chosen.level, _Chosen.typed = level, typed
        if level is Level.VERBOSE:
            _show_log()


def start_talking() -> None:
    """Reset the level that an earlier command in this process chose."""
    _Chosen.level, _Chosen.typed = Level.NORMAL, False


def is_quiet() -> bool:
    """Check whether only errors and failures are printed."""
    return _Chosen.level is Level.QUIET


def is_verbose() -> bool:
    """Check whether details are printed."""
    return _Chosen.level is Level.VERBOSE


def say(text: str) -> None:
    """Print a notice, unless the command is to be quiet."""
    if not is_quiet():
        _print_line(text)


def say_error(text: str) -> None:
    """Print an error, or that an input failed, however quiet the command is."""
    _print_line(text)


def say_traceback(text: str) -> None:
    """Print the traceback of a bug, or of the error behind a line, where a name in it may hold what a terminal would act on."""
    with suppress(OSError):
        sys.stderr.write("".join(f"{escaped(line)}\n" for line in text.splitlines()))
        sys.stderr.flush()


def detail(text: str) -> None:
    """Print what only --verbose asks for."""
    if is_verbose():
        _print_line(text)


def _print_line(text: str) -> None:
    """Print one line on stderr. A line that cannot be written, as to a full disk, is dropped, so that no data is lost for it."""
    with suppress(OSError):
        sys.stderr.write(f"imagebind: {escaped(text)}\n")  # in one piece: threads print, too
        sys.stderr.flush()


def _show_log() -> None:
    """Print what the libraries of this package log."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            detail(record.getMessage())

    log = logging.getLogger("imagebind_cli")
    log.handlers = [Lines()]
    log.setLevel(logging.DEBUG)


class Talk(Listener):
    """Counts of a run, as a live line on a terminal and a plain line a minute elsewhere. Use it as a context manager."""

    def __init__(
        self,
        errors: Path | None = None,
        done: str = "embedded",
        others: Others | None = None,
    ) -> None:
        """Print nothing until something happens.

        Args:
            errors: the file of failed inputs, see `FailureFile`. done: a word for what happened to the others.
            others: files of other kinds that were skipped.
        """
        self._failure_file = _failure_file(errors) if errors else None
        super().__init__(failures=self._failure_file)
        self._word = done
        self.others = others or Others()
        self._has_summed_up = False
        self._noted: set[str] = set()
        self._started = time.monotonic()
        self._pace = Pace()
        self._over = threading.Event()
        self._progress: Progress | None = None

    def __enter__(self) -> Talk:
        if sys.stderr.isatty() and not is_quiet():
            self._progress = _progress()
            self._task = self._progress.add_task("starting", total=None)
            self._progress.start()
        threading.Thread(target=self._tick, name="talk", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._progress:
            with suppress(OSError):  # the terminal may be gone
                self._progress.stop()
        if self._failure_file:
            self._failure_file.close()
        if self.others.count and not self._has_summed_up:
            say(self.summary())

    @property
    def has_failures(self) -> bool:
        """Check whether inputs failed, in this run or in an earlier one of which they were left out."""
        return bool(self.failed or self.failed_before)

    def note(self, text: str) -> None:
        say(text)

    def begin(self, stored: int, count: Callable[[], int | None] | None = None) -> None:
        """Start the clock, and count the inputs in the background; `stored` rows exist already."""
        self._pace = Pace()
        if count is not None:
            threading.Thread(target=lambda: self._pace.expect(count(), stored), name="count", daemon=True).start()

    def succeeded(self, id: str) -> None:
        super().succeeded(id)
        if is_verbose():
            detail(f"{printable(id)}: {self._word} after {time.monotonic() - self._started:.2f} s")

    def failure(self, id: str, reason: str) -> None:
        """Report an input that could not be used at once, and keep it in the file of failures."""
        super().failure(id, reason)
        say_error(f"{printable(id) or repr(id)}: {printable(reason)}")

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """Print what was assumed to read an input the first time it occurs (every time with --verbose), and what of the input was lost."""
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                say(f"assumed: {note}")
            detail(f"{printable(id)}: {note}")
        for warning in warnings:
            say(f"{printable(id)}: {warning}")

    def summary(self, *more: str) -> str:
        """Return the final counts of the run in words, with the rate and any further words given."""
        self._has_summed_up = True
        return self._counts(*more)

    def _counts(self, *more: str) -> str:
        parts = [f"{self.done:,} {self._word}"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.skipped:,} there already"] if self.skipped else []
        parts += [f"{self.repeated:,} repeated"] if self.repeated else []
        parts += [f"{self.failed_before:,} failed before"] if self.failed_before else []
        parts += [f"{self.others.count:,} other file{'s' * (self.others.count > 1)} skipped"] if self.others.count else []
        return f"{', '.join(parts)} ({', '.join([f'{self._pace.overall(self.done):.1f} a second', *more])})"

    def _tick(self) -> None:
        """Show progress from a thread, so that it moves while one input takes long."""
        while not self._over.wait(0.5 if self._progress else LINE_SECONDS):
            left = self._pace.left(self.done + self.failed, self.skipped + self.repeated + self.failed_before)
            text = self._counts(left) if left else self._counts()
            if self._progress:
                self._progress.update(self._task, description=text)
            else:
                say(text)


def exit_if_bad(is_bad: bool) -> None:
    """End the command with exit code 1, that of one that was carried out and found something bad: inputs that failed, a damaged store."""
    if is_bad:
        raise typer.Exit(1)


@contextmanager
def summary_at_end(output: Path | str, talk: Talk, continues: str | None = "here") -> Iterator[None]:
    """Report the counts of a run at its end, also after Ctrl-C; not after an error, which has its own line.

    continues: where the same command continues after it was stopped; None where it starts again.
    """
    remedy = f": run the same command to continue from {continues}" if continues else ""
    with line_if_stopped(lambda: f"{output}: {talk.summary()}; stopped{remedy}"):
        yield
    say(f"{output}: {talk.summary()}")


@contextmanager
def line_if_stopped(text: Callable[[], str]) -> Iterator[None]:
    """Print a line if a signal stops a block, such as how to continue; not after an error, which has its own line."""
    try:
        yield
    except (Exception, StdoutClosed):
        raise
    except BaseException:
        say(text())
        raise


def _failure_file(path: Path) -> FailureFile:
    from imagebind_cli.corpus.failures import FailureFile

    return FailureFile(path)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    # By default Rich takes stdout over as well, and lines of data are lost.
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
        console=console, redirect_stdout=False, redirect_stderr=True, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
