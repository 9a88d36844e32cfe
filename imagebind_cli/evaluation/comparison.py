"""Run one evaluation with several models, and compare their scores on the items that both of a pair have."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.evaluation.options import ReportOptions
from imagebind_cli.evaluation.outcomes import paired_difference
from imagebind_cli.evaluation.report import bootstrap, format_score
from imagebind_cli.evaluation.task import Classification, Rows
from imagebind_cli.events import Listener
from imagebind_cli.space import Space

if TYPE_CHECKING:
    from imagebind_cli.model import Model


@dataclass(frozen=True)
class Comparison:
    """The results of several models.

    results: of each model, by its name. document: everything in JSON's types, as `imagebind zeroshot --report` writes it for several
    models; docs/suites.md describes the keys.
    """

    results: dict[str, Classification]
    document: dict[str, Any]

    @property
    def is_complete(self) -> bool:
        """Check whether every id of the truth belongs to an item of every model."""
        return all(result.report is None or result.report.is_complete for result in self.results.values())

    def as_json(self) -> str:
        """Return the document as JSON text."""
        return json.dumps(self.document, indent=1) + "\n"

    def lines(self) -> list[str]:
        """Return a table as lines of text: a row for each score, a column for each model and for each difference of two."""
        return _aligned([[f"{self.document['title']}, in percent", *self.columns()], *self.rows()])

    def columns(self) -> list[str]:
        """Return the heads of the columns of `rows`, but for the first: the models, then the pairs."""
        return [*self.results, *(" - ".join(pair["models"]) for pair in self.document["differences"])]

    def rows(self) -> list[list[str]]:
        """Return a row of text for each score: its name, the value of each model, and the difference of each pair."""
        reports, pairs = self.document["reports"], self.document["differences"]
        return [
            [
                name,
                *(_cell(name, report["scores"].get(name)) for report in reports),
                *(_cell(name, pair["scores"].get(name), signed=True) for pair in pairs),
            ]
            for name in dict.fromkeys(name for report in reports for name in report["scores"])
        ]

    def gaps(self) -> list[str]:
        """Say which items are in no difference, a line for each pair that left some out."""
        lines = []
        for pair in self.document["differences"]:
            left_out = max((score["left_out"] for score in pair["scores"].values()), default=0)
            if left_out:
                names = " - ".join(pair["models"])
                lines.append(
                    f"{names}: {left_out:,} {'item' if left_out == 1 else 'items'} left out, which one of the two has no result for"
                )
        return lines


def compare(
    run: Callable[..., Classification],
    models: Mapping[str, Model | str | Space] | Iterable[str],
    *,
    report: ReportOptions | None = None,
    modalities: Sequence[str] = (),
    output: Callable[[str, Rows], object] | None = None,
    listener: Listener | None = None,
) -> Comparison:
    """Run an evaluation with each of several models in turn, and compare them in pairs.

    A pair is compared on the items that both have a result for, with bootstrap intervals of the difference over the same draws of items.

    Args:
        run: `classify`, `few_shot` or `run_suite` with its own arguments, as `functools.partial(run_suite, suite)`; it is called with
            `model`, `report`, `output` and `listener`. Its inputs are read once for each model.
        models: by the name to show, or names and folders as `load` takes them. One that is named, and not loaded, is dropped after its run.
        modalities: those that every model must have; models are checked before the first of them runs.
        output: takes the rows as they come, with the name of their model; None to keep them for the results.
        listener: receives each input for each model, and the comparison. Notes and failures name the model.
    Raises:
        UsageError: fewer than two models, or one twice. UserError: as `run`; a model that cannot be found or lacks a modality; there is no
            truth to compare with.
    """
    heard, options = listener or Listener(), report or ReportOptions()
    spaces = {name: Space.of(model, heard) for name, model in _named(models).items()}
    for name, space in spaces.items():
        for modality in modalities:
            try:
                space.loaded.config(modality)
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
    results: dict[str, Classification] = {}
    failed: set[str] = set()
    for name, space in spaces.items():
        rows = None if output is None else partial(output, name)
        results[name] = run(model=space, report=options, output=rows, listener=_Named(heard, name, failed))
        if results[name].report is None:
            raise UserError("models are compared by their scores, and there is no truth")
        space.forget()
    comparison = Comparison(results, _document(results, options.draws))
    for line in (*comparison.lines(), *comparison.gaps()):
        heard.note(line)
    return comparison


def _named(models: Mapping[str, Model | str | Space] | Iterable[str]) -> dict[str, Model | str | Space]:
    given = list(models.items()) if isinstance(models, Mapping) else [(name, name) for name in models]
    names = [name for name, _ in given]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise UsageError(f"model {twice} is given twice; a comparison needs different ones")
    if len(given) < 2:
        raise UsageError("a comparison needs two models or more")
    return dict(given)


def _document(results: Mapping[str, Classification], draws: int) -> dict[str, Any]:
    reports = {name: result.report.document for name, result in results.items() if result.report}
    outcomes = {name: result.outcomes() for name, result in results.items()}
    differences = []
    for one, other in itertools.combinations(results, 2):
        scores = {}
        for metric in (metric for metric in outcomes[one] if metric in outcomes[other]):
            try:
                found = paired_difference(outcomes[one][metric], outcomes[other][metric], draws)
            except ValueError as error:
                raise UserError(f"{one} and {other} cannot be compared: {error}") from None
            interval = {} if found.low is None else {"low": found.low, "high": found.high}
            scores[metric] = {"value": found.value, **interval, "items": found.items, "left_out": found.left_out}
        differences.append({"models": [one, other], "scores": scores})
    titles = dict.fromkeys(document["title"] for document in reports.values())
    first = next(iter(reports.values()))
    return {
        "title": " and ".join(titles),
        "models": list(results),
        "reports": [{"model": name, **document} for name, document in reports.items()],
        "differences": differences,
        "bootstrap": bootstrap(draws, f"{first['bootstrap']['over']} that both have, the same draws for both"),
    }


def _cell(name: str, score: Mapping[str, float] | None, signed: bool = False) -> str:
    if score is None:
        return ""
    sign = "+" if signed and score["value"] > 0 else ""
    interval = f" ({format_score(name, score['low'])} to {format_score(name, score['high'])})" if "low" in score else ""
    return f"{sign}{format_score(name, score['value'])}{interval}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class _Named(Listener):
    """Passes on what it hears of one model's run, with the model's name. An input that failed for an earlier model stays recorded as failed."""

    def __init__(self, listener: Listener, name: str, failed: set[str]) -> None:
        super().__init__()
        self._listener, self._name, self._before = listener, name, failed

    def note(self, text: str) -> None:
        self._listener.note(f"{self._name}: {text}")

    def remarks(self, id: str, notes: Iterable[str], warnings: Iterable[str]) -> None:
        self._listener.remarks(id, notes, warnings)

    def begin(self, stored: int, count: Callable[[], int | None] | None = None) -> None:
        self._listener.begin(stored, count)

    def succeeded(self, id: str) -> None:
        super().succeeded(id)
        if id in self._before:
            self._listener.done += 1
        else:
            self._listener.succeeded(id)

    def failure(self, id: str, reason: str) -> None:
        super().failure(id, reason)
        self._before.add(id)
        self._listener.failure(id, f"{reason} (model {self._name})")
