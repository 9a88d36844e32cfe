"""Options objects as command parameters: a command takes a dataclass, and the command line has a flag for each of its fields."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def with_option_groups(flags: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that replaces each dataclass parameter of a command by a flag for each field, with the field's default.

    The command gets the dataclass. Fields that are not in `flags` keep their defaults.

    Args:
        flags: the annotation of each flag, `Annotated[type, typer.Option(…)]`, by field name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        groups: dict[str, Any] = {
            name: parameter.annotation for name, parameter in signature.parameters.items() if is_dataclass(parameter.annotation)
        }
        parameters = []
        for parameter in signature.parameters.values():
            if parameter.name not in groups:
                parameters.append(parameter)
                continue
            parameters += [
                parameter.replace(name=entry.name, default=entry.default, annotation=flags[entry.name])
                for entry in fields(groups[parameter.name])
                if entry.name in flags
            ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            built = {}
            for name, group in groups.items():
                given = {entry.name: values.pop(entry.name) for entry in fields(group) if entry.name in flags}
                built[name] = group(**{key: str(value) if isinstance(value, enum.Enum) else value for key, value in given.items()})
            command(**values, **built)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
