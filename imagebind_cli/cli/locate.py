"""`imagebind locate`: where in pictures, maps, videos and sounds a query is, and the published evaluations of that."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli import registry
from imagebind_cli.cli.command import ModalityCommand, ModalityGroup, modality_group
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import (
    BatchSize,
    Column,
    Config,
    Device,
    Dtype,
    Errors,
    Include,
    Inputs,
    ItemTimeout,
    Manifest,
    ModelName,
    Null,
    OptionalModality,
    Precision,
    Strict,
    Workers,
    given_options,
    output_option,
    with_reading_flags,
)
from imagebind_cli.cli.inputs import command_inputs
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.output import STDOUT, write, write_report_file
from imagebind_cli.cli.retrieve import QueryCommand, Vector, Weights, queries_in_order, query_option, with_query_flags
from imagebind_cli.cli.suites import (
    Draws,
    Limit,
    SuiteName,
    SuiteOption,
    SuiteReport,
    SuiteRoot,
    check_suite_report,
    open_suite_of,
    refuse_with_suite,
    refuse_without_suite,
)
from imagebind_cli.cli.talk import Talk, exit_if_bad, line_if_stopped, say
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UsageError, writing
from imagebind_cli.file_kinds import Others
from imagebind_cli.retrieval.requests import LIKE, VECTOR, combined_request, read_requests, read_weights
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.grounding.located import Located
    from imagebind_cli.grounding.suites.scenes import LocationSuite

Method = enum.StrEnum("Method", ["shares", "crops", "both"])

HELP = """Find where a query is in pictures, maps, videos or sounds: a JSON line for each input and query.

A heat map always has a peak. So each line has the cosine of the whole input, and both numbers for an empty query.

\b
    imagebind locate image photos/ --text "a dog" --fine --box
    imagebind locate image yard.jpg --audio bark.wav --heat heat/ --html found.html
    imagebind locate image --manifest pairs.jsonl       # {"id": …, "image": …, "audio": …}: each row has its query
    imagebind locate video street.mp4 --audio siren.wav --heat heat/
    imagebind locate audio night.wav --text "an owl"    # when, and in which band
    imagebind locate --suite vggss --root VGG-SS        # a published evaluation
"""

STOPPED = "stopped; the same command begins again"

map_option = partial(typer.Option, rich_help_panel="Heat maps")


class LocateCommand(ModalityCommand, QueryCommand):
    """A subcommand of a modality that keeps the order of its queries."""


class LocateGroup(ModalityGroup):
    """The modalities whose inputs have places."""

    command_class = LocateCommand
    left_out = frozenset({"vision", "text", "imu"})


@with_reading_flags
@with_query_flags
def locate_command(
    context: typer.Context,
    modality: OptionalModality = None,
    inputs: Inputs = None,
    manifest: Manifest = None,
    column: Column = None,
    include: Include = None,
    nul: Null = False,
    strict: Strict = False,
    like: Annotated[
        list[str] | None, query_option(metavar="ID", help="An item of --store; ID@SECONDS, ID#START-END: windows of it.")
    ] = None,
    vector: Vector = None,
    store: Annotated[list[str] | None, query_option(metavar="STORE", help="Store that holds the items of --like. Repeatable.")] = None,
    weights: Weights = None,
    queries: Annotated[
        Path | None, query_option(metavar="FILE", help="Several queries, each by itself: lines of sentences or JSON objects, CSV, TSV.")
    ] = None,
    method: Annotated[
        Method | None,
        map_option(show_default="shares", help="Shares of patches in the embedding, cosines of square crops, or both."),
    ] = None,
    fine: Annotated[
        bool, map_option("--fine", help="Use --method both: 35 times the work for a square picture, and far more exact.")
    ] = False,
    size: Annotated[
        int | None, map_option(metavar="PIXELS", min=1, help="Encode pictures at this size; positions are interpolated.")
    ] = None,
    box: Annotated[bool, map_option("--box", help="Also print a box around the peak.")] = False,
    k: Annotated[int, map_option("-k", metavar="N", min=1, help="Number of windows listed for a video, best first.")] = 5,
    heat: Annotated[
        Path | None, output_option(metavar="FOLDER", help="Draw each heat map over its input; for a video, write a clip.")
    ] = None,
    html: Annotated[Path | None, output_option(metavar="FILE", help="Also write a page with all heat maps.")] = None,
    suite: SuiteName = None,
    root: SuiteRoot = None,
    suite_option: SuiteOption = None,
    limit: Limit = None,
    report: SuiteReport = None,
    draws: Draws = 1000,
    errors: Errors = None,
    model: ModelName = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    batch_size: BatchSize = None,
    workers: Workers = None,
    item_timeout: ItemTimeout = ITEM_SECONDS,
    **chosen: Any,
) -> None:
    """Find queries in inputs."""
    asked = {**{name: chosen.pop(name) for name in registry.MODALITIES}, LIKE: like, VECTOR: vector}
    parts = queries_in_order(context.meta.get("order", ()), asked)  # without a modality, no subcommand has noted an order
    if parts and queries is not None:
        raise UsageError("give a query (--text, --audio, …), or --queries FILE of several")
    if bool(like) != bool(store):
        raise UsageError("--like ID is an item of a --store STORE; give both")
    if weights is not None and not parts:
        refuse_useless("--weights", "--weights are for queries given as options")
        weights = None
    if fine and method is not None:
        raise UsageError("--fine means --method both; give only one of them")
    chosen_method = "both" if fine else str(method or Method.shares)
    space = Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory, item_timeout)
    answers = Answers(box, k, heat, html)
    if suite is not None:
        useless = {
            "INPUT": inputs,
            "--manifest": manifest,
            "a query": parts,
            "--queries": queries,
            "--column": column,
            "--include": include,
        }
        refuse_with_suite(useless | {"--null": nul, "--strict": strict})
        check_suite_report(report)
        from imagebind_cli.grounding.suites import open_location_suite

        opened = open_suite_of(partial(open_location_suite, limit=limit), suite, root, suite_option, modality)
        _run_suite(opened, space, chosen_method, size, chosen, draws, report, answers, errors)
        return
    refuse_without_suite({"--root": root, "--suite-option": suite_option, "--limit": limit, "--report": report})
    if modality is None:
        raise UsageError("give the modality of the inputs (image, video, depth, thermal, audio), or a --suite")
    if not parts and queries is None and manifest is None and "-" not in (inputs or ["-"]):
        raise UsageError("give a query (--text, --audio, …), or --queries FILE, or a --manifest whose rows have their own")
    numbers = read_weights(weights, len(parts)) if weights is not None else None
    others = Others(strict, tuple(include or ()))
    given = command_inputs(modality, inputs, manifest, column, nul, others)
    reading = given_options(modality, chosen)
    answers.check()

    from imagebind_cli.grounding.locate import locate

    with Talk(errors, "located", others) as talk:
        requests = [combined_request(parts, numbers)] if parts else list(read_requests(queries, say)) if queries is not None else None
        found = locate(
            given,
            modality,
            model=space,
            method=chosen_method,
            size=size,
            requests=requests,
            stores=store or (),
            reading=reading,
            ground=answers.are_drawn,
            listener=talk,
        )
        with line_if_stopped(lambda: STOPPED), writing(html or "stdout"), answers.open(talk) as give:
            for located in found:
                give(located, located.as_json(box, k))
        answers.say_where(talk)
    exit_if_bad(talk.has_failures)


def _run_suite(
    suite: LocationSuite,
    space: Space,
    method: str,
    size: int | None,
    chosen: dict[str, Any],
    draws: int,
    report: Path | None,
    answers: Answers,
    errors: Path | None,
) -> None:
    """Print the answer to each scene of a suite, and report the scores."""
    from imagebind_cli.grounding.suites.run_scenes import run_location_suite

    answers.check()
    with Talk(errors, "located") as talk:
        with line_if_stopped(lambda: STOPPED), writing(answers.html or "stdout"), answers.open(talk, report != STDOUT) as give:
            scores = run_location_suite(
                suite,
                model=space,
                method=method,
                size=size,
                reading=given_options(suite.modality, chosen),
                draws=draws,
                ground=answers.are_drawn,
                output=lambda result: give(result.located, result.as_json(answers.box)),
                listener=talk,
            )
        answers.say_where(talk)
        write_report_file(scores, report)
    exit_if_bad(talk.has_failures)


@dataclass(frozen=True)
class Answers:
    """Write every answer as it comes: its line, its picture, its part of the page.

    windows: of a video, how many a line lists.
    """

    box: bool
    windows: int
    heat: Path | None
    html: Path | None

    @property
    def are_drawn(self) -> bool:
        """Check whether heat maps are drawn."""
        return self.heat is not None or self.html is not None

    def check(self) -> None:
        """Make the folder of drawings."""
        if self.heat is not None:
            from imagebind_cli.pages.heat import make_folder

            make_folder(self.heat)

    @contextmanager
    def open(self, talk: Talk, lines: bool = True) -> Iterator[Callable[[Located, dict[str, Any]], None]]:
        """Open the page; give what takes an answer and its line. lines: whether lines are printed."""
        with ExitStack() as stack:
            page = None
            if self.html is not None:
                from imagebind_cli.pages.heat import HeatPage

                page = stack.enter_context(HeatPage(self.html, self.box))

            def give(located: Located, row: dict[str, Any]) -> None:
                if self.heat is not None:
                    from imagebind_cli.pages.heat import write_heat

                    path = write_heat(located, self.heat, self.box, talk)
                    row |= {} if path is None else {"heat": str(path)}
                if lines:
                    write(json.dumps(row).encode() + b"\n")
                if page is not None:
                    page.add(located)

            yield give

    def say_where(self, talk: Talk) -> None:
        """Report where the page is."""
        if self.html is not None:
            say(f"{self.html}: {talk.summary()}")


app = modality_group(locate_command, HELP, LocateGroup)
