"""`imagebind moments`: when in recordings a query is, from windows in stores or from files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli import registry
from imagebind_cli.cli.command import single_command
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import (
    BatchSize,
    Config,
    Device,
    Dtype,
    Modality,
    ModelName,
    Precision,
    Workers,
    options_among,
    with_reading_flags,
)
from imagebind_cli.cli.live import LiveOptions, hidden_live_flags, refuse_with_live, refuse_without_live
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.moments_live import print_live_moments
from imagebind_cli.cli.option_groups import with_option_groups
from imagebind_cli.cli.output import STDOUT, write, write_report_file
from imagebind_cli.cli.retrieve import Queries, QueryCommand, Vector, Weights, queries_in_order, query_option, with_query_flags
from imagebind_cli.cli.suites import (
    Draws,
    Limit,
    SuiteName,
    SuiteOption,
    check_suite_report,
    open_suite_of,
    refuse_without_suite,
)
from imagebind_cli.cli.talk import Talk, exit_if_bad, line_if_stopped, say
from imagebind_cli.errors import UsageError, writing
from imagebind_cli.printable import printable
from imagebind_cli.retrieval.requests import LIKE, VECTOR, combined_request, read_weights
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.grounding.curves import MomentOptions
    from imagebind_cli.grounding.lighthouse import MomentPrediction, MomentTruth
    from imagebind_cli.grounding.moments import MomentAnswer, MomentFinder
    from imagebind_cli.grounding.suites.annotated import MomentSuite

HELP = """Find when a query occurs in recordings: a JSON line for each moment, best first.

A RECORDING is a store of windows, as `embed --pool none --hop 1 -o` wrote it, or a sound, a video or a table of motion.

\b
    imagebind moments night.h5 --text "a dog barks" -k 5
    imagebind moments film.mp4 --text "a car chase" --html found.html --cut clips/
    imagebind moments walk.csv --text walking --against sitting,lying --min-length 5
    imagebind moments night.h5 --like night.wav@754.5      # more of what is there
    imagebind moments --suite qvhighlights --root QVHighlights --keep windows.h5

With --live, RECORDING is one endless stream, - for stdin, and each moment is printed when it is over (docs/live.md).
"""

moment_option = partial(typer.Option, rich_help_panel="Moments")
result_option = partial(typer.Option, rich_help_panel="Results")


@with_reading_flags
@with_query_flags
@with_option_groups(hidden_live_flags())
def moments_command(
    context: typer.Context,
    live_options: LiveOptions,
    recordings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECORDING...",
            help="Stores of windows, all of one model; or files and folders.",
            show_default=False,
            rich_help_panel="Queries",
        ),
    ] = None,
    like: Annotated[
        list[str] | None, query_option(metavar="ID", help="A recording of the stores, or a part of it: ID@SECONDS, ID#START-END.")
    ] = None,
    vector: Vector = None,
    weights: Weights = None,
    queries: Queries = None,
    truth: Annotated[
        Path | None,
        query_option(
            metavar="FILE", help="Lighthouse's JSON lines or Charades-STA's text: predict and score its queries, each in its video."
        ),
    ] = None,
    suite: SuiteName = None,
    suite_option: SuiteOption = None,
    limit: Limit = None,
    draws: Draws = 1000,
    report: Annotated[Path | None, query_option(metavar="FILE", help="Write the scores of --truth or --suite as JSON.")] = None,
    errors: Annotated[
        Path | None, query_option(metavar="FILE", help="Write a JSON line for each failed query or file to this file.")
    ] = None,
    against: Annotated[
        list[str] | None,
        moment_option(
            "--against", metavar="NAME,NAME", help="Subtract the largest cosine with these other names from the score. Repeatable."
        ),
    ] = None,
    threshold: Annotated[
        float | None, moment_option(metavar="SCORE", help="Lowest score of a second; by default (maximum + median) / 2 of each recording.")
    ] = None,
    min_length: Annotated[float, moment_option("--min-length", metavar="SECONDS", min=0, help="Leave out shorter moments.")] = 1.0,
    join: Annotated[float, moment_option(metavar="SECONDS", min=0, help="Join moments that are at most this far apart.")] = 0.0,
    k: Annotated[
        int | None,
        moment_option("-k", metavar="N", min=1, show_default="10", help="Number of moments for each query, over all recordings together."),
    ] = None,
    modality: Annotated[
        Modality | None, moment_option(metavar="MODALITY", help="Read files as audio, video or imu. Default: by their names.")
    ] = None,
    keep: Annotated[Path | None, moment_option(metavar="STORE", help="Store to keep the vectors of files in, for the next query.")] = None,
    plain: Annotated[bool, result_option("--plain", help="Print a table instead of JSON.")] = False,
    html: Annotated[Path | None, result_option(metavar="FILE", help="Also write a page with a timeline of each recording.")] = None,
    plot: Annotated[Path | None, result_option(metavar="FILE", help="Also draw the scores over time; .png, .svg, .pdf.")] = None,
    cut: Annotated[Path | None, result_option(metavar="FOLDER", help="Also write each moment of a sound or a video as a clip.")] = None,
    root: Annotated[
        Path | None,
        result_option(metavar="FOLDER", help="Folder at which relative paths among the ids start; with --suite, that of its dataset."),
    ] = None,
    model: ModelName = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    batch_size: BatchSize = None,
    workers: Workers = None,
    **chosen: Any,
) -> None:
    """Find the moments of queries in recordings."""
    given = {**{name: chosen.pop(name) for name in registry.MODALITIES}, LIKE: like, VECTOR: vector}
    parts = queries_in_order(context.meta["order"], given)
    names = [name.strip() for group in against or () for name in group.split(",") if name.strip()]
    if live_options.live:
        refuse_with_live(
            {"like": like, "queries": queries, "truth": truth, "suite": suite, "report": report, "errors": errors, "k": k, "keep": keep}
            | {"plain": plain, "html": html, "plot": plot, "cut": cut, "root": root, "batch_size": batch_size, "workers": workers}
        )
        print_live_moments(
            Space(model, config, device, str(dtype), note=say, prepare=keep_freed_memory),
            modality and str(modality),
            recordings,
            live_options,
            parts,
            weights,
            names,
            (threshold, min_length, join),
            chosen,
        )
        return
    refuse_without_live(live_options)
    shown = {"--html": html, "--plot": plot, "--cut": cut, "--plain": plain or None}
    _check_request(bool(parts), queries, truth, suite, report, shown)
    if suite is None and not recordings:
        raise UsageError("give a RECORDING: a store of windows, a sound, a video, a table of motion")
    if weights is not None and not parts:
        refuse_useless("--weights", "--weights are for queries given as options; a line of --queries has its own")
        weights = None
    numbers = read_weights(weights, len(parts)) if weights is not None else None

    from imagebind_cli.grounding.curves import MomentOptions
    from imagebind_cli.grounding.moments import HOP, MomentFinder
    from imagebind_cli.grounding.recordings import split_inputs

    choice = MomentOptions(threshold, min_length, join, 10 if k is None else k)
    space = Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory)
    if suite is not None:
        check_suite_report(report)
        from imagebind_cli.grounding.suites import open_moment_suite

        opened = open_suite_of(partial(open_moment_suite, limit=limit), suite, root, suite_option, modality and str(modality))
        settings = {
            "keep": keep,
            "reading": options_among({opened.modality}, chosen, "query"),
            "against": names,
            "options": choice,
            "draws": draws,
        }
        _run_suite(opened, recordings or [], space, settings, report, errors)
        return
    refuse_without_suite({"--suite-option": suite_option, "--limit": limit})
    recordings = recordings or []
    truths = None
    if truth is not None:
        from imagebind_cli.grounding.lighthouse import read_moment_truth

        truths = read_moment_truth(truth)
    kinds = {kind for kind, _ in parts} | {*split_inputs(recordings, modality and str(modality))[1]}
    options = options_among(None if queries else kinds, chosen, "query")
    results = Results(plain, html, _plot_of_one_query(plot, queries), cut, root or Path(), choice)
    results.check()
    with ExitStack() as stack:
        talk = stack.enter_context(Talk(errors, done="answered"))
        finder = stack.enter_context(
            MomentFinder(
                recordings,
                space=space,
                modality=modality and str(modality),
                hop=options.pop("hop", HOP),
                against=names,
                options=options,
                keep=keep,
                listener=talk,
            )
        )
        if truths is not None:
            _predict(finder, truths, results.options, report, talk)
            exit_if_bad(talk.has_failures)
            return
        if queries is None:
            answers = finder.answer([combined_request(parts, numbers)], results.options)
        else:
            answers = finder.answer_file(queries, results.options, exhibits=html is not None)
        with line_if_stopped(lambda: "stopped; the same command begins again"), writing(html or "stdout"):
            results.give(answers, finder, talk)
    exit_if_bad(talk.has_failures)


def _plot_of_one_query(plot: Path | None, queries: Path | None) -> Path | None:
    """Return the file of --plot, None where there are many queries."""
    if plot is not None and queries is not None:
        refuse_useless("--plot", "--plot draws the scores of one query; --html has a timeline for each of --queries")
        return None
    return plot


def _check_request(
    has_parts: bool, queries: Path | None, truth: Path | None, suite: str | None, report: Path | None, shown: Mapping[str, Any]
) -> None:
    """Refuse no request and several, and results that a request does not have. shown: what shows moments, by its flag."""
    if sum((has_parts, queries is not None, truth is not None, suite is not None)) != 1:
        raise UsageError("give a query (--text, --audio, …, --like, --vector), or --queries FILE of many, or --truth FILE, or --suite NAME")
    scored = "--truth" if truth is not None else "--suite" if suite is not None else None
    if report is not None and scored is None:
        refuse_useless("--report", "--report writes the scores of --truth FILE or of a --suite; give one of them")
    for flag, value in shown.items() if scored else ():
        if value is not None:
            refuse_useless(flag, f"{flag} shows moments, and {scored} gives predictions and scores alone")


def _run_suite(
    suite: MomentSuite, stores: list[str], space: Space, settings: dict[str, Any], report: Path | None, errors: Path | None
) -> None:
    """Print a prediction for each query of a suite, and report the scores."""
    from imagebind_cli.grounding.suites.run_moments import run_moment_suite
    from imagebind_cli.store import is_store

    other = next((path for path in stores if not is_store(path)), None)
    if other is not None:
        raise UsageError(f"{other}: with a suite, RECORDING can only be a store of its windows")

    def give(prediction: MomentPrediction) -> None:
        if report != STDOUT:
            write(json.dumps(prediction.as_json()).encode() + b"\n")

    kept = "" if settings["keep"] is None else f" and embeds what {settings['keep']} lacks"
    with Talk(errors, done="answered") as talk:
        with line_if_stopped(lambda: f"stopped; the same command begins again{kept}"), writing("stdout"):
            scores = run_moment_suite(suite, stores=stores, model=space, output=give, listener=talk, **settings)
        write_report_file(scores, report)
    exit_if_bad(talk.has_failures)


def _predict(finder: MomentFinder, truths: list[MomentTruth], options: MomentOptions, report: Path | None, talk: Talk) -> None:
    """Print a prediction for each annotated query, and report the scores."""
    from imagebind_cli.files import write_json
    from imagebind_cli.grounding.lighthouse import moment_report, predict

    scores = []
    for prediction in predict(finder, truths, options):
        write(json.dumps(prediction.as_json()).encode() + b"\n")
        if of_query := prediction.scores():
            scores.append(of_query)
    figures = moment_report(scores)
    for name, figure in figures.items():
        say(f"{name}: {100 * figure['value']:.2f} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f}), {figure['queries']:,} queries")
    if report is not None:
        write_json(report, {"scores": figures, "queries": len(truths), "missing": talk.failed, "made": dict(finder.stores[0].provenance)})


@dataclass(frozen=True)
class Results:
    """Write the moments as lines, a table, a page, a picture, clips."""

    plain: bool
    html: Path | None
    plot: Path | None
    cut: Path | None
    root: Path
    options: MomentOptions

    def check(self) -> None:
        """Refuse what cannot be written before anything is embedded."""
        if self.plot is not None:
            from imagebind_cli.pages.timeline import check_curve_plot

            check_curve_plot()
        if self.cut is not None:
            from imagebind_cli.grounding.cuts import check_clip_folder

            check_clip_folder(self.cut)

    def give(self, answers: Iterator[MomentAnswer], finder: MomentFinder, talk: Talk) -> None:
        """Write every answer as it comes."""
        with ExitStack() as stack:
            page = None
            if self.html is not None:
                from imagebind_cli.pages.timeline import TimelinePage

                page = stack.enter_context(TimelinePage.of(self.html, finder, self.options, self.root))
            number = 0
            for number, answer in enumerate(answers, start=1):
                rows = [hit.as_json(answer.query.id) for hit in answer.hits]
                if self.cut is not None:
                    from imagebind_cli.grounding.cuts import cut_moments

                    clips = cut_moments(answer, self.cut, number, self.root, talk)
                    rows = [row | clip for row, clip in zip(rows, clips, strict=True)]
                write(*(_table(answer) if self.plain else [json.dumps(row).encode() + b"\n" for row in rows]))
                if not answer.hits:
                    say(f"{printable(answer.query.id)}: no moment stays at the threshold for --min-length")
                if page is not None:
                    page.add(answer)
                if self.plot is not None and answer.curves:
                    from imagebind_cli.pages.timeline import plot_curves

                    plot_curves(answer, self.options, self.plot)
        if self.html is not None:
            say(f"{self.html}: {number:,} {'query' if number == 1 else 'queries'} answered")


def _table(answer: MomentAnswer) -> Iterator[bytes]:
    yield f"{printable(answer.query.id)}\n".encode("utf-8", "backslashreplace")
    for hit in answer.hits:
        clock = hit.item.clock(hit.start)
        when = f"{hit.start:>9.2f} to {hit.end:>9.2f} s" + ("" if clock is None else f"  {clock}")
        yield f"{hit.rank:>5}  {hit.score:>7.4f}  {when}  {printable(hit.item.id)}\n".encode("utf-8", "backslashreplace")


app = single_command("moments", moments_command, cls=QueryCommand, help=HELP)
