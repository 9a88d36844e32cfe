"""Classify inputs, train a probe, run a published suite: what `imagebind zeroshot` does, without a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli.errors import UsageError
from imagebind_cli.evaluation.by_captions import search_captions
from imagebind_cli.evaluation.by_class_vectors import class_vector_classifier, classify_by_class_vectors
from imagebind_cli.evaluation.by_probe import classify_by_probe
from imagebind_cli.evaluation.classifier import Classifier
from imagebind_cli.evaluation.labels import Label, check_labels, read_labels
from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions
from imagebind_cli.evaluation.task import Classification, RowOutput, Task
from imagebind_cli.evaluation.truth import Truth, open_truth, refuse_column
from imagebind_cli.evaluation.vectors import VectorSource, open_stores
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.file_kinds import Others
from imagebind_cli.options import folders_are_frames
from imagebind_cli.options.drawn import REGION_OPTIONS
from imagebind_cli.registry import face
from imagebind_cli.sources import BoxFile, Inputs
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader, open_store

if TYPE_CHECKING:
    from imagebind_cli.evaluation.suites import Suite
    from imagebind_cli.model import Model


def classify(
    inputs: Inputs | Iterable[str | Path],
    modality: str,
    classes: ClassOptions,
    truth: TruthOptions | None = None,
    *,
    model: Model | str | Space | None = None,
    manifest: Path | str | None = None,
    boxes: BoxFile | Path | str | None = None,
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
        boxes: a file of regions, as `sources.read_boxes` takes it: each region of an input is a row.
        pool: `mean` for a row for each input; `none` for a row for each window, with its seconds.
        output: takes the rows as they come, batch by batch; None to keep them for the result.
        listener: receives each input, assumptions, and the scores.
    Raises:
        UsageError: options that exclude each other; `nms` where nothing has regions. UserError: classes or truth that cannot be read, or do
            not fit each other; stores and a model that do not belong together. An input that cannot be read is a failure, which the listener
            receives.
    """
    if classes.labels is None and classes.classes is None:
        raise UsageError("name the classes: in words with --labels, or by example with --classes")
    if pool == "none" and truth is not None and truth.truth:
        raise UsageError("--pool none classifies windows, and the truth is about whole items; leave one of them out")
    heard = listener or LogListener()
    given = Inputs.of(inputs, manifest).with_boxes(boxes, modality, heard.note)
    source = _source(given, modality, Space.of(model, heard), reading, pool)
    if report is not None and report.nms is not None and not source.has_regions:
        raise UsageError("nms is for overlapping regions, and these inputs have none: give --boxes or --tiles, or a store of regions")
    return classify_by_class_vectors(_task(source, classes.labels, truth, report, output, listener), classes, given.others)


def open_classifier(
    modality: str, classes: ClassOptions, *, model: Model | str | Space | None = None, listener: Listener | None = None
) -> Classifier:
    """Make class vectors once, to classify vectors of a modality as they come, such as those of `live.embed_stream`.

    Raises:
        UsageError: neither labels nor examples. UserError: these cannot be read.
    """
    if classes.labels is None and classes.classes is None:
        raise UsageError("name the classes: in words with --labels, or by example with --classes")
    source = VectorSource(Space.of(model, listener or LogListener()), modality, [], [])
    return class_vector_classifier(_task(source, classes.labels, None, None, None, listener), classes, Others())


def few_shot(
    inputs: Inputs | Iterable[str | Path],
    modality: str,
    truth: TruthOptions,
    probe: ProbeOptions,
    *,
    labels: str | Sequence[Any] | Mapping[str, Any] | None = None,
    model: Model | str | Space | None = None,
    manifest: Path | str | None = None,
    boxes: BoxFile | Path | str | None = None,
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
    heard = listener or LogListener()
    given = Inputs.of(inputs, manifest).with_boxes(boxes, modality, heard.note)
    source = _source(given, modality, Space.of(model, heard), reading, "mean")
    task = _task(source, labels, truth, report, output, listener)
    return classify_by_probe(task, probe, _stored_examples(task, probe), "1")


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
    """Run a published evaluation, as `open_suite` opens it, under the protocol of the model's family unless it was opened under another.

    Args:
        stores: of the suite's items, which are then not embedded again.
        classes: templates, names rule and scale, or examples, in place of the suite's. probe: train a probe in place of class vectors.
        examples: the suite opened with other options, to draw the probe's examples from. fold: the one to test the probe on; 1 if None.
        others: counts files of other kinds among examples, which are skipped. The other arguments are those of `classify`.
    Raises:
        UsageError: class options or a probe that do not apply to the suite. UserError: as `classify` and `few_shot`.
    """
    if suite.metric == "recall" and (classes or probe):
        raise UsageError(f"suite {suite.name}: captions find their items here, and nothing is classified")
    if classes and probe:
        raise UsageError(f"suite {suite.name}: a probe does not use class options")
    heard = listener or LogListener()
    space = Space.of(model, heard)

    readers = open_stores(list(map(str, stores)))
    if len(readers) < len(stores):
        raise UsageError("with a suite, INPUT can only be a store of its items")
    family = readers[0].provenance.get("family") or suite.protocol if readers else space.loaded.family

    def task_of(opened: Suite, stored: Sequence[StoreReader]) -> Task:
        opened = opened.for_family(family)
        for note in opened.notes:
            heard.note(f"{opened.name}: {note}")
        return _suite_task(opened, space, stored, reading, report or ReportOptions(), output, heard)

    task = task_of(suite, readers)
    if suite.metric == "recall":
        return search_captions(task)
    if probe is None:
        return classify_by_class_vectors(task, classes or ClassOptions(), others or Others())
    if examples is not None:
        stored = [] if probe.shots_from is None else [open_store(Path(probe.shots_from))]
        return classify_by_probe(task, probe, task_of(examples, stored), fold or "1")
    return classify_by_probe(task, probe, _stored_examples(task, probe), fold or "1")


def _source(inputs: Inputs, modality: str, space: Space, reading: Mapping[str, Any] | None, pool: str) -> VectorSource:
    """Open the inputs: stores, or what is to be embedded."""
    options = face(modality).read_options(reading or {})
    readers = open_stores(inputs.arguments)
    if readers and (inputs.boxes is not None or options.chosen & set(REGION_OPTIONS)):
        raise UsageError(
            f"{readers[0].path}: a store has the vectors of regions, or whole inputs, already; give files to cut regions out of"
        )
    if not readers:
        inputs.check_reading(options)
    items = inputs.items((modality,), frames=folders_are_frames(reading or {}))
    has_columns = bool(readers) or inputs.manifest is not None or inputs.boxes is not None or "-" in inputs.arguments
    return VectorSource(space, modality, readers, items, pool, options, has_columns=has_columns, record=inputs.record())


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
    return Task(source, classes, opened, truth.metric, report or ReportOptions(), output, listener or LogListener())


def _stored_examples(task: Task, probe: ProbeOptions) -> Task | None:
    """Return the task over the store that the probe learns from; None where it learns from the inputs."""
    if probe.shots_from is None:
        return None
    source = VectorSource(task.source.space, task.source.modality, [open_store(Path(probe.shots_from))], [])
    return dataclasses.replace(task, source=source)


def _suite_task(
    suite: Suite,
    space: Space,
    readers: Sequence[StoreReader],
    reading: Mapping[str, Any] | None,
    report: ReportOptions,
    output: RowOutput | None,
    listener: Listener,
) -> Task:
    items = (item for item, _, _ in suite.items())
    options = face(suite.modality).read_options({**suite.reading, **(reading or {})})
    source = VectorSource(space, suite.modality, readers, items, "mean", options, suite.weights, lengths=suite.keeps_lengths)
    if suite.metric == "recall":
        return Task(source, None, None, "recall", report, output, listener, suite)
    names = [name for name, _ in suite.classes]
    truth = Truth(f"suite {suite.name}", {item.id: [names[place] for place in places] for item, places, _ in suite.items()})
    labels = check_labels(suite.name, [Label(name, tuple(several)) for name, several in suite.classes])
    return Task(source, labels, truth, suite.metric, report, output, listener, suite)
