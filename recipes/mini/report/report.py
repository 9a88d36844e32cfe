"""Measure imagebind-mini's runs as `report.toml` says, and write the report: every measure with its interval, chance and claim.

    python recipes/mini/report/report.py WORK [REPORT.md]

REPORT.md is docs/mini-report.md of this clone if it is not given. Only `imagebind embed`, `zeroshot` and `retrieve` are used, and rows that
scenes.py, moments.py and recipes/separate have left. Vectors and scores stay in WORK/scores, so a second run only writes the report anew;
confusion matrices go into a folder beside the report.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from measured import read_rows

from imagebind_cli.training import read_progress

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Items:
    """Held-out items of one modality, listed in `manifest`, and the file of the names that they are classified by; paths under WORK/data."""

    modality: str
    manifest: str
    names: str


@dataclass(frozen=True)
class Test:
    """Classification of held-out items by names in words.

    runs: pattern of run folders. bar: what was asked for, as a share. claim: what a reader may conclude. train: the manifest of the training
    items that a supervised probe learns from; no probe if it is empty.
    """

    title: str
    items: Items
    runs: str
    bar: float | None = None
    claim: str = ""
    train: str = ""


@dataclass(frozen=True)
class Search:
    """Two modalities that search for each other's held-out items; items with the same value of `key` belong together.

    sides: modality and manifest, where a `.json` file holds names. runs: pattern of run folders. trained: whether the two met in training.
    bar: what was asked for, as a share.
    """

    title: str
    sides: tuple[Sequence[str], Sequence[str]]
    key: str
    runs: str
    trained: bool
    bar: float | None = None


@dataclass(frozen=True)
class Use:
    """A row that another program has measured.

    rows: its file under WORK. row: its title there. bar: what was asked for, in the row's unit. most: what the control was to stay below.
    """

    title: str
    rows: str
    row: str
    bar: float | None = None
    most: float | None = None
    claim: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report: heading and text where they are not empty, then a table of tests, of searches or of uses."""

    heading: str = ""
    text: str = ""
    tests: tuple[Test, ...] = ()
    searches: tuple[Search, ...] = ()
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What `report.toml` says. options: flags of `imagebind embed` by modality. plotted_names: the most names a confusion matrix is shown for."""

    title: str
    prompts: Path
    plotted_names: int
    introduction: str
    options: Mapping[str, Sequence[str]]
    sections: tuple[Section, ...]


def read_plan(path: Path) -> Plan:
    """Read a report's plan from a TOML file; paths in it are relative to its folder.

    Raises:
        KeyError: a test names items that the file does not define.
        TypeError: a key is missing or unknown.
    """
    values = tomllib.loads(path.read_text())
    items = {name: Items(**entry) for name, entry in values.pop("items").items()}
    sections = [
        Section(
            **section
            | {
                "tests": tuple(Test(**test | {"items": items[test["items"]]}) for test in section.get("tests", ())),
                "searches": tuple(Search(**search) for search in section.get("searches", ())),
                "uses": tuple(Use(**use) for use in section.get("uses", ())),
            }
        )
        for section in values.pop("sections")
    ]
    return Plan(**values | {"prompts": path.parent / values["prompts"], "sections": tuple(sections)})


def imagebind(*arguments: str | Path) -> str:
    """Run a command and return its stdout; exit with its messages if it fails. Exit code 1 means that single items failed, which is allowed."""
    done = subprocess.run(["imagebind", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"report: imagebind {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


class Measures:
    """Scores of the runs in a work folder, each computed once and kept in WORK/scores."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self._work, self._plan = work, plan

    def finished_runs(self, pattern: str) -> list[str]:
        """Names of the finished runs of a pattern, in order. A run that stopped halfway is left out; a model folder without a run counts."""
        folders = [path for path in (self._work / "runs").glob(pattern) if (path / "config.json").exists()]
        return sorted(path.name for path in folders if not (path / "run.json").exists() or read_progress(path).finished)

    def rows(self, manifest: str) -> list[dict[str, Any]]:
        """Read a manifest's rows, or make a row for each name of a list or table of names."""
        path = self._work / "data" / manifest
        if path.suffix == ".jsonl":
            with path.open() as lines:
                return [json.loads(line) for line in lines]
        names = json.loads(path.read_text())
        table = names if isinstance(names, dict) else {name: name for name in names}
        return [{"id": key, "text": text, "label": key, "name": key} for key, text in table.items()]

    def store(self, run: str, modality: str, manifest: str, labels: Container[str] | None = None) -> Path:
        """Embed a manifest with a run's model and return the store. A file that stands in several rows is embedded once.

        labels: embed only rows with these labels; None for all rows.
        """
        path = self._work / "scores" / run / f"{modality}-{Path(manifest).with_suffix('').as_posix().replace('/', '-')}.h5"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unique: dict[str, dict[str, Any]] = {}
            for row in self.rows(manifest):
                if labels is not None and row["label"] not in labels:
                    continue
                source = row["text"] if modality == "text" else str((self._work / "data" / manifest).parent / row[modality])
                unique.setdefault(source, row | {modality: source})
            unique_rows = path.with_suffix(".jsonl")
            unique_rows.write_text("".join(json.dumps(row) + "\n" for row in unique.values()))
            options = self._plan.options.get(modality, ())
            imagebind("embed", modality, "--manifest", unique_rows, "--model", self._work / "runs" / run, "-o", path, *options)
        return path

    def classify(self, items: Items, run: str) -> tuple[dict[str, Any], Path]:
        """Classify items by their names; return the scores, and the confusion matrix's picture."""
        vectors = self.store(run, items.modality, items.manifest)
        report = vectors.with_name(f"{vectors.stem}-by-{Path(items.names).stem}.json")
        plot = report.with_suffix(".png")
        if not report.exists():
            imagebind(
                "zeroshot", items.modality, vectors, "--labels", self._work / "data" / items.names, "--templates", self._plan.prompts,
                "--truth", "label", "--model", self._work / "runs" / run, "--report", report, "--plot", plot,
            )  # fmt: skip
        return json.loads(report.read_text())["scores"], plot

    def probe(self, test: Test, run: str) -> float | None:
        """Top-1 of a linear classifier of a run's vectors, trained with labels: what the vectors hold, whether or not words reach it."""
        if not test.train:
            return None
        items = test.items
        vectors = self.store(run, items.modality, items.manifest)
        report = vectors.with_name(f"{vectors.stem}-probe.json")
        if not report.exists():
            labels = {row["label"] for row in self.rows(items.manifest)}
            examples: dict[str, set[str]] = defaultdict(set)
            for row in self.rows(test.train):
                if row["label"] in labels:
                    examples[row["label"]].add(row[items.modality])
            store = self.store(run, items.modality, test.train, labels)
            imagebind(
                "zeroshot", items.modality, vectors, "--truth", "label", "--shots", str(min(map(len, examples.values()))),
                "--shots-from", store, "--report", report,
            )  # fmt: skip
        value: float = json.loads(report.read_text())["scores"]["top1"]["value"]
        return value

    def search(self, search: Search, run: str) -> list[dict[str, Any]]:
        """Search with each side's items among the other's; return the recall of both directions."""
        (first, first_manifest), (second, second_manifest) = search.sides
        stores = [self.store(run, *side) for side in search.sides]
        report = stores[0].with_name(f"{stores[0].stem}-to-{stores[1].stem}.json")
        if not report.exists():
            partners = defaultdict(list)
            for row in self.rows(second_manifest):
                partners[row[search.key]].append(row["id"])
            pairs = report.with_suffix(".jsonl")
            rows = (row for row in self.rows(first_manifest) if row[search.key] in partners)
            pairs.write_text("".join(json.dumps({first: row["id"], second: partners[row[search.key]]}) + "\n" for row in rows))
            report.write_text(imagebind("retrieve", *stores, "--pairs", pairs))
        directions: list[dict[str, Any]] = json.loads(report.read_text())["directions"]
        return directions


def percent(values: Iterable[float | None]) -> str:
    """Write the mean of shares in per cent and, of several, the spread between them; values that are None do not count."""
    several = [100 * value for value in values if value is not None]
    if not several:
        return ""
    return f"{mean(several):.1f}" + (f" ± {stdev(several):.1f}" if len(several) > 1 else "")


def interval(score: Mapping[str, float]) -> str:
    """Write a score's 95 % interval in per cent."""
    return f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"


def bar(value: float | None) -> str:
    """Write what was asked for in per cent."""
    return "" if value is None else f"{100 * value:.0f}"


def table(head: list[str], lines: Iterable[list[str]]) -> list[str]:
    """Write a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def classification(measures: Measures, tests: Iterable[Test], figures: Path, plotted_names: int) -> list[str]:
    """Write a row for each test: the mean of its runs, the interval over items of the first run, chance, and what was asked for.

    Confusion matrices of the first run, of tests with at most `plotted_names` names, are copied into `figures`.
    """
    lines = []
    for test in tests:
        runs = measures.finished_runs(test.runs)
        if not runs:
            lines.append([test.title, "not run", *[""] * 7])
            continue
        results = [measures.classify(test.items, run) for run in runs]
        scores, plot = [scores for scores, _ in results], results[0][1]
        first = scores[0]["top1"]
        lines.append(
            [
                test.title,
                str(len(runs)),
                percent(score["top1"]["value"] for score in scores),
                interval(first),
                f"{100 * first['chance']:.2f}",
                bar(test.bar),
                percent(score["mean_per_class"]["value"] for score in scores),
                percent(measures.probe(test, run) for run in runs),
                test.claim,
            ]
        )
        if len(measures.rows(test.items.names)) <= plotted_names:
            figures.mkdir(exist_ok=True)
            shutil.copy(plot, figures / f"{runs[0]}-{plot.name}")
    head = ["test", "runs", "top-1, %", "95 % over items", "chance", "asked for", "balanced", "probe", "what it can claim"]
    return table(head, lines)


def retrieval(measures: Measures, searches: Iterable[Search]) -> list[str]:
    """Write two rows for each search that was run, one a direction."""
    lines = []
    for search in searches:
        results = [measures.search(search, run) for run in measures.finished_runs(search.runs)]
        for direction in results[0] if results else ():
            query, target = direction["query"]["modality"], direction["target"]["modality"]
            scores = [same for result in results for same in result if same["query"]["modality"] == query]
            lines.append(
                [
                    f"{search.title}: {query} to {target}",
                    "trained" if search.trained else "emergent",
                    str(len(scores)),
                    *(percent(score[f"R@{count}"]["value"] for score in scores) for count in (1, 5, 10)),
                    interval(direction["R@1"]),
                    bar(search.bar),
                ]
            )
    return table(["search", "pair", "runs", "R@1, %", "R@5", "R@10", "95 % of R@1", "asked for"], lines)


def uses_table(work: Path, uses: Iterable[Use]) -> list[str]:
    """Write a row for each use that was measured, with its floor and its control."""
    lines = []
    for use in uses:
        row = read_rows(work / use.rows).get(use.row)
        if row is None:
            lines.append([use.title, "not run", *[""] * 7])
            continue
        figures = [f"{row.value:.1f}", f"{row.low:.1f} to {row.high:.1f}", f"{row.floor:.1f}", f"{row.control:.1f}"]
        asked = ["" if bar is None else f"{bar:g}" for bar in (use.bar, use.most)]
        lines.append([use.title, str(row.count), *figures, *asked, use.claim])
    head = ["use", "items", "figure", "95 %", "floor", "wrong query", "asked for", "wrong query at most", "what it can claim"]
    return table(head, lines)


def main(work: Path, report: Path) -> None:
    """Measure the runs that have finished, and write the report."""
    plan = read_plan(HERE / "report.toml")
    measures = Measures(work, plan)
    prompts = ", ".join(f"`{line}`" for line in plan.prompts.read_text().splitlines())
    figures = report.with_suffix("")
    shutil.rmtree(figures, ignore_errors=True)  # those of runs that no longer exist
    paragraphs = [f"# {plan.title}", plan.introduction.strip().format(prompts=prompts)]
    for section in plan.sections:
        paragraphs += [f"## {section.heading}"] if section.heading else []
        paragraphs += [section.text.strip()] if section.text else []
        if section.tests:
            paragraphs.append("\n".join(classification(measures, section.tests, figures, plan.plotted_names)))
        if section.searches:
            paragraphs.append("\n".join(retrieval(measures, section.searches)))
        if section.uses:
            paragraphs.append("\n".join(uses_table(work, section.uses)))
    paragraphs += [
        "## Confusion matrices",
        "\n".join(f"![{path.stem}]({figures.name}/{path.name})" for path in sorted(figures.glob("*.png"))),
    ]
    report.write_text("\n\n".join(paragraphs) + "\n")
    print(f"report: {report}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE.parents[2] / "docs" / "mini-report.md")
