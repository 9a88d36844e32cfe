"""`imagebind retrieve`: find what in stores is nearest to a query, or score how well two stores find each other's items."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli import registry
from imagebind_cli.cli.command import HeadedCommand, plain_help, single_command
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import (
    NMS,
    BatchSize,
    Config,
    Device,
    Dtype,
    Modality,
    ModelName,
    Precision,
    Server,
    Workers,
    options_among,
    server_model,
    with_reading_flags,
)
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, exit_if_bad, line_if_stopped, say
from imagebind_cli.errors import UsageError, writing
from imagebind_cli.printable import printable
from imagebind_cli.retrieval.requests import LIKE, VECTOR, combined_request, read_weights
from imagebind_cli.space import Space
from imagebind_cli.tabular import parse_columns

if TYPE_CHECKING:
    from imagebind_cli.retrieval.finder import Finder
    from imagebind_cli.retrieval.search import Hit, Query

Index = enum.StrEnum("Index", ["int8", "flat", "ivfpq", "hnsw"])

# Options that do not apply to --pairs, which only scores.
SEARCHES = ("k", "threshold", "nms", "modality", "per_modality", "stretches", "index", "html", "root", "errors")

HELP = """Find the items of stores nearest to a query, across modalities: a JSON line for each answer, best first.

A STORE is what `embed -o` wrote. Several queries are combined by --weights; with --pairs, two stores are evaluated on each other.

\b
    imagebind retrieve photos.h5 --text "a dog on a beach" -k 5
    imagebind retrieve photos.h5 sounds.h5 --image beach.jpg --text bird --weights 0.5 0.5 --per-modality
    imagebind retrieve photos.h5 --like photos/dog.jpg --text snow --weights 1 -0.5 --html near.html
    imagebind retrieve photos.h5 --queries captions.txt > found.jsonl
    imagebind retrieve sounds.h5 captions.h5 --pairs truth.jsonl             # recall, median rank, mAP, nDCG
"""

query_option = partial(typer.Option, rich_help_panel="Queries")
search_option = partial(typer.Option, rich_help_panel="Search")
page_option = partial(typer.Option, rich_help_panel="Page")
evaluation_option = partial(typer.Option, rich_help_panel="Evaluation")

# Flags of queries that several commands share.
Weights = Annotated[
    str | None, query_option(metavar="W W...", help="A number for each query, in their order; negative to subtract it. Default: equal.")
]
Vector = Annotated[list[str] | None, query_option(metavar="FILE", help="The single vector in a .npy or .jsonl file or in a store.")]
Queries = Annotated[
    Path | None,
    query_option(metavar="FILE|STORE", help="Many queries: a store, an array, or lines of sentences or JSON objects; - for stdin."),
]


class QueryCommand(HeadedCommand):
    """A command that keeps the order of its queries, which is that of their weights. --weights takes all numbers that follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = _with_joined_weights(plain_help(ctx, args))
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta["order"] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def _with_joined_weights(args: Sequence[str]) -> list[str]:
    joined: list[str] = []
    for argument in args:
        if len(joined) > 1 and joined[-2] == "--weights" and _is_number(argument) and _is_number(joined[-1].split(",")[0]):
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def with_query_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a repeatable option for each modality; their values come in its `**chosen`."""
    signature = inspect.signature(command, eval_str=True)
    context, stores, *others = signature.parameters.values()
    queries = []
    for name in registry.MODALITIES:
        metavar, help = ("SENTENCE", "A sentence.") if registry.face(name).text else ("FILE", f"A file, read as {name}.")
        flag = Annotated[list[str] | None, query_option(metavar=metavar, help=help)]
        queries.append(stores.replace(name=name, default=None, annotation=flag))
    command.__signature__ = signature.replace(parameters=[context, stores, *queries, *others])  # type: ignore[attr-defined]
    return command


@with_reading_flags
@with_query_flags
def retrieve_command(
    context: typer.Context,
    stores: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE...", help="Stores of one model; a pattern in quotes is one store.", show_default=False, rich_help_panel="Queries"
        ),
    ],
    like: Annotated[list[str] | None, query_option(metavar="ID", help="An item of the stores, which is not among its own answers.")] = None,
    vector: Vector = None,
    weights: Weights = None,
    queries: Queries = None,
    errors: Annotated[Path | None, query_option(metavar="FILE", help="Write a JSON line for each failed query to this file.")] = None,
    k: Annotated[int, search_option("-k", metavar="N", min=1, help="Number of answers to each query.")] = 10,
    threshold: Annotated[float | None, search_option(metavar="COSINE", help="Leave out answers with a lower cosine.")] = None,
    nms: Annotated[float | None, search_option("--nms", metavar="IOU", min=0, max=1, help=NMS)] = None,
    modality: Annotated[
        list[Modality] | None, search_option(metavar="MODALITY", help="Search only stores of this modality. Repeatable.")
    ] = None,
    per_modality: Annotated[bool, search_option("--per-modality", help="Give -k answers of each modality.")] = False,
    stretches: Annotated[bool, search_option("--stretches", help="Join answers that are neighbouring windows of a recording.")] = False,
    index: Annotated[
        Index | None,
        search_option(help="Search with a file beside each store: int8 codes (exact), or FAISS (flat: exact)."),
    ] = None,
    plain: Annotated[bool, search_option("--plain", help="Print a table instead of JSON.")] = False,
    html: Annotated[Path | None, page_option(metavar="FILE", help="Also write a page with pictures, players and scores.")] = None,
    root: Annotated[
        Path, page_option(metavar="FOLDER", show_default=False, help="Folder at which relative paths among the ids start.")
    ] = Path(),
    pairs: Annotated[
        str | None,
        evaluation_option(metavar="FILE|ids", help="Score two stores on each other: a JSON line for each pair of ids, or equal ids."),
    ] = None,
    column: Annotated[
        list[str] | None,
        evaluation_option("--column", metavar="NAME=COLUMN", help="Column of --pairs FILE that holds the ids of a modality. Repeatable."),
    ] = None,
    draws: Annotated[int, evaluation_option(metavar="N", min=0, help="Bootstrap draws behind each interval; 0 for none.")] = 1000,
    server: Server = None,
    model: ModelName = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    batch_size: BatchSize = None,
    workers: Workers = None,
    **chosen: Any,
) -> None:
    """Answer queries from stores, or evaluate two stores on each other."""
    given = {**{name: chosen.pop(name) for name in registry.MODALITIES}, LIKE: like, VECTOR: vector}
    parts = queries_in_order(context.meta["order"], given)
    if sum((bool(parts), queries is not None, pairs is not None)) != 1:
        raise UsageError(f"give a query (--text, --image, …, --like, --vector), or --queries, or --pairs{' alone' if parts else ''}")
    if weights is not None and not parts:
        refuse_useless("--weights", "--weights are for queries given as options; a line of --queries has its own")
        weights = None
    for name in SEARCHES if pairs is not None else ():
        if context.get_parameter_source(name).name != "DEFAULT":  # type: ignore[union-attr]
            flag = "-k" if name == "k" else f"--{name.replace('_', '-')}"
            reason = f"{flag} is for a search, and --pairs prints only scores; to see answers: retrieve A --queries B {flag} …"
            refuse_useless(flag, reason)
    if column and (pairs is None or pairs == "ids"):
        refuse_useless("--column", "--column names columns of a --pairs FILE; give that file")
        column = None
    options = options_among(None if queries else {kind for kind, _ in parts}, chosen, "query")
    numbers = read_weights(weights, len(parts)) if weights is not None else None

    remote = server_model(context, server)
    space = Space(remote or model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory)
    if pairs is not None:
        from imagebind_cli.retrieval.evaluate import evaluate_pairs

        _print_scores(evaluate_pairs(stores, pairs, draws, say, space, parse_columns(column or ())), plain)
        return

    from imagebind_cli.retrieval.finder import Finder
    from imagebind_cli.retrieval.search import join_windows

    finder = Finder(stores, space=space, modalities=modality or [], index=index and str(index), options=options)
    with Talk(errors, done="answered") as talk:
        search: dict[str, Any] = {
            "k": k,
            "per_modality": per_modality,
            "threshold": float("-inf") if threshold is None else threshold,
            "nms": nms,
            "listener": talk,
        }
        if queries is None:
            answers = finder.answer([combined_request(parts, numbers)], **search)
        else:
            answers = finder.answer_file(queries, exhibits=html is not None, **search)
        if stretches:
            answers = ((query, join_windows(hits)) for query, hits in answers)
        begun = f"stopped; the same command begins again{', also with an index that was not whole' if index else ''}"
        with line_if_stopped(lambda: begun), writing(html or "stdout"):
            _print_answers(answers, finder, plain, html, root, talk)
    exit_if_bad(talk.has_failures)


def queries_in_order(order: Iterable[str], given: dict[str, list[str] | None]) -> tuple[tuple[str, str], ...]:
    """Return the queries in the order of the command line."""
    left = {kind: iter(values or []) for kind, values in given.items()}
    typed = [(kind, value) for kind in order if kind in left and (value := next(left[kind], None)) is not None]
    return (*typed, *((kind, value) for kind, values in left.items() for value in values))  # those of variables and files come last


def _print_answers(
    answers: Iterator[tuple[Query, list[Hit]]], finder: Finder, plain: bool, html: Path | None, root: Path, talk: Talk
) -> None:
    with ExitStack() as stack:
        page = None
        if html is not None:
            from imagebind_cli.pages.search import SearchPage

            page = stack.enter_context(SearchPage.of(html, finder, root, talk))
        for query, hits in answers:
            write(*(_table(query, hits) if plain else [json.dumps(hit.as_json(query.id)).encode() + b"\n" for hit in hits]))
            if page is not None:
                page.add(query, hits)
    if html is not None:
        say(f"{html}: {talk.summary()}")


def _table(query: Query, hits: list[Hit]) -> Iterator[bytes]:
    yield f"{printable(query.id)}\n".encode("utf-8", "backslashreplace")
    for hit in hits:
        when = "" if hit.span is None else f"  {hit.span[0]:.2f} to {hit.span[1]:.2f} s"
        when += "" if hit.clock is None else f"  {hit.clock}"
        when += "" if hit.box is None else "  box {:g},{:g},{:g},{:g}".format(*hit.box)
        line = f"{hit.rank:>5}  {hit.score:>7.4f}  {hit.store.modality:<7}  {printable(hit.id)}{when}\n"
        yield line.encode("utf-8", "backslashreplace")


def _print_scores(scores: dict[str, Any], plain: bool) -> None:
    from imagebind_cli.metrics import RETRIEVAL_FIGURES

    if not plain:
        write(json.dumps(scores).encode() + b"\n")
        return
    for direction in scores["directions"]:
        query, target = direction["query"], direction["target"]
        write(f"{query['rows']:,} {query['modality']} queries, {target['rows']:,} {target['modality']} targets\n".encode())
        for name in RETRIEVAL_FIGURES:
            score = direction[name]
            interval = f"  ({score['low']:.4g} to {score['high']:.4g})" if "low" in score else ""
            write(f"  {name:<12}{score['value']:>8.4g}{interval}\n".encode())


app = single_command("retrieve", retrieve_command, cls=QueryCommand, help=HELP)
