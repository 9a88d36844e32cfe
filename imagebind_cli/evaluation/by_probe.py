"""Classify by a linear probe trained on a few examples of each class."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.by_class_vectors import name_prototypes, templates_of
from imagebind_cli.evaluation.classifier import Classifier
from imagebind_cli.evaluation.options import ProbeOptions
from imagebind_cli.evaluation.outcomes import item_outcomes
from imagebind_cli.evaluation.probe import ProbeTraining, check_disjoint, draw_examples, first_labels, probe_training, train_probe
from imagebind_cli.evaluation.task import Classification, Task
from imagebind_cli.evaluation.vectors import ItemVectors


def classify_by_probe(task: Task, options: ProbeOptions, examples: Task | None, fold: str) -> Classification:
    """Train a probe on examples among the items, or among those of `examples`, and classify the others."""
    if not options.shots:
        raise UsageError("--shots: the number of examples of each class is needed")
    if task.metric == "map" or (task.truth and task.truth.has_several):
        raise UserError("a probe needs one label per item; this truth gives several")
    listener, training = task.listener, probe_training(task.source.modality, options)
    listener.note(f"linear probe: {training.describe()}")
    failed: list[str] = []
    examples = _drawn_first(examples, training) if examples else None
    items = task.gather(failed)
    source, truth = (examples.gather(failed), examples.truth) if examples else (items, task.truth)
    assert truth is not None
    labels = [truth.of(id, meta) for id, meta in zip(source.ids, source.metas, strict=True)]
    names = [label.name for label in task.labels or ()] or sorted({label for of_item in labels for label in of_item or ()})
    if len(names) < 2:
        raise UserError(f"a probe needs at least two classes; the true labels have {f'{names[0]!r} alone' if names else 'none'}")
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
    return Classification(task.rows, report, partial(item_outcomes, tally))


def _zero_shot_accuracy(task: Task, batch: ItemVectors) -> float | None:
    """Compute the share of items that the class names alone put into the right class; None where it is not known.

    It is known where there are class names, unless that would load a model for a suite whose items are all in stores.
    """
    if task.labels is None or (task.suite is not None and task.source.is_stored):
        return None
    try:
        prototypes = name_prototypes(task, task.labels, templates_of(task, None))
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
