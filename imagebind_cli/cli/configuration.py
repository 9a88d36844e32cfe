"""Options from the environment and from `imagebind.toml`: the command line overrides variables, and variables override files.

Every option of every command can be set in both, under the name of its long flag: `IMAGEBIND_EMBED_BATCH_SIZE=8`, or `batch_size = 8` in a
section `[embed]`. Keys above all sections hold for every command that has such an option. Files are data: nothing in them is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from imagebind_cli.cli.completion import complete
from imagebind_cli.cli.parser import CommandPath, commands_below, option_key, shorten
from imagebind_cli.cli.settings import Setting, check_setting, configuration_files, read_settings, value_as_typed
from imagebind_cli.cli.talk import detail, is_verbose
from imagebind_cli.cli.variables import open_to_variables, option_variables, set_variable, shown_value
from imagebind_cli.cli.verbosity import verbosity_options
from imagebind_cli.errors import UsageError

HELP_FLAGS = {"-h", "--help", "--help-all"}

_in_use: list[Configuration] = []  # at most one, of the command line that runs


def use(root: Any) -> Configuration:
    """Open a command tree to files and variables, for one run of it."""
    _in_use[:] = [Configuration(root)]
    return _in_use[0]


def is_set_elsewhere(name: str) -> bool:
    """Check whether an option of the running command has its value from a variable or a file, where it may be meant for other runs."""
    context = _in_use[0].context if _in_use else None
    if context is None:
        return False
    flags = {option_key(parameter): parameter.name for parameter in context.command.params}
    source: Any = context.get_parameter_source(name) or context.get_parameter_source(flags.get(name, name))
    return bool(source) and source.name in ("ENVIRONMENT", "DEFAULT_MAP")


def refuse_useless(flag: str, reason: str) -> None:
    """Refuse an option that was typed and has no use in this run. One that a variable or a file sets may be meant for others, and is skipped.

    Args:
        flag: as typed, `--array`. reason: the whole message.
    Raises:
        UsageError: it was typed.
    """
    if not is_set_elsewhere(flag.lstrip("-").replace("-", "_")):
        raise UsageError(reason)
    detail(f"{flag} is skipped, since it was not typed: {reason}")


class Configuration:
    """The command tree with every option open to files and variables, and with --quiet and --verbose on every command.

    Commands are added when they are resolved, so that a group may make its commands on demand.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.path: CommandPath = ()  # of the command that runs
        self.context: Any = None
        self._adopted: set[int] = set()
        self._adopt(root, ())

    def _adopt(self, command: Any, path: CommandPath) -> None:
        if id(command) in self._adopted:
            return
        self._adopted.add(id(command))
        if path:
            command.params += verbosity_options(command)
        for parameter in command.params:
            complete(parameter, " ".join(path))
            key = option_key(parameter)
            if key and path:
                open_to_variables(parameter, path, key)
        if hasattr(command, "resolve_command"):
            command.resolve_command = partial(self._resolve, command.resolve_command, path)
        if path and getattr(command, "invoke_without_command", True):
            command.invoke = partial(self._invoke, command.invoke, path)

    def _resolve(self, resolve: Callable[..., Any], path: CommandPath, context: Any, words: list[str]) -> Any:
        """Resolve a subcommand as its group does, with the values of files as defaults of its options."""
        name, command, rest = resolve(context, words)
        if command is not None:
            below = (*path, name)
            self._adopt(command, below)
            # Help and doctor also work where a file is broken; doctor names what is wrong with it.
            if context.resilient_parsing or below == ("doctor",) or HELP_FLAGS & {*words}:
                return name, command, rest
            context.default_map = {name: self.defaults(command, below)}
        return name, command, rest

    def _invoke(self, invoke: Callable[..., Any], path: CommandPath, context: Any) -> Any:
        if context.args and hasattr(context.command, "resolve_command"):  # a command below it runs
            return invoke(context)
        self.path, self.context = path, context
        for source in self.sources():
            detail(f"in force: {source}")
        for name in option_variables(self.root)[1] if is_verbose() and path != ("doctor",) else ():
            detail(f"{name}: no option has this variable")
        keys = {option_key(parameter) for parameter in context.command.params}
        for setting in self.settings if path != ("doctor",) else ():
            if setting.section and setting.applies_to(path) and setting.key not in keys:
                detail(f"{setting}: skipped, `imagebind {' '.join(path)}` does not have this option")
        return invoke(context)

    @cached_property
    def settings(self) -> list[Setting]:
        """The values of all files, checked; of two for the same option the later one wins.

        Raises:
            SettingError: a key that no command has, or a value of the wrong type, with the file and the nearest known name.
        """
        settings = [setting for file in reversed(configuration_files()) for setting in read_settings(file)]
        if settings:
            commands = dict(commands_below(self.root))
            for setting in settings:
                check_setting(setting, commands)
        return settings

    def defaults(self, command: Any, path: CommandPath) -> dict[str, Any]:
        """Return the values of the files for a command, by the names of its parameters."""
        names = {option_key(parameter): parameter for parameter in command.params}
        return {
            names[setting.key].name: value_as_typed(names[setting.key], setting.value)
            for setting in self.settings
            if setting.key in names and setting.applies_to(path)
        }

    def sources(self, message: str | None = None) -> list[str]:
        """Return the options of the running command that are not from its command line, and where each is from.

        message: return only those that it names, or whose value it names.
        """
        if self.context is None:
            return []
        lines = []
        for parameter in self.context.command.params:
            key, source = option_key(parameter), self.context.get_parameter_source(parameter.name)
            value = self.context.params.get(parameter.name)
            if (
                message is not None
                and key
                and not {key, key.replace("_", "-"), str(value)} & {*re.findall(r"[\w./-]+", message.replace("--", " "))}
            ):
                continue
            if key and source is not None and source.name == "ENVIRONMENT":
                variable = set_variable(parameter)
                lines.append(f"{variable}={shown_value(variable, os.environ[variable])}")
            elif key and source is not None and source.name == "DEFAULT_MAP":
                setting = [one for one in self.settings if one.key == key and one.applies_to(self.path)][-1]
                lines.append(f"{setting} = {shown_value(setting.key, setting.value)}")
        return lines


def parser_message(error: Any) -> str:
    """Return the parser's message, with the variable in place of the option where a variable set the value."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    source = context and parameter is not None and context.get_parameter_source(parameter.name)
    if source and source.name == "ENVIRONMENT":
        return f"{set_variable(parameter)}: {shorten(error.message)}"
    return shorten(error.format_message())
