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
from imagebind_cli.cli.estimate import write_estimate
from imagebind_cli.cli.flags import Dtype, Errors, Inputs, Manifest, ModelName, Null, Strict, Workers, reading_options, with_reading_flags
from imagebind_cli.cli.inputs import find_items
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.output import AsJSON, write
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UsageError
from imagebind_cli.file_kinds import Others
from imagebind_cli.space import load_model

if TYPE_CHECKING:
    from imagebind_cli.corpus import Share

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the inputs, read the first, estimate the time, and write nothing.")
    ] = False,
    as_json: AsJSON = False,
    **chosen: Any,
) -> None:
    options = reading_options(str(modality), chosen)
    frames, others = "fps" in options, Others(strict)
    if retry_errors and errors is None:
        raise UsageError("--retry-errors tries those inputs again that --errors FILE lists; name that file")
    if retry_errors and not inputs and manifest is None:
        raise UsageError("--retry-errors tries those of the inputs that are in --errors FILE; give the same inputs again, or - for stdin")
    if verify and output is None:
        raise UsageError("--verify compares with what is in the store: give -o")
    if array is not ArrayType.float32 and output is None:
        raise UsageError("--array is the number type of a store: give -o")
    if as_json and not dry_run:
        raise UsageError("--json is the form of --dry-run; vectors on stdout are JSON lines anyway")
    # What is wrong about the inputs is told before the model is loaded.
    find = find_items((str(modality),), inputs or [], manifest, nul, frames, others)

    from imagebind_cli import corpus
    from imagebind_cli.corpus.items import count_items
    from imagebind_cli.store import check_writable, json_line

    share = _share(shard, reads_stdin=manifest is None and "-" in (inputs or ["-"]))
    if share is not None:
        output, errors = output and share.name(output), errors and share.name(errors)
        device = share.device(device)
    if output is not None:
        check_writable(output)
    keep_freed_memory()
    if dry_run:
        write_estimate(
            partial(load_model, model, device, str(dtype), config, say),
            model,
            str(modality),
            find,
            output,
            as_json,
            **{
                "errors": errors,
                "retry_errors": retry_errors,
                "verify": verify,
                "share": share,
                "array": str(array),
                "pool": str(pool),
                "batch_size": batch_size,
                "workers": workers,
                **options,
            },
        )
        return
    loaded = load_model(model, device, str(dtype), config, say)

    def count() -> int | None:
        found = count_items(str(modality), inputs or [], manifest, frames)
        return found if found is None or share is None else found // share.count

    with Talk(others=others, count=count) as talk, _summed_up(output, talk):
        corpus.embed(
            loaded,
            str(modality),
            find,
            output or (lambda rows, _: write(*(json_line(row, str(modality)) for row in rows))),
            errors=errors,
            retry_errors=retry_errors,
            verify=verify,
            share=share,
            array=str(array),
            pool=str(pool),
            batch_size=batch_size,
            workers=workers,
            listener=talk,
            **options,
        )
    if talk.failed or talk.left:
        raise typer.Exit(1)


def _share(shard: str | None, reads_stdin: bool) -> Share | None:
    from imagebind_cli.corpus.share import array_task, chosen_share

    share = chosen_share(shard)
    if share is None and (task := array_task()):
        say(f"this is {task} of a job array; all inputs are taken, not its share of them: --shard auto")
    if share is not None and share.local is not None and reads_stdin:
        raise UsageError("the processes of torchrun cannot share stdin; give files or --manifest")
    return share


@contextmanager
def _summed_up(output: Path | None, talk: Talk) -> Iterator[None]:
    """Say at the end, also one by Ctrl-C, how far the store is."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        if output is not None:
            say(f"{output}: {talk.summary()}; stopped: the same command goes on from here")
        raise
    if output is not None:
        say(f"{output}: {talk.summary()}")


embed.__doc__ = HELP
