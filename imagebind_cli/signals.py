"""The signals that ask a run to end."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # from Ctrl-C, a scheduler, a closed terminal


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Return the signals of `ENDING` that this process does not ignore. `nohup` makes it ignore SIGHUP, and `&` in a shell script SIGINT."""
    return tuple(number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)
