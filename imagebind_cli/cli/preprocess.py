"""`imagebind preprocess`: decode and transform once, for runs that come again."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import imagebind_cli
from imagebind_cli import options as reading
from imagebind_cli import registry
from imagebind_cli.cli.configuration import is_set_elsewhere
from imagebind_cli.cli.flags import (
    Errors,
    Inputs,
    Manifest,
    ModelName,
    Null,
    PreprocessWorkers,
    Strict,
    reading_options,
    with_reading_flags,
)
from imagebind_cli.cli.inputs import find_items
from imagebind_cli.cli.output import StdoutClosed, write
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UsageError, UserError, writing
from imagebind_cli.file_kinds import Others

if TYPE_CHECKING:
    from imagebind_cli.encoder import EncoderConfig
    from imagebind_cli.prepared import Writer

MANY = 1000
"""Inputs that are worth starting processes for before anything is read."""

ArrayType = enum.StrEnum("ArrayType", ["float32", "float16"])

HELP = """Decode files once into tar shards, or one HDF5 file, that `embed` and `train` take in place of them.

MODALITY may be several with commas, `image,audio`, from a manifest or a video with its sound: they stay together under one key.
OUT is `out-%06d.tar` (numbered shards), `out.tar`, `out.h5`, or `-` for one tar on stdout. The same command again goes on where it stopped.
Of --model only its input sizes and constants are used; its weights need not be there, and a config JSON will do.

\b
    imagebind preprocess audio sounds/ -o 'sounds-%06d.tar'
    imagebind preprocess audio *.wav -o - | imagebind embed audio -
    imagebind preprocess image,depth --manifest pairs.jsonl -o pairs.h5 --array float16
    imagebind preprocess depth room.png --inspect           # what is read and assumed, as JSON
    imagebind preprocess imu walk.csv --preview look/       # PNGs as the encoder sees them, and index.html
"""


@with_reading_flags
def preprocess(
    modality: Annotated[str, typer.Argument(help="What the inputs are; several with commas.", show_default=False)],
    inputs: Inputs = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="out-%06d.tar, out.tar, out.h5, or - for stdout.")
    ] = None,
    manifest: Manifest = None,
    nul: Null = False,
    strict: Strict = False,
    array: Annotated[ArrayType, typer.Option(help="Number type of the arrays; float16 halves their size.")] = ArrayType.float32,
    shard_size: Annotated[
        float | None, typer.Option(min=0.001, help="Close a numbered shard once it holds this many MB; 500 if not given.")
    ] = None,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Print what was read and assumed, a JSON line per item; write nothing.")
    ] = False,
    preview: Annotated[
        Path | None, typer.Option(help="Write a PNG per item, as the encoder sees it, and index.html to this folder.")
    ] = None,
    errors: Errors = None,
    model: ModelName = None,
    workers: PreprocessWorkers = None,
    **chosen: Any,
) -> None:
    modalities = tuple(modality.split(","))
    options = _options(modalities, chosen)
    if preview is not None and preview.exists() and not preview.is_dir():
        raise UserError(f"{preview}: exists and is no folder")
    _check_output(output, modalities, shard_size, looking=inspect or preview is not None)

    from imagebind_cli.corpus.items import count_items, new_items
    from imagebind_cli.engine.processes import Processes, default_workers
    from imagebind_cli.prepared import is_own
    from imagebind_cli.sources import is_timed

    frames = any("fps" in given for given in options.values())
    others = Others(strict)
    items = find_items(modalities, inputs or [], manifest, nul, frames, others)(lambda path: output is not None and is_own(path, output))
    at_once = workers or default_workers()

    def count() -> int | None:
        found = count_items(modality, inputs or [], manifest, frames)
        if output is not None and at_once > 1 and found is not None and found >= MANY:
            processes.launch()  # while this process imports the same
        return found

    with Processes(modalities) as processes, Talk(errors, "prepared", others, count) as talk:
        talk.begin(0)

        import torch

        from imagebind_cli import pipeline
        from imagebind_cli.readers import read_sources
        from imagebind_cli.weights.find import input_configs

        torch.set_num_threads(1)  # the readers share the cores
        configs = input_configs(model, modalities)
        decode = partial(pipeline.decode, read=partial(read_sources, configs=configs, options=options), workers=at_once, ahead=4 * at_once)
        if output is None:
            with writing(preview or "stdout"):
                _look(decode(items), configs, inspect, preview, talk)
        else:
            with _writer(output, _made(configs, options, str(array)), shard_size, talk) as writer:
                steps = decode(new_items(items, writer.ids, talk, any(map(is_timed, modalities))), processes=processes)
                _write(steps, writer, modalities, str(array), talk, hint=_one_file_for_all(modalities, manifest))
    if talk.failed:
        raise typer.Exit(1)


def _check_output(output: str | None, modalities: tuple[str, ...], shard_size: float | None, looking: bool) -> None:
    """Refuse an output that cannot be, before anything is read."""
    if (output is None) != looking:
        raise UsageError("give -o OUT, or --inspect or --preview in place of it")
    if output is None:
        return
    if output != "-" and not output.endswith((".tar", ".h5")):
        raise UsageError(f"{output}: the name must end in .tar or .h5, or be -")
    if output == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("-o - writes a tar, which is binary data, and stdout is a terminal; send it to a pipe or a file")
    if shard_size is not None and "%" not in output:
        raise UsageError(f"--shard-size is for numbered shards such as out-%06d.tar; {output} is one file")
    if output.endswith(".h5") and "%" in output:
        raise UsageError(f"{output}: an .h5 is one file and takes no number; tar shards do")
    if output.endswith(".h5") and "vision" in modalities:
        raise UsageError("an .h5 holds clips of one shape, which pictures and videos differ in: name image or video, or write a .tar")


def _made(configs: dict[str, EncoderConfig], options: dict[str, dict[str, Any]], array: str) -> dict[str, Any]:
    """How the samples are made, for whoever reads them."""
    from imagebind_cli.readers import input_record

    inputs = {name: input_record(config, name, options[name]) for name, config in configs.items()}
    return {"inputs": inputs, "array": array, "version": imagebind_cli.__version__}


@contextmanager
def _writer(output: str, made: dict[str, Any], shard_size: float | None, talk: Talk) -> Iterator[Writer]:
    """What takes the samples; at the end, also one by Ctrl-C, a line says how far it is."""
    from imagebind_cli.prepared import open_writer

    try:
        shard_bytes = int(shard_size * 1e6) if shard_size else None
        stream = sys.stdout.buffer if output == "-" else None
        with writing("stdout" if stream else output), open_writer(output, made, shard_bytes, stream) as writer:
            yield writer
    except (Exception, StdoutClosed):
        raise
    except BaseException:
        goes_on = "from here" if output.endswith(".h5") else "from the last whole shard" if "%" in output else None
        say(f"{output}: {talk.summary()}; stopped{f': the same command goes on {goes_on}' if goes_on else ''}")
        raise
    say(f"{output}: {talk.summary()}")


def _one_file_for_all(modalities: tuple[str, ...], manifest: Path | None) -> str | None:
    """What to say where every file fails in one modality of several."""
    if len(modalities) == 1 or manifest is not None:
        return None
    names = " and ".join(modalities)
    columns = ", ".join(f'"{name}": ...' for name in modalities)
    return (
        f"{names} were both looked for in each file, as in a video with its sound; to pair files, give --manifest with rows {{{columns}}}"
    )


def _options(modalities: tuple[str, ...], chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every modality's share of the flags; each flag must belong to one of them."""
    try:
        known = {name: reading.names(registry.encoder_name(name)) for name in modalities}
    except UserError as error:
        raise UsageError(str(error)) from None
    given = {name: value for name, value in chosen.items() if value is not None}
    shared = {
        name: reading_options(name, {key: value for key, value in given.items() if key in known[name] or len(modalities) == 1})
        for name in modalities
    }
    for key in given:
        if not any(key in names for names in known.values()) and not is_set_elsewhere(key):
            raise UsageError(f"none of {', '.join(modalities)} has an option {key.replace('_', '-')!r}")
    return shared


def _write(steps: Iterator[Any], writer: Writer, modalities: tuple[str, ...], array: str, talk: Talk, hint: str | None) -> None:
    from imagebind_cli.prepared import key_of
    from imagebind_cli.sources import Failure, kept_beside

    spans: dict[str, list[Any]] = {}
    notes: dict[str, list[str]] = {}
    try:
        for item, sample in steps:
            if isinstance(sample, Failure):
                writer.drop()
                talk.failure(item.id, sample.reason)
                if hint and not talk.done:
                    say(hint)
                    hint = None
            elif sample is not None:
                name, values = sample.modality, sample.tensor.numpy()
                writer.add(key_of(item.id), name, values.astype(array if values.dtype.kind == "f" else "int32", copy=False))
                spans.setdefault(name, []).extend(sample.spans)
                talk.remarks(item.id, sample.notes, sample.warnings)
                notes.setdefault(name, []).extend(note for note in sample.notes if note not in notes.get(name, []))
                continue
            elif spans:
                writer.finish(key_of(item.id), {**_plain(kept_beside(item, modalities)), "id": item.id, "spans": spans, "notes": notes})
                talk.succeeded(item.id)
            else:
                talk.failure(item.id, "holds nothing to prepare")
            spans, notes = {}, {}
    except BrokenPipeError:
        raise StdoutClosed from None


def _plain(meta: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key not in ("spans", "notes")}


def _look(steps: Iterator[Any], configs: dict[str, EncoderConfig], inspect: bool, preview: Path | None, talk: Talk) -> None:
    """Print and draw what was read of each item's first stretch, and what was assumed."""
    from imagebind_cli.prepared import key_of
    from imagebind_cli.sources import Failure

    drawn: list[tuple[str, str, dict[str, Any]]] = []
    about: dict[str, dict[str, Any]] = {}
    for item, sample in steps:
        if isinstance(sample, Failure):
            talk.failure(item.id, sample.reason)
        elif sample is None:
            for line in about.values():
                if inspect:
                    write(json.dumps(line).encode() + b"\n")
            talk.succeeded(item.id)
        else:
            name = sample.modality
            talk.remarks(item.id, (), sample.warnings)
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
                from imagebind_cli.pages.preview import draw

                preview.mkdir(parents=True, exist_ok=True)
                file = f"{key_of(item.id)}.{name}.png"
                draw(sample, registry.encoder_name(name), configs[name]).save(preview / file)
                drawn.append((file, item.id, about[name]))
            continue
        about = {}
    if preview is not None and drawn:
        from imagebind_cli.pages.preview import write_index

        write_index(preview, drawn)
        say(f"{preview / 'index.html'}: {len(drawn)} preview{'s' * (len(drawn) > 1)}")


preprocess.__doc__ = HELP
