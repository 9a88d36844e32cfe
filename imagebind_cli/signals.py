"""The signals that ask a run to end."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a scheduler, a terminal that is closed


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Return those of `ENDING` that are not ignored: `nohup` has a program ignore SIGHUP, a shell's `&` in a script SIGINT."""
    return tuple(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)
