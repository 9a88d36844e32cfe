"""Refuse options of `imagebind zeroshot` that do not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from imagebind_cli.cli.configuration import refuse_useless
from imagebind_cli.cli.zeroshot_flags import SuiteOptions
from imagebind_cli.cli.zeroshot_report import ReportFiles
from imagebind_cli.errors import UsageError
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions

Options = TypeVar("Options", ClassOptions, TruthOptions, ProbeOptions, SuiteOptions)


def useful_options(
    class_options: ClassOptions, truth_options: TruthOptions, probe: ProbeOptions, suite: SuiteOptions, manifest: Path | None
) -> tuple[ClassOptions, TruthOptions, ProbeOptions, SuiteOptions]:
    """Return the options without those that do not apply: those of a suite without one, those of a probe without one, and the reverse.

    Raises:
        UsageError: one of them was typed.
    """
    if suite.suite:
        class_options = without_useless(class_options, ["labels"], "a suite has its own")
        truth_options = without_useless(truth_options, ["truth", "metric"], "a suite has its own")
        if manifest is not None:
            raise UsageError("--manifest and --boxes: a suite has its own")
    else:
        suite = without_useless(suite, vars(suite), "only a --suite takes it")
    if probe.shots and not (suite.suite or truth_options.truth):
        refuse_useless("--shots", "--shots learns from the truth; give --truth")
        probe = replace(probe, shots=None)
    if probe.shots:
        class_options = without_useless(class_options, vars(class_options).keys() - {"labels"}, "a probe does not use it")
    else:
        probe = without_useless(probe, vars(probe), "it belongs to --shots")
        suite = without_useless(suite, ["shots_option", "fold"], "it belongs to --shots")
    return class_options, truth_options, probe, suite


def useful_report(report: ReportOptions, pool: str, has_regions: bool) -> ReportOptions:
    """Return the report's options without stretches where whole items are classified, and without nms where there are no regions.

    Raises:
        UsageError: one of them was typed.
    """
    if report.stretches and pool != "none":
        refuse_useless("--stretches", "--stretches joins windows; give --pool none")
        report = replace(report, stretches=False)
    if report.nms is not None and not has_regions:
        refuse_useless(
            "--nms", "--nms is for overlapping regions, and these inputs have none: give --boxes or --tiles, or a store of regions"
        )
        report = replace(report, nms=None)
    return report


def without_useless(options: Options, names: Iterable[str], why: str) -> Options:
    """Return options without the given ones of these names, which have no use in this run.

    Raises:
        UsageError: one was typed, and why that is wrong.
    """
    for name in names:
        if getattr(options, name) is not None:
            refuse_useless(flag := f"--{name.replace('_', '-')}", f"{flag}: {why}")
            options = replace(options, **{name: None})
    return options


def refuse_for_several_models(
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
    """Refuse what works with one model alone if several are compared.

    Raises:
        UsageError: a model is given twice, there is no truth to compare by, or an input or file is of one model.
    """
    if len(models) == 1:
        return
    twice = next((name for place, name in enumerate(models) if name in models[:place]), None)
    if twice is not None:
        raise UsageError(f"--model {twice}: given twice; a comparison needs different models")
    if not (suite.suite or truth_options.truth):
        raise UsageError("--model: several are compared by their scores; give --truth or a --suite")
    for flag, value in {"--save-classes": class_options.save_classes, "--plot": files.plot, "--config": config}.items():
        if value is not None:
            raise UsageError(f"{flag}: works with one --model only")
    if not suite.suite and manifest is None and (not inputs or "-" in inputs):
        raise UsageError("--model: each model reads the inputs, and stdin can be read only once; give files or a --manifest")
    from imagebind_cli.store import is_store

    stores = [path for path in (*(inputs or ()), class_options.classes, probe.shots_from) if path is not None and is_store(Path(path))]
    if stores:
        raise UsageError(f"{stores[0]}: a store holds the vectors of one model; give the files that they were made from")
