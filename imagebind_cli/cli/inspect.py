"""`imagebind store inspect`: copies, outliers, labels that are likely wrong, and pairs that disagree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import Memory, parse_bytes
from imagebind_cli.cli.output import write, write_lines
from imagebind_cli.cli.talk import say
from imagebind_cli.errors import UsageError, writing
from imagebind_cli.files import replacing
from imagebind_cli.printable import printable
from imagebind_cli.tabular import parse_columns

if TYPE_CHECKING:
    from imagebind_cli.insight.findings import StoreInspection

finding_option = partial(typer.Option, rich_help_panel="Findings")
result_option = partial(typer.Option, rich_help_panel="Results")
SHOWN = 4  # ids of a group of copies in a table


def inspect_command(
    paths: Annotated[list[Path], typer.Argument(metavar="STORE [STORE]", help="A store or a pattern in quotes; two with --pairs.")],
    truth: Annotated[
        str | None,
        finding_option(
            metavar="folder|COLUMN|FILE", help="Labels, to find those that are likely wrong; as in `zeroshot --truth`.", show_default=False
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        finding_option(
            metavar="ids|stem|FILE", help="Find pairs of two stores that disagree: by id, by file name, or a file.", show_default=False
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        finding_option("--column", metavar="NAME=COLUMN", help="Column of --pairs FILE that holds the ids of a modality. Repeatable."),
    ] = None,
    k: Annotated[
        int | None, finding_option("-k", metavar="N", min=1, help="Number of neighbours that each item is compared with. Default: 15.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        finding_option(metavar="KIND=SCORE", help="Replace the proposed threshold of copies, outliers, labels or pairs. Repeatable."),
    ] = None,
    exact: Annotated[bool, finding_option("--exact", help="Compare all pairs of items; otherwise only up to 20,000 items.")] = False,
    memory: Memory = "1G",
    scores: Annotated[
        Path | None, result_option(metavar="FILE", help="Write the scores of every item to this file, a JSON line each.")
    ] = None,
    plain: Annotated[bool, result_option("--plain", help="Print a table instead of JSON.")] = False,
) -> None:
    """Find copies, outliers, labels that are likely wrong, and pairs that disagree: a JSON line for each finding.

    Thresholds are proposed from the store's own distribution, and printed.

    \b
        imagebind store inspect photos.h5 --truth folder
        imagebind store inspect photos.h5 --plain --scores scores.jsonl
        imagebind store inspect photos.h5 captions.h5 --pairs ids
    """
    if pairs is None and len(paths) != 1:
        raise UsageError(f"{len(paths)} stores: give one, a pattern in quotes, or two with --pairs")
    for flag, value in (("--truth", truth), ("-k", k), ("--exact", exact or None)) if pairs is not None else ():
        if value is not None:
            refuse_useless(flag, f"{flag} is for one store, and --pairs compares two")
    if column and pairs in (None, "ids", "stem"):
        refuse_useless("--column", "--column names columns of a --pairs FILE; give that file")
        column = None
    limit, thresholds = parse_bytes(memory), _thresholds(threshold or ())

    from imagebind_cli.insight.findings import NEIGHBOURS, inspect_pairs, inspect_store

    if pairs is not None:
        inspection = inspect_pairs(paths, pairs, thresholds, parse_columns(column or ()), limit)
    else:
        inspection = inspect_store(paths[0], truth, k or NEIGHBOURS, thresholds, exact or None, limit)
    if scores is not None:
        with (
            replacing(scores) as place,
            writing(scores),
            open(place, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
        ):
            file.writelines(json.dumps(row) + "\n" for row in inspection.rows())
    if plain:
        write_lines(_table(inspection))
    else:
        write(*(json.dumps(finding.as_json()).encode() + b"\n" for finding in inspection.findings))
    for line in _summary(inspection, "pairs" if pairs is not None else "items"):
        say(line)


def _thresholds(given: Iterable[str]) -> dict[str, float]:
    thresholds = {}
    for text in given:
        kind, sign, score = text.partition("=")
        try:
            thresholds[kind] = float(score)
        except ValueError:
            raise UsageError(f"--threshold {text}: {'the score is not a number' if sign else 'give KIND=SCORE'}, as copies=0.95") from None
    return thresholds


def _table(inspection: StoreInspection) -> Iterable[str]:
    for finding in inspection.findings:
        ids = ", ".join(map(printable, finding.ids[:SHOWN])) + (
            f" and {len(finding.ids) - SHOWN:,} more" if len(finding.ids) > SHOWN else ""
        )
        label = f"  {finding.label}, likely {finding.suggested}" if finding.suggested is not None else ""
        yield f"{finding.kind:<9} {finding.score:>7.4f}  {ids}{label}"


COSINES = {"outliers": "outliers", "pairs": "pairs disagree"}  # kinds of findings below a cosine, which is at least -1


def _summary(inspection: StoreInspection, noun: str) -> Iterable[str]:
    found = Counter(finding.kind for finding in inspection.findings)
    copied = sum(len(finding.ids) for finding in inspection.findings if finding.kind == "copies")
    words = {
        "copies": f"{copied:,} items are copies of each other, in {found['copies']:,} groups: cosine at least {{:.5g}}",
        "outliers": f"{found['outliers']:,} outliers: median cosine with their neighbours below {{:.4g}}",
        "labels": f"{found['labels']:,} labels are likely wrong: share of neighbours with another label at least {{:.3g}}",
        "pairs": f"{found['pairs']:,} pairs disagree: centred cosine at most {{:.4g}}",
    }
    yield f"{inspection.items:,} {noun} inspected{'' if inspection.exact else '; neighbours are of the 16 nearest cells, --exact compares all'}"
    for kind, threshold in inspection.thresholds.items():
        if kind in COSINES and threshold < -1:
            yield f"0 {COSINES[kind]}: none stand out; the threshold is lower than any cosine"
        else:
            yield words[kind].format(threshold)
    yield from inspection.notes
