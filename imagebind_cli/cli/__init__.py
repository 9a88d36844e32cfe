"""The command line: one file per command, and `run_command_line`, which prints anything a user can do wrong as one line.

Only typer and the standard library are imported at the top of these files; what needs torch is imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from imagebind_cli.cli import configuration
from imagebind_cli.cli.command import commands_on_demand
from imagebind_cli.cli.output import StdoutClosed, open_standard_streams, write
from imagebind_cli.cli.parser import PARSER_ERROR
from imagebind_cli.cli.settings import SettingError
from imagebind_cli.cli.talk import detail, is_verbose, say_error, say_traceback, start_talking
from imagebind_cli.cli.verbosity import QUIET, VERBOSE
from imagebind_cli.errors import OptionError, UsageError, UserError, first_line, is_broken_pipe
from imagebind_cli.printable import printable
from imagebind_cli.signals import BROKEN_PIPE, heeded_signals

# Each is a module of this folder, whose `app` is the command. Help lists them in this order.
COMMANDS = (
    "embed",
    "preprocess",
    "train",
    "zeroshot",
    "retrieve",
    "moments",
    "locate",
    "score",
    "serve",
    "store",
    "weights",
    "doctor",
    "demo",
)


class _Root(TyperGroup):
    """The command line as a whole."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = commands_on_demand(COMMANDS)

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.default is None:
                parameter.default = False  # typer imports pydantic, a third of the time of help, to convert None
        return parameters


app = typer.Typer(
    name="imagebind",
    help="One embedding space for image, video, text, audio, depth, thermal and IMU: files in, unit vectors out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    rich_markup_mode=None,  # plain help: the boxes cost as much time as all the rest
    cls=_Root,
)


def _print_version(asked: bool) -> None:
    if asked:
        from imagebind_cli.cli.version import version_lines

        write("".join(f"{line}\n" for line in version_lines(is_verbose())).encode())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version and exit; with -v, also what it runs on.")
    ] = False,
    quiet: Annotated[bool, QUIET] = False,
    verbose: Annotated[bool, VERBOSE] = False,
) -> None:
    pass


class Terminated(BaseException):
    """SIGTERM or SIGHUP, as an exception, so that stores are closed on the way out. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(signum)


def run_command_line() -> NoReturn:
    """Run the command line. Exit codes: 0 done; 1 some input failed, or a request that cannot be carried out (one line says which);
    2 bad usage; 130, 143, 129, 141 ended by Ctrl-C, SIGTERM, SIGHUP, or a reader that closed the pipe. A traceback is our bug, unless
    IMAGEBIND_DEBUG=1 asks for the one behind an error line.
    """
    open_standard_streams()
    for number in {*heeded_signals()} - {signal.SIGINT}:
        signal.signal(number, _terminate)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' warnings; ours are printed in plain words
    start_talking()
    started = time.monotonic()
    settings = configuration.use(typer.main.get_command(app))
    code = 1
    try:
        code = settings.root(prog_name="imagebind", standalone_mode=False) or 0
        if settings.context:
            detail(f"done after {time.monotonic() - started:.2f} s")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except UserError as error:
        code = 2 if isinstance(error, UsageError) else 1
        _report(
            error.as_flags() if isinstance(error, OptionError) else str(error),
            settings if code == 2 and not isinstance(error, SettingError) else None,
        )
    except PARSER_ERROR as error:
        code = error.exit_code
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            _report(configuration.parser_message(error), settings)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Terminated as terminated:
        code = 128 + terminated.number
    except StdoutClosed:
        code = 128 + BROKEN_PIPE
    except (OSError, MemoryError) as error:
        _report(_refusal(error))
    leave(code)


def _refusal(error: OSError | MemoryError) -> str:
    """Return what the operating system refused."""
    if isinstance(error, MemoryError):
        return f"out of memory: {first_line(error)}; take smaller or fewer inputs at a time (--batch-size, --workers)"
    return f"{printable(str(error.filename or 'cannot write'))}: {os.strerror(error.errno) if error.errno else first_line(error)}"


def _report(message: str, settings: configuration.Configuration | None = None) -> None:
    """Print the error that ended the command. settings: for wrong usage, which hints at the help and at options that were not typed."""
    if os.environ.get("IMAGEBIND_DEBUG", "0") not in ("", "0"):
        say_traceback(traceback.format_exc())
    say_error(message)
    if settings is not None:
        if elsewhere := settings.sources(message):
            say_error(f"hint: not from the command line: {'; '.join(elsewhere)}")
        say_error(_hint(sys.argv[1:]))


def _hint(words: list[str]) -> str:
    """Return where the command that was typed is described."""
    command, path = typer.main.get_command(app), ["imagebind"]
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]  # type: ignore[attr-defined]
        path.append(word)
    return f"hint: {' '.join(path)} --help"


def leave(code: int) -> NoReturn:
    """End the process now, without waiting for a thread that may wait for a line of stdin that never comes."""
    with suppress(ValueError, OSError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except ValueError:
        code = code or 128 + BROKEN_PIPE
    except OSError as error:
        if not code and not is_broken_pipe(error):
            say_error(f"stdout: {os.strerror(error.errno or 0)}")
        code = code or (128 + BROKEN_PIPE if is_broken_pipe(error) else 1)
    os._exit(code)
