"""The flags that several commands share, each declared once. Those about reading come from `options.modalities`: a new option is a new flag."""

from __future__ import annotations

import enum
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

import typer

from imagebind_cli import registry
from imagebind_cli.cli.configuration import is_set_elsewhere, refuse_useless
from imagebind_cli.cli.talk import detail, say
from imagebind_cli.cli.verbosity import OUTPUT
from imagebind_cli.errors import UsageError
from imagebind_cli.options import modalities as reading
from imagebind_cli.tabular import parse_columns

if TYPE_CHECKING:
    from imagebind_cli.remote import RemoteModel

MODALITY = "modality"  # the parameter of a command that becomes a group of modalities

input_argument = partial(typer.Argument, rich_help_panel="Input")
input_option = partial(typer.Option, rich_help_panel="Input")
output_option = partial(typer.Option, rich_help_panel=OUTPUT)
model_option = partial(typer.Option, rich_help_panel="Model")

Modality = enum.StrEnum("Modality", list(registry.MODALITIES))  # type: ignore[misc]
Dtype = enum.StrEnum("Dtype", ["auto", "fp32", "bf16", "fp16", "int8"])
Pool = enum.StrEnum("Pool", ["mean", "none"])
ArrayType = enum.StrEnum("ArrayType", ["float32", "float16"])

ModalityName = Annotated[str, typer.Argument(show_default=False)]  # of a `modality_group`
OptionalModality = Annotated[str | None, typer.Argument(show_default=False)]
Inputs = Annotated[list[str] | None, input_argument(metavar="[INPUT]...", help="Files, folders, patterns, sentences, or - for stdin.")]
Manifest = Annotated[
    Path | None, input_option(metavar="FILE", help="Read inputs from a JSONL, CSV or TSV file with a column for each modality.")
]
Column = Annotated[
    list[str] | None,
    input_option(
        "--column", metavar="NAME=COLUMN", help="Column of the manifest that holds a modality, id, label: image=file_name. Repeatable."
    ),
]
Include = Annotated[
    list[str] | None,
    input_option("--include", metavar="PATTERN|kind:KIND", help="Take only matching files from folders: '*.jpg', kind:image. Repeatable."),
]
# Flags of regions: help shows them for the modalities that have any; see `command.ModalityGroup`.
REGION_FLAGS = frozenset({"boxes", "nms"})
NMS = "Leave out regions that overlap a better one in their picture by more than this IoU."
Boxes = Annotated[
    Path | None,
    input_option(
        metavar="FILE", hidden=True, help="A row for each box in a COCO JSON file or a table; without INPUT, for all its pictures."
    ),
]
Pictures = Annotated[
    Path | None, input_option(metavar="FILE", hidden=True, help="COCO JSON that lists the pictures, if --boxes is a list of detections.")
]
Nms = Annotated[float | None, output_option("--nms", metavar="IOU", min=0, max=1, hidden=True, help=NMS)]
Null = Annotated[bool, input_option("-0", "--null", help="Entries on stdin end with a NUL byte, as from `find -print0`.")]
Strict = Annotated[
    bool, input_option("--strict", hidden=True, help="Fail on files of other kinds in folders and patterns instead of skipping them.")
]
Errors = Annotated[Path | None, output_option(metavar="FILE", help="Write a JSON line for each failed input to this file.")]
ModelName = Annotated[
    str | None,
    model_option(
        envvar="IMAGEBIND_MODEL", metavar="MODEL", help="Name, folder, .pth file or hf://owner/repo; see `imagebind weights list`."
    ),
]
Config = Annotated[str | None, model_option(metavar="FILE", hidden=True, help="JSON file that describes a bare weight file.")]
Licence = Annotated[str | None, typer.Option(metavar="NAME", help="Licence that the card states, such as CC-BY-4.0.", show_default=False)]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]
DryUpload = Annotated[bool, typer.Option("--dry-run", help="Print the files and the card, and upload nothing.")]
Device = Annotated[str, model_option(metavar="DEVICE", help="Device: auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[Dtype, model_option(help="Float32 on CPUs, else as the weights (auto); int8: faster on CPUs.")]
Merge = Annotated[
    int,
    model_option(
        metavar="N",
        hidden=True,
        min=0,
        max=1000,
        show_default=False,
        help="Merge the N most alike tokens of a picture or sound in each block: faster.",
    ),
]
BatchSize = Annotated[int | None, model_option(metavar="N", min=1, help="Clips in one step of the encoder; halved when memory runs out.")]
Workers = Annotated[
    int | None, model_option(metavar="N", min=1, help="Inputs read at a time; by default one per core, at most 8, or 32 beside a GPU.")
]
ItemTimeout = Annotated[
    float,
    model_option(
        "--item-timeout", metavar="SECONDS", min=0, hidden=True, help="Time limit for reading one input, which then fails; 0: no limit."
    ),
]
Server = Annotated[str | None, model_option("--server", metavar="URL", hidden=True, help="Encode at a running `imagebind serve`.")]
TOKEN = "IMAGEBIND_TOKEN"  # a token on the command line is seen by other users
LOCAL = ("model", "config", "device", "dtype", "merge", "batch_size", "item_timeout")  # options of a model in this process
Memory = Annotated[
    str, typer.Option(metavar="BYTES", help="Memory for vectors and distances, such as 500M or 4G; vectors beyond half go to a file.")
]


def server_model(context: typer.Context, server: str | None) -> RemoteModel | None:
    """Return the model of --server, None where it is not given. The server's token is in `IMAGEBIND_TOKEN`.

    Raises:
        UsageError: an option of a model in this process was typed, too.
    """
    if server is None:
        return None
    from imagebind_cli.remote import RemoteModel

    for name in LOCAL:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--{name.replace('_', '-')} is for a local model, and --server has its own; leave one of them out")
    return RemoteModel(server, os.environ.get(TOKEN), say)


def with_reading_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's `**chosen` by a flag for each reading option, None unless given; help shows them where they apply."""
    signature = inspect.signature(command, eval_str=True)
    plain = [parameter for parameter in signature.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    types = {name: kind for options in reading.all_options().values() for name, kind in get_type_hints(options).items()}
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(entry, types[name]))
        for name, entry in reading.flags().items()
    ]
    command.__signature__ = signature.replace(parameters=[*plain, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*plain, *flags)}
    return command


def given_options(modality: str, chosen: Mapping[str, Any], has_boxes: bool = True) -> dict[str, Any]:
    """Return the reading options that were given, without those of variables and files that have no use here.

    has_boxes: whether the inputs have boxes, to which some options apply.
    """
    known = modality_flags([modality])
    given = {name: str(value) if isinstance(value, enum.Enum) else value for name, value in chosen.items() if value is not None}
    for name in [name for name in given if name not in known and is_set_elsewhere(name)]:
        detail(f"{name.replace('_', '-')} is not an option of {modality}: skipped, since it was not typed")
        del given[name]
    if not has_boxes and "region_shape" in given and is_set_elsewhere("region_shape"):
        detail("region-shape is for boxes, and there are none: skipped, since it was not typed")
        del given["region_shape"]
    return given


def options_among(kinds: Iterable[str] | None, chosen: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the reading options that were given, each of one of some modalities.

    Args:
        kinds: the modalities; None where any may come. what: is read, for the message, as `query`.
    Raises:
        UsageError: an option was typed that none of them has.
    """
    faces = [registry.face(name) for name in registry.MODALITIES if kinds is None or name in kinds]
    given = {name: value for name, value in chosen.items() if value is not None}
    options: dict[str, Any] = {}
    for face in faces:
        options |= given_options(face.name, {key: given[key] for key in face.options.names() if key in given})
    for key in given:
        if key not in options and not is_set_elsewhere(key):
            raise UsageError(f"no {what} here has an option {key.replace('_', '-')!r}")
    return options


def modality_flags(modalities: Sequence[str]) -> set[str]:
    """Return the names of the reading options that any of some modalities has.

    Raises:
        UsageError: one of them is unknown.
    """
    return {name for face in map(registry.face, modalities) for name in face.option_names()}


def refuse_flag(modalities: Sequence[str], name: str) -> NoReturn:
    """Raise what is wrong about a reading option that none of these modalities has.

    Raises:
        UsageError: always.
    """
    if len(modalities) == 1:
        registry.face(modalities[0]).read_options({name: _NO_VALUE})
    raise UsageError(f"none of {', '.join(modalities)} has an option {name.replace('_', '-')!r}")


def column_names(columns: Iterable[str] | None, manifest: Path | None) -> dict[str, str]:
    """Return the names of --column, which need a manifest or a table of boxes; see `tabular.parse_columns`.

    Raises:
        UsageError: a malformed one, a name that no row of a manifest uses, or no manifest.
    """
    names, known = (
        parse_columns(columns or ()),
        (*registry.MODALITIES, "id", "label", "class", "group", "start", "end", "box", "mask", "score"),
    )
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UsageError(f"--column {unknown}={names[unknown]}: unknown name {unknown!r}; choose from {', '.join(known)}")
    if names and manifest is None:
        refuse_useless("--column", "--column names columns of a --manifest; give that file")
        return {}
    return names


def parse_bytes(text: str) -> int:
    """Return the bytes that `500M`, `4G` or a plain number stands for.

    Raises:
        UsageError: it is none of them.
    """
    asked = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if asked is None or float(asked[1]) <= 0:
        raise UsageError(f"--memory {text}: not a number of bytes; give 500M or 4G")
    return int(float(asked[1]) * 1000 ** " KMGT".index(asked[2].upper() or " "))


_NO_VALUE = object()  # differs from every default


def _flag(entry: Field[Any], kind: Any) -> Any:
    help, choices, minimum = (entry.metadata[key] for key in ("help", "choices", "minimum"))
    owners = ", ".join(name for name, options in reading.all_options().items() if entry.name in options.names())
    if choices:
        kind = enum.StrEnum(entry.name, list(choices)) | None  # type: ignore[misc, operator]
    elif entry.default is not None:
        kind = kind | None
    default = f"{entry.default:g}" if isinstance(entry.default, float) else str(entry.default)
    return Annotated[
        kind,
        typer.Option(
            help=f"{owners}: {help}",
            min=minimum,
            show_default=False if entry.default in (None, False) else default,
            hidden=True,
            rich_help_panel="Reading",
        ),
    ]
