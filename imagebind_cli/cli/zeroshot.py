"""`imagebind zeroshot`: inputs or stored vectors in, classes out, with scores where the truth is known."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagebind_cli.cli.classification import Outputs, check_new
from imagebind_cli.cli.embed import Modality, Pool
from imagebind_cli.cli.flags import Dtype, Errors, Manifest, Null, Strict, Workers, reading_options, with_reading_flags
from imagebind_cli.cli.inputs import find_items
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.protocols import ByPrototype, Task, few_shot, find_captions, zero_shot
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.file_kinds import Others
from imagebind_cli.space import Inputs, Space, store_readers

if TYPE_CHECKING:
    from imagebind_cli.evaluation.suites import Suite

Names = enum.StrEnum("Names", ["max", "mean"])
Metric = enum.StrEnum("Metric", ["top1", "map"])

HELP = """Classify inputs, or stored vectors, by class names or by examples of each class: a JSON line each with the best classes.

INPUT is as for `embed`, or a store that `embed -o` wrote. Classes are --labels, in text, or --classes, examples in any modality.
With --truth the scores of the run are said on stderr, and written where --report, --html and --plot say.

\b
    imagebind zeroshot image photos/ --labels 'cat,dog,car|automobile'
    imagebind zeroshot audio sounds.h5 --labels labels.txt --truth folder --report scores.json
    imagebind zeroshot image photos.h5 --classes calls/ --class-modality audio   # a folder of sounds for each class
    imagebind zeroshot audio sounds.h5 --truth folder --shots 4                  # linear probe on 4 examples of each class
    imagebind zeroshot --suite esc50 --root ESC-50-master
"""


@with_reading_flags
def zeroshot(
    modality: Annotated[Modality | None, typer.Argument(help="What the inputs are; a suite knows.", show_default=False)] = None,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT]...", help="Files, folders, patterns, sentences, - for stdin; or stores.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B,C|FILE", help="Class names: `a,b|other name for b`, or a text, JSON, TOML, CSV or TSV file."),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="STORE|DIR", help="Classes by example: a store, or a folder with a folder for each class.")
    ] = None,
    class_modality: Annotated[
        Modality | None, typer.Option(help="What the files in the folder --classes are; as the inputs if not given.")
    ] = None,
    class_by: Annotated[
        str | None, typer.Option(help="Which class a row of --classes is: folder, id, or a column of its manifest. Default class, else id.")
    ] = None,
    save_classes: Annotated[Path | None, typer.Option(metavar="STORE", help="Keep the class vectors, for --classes of later runs.")] = None,
    templates: Annotated[
        str | None,
        typer.Option(help="Prompts: clip (the default), plain, audio, video, depth, thermal, imu, or a FILE with {} for the name."),
    ] = None,
    names: Annotated[
        Names | None,
        typer.Option(help="A class with several names or examples: the best counts, or their mean. Default: names max, examples mean."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(min=1e-6, help="Factor before the softmax, in place of the modality's logit scale.")
    ] = None,
    top: Annotated[int, typer.Option("-k", "--top", min=1, help="Classes shown for each input.")] = 5,
    truth: Annotated[
        str | None,
        typer.Option(metavar="folder|FILE|COLUMN", help="What the inputs are: by folder name, a file of id and label, or a column."),
    ] = None,
    metric: Annotated[
        Metric | None, typer.Option(help="top1: one label an item. map: several. By the file of --truth if not given.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write scores and what they were made from as JSON; - for stdout, without the rows.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write them as one page.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the confusion matrix to FILE.png; needs matplotlib.")] = None,
    draws: Annotated[int, typer.Option(min=0, help="Bootstrap draws behind each interval; 0 for none.")] = 1000,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Train a linear probe on this many examples of each class, and test it on the rest.")
    ] = None,
    shots_from: Annotated[Path | None, typer.Option(metavar="STORE", help="Take the examples from here, and test on all inputs.")] = None,
    shots_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the suite that gives the examples: split=train.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the probe: which examples, in which order. Default 0.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the probe. Default as published: 50; depth 60.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Of the probe. Default as published: 0.0016; depth 0.01.")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="Of the probe. Default as published: 0.05; depth 0.")] = None,
    shot_batch: Annotated[int | None, typer.Option(min=1, help="Of the probe: examples in a step. Not published; default 16.")] = None,
    suite: Annotated[str | None, typer.Option(help="A published evaluation: esc50, audioset, …; an unknown name lists them.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the suite's dataset.")] = None,
    suite_option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the suite; may come again.")] = None,
    fold: Annotated[str | None, typer.Option(help="Of the suite, for --shots: tested on it, trained on the others. Default 1.")] = None,
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
    stated = {"learning_rate": learning_rate, "weight_decay": weight_decay, "epochs": epochs, "batch_size": shot_batch, "seed": seed}
    of_shots: dict[str, object] = {
        "--shots-from": shots_from,
        "--shots-option": shots_option,
        "--fold": fold,
        "--seed": seed,
        "--epochs": epochs,
    }
    of_shots |= {"--learning-rate": learning_rate, "--weight-decay": weight_decay, "--shot-batch": shot_batch}
    prototypes = {"--classes": classes, "--save-classes": save_classes, "--templates": templates, "--names": names, "--scale": scale}
    _refuse(suite, {"--labels": labels, "--truth": truth, "--metric": metric, "--manifest": manifest}, "a suite has its own")
    of_suite = {"--root": root, "--suite-option": suite_option, "--shots-option": shots_option, "--fold": fold}
    _refuse(not suite, of_suite, "only a --suite takes it")
    _refuse(not classes, {"--class-modality": class_modality, "--class-by": class_by}, "it belongs to --classes")
    _refuse(not shots, of_shots, "it belongs to --shots")
    _refuse(shots, prototypes, "a probe has no use for it")
    if not suite:
        _check_asked(modality, labels, classes, truth, shots)
    if pool == "none" and (suite or truth or shots):
        raise UsageError("--pool none shows each window of an item, and the truth is of an item as a whole")
    outputs = Outputs(report, html, plot, draws, top)
    outputs.check(bool(suite or truth))
    if save_classes:
        check_new(save_classes)

    others = Others(strict)
    space = Space(model, config, device, str(dtype), batch_size, workers, say, keep_freed_memory)
    if suite:
        opened = _open_suite(suite, root, suite_option or [], modality)
        task = _suite_task(opened, space, inputs or [], reading_options(opened.modality, chosen), outputs)
    else:
        name, readers, options = str(modality), store_readers(inputs or []), reading_options(str(modality), chosen)
        items = [] if readers else find_items((name,), inputs or [], manifest, nul, "fps" in options, others)(None)
        given = Inputs(space, name, readers, items, str(pool), options)
        task = _plain_task(given, labels, truth, metric and str(metric), outputs)
        rows = readers or manifest or "-" in (inputs or ["-"])
        if task.truth and task.truth.by_id is None and task.truth.how not in ("folder", "id") and not rows:
            raise UserError(f"--truth {truth}: no such file, and no column: files have none, rows of a manifest or a store do")
    _refuse(task.metric == "recall", {"--shots": shots, **prototypes}, "captions find their items here, and nothing is classified")
    support = None
    if shots_option:
        other = _open_suite(str(suite), root, [*(suite_option or []), *shots_option], modality)
        support = _suite_task(other, space, [str(shots_from)] if shots_from else [], reading_options(other.modality, chosen), outputs)
    elif shots_from:
        from imagebind_cli.store import open_store

        support = dataclasses.replace(task, given=Inputs(space, task.given.modality, [open_store(shots_from)], []))
    with Talk(errors, "classified", others) as talk:
        if task.metric == "recall":
            whole = find_captions(task, talk)
        elif shots:
            whole = few_shot(task, talk, shots, stated, support, fold or "1")
        else:
            files = str(class_modality or task.given.modality)
            whole = zero_shot(task, talk, ByPrototype(classes, class_by, files, templates, names and str(names), scale, save_classes))
    if talk.failed or not whole:
        raise typer.Exit(1)


def _refuse(when: object, options: Mapping[str, object], why: str) -> None:
    """Refuse the first of these options that was given, under a condition."""
    for name, value in options.items():
        if when and value is not None:
            raise UsageError(f"{name}: {why}")


def _check_asked(modality: str | None, labels: str | None, classes: Path | None, truth: str | None, shots: int | None) -> None:
    if modality is None:
        raise UsageError("say what the inputs are, or name a --suite")
    if labels is not None and classes is not None:
        raise UsageError("--labels and --classes exclude each other: names in text, or classes by example")
    if shots is None and labels is None and classes is None:
        raise UsageError("say what to tell apart: either --labels in text, or --classes by example")
    if shots and not truth:
        raise UsageError("--shots learns from the truth; give --truth")


def _open_suite(name: str, root: Path | None, options: list[str], modality: str | None) -> Suite:
    from imagebind_cli.evaluation.suites import open_suite

    if root is None:
        raise UsageError("--suite needs --root, the folder of its dataset")
    wrong = next((option for option in options if "=" not in option), None)
    if wrong is not None:
        raise UsageError(f"--suite-option {wrong!r}: NAME=VALUE is needed")
    suite = open_suite(name, root, dict(option.split("=", 1) for option in options))
    if modality is not None and modality != suite.modality:
        raise UsageError(f"suite {name} is of {suite.modality}, not {modality}")
    for note in suite.notes:
        say(f"{name}: {note}")
    return suite


def _plain_task(given: Inputs, labels: str | None, truth: str | None, metric: str | None, outputs: Outputs) -> Task:
    from imagebind_cli.evaluation.labels import read_labels
    from imagebind_cli.evaluation.truth import open_truth

    return Task(given, read_labels(labels) if labels is not None else None, open_truth(truth) if truth else None, metric, outputs)


def _suite_task(suite: Suite, space: Space, inputs: list[str], options: Mapping[str, Any], outputs: Outputs) -> Task:
    from imagebind_cli.evaluation.labels import Label, checked
    from imagebind_cli.evaluation.truth import Truth

    readers = store_readers(inputs)
    if len(readers) < len(inputs):
        raise UsageError("with a suite, INPUT can only be a store of its items")
    items = (item for item, _, _ in suite.items())
    given = Inputs(space, suite.modality, readers, items, "mean", {**suite.reading, **options}, suite.weights)
    if suite.metric == "recall":
        return Task(given, None, None, "recall", outputs, suite)
    names = [name for name, _ in suite.classes]
    truth = Truth(f"suite {suite.name}", {item.id: [names[place] for place in places] for item, places, _ in suite.items()})
    labels = checked(suite.name, [Label(name, tuple(several)) for name, several in suite.classes])
    return Task(given, labels, truth, suite.metric, outputs, suite)


zeroshot.__doc__ = HELP
