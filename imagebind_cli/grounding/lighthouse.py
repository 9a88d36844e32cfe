"""Moment retrieval with known truth: annotations in the form of Lighthouse and QVHighlights, or of Charades-STA; predictions and scores in theirs.

A line of annotations is `{"qid": 1, "query": "…", "vid": "…", "duration": 150, "relevant_windows": [[0, 16]]}`, for highlights also with
`relevant_clip_ids` and `saliency_scores`; one of Charades-STA is `VID START END##SENTENCE`. A line of predictions is
`{"qid", "query", "vid", "pred_relevant_windows": [[start, end, score], …], "pred_saliency_scores": […]}`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from imagebind_cli.documents import entry_fault, parse_json
from imagebind_cli.errors import UserError
from imagebind_cli.grounding.curves import MomentOptions, ScoreCurve
from imagebind_cli.grounding.moments import MomentAnswer, MomentFinder
from imagebind_cli.grounding.recordings import WindowedItem
from imagebind_cli.metrics import highlight_detection, interval, moment_retrieval
from imagebind_cli.registry import TEXT
from imagebind_cli.retrieval.requests import QueryRequest
from imagebind_cli.tabular import read_lines

CLIP_SECONDS = 2  # of a clip whose saliency people rated


@dataclass(frozen=True)
class MomentTruth:
    """One annotated query.

    windows: its moments in seconds, (n, 2), n 0 where they are not known. saliency: (clips, raters), empty where nobody rated.
    """

    qid: str | int
    query: str
    vid: str
    windows: np.ndarray
    saliency: np.ndarray


def read_moment_truth(path: Path) -> list[MomentTruth]:
    """Read annotations.

    Raises:
        UserError: the file cannot be read, or a line is of neither form.
    """
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            found.append(_lighthouse(line) if line.lstrip().startswith("{") else _charades(line, number))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{path}:{number}: neither a line of Lighthouse nor of Charades-STA: {entry_fault(error)}") from None
    if not found:
        raise UserError(f"{path}: holds no annotations")
    return found


def _lighthouse(line: str) -> MomentTruth:
    row = parse_json(line)
    windows = np.array(row.get("relevant_windows") or np.empty((0, 2)), float).reshape(-1, 2)
    saliency = np.empty((0, 0))
    if row.get("saliency_scores"):
        rated = np.array(row["saliency_scores"], float)
        saliency = np.zeros((int(row["duration"] // CLIP_SECONDS), rated.shape[1]))
        saliency[np.array(row["relevant_clip_ids"], int)] = rated
    return MomentTruth(row["qid"], str(row["query"]), str(row["vid"]), windows, saliency)


def _charades(line: str, number: int) -> MomentTruth:
    place, sentence = line.split("##")
    vid, start, end = place.split()
    return MomentTruth(number, sentence.strip(), vid, np.array([(float(start), float(end))]), np.empty((0, 0)))


@dataclass(frozen=True)
class MomentPrediction:
    """The answer to an annotated query."""

    truth: MomentTruth
    answer: MomentAnswer

    def as_json(self) -> dict[str, Any]:
        """Return the line that Lighthouse's and QVHighlights' evaluations read."""
        windows = [[round(hit.start, 6), round(hit.end, 6), round(hit.score, 9)] for hit in self.answer.hits]
        saliency = [] if not self.answer.curves else [round(float(score), 9) for score in clip_scores(self.answer.curves[0][1])]
        return {
            "qid": self.truth.qid,
            "query": self.truth.query,
            "vid": self.truth.vid,
            "pred_relevant_windows": windows,
            "pred_saliency_scores": saliency,
        }

    def scores(self) -> dict[str, float]:
        """Return the metrics of this query; {} where its truth is not known."""
        found = np.array([(hit.start, hit.end) for hit in self.answer.hits]).reshape(-1, 2)
        scores = moment_retrieval(found, self.truth.windows) if len(self.truth.windows) else {}
        if self.truth.saliency.size and self.answer.curves:
            scores |= highlight_detection(clip_scores(self.answer.curves[0][1]), self.truth.saliency)
        return scores


def clip_scores(curve: ScoreCurve) -> np.ndarray:
    """Return a score for each clip of two seconds, the mean of its seconds; seconds without a score count as the lowest."""
    seconds = np.nan_to_num(curve.scores, nan=float(np.nanmin(curve.scores)))
    padded = np.append(seconds, seconds[-1:]) if len(seconds) % CLIP_SECONDS else seconds
    means: np.ndarray = padded.reshape(-1, CLIP_SECONDS).mean(axis=1)
    return means


def predict(
    finder: MomentFinder, truths: Sequence[MomentTruth], options: MomentOptions, files: Mapping[str, Path] = MappingProxyType({})
) -> Iterator[MomentPrediction]:
    """Answer each annotated query within its own recording, whose id, or file name without ending, is its `vid`.

    Args:
        files: the recordings by `vid`, where they are called otherwise.
    Queries whose recording is missing are counted by the listener as failures.
    """
    by_name: dict[str, WindowedItem] = {}
    for item in finder.items:
        by_name.setdefault(Path(os.path.basename(item.id)).stem, item)
        by_name.setdefault(item.id, item)
    asked: dict[str, tuple[MomentTruth, WindowedItem]] = {}
    for number, truth in enumerate(truths):
        path = files.get(truth.vid)
        names = [truth.vid] if path is None else [str(path), truth.vid, path.stem]
        known = next((name for name in names if name in by_name), None)
        if known is not None:
            asked[str(number)] = truth, by_name[known]
        else:
            finder.listener.failure(str(truth.qid), f"no recording named {truth.vid!r}")
    requests = (QueryRequest(key, ((TEXT, truth.query),)) for key, (truth, _) in asked.items())
    for answer in finder.answer(requests, options, within=lambda query: [asked[query.id][1]]):
        yield MomentPrediction(asked[answer.query.id][0], answer)


def moment_report(scores: Sequence[Mapping[str, float]], draws: int = 1000) -> dict[str, Any]:
    """Return the mean of each metric over queries with its 95 % interval, unless there are no draws, and of how many."""
    names = dict.fromkeys(name for of_query in scores for name in of_query)
    report: dict[str, Any] = {}
    for name in names:
        values = np.array([of_query[name] for of_query in scores if name in of_query])
        low, high = interval(values, draws=draws) if draws else (None, None)
        between = {} if low is None else {"low": low, "high": high}
        report[name] = {"value": float(values.mean()), **between, "queries": len(values)}
    return report
