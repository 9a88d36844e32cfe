"""`imagebind preprocess`: decode and transform once, for runs that come again."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.flags import reading_options, with_reading_flags
from imagebind_cli.cli.inputs import find_items, new_items
from imagebind_cli.cli.output import StdoutClosed, write
from imagebind_cli.cli.talk import Talk, say

if TYPE_CHECKING:
    from imagebind_cli.encoder import EncoderConfig, Sample
    from imagebind_cli.shards import ShardWriter

ArrayType = enum.StrEnum("ArrayType", ["float32", "float16"])

HELP = """Decode files once into tar shards that `embed` takes in place of them.

MODALITY may be several with commas, `image,audio`, from a manifest or a video with its sound: they stay together under one key.
OUT is `out-%06d.tar` (numbered shards), `out.tar`, or `-` for one tar on stdout. The same command again goes on behind the last whole shard.

\b
    imagebind preprocess audio sounds/ -o 'sounds-%06d.tar'
    imagebind preprocess audio *.wav -o - | imagebind embed audio -
    imagebind preprocess image,depth --manifest pairs.jsonl -o 'pairs-%06d.tar' --array float16
    imagebind preprocess depth room.png --inspect           # what is read and assumed, as JSON
    imagebind preprocess imu walk.csv --preview look/       # PNGs as the encoder sees them, and index.html
"""


@with_reading_flags
def preprocess(
    modality: Annotated[str, typer.Argument(help="What the inputs are; several with commas.", show_default=False)],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT]...", help="As for embed: files, folders, patterns, shards, -.")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="OUT", help="out-%06d.tar, out.tar, or - for stdout.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Take inputs from a JSONL, CSV or TSV file with a column per modality.")] = None,
    nul: Annotated[bool, typer.Option("-0", "--null", help="Entries on stdin end with a NUL byte.")] = False,
    array: Annotated[ArrayType, typer.Option(help="Number type of the arrays; float16 halves their size.")] = ArrayType.float32,
    shard_size: Annotated[float, typer.Option(min=0.001, help="Close a shard once it holds this many MB.")] = 500,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Print what was read and assumed, a JSON line per item; write nothing.")
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(help="Write a PNG per item, as the encoder sees it, and index.html to this folder.")
    ] = None,
    errors: Annotated[Path | None, typer.Option(help="Append one JSON line per failed input to this file.")] = None,
    model: Annotated[
        str | None, typer.Option(envvar="IMAGEBIND_MODEL", help="Whose input sizes and constants to use; no weights are read.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads.")] = None,
    **chosen: Any,
) -> None:
    if (output is None) == (not inspect and preview is None):
        raise typer.BadParameter("give -o OUT, or --inspect or --preview in place of it")
    if output not in (None, "-") and not output.endswith(".tar"):
        raise typer.BadParameter(f"{output}: the name must end in .tar, or be -")
    modalities = tuple(modality.split(","))
    options = _options(modalities, chosen)
    items = find_items(modalities, inputs or [], manifest, nul)

    import torch

    from imagebind_cli import pipeline
    from imagebind_cli.model import default_workers, input_configs, input_record, read_source

    torch.set_num_threads(1)  # the decoding threads share the cores
    configs = input_configs(model, modalities)

    def read(payload: Any) -> Iterator[tuple[str, Sample]]:
        for name in modalities:
            source = payload if len(modalities) == 1 else payload[name]
            for sample in read_source(name, source, configs[name], options[name]):
                yield name, sample

    count = workers or default_workers()
    with Talk(errors, done="prepared") as talk:
        if output is None:
            _look(pipeline.decode(items, read, workers=count, ahead=2 * count), configs, inspect, preview, talk)  # type: ignore[arg-type]
        else:
            from imagebind_cli.shards import ShardWriter

            made = {
                "inputs": {name: input_record(configs[name], name, options[name]) for name in modalities},
                "array": str(array),
                "version": sys.modules["imagebind_cli"].__version__,
            }
            stream = sys.stdout.buffer if output == "-" else None
            with ShardWriter(output, made, int(shard_size * 1e6), stream) as shards:
                new = new_items(items, shards.ids, talk)
                _write(pipeline.decode(new, read, workers=count, ahead=2 * count), shards, str(array), talk)  # type: ignore[arg-type]
    if output is not None:
        say(f"{output}: {talk.summary()}")
    if talk.failed:
        raise typer.Exit(1)


def _options(modalities: tuple[str, ...], chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every modality's share of the flags; each flag must belong to one of them."""
    from imagebind_cli import reading, registry
    from imagebind_cli.errors import UserError

    try:
        known = {name: reading.names(registry.encoder_name(name)) for name in modalities}
    except UserError as error:
        raise typer.BadParameter(str(error)) from None
    given = {name: value for name, value in chosen.items() if value is not None}
    shared = {
        name: reading_options(name, {key: value for key, value in given.items() if key in known[name] or len(modalities) == 1})
        for name in modalities
    }
    for key in given:
        if not any(key in names for names in known.values()):
            raise typer.BadParameter(f"none of {', '.join(modalities)} has an option {key.replace('_', '-')!r}")
    return shared


def _write(steps: Iterator[Any], shards: ShardWriter, array: str, talk: Talk) -> None:
    from imagebind_cli.shards import key_of
    from imagebind_cli.sources import Failure

    spans: dict[str, list[Any]] = {}
    notes: dict[str, list[str]] = {}
    try:
        for item, tagged in steps:
            if isinstance(item, Failure):
                shards.drop()
                talk.failure(item.id, item.reason)
            elif tagged is not None:
                name, sample = tagged
                values = sample.tensor.numpy()
                shards.add(key_of(item.id), name, values.astype(array if values.dtype.kind == "f" else "int32"))
                spans.setdefault(name, []).extend(sample.spans)
                talk.remarks(item.id, sample.notes, sample.warnings)
                notes.setdefault(name, []).extend(note for note in sample.notes if note not in notes.get(name, []))
                continue
            else:
                shards.finish(key_of(item.id), {**_plain(item.meta), "id": item.id, "spans": spans, "notes": notes})
                talk.succeeded()
            spans, notes = {}, {}
    except BrokenPipeError:
        raise StdoutClosed from None


def _plain(meta: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key not in ("spans", "notes")}


def _look(steps: Iterator[Any], configs: dict[str, EncoderConfig], inspect: bool, preview: Path | None, talk: Talk) -> None:
    """Print and draw what was read of each item's first stretch, and what was assumed."""
    from imagebind_cli import registry
    from imagebind_cli.shards import key_of
    from imagebind_cli.sources import Failure

    drawn: list[tuple[str, str, dict[str, Any]]] = []
    about: dict[str, dict[str, Any]] = {}
    for item, tagged in steps:
        if isinstance(item, Failure):
            talk.failure(item.id, item.reason)
        elif tagged is None:
            for line in about.values():
                if inspect:
                    write(json.dumps(line).encode() + b"\n")
            talk.succeeded()
        else:
            name, sample = tagged
            if name in about:
                about[name]["clips"] += len(sample.tensor)
                about[name]["end"] = sample.spans[-1][1] if sample.spans[-1] else None
                continue
            last = sample.spans[-1]
            about[name] = {
                "id": item.id,
                "modality": name,
                **sample.facts,
                "clips": len(sample.tensor),
                "shape": list(sample.tensor.shape[1:]),
                "start": sample.spans[0][0] if sample.spans[0] else None,
                "end": last[1] if last else None,
                "assumed": list(sample.notes),
            }
            if preview is not None:
                from imagebind_cli.preview import draw

                preview.mkdir(parents=True, exist_ok=True)
                file = f"{key_of(item.id)}.{name}.png"
                draw(sample, registry.encoder_name(name), configs[name]).save(preview / file)
                drawn.append((file, item.id, about[name]))
            continue
        about = {}
    if preview is not None and drawn:
        from imagebind_cli.preview import write_index

        write_index(preview, drawn)
        say(f"{preview / 'index.html'}: {len(drawn)} previews")


preprocess.__doc__ = HELP
