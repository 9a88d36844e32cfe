"""`imagebind score`: the mean cosine of what belongs together, as of generated sounds and their videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.command import HeadedCommand, single_command
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import (
    BatchSize,
    Config,
    Device,
    Dtype,
    Errors,
    Memory,
    ModelName,
    Precision,
    Workers,
    options_among,
    parse_bytes,
    with_reading_flags,
)
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.output import AsJSON, write, write_json_line, write_lines
from imagebind_cli.cli.talk import Talk, exit_if_bad, line_if_stopped, say
from imagebind_cli.errors import UsageError
from imagebind_cli.printable import counted, printable
from imagebind_cli.space import Space
from imagebind_cli.tabular import parse_columns

if TYPE_CHECKING:
    from imagebind_cli.insight.score import PairScore

HELP = """Score pairs by their cosine, the "ImageBind score" of generated sound and video: its mean, times 100, and a 95 % interval.

A and B are stores of one model, or files and folders, which are embedded first. Items without a partner are named.

\b
    imagebind score videos.h5 sounds.h5 --pairs stem
    imagebind score videos/ generated/ --protocol published --json     # videos/7.mp4 with generated/7.wav
    imagebind score gen/ gen/ --modalities video,audio --protocol adjacent      # a video with its own sound
    imagebind score prompts.h5 samples.h5 --pairs pairs.jsonl --best-of prompt --rows > rows.jsonl
"""
NAMED = 5  # items without a partner that are named on stderr

pair_option = partial(typer.Option, rich_help_panel="Pairs")
file_option = partial(typer.Option, rich_help_panel="Files")


@with_reading_flags
def score_command(
    a: Annotated[str, typer.Argument(metavar="A", help="A store, a pattern in quotes, a file or a folder.", rich_help_panel="Pairs")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other side of the pairs, in the same forms.", rich_help_panel="Pairs")],
    pairs: Annotated[
        str | None,
        pair_option(metavar="ids|stem|FILE", help="Pair by id, by file name, or by a file. Default: ids, or stem where no id is in both."),
    ] = None,
    column: Annotated[
        list[str] | None,
        pair_option("--column", metavar="NAME=COLUMN", help="Column of --pairs FILE that holds the ids of a modality. Repeatable."),
    ] = None,
    best_of: Annotated[
        str | None,
        pair_option(
            "--best-of",
            metavar="GROUP",
            help="Only the best pair of each group of B counts: folder, a column, or a file of ids and labels.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        file_option(
            metavar="NAME", help="How videos and sounds are read: published, adjacent, adjacent:RATE. Stores must be made the same way."
        ),
    ] = None,
    modalities: Annotated[
        str | None, file_option(metavar="A,B", help="Modalities of A and B, as in video,audio. Default: by the names of their files.")
    ] = None,
    errors: Errors = None,
    rows: Annotated[bool, typer.Option("--rows", help="Print a JSON line for each pair in place of the mean.")] = False,
    as_json: AsJSON = False,
    memory: Memory = "1G",
    model: ModelName = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    batch_size: BatchSize = None,
    workers: Workers = None,
    **chosen: Any,
) -> None:
    """Score pairs."""
    if rows and as_json:
        raise UsageError("--rows and --json exclude each other")
    if column and pairs in (None, "ids", "stem"):
        refuse_useless("--column", "--column names columns of a --pairs FILE; give that file")
        column = None
    kinds = None if modalities is None else [name.strip() for name in modalities.split(",")]
    limit, columns = parse_bytes(memory), parse_columns(column or ())

    from imagebind_cli.insight.score import score_pairs
    from imagebind_cli.insight.sides import file_modalities

    options = options_among(file_modalities((a, b), kinds), chosen, "file")
    space = Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory)
    with Talk(errors) as talk, line_if_stopped(lambda: "stopped; the same command begins again"):
        score = score_pairs(
            (a, b),
            pairs,
            best_of,
            columns,
            memory=limit,
            protocol=protocol,
            modalities=kinds,
            model=space,
            listener=talk,
            **options,
        )
    if rows:
        write(*(json.dumps(row).encode() + b"\n" for row in score.rows()))
    elif as_json:
        write_json_line(score.as_json())
    else:
        write_lines([_in_words(score)])
    _summarise(score, (a, b), with_score=rows)
    exit_if_bad(talk.has_failures)


def _in_words(score: PairScore) -> str:
    interval = "" if score.low is None else f"  95 % interval {score.low:.4f} to {score.high:.4f}"
    return f"{score.score:.4f}  x100 {100 * score.score:.2f}{interval}  {counted(len(score.ids), 'pair')}"


def _summarise(score: PairScore, sides: Sequence[str], with_score: bool) -> None:
    """Print how the items were paired, and which of them have no partner."""
    if with_score:
        say(_in_words(score))
    how = {"ids": "by id", "stem": "by file name", "only": "one item with the other"}.get(score.paired_by, f"by {score.paired_by}")
    chosen = "" if score.candidates is None else f"; the best of each group, of {score.candidates:,} pairs"
    say(f"paired {how}{chosen}" + (f"; protocol {score.protocol}" if score.protocol else ""))
    for side, ids in zip(sides, score.unpaired, strict=True):
        if ids:
            more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
            say(f"{side}: {counted(len(ids), 'item')} without a partner: {', '.join(map(printable, ids[:NAMED]))}{more}")
    if score.missing:
        say(f"{score.paired_by}: {counted(score.missing, 'pair')} of ids that are not there")


app = single_command("score", score_command, cls=HeadedCommand, help=HELP)
