"""The flags several commands share. Those about reading are made from `reading.OPTIONS`: a new choice there is a new flag everywhere."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from imagebind_cli import options as reading
from imagebind_cli import registry
from imagebind_cli.cli.configuration import is_set_elsewhere
from imagebind_cli.cli.talk import detail
from imagebind_cli.errors import UsageError, UserError

Inputs = Annotated[list[str] | None, typer.Argument(metavar="[INPUT]...", help="Files, folders, patterns, sentences, or - for stdin.")]
Manifest = Annotated[Path | None, typer.Option(help="Take inputs from a JSONL, CSV or TSV file with a column per modality.")]
Null = Annotated[bool, typer.Option("-0", "--null", help="Entries on stdin end with a NUL byte, as `find -print0` writes.")]
Strict = Annotated[bool, typer.Option("--strict", help="Files of other kinds in a folder or a pattern fail, and are not skipped.")]
Errors = Annotated[Path | None, typer.Option(help="Keep a JSON line for each failed input in this file.")]
ModelName = Annotated[
    str | None,
    typer.Option(envvar="IMAGEBIND_MODEL", help="Name, folder, .pth file or hf://owner/repo. `imagebind weights list` shows names."),
]
Dtype = enum.StrEnum("Dtype", ["auto", "fp32", "bf16", "fp16", "int8"])
Workers = Annotated[int | None, typer.Option(min=1, help="Items read at a time; if not given one per core, 8 at most, 32 beside a GPU.")]
PreprocessWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Items read at a time; if not given one per core, 8 at most.")
]


def with_reading_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's `**chosen` by one flag per reading option, unset unless given."""
    signature = inspect.signature(command, eval_str=True)
    plain = [parameter for parameter in signature.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    types = {name: kind for options in reading.OPTIONS.values() for name, kind in get_type_hints(options).items()}
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(entry, types[name]))
        for name, entry in reading.flags().items()
    ]
    command.__signature__ = signature.replace(parameters=[*plain, *made])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*plain, *made)}
    return command


def reading_options(modality: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, checked against the modality.

    Raises:
        UsageError: one that this modality does not have, or a value it does not take.
    """
    known = reading.names(registry.encoder_name(modality))
    given = {name: str(value) if isinstance(value, enum.Enum) else value for name, value in chosen.items() if value is not None}
    for name in [name for name in given if name not in known and is_set_elsewhere(name)]:
        detail(f"{name.replace('_', '-')} is not an option of {modality}: skipped, since it was not typed")
        del given[name]
    try:
        reading.read_options(registry.encoder_name(modality), modality, given)
    except UserError as error:
        raise UsageError(str(error).replace("_", "-")) from None
    return given


def _flag(entry: Field[Any], kind: Any) -> Any:
    help, choices, minimum = (entry.metadata[key] for key in ("help", "choices", "minimum"))
    owners = [name for name, options in reading.OPTIONS.items() if entry.name in {field.name for field in fields(options)}]
    help = f"{', '.join(owners)}: {help}"
    if choices:
        kind = enum.StrEnum(entry.name, list(choices)) | None  # type: ignore[misc, operator]
    elif entry.default is not None:
        help += f" Default {entry.default:g}." if isinstance(entry.default, float) else f" Default {entry.default}."
        kind = kind | None
    return Annotated[kind, typer.Option(help=help, min=minimum, show_default=False)]
