"""The three ways `zeroshot` measures: classes by prototypes, by a probe trained on a few examples, and captions that look for their items."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli.cli.classification import Outputs, classify, finish, from_examples, from_names, keep, say_gaps
from imagebind_cli.cli.output import write
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UserError
from imagebind_cli.registry import encoder_name
from imagebind_cli.space import Inputs

if TYPE_CHECKING:
    from imagebind_cli.evaluation.classify import Batch
    from imagebind_cli.evaluation.few_shot import Training
    from imagebind_cli.evaluation.labels import Label
    from imagebind_cli.evaluation.suites import Suite
    from imagebind_cli.evaluation.tally import Tally
    from imagebind_cli.evaluation.truth import Truth


@dataclass(frozen=True)
class Task:
    """What is classified, what is known of it, and where it goes."""

    given: Inputs
    labels: list[Label] | None
    truth: Truth | None
    metric: str | None
    outputs: Outputs
    suite: Suite | None = None

    @property
    def folds(self) -> dict[str, str | None]:
        """The fold of each item of a suite."""
        return {item.id: fold for item, _, fold in self.suite.items()} if self.suite else {}

    def tally(self, classes: list[str]) -> Tally:
        """An empty tally, its truth checked against the classes."""
        from imagebind_cli.evaluation.tally import Tally

        tally = Tally(classes, self.truth, self.metric, self.folds)
        self.outputs.check_metric(tally.metric)
        return tally

    def document(self, kind: str, items: Mapping[str, Any], measured: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """A whole report."""
        suite = self.suite
        about: dict[str, Any] = {}
        if suite:
            files = [str(path) for path in suite.files]
            about = {"suite": suite.name, "about": suite.about, "options": suite.options, "files": files, "notes": suite.notes}
            about |= {"published": suite.published, "published_in": suite.source}
            if seen := self.seen():
                about["seen"] = seen
        return {
            "title": f"{suite.name if suite else self.given.modality} {kind}",
            "items": items,
            **measured,
            **about,
            **record,
            **({"truth": self.truth.record()} if self.truth else {}),
            "made": self.given.made(),
            "version": sys.modules["imagebind_cli"].__version__,
        }

    def seen(self) -> str:
        """Return what the model has seen of the suite's data, in words; empty where nothing is known."""
        assert self.suite is not None
        space, used = self.given.space, (*(self.suite.weights or [self.given.modality]), "text")
        known = {name: space.trained_on().get(name, {}).get(self.suite.name) for name in map(encoder_name, used)}
        return "; ".join(f"the model has seen this data: its {name} encoder {what}" for name, what in known.items() if what)

    def conclude(self, kind: str, tally: Tally, record: Mapping[str, Any]) -> bool:
        """Report on a tally, if there is truth. Whether all of the truth was met."""
        if self.truth is None:
            return True
        from imagebind_cli.evaluation.report import measure

        missed = say_gaps(tally)
        items = {
            "scored": tally.scored,
            "failed": tally.failed,
            "without_truth": tally.without_truth,
            "truth_without_item": len(self.truth.unmet()),
            "sha256": tally.sha256(),
        }
        finish(self.document(kind, items, measure(tally, self.outputs.draws), record), self.outputs)
        return not missed


@dataclass(frozen=True)
class ByPrototype:
    """How classes become vectors, where not by the task's labels in the default prompts.

    examples: a store or a folder in place of names; by: how the class of each is named; modality: what the files in the folder are.
    templates: a set or a file. names: `max` or `mean` of several vectors of a class; None for max of names in text, mean of examples.
    scale: in place of the modality's. save: a store to keep them in.
    """

    examples: Path | None
    by: str | None
    modality: str
    templates: str | None
    names: str | None
    scale: float | None
    save: Path | None


def zero_shot(task: Task, talk: Talk, how: ByPrototype) -> bool:
    """Classify by class vectors. Whether all of the truth was met."""
    from imagebind_cli.evaluation import labels, prompts
    from imagebind_cli.evaluation.classify import Classifier, pair_scale

    space, suite = task.given.space, task.suite
    record: dict[str, Any] = {}
    if how.examples:
        found = from_examples(how.examples, how.by, how.modality, space, talk)
        tally = task.tally(found.classes)
    else:
        assert task.labels is not None
        own = prompts.checked(f"suite {suite.name}", suite.templates) if suite and suite.templates and not how.templates else None
        templates = own or prompts.read_templates(how.templates or prompts.DEFAULT)
        tally = task.tally([label.name for label in task.labels])
        found = from_names(task.labels, templates, space, talk)
        record = {"labels": {"count": len(task.labels), "sha256": labels.digest(task.labels)}}
    if how.save:
        keep(found, how.save)
    by_text = found.made["modality"] == "text"
    names = how.names or (suite.names_rule if suite and by_text else "max" if by_text else "mean")
    found = found.averaged() if names == "mean" else found
    scale = how.scale or pair_scale(task.given.made()[0], found.made)
    classifier = Classifier(found.classes, found.scores, scale)
    classify(task.given.batches(talk, tally.fail, _by_column(task.truth)), classifier, tally, task.outputs, talk)
    record["prototypes"] = {"names": names, "scale": scale, "rows": len(found.vectors), "sha256": found.sha256(), "made": found.made}
    return task.conclude("zero-shot", tally, record)


def few_shot(task: Task, talk: Talk, shots: int, chosen: Mapping[str, Any], support: Task | None, fold: str) -> bool:
    """Train a probe on `shots` of each class among the items, or among those of `support`, and classify the others.

    chosen: fields of `Training`, None where they are as published, or the default. Whether all of the truth was met.
    """
    from imagebind_cli.evaluation import few_shot as probe
    from imagebind_cli.evaluation.classify import Classifier

    if task.metric == "map" or (task.truth and task.truth.several):
        raise UserError("a probe learns one label of each item, and this truth has several")
    stated = {name: value for name, value in chosen.items() if value is not None}
    how = dataclasses.replace(probe.published(task.given.modality), shots=shots, **stated)
    say(f"linear probe: {how.words()}")
    failed: list[str] = []
    if support:
        support = _with_few(support, how)
    items = _gathered(task.given, talk, failed, task.truth)
    source, truth = (_gathered(support.given, talk, failed, support.truth), support.truth) if support else (items, task.truth)
    assert truth is not None
    known = [truth.of(id, meta) for id, meta in zip(source.ids, source.metas, strict=True)]
    tally = task.tally([label.name for label in task.labels or ()] or sorted({label for own in known for label in own or ()}))
    for id in failed:
        tally.fail(id)
    true = probe.true_classes([tally.places(own, id) if own else None for own, id in zip(known, source.ids, strict=True)])
    folds = [] if support else [task.folds.get(id) for id in items.ids]
    learnt, tested = probe.split(true, tally.classes, how, folds, fold)
    if support:
        tested = probe.others(items.ids, [source.ids[row] for row in learnt])
    found = probe.train(source.vectors[learnt], true[learnt], len(tally.classes), how)
    classify([items.take(tested)], Classifier(tally.classes, found.scores, 1.0), tally, task.outputs, talk)
    origin = support.given.made() if support else f"folds other than {fold}" if any(folds) else "the inputs"
    record = {"probe": dataclasses.asdict(how) | {"from": origin, "examples": [source.ids[row] for row in learnt]}}
    return task.conclude(f"{shots}-shot", tally, record)


def _with_few(support: Task, how: Training) -> Task:
    """The task with the items that are learnt from alone, where they can be drawn before anything is embedded: those of a suite."""
    from imagebind_cli.evaluation import few_shot as probe

    if support.suite is None or support.given.stored:
        return support
    items = [(item, places) for item, places, _ in support.suite.items()]
    true = probe.true_classes([places for _, places in items])
    learnt, _ = probe.split(true, [name for name, _ in support.suite.classes], how, [], "")
    return dataclasses.replace(support, given=support.given.of([items[row][0] for row in learnt]))


def find_captions(task: Task, talk: Talk) -> bool:
    """Let captions look for their items, and items for their captions, as the suite asks. All of the truth is met."""
    import numpy as np

    from imagebind_cli.evaluation.captions import answers, ask, sides
    from imagebind_cli.evaluation.report import bootstrap, retrieval_scores

    suite, space = task.suite, task.given.space
    assert suite is not None
    task.outputs.check_metric(suite.metric)
    failed: list[str] = []
    items = _gathered(task.given, talk, failed, None)
    texts = list(dict.fromkeys(text for _, text, _ in suite.captions))
    rows = dict(zip(texts, space.sentences(texts, talk), strict=True))
    described, asking = sides(items.ids, items.vectors, suite.captions, np.stack([rows[text] for _, text, _ in suite.captions]))
    if not asking.ids:
        raise UserError(f"{suite.name}: no item that has a caption could be embedded")
    scores: dict[str, Any] = {}
    for direction in suite.directions:
        queries, gallery = (asking, described) if direction.startswith("text->") else (described, asking)
        found = retrieval_scores(ask(queries, gallery), task.outputs.draws)
        scores |= found if not scores else {f"{name} {direction}": score for name, score in found.items()}
        if task.outputs.rows:
            for row in answers(queries, gallery, task.outputs.top):
                write(json.dumps({"direction": direction, **row}).encode() + b"\n")
    counts = {"scored": len(described.ids), "captions": len(asking.ids), "failed": len(failed)}
    measured = {"scores": scores, "bootstrap": bootstrap(task.outputs.draws, "queries")}
    record = {"captions": {"count": len(texts), "made": space.made_of("text")}}
    finish(task.document(" and ".join(suite.directions), counts, measured, record), task.outputs)
    return True


def _gathered(given: Inputs, talk: Talk, failed: list[str], truth: Truth | None) -> Batch:
    from imagebind_cli.evaluation.classify import joined

    return joined(list(given.batches(talk, failed.append, _by_column(truth))))


def _by_column(truth: Truth | None) -> bool:
    """Whether the truth stands in what the manifest said of an item."""
    return truth is not None and truth.by_id is None and truth.how != "folder"
