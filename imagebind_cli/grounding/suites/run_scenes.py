"""Run a suite of localisation: heat maps of every scene, by its own query and by wrong ones, and their scores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.report import Report, bootstrap, summary
from imagebind_cli.evaluation.suites.suite import suite_record
from imagebind_cli.evaluation.task import seen_in_training
from imagebind_cli.events import Listener, LogListener
from imagebind_cli.grounding.locate import locate_items
from imagebind_cli.grounding.located import Located
from imagebind_cli.grounding.locator import SHARES, Locator
from imagebind_cli.grounding.suites.scene_queries import ClassQueries, SoundQueries
from imagebind_cli.grounding.suites.scene_scores import LOCATION_METRICS, centre_map, compared_map, value_line
from imagebind_cli.grounding.suites.scenes import LocationSuite, Scene
from imagebind_cli.options import ReadingOptions
from imagebind_cli.readers import check_options
from imagebind_cli.registry import face
from imagebind_cli.sources import Failure, Item, reason
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.model import Model

TOGETHER = 64  # scenes whose queries are embedded together
CENTRE = "centre"


@dataclass(frozen=True)
class SceneResult:
    """The answer to the query of a scene, and its own numbers by name; see `LocationMetric.values`."""

    located: Located
    values: dict[str, float | None]

    def as_json(self, box: bool = False) -> dict[str, Any]:
        """Return it as one line of output."""
        return self.located.as_json(box) | {"values": self.values}


def run_location_suite(
    suite: LocationSuite,
    *,
    model: Model | str | Space | None = None,
    method: str = SHARES,
    size: int | None = None,
    reading: Mapping[str, Any] | None = None,
    draws: int = 1000,
    ground: bool = False,
    output: Callable[[SceneResult], object] | None = None,
    listener: Listener | None = None,
) -> Report:
    """Run a published evaluation of localisation, as `open_location_suite` opens it.

    A map always has a largest value. So wrong queries are scored as well: another scene's sound, noise and silence, and a map that is highest in
    the middle of every picture. Scores that do not fall with them are of the picture, and not of the query.

    Args:
        model, method, size: as `locate` takes them. reading: how pictures are read, by the names of the modality's options.
        draws: bootstrap draws behind each interval; 0 for none. ground: keep in the answers what heat maps are drawn on.
        output: takes each scene's answer as it comes. listener: receives each scene, assumptions, and the scores.
    Raises:
        UsageError: as `locate`. UserError: no such model, or no scene could be used.
    """
    listener = listener or LogListener()
    for note in suite.notes:
        listener.note(f"{suite.name}: {note}")
    space = Space.of(model, listener)
    options = face(suite.modality).read_options({**suite.reading, **(reading or {})})
    locator = Locator(space, suite.modality, method, size, listener)
    check_options(locator.face, locator.config, options)
    listener.begin(0, lambda: len(suite.scenes))
    queries = ClassQueries(suite, locator, options, listener) if suite.classes else SoundQueries(suite, locator, listener)
    tally = _Tally(suite)
    for start in range(0, len(suite.scenes), TOGETHER):
        scenes = suite.scenes[start : start + TOGETHER]
        for result in tally.add(_answers(scenes, queries, locator, options, tally, ground, listener)):
            if output is not None:
                output(result)
    if not tally.scored:
        raise UserError(f"{suite.name}: none of its {len(suite.scenes):,} scenes could be used")
    made = [space.made_of(suite.modality, options=options), queries.record()]
    report = Report(tally.document(method, size, draws, listener.failed) | {"made": made} | _seen(suite, space))
    for line in _lines(report):
        listener.note(line)
    return report


def _answers(
    scenes: Sequence[Scene],
    queries: ClassQueries | SoundQueries,
    locator: Locator,
    options: ReadingOptions,
    tally: _Tally,
    ground: bool,
    listener: Listener,
) -> Iterator[Located]:
    """Yield the answers to the queries of some scenes. A scene whose truth or query cannot be read is a failure."""
    asked = queries.of(scenes)
    items: list[Item | Failure] = []
    for scene in scenes:
        own = asked[scene.id]
        try:
            tally.truths[scene.id] = scene.truth()
            items.append(Failure(scene.id, own.fault) if own.asked is None else Item(scene.id, scene.picture))
        except (OSError, ValueError) as error:
            items.append(Failure(scene.id, f"its truth: {reason(error)}"))
    asked_of = {id: own.asked for id, own in asked.items() if own.asked is not None}
    yield from locate_items(items, lambda item: asked_of[item.id], locator, options, ground=ground, listener=listener)


class _Tally:
    """The numbers of all scenes, for their own query and for each wrong one."""

    def __init__(self, suite: LocationSuite) -> None:
        self.suite, self.metric = suite, LOCATION_METRICS[suite.metric]
        self.truths: dict[str, np.ndarray] = {}  # of the scenes in progress
        self._rows: dict[str, list[np.ndarray]] = {}  # by query; "" for the own
        self._higher: dict[str, list[bool]] = {}  # whether the whole picture is nearer to its own query than to the wrong one
        self._centre = centre_map()

    @property
    def scored(self) -> int:
        """Count the scenes that have been added."""
        return len(self._rows.get("", ()))

    def add(self, answers: Iterator[Located]) -> Iterator[SceneResult]:
        """Score answers, those of one scene after the other, and yield that to each scene's own query."""
        for id, group in groupby(answers, lambda located: located.id):
            truth = self.truths.pop(id)
            own, *others = group
            rows = {"": self._row(own, truth)} | {located.query.id: self._row(located, truth) for located in others}
            rows[CENTRE] = self.metric.row(self._centre, truth)
            for query, row in rows.items():
                self._rows.setdefault(query, []).append(row)
            for located in others:
                self._higher.setdefault(located.query.id, []).append(own.whole > located.whole)
            yield SceneResult(own, value_line(self.metric, rows[""].tolist()))

    def _row(self, located: Located, truth: np.ndarray) -> np.ndarray:
        return self.metric.row(compared_map(located.spots[0].heat), truth)

    def document(self, method: str, size: int | None, draws: int, failed: int) -> dict[str, Any]:
        """Return the report, in JSON's types."""
        controls = {
            query: {"scores": self.metric.scores(np.stack(rows), draws), "scored": len(rows)}
            | ({"own_nearer": float(np.mean(self._higher[query]))} if query in self._higher else {})
            for query, rows in self._rows.items()
            if query
        }
        return {
            "title": f"{self.suite.name} by {method}",
            "items": {"scored": self.scored, "failed": failed},
            "scores": self.metric.scores(np.stack(self._rows[""]), draws),
            "controls": controls,
            "bootstrap": bootstrap(draws, "scenes"),
            **suite_record(self.suite),
            "references": self.suite.references,
            "method": method,
            "size": size,
            "version": sys.modules["imagebind_cli"].__version__,
        }


def _lines(report: Report) -> Iterator[str]:
    """Yield the scores as lines: those of the own queries, and those of each wrong query."""
    if "seen" in report.document:
        yield f"{report.title}: not a held-out score: {report.document['seen']}"
    yield report.summary()
    asked = {"swapped": "asked by another scene's query", CENTRE: "the middle of every picture, whatever is asked"}
    for query, control in report.document["controls"].items():
        nearer = f"; the own query is nearer to {100 * control['own_nearer']:.1f} % of the pictures" if "own_nearer" in control else ""
        yield f"{asked.get(query, f'asked by {query}')}: {summary(control['scores'])}{nearer}"


def _seen(suite: LocationSuite, space: Space) -> dict[str, str]:
    seen = seen_in_training(space, suite.name, (suite.modality, suite.query_modality))
    return {"seen": seen} if seen else {}
