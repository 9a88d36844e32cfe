"""Run a suite of moments: the windows of its recordings, a prediction for each annotated query, and the scores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.report import Report, bootstrap, summary
from imagebind_cli.evaluation.suites.suite import suite_record
from imagebind_cli.evaluation.task import seen_in_training
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.grounding.curves import MomentOptions
from imagebind_cli.grounding.lighthouse import MomentPrediction, moment_report, predict
from imagebind_cli.grounding.moments import HOP, MomentFinder
from imagebind_cli.grounding.suites.annotated import MomentSuite
from imagebind_cli.metrics import moment_retrieval
from imagebind_cli.registry import TEXT
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.model import Model

WHOLE = "whole recording"


def run_moment_suite(
    suite: MomentSuite,
    *,
    stores: Sequence[str | Path] = (),
    keep: Path | str | None = None,
    model: Model | str | Space | None = None,
    reading: Mapping[str, Any] | None = None,
    against: Sequence[str] = (),
    options: MomentOptions | None = None,
    draws: int = 1000,
    output: Callable[[MomentPrediction], object] | None = None,
    listener: Listener | None = None,
) -> Report:
    """Run a published evaluation of moments, as `open_moment_suite` opens it.

    The same scores of the whole recording as the one moment come with them: where events fill most of a recording, these are high as well.

    Args:
        stores: of the windows of the suite's recordings, which are then not embedded. keep: a store that their windows are written to, and that
            the next run continues; a temporary one if not given.
        model: as `MomentFinder` takes it; that of the stores if not given. reading: how recordings are read, by the names of the modality's options.
        against, options: as `MomentFinder` takes them. draws: bootstrap draws behind each interval.
        output: takes each prediction as it comes. listener: receives recordings and queries, assumptions, and the scores.
    Raises:
        UserError: as `MomentFinder`, or no query could be answered.
    """
    listener = listener or LogListener()
    for note in suite.notes:
        listener.note(f"{suite.name}: {note}")
    chosen = {**suite.reading, **(reading or {})}
    hop = chosen.pop("hop", HOP)
    scores: list[dict[str, float]] = []
    whole: list[dict[str, float]] = []
    finder = MomentFinder(
        stores or list(map(str, suite.recordings.values())),
        space=Space.of(model, listener),
        modality=suite.modality,
        hop=hop,
        against=against,
        options=chosen,
        keep=None if stores else keep,
        listener=listener,
    )
    with finder:
        for prediction in predict(finder, suite.truths, options or MomentOptions(), suite.recordings):
            if output is not None:
                output(prediction)
            scores.append(prediction.scores())
            whole.append(_whole_recording(prediction))
        made = [dict(store.provenance) for store in finder.stores]
    if not scores:
        raise UserError(f"{suite.name}: none of its {len(suite.truths):,} queries could be answered")
    seen = seen_in_training(finder.space, suite.name, (suite.modality, TEXT))
    report = Report(
        {
            "title": f"{suite.name} moments",
            "items": {"scored": len(scores), "failed": len(suite.truths) - len(scores), "recordings": len(suite.recordings)},
            "scores": moment_report(scores, draws),
            "controls": {WHOLE: {"scores": moment_report(whole, draws), "scored": len(whole)}},
            "bootstrap": bootstrap(draws, "queries"),
            **suite_record(suite),
            "references": suite.references,
            "made": made,
            "version": sys.modules["imagebind_cli"].__version__,
            **({"seen": seen} if seen else {}),
        }
    )
    if seen:
        listener.note(f"{report.title}: not a held-out score: {seen}")
    listener.note(report.summary())
    listener.note(f"the whole of each recording as its one moment: {summary(report.document['controls'][WHOLE]['scores'])}")
    return report


def _whole_recording(prediction: MomentPrediction) -> dict[str, float]:
    """Return the scores of the whole recording as the one moment; {} where no moments are known."""
    if not len(prediction.truth.windows) or not prediction.answer.curves:
        return {}
    curve = prediction.answer.curves[0][1]
    return moment_retrieval(np.array([(curve.start, curve.end)]), prediction.truth.windows)
