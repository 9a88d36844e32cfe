"""Search a suite's items by their captions, and captions by items."""

from __future__ import annotations

from typing import Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.captions import caption_matches, galleries, retrieval_values
from imagebind_cli.evaluation.outcomes import Outcomes, query_outcomes
from imagebind_cli.evaluation.prompts import cleaned_text
from imagebind_cli.evaluation.report import bootstrap, retrieval_scores
from imagebind_cli.evaluation.task import Classification, Task
from imagebind_cli.registry import TEXT


def search_captions(task: Task) -> Classification:
    """Search items by captions, and captions by items, in the directions that the suite asks for."""
    suite, space, options = task.suite, task.source.space, task.options
    assert suite is not None
    options.check_metric(suite.metric)
    failed: list[str] = []
    items = task.gather(failed)
    texts = {text: cleaned_text(text) if suite.cleaned else text for _, text, _ in suite.captions}
    different = list(dict.fromkeys(texts.values()))
    vectors = dict(zip(different, space.sentences(different, task.listener, suite.keeps_lengths), strict=True))
    of_captions = np.stack([vectors[texts[text]] for _, text, _ in suite.captions])
    described, captions = galleries(items.ids, items.vectors, suite.captions, of_captions)
    if suite.keeps_lengths:
        described, captions = described.shortened(), captions.shortened()
    if not captions.ids:
        raise UserError(f"{suite.name}: no item that has a caption could be embedded")
    scores: dict[str, Any] = {}
    outcomes: dict[str, Outcomes] = {}
    for direction in suite.directions:
        queries, targets = (captions, described) if direction.startswith("text->") else (described, captions)
        values = retrieval_values(queries, targets)
        suffix = f" {direction}" if scores else ""
        scores |= {name + suffix: score for name, score in retrieval_scores(values, options.draws).items()}
        outcomes |= {name + suffix: outcome for name, outcome in query_outcomes(queries.ids, values).items()}
        task.emit(list(caption_matches(direction, queries, targets, options.top)))
    counts = {"scored": len(described.ids), "captions": len(captions.ids), "failed": len(failed)}
    measured = {"scores": scores, "bootstrap": bootstrap(options.draws, "queries")}
    cleaned = {"cleaned": True} if suite.cleaned else {}
    record = {"captions": {"count": len(different), **cleaned, "made": space.made_of(TEXT)}}
    report = task.report(" and ".join(suite.directions), counts, measured, record)
    return Classification(task.rows, report, lambda: outcomes)
