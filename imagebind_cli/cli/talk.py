"""What a command says to people, on stderr: notices, failures, progress on a terminal. stdout is never touched."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from imagebind_cli.cli.output import StdoutClosed
from imagebind_cli.cli.pace import Pace
from imagebind_cli.events import Listener
from imagebind_cli.file_kinds import Others

if TYPE_CHECKING:
    from rich.progress import Progress

    from imagebind_cli.corpus.failures import FailureFile

LINE_SECONDS = 60.0


def say(text: str) -> None:
    """One line on stderr, named as ours. Where it cannot be written, as to a full disk, it is lost: no data are lost for it."""
    with suppress(OSError):
        sys.stderr.write(f"imagebind: {text}\n")  # in one piece: threads talk, too
        sys.stderr.flush()


class Talk(Listener):
    """Counts of a run, as a live line on a terminal and a plain line a minute elsewhere. Use it as a context manager."""

    def __init__(
        self,
        errors: Path | None = None,
        done: str = "embedded",
        others: Others | None = None,
        count: Callable[[], int | None] | None = None,
    ) -> None:
        """Be quiet until something happens.

        Args:
            errors: the file of failed inputs, see `FailureFile`. done: what has happened to the others, in a word.
            others: files of other kinds, that were skipped. count: finds out how many inputs there are, if that can be told.
        """
        self._failure_file = _failure_file(errors) if errors else None
        super().__init__(failures=self._failure_file)
        self._word = done
        self.others = others or Others()
        self._has_summed_up = False
        self._count = count
        self._said: set[str] = set()
        self._pace = Pace()
        self._over = threading.Event()
        self._progress: Progress | None = None

    def __enter__(self) -> Talk:
        if sys.stderr.isatty():
            self._progress = _progress()
            self._task = self._progress.add_task("starting", total=None)
            self._progress.start()
        threading.Thread(target=self._tick, name="talk", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._progress:
            self._progress.stop()
        if self._failure_file:
            self._failure_file.close()
        if self.others.count and not self._has_summed_up:
            say(self.summary())

    def note(self, text: str) -> None:
        say(text)

    def begin(self, stored: int) -> None:
        """Count the inputs in the background; so many rows are there already."""
        count = self._count
        if count is not None:
            threading.Thread(target=lambda: self._pace.expect(count(), stored), name="count", daemon=True).start()

    def failure(self, id: str, reason: str) -> None:
        """Report an input that could not be used at once, and keep it in the file of failures."""
        super().failure(id, reason)
        say(f"{printable(id) or repr(id)}: {printable(reason)}")

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        """What was assumed to read an input, said the first time it is met, and what was lost of it, said with its name."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                say(f"assumed: {note}")
        for warning in warnings:
            say(f"{printable(id)}: {warning}")

    def summary(self, *more: str) -> str:
        """The counts at the end of the run in words, with the rate and what else there is to say."""
        self._has_summed_up = True
        return self._counts(*more)

    def _counts(self, *more: str) -> str:
        parts = [f"{self.done:,} {self._word}"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{self.skipped:,} there already"] if self.skipped else []
        parts += [f"{self.left:,} failed before"] if self.left else []
        parts += [f"{self.others.count:,} other file{'s' * (self.others.count > 1)} skipped"] if self.others.count else []
        return f"{', '.join(parts)} ({', '.join([f'{self._pace.overall(self.done):.1f} a second', *more])})"

    def _tick(self) -> None:
        """Thread: show how far it is, also while one input takes long."""
        while not self._over.wait(0.5 if self._progress else LINE_SECONDS):
            left = self._pace.left(self.done + self.failed, self.skipped + self.left)
            text = self._counts(left) if left else self._counts()
            if self._progress:
                self._progress.update(self._task, description=text)
            else:
                say(text)


@contextmanager
def summary_at_end(output: Path | str, talk: Talk, continues: str | None = "here") -> Iterator[None]:
    """Report the counts of a run at its end, also after Ctrl-C; not after an error, which has its own line.

    continues: from where the same command continues after it was stopped; None where it starts again.
    """
    try:
        yield
    except (Exception, StdoutClosed):
        raise
    except BaseException:
        remedy = f": run the same command to continue from {continues}" if continues else ""
        say(f"{output}: {talk.summary()}; stopped{remedy}")
        raise
    say(f"{output}: {talk.summary()}")


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


def printable(name: str) -> str:
    """A name on one line: control characters and undecodable bytes as escapes, the middle of a long sentence left out."""
    if len(name) > 300:
        name = f"{name[:120]} … {name[-60:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)
