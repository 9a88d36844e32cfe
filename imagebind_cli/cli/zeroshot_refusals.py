"""Refuse options of `imagebind zeroshot` that do not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from imagebind_cli.cli.zeroshot_flags import SuiteOptions
from imagebind_cli.cli.zeroshot_report import ReportFiles
from imagebind_cli.errors import UsageError
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, TruthOptions


def refuse_useless_options(
    class_options: ClassOptions, truth_options: TruthOptions, probe: ProbeOptions, suite: SuiteOptions, manifest: Path | None
) -> None:
    """Refuse options that do not apply: those of a suite without one, those of a probe without one, and the reverse.

    Raises:
        UsageError: one was given.
    """
    if suite.suite:
        refuse_given(class_options, ["labels"], "a suite has its own")
        refuse_given(truth_options, ["truth", "metric"], "a suite has its own")
        if manifest is not None:
            raise UsageError("--manifest and --boxes: a suite has its own")
    else:
        refuse_given(suite, vars(suite), "only a --suite takes it")
    if probe.shots:
        refuse_given(class_options, vars(class_options).keys() - {"labels"}, "a probe has no use for it")
    else:
        refuse_given(probe, vars(probe), "it belongs to --shots")
        refuse_given(suite, ["shots_option", "fold"], "it belongs to --shots")


def refuse_given(options: object, names: Iterable[str], why: str) -> None:
    """Refuse the first of these options, by its name, that was given.

    Raises:
        UsageError: one was given, and why that is wrong.
    """
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {why}")


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
