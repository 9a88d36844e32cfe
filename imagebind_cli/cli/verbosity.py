"""--quiet and --verbose, which every command has."""

from __future__ import annotations

import copy
from functools import cache
from typing import Annotated, Any

import typer

from imagebind_cli.cli.talk import Level, choose_level

OUTPUT = "Output"  # the heading of help that they are under


def _be_quiet(context: typer.Context, value: bool) -> None:
    _choose(context, "quiet", value, Level.QUIET)


def _be_verbose(context: typer.Context, value: bool) -> None:
    _choose(context, "verbose", value, Level.VERBOSE)


def _choose(context: typer.Context, name: str, value: bool, level: Level) -> None:
    source: Any = context.get_parameter_source(name)
    if value and not context.resilient_parsing:
        choose_level(level, typed=source.name == "COMMANDLINE")


QUIET = typer.Option("-q", "--quiet", help="Print errors and failures only.", callback=_be_quiet, is_eager=True, expose_value=False)
VERBOSE = typer.Option(
    "-v",
    "--verbose",
    help="Print what is read, how long it takes, and which files and variables set options.",
    callback=_be_verbose,
    is_eager=True,
    expose_value=False,
)


def verbosity_options(command: Any) -> list[Any]:
    """Return --quiet and --verbose for one command, under its heading "Output" if it has one."""
    added = [copy.copy(parameter) for parameter in _verbosity()]
    for parameter in added if OUTPUT in {getattr(parameter, "rich_help_panel", None) for parameter in command.params} else ():
        parameter.rich_help_panel = OUTPUT
    return added


@cache
def _verbosity() -> list[Any]:
    """Return --quiet and --verbose as typer makes them from annotations."""

    def options(quiet: Annotated[bool, QUIET] = False, verbose: Annotated[bool, VERBOSE] = False) -> None: ...

    options.__annotations__ = {"quiet": Annotated[bool, QUIET], "verbose": Annotated[bool, VERBOSE]}
    app = typer.Typer(add_completion=False)
    app.command()(options)
    return [parameter for parameter in typer.main.get_command(app).params if parameter.name in ("quiet", "verbose")]
