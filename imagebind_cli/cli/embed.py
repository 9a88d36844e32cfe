"""`imagebind embed`: files or sentences in, unit vectors out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.cluster import CLUSTER_FLAGS, ClusterOptions
from imagebind_cli.cli.command import modality_group
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.estimate import write_estimate
from imagebind_cli.cli.flags import (
    ArrayType,
    BatchSize,
    Boxes,
    Column,
    Config,
    Device,
    Dtype,
    Errors,
    Include,
    Inputs,
    ItemTimeout,
    Manifest,
    Merge,
    ModalityName,
    ModelName,
    Null,
    Pictures,
    Pool,
    Precision,
    Server,
    Strict,
    Workers,
    given_options,
    input_option,
    output_option,
    server_model,
    with_reading_flags,
)
from imagebind_cli.cli.inputs import command_inputs
from imagebind_cli.cli.live import (
    LIVE_FLAGS,
    LiveOptions,
    open_stream,
    refuse_with_live,
    refuse_without_live,
    stream_format,
    write_live,
)
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.option_groups import with_option_groups
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, exit_if_bad, say, summary_at_end
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UsageError
from imagebind_cli.file_kinds import Others
from imagebind_cli.space import Space
from imagebind_cli.store_formats import IN_WORDS

if TYPE_CHECKING:
    from imagebind_cli.corpus import Share

HELP = """Embed files or sentences of one modality: a JSON line with a unit vector for each, in input order.

\b
    imagebind embed audio dog.wav rain.mp3 > vectors.jsonl
    imagebind embed image photos/ -o photos.h5      # run it again to continue where it stopped
    imagebind embed image --boxes instances.json -o regions.h5      # a row for each box of COCO's JSON
"""


@with_reading_flags
@with_option_groups(LIVE_FLAGS | CLUSTER_FLAGS)
def embed_command(
    context: typer.Context,
    modality: ModalityName,
    inputs: Inputs = None,
    live_options: LiveOptions = LiveOptions(),  # noqa: B008 - frozen
    cluster_options: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    manifest: Manifest = None,
    boxes: Boxes = None,
    pictures: Pictures = None,
    column: Column = None,
    include: Include = None,
    nul: Null = False,
    strict: Strict = False,
    retry_errors: Annotated[bool, input_option("--retry-errors", help="Take only the inputs that --errors FILE lists.")] = False,
    verify: Annotated[
        bool, input_option("--verify", help="Recognise a changed input by a hash of its content, not by size and time.")
    ] = False,
    shard: Annotated[
        str | None,
        input_option(metavar="I/N", help="Take the I-th of N shares of the inputs; auto for a task of a Slurm job array."),
    ] = None,
    output: Annotated[
        Path | None,
        output_option("-o", "--output", metavar="STORE", help=f"Write to NAME{IN_WORDS}, not to stdout."),
    ] = None,
    array: Annotated[ArrayType, output_option(help="Number type of the vectors in a store.")] = ArrayType.float32,
    pool: Annotated[Pool, output_option(help="One vector for each input, or (none) one for each of its windows.")] = Pool.mean,
    errors: Errors = None,
    server: Server = None,
    model: ModelName = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    merge: Merge = 0,
    batch_size: BatchSize = None,
    workers: Workers = None,
    item_timeout: ItemTimeout = ITEM_SECONDS,
    dry_run: Annotated[
        bool, output_option("--dry-run", help="Count the inputs, read the first, estimate the time, and write nothing.")
    ] = False,
    as_json: Annotated[bool, output_option("--json", hidden=True, help="With --dry-run: print the estimate as JSON.")] = False,
    **chosen: Any,
) -> None:
    """Embed inputs and write each vector to a store or to stdout."""
    if retry_errors and errors is None:
        refuse_useless("--retry-errors", "--retry-errors takes the inputs that --errors FILE lists; give --errors FILE")
        retry_errors = False
    if retry_errors and not inputs and manifest is None and boxes is None:
        raise UsageError("--retry-errors selects among the inputs; give the same inputs again, or - for stdin")
    if verify and output is None:
        refuse_useless("--verify", "--verify compares inputs with what a store holds; give -o STORE")
        verify = False
    if array is not ArrayType.float32 and output is None and live_options.memory is None:
        refuse_useless("--array", "--array is the number type of a store; give -o STORE")
    if as_json and not dry_run:
        refuse_useless("--json", "--json is for --dry-run; vectors on stdout are JSON lines anyway")
    remote = server_model(context, server)
    if dry_run and remote is not None:
        raise UsageError("--dry-run estimates the time of a local model; leave --server out")
    refused = {"shard": shard, "server": server, "merge": merge, "dry_run": dry_run, "live": live_options.live}
    cluster = cluster_options.cluster(output, refused)
    if live_options.live:
        refuse_with_live(
            {"manifest": manifest, "column": column, "include": include, "null": nul, "strict": strict, "shard": shard, "errors": errors}
            | {"output": output, "dry_run": dry_run, "boxes": boxes, "server": server, "batch_size": batch_size, "workers": workers}
        )
        space = Space(model, config, device, str(dtype), merge=merge, note=say, prepare=keep_freed_memory)
        _embed_live(space, modality, inputs, live_options, str(array), chosen)
        return
    refuse_without_live(live_options)
    others = Others(strict, tuple(include or ()))
    given = command_inputs(modality, inputs, manifest, column, nul, others, boxes, pictures)

    from imagebind_cli import corpus
    from imagebind_cli.store import json_line

    share = _share(shard, reads_stdin=manifest is None and "-" in (inputs or (["-"] if boxes is None else [])))
    if share is not None:
        output, errors = output and share.name(output), errors and share.name(errors)
        device = share.device(device)
    space = Space(remote or model, config, device, str(dtype), merge=merge, note=say, prepare=keep_freed_memory)
    job: dict[str, Any] = {
        "errors": errors,
        "retry_errors": retry_errors,
        "verify": verify,
        "share": share,
        "array": str(array),
        "pool": str(pool),
        "batch_size": batch_size,
        "workers": workers,
        "item_timeout": item_timeout,
        **given_options(modality, chosen, has_boxes=boxes is not None),
    }
    if dry_run:
        write_estimate(corpus.estimate(space, modality, given, output, **job), as_json)
        return
    if cluster is not None and output is not None:
        with Talk(others=others) as talk, summary_at_end(corpus.share_pattern(output, cluster), talk):
            del job["share"]
            corpus.embed_on_cluster(
                model, modality, given, output, cluster, config=config, device=device, dtype=str(dtype), listener=talk, **job
            )
        exit_if_bad(talk.has_failures)
        return
    place = corpus.uploaded(output) if output else nullcontext()
    with Talk(others=others) as talk, summary_at_end(output, talk) if output else nullcontext(), place as store:
        keep = store or (lambda rows, _: write(*(json_line(row, modality) for row in rows)))
        corpus.embed(space, modality, given, keep, listener=talk, may_fork=True, **job)
    exit_if_bad(talk.has_failures)


def _embed_live(space: Space, modality: str, inputs: list[str] | None, live: LiveOptions, array: str, chosen: dict[str, Any]) -> None:
    """Embed one stream as it arrives."""
    from imagebind_cli.live import embed_stream

    reading = given_options(modality, chosen)
    format = stream_format(live, reading)
    with open_stream(inputs) as (file, name), Talk() as talk:
        rows = embed_stream(
            space, modality, file, format,
            behind=live.behind or "wait", memory=live.memory, array=array, name=name, listener=talk, **reading,
        )  # fmt: skip
        write_live(rows, talk)
    exit_if_bad(talk.has_failures)


def _share(shard: str | None, reads_stdin: bool) -> Share | None:
    from imagebind_cli.corpus.share import array_task, chosen_share

    share = chosen_share(shard)
    if share is None and (task := array_task()):
        say(f"this is {task} of a job array and takes all inputs; for its share alone: --shard auto")
    if share is not None and share.local is not None and reads_stdin:
        raise UsageError("the processes of torchrun cannot share stdin; give files, folders or --manifest")
    return share


app = modality_group(embed_command, HELP)
