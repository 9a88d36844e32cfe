"""Ask the command line's parser for its commands, the names of their options, and its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

COMMAND_LINE_ONLY = ("help", "version", "install_completion", "show_completion")
PARSER_ERROR: Any = typer.BadParameter.__mro__[2]  # the base of whatever the parser raises; typer may bring its own click

CommandPath = tuple[str, ...]  # the words of a command: ("store", "check")


def commands_below(command: Any, path: CommandPath = ()) -> Iterator[tuple[CommandPath, Any]]:
    """Yield a command and all below it, with the words that lead there."""
    yield path, command
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from commands_below(command.get_command(context, name), (*path, name))


def option_key(parameter: Any) -> str | None:
    """Return an option's name in files and variables: its long flag. None for arguments and for options of the command line alone."""
    if parameter.param_type_name != "option":
        return None
    key = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
    return None if key in COMMAND_LINE_ONLY else key


def shorten(message: str) -> str:
    """Return a message of the parser in our style: one line, no capital, without the words of the library that checked the value."""
    message = " ".join(message.split()).replace("Value error, ", "").rstrip(".")
    message = re.sub(r"\bInput should be (.*?)(, unable to .*)?$", r"\1 is needed", message).replace("(Possible", "(possible")
    return message[:1].lower() + message[1:]
