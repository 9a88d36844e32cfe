"""Classify by class vectors: names in prompts, or examples."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation import prompts
from imagebind_cli.evaluation.classifier import Classifier, pair_scale
from imagebind_cli.evaluation.labels import Label, labels_digest, shared_names
from imagebind_cli.evaluation.options import ClassOptions
from imagebind_cli.evaluation.outcomes import item_outcomes
from imagebind_cli.evaluation.prototypes import Prototypes, check_new_store, from_examples, from_prompts, save_prototypes
from imagebind_cli.evaluation.task import Classification, Task
from imagebind_cli.evaluation.truth import FOLDER
from imagebind_cli.evaluation.vectors import VectorSource, stored_vectors
from imagebind_cli.file_kinds import Others
from imagebind_cli.registry import TEXT
from imagebind_cli.sources import from_arguments
from imagebind_cli.store import is_store, open_store


def classify_by_class_vectors(task: Task, options: ClassOptions, others: Others) -> Classification:
    """Classify inputs by the class vectors nearest to them, made of names in prompts or of examples."""
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
        templates = templates_of(task, options.templates)
        tally = task.tally([label.name for label in task.labels])
        prototypes = name_prototypes(task, task.labels, templates)
        record = {"labels": {"count": len(task.labels), "sha256": labels_digest(task.labels)}}
    if save:
        save_prototypes(prototypes, save)
        listener.note(f"{save}: vectors of {len(prototypes.classes):,} classes")
    are_names = prototypes.made["modality"] == TEXT
    names = options.names or (suite.names_rule if suite and are_names else "max" if are_names else "mean")
    prototypes, classifier = _classifier(task, prototypes, names, options.scale)
    for batch in task.source.batches(listener, tally.fail, task.truth is not None and task.truth.needs_metas):
        task.score(batch, classifier, tally)
    record["prototypes"] = {
        "names": names,
        "scale": classifier.scale,
        "rows": len(prototypes.vectors),
        "sha256": prototypes.sha256(),
        "made": prototypes.made,
    }
    return Classification(task.rows, task.conclude("zero-shot", tally, record), partial(item_outcomes, tally), task.source.made())


def class_vector_classifier(task: Task, options: ClassOptions, others: Others) -> Classifier:
    """Return what classifies vectors by names in prompts or by examples, as `classify_by_class_vectors` does."""
    if options.classes is not None:
        prototypes = _example_prototypes(task, options, others)
    else:
        assert task.labels is not None
        prototypes = name_prototypes(task, task.labels, templates_of(task, options.templates))
    names = options.names or ("max" if prototypes.made["modality"] == TEXT else "mean")
    return _classifier(task, prototypes, names, options.scale)[1]


def _classifier(task: Task, prototypes: Prototypes, names: str, scale: float | None) -> tuple[Prototypes, Classifier]:
    """Return the class vectors as the names rule has them, and the classifier by them."""
    prototypes = prototypes.averaged() if names == "mean" else prototypes
    scale = scale or pair_scale(task.source.made()[0], prototypes.made)
    return prototypes, Classifier(prototypes.classes, prototypes.scores, scale)


def templates_of(task: Task, chosen: str | None) -> prompts.Templates:
    """Return the chosen templates, else the suite's, else the default set."""
    suite = task.suite
    if suite and suite.templates and not chosen:
        templates = prompts.check_templates(f"suite {suite.name}, protocol {suite.protocol}", suite.templates)
    else:
        templates = prompts.read_templates(chosen or prompts.DEFAULT)
    return replace(templates, cleaned=bool(suite and suite.cleaned))


def name_prototypes(task: Task, labels: list[Label], templates: prompts.Templates) -> Prototypes:
    """Make class vectors of names in prompts."""
    space, listener = task.source.space, task.listener
    for name in shared_names(labels):
        listener.note(f"the name {name!r} is that of more than one class, so it cannot distinguish them")
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
