"""`imagebind zeroshot`: inputs or stored vectors in, classes out, with scores where the truth is known."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.command import modality_group
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
    Modality,
    Nms,
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
from imagebind_cli.cli.live import (
    LiveOptions,
    hidden_live_flags,
    live_head,
    open_stream,
    refuse_with_live,
    refuse_without_live,
    stream_format,
    write_live,
)
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.option_groups import with_option_groups
from imagebind_cli.cli.output import STDOUT, check_output_file, write
from imagebind_cli.cli.suites import SuiteName, SuiteOption, SuiteRoot, required_root, suite_option, suite_settings
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UsageError
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions
from imagebind_cli.file_kinds import Others
from imagebind_cli.files import write_text
from imagebind_cli.registry import TEXT
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.evaluation import Classification, Comparison
    from imagebind_cli.evaluation.suites import Suite
    from imagebind_cli.evaluation.task import Rows
    from imagebind_cli.pages.classification import RegionCards

NamesRule = enum.StrEnum("NamesRule", ["max", "mean"])
Metric = enum.StrEnum("Metric", ["top1", "map"])

HELP = """Classify inputs, or stored vectors, by class names or examples: a JSON line for each with the best classes.

With --truth the scores are printed on stderr, and written to the files of --report, --html and --plot.

\b
    imagebind zeroshot image photos/ --labels 'cat,dog,car|automobile'
    imagebind zeroshot audio sounds.h5 --labels labels.txt --truth folder --report scores.json
    imagebind zeroshot image photos.h5 --classes calls/ --class-modality audio    # a folder for each class
    imagebind zeroshot audio sounds.h5 --truth folder --shots 4                   # linear probe on 4 of each class
    imagebind zeroshot --suite esc50 --root ESC-50-master --model huge --model mini   # side by side
"""

class_option = partial(typer.Option, rich_help_panel="Classes")
truth_option = partial(typer.Option, rich_help_panel="Truth and report")
probe_option = partial(typer.Option, rich_help_panel="Linear probe")


@dataclass(frozen=True)
class SuiteOptions:
    """A published evaluation, and the settings that the paper leaves open."""

    suite: str | None = None
    root: Path | None = None
    protocol: str | None = None
    suite_option: list[str] | None = None
    shots_option: list[str] | None = None
    fold: str | None = None


@dataclass(frozen=True)
class ReportFiles:
    """Where the report goes: as JSON, as a page, and its confusion matrix as a picture."""

    report: Path | None = None
    html: Path | None = None
    plot: Path | None = None

    @property
    def replaces_rows(self) -> bool:
        """Whether stdout is for the report, and not for the rows."""
        return self.report == STDOUT

    def check(self, has_truth: bool, has_regions: bool) -> None:
        """Refuse files that could not be written at the end of the run.

        Raises:
            UsageError: there is neither truth to report on nor regions to show. UserError: a folder does not exist, or matplotlib is missing.
        """
        for path in filter(None, (self.report, self.html, self.plot)):
            if not (has_truth or (has_regions and path == self.html)):
                raise UsageError("--report, --html and --plot compare with the truth; give --truth")
            check_output_file(path)
        if self.plot:
            from imagebind_cli.pages.classification import check_plot

            check_plot()

    def write(self, result: Classification, regions: RegionCards | None) -> None:
        """Write the files. regions: for the page.

        Raises:
            UserError: one of them cannot be written.
        """
        report = result.report
        if self.html:
            from imagebind_cli.pages.classification import write_region_page, write_report_page

            if report:
                write_report_page(self.html, report.document, regions)
            elif regions is not None:
                write_region_page(self.html, regions, result.made[0])
        if report is None:
            return
        if self.replaces_rows:
            write(report.as_json().encode())
        elif self.report:
            write_text(self.report, report.as_json())
        if self.plot and report.confusion is not None:
            from imagebind_cli.pages.classification import plot

            plot(report.confusion, report.classes, self.plot)

    def write_comparison(self, comparison: Comparison) -> None:
        """Write the files of a comparison of several models, which has no picture.

        Raises:
            UserError: one of them cannot be written.
        """
        if self.replaces_rows:
            write(comparison.as_json().encode())
        elif self.report:
            write_text(self.report, comparison.as_json())
        if self.html:
            from imagebind_cli.pages.classification import write_comparison_page

            write_comparison_page(self.html, comparison)


CLASS_FLAGS = {
    "labels": Annotated[
        str | None,
        class_option(metavar="A,B,C|FILE", help="Class names, `a,b|other name for b`, or a text, JSON, TOML, CSV or TSV file."),
    ],
    "classes": Annotated[
        Path | None, class_option(metavar="STORE|DIR", help="Examples: a store, or a folder with a folder for each class.")
    ],
    "class_modality": Annotated[
        Modality | None, class_option(metavar="MODALITY", help="Modality of the files in --classes DIR; by default that of the inputs.")
    ],
    "class_by": Annotated[
        str | None, class_option(metavar="folder|id|COLUMN", help="What names the class of each example. Default: class, else id.")
    ],
    "save_classes": Annotated[
        Path | None, class_option(metavar="STORE", hidden=True, help="Store the class vectors, for --classes of later runs.")
    ],
    "templates": Annotated[
        str | None,
        class_option(metavar="NAME|FILE", show_default="clip", help="Prompts: clip, plain, a modality's, or a file with {} in its lines."),
    ],
    "names": Annotated[
        NamesRule | None, class_option(help="Several names or examples of a class: the best counts (names), or the mean (examples).")
    ],
    "scale": Annotated[
        float | None,
        class_option(metavar="FACTOR", min=1e-6, hidden=True, help="Factor before the softmax, instead of the modality's logit scale."),
    ],
}
TRUTH_FLAGS = {
    "truth": Annotated[
        str | None,
        truth_option(metavar="folder|FILE|COLUMN", help="True labels: the folder's name, a file of id and label, or a column."),
    ],
    "metric": Annotated[Metric | None, truth_option(help="One label for each input (top1), or several (map). Default: as in --truth.")],
}
REPORT_FLAGS = {
    "top": Annotated[int, output_option("-k", "--top", metavar="N", min=1, help="Classes shown for each input.")],
    "stretches": Annotated[bool, output_option("--stretches", help="Join neighbouring windows of one best class to a row (--pool none).")],
    "nms": Nms,
    "draws": Annotated[int, truth_option(metavar="N", min=0, hidden=True, help="Bootstrap draws behind each interval; 0 for none.")],
    "report": Annotated[
        Path | None, truth_option(metavar="FILE", help="Write scores and their origin as JSON; - for stdout, instead of the rows.")
    ],
    "html": Annotated[Path | None, truth_option(metavar="FILE", help="Write scores, and pictures with regions, as a page.")],
    "plot": Annotated[Path | None, truth_option(metavar="FILE.png", help="Draw the confusion matrix; needs matplotlib.")],
}
PROBE_FLAGS = {
    "shots": Annotated[
        int | None, probe_option(metavar="N", min=1, help="Train a linear probe on N examples of each class and test it on the rest.")
    ],
    "shots_from": Annotated[Path | None, probe_option(metavar="STORE", help="Take the examples from this store; test on all inputs.")],
    "seed": Annotated[
        int | None, probe_option(metavar="N", min=0, show_default="0", hidden=True, help="Which examples, and in which order.")
    ],
    "epochs": Annotated[int | None, probe_option(metavar="N", min=1, hidden=True, help="Passes over the examples. Default: 50; depth 60.")],
    "learning_rate": Annotated[
        float | None, probe_option(metavar="RATE", min=0, hidden=True, help="Learning rate. Default: 0.0016; depth 0.01.")
    ],
    "weight_decay": Annotated[
        float | None, probe_option(metavar="DECAY", min=0, hidden=True, help="Weight decay. Default: 0.05; depth 0.")
    ],
    "shot_batch": Annotated[
        int | None, probe_option(metavar="N", min=1, show_default="16", hidden=True, help="Examples in a training step.")
    ],
}
SUITE_FLAGS = {
    "suite": SuiteName,
    "root": SuiteRoot,
    "protocol": Annotated[
        str | None, suite_option(metavar="FAMILY", hidden=True, help="Whose prompts and settings. Default: those of the model's family.")
    ],
    "suite_option": SuiteOption,
    "shots_option": Annotated[
        list[str] | None,
        suite_option(metavar="NAME=VALUE", hidden=True, help="Option of the suite that --shots takes its examples from: split=train."),
    ],
    "fold": Annotated[
        str | None,
        suite_option(metavar="N", show_default="1", hidden=True, help="Fold to test --shots on; the others are trained on."),
    ],
}


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
        model_option(envvar="IMAGEBIND_MODEL", metavar="MODEL", help="As for embed; by default that of the stores. Several are compared."),
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
    _refuse_useless(class_options, truth_options, probe_options, suite_options, manifest or boxes)
    if pool == "none" and (suite_options.suite or probe_options.shots):
        raise UsageError("--pool none shows each window of an item, and the truth is of an item as a whole")
    if report_options.stretches and pool != "none":
        raise UsageError("--stretches joins windows; give --pool none")
    has_regions = boxes is not None or chosen.get("tiles") is not None or any(map(_holds_boxes, inputs or ()))
    report_files.check(bool(suite_options.suite or truth_options.truth), has_regions)

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
        _classify_live(live_space, modality, inputs, live_options, class_options, report_options.top, chosen)
        return
    refuse_without_live(live_options)
    others = Others(strict, tuple(include or ()))
    models: list[str | None] = [*model] if model and remote is None else [None]
    _refuse_for_several(models, class_options, truth_options, probe_options, suite_options, report_files, config, inputs, manifest or boxes)

    def space(name: str | None) -> Space:
        return Space(remote or name, config, device, str(dtype), batch_size, workers, say, keep_freed_memory, item_timeout)

    report = dataclasses.replace(report_options, confusion=report_files.plot is not None)
    run: Callable[..., Classification]
    suite: Suite | None = None
    if suite_options.suite:
        suite = _open_suite(suite_options, (), modality)
        if suite.metric == "recall":
            for options in (probe_options, class_options):
                _refuse(options, vars(options), "captions find their items here, and nothing is classified")
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
        raise UsageError("say what the inputs are, or name a --suite")
    else:
        given, reading = command_inputs(modality, inputs, manifest, column, nul, others, boxes, pictures), given_options(modality, chosen)
        if probe_options.shots:
            run = partial(evaluation.few_shot, given, modality, truth_options, probe_options, labels=class_options.labels, reading=reading)
        else:
            run = partial(evaluation.classify, given, modality, class_options, truth_options, pool=str(pool), reading=reading)
    used = [suite.modality if suite else str(modality)]
    used += [TEXT] if class_options.labels or (suite and class_options.classes is None) else []
    with Talk(errors, "classified", others) as talk:
        is_complete = _run(run, models, space, used, report, report_files, has_regions, talk)
    if talk.failed or not is_complete:
        raise typer.Exit(1)


def _classify_live(
    space: Space,
    modality: str,
    inputs: Sequence[str] | None,
    live: LiveOptions,
    classes: ClassOptions,
    k: int,
    chosen: dict[str, Any],
) -> None:
    """Classify the windows of one stream as they arrive."""
    from imagebind_cli.evaluation import open_classifier
    from imagebind_cli.evaluation.classifier import best_classes
    from imagebind_cli.live import LiveRow, embed_stream

    reading = given_options(modality, chosen)
    format = stream_format(live, reading)
    with open_stream(inputs) as (file, name), Talk(done="classified") as talk:
        classifier = open_classifier(modality, classes, model=space, listener=talk)

        def line(row: LiveRow) -> bytes:
            top = [
                {"class": entry.name, "probability": entry.probability, "score": entry.score}
                for entry in best_classes(classifier, row.vector, k)
            ]
            return json.dumps(live_head(row) | {"top": top}).encode() + b"\n"

        rows = embed_stream(
            space, modality, file, format, behind=live.behind or "wait", memory=live.memory, name=name, listener=talk, **reading
        )
        write_live(rows, talk, line)
    if talk.failed:
        raise typer.Exit(1)


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

        def give(some: Rows) -> None:
            rows(None, some)
            if regions is not None:
                regions.add(some)  # type: ignore[arg-type]

        result = run(model=space(models[0]), report=report, output=give, listener=talk)
        files.write(result, regions)
        return result.report is None or result.report.is_complete
    comparison = compare(run, {str(name): space(name) for name in models}, report=report, modalities=modalities, output=rows, listener=talk)
    files.write_comparison(comparison)
    return comparison.is_complete


def _refuse_useless(
    class_options: ClassOptions, truth_options: TruthOptions, probe: ProbeOptions, suite: SuiteOptions, manifest: Path | None
) -> None:
    """Refuse options that do not apply to the request."""
    if suite.suite:
        _refuse(class_options, ["labels"], "a suite has its own")
        _refuse(truth_options, ["truth", "metric"], "a suite has its own")
        if manifest is not None:
            raise UsageError("--manifest and --boxes: a suite has its own")
    else:
        _refuse(suite, vars(suite), "only a --suite takes it")
    if probe.shots:
        _refuse(class_options, vars(class_options).keys() - {"labels"}, "a probe has no use for it")
    else:
        _refuse(probe, vars(probe), "it belongs to --shots")
        _refuse(suite, ["shots_option", "fold"], "it belongs to --shots")


def _refuse(options: object, names: Iterable[str], why: str) -> None:
    """Refuse the first of these options that was given."""
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {why}")


def _open_suite(options: SuiteOptions, more: Sequence[str], modality: str | None) -> Suite:
    from imagebind_cli.evaluation import open_suite

    name = str(options.suite)
    root = required_root(options.root)
    suite = open_suite(name, root, suite_settings([*(options.suite_option or []), *more]), options.protocol)
    if modality is not None and modality != suite.modality:
        raise UsageError(f"suite {name} is of {suite.modality}, not {modality}")
    return suite


def _refuse_for_several(
    models: Sequence[str | None],
    class_options: ClassOptions,
    truth_options: TruthOptions,
    probe: ProbeOptions,
    suite: SuiteOptions,
    files: ReportFiles,
    config: str | None,
    inputs: Sequence[str] | None,
    manifest: Path | None,
) -> None:
    """Refuse what is of one model alone where several are compared."""
    if len(models) == 1:
        return
    twice = next((name for place, name in enumerate(models) if name in models[:place]), None)
    if twice is not None:
        raise UsageError(f"--model {twice}: it is there twice; a comparison needs different models")
    if not (suite.suite or truth_options.truth):
        raise UsageError("--model: several are compared by their scores; give --truth or a --suite")
    for flag, value in {"--save-classes": class_options.save_classes, "--plot": files.plot, "--config": config}.items():
        if value is not None:
            raise UsageError(f"{flag}: it is for one --model")
    if not suite.suite and manifest is None and (not inputs or "-" in inputs):
        raise UsageError("--model: stdin can be read once, and several models each read the inputs; give files or a --manifest")
    from imagebind_cli.store import is_store

    stores = [path for path in (*(inputs or ()), class_options.classes, probe.shots_from) if path is not None and is_store(Path(path))]
    if stores:
        raise UsageError(f"{stores[0]}: a store holds the vectors of one model; give the files that they are of")


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
