"""Run `imagebind` many times, each in a process forked from this one, which has imported what commands need."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch  # imported once, for every process forked from here

from imagebind_cli import cli

torch.set_num_threads(1)  # a process whose libraries have begun threads must not fork: OpenMP's would be missed in the child for ever


@dataclass(frozen=True)
class Run:
    """A run that ended.

    code: exit code, negative for a signal. seconds: wall time. megabytes: memory beyond what the parent held when it forked.
    """

    code: int
    seconds: float
    megabytes: float
    out: bytes
    err: str

    @property
    def is_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.err


def fork(
    arguments: Sequence[object],
    *,
    stdin: Path | None = None,
    out: Path | None = None,
    err: Path | None = None,
    folder: Path | None = None,
    prepare: Callable[[], None] | None = None,
) -> int:
    """Start `imagebind ARGUMENTS` in a process of its own, in `folder`, and return its process id.

    prepare: called in the new process before the command, to set limits.
    """
    child = os.fork()
    if child:
        return child
    try:
        files = ((0, stdin, os.O_RDONLY), (1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), (2, err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        for number, path, flags in files:
            os.dup2(os.open(path or os.devnull, flags if path else os.O_RDWR), number)
        if folder is not None:
            os.chdir(folder)
        if prepare is not None:
            prepare()
        sys.argv = ["imagebind", *map(str, arguments)]
        sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        cli.run_command_line()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(99)


def run(arguments: Sequence[object], *, folder: Path, limit: float, stdin: Path | None = None, megabytes: int | None = None) -> Run:
    """Run `imagebind ARGUMENTS` to its end, or kill it after `limit` seconds.

    megabytes: address space that it may take beyond what it has at its start.
    """
    out, err = folder / ".out", folder / ".err"

    def prepare() -> None:
        if megabytes is not None:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + (megabytes << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    started = time.monotonic()
    child = fork(arguments, stdin=stdin, out=out, err=err, folder=folder, prepare=prepare)
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if done:
            break
        if seconds > limit:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(0.002 if seconds < 0.2 else 0.02)
    said = err.read_text(errors="backslashreplace")
    return Run(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024 - held, out.read_bytes(), said)


def warm(arguments: Sequence[object], folder: Path) -> None:
    """Import here what a command imports, so that no process forked later has to."""
    names = folder / ".modules"

    def report() -> None:
        leave = os._exit

        def noted(code: int) -> None:
            names.write_text("\n".join(sys.modules))
            leave(code)

        os._exit = noted  # type: ignore[assignment]

    os.waitpid(fork(arguments, folder=folder, prepare=report), 0)
    for name in names.read_text().split("\n"):
        with suppress(Exception):  # some only work as parts of others
            import_module(name)
