"""Options from the environment and from `imagebind.toml`: the command line overrides variables, and variables override files.

Every option of every command can be set in both, under the name of its long flag: `IMAGEBIND_EMBED_BATCH_SIZE=8`, or `batch_size = 8` in a
section `[embed]`. Keys above all sections hold for every command that has such an option. Files are data: nothing in them is executed.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import typer

from imagebind_cli.cli.completion import complete
from imagebind_cli.cli.talk import Level, choose_level, detail
from imagebind_cli.documents import read_toml
from imagebind_cli.errors import UserError

FILE = "imagebind.toml"
PREFIX = "IMAGEBIND"
OUTPUT = "Output"  # a heading of help
NO_OPTIONS = ("IMAGEBIND_HOME", "IMAGEBIND_MIRROR", "IMAGEBIND_OFFLINE", "IMAGEBIND_DEBUG")  # variables that are not an option of a command
HELP_FLAGS = {"-h", "--help", "--help-all"}
COMMAND_LINE_ONLY = ("help", "version", "install_completion", "show_completion")
PARSER_ERROR: Any = typer.BadParameter.__mro__[2]  # the base of whatever the parser raises; typer may bring its own click

CommandPath = tuple[str, ...]  # the words of a command: ("store", "check")


@dataclass(frozen=True)
class Setting:
    """One value of a file, for the command `section` and those below it; () for all commands."""

    file: Path
    section: CommandPath
    key: str
    value: Any

    def __str__(self) -> str:
        section = f"[{' '.join(self.section)}] " if self.section else ""
        return f"{self.file}: {section}{self.key}"


def configuration_files() -> list[Path]:
    """Return the files that exist, the one that wins first: the working folder's, then the user's."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [path for path in (Path(FILE), folder / "imagebind" / FILE) if path.exists()]


def read_settings(file: Path) -> list[Setting]:
    """Read the values of one file, those of outer sections first.

    Raises:
        UserError: it cannot be read, or is not TOML.
    """
    return sorted(_flat(file, (), read_toml(file)), key=lambda setting: len(setting.section))


def _flat(file: Path, section: CommandPath, content: Mapping[str, Any]) -> Iterator[Setting]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(file, (*section, *key.split()), value)
        else:
            yield Setting(file, section, key.replace("-", "_"), value)


def option_key(parameter: Any) -> str | None:
    """Return an option's name in files and variables: its long flag. None for arguments and for options of the command line alone."""
    if parameter.param_type_name != "option":
        return None
    key = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
    return None if key in COMMAND_LINE_ONLY else key


def variable_names(path: CommandPath, key: str) -> list[str]:
    """Return the variables that set an option of a command, the one that wins first: its own, then those of the groups it is in."""
    return ["_".join([PREFIX, *path[:depth], key]).upper().replace("-", "_") for depth in range(len(path), 0, -1)]


_in_use: list[Configuration] = []  # at most one, of the command line that runs


def use(root: Any) -> Configuration:
    """Open a command tree to files and variables, for one run of it."""
    _in_use[:] = [Configuration(root)]
    return _in_use[0]


def is_set_elsewhere(name: str) -> bool:
    """Check whether an option of the running command has its value from a variable or a file, where it may be meant for other modalities."""
    source: Any = _in_use and _in_use[0].context and _in_use[0].context.get_parameter_source(name)
    return bool(source) and source.name in ("ENVIRONMENT", "DEFAULT_MAP")


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
                named = _named_variables(parameter)
                if named and parameter.multiple:  # a variable of other commands, too, which take its value as one, with any spaces
                    parameter.value_from_envvar = partial(_whole_variable, parameter)
                parameter.show_envvar = parameter.show_envvar and bool(named)
                variables = variable_names(path, key)
                parameter.envvar = [*variables, *(name for name in named if name not in variables)]
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
        keys = {option_key(parameter) for parameter in context.command.params}
        for setting in self.settings if path != ("doctor",) else ():
            if setting.section and setting.section == path[: len(setting.section)] and setting.key not in keys:
                detail(f"{setting}: skipped, `imagebind {' '.join(path)}` does not have this option")
        return invoke(context)

    @cached_property
    def settings(self) -> list[Setting]:
        """The values of all files, checked; of two for the same option the later one wins.

        Raises:
            UserError: a key that no command has, or a value of the wrong type, with the file and the nearest known name.
        """
        settings = [setting for file in reversed(configuration_files()) for setting in read_settings(file)]
        if settings:
            commands = dict(commands_below(self.root))
            for setting in settings:
                _check_setting(setting, commands)
        return settings

    def defaults(self, command: Any, path: CommandPath) -> dict[str, Any]:
        """Return the values of the files for a command, by the names of its parameters."""
        names = {option_key(parameter): parameter for parameter in command.params}
        return {
            names[setting.key].name: _as_typed(names[setting.key], setting.value)
            for setting in self.settings
            if setting.key in names and setting.section == path[: len(setting.section)]
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
                setting = [one for one in self.settings if one.key == key and one.section == self.path[: len(one.section)]][-1]
                lines.append(f"{setting} = {shown_value(setting.key, setting.value)}")
        return lines


def shown_value(name: str, value: Any) -> str:
    """Return a value as reports show it, without passwords and tokens. name: of its option or variable."""
    return "***" if name.lower().endswith("token") else re.sub("//[^/@]+@", "//***@", str(value))


def set_variable(parameter: Any) -> str:
    """Return the variable that set an option."""
    return next(name for name in _named_variables(parameter) if os.environ.get(name))


def _whole_variable(parameter: Any, context: Any) -> list[str] | None:
    """Return the value of an option's variable as the one value of an option that can be repeated."""
    value = parameter.resolve_envvar_value(context)
    return None if value is None else [value]


def _named_variables(parameter: Any) -> list[str]:
    return [parameter.envvar] if isinstance(parameter.envvar, str) else [*(parameter.envvar or [])]


def commands_below(command: Any, path: CommandPath = ()) -> Iterator[tuple[CommandPath, Any]]:
    """Yield a command and all below it, with the words that lead there."""
    yield path, command
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from commands_below(command.get_command(context, name), (*path, name))


def _check_setting(setting: Setting, commands: Mapping[CommandPath, Any]) -> None:
    section = setting.section
    if section not in commands:
        known = [" ".join(path) for path in commands if path]
        raise UserError(f"{setting.file}: [{' '.join(section)}]: no such command{_nearest(' '.join(section), known)}")
    options = [
        (command, parameter)
        for path, command in commands.items()
        if path[: len(section)] == section
        for parameter in [*command.params, *(verbosity_options(command) if path else [])]
    ]
    fitting = [(command, parameter) for command, parameter in options if option_key(parameter) == setting.key]
    if not fitting:
        known = sorted({key for _, parameter in options if (key := option_key(parameter))})
        raise UserError(f"{setting}: no such option{_nearest(setting.key, known)}")
    for command, parameter in fitting:
        _check_value(setting, command, parameter)


def _nearest(word: str, known: list[str]) -> str:
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}" if len(known) < 12 else ""


def _check_value(setting: Setting, command: Any, parameter: Any) -> None:
    """Refuse a value that the option would not take on the command line, and one of another TOML type."""
    value = setting.value
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not parameter.multiple:
        raise UserError(f"{setting}: one value is needed, not a list")
    try:
        taken = parameter.process_value(typer.Context(command), _as_typed(parameter, value))
    except PARSER_ERROR as error:
        raise UserError(f"{setting}: {shorten(error.message)}") from None
    for given, made in zip(values, taken if parameter.multiple else [taken], strict=True):
        if _kind(given) != _kind(made):
            raise UserError(f"{setting}: {_kind(made)} is needed, not {_kind(given)}: {given!r}")


def _as_typed(parameter: Any, value: Any) -> Any:
    """Return a value of a file as the command line would give it."""
    if parameter.multiple:
        return [str(each) for each in (value if isinstance(value, list) else [value])]
    return value if isinstance(value, bool) else str(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str | Path) else "a date"


def shorten(message: str) -> str:
    """Return a message of the parser in our style: one line, no capital, without the words of the library that checked the value."""
    message = " ".join(message.split()).replace("Value error, ", "").rstrip(".")
    message = re.sub(r"\bInput should be (.*?)(, unable to .*)?$", r"\1 is needed", message).replace("(Possible", "(possible")
    return message[:1].lower() + message[1:]


def parser_message(error: Any) -> str:
    """Return the parser's message, with the variable in place of the option where a variable set the value."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    source = context and parameter is not None and context.get_parameter_source(parameter.name)
    if source and source.name == "ENVIRONMENT":
        return f"{set_variable(parameter)}: {shorten(error.message)}"
    return shorten(error.format_message())


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
    """Return --quiet and --verbose for one command, under its heading of output, if it has one."""
    added = [copy.copy(parameter) for parameter in _verbosity()]
    for parameter in added if OUTPUT in {getattr(parameter, "rich_help_panel", None) for parameter in command.params} else ():
        parameter.rich_help_panel = OUTPUT
    return added


@cache
def _verbosity() -> list[Any]:
    """Return --quiet and --verbose as typer makes them of annotations."""

    def options(quiet: Annotated[bool, QUIET] = False, verbose: Annotated[bool, VERBOSE] = False) -> None: ...

    options.__annotations__ = {"quiet": Annotated[bool, QUIET], "verbose": Annotated[bool, VERBOSE]}
    app = typer.Typer(add_completion=False)
    app.command()(options)
    return [parameter for parameter in typer.main.get_command(app).params if parameter.name in ("quiet", "verbose")]


def option_variables(root: Any) -> tuple[dict[str, str], list[str]]:
    """Return the variables that start with IMAGEBIND_: those in force with their values, and unknown ones with the nearest name."""
    known = {*NO_OPTIONS}
    for path, command in commands_below(root):
        for parameter in [*command.params, *verbosity_options(command)] if path else ():
            if key := option_key(parameter):
                known |= {*variable_names(path, key), *_named_variables(parameter)}
    there = [name for name in sorted(os.environ) if name.startswith(f"{PREFIX}_")]
    unknown = [name for name in there if name not in known]
    near = {name: get_close_matches(name, known, n=1) for name in unknown}
    return (
        {name: shown_value(name, os.environ[name]) for name in there if name in known},
        [f"{name} (did you mean {near[name][0]}?)" if near[name] else name for name in unknown],
    )
