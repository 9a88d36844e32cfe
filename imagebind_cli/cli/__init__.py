"""The command line: one file per subcommand, and `main()`, where everything a user can do wrong becomes one line.

Only typer and the standard library are imported at the top of these files; what needs torch is imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

import imagebind_cli
from imagebind_cli.cli import demo, doctor, embed, preprocess, retrieve, store, train, weights, zeroshot
from imagebind_cli.cli.command import HeadedCommand, RootGroup
from imagebind_cli.cli.output import StdoutClosed, open_standard_streams
from imagebind_cli.cli.talk import printable, say
from imagebind_cli.errors import REFUSED, UsageError, UserError

app = typer.Typer(
    name="imagebind",
    help="One embedding space for image, video, text, audio, depth, thermal and IMU: files in, unit vectors out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    rich_markup_mode=None,  # plain help: the boxes cost as much time as all the rest
    cls=RootGroup,
)
app.add_typer(embed.app, name="embed")
app.add_typer(preprocess.app, name="preprocess")
app.command("train", cls=HeadedCommand)(train.train_command)
app.add_typer(zeroshot.app, name="zeroshot")
app.command("retrieve", cls=retrieve.QueryCommand, help=retrieve.HELP)(retrieve.retrieve_command)
app.add_typer(store.app, name="store")
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo_command)


def _version(asked: bool) -> None:
    if asked:
        print(imagebind_cli.__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


PARSER_ERROR: Any = typer.BadParameter.__mro__[2]  # the base of whatever the parser raises; typer brings a click of its own


class Terminated(BaseException):
    """SIGTERM, as an exception, so that stores are closed on the way out."""


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Run the command line. Exit codes: 0 done; 1 some input failed, or a request that cannot be carried out (one line says which);
    2 bad usage; 130, 143, 141 ended by Ctrl-C, SIGTERM, or a reader that closed the pipe. A traceback is a bug of ours.
    """
    open_standard_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' talk; ours goes through stderr in plain words
    code = 1
    try:
        code = app(standalone_mode=False) or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except UserError as error:
        say(str(error))
        if isinstance(error, UsageError):
            code = 2
            say(_hint(sys.argv[1:]))
    except PARSER_ERROR as error:
        code = error.exit_code
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            say(_one_line(error.format_message()))
            say(_hint(sys.argv[1:]))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Terminated:
        code = 128 + signal.SIGTERM
    except StdoutClosed:
        code = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        say(f"{printable(str(error.filename or 'cannot write'))}: {os.strerror(error.errno)}")
    leave(code)


def _one_line(message: str) -> str:
    """The parser's message as ours are: one line, no capital, and not the words of the library that checked the value."""
    message = " ".join(message.split()).replace("Value error, ", "")
    return message[:1].lower() + message[1:]


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
    """End the process now. A thread may be waiting for a line of stdin that never comes; nobody waits for it."""
    with suppress(ValueError, OSError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        code = code or 128 + signal.SIGPIPE
    except OSError as error:
        if not code:
            say(f"stdout: {os.strerror(error.errno or 0)}")
        code = code or 1
    os._exit(code)
