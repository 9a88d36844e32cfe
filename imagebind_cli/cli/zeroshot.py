"""`imagebind zeroshot`: inputs or stored vectors in, classes out, with scores where the truth is known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.command import modality_group
from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.flags import (
    BatchSize,
    Boxes,
    Column,
    Config,
    Device,
    Dtype,
    Errors,
    Include,
    ItemTimeout,
    Manifest,
    Null,
    OptionalModality,
    Pictures,
    Pool,
    Precision,
    Server,
    Strict,
    Workers,
    given_options,
    input_argument,
    model_option,
    output_option,
    server_model,
    with_reading_flags,
)
from imagebind_cli.cli.inputs import command_inputs
from imagebind_cli.cli.live import LiveOptions, hidden_live_flags, refuse_with_live, refuse_without_live
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.option_groups import with_option_groups
from imagebind_cli.cli.output import write
from imagebind_cli.cli.suites import open_suite_of
from imagebind_cli.cli.talk import Talk, exit_if_bad, say
from imagebind_cli.cli.zeroshot_flags import CLASS_FLAGS, PROBE_FLAGS, REPORT_FLAGS, SUITE_FLAGS, TRUTH_FLAGS, SuiteOptions
from imagebind_cli.cli.zeroshot_live import print_live_classes
from imagebind_cli.cli.zeroshot_refusals import refuse_for_several_models, useful_options, useful_report, without_useless
from imagebind_cli.cli.zeroshot_report import ReportFiles
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UsageError
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions
from imagebind_cli.file_kinds import Others
from imagebind_cli.registry import TEXT
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.evaluation import Classification
    from imagebind_cli.evaluation.suites import Suite
    from imagebind_cli.evaluation.task import Rows

HELP = """Classify inputs, or stored vectors, by class names or examples: a JSON line for each with the best classes.

With --truth the scores are printed on stderr, and written to the files of --report, --html and --plot.

\b
    imagebind zeroshot image photos/ --labels 'cat,dog,car|automobile'
    imagebind zeroshot audio sounds.h5 --labels labels.txt --truth folder --report scores.json
    imagebind zeroshot image photos.h5 --classes calls/ --class-modality audio    # a folder for each class
    imagebind zeroshot audio sounds.h5 --truth folder --shots 4                   # linear probe on 4 of each class
    imagebind zeroshot --suite esc50 --root ESC-50-master --model huge --model mini   # side by side
"""


@with_reading_flags
@with_option_groups({**CLASS_FLAGS, **TRUTH_FLAGS, **REPORT_FLAGS, **PROBE_FLAGS, **SUITE_FLAGS, **hidden_live_flags()})
def zeroshot_command(
    context: typer.Context,
    class_options: ClassOptions,
    truth_options: TruthOptions,
    report_options: ReportOptions,
    report_files: ReportFiles,
    probe_options: ProbeOptions,
    suite_options: SuiteOptions,
    live_options: LiveOptions,
    modality: OptionalModality = None,
    inputs: Annotated[
        list[str] | None, input_argument(metavar="[INPUT]...", help="Files, folders, patterns, sentences, - for stdin; or stores.")
    ] = None,
    manifest: Manifest = None,
    boxes: Boxes = None,
    pictures: Pictures = None,
    column: Column = None,
    include: Include = None,
    nul: Null = False,
    strict: Strict = False,
    pool: Annotated[Pool, output_option(help="Classify each input as a whole, or (none) each of its windows.")] = Pool.mean,
    errors: Errors = None,
    server: Server = None,
    model: Annotated[
        list[str] | None,
        model_option(
            envvar="IMAGEBIND_MODEL",
            metavar="MODEL",
            help="Model, as for embed; by default that of the stores. Repeat it to compare models.",
        ),
    ] = None,
    config: Config = None,
    device: Device = "auto",
    dtype: Precision = Dtype.auto,
    batch_size: BatchSize = None,
    workers: Workers = None,
    item_timeout: ItemTimeout = ITEM_SECONDS,
    **chosen: Any,
) -> None:
    """Classify inputs or stored vectors, or run a published suite."""
    class_options, truth_options, probe_options, suite_options = useful_options(
        class_options, truth_options, probe_options, suite_options, manifest or boxes
    )
    if pool == "none" and (suite_options.suite or probe_options.shots or truth_options.truth):
        refuse_useless("--pool", "--pool none classifies windows, and the truth is about whole items; leave one of them out")
        pool = Pool.mean
    has_regions = boxes is not None or chosen.get("tiles") is not None or any(map(_holds_boxes, inputs or ()))
    report_options = useful_report(report_options, str(pool), has_regions or suite_options.suite is not None)
    report_files = report_files.checked(bool(suite_options.suite or truth_options.truth), has_regions)

    from imagebind_cli import evaluation

    remote = server_model(context, server)
    if live_options.live:
        useless: dict[str, Any] = {
            "manifest": manifest,
            "column": column,
            "include": include,
            "null": nul,
            "strict": strict,
            "errors": errors,
            "server": server,
            "boxes": boxes,
            "batch_size": batch_size,
            "workers": workers,
        }
        useless |= {"truth": truth_options.truth, "shots": probe_options.shots, "suite": suite_options.suite}
        refuse_with_live(useless | {"stretches": report_options.stretches})
        if modality is None or len(model or ()) > 1:
            raise UsageError("--live takes a modality and one --model")
        live_space = Space(model[0] if model else None, config, device, str(dtype), note=say, prepare=keep_freed_memory)
        print_live_classes(live_space, modality, inputs, live_options, class_options, report_options.top, chosen)
        return
    refuse_without_live(live_options)
    others = Others(strict, tuple(include or ()))
    models: list[str | None] = [*model] if model and remote is None else [None]
    refuse_for_several_models(
        models, class_options, truth_options, probe_options, suite_options, report_files, config, inputs, manifest or boxes
    )

    def space(name: str | None) -> Space:
        return Space(remote or name, config, device, str(dtype), batch_size, workers, say, keep_freed_memory, item_timeout)

    report = dataclasses.replace(report_options, confusion=report_files.plot is not None)
    run: Callable[..., Classification]
    suite: Suite | None = None
    if suite_options.suite:
        suite = _open_suite(suite_options, (), modality)
        if suite.metric == "recall":
            why = "this suite ranks captions and has no classes"
            probe_options = without_useless(probe_options, vars(probe_options), why)
            class_options = without_useless(class_options, vars(class_options), why)
        run = partial(
            evaluation.run_suite,
            suite,
            stores=inputs or [],
            classes=class_options if class_options != ClassOptions() else None,
            probe=probe_options if probe_options.shots else None,
            examples=_open_suite(suite_options, suite_options.shots_option, modality) if suite_options.shots_option else None,
            fold=suite_options.fold,
            reading=given_options(suite.modality, chosen),
            others=others,
        )
    elif modality is None:
        raise UsageError("give the modality of the inputs, or a --suite")
    else:
        given, reading = (
            command_inputs(modality, inputs, manifest, column, nul, others, boxes, pictures),
            given_options(modality, chosen, boxes is not None),
        )
        if probe_options.shots:
            run = partial(evaluation.few_shot, given, modality, truth_options, probe_options, labels=class_options.labels, reading=reading)
        else:
            run = partial(evaluation.classify, given, modality, class_options, truth_options, pool=str(pool), reading=reading)
    used = [suite.modality if suite else str(modality)]
    used += [TEXT] if class_options.labels or (suite and class_options.classes is None) else []
    with Talk(errors, "classified", others) as talk:
        is_complete = _run(run, models, space, used, report, report_files, has_regions, talk)
    exit_if_bad(talk.has_failures or not is_complete)


def _run(
    run: Callable[..., Classification],
    models: Sequence[str | None],
    space: Callable[[str | None], Space],
    modalities: Sequence[str],
    report: ReportOptions,
    files: ReportFiles,
    has_regions: bool,
    talk: Talk,
) -> bool:
    """Run with one model, or compare several, and write the files; return whether every id of the truth had an item."""
    from imagebind_cli.evaluation import compare

    rows = _ignore_rows if files.replaces_rows else _write_rows
    if len(models) == 1:
        regions = None
        if files.html and has_regions:
            from imagebind_cli.pages.classification import RegionCards

            regions = RegionCards(modalities[0])

        def collect(batch: Rows) -> None:
            rows(None, batch)
            if regions is not None:
                regions.add(batch)  # type: ignore[arg-type]

        result = run(model=space(models[0]), report=report, output=collect, listener=talk)
        files.write(result, regions)
        return result.report is None or result.report.is_complete
    comparison = compare(run, {str(name): space(name) for name in models}, report=report, modalities=modalities, output=rows, listener=talk)
    files.write_comparison(comparison)
    return comparison.is_complete


def _open_suite(options: SuiteOptions, more: Sequence[str], modality: str | None) -> Suite:
    from imagebind_cli.evaluation import open_suite

    settings = [*(options.suite_option or []), *more]
    return open_suite_of(partial(open_suite, protocol=options.protocol), str(options.suite), options.root, settings, modality)


def _holds_boxes(path: str) -> bool:
    """Check whether an input is a store of regions."""
    from imagebind_cli.boxes import holds_boxes
    from imagebind_cli.store import is_store, open_store

    return is_store(path) and holds_boxes(open_store(path).provenance)


def _write_rows(model: str | None, rows: Rows) -> None:
    of_model = {} if model is None else {"model": model}
    write(*(json.dumps(of_model | row.as_json()).encode() + b"\n" for row in rows))


def _ignore_rows(model: str | None, rows: Rows) -> None:
    """Ignore rows that nobody requested."""


app = modality_group(zeroshot_command, HELP)
