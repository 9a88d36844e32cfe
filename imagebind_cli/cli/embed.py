"""`imagebind embed`: files in, unit vectors out."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli import registry
from imagebind_cli.cli.flags import Dtype, Errors, Inputs, Manifest, ModelName, Null, Strict, Workers, reading_options, with_reading_flags
from imagebind_cli.cli.inputs import count_items, find_items, first_of
from imagebind_cli.cli.output import write
from imagebind_cli.cli.resume import Resume
from imagebind_cli.cli.share import Share, array_task, chosen_share
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.cli.vectors import load_model
from imagebind_cli.errors import UsageError
from imagebind_cli.file_kinds import Others

if TYPE_CHECKING:
    from imagebind_cli.store import Store

Modality = enum.StrEnum("Modality", list(registry.MODALITIES))  # type: ignore[misc]
Pool = enum.StrEnum("Pool", ["mean", "none"])
ArrayType = enum.StrEnum("ArrayType", ["float32", "float16"])

HELP = """Embed files, or sentences, of one modality: a JSON line with a unit vector each, in input order.

INPUT is a file, a folder (every file below it), a pattern in quotes, or `-` for stdin; for text it is the sentence itself.
On stdin, one path (or sentence) a line, or one JSON object a line: `{"id": "a1", "audio": "dog.wav"}`.
A file that cannot be read gets one line on stderr and the rest goes on; the exit code is then 1.

\b
    imagebind embed audio dog.wav rain.mp3 > vectors.jsonl
    imagebind embed image photos/ -o photos.h5      # the same again goes on where it stopped
    find . -name '*.mp4' -print0 | imagebind embed video -0 --pool none
    imagebind embed text "a dog barking" | jq .embedding[0]
"""


@with_reading_flags
def embed(
    modality: Annotated[Modality, typer.Argument(help="What the inputs are.", show_default=False)],
    inputs: Inputs = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to NAME.h5, .store, .npy, .safetensors or .jsonl and not to stdout.")
    ] = None,
    manifest: Manifest = None,
    nul: Null = False,
    strict: Strict = False,
    errors: Errors = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try only those in --errors FILE; else they wait until they change.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Tell a changed input by a hash of its content, and not by size and time.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Take the I-th of N shares of the inputs, into NAME-0000I-of-0000N; auto in a Slurm job array."),
    ] = None,
    array: Annotated[ArrayType, typer.Option(help="Number type of the vectors in a store; float16 halves its size.")] = ArrayType.float32,
    model: ModelName = None,
    config: Annotated[str | None, typer.Option(help="JSON file that says what a bare weight file is.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="auto: float32 on CPU, the weights' own elsewhere. int8: for CPUs, faster, a little off.")
    ] = Dtype.auto,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips to the encoder at once; halves itself when memory runs out.")] = None,
    workers: Workers = None,
    pool: Annotated[Pool, typer.Option(help="mean: one vector per item. none: one per window, with its start and end.")] = Pool.mean,
    **chosen: Any,
) -> None:
    resume: Resume | None = None
    frames = chosen["fps"] is not None
    others = Others(strict)
    items = find_items(
        (str(modality),), inputs or [], manifest, nul, lambda path: resume is not None and resume.passes(path), frames, others
    )
    options = reading_options(str(modality), chosen)
    if retry_errors and errors is None:
        raise UsageError("--retry-errors takes its inputs from --errors FILE")
    if verify and output is None:
        raise UsageError("--verify compares with what is in the store: give -o")
    if array is not ArrayType.float32 and output is None:
        raise UsageError("--array is the number type of a store: give -o")
    share = _share(shard, reads_stdin=manifest is None and "-" in (inputs or ["-"]))
    if share is not None:
        output, errors = output and share.name(output), errors and share.name(errors)
        device = share.device(device)

    from imagebind_cli.processes import Processes
    from imagebind_cli.shards import Prepared
    from imagebind_cli.sources import Failure, kept_beside, whole
    from imagebind_cli.store import Row, check_writable, json_line

    if output is not None:
        check_writable(output)
    loaded = load_model(model, device, str(dtype), config)
    first, items = first_of(items)
    payload = whole(getattr(first, "payload", None))
    if isinstance(payload, Prepared):  # prepared samples say how they were read; a flag that says otherwise is refused with the first
        options = {**payload.made["inputs"][str(modality)]["options"], **options}
    settings: dict[str, Any] = {"pool": str(pool), **options}
    made = {**loaded.made(str(modality), **settings), "array": str(array)}
    with Processes([str(modality)]) as processes, Talk(errors, others=others) as talk, _store(output, made, talk) as store:
        resume = Resume(talk, str(modality), store, share, retry_errors, verify)
        count = partial(count_items, str(modality), inputs or [], manifest, frames)
        talk.expect(count, share.count if share else 1, store.stored if store else 0)
        results = loaded.embed_items(
            str(modality), resume.choose(items), batch_size=batch_size, workers=workers, processes=processes, **settings
        )
        for item, result in results:
            if isinstance(result, Failure):
                resume.failed(item.id)
                talk.failure(item.id, result.reason, item.stamp)
                continue
            talk.remarks(item.id, result.notes, result.warnings)
            parts = result.embeddings
            beside = kept_beside(item, (str(modality),))
            rows = [Row(item.id, part.vector, part.span, len(parts), beside, item.stamp) for part in parts]
            if store is not None:
                store.append(rows, result.notes)
            else:
                write(*(json_line(row, str(modality)) for row in rows))
            talk.succeeded(item.id)
    if talk.failed or talk.left:
        raise typer.Exit(1)


def _share(shard: str | None, reads_stdin: bool) -> Share | None:
    share = chosen_share(shard)
    if share is None and (task := array_task()):
        say(f"this is {task} of a job array; all inputs are taken, not its share of them: --shard auto")
    if share is not None and share.local is not None and reads_stdin:
        raise UsageError("the processes of torchrun cannot share stdin; give files or --manifest")
    return share


@contextmanager
def _store(output: Path | None, made: dict[str, Any], talk: Talk) -> Iterator[Store | None]:
    """The store to write to, None for stdout; at the end, also one by Ctrl-C, a line says how far it is."""
    from imagebind_cli.store import Store

    if output is None:
        yield None
        return
    try:
        with Store(output, made) as store:
            yield store
    except Exception:
        raise
    except BaseException:
        say(f"{output}: {talk.summary()}; stopped: the same command goes on from here")
        raise
    say(f"{output}: {talk.summary()}")


embed.__doc__ = HELP
