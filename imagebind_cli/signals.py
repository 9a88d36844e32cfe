"""The signals that ask a run to end, on every system."""

from __future__ import annotations

import signal

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # from Ctrl-C, a scheduler, a closed terminal, which Windows does not have
ENDING = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))
BROKEN_PIPE = 13  # the number of SIGPIPE, for the exit code where a reader has gone away; Windows has no such signal


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Return the signals of `ENDING` that this process does not ignore. `nohup` makes it ignore SIGHUP, and `&` in a shell script SIGINT."""
    return tuple(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)
