"""Read the settings in `imagebind.toml` files, and check them against the options of the commands."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from imagebind_cli.cli.parser import PARSER_ERROR, CommandPath, option_key, shorten
from imagebind_cli.cli.verbosity import verbosity_options
from imagebind_cli.documents import read_toml
from imagebind_cli.errors import UsageError, nearest_hint

FILE = "imagebind.toml"


class SettingError(UsageError):
    """A value of a file that no command takes; its message names the file."""


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

    def applies_to(self, path: CommandPath) -> bool:
        """Check whether it is for a command."""
        return path[: len(self.section)] == self.section


def configuration_files() -> list[Path]:
    """Return the files that exist, in order of precedence: the working folder's, then the user's."""
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


def check_setting(setting: Setting, commands: Mapping[CommandPath, Any]) -> None:
    """Refuse a value that no command takes.

    Raises:
        SettingError: a section or key that does not exist, or a value of the wrong type, with the file and the nearest known name.
    """
    section = setting.section
    if section not in commands:
        known = [" ".join(path) for path in commands if path]
        raise SettingError(f"{setting.file}: [{' '.join(section)}]: no such command{_nearest(' '.join(section), known)}")
    options = [
        (command, parameter)
        for path, command in commands.items()
        if setting.applies_to(path)
        for parameter in [*command.params, *(verbosity_options(command) if path else [])]
    ]
    fitting = [(command, parameter) for command, parameter in options if option_key(parameter) == setting.key]
    if not fitting:
        known = sorted({key for _, parameter in options if (key := option_key(parameter))})
        raise SettingError(f"{setting}: no such option{_nearest(setting.key, known)}")
    for command, parameter in fitting:
        _check_value(setting, command, parameter)


def _nearest(word: str, known: list[str]) -> str:
    return nearest_hint(word.lower(), known, cutoff=0.5) or (f"; choose from {', '.join(known)}" if len(known) < 12 else "")


def _check_value(setting: Setting, command: Any, parameter: Any) -> None:
    """Refuse a value that the option would not take on the command line, and one of another TOML type."""
    value = setting.value
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not parameter.multiple:
        raise SettingError(f"{setting}: one value is needed, not a list")
    try:
        parsed = parameter.process_value(typer.Context(command), value_as_typed(parameter, value))
    except PARSER_ERROR as error:
        raise SettingError(f"{setting}: {shorten(error.message)}") from None
    for entry, option in zip(values, parsed if parameter.multiple else [parsed], strict=True):
        if _kind(entry) != _kind(option):
            raise SettingError(f"{setting}: {_kind(option)} is needed, not {_kind(entry)}: {entry!r}")


def value_as_typed(parameter: Any, value: Any) -> Any:
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
