"""`imagebind zeroshot`: inputs or stored vectors in, classes out, with scores where the truth is known."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.embed import Modality, Pool
from imagebind_cli.cli.flags import Dtype, Errors, Manifest, Null, Strict, Workers, reading_options, with_reading_flags
from imagebind_cli.cli.inputs import find_items
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.option_groups import with_option_groups
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions
from imagebind_cli.file_kinds import Others
from imagebind_cli.files import write_text
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.evaluation import Classification, Report
    from imagebind_cli.evaluation.job import Inputs as JobInputs
    from imagebind_cli.evaluation.suites import Suite
    from imagebind_cli.evaluation.task import Rows

NamesRule = enum.StrEnum("NamesRule", ["max", "mean"])
Metric = enum.StrEnum("Metric", ["top1", "map"])

HELP = """Classify inputs, or stored vectors, by class names or by examples of each class: a JSON line each with the best classes.

INPUT is as for `embed`, or a store that `embed -o` wrote. Classes are --labels, in text, or --classes, examples in any modality.
With --truth the scores of the run are printed on stderr, and written to the files of --report, --html and --plot.

\b
    imagebind zeroshot image photos/ --labels 'cat,dog,car|automobile'
    imagebind zeroshot audio sounds.h5 --labels labels.txt --truth folder --report scores.json
    imagebind zeroshot image photos.h5 --classes calls/ --class-modality audio   # a folder of sounds for each class
    imagebind zeroshot audio sounds.h5 --truth folder --shots 4                  # linear probe on 4 examples of each class
    imagebind zeroshot --suite esc50 --root ESC-50-master
"""


def _option(*names: str, panel: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


@dataclass(frozen=True)
class SuiteOptions:
    """A published evaluation, and what is left open in it."""

    suite: str | None = None
    root: Path | None = None
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
        return self.report == Path("-")

    def check(self, has_truth: bool) -> None:
        """Refuse files that could not be written at the end of the run.

        Raises:
            UsageError: there is no truth to report on. UserError: a folder does not exist, or matplotlib is missing.
        """
        for path in filter(None, (self.report, self.html, self.plot)):
            if not has_truth:
                raise UsageError("--report, --html and --plot compare with the truth; give --truth")
            if not path.parent.is_dir():
                raise UserError(f"{path}: there is no folder {path.parent}")
            if path != Path("-") and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
                raise UserError(f"{path}: cannot be written to")
        if self.plot:
            from imagebind_cli.pages.classification import check_plot

            check_plot()

    def write(self, report: Report) -> None:
        """Write the files.

        Raises:
            UserError: one of them cannot be written.
        """
        if self.replaces_rows:
            write(report.as_json().encode())
        elif self.report:
            write_text(self.report, report.as_json())
        if self.html:
            from imagebind_cli.pages.classification import write_report_page

            write_report_page(self.html, report.document)
        if self.plot and report.confusion is not None:
            from imagebind_cli.pages.classification import plot

            plot(report.confusion, report.classes, self.plot)


CLASS_FLAGS = {
    "labels": Annotated[
        str | None,
        _option(panel="Classes", metavar="A,B,C|FILE", help="Class names: `a,b|other name for b`, or a text, JSON, TOML, CSV or TSV file."),
    ],
    "classes": Annotated[
        Path | None,
        _option(panel="Classes", metavar="STORE|DIR", help="Classes by example: a store, or a folder with a folder for each class."),
    ],
    "class_modality": Annotated[
        Modality | None, _option(panel="Classes", help="What the files in the folder --classes are; as the inputs if not given.")
    ],
    "class_by": Annotated[
        str | None,
        _option(
            panel="Classes", help="Which class a row of --classes is: folder, id, or a column of its manifest. Default class, else id."
        ),
    ],
    "save_classes": Annotated[
        Path | None, _option(panel="Classes", metavar="STORE", help="Write the class vectors, for --classes of later runs.")
    ],
    "templates": Annotated[
        str | None,
        _option(
            panel="Classes",
            help="Prompts: clip (the default), plain, audio, video, depth, thermal, imu, or a FILE with {} for the name.",
        ),
    ],
    "names": Annotated[
        NamesRule | None,
        _option(
            panel="Classes",
            help="A class with several names or examples: the best counts, or their mean. Default: names max, examples mean.",
        ),
    ],
    "scale": Annotated[
        float | None, _option(panel="Classes", min=1e-6, help="Factor before the softmax, in place of the modality's logit scale.")
    ],
}
TRUTH_FLAGS = {
    "truth": Annotated[
        str | None,
        _option(
            panel="Truth", metavar="folder|FILE|COLUMN", help="What the inputs are: by folder name, a file of id and label, or a column."
        ),
    ],
    "metric": Annotated[
        Metric | None, _option(panel="Truth", help="top1: one label an item. map: several. By the file of --truth if not given.")
    ],
}
REPORT_FLAGS = {
    "top": Annotated[int, _option("-k", "--top", panel="Output", min=1, help="Classes in each row.")],
    "draws": Annotated[int, _option(panel="Truth", min=0, help="Bootstrap draws behind each interval; 0 for none.")],
    "report": Annotated[
        Path | None,
        _option(panel="Truth", help="Write scores and what they were made from as JSON; - for stdout, without the rows."),
    ],
    "html": Annotated[Path | None, _option(panel="Truth", help="Write them as one page.")],
    "plot": Annotated[Path | None, _option(panel="Truth", help="Draw the confusion matrix to FILE.png; needs matplotlib.")],
}
PROBE_FLAGS = {
    "shots": Annotated[
        int | None,
        _option(panel="Probe", min=1, help="Train a linear probe on this many examples of each class, and test it on the rest."),
    ],
    "shots_from": Annotated[
        Path | None, _option(panel="Probe", metavar="STORE", help="Take the examples from this store, and test on all inputs.")
    ],
    "seed": Annotated[int | None, _option(panel="Probe", min=0, help="Which examples, and in which order. Default 0.")],
    "epochs": Annotated[int | None, _option(panel="Probe", min=1, help="Passes over the examples. Default as published: 50; depth 60.")],
    "learning_rate": Annotated[float | None, _option(panel="Probe", min=0, help="Default as published: 0.0016; depth 0.01.")],
    "weight_decay": Annotated[float | None, _option(panel="Probe", min=0, help="Default as published: 0.05; depth 0.")],
    "shot_batch": Annotated[int | None, _option(panel="Probe", min=1, help="Examples in a training step. Not published; default 16.")],
}
SUITE_FLAGS = {
    "suite": Annotated[str | None, _option(panel="Suite", help="A published evaluation: esc50, audioset, …; an unknown name lists them.")],
    "root": Annotated[Path | None, _option(panel="Suite", help="Folder of the suite's dataset.")],
    "suite_option": Annotated[
        list[str] | None, _option(panel="Suite", metavar="NAME=VALUE", help="Option of the suite; may be given several times.")
    ],
    "shots_option": Annotated[
        list[str] | None,
        _option(panel="Suite", metavar="NAME=VALUE", help="Option of the suite that the examples of --shots come from: split=train."),
    ],
    "fold": Annotated[str | None, _option(panel="Suite", help="Test --shots on this fold, and train on the others. Default 1.")],
}


@with_reading_flags
@with_option_groups({**CLASS_FLAGS, **TRUTH_FLAGS, **REPORT_FLAGS, **PROBE_FLAGS, **SUITE_FLAGS})
def zeroshot_command(
    class_options: ClassOptions,
    truth_options: TruthOptions,
    report_options: ReportOptions,
    report_files: ReportFiles,
    probe_options: ProbeOptions,
    suite_options: SuiteOptions,
    modality: Annotated[Modality | None, typer.Argument(help="What the inputs are; a suite knows.", show_default=False)] = None,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT]...", help="Files, folders, patterns, sentences, - for stdin; or stores.")
    ] = None,
    manifest: Manifest = None,
    nul: Null = False,
    strict: Strict = False,
    errors: Errors = None,
    model: Annotated[str | None, typer.Option(envvar="IMAGEBIND_MODEL", help="As for embed; that of the stores if not given.")] = None,
    config: Annotated[str | None, typer.Option(help="JSON file that says what a bare weight file is.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="auto: float32 on CPU, the weights' own elsewhere. int8: for CPUs, faster, a little off.")
    ] = Dtype.auto,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips to the encoder at once; halves itself when memory runs out.")] = None,
    workers: Workers = None,
    pool: Annotated[Pool, typer.Option(help="mean: an item as a whole. none: each of its windows, with its start and end.")] = Pool.mean,
    **chosen: Any,
) -> None:
    _refuse_useless(class_options, truth_options, probe_options, suite_options, manifest)
    if pool == "none" and (suite_options.suite or probe_options.shots):
        raise UsageError("--pool none shows each window of an item, and the truth is of an item as a whole")
    report_files.check(bool(suite_options.suite or truth_options.truth))

    from imagebind_cli import evaluation

    others = Others(strict)
    shared: dict[str, Any] = {
        "model": Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory),
        "report": dataclasses.replace(report_options, confusion=report_files.plot is not None),
        "output": _ignore_rows if report_files.replaces_rows else _write_rows,
        "others": others,
    }
    run: Callable[..., Classification]
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
            reading=reading_options(suite.modality, chosen).choices(),
        )
    elif modality is None:
        raise UsageError("say what the inputs are, or name a --suite")
    else:
        name, reading = str(modality), reading_options(str(modality), chosen).choices()
        given = _inputs(name, inputs or [], manifest, nul, chosen["fps"] is not None, others, truth_options.truth)
        if probe_options.shots:
            run = partial(evaluation.few_shot, given, name, truth_options, probe_options, labels=class_options.labels, reading=reading)
        else:
            run = partial(evaluation.classify, given, name, class_options, truth_options, pool=str(pool), reading=reading)
    with Talk(errors, "classified", others) as talk:
        result = run(listener=talk, **shared)
        if result.report:
            report_files.write(result.report)
    if talk.failed or not (result.report is None or result.report.is_complete):
        raise typer.Exit(1)


zeroshot_command.__doc__ = HELP


def _refuse_useless(
    class_options: ClassOptions, truth_options: TruthOptions, probe: ProbeOptions, suite: SuiteOptions, manifest: Path | None
) -> None:
    """Refuse options that what is asked for has no use for."""
    if suite.suite:
        _refuse(class_options, ["labels"], "a suite has its own")
        _refuse(truth_options, ["truth", "metric"], "a suite has its own")
        if manifest is not None:
            raise UsageError("--manifest: a suite has its own")
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
    if options.root is None:
        raise UsageError("--suite needs --root, the folder of its dataset")
    pairs = [*(options.suite_option or []), *more]
    malformed = next((pair for pair in pairs if "=" not in pair), None)
    if malformed is not None:
        raise UsageError(f"--suite-option {malformed!r}: NAME=VALUE is needed")
    suite = open_suite(name, options.root, dict(pair.split("=", 1) for pair in pairs))
    if modality is not None and modality != suite.modality:
        raise UsageError(f"suite {name} is of {suite.modality}, not {modality}")
    for note in suite.notes:
        say(f"{name}: {note}")
    return suite


def _inputs(modality: str, inputs: list[str], manifest: Path | None, nul: bool, frames: bool, others: Others, truth: Any) -> JobInputs:
    """Return the inputs as the library takes them: stores by their paths, anything else as what yields the items."""
    from imagebind_cli.evaluation.truth import Truth, is_truth_file, refuse_column
    from imagebind_cli.store import is_store

    if any(path != "-" and is_store(path) for path in inputs):
        return inputs
    if truth and manifest is None and "-" not in (inputs or ["-"]) and not is_truth_file(truth):
        refuse_column(Truth(truth))
    return find_items((modality,), inputs, manifest, nul, frames, others)


def _write_rows(rows: Rows) -> None:
    write(*(json.dumps(row.as_json()).encode() + b"\n" for row in rows))


def _ignore_rows(rows: Rows) -> None:
    """Take rows that are not asked for."""
