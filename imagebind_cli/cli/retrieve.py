"""`imagebind retrieve`: what in some stores is nearest to a query, and how well two stores find each other's items."""

from __future__ import annotations

import enum
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from imagebind_cli import options as reading
from imagebind_cli import registry
from imagebind_cli.cli.configuration import is_set_elsewhere
from imagebind_cli.cli.embed import Modality
from imagebind_cli.cli.flags import Dtype, Errors, ModelName, Workers, reading_options, with_reading_flags
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, printable, say
from imagebind_cli.errors import UsageError, UserError, writing
from imagebind_cli.retrieval.queries import QueryEncoder, is_vectors
from imagebind_cli.retrieval.requests import LIKE, VECTOR, Request, batches, named, read_requests, read_weights
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.retrieval.search import Hit, Query
    from imagebind_cli.store import StoreReader

Index = enum.StrEnum("Index", ["flat", "ivfpq", "hnsw"])

SEARCHES = ("k", "threshold", "modality", "per_modality", "index", "html", "root", "errors")
"""Options that --pairs, which only scores, has no use for."""

HELP = """Find what in stores is nearest to a query, across modalities: a JSON line for each answer, best first.

A STORE is what `embed -o` wrote; several are searched as one. Queries given together are combined: each made a unit vector, their weighted
sum, made one again. Sentences and files go through the stores' model; --like, --vector and --queries STORE need none.
With --pairs, two stores look for each other's items, and the scores of both directions come as one JSON object.

\b
    imagebind retrieve photos.h5 --text "a dog on a beach" -k 5
    imagebind retrieve photos.h5 sounds.h5 --image beach.jpg --text bird --weights 0.5 0.5 --per-modality
    imagebind retrieve photos.h5 --like photos/dog.jpg --text snow --weights 1 -0.5 --html near.html
    imagebind retrieve photos.h5 --queries captions.txt > found.jsonl        # a line for each query; - for stdin
    imagebind retrieve sounds.h5 captions.h5 --pairs truth.jsonl             # R@1, R@5, R@10, median rank, mAP, nDCG@10
"""


class QueryCommand(TyperCommand):
    """Remembers in which order queries were given, which is that of the weights, and lets --weights take all numbers that follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = _with_joined_weights(args)
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
    """Give a command a repeatable option for each modality; they come in its `**chosen`."""
    signature = inspect.signature(command, eval_str=True)
    context, stores, *others = signature.parameters.values()
    made = []
    for name in registry.MODALITIES:
        what = "A sentence" if name == "text" else f"A file, read as {name}"
        kind = Annotated[
            list[str] | None, typer.Option(metavar="SENTENCE" if name == "text" else "FILE", help=f"Query: {what[0].lower()}{what[1:]}.")
        ]
        made.append(stores.replace(name=name, default=None, annotation=kind))
    command.__signature__ = signature.replace(parameters=[context, stores, *made, *others])  # type: ignore[attr-defined]
    return command


@with_reading_flags
@with_query_flags
def retrieve(
    context: typer.Context,
    stores: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Stores of one model; a pattern in quotes is one store.", show_default=False)
    ],
    like: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Query: an item of the stores, by its id; it is no answer itself.")
    ] = None,
    vector: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Query: the one vector in a .npy, .jsonl or store.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="W W...", help="A number for each query, in their order; below 0 to take it away. Equal if not given."),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE|STORE", help="Many queries: a store, an array, or lines of sentences or JSON objects; - for stdin."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Answers to each query.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="No answers with a lower cosine.")] = None,
    modality: Annotated[list[Modality] | None, typer.Option(help="Search stores of this modality only; may come again.")] = None,
    per_modality: Annotated[
        bool, typer.Option("--per-modality", help="So many answers of each modality, and not of all together.")
    ] = False,
    index: Annotated[
        Index | None, typer.Option(help="Search by a FAISS index beside each store, made when missing: approximate, except flat.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="A table for people.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with pictures, sounds and scores, too.")] = None,
    root: Annotated[Path, typer.Option(metavar="FOLDER", help="Where relative paths among ids start, for --html.")] = Path(),
    pairs: Annotated[
        str | None, typer.Option(metavar="FILE|ids", help="Evaluate: what belongs together in two stores, as JSON lines, or equal ids.")
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Bootstrap draws behind each interval of --pairs; 0 for none.")] = 1000,
    errors: Errors = None,
    model: ModelName = None,
    config: Annotated[str | None, typer.Option(help="JSON file that says what a bare weight file is.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="auto: float32 on CPU, the weights' own elsewhere. int8: for CPUs, faster, a little off.")
    ] = Dtype.auto,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips to the encoder at once; halves itself when memory runs out.")] = None,
    workers: Workers = None,
    **chosen: Any,
) -> None:
    given = {**{name: chosen.pop(name) for name in registry.MODALITIES}, LIKE: like, VECTOR: vector}
    parts = _in_order(context.meta["order"], given)
    if sum((bool(parts), queries is not None, pairs is not None)) != 1:
        raise UsageError(f"give a query (--text, --image, …, --like, --vector), or --queries, or --pairs{' alone' if parts else ''}")
    if weights is not None and not parts:
        raise UsageError("--weights are of queries given as options; a line of --queries has its own")
    for name in SEARCHES if pairs is not None else ():
        if context.get_parameter_source(name).name != "DEFAULT":  # type: ignore[union-attr]
            flag = "-k" if name == "k" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is of a search, and --pairs gives scores alone; to see answers: retrieve A --queries B {flag} …")
    options = _reading_options(None if queries else {kind for kind, _ in parts}, chosen)
    numbers = read_weights(weights, len(parts)) if weights is not None else None

    from imagebind_cli.store import open_store

    space = Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory)
    opened = [space.admit(open_store(path)) for path in stores]
    if pairs is not None:
        _evaluate(opened, pairs, draws, plain)
        return
    for number, path in enumerate(stores):
        if os.path.realpath(path) in map(os.path.realpath, stores[:number]):
            raise UsageError(f"{path} is named twice: every answer in it would come twice")
    opened = _of_modality(opened, modality or [])
    with Talk(errors, done="answered") as talk:
        asking = QueryEncoder(space, opened, options, talk, shown=html is not None)
        if queries is None:
            asked: Iterable[list[Query]] = [asking.queries([Request(named(parts, numbers), parts, numbers)])]
        elif str(queries) != "-" and is_vectors(queries):
            asked = asking.stored_queries(queries)
        else:
            asked = map(asking.queries, batches(read_requests(queries, say), waiting=str(queries) == "-"))
        answered = _answers(opened, asked, k, per_modality, threshold, index and str(index))
        with writing(html or "stdout"):
            _tell(answered, opened, plain, html, root, talk, asking)
    if talk.failed:
        raise typer.Exit(1)


retrieve.__doc__ = HELP


def _in_order(order: Iterable[str], given: dict[str, list[str] | None]) -> tuple[tuple[str, str], ...]:
    """The queries as they stand on the command line."""
    left = {kind: iter(values or []) for kind, values in given.items()}
    typed = [(kind, value) for kind in order if kind in left and (value := next(left[kind], None)) is not None]
    return (*typed, *((kind, value) for kind, values in left.items() for value in values))  # those of variables and files come last


def _reading_options(kinds: set[str] | None, chosen: dict[str, Any]) -> dict[str, Any]:
    """The reading flags that were given, each of a modality that is asked for; kinds: None where any may come."""
    known = [name for name in registry.MODALITIES if kinds is None or name in kinds]
    given = {name: value for name, value in chosen.items() if value is not None}
    options: dict[str, Any] = {}
    for name in known:
        own = {key: given[key] for key in reading.names(registry.encoder_name(name)) if key in given}
        options |= reading_options(name, own)
    for key in given:
        if key not in options and not is_set_elsewhere(key):
            raise UsageError(f"no query here has an option {key.replace('_', '-')!r}")
    return options


def _of_modality(stores: list[StoreReader], modalities: Sequence[str]) -> list[StoreReader]:
    """The stores of some modalities; `vision` stands for pictures and videos. All if none is named."""
    if not modalities:
        return stores
    kept = [store for store in stores if store.modality in modalities or registry.encoder_name(store.modality) in modalities]
    if not kept:
        there = ", ".join(dict.fromkeys(store.modality for store in stores))
        raise UserError(f"no store of {', '.join(modalities)} among these; they hold {there}")
    return kept


def _answers(
    stores: list[StoreReader],
    asked: Iterable[list[Query]],
    k: int,
    per_modality: bool,
    threshold: float | None,
    index: str | None,
) -> Iterator[tuple[Query, list[Hit]]]:
    from imagebind_cli.retrieval.search import search

    nearest = None
    if index is not None:
        from imagebind_cli.retrieval.index import Indexes

        nearest = Indexes(index, say)
    for store in stores:
        if not len(store):
            say(f"{store.path}: holds nothing yet")
    least = float("-inf") if threshold is None else threshold
    for queries in asked:
        if queries:
            yield from zip(queries, search(stores, queries, k, per_modality=per_modality, threshold=least, nearest=nearest), strict=True)


def _tell(
    answered: Iterator[tuple[Query, list[Hit]]],
    stores: list[StoreReader],
    plain: bool,
    html: Path | None,
    root: Path,
    talk: Talk,
    asking: QueryEncoder,
) -> None:
    rows = sum(map(len, stores))
    with ExitStack() as stack:
        page = None
        if html is not None:
            from imagebind_cli.pages.search import Page

            made = stores[0].made
            about = f"Nearest in {', '.join(str(store.path) for store in stores)}, by cosine. Model {made['model']}"
            about += ", untrained." if made.get("untrained") else "."
            page = stack.enter_context(Page(html, "imagebind retrieve", about, root, asking.options))
        for query, hits in answered:
            if query.own and len(query.own) == rows:
                talk.failure(query.id, f"every row of the stores is of this item, which is no answer to itself{_one_window(query, stores)}")
                continue
            write(*(_table(query, hits) if plain else [json.dumps(hit.as_json(query.id)).encode() + b"\n" for hit in hits]))
            if page is not None:
                page.add(query, hits)
            talk.succeeded(query.id)
    if html is not None:
        say(f"{html}: {talk.summary()}")


def _one_window(query: Query, stores: list[StoreReader]) -> str:
    """Return how to ask for one window of an item that has several, so that its others are answers."""
    from imagebind_cli.retrieval.search import row_span

    number, row = min(query.own)
    span = row_span(stores[number], row)
    if span is None or len(query.own) == 1:
        return ""
    return f"; one of its windows: --like '{stores[number].id(row)}#{span[0]:.10g}-{span[1]:.10g}'"


def _table(query: Query, hits: list[Hit]) -> Iterator[bytes]:
    yield f"{printable(query.id)}\n".encode("utf-8", "backslashreplace")
    for hit in hits:
        when = "" if hit.span is None else f"  {hit.span[0]:.2f} to {hit.span[1]:.2f} s"
        line = f"{hit.rank:>5}  {hit.score:>7.4f}  {hit.store.modality:<7}  {printable(hit.id)}{when}\n"
        yield line.encode("utf-8", "backslashreplace")


def _evaluate(stores: list[StoreReader], pairs: str, draws: int, plain: bool) -> None:
    from imagebind_cli.retrieval.evaluate import SCORES, equal_ids, evaluate, read_pairs

    if len(stores) != 2:
        raise UsageError(f"--pairs is of two stores; {len(stores)} are given")
    first, second = stores
    truth = equal_ids(first, second) if pairs == "ids" else read_pairs(Path(pairs), first, second)
    scores = evaluate(first, second, truth, draws)
    unused = len(truth.pairs) - scores["pairs"]["used"]
    if unused:
        say(f"{pairs}: {unused:,} of {len(truth.pairs):,} pairs name an id that is in neither store")
    if not plain:
        write(json.dumps(scores).encode() + b"\n")
        return
    for direction in scores["directions"]:
        query, target = direction["query"], direction["target"]
        write(f"{query['rows']:,} {query['modality']} queries, {target['rows']:,} {target['modality']} targets\n".encode())
        for name in SCORES:
            told = direction[name]
            interval = f"  ({told['low']:.4g} to {told['high']:.4g})" if "low" in told else ""
            write(f"  {name:<12}{told['value']:>8.4g}{interval}\n".encode())
