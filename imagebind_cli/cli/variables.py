"""The variables that set options, `IMAGEBIND_COMMAND_OPTION`."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import partial
from typing import Any

from imagebind_cli.cli.parser import CommandPath, commands_below, option_key
from imagebind_cli.cli.verbosity import verbosity_options

PREFIX = "IMAGEBIND"
NO_OPTIONS = ("IMAGEBIND_HOME", "IMAGEBIND_MIRROR", "IMAGEBIND_OFFLINE", "IMAGEBIND_DEBUG")  # variables that are not an option of a command


def variable_names(path: CommandPath, key: str) -> list[str]:
    """Return the variables that set an option of a command, in order of precedence: its own, then those of its groups."""
    return ["_".join([PREFIX, *path[:depth], key]).upper().replace("-", "_") for depth in range(len(path), 0, -1)]


def open_to_variables(parameter: Any, path: CommandPath, key: str) -> None:
    """Let an option of a command take its value from its variables, and from those that its declaration names."""
    named = _named_variables(parameter)
    if named and parameter.multiple:  # other commands share the variable, and take its value whole, spaces included
        parameter.value_from_envvar = partial(_whole_variable, parameter)
    parameter.show_envvar = parameter.show_envvar and bool(named)
    variables = variable_names(path, key)
    parameter.envvar = [*variables, *(name for name in named if name not in variables)]


def set_variable(parameter: Any) -> str:
    """Return the variable that set an option."""
    return next(name for name in _named_variables(parameter) if os.environ.get(name))


def _named_variables(parameter: Any) -> list[str]:
    return [parameter.envvar] if isinstance(parameter.envvar, str) else [*(parameter.envvar or [])]


def _whole_variable(parameter: Any, context: Any) -> list[str] | None:
    """Return the value of an option's variable as the one value of an option that can be repeated."""
    value = parameter.resolve_envvar_value(context)
    return None if value is None else [value]


def option_variables(root: Any) -> tuple[dict[str, str], list[str]]:
    """Return the variables that start with IMAGEBIND_: those in force with their values, and unknown ones with the nearest name."""
    known = {*NO_OPTIONS}
    for path, command in commands_below(root):
        for parameter in [*command.params, *verbosity_options(command)] if path else ():
            if key := option_key(parameter):
                known |= {*variable_names(path, key), *_named_variables(parameter)}
    present = [name for name in sorted(os.environ) if name.startswith(f"{PREFIX}_")]
    unknown = [name for name in present if name not in known]
    near = {name: get_close_matches(name, known, n=1) for name in unknown}
    return (
        {name: shown_value(name, os.environ[name]) for name in present if name in known},
        [f"{name} (did you mean {near[name][0]}?)" if near[name] else name for name in unknown],
    )


def shown_value(name: str, value: Any) -> str:
    """Return a value with passwords and tokens masked, for reports. name: of its option or variable."""
    return "***" if name.lower().endswith("token") else re.sub("//[^/@]+@", "//***@", str(value))
