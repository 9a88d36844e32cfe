"""`imagebind`, and `python -m imagebind_cli`, the same."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Ctrl-C while it is still being imported ends the process without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from imagebind_cli import cli, crashes
    from imagebind_cli.cli.talk import say_traceback

    crashes.report_crashes()
    sys.excepthook = lambda *error: say_traceback("".join(traceback.format_exception(*error)))
    signal.signal(signal.SIGINT, handler)
    cli.run_command_line()


if __name__ == "__main__":
    main()
