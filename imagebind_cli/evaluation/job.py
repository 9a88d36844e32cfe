"""Classify inputs, train a probe, run a published suite: what `imagebind zeroshot` does, without a terminal."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation import prompts
from imagebind_cli.evaluation.captions import CaptionMatch, caption_matches, galleries, retrieval_values
from imagebind_cli.evaluation.classifier import Classifier, Prediction, pair_scale
from imagebind_cli.evaluation.labels import Label, check_labels, labels_digest, read_labels, shared_names
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions
from imagebind_cli.evaluation.probe import (
    ProbeTraining,
    check_disjoint,
    draw_examples,
    first_labels,
    probe_training,
    train_probe,
)
from imagebind_cli.evaluation.prototypes import Prototypes, check_new_store, from_examples, from_prompts, save_prototypes
from imagebind_cli.evaluation.report import Report, bootstrap, retrieval_scores
from imagebind_cli.evaluation.task import RowOutput, Task
from imagebind_cli.evaluation.truth import FOLDER, Truth, open_truth, refuse_column
from imagebind_cli.evaluation.vectors import ItemVectors, VectorSource, open_stores, stored_vectors
from imagebind_cli.events import Listener
from imagebind_cli.file_kinds import Others
from imagebind_cli.options import folders_are_frames
from imagebind_cli.registry import TEXT, face
from imagebind_cli.sources import Inputs, from_arguments
from imagebind_cli.space import Space
from imagebind_cli.store import is_store, open_store

if TYPE_CHECKING:
    from imagebind_cli.evaluation.suites import Suite
    from imagebind_cli.model import Model


@dataclass(frozen=True)
class Classification:
    """The result of a run. rows: one for each input, in order; empty where an output took them. report: None where no truth was given."""

    rows: list[Prediction] | list[CaptionMatch]
    report: Report | None


def classify(
    inputs: Inputs | Iterable[str | Path],
    modality: str,
    classes: ClassOptions,
    truth: TruthOptions | None = None,
    *,
    model: Model | str | Space | None = None,
    manifest: Path | str | None = None,
    reading: Mapping[str, Any] | None = None,
    pool: str = "mean",
    report: ReportOptions | None = None,
    output: RowOutput | None = None,
    listener: Listener | None = None,
) -> Classification:
    """Find the classes nearest to each input, and report the scores where the truth is known.

    Args:
        inputs: stores of the modality, which are not embedded again; or what to embed: files, folders, patterns or sentences.
        model: a model, its name, or a `Space` that says on which device it runs; that of the stores if None.
        manifest: a JSONL, CSV or TSV file of the inputs, in place of `inputs`. reading: fields of the modality's reading options.
        pool: `mean` for a row for each input; `none` for a row for each window, with its seconds.
        output: takes the rows as they come, batch by batch; None to keep them for the result.
        listener: receives each input, assumptions, and the scores.
    Raises:
        UsageError: options that exclude each other. UserError: classes or truth that cannot be read, or do not fit each other; stores and a
            model that do not belong together. An input that cannot be read is a failure, which the listener receives.
    """
    if classes.labels is None and classes.classes is None:
        raise UsageError("say what to tell apart: either --labels in text, or --classes by example")
    if pool == "none" and truth is not None and truth.truth:
        raise UsageError("--pool none shows each window of an item, and the truth is of an item as a whole")
    given = Inputs.of(inputs, manifest)
    source = _source(given, modality, Space.of(model, listener or Listener()), reading, pool)
    return _zero_shot(_task(source, classes.labels, truth, report, output, listener), classes, given.others)


def few_shot(
    inputs: Inputs | Iterable[str | Path],
    modality: str,
    truth: TruthOptions,
    probe: ProbeOptions,
    *,
    labels: str | Sequence[Any] | Mapping[str, Any] | None = None,
    model: Model | str | Space | None = None,
    manifest: Path | str | None = None,
    reading: Mapping[str, Any] | None = None,
    report: ReportOptions | None = None,
    output: RowOutput | None = None,
    listener: Listener | None = None,
) -> Classification:
    """Train a linear probe on a few examples of each class, and classify the other inputs.

    Args:
        labels: the classes in their order; those of the truth if None. With labels, the same inputs are also classified by these names, and
            a note says where that scores higher. The other arguments are those of `classify`.
    Raises:
        UserError: as `classify`; the truth has several labels for an item, or a class has too few items.
    """
    if not truth.truth:
        raise UsageError("--shots learns from the truth; give --truth")
    source = _source(Inputs.of(inputs, manifest), modality, Space.of(model, listener or Listener()), reading, "mean")
    task = _task(source, labels, truth, report, output, listener)
    return _few_shot(task, probe, _stored_examples(task, probe), "1")


def run_suite(
    suite: Suite,
    *,
    stores: Sequence[str | Path] = (),
    classes: ClassOptions | None = None,
    probe: ProbeOptions | None = None,
    examples: Suite | None = None,
    fold: str | None = None,
    model: Model | str | Space | None = None,
    reading: Mapping[str, Any] | None = None,
    report: ReportOptions | None = None,
    output: RowOutput | None = None,
    listener: Listener | None = None,
    others: Others | None = None,
) -> Classification:
    """Run a published evaluation, as `open_suite` opens it.

    Args:
        stores: of the suite's items, which are then not embedded again.
        classes: templates, names rule and scale, or examples, in place of the suite's. probe: train a probe in place of class vectors.
        examples: the suite opened with other options, to draw the probe's examples from. fold: the one to test the probe on; 1 if None.
        others: counts files of other kinds among
            examples, which are skipped. The other arguments are those of `classify`.
    Raises:
        UsageError: class options or a probe that do not apply to the suite. UserError: as `classify` and `few_shot`.
    """
    if suite.metric == "recall" and (classes or probe):
        raise UsageError(f"suite {suite.name}: captions find their items here, and nothing is classified")
    if classes and probe:
        raise UsageError(f"suite {suite.name}: a probe has no use for class options")
    heard = listener or Listener()
    space = Space.of(model, heard)

    def task_of(opened: Suite, paths: Sequence[str | Path]) -> Task:
        return _suite_task(opened, space, paths, reading, report or ReportOptions(), output, heard)

    task = task_of(suite, stores)
    if suite.metric == "recall":
        return _search_captions(task)
    if probe is None:
        return _zero_shot(task, classes or ClassOptions(), others or Others())
    if examples is not None:
        return _few_shot(task, probe, task_of(examples, [] if probe.shots_from is None else [probe.shots_from]), fold or "1")
    return _few_shot(task, probe, _stored_examples(task, probe), fold or "1")


def _source(inputs: Inputs, modality: str, space: Space, reading: Mapping[str, Any] | None, pool: str) -> VectorSource:
    """Open the inputs: stores, or what is to be embedded."""
    options = face(modality).read_options(reading or {})
    readers = open_stores(inputs.arguments)
    items = inputs.items((modality,), frames=folders_are_frames(reading or {}))
    has_columns = bool(readers) or inputs.manifest is not None or "-" in inputs.arguments
    return VectorSource(space, modality, readers, items, pool, options, has_columns=has_columns)


def _task(
    source: VectorSource,
    labels: Any,
    truth: TruthOptions | None,
    report: ReportOptions | None,
    output: RowOutput | None,
    listener: Listener | None,
) -> Task:
    truth = truth or TruthOptions()
    opened = open_truth(truth.truth) if truth.truth is not None else None
    if opened and not source.has_columns:
        refuse_column(opened)
    classes = read_labels(labels) if labels is not None else None
    return Task(source, classes, opened, truth.metric, report or ReportOptions(), output, listener or Listener())


def _stored_examples(task: Task, probe: ProbeOptions) -> Task | None:
    """Return the task over the store that the probe learns from; None where it learns from the inputs."""
    if probe.shots_from is None:
        return None
    source = VectorSource(task.source.space, task.source.modality, [open_store(Path(probe.shots_from))], [])
    return dataclasses.replace(task, source=source)


def _suite_task(
    suite: Suite,
    space: Space,
    stores: Sequence[str | Path],
    reading: Mapping[str, Any] | None,
    report: ReportOptions,
    output: RowOutput | None,
    listener: Listener,
) -> Task:
    readers = open_stores(list(map(str, stores)))
    if len(readers) < len(stores):
        raise UsageError("with a suite, INPUT can only be a store of its items")
    items = (item for item, _, _ in suite.items())
    options = face(suite.modality).read_options({**suite.reading, **(reading or {})})
    source = VectorSource(space, suite.modality, readers, items, "mean", options, suite.weights)
    if suite.metric == "recall":
        return Task(source, None, None, "recall", report, output, listener, suite)
    names = [name for name, _ in suite.classes]
    truth = Truth(f"suite {suite.name}", {item.id: [names[place] for place in places] for item, places, _ in suite.items()})
    labels = check_labels(suite.name, [Label(name, tuple(several)) for name, several in suite.classes])
    return Task(source, labels, truth, suite.metric, report, output, listener, suite)


# Classes by their vectors


def _zero_shot(task: Task, options: ClassOptions, others: Others) -> Classification:
    """Classify by class vectors."""
    suite, listener = task.suite, task.listener
    save = None if options.save_classes is None else Path(options.save_classes)
    if save:
        check_new_store(save)
    record: dict[str, Any] = {}
    if options.classes is not None:
        prototypes = _example_prototypes(task, options, others)
        tally = task.tally(prototypes.classes)
    else:
        assert task.labels is not None
        templates = _templates(task, options.templates)
        tally = task.tally([label.name for label in task.labels])
        prototypes = _name_prototypes(task, task.labels, templates)
        record = {"labels": {"count": len(task.labels), "sha256": labels_digest(task.labels)}}
    if save:
        save_prototypes(prototypes, save)
        listener.note(f"{save}: vectors of {len(prototypes.classes):,} classes")
    are_names = prototypes.made["modality"] == TEXT
    names = options.names or (suite.names_rule if suite and are_names else "max" if are_names else "mean")
    prototypes = prototypes.averaged() if names == "mean" else prototypes
    scale = options.scale or pair_scale(task.source.made()[0], prototypes.made)
    classifier = Classifier(prototypes.classes, prototypes.scores, scale)
    for batch in task.source.batches(listener, tally.fail, task.truth is not None and task.truth.needs_metas):
        task.score(batch, classifier, tally)
    record["prototypes"] = {
        "names": names,
        "scale": scale,
        "rows": len(prototypes.vectors),
        "sha256": prototypes.sha256(),
        "made": prototypes.made,
    }
    return Classification(task.rows, task.conclude("zero-shot", tally, record))


def _templates(task: Task, chosen: str | None) -> prompts.Templates:
    suite = task.suite
    if suite and suite.templates and not chosen:
        return prompts.check_templates(f"suite {suite.name}", suite.templates)
    return prompts.read_templates(chosen or prompts.DEFAULT)


def _name_prototypes(task: Task, labels: list[Label], templates: prompts.Templates) -> Prototypes:
    space, listener = task.source.space, task.listener
    for name in shared_names(labels):
        listener.note(f"the name {name!r} stands for more than one class; they cannot be told apart by it")
    made = space.made_of(TEXT) | {"templates": templates.record()}
    return from_prompts(labels, templates, lambda sentences: space.sentences(sentences, listener), made)


def _example_prototypes(task: Task, options: ClassOptions, others: Others) -> Prototypes:
    """Make class vectors of a store's rows, or of the files in a folder with a folder for each class."""
    space, place = task.source.space, Path(str(options.classes))
    if is_store(place):
        reader = space.admit(open_store(place))
        return from_examples(stored_vectors(reader, metas=True), options.class_by, dict(reader.provenance), place)
    if not os.path.isdir(place):
        raise UserError(f"{place}: neither a store of imagebind embed nor a folder")
    modality = options.class_modality or task.source.modality
    items = from_arguments([str(place)], (modality,), io.BytesIO(), others=others)
    source = VectorSource(space, modality, [], items)
    made = source.made()[0]
    return from_examples(source.batches(task.listener, lambda id: None), options.class_by or FOLDER, made, place)


# A probe trained on a few examples


def _few_shot(task: Task, options: ProbeOptions, examples: Task | None, fold: str) -> Classification:
    """Train a probe on examples among the items, or among those of `examples`, and classify the others."""
    if not options.shots:
        raise UsageError("--shots: the number of examples of each class is needed")
    if task.metric == "map" or (task.truth and task.truth.has_several):
        raise UserError("a probe learns one label of each item, and this truth has several")
    listener, training = task.listener, probe_training(task.source.modality, options)
    listener.note(f"linear probe: {training.describe()}")
    failed: list[str] = []
    examples = _drawn_first(examples, training) if examples else None
    items = task.gather(failed)
    source, truth = (examples.gather(failed), examples.truth) if examples else (items, task.truth)
    assert truth is not None
    labels = [truth.of(id, meta) for id, meta in zip(source.ids, source.metas, strict=True)]
    names = [label.name for label in task.labels or ()] or sorted({label for of_item in labels for label in of_item or ()})
    tally = task.tally(names)
    for id in failed:
        tally.fail(id)
    true = first_labels([tally.places(of_item, id) if of_item else None for of_item, id in zip(labels, source.ids, strict=True)])
    folds = [] if examples else [task.folds.get(id) for id in items.ids]
    learned, tested = draw_examples(true, tally.classes, training, folds, fold)
    if examples:
        check_disjoint(items.ids, [source.ids[row] for row in learned])
        tested = np.arange(len(items.ids))
    probe = train_probe(source.vectors[learned], true[learned], len(tally.classes), training)
    batch = items.take(tested)
    task.score(batch, Classifier(tally.classes, probe.scores, 1.0), tally)
    origin = examples.source.made() if examples else f"folds other than {fold}" if any(folds) else "the inputs"
    settings = dataclasses.asdict(training) | {"from": origin, "examples": [source.ids[row] for row in learned]}
    by_names = _zero_shot_accuracy(task, batch)
    record = {"probe": settings} | ({} if by_names is None else {"zero_shot": {"top1": by_names}})
    report = task.conclude(f"{options.shots}-shot", tally, record)
    if report and by_names is not None and report.scores["top1"]["value"] < by_names:
        listener.note(
            f"{report.title}: zero-shot is better, with {100 * by_names:.1f} % of the same items: "
            "try more examples (--shots), or train for longer (--epochs, --learning-rate)"
        )
    return Classification(task.rows, report)


def _zero_shot_accuracy(task: Task, batch: ItemVectors) -> float | None:
    """Compute the share of items that the class names alone put into the right class; None where it is not known.

    It is known where there are class names, unless that would load a model for a suite whose items are all in stores.
    """
    if task.labels is None or (task.suite is not None and task.source.is_stored):
        return None
    try:
        prototypes = _name_prototypes(task, task.labels, _templates(task, None))
    except UserError as error:
        task.listener.note(f"not compared with zero-shot: {error}")
        return None
    if task.suite and task.suite.names_rule == "mean":
        prototypes = prototypes.averaged()
    tally = task.tally(prototypes.classes)
    tally.add(batch, prototypes.scores(batch.vectors))
    return float((tally.ranks() == 0).mean()) if tally.scored else None


def _drawn_first(examples: Task, training: ProbeTraining) -> Task:
    """Reduce the items of a suite to the examples that the probe learns from, so that no others are embedded."""
    if examples.suite is None or examples.source.is_stored:
        return examples
    items = [(item, places) for item, places, _ in examples.suite.items()]
    true = first_labels([places for _, places in items])
    learned, _ = draw_examples(true, [name for name, _ in examples.suite.classes], training, [], "")
    return dataclasses.replace(examples, source=examples.source.of_items([items[row][0] for row in learned]))


# Captions


def _search_captions(task: Task) -> Classification:
    """Search items by captions, and captions by items, in the directions that the suite asks for."""
    suite, space, options = task.suite, task.source.space, task.options
    assert suite is not None
    options.check_metric(suite.metric)
    failed: list[str] = []
    items = task.gather(failed)
    texts = list(dict.fromkeys(text for _, text, _ in suite.captions))
    vectors = dict(zip(texts, space.sentences(texts, task.listener), strict=True))
    described, captions = galleries(items.ids, items.vectors, suite.captions, np.stack([vectors[text] for _, text, _ in suite.captions]))
    if not captions.ids:
        raise UserError(f"{suite.name}: no item that has a caption could be embedded")
    scores: dict[str, Any] = {}
    for direction in suite.directions:
        queries, targets = (captions, described) if direction.startswith("text->") else (described, captions)
        of_direction = retrieval_scores(retrieval_values(queries, targets), options.draws)
        scores |= of_direction if not scores else {f"{name} {direction}": score for name, score in of_direction.items()}
        task.emit(list(caption_matches(direction, queries, targets, options.top)))
    counts = {"scored": len(described.ids), "captions": len(captions.ids), "failed": len(failed)}
    measured = {"scores": scores, "bootstrap": bootstrap(options.draws, "queries")}
    record = {"captions": {"count": len(texts), "made": space.made_of(TEXT)}}
    return Classification(task.rows, task.report(" and ".join(suite.directions), counts, measured, record))
