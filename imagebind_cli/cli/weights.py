"""`imagebind weights`: list, fetch, convert, publish, describe and check models."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from imagebind_cli.cli.flags import DryUpload, Dtype, Licence, Private
from imagebind_cli.cli.output import AsJSON, write_json_line, write_lines, write_upload
from imagebind_cli.cli.talk import exit_if_bad, is_quiet, line_if_stopped, say, say_error
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.printable import printable

if TYPE_CHECKING:
    from imagebind_cli.weights.fetch import Progress
    from imagebind_cli.weights.model_config import Rounding

app = typer.Typer(help="List, fetch, convert, publish, describe and check models.", no_args_is_help=True, rich_markup_mode=None)

Decode = enum.StrEnum("Decode", ["exact", "fast"])
SmallerType = enum.StrEnum("SmallerType", ["bf16", "fp16", "int8"])
ModelName = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Name, folder, weight file or hf://owner/repo; the default model if not given.")
]
Config = Annotated[
    str | None,
    typer.Option(
        help="Config of a bare file: our config.json, the published constructor's arguments, open_clip_config.json, or a name like ViT-H-14."
    ),
]


@app.command("list")
def list_command(as_json: AsJSON = False) -> None:
    """List the models known by name and those fetched from a hub, and which of them are on this machine."""
    from imagebind_cli.weights.describe import known_models

    rows = known_models()
    if as_json:
        write_json_line(rows)
    else:
        widths = [max((len(row[key]) for row in rows), default=0) for key in ("name", "family", "state")]
        for row in rows:
            name, family, state = (row[key].ljust(width) for key, width in zip(("name", "family", "state"), widths, strict=True))
            write_lines([f"{'*' if row['default'] else ' '} {name}  {family}  {state}  {row['about']}".rstrip()])


@app.command("pull")
def pull_command(
    name: Annotated[str, typer.Argument(help="A name of `imagebind weights list`, or hf://owner/repo[@revision].")],
    sha256: Annotated[str | None, typer.Option(help="Refuse the file unless its SHA-256 is this.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network; fail if the model is not here.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Fetch a model, whole or not at all, and print its folder. The same command continues a broken download.

    Environment: `IMAGEBIND_HOME` (where to), `IMAGEBIND_MIRROR` and `HF_ENDPOINT` (from where), `https_proxy`, `HF_TOKEN`,
    `IMAGEBIND_OFFLINE`.

    \b
        imagebind weights pull huge
        imagebind weights pull hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K
    """
    from imagebind_cli.weights.model_config import is_bundled
    from imagebind_cli.weights.origin import ORIGIN, OriginRecord, read_record
    from imagebind_cli.weights.published import published_models, pull_named

    if is_bundled(name):
        raise UserError(f"{name!r} is inside this package: there is nothing to fetch")
    if not name.startswith("hf://") and (model := published_models().get(name)) and model.licence:
        say(f"{name}: its weights are under {model.licence}")
    stopped = f"{name}: stopped: run the same command to continue the download"
    with line_if_stopped(lambda: stopped), _progress() as progress:
        folder = pull_named(name, sha256=sha256, progress=progress, offline=offline)
    files = read_record(folder / ORIGIN, OriginRecord).get("files", {})
    for file, record in files.items():
        say(f"{file}: {record['size']:,} bytes, SHA-256 {record['sha256']}")
    if as_json:
        write_json_line({"model": name, "folder": str(folder), "files": files})
    else:
        write_lines([str(folder)])


@app.command("convert")
def convert_command(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DEST",
            help="Published .pth, OpenCLIP weights, or any form of --model; then a new folder: config.json and one safetensors file per encoder.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DEST", help="The new folder, in place of the last argument.")
    ] = None,
    config: Config = None,
    dtype: Annotated[
        SmallerType | None,
        typer.Option(help="Round to this type, half or a quarter of float32, and print the cosines to vectors of the exact weights."),
    ] = None,
    modalities: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Keep only the encoders of these modalities: audio,text.", show_default=False)
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Turn weights into a model folder, exactly unless `--dtype` is given: every tensor is accounted for, or nothing is written.

    Several models of one family become one with all their encoders. Encoders that two of them have must be equal.

    \b
        imagebind weights convert imagebind_huge.pth huge/
        imagebind weights convert imagebind_huge.pth small/ --dtype int8 --modalities audio,text
        imagebind weights convert languagebind-audio languagebind-depth all/
    """
    from imagebind_cli.number_types import ITEMS, convert_rounded
    from imagebind_cli.weights.checkpoint import join
    from imagebind_cli.weights.convert import convert, only, refuse_existing
    from imagebind_cli.weights.describe import source_record
    from imagebind_cli.weights.find import find_checkpoint

    sources, folder = (places, output) if output is not None else (places[:-1], Path(places[-1]))
    if not sources:
        raise UsageError(f"{folder}: name the weights and the new folder: imagebind weights convert SRC DEST, or SRC -o DEST")
    refuse_existing(folder)
    if config is not None and len(sources) > 1:
        raise UsageError("--config describes one model; convert each by itself, then join the folders")
    checkpoints = [find_checkpoint(source, config) for source in sources]
    records = [source_record(found) for found in checkpoints]
    found, origin = (checkpoints[0], records[0]) if len(records) == 1 else (join(checkpoints), {"sources": records})
    if modalities is not None:
        found = only(found, [name.strip() for name in modalities.split(",")])
    if dtype is None:
        converted = convert(found, folder, origin)
    else:
        say(f"{folder}: cosine of vectors of weights in {dtype} to those of the exact weights, {ITEMS} generated inputs: mean, lowest")
        converted = convert_rounded(
            found, folder, origin, cast("Rounding", dtype.value), lambda encoder, near: say(_cosine_line(encoder, near))
        )
    size = sum(record["size"] for record in converted.files.values())
    say(f"{folder}: {', '.join(converted.encoders)}; {size / 1e6:,.1f} MB")
    if as_json:
        about = {"folder": str(folder), "encoders": list(converted.encoders), "files": dict(converted.files), "origin": origin}
        write_json_line(about | ({} if converted.rounded is None else {"rounded": dict(converted.rounded)}))
    else:
        write_lines([str(folder)])


@app.command("push")
def weights_push_command(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model folder of `weights convert`, or of a finished run.")],
    place: Annotated[str, typer.Argument(metavar="hf://OWNER/REPO", help="Repository on the hub; created if it does not exist.")],
    licence: Licence = None,
    private: Private = False,
    dry_run: DryUpload = False,
    as_json: AsJSON = False,
) -> None:
    """Publish a model on the hub: safetensors, config and a card. Log in first (`hf auth login`, or HF_TOKEN).

    \b
        imagebind weights push my-model/ hf://me/my-model --dry-run
    """
    from imagebind_cli.publishing import push_model

    write_upload(push_model(folder, place, licence=licence, private=private, dry_run=dry_run), as_json)


@app.command("info")
def weights_info_command(model: ModelName = None, config: Config = None, as_json: AsJSON = False) -> None:
    """Describe a model: parameters and fingerprint per encoder, licence, origin; then its model card, if it has one."""
    from imagebind_cli.weights.describe import describe_model
    from imagebind_cli.weights.find import find_checkpoint

    about = describe_model(find_checkpoint(model, config))
    if as_json:
        write_json_line(about)
        return
    lines = []
    for key in ("name", "about", "family", "place", "licence", "dim", "rounded", "untrained", "unfinished", "origin"):
        if about.get(key, "") not in ("", {}):
            lines.append(f"{key:<10} {about[key]['dtype'] if key == 'rounded' else about[key]}")
    lines.append(f"{'encoder':<10}{'parameters':>15}{'width':>7}{'layers':>8}{'heads':>7}  {'input':<18}fingerprint")
    for name, row in about["encoders"].items():
        shape = " x ".join(str(size) for size in row["input"])
        lines.append(
            f"{name:<10}{row['parameters']:>15,}{row['width']:>7}{row['layers']:>8}{row['heads']:>7}  {shape:<18}{row['fingerprint']}"
        )
    lines.append(f"{'all':<10}{about['parameters']:>15,}")
    if "card" in about:
        lines += ["", *about["card"].splitlines()]
    write_lines(lines)


@app.command("verify")
def verify_command(
    model: ModelName = None,
    dtype: Annotated[
        Dtype, typer.Option(help="For each encoder, also measure how far vectors in this type are from float32 ones.")
    ] = Dtype.auto,
    merge: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=1000, show_default=False, help="Also measure how far merging N tokens a block moves vectors."),
    ] = 0,
    decode: Annotated[
        Decode, typer.Option(help="With fast: also measure, on files of --sample, how far `--decode fast` moves vectors and what it saves.")
    ] = Decode.exact,
    sample: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="JPEG file, video, or folder of them, for --decode fast. Repeatable.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Read every byte of a model and compare it with what was recorded when it was fetched or converted. Exit 1 if it differs."""
    from imagebind_cli.evaluation.decoding import sample_files
    from imagebind_cli.model import load
    from imagebind_cli.weights.describe import count_recorded_files, differing_files
    from imagebind_cli.weights.find import find_checkpoint

    if (decode is Decode.fast) != bool(sample):
        raise UsageError("--decode fast is measured on your own JPEGs and videos; give both --decode fast and --sample PATH")
    samples = sample_files(sample) if sample else {}
    found = find_checkpoint(model)
    encoders, count = list(found.config.encoders), count_recorded_files(found)
    differences = list(differing_files(found))
    about: dict[str, Any] = {
        "model": found.config.name,
        "family": found.config.family,
        "place": found.place,
        "ok": not differences,
        "files": count,
    }
    about |= {"differences": differences, "encoders": encoders}
    for line in differences:
        say_error(f"{found.place}: {line}")
    if not differences:
        load(model, modalities=encoders, device="cpu")  # names and shapes
        if not as_json:
            write_lines([f"{found.config.name} ({found.config.family}): {count} files as recorded, {len(encoders)} encoders load"])
        kinds: list[dict[str, Any]] = [{"dtype": str(dtype)}] if dtype is not Dtype.auto else []
        kinds += [{"merge": merge}, *(kind | {"merge": merge} for kind in kinds)] if merge else []
        if kinds:
            about["measured"] = [kind | {"cosines": _cosines(model, kind, as_table=not as_json)} for kind in kinds]
        if samples:
            about["decode"] = _decoding_losses(model, samples, as_table=not as_json)
    if as_json:
        write_json_line(about)
    exit_if_bad(bool(differences))


def _cosines(model: str | None, choices: dict[str, Any], as_table: bool) -> dict[str, dict[str, float]]:
    """Return the mean and lowest cosine of each encoder's vectors, loaded with these choices, to exact ones; also print them as a table."""
    from imagebind_cli.merging import can_merge
    from imagebind_cli.model import load
    from imagebind_cli.number_types import ITEMS, cosines, mean_and_lowest

    if as_table:
        words = " and ".join(str(value) if name == "dtype" else f"--{name} {value}" for name, value in choices.items())
        write_lines([f"cosine of {words} to fp32, {ITEMS} generated inputs: mean, lowest"])
    measured = {}
    for name in load(model, device="cpu").checkpoint.config.encoders:
        exact, other = (load(model, device="cpu", **kind) for kind in ({"dtype": "fp32"}, choices))
        if "merge" in choices and not can_merge(exact.config(name)):
            continue
        measured[name] = mean_and_lowest(cosines(exact, other, name))
        if as_table:
            write_lines([_cosine_line(name, measured[name])])
    return measured


def _decoding_losses(model: str | None, samples: dict[str, list[Path]], as_table: bool) -> dict[str, dict[str, float]]:
    """Return what fast decoding costs and gains on files of each modality, see `DecodingLoss.figures`; also print it as a table."""
    from imagebind_cli.evaluation.decoding import decoding_losses
    from imagebind_cli.model import load

    measured = {modality: loss.figures() for modality, loss in decoding_losses(load(model, device="cpu"), samples).items()}
    if as_table:
        write_lines(["cosine of --decode fast to exact, your files: mean, lowest; times faster to read; files, vectors unchanged"])
        for modality, figures in measured.items():
            counts = f"{figures['files']:>6,}{figures['unchanged']:>6,}"
            write_lines([f"{_cosine_line(modality, figures)}{figures['faster']:>8.2f}{counts}"])
    return measured


def _cosine_line(encoder: str, near: Mapping[str, float]) -> str:
    return f"{encoder:<10}{near['mean']:>10.6f}{near['lowest']:>10.6f}"


@contextmanager
def _progress() -> Iterator[Progress]:
    """Draw a bar for each file on a terminal; elsewhere print nothing until the end."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or is_quiet():
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, refresh_per_second=5) as bars:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(printable(name), total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield progress
