"""One classification task: what is classified, what is known of it, who listens, and the report at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.captions import CaptionMatch
from imagebind_cli.evaluation.classifier import Classifier, Prediction, join_predictions, predictions, suppress_predictions
from imagebind_cli.evaluation.labels import Label
from imagebind_cli.evaluation.options import ReportOptions
from imagebind_cli.evaluation.outcomes import Outcomes
from imagebind_cli.evaluation.report import Report, measure
from imagebind_cli.evaluation.suites.suite import suite_record
from imagebind_cli.evaluation.tally import Tally
from imagebind_cli.evaluation.truth import Truth
from imagebind_cli.evaluation.vectors import ItemVectors, VectorSource, concatenate_batches
from imagebind_cli.events import Listener
from imagebind_cli.registry import TEXT, face
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.evaluation.suites import Suite

NAMES_SHOWN = 5  # classes without items that a note lists

Rows = list[Prediction] | list[CaptionMatch]
RowOutput = Callable[[Rows], object]  # takes rows as soon as they are known


@dataclass(frozen=True)
class Classification:
    """The result of a run.

    rows: one for each input, in order; empty where an output took them. report: None where no truth was given. outcomes: returns what each
    item or query adds to each score of the report, with which `compare` compares runs. made: how the vectors were made, a record for each
    store, or of the embedding.
    """

    rows: list[Prediction] | list[CaptionMatch]
    report: Report | None
    outcomes: Callable[[], Mapping[str, Outcomes]] = dict
    made: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Task:
    """Vectors to classify, what is known of them, and the listener.

    metric: `top1`, `map` or `recall`; None to let the truth decide. output: takes the rows as they come, which are then not kept.
    """

    source: VectorSource
    labels: list[Label] | None
    truth: Truth | None
    metric: str | None
    options: ReportOptions
    output: RowOutput | None
    listener: Listener
    suite: Suite | None = None
    rows: list[Any] = field(default_factory=list)  # where no output takes them

    def __post_init__(self) -> None:
        if self.options.nms is not None and (self.truth or self.suite):
            raise UsageError("nms leaves rows out, and scores are of every row; leave nms or the truth out")

    @property
    def folds(self) -> dict[str, str | None]:
        """The fold of each item of a suite, by id."""
        return {item.id: fold for item, _, fold in self.suite.items()} if self.suite else {}

    def emit(self, rows: Rows) -> None:
        """Hand rows to the output, or keep them."""
        if self.output:
            self.output(rows)
        else:
            self.rows.extend(rows)

    def tally(self, classes: list[str]) -> Tally:
        """Start a tally, with its truth checked against the classes."""
        tally = Tally(classes, self.truth, self.metric, self.folds)
        self.options.check_metric(tally.metric)
        return tally

    def gather(self, failed: list[str]) -> ItemVectors:
        """Read all items; the ids of those that cannot be read are added to `failed`."""
        metas = self.truth is not None and self.truth.needs_metas
        return concatenate_batches(list(self.source.batches(self.listener, failed.append, metas)))

    def score(self, batch: ItemVectors, classifier: Classifier, tally: Tally) -> None:
        """Classify a batch: rows to the output, counts to the tally."""
        scores = classifier.score(batch.vectors)
        truths = tally.add(batch, scores)
        rows = predictions(classifier, batch, scores, truths, self.options.top)
        rows = join_predictions(rows) if self.options.stretches else rows
        self.emit(list(rows) if self.options.nms is None else suppress_predictions(list(rows), self.options.nms))
        for id in batch.ids:
            self.listener.succeeded(id)

    def conclude(self, kind: str, tally: Tally, record: Mapping[str, Any]) -> Report | None:
        """Report on a tally; None where there is no truth.

        Raises:
            UserError: no item has truth.
        """
        if self.truth is None:
            return None
        note_gaps(tally, self.listener)
        items = {
            "scored": tally.scored,
            "failed": tally.failed,
            "without_truth": tally.without_truth,
            "truth_without_item": len(self.truth.missed()),
            "sha256": tally.sha256(),
        }
        return self.report(kind, items, measure(tally, self.options.draws), record)

    def report(self, kind: str, items: Mapping[str, Any], measured: Mapping[str, Any], record: Mapping[str, Any]) -> Report:
        """Assemble the report and note its scores. kind: the protocol, as `zero-shot`."""
        document: dict[str, Any] = {
            "title": f"{self.suite.name if self.suite else self.source.modality} {kind}",
            "items": items,
            **measured,
            **(self._suite_record(self.suite) if self.suite else {}),
            **record,
            **({"truth": self.truth.record()} if self.truth else {}),
            "made": self.source.made(),
            "version": sys.modules["imagebind_cli"].__version__,
        }
        report = Report(document)
        if "seen" in document:
            self.listener.note(f"{report.title}: not a held-out score: {document['seen']}")
        self.listener.note(report.summary())
        return report

    def _suite_record(self, suite: Suite) -> dict[str, Any]:
        seen = self._seen(suite)
        return suite_record(suite) | ({"seen": seen} if seen else {})

    def _seen(self, suite: Suite) -> str:
        """Return in words what the model has seen of the suite's data in training; empty where nothing is known."""
        return seen_in_training(self.source.space, suite.name, (*(suite.weights or [self.source.modality]), TEXT))


def seen_in_training(space: Space, suite: str, modalities: Iterable[str]) -> str:
    """Return in words what the encoders of some modalities have seen of a suite's data in training; empty where nothing is known."""
    trained_on = space.trained_on()
    known = {name: trained_on.get(name, {}).get(suite) for name in (face(modality).encoder for modality in modalities)}
    return "; ".join(f"the model has seen this data: its {name} encoder {what}" for name, what in known.items() if what)


def note_gaps(tally: Tally, listener: Listener) -> None:
    """Note where the truth and the items do not match.

    Raises:
        UserError: no item has truth.
    """
    assert tally.truth is not None
    missed, how = tally.truth.missed(), tally.truth.how
    if not tally.scored:
        example = f"; it has ids as {missed[0]!r}" if missed else ""
        raise UserError(f"{how}: no truth for any of {tally.items:,} items{example}")
    if missed:
        listener.note(f"{how}: truth for {len(missed):,} id{'s' * (len(missed) > 1)} that no item has, the first {missed[0]!r}")
    if tally.without_truth:
        listener.note(f"{tally.without_truth:,} of {tally.items:,} items have no truth and are not in the scores")
    absent = tally.absent()
    if absent:
        names = ", ".join(absent[:NAMES_SHOWN]) + (", …" if len(absent) > NAMES_SHOWN else "")
        listener.note(f"{len(absent):,} of {len(tally.classes):,} classes have no item and are not in the means over classes: {names}")
