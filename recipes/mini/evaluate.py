"""What imagebind-mini can do and cannot: every measure with its interval, chance beside it, and what it can claim.

    python evaluate.py WORK [REPORT.md]

Uses `imagebind embed`, `zeroshot` and `retrieve` alone. Names and prompts were fixed before: the names by the data programs, the prompts in
templates.txt. Vectors and scores stay in WORK/scores, so that a second run only writes the report anew; confusion matrices go beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from imagebind_cli.training import state

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates.txt"
PICTURES = ("image-text",)
DEPTH = ("--depth-format", "mm", "--focal", "150")
FOLDS = (1, 2, 3, 4)
FEW = 14
"""Classes of which a confusion matrix can still be read."""


@dataclass(frozen=True)
class Test:
    """Classification of held-out items by names in words.

    runs: run folders, one a seed or fold. bar: what was asked for, as a share. claim: what a reader may conclude. train: a manifest of
    training items, for the supervised probe. options: how the files are read.
    """

    title: str
    modality: str
    manifest: str
    names: str
    runs: tuple[str, ...]
    bar: float | None = None
    claim: str = ""
    train: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """Two modalities that look for each other's held-out items: those of one `key` belong together, a row's own id or what it shows.

    sides: modality, manifest (a `.json` holds names), and how its files are read. trained: whether they met in training.
    """

    title: str
    sides: tuple[tuple[str, str, tuple[str, ...]], ...]
    key: str
    runs: tuple[str, ...]
    trained: bool
    bar: float | None = None


def made(work: Path, pattern: str) -> tuple[str, ...]:
    """The finished runs of a pattern: one that stopped halfway has published what it had; a model fetched whole is no run."""
    found = [path for path in (work / "runs").glob(pattern) if (path / "config.json").exists()]
    return tuple(sorted(path.name for path in found if not (path / "run.json").exists() or state.peek(path).finished))


def tests(work: Path) -> list[Test]:
    """All classification tests."""
    emergent = "emergent over names that pictures were seen with: {} never met a word in training"
    sets = (("fxemoji", 0.60, "the set is new"), ("openmoji", 0.20, "the set, outlined, is new"))
    return [
        *(
            Test(
                f"image to text, an unseen set of drawings ({name}), 1,513 names",
                "image",
                f"drawings/{name}.jsonl",
                "drawings/seen.json",
                PICTURES,
                bar,
                f"trained on pictures and words; {what}",
            )
            for name, bar, what in sets
        ),
        Test(
            "image to text, 150 unseen concepts",
            "image",
            "drawings/unseen.jsonl",
            "drawings/unseen.json",
            PICTURES,
            0.30,
            "neither picture nor name was seen as a pair",
        ),
        *(
            Test(
                f"audio to text, ESC-10, fold {number} held out, 10 names",
                "audio",
                f"sounds/test-esc10-{number}.jsonl",
                "sounds/names-esc10.json",
                made(work, f"audio-without-esc10-{number}-*"),
                0.70,
                emergent.format("sound") + "; real recordings",
                f"sounds/esc10-{number % 4 + 1}.jsonl",
            )
            for number in FOLDS
        ),
        Test(
            "audio to text, instruments of another soundfont, 11 names",
            "audio",
            "sounds/test-soundfont.jsonl",
            "sounds/names-instruments.json",
            made(work, "audio-without-*"),
            0.60,
            emergent.format("sound") + "; played by a program",
            "sounds/instruments.jsonl",
        ),
        Test(
            "audio to text, recordings of real instruments, 11 names",
            "audio",
            "sounds/test-real.jsonl",
            "sounds/names-instruments.json",
            made(work, "audio-without-*"),
            0.30,
            emergent.format("sound") + "; learnt from played notes",
        ),
        Test(
            "IMU to text, other people, 4 names",
            "imu",
            "motion/test.jsonl",
            "motion/names.json",
            made(work, "imu-[0-9]"),
            0.92,
            emergent.format("motion"),
            "motion/train.jsonl",
        ),
        Test(
            "IMU to text, other people, in other words",
            "imu",
            "motion/test.jsonl",
            "motion/names-other-words.json",
            made(work, "imu-[0-9]"),
            0.80,
            emergent.format("motion"),
        ),
        Test(
            "depth to text, held-out models, 14 names",
            "depth",
            "furniture/test-named.jsonl",
            "furniture/names-short.json",
            made(work, "depth-[0-9]"),
            0.65,
            emergent.format("depth") + "; rendered",
            "furniture/train.jsonl",
            DEPTH,
        ),
        Test(
            "depth to text, held-out models, 612 names",
            "depth",
            "furniture/test-names.jsonl",
            "furniture/names-all.json",
            made(work, "depth-[0-9]"),
            0.12,
            emergent.format("depth") + "; rendered",
            "",
            DEPTH,
        ),
    ]


def ceilings() -> list[Test]:
    """The picture side on the same names: what a modality bound to pictures can hardly exceed."""
    return [
        Test("drawings of ESC-10's classes, 10 names", "image", "sounds/ceiling-esc10.jsonl", "sounds/names-esc10.json", PICTURES),
        Test(
            "drawings of the instruments, 11 names", "image", "sounds/ceiling-instruments.jsonl", "sounds/names-instruments.json", PICTURES
        ),
        Test("drawings of the movements, 4 names", "image", "motion/ceiling.jsonl", "motion/names.json", PICTURES),
        Test("held-out models, 14 names", "image", "furniture/test-named.jsonl", "furniture/names-short.json", PICTURES),
        Test("held-out models, 612 names", "image", "furniture/test-names.jsonl", "furniture/names-all.json", PICTURES),
    ]


def controls(work: Path) -> list[Test]:
    """Encoders trained on the same pairs shuffled: not aligned with anything, so that whatever they score is chance."""
    return [
        Test(
            "audio to text, ESC-10, fold 1", "audio", "sounds/test-esc10-1.jsonl", "sounds/names-esc10.json", made(work, "audio-shuffled")
        ),
        Test("IMU to text, other people", "imu", "motion/test.jsonl", "motion/names.json", made(work, "imu-shuffled")),
        Test(
            "depth to text, held-out models, 14 names",
            "depth",
            "furniture/test-named.jsonl",
            "furniture/names-short.json",
            made(work, "depth-shuffled"),
            options=DEPTH,
        ),
    ]


def ablations(work: Path) -> list[Test]:
    """What one setting other than the shipped one does: the directions of the paper's ablations."""
    motion = (
        ("motion as shipped: temperature 0.07, batch 64, linear head", "imu-[0-9]"),
        ("motion, temperature 0.2", "ablation-temperature-[0-9]"),
        ("motion, temperature learnt from 0.07", "ablation-learnt-[0-9]"),
        ("motion, batch 16", "ablation-batch-[0-9]"),
        ("motion, MLP head", "ablation-mlp-[0-9]"),
        ("motion, to the first image encoder of this package, pairs alone", "ablation-pairs-imu-[0-9]"),
        ("motion, to its second, begun as an imitation", "ablation-imitated-imu-[0-9]"),
        ("motion, to its third, concepts told apart, colours not yet taken off", "ablation-concepts-imu-[0-9]"),
    )
    depth = (
        ("depth as shipped: temperature 0.03, one crop and mirror for both sides", "depth-[0-9]"),
        ("depth, temperature 0.07", "ablation-temperature-depth-[0-9]"),
        ("depth, crops and mirrors drawn apart", "ablation-apart-[0-9]"),
        ("depth, to the first image encoder of this package, pairs alone; 0.07, 400 steps", "ablation-pairs-depth-[0-9]"),
        ("depth, to its second, begun as an imitation; 0.07, 400 steps", "ablation-imitated-depth-[0-9]"),
        ("depth, to its third, concepts told apart, colours not yet taken off; 0.07, 400 steps", "ablation-concepts-depth-[0-9]"),
    )
    return [
        *(Test(title, "imu", "motion/test.jsonl", "motion/names-other-words.json", made(work, runs)) for title, runs in motion),
        *(
            Test(title, "depth", "furniture/test-named.jsonl", "furniture/names-short.json", made(work, runs), options=DEPTH)
            for title, runs in depth
        ),
    ]


def searches(work: Path) -> list[Search]:
    """Retrieval between every two modalities that share things to be found."""
    esc, audio = ("audio", "sounds/test-esc10-1.jsonl", ()), made(work, "audio-without-esc10-1-*")
    imu, motion = ("imu", "motion/test.jsonl", ()), made(work, "imu-[0-9]")
    depth, models = ("depth", "furniture/test-one.jsonl", DEPTH), made(work, "depth-[0-9]")
    views = ("image", "furniture/test-one.jsonl", ())

    def names(file: str) -> tuple[str, str, tuple[str, ...]]:
        return "text", file, ()

    def scenes(number: int) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        return tuple((modality, f"roadscene/test-{number}.jsonl", ()) for modality in ("image", "thermal"))

    return [
        Search(
            "image, text: fxemoji, 1,513 names",
            (("image", "drawings/fxemoji.jsonl", ()), names("drawings/seen.json")),
            "label",
            PICTURES,
            True,
        ),
        Search(
            "image, audio: drawings and ESC-10, fold 1, by class", (("image", "sounds/ceiling-esc10.jsonl", ()), esc), "label", audio, True
        ),
        Search("audio, text: ESC-10, fold 1, by class", (esc, names("sounds/names-esc10.json")), "label", audio, False),
        Search(
            "image, IMU: drawings and other people's motion, by class", (("image", "motion/ceiling.jsonl", ()), imu), "label", motion, True
        ),
        Search("IMU, text: other people's motion, by class", (imu, names("motion/names.json")), "label", motion, False),
        Search("image, depth: one view of each of 164 held-out models", (views, depth), "id", models, True, 0.70),
        *(
            Search(f"image, depth: the same, {how}", (views, depth), "id", made(work, runs), True)
            for how, runs in (
                ("temperature 0.07", "ablation-temperature-depth-[0-9]"),
                ("0.07, to the image encoder before it saw other colours", "ablation-concepts-depth-[0-9]"),
            )
        ),
        Search("depth, text: the same models and their names", (depth, names("furniture/names-all.json")), "name", models, False),
        Search(
            "image, thermal: synthetic streets and furniture",
            tuple((modality, "thermal/test.jsonl", ()) for modality in ("image", "thermal")),
            "id",
            made(work, "thermal-[0-9]"),
            True,
        ),
        *(
            Search(
                f"image, thermal: RoadScene's block {number}, never trained on real pairs",
                scenes(number),
                "id",
                made(work, "thermal-[0-9]"),
                True,
            )
            for number in range(3)
        ),
        *(
            Search(
                f"image, thermal: RoadScene's block {number}, trained on the others",
                scenes(number),
                "id",
                made(work, f"roadscene-{number}"),
                True,
            )
            for number in range(3)
        ),
    ]


def imagebind(*arguments: str | Path) -> str:
    """What a command prints; its talk is shown only if it fails."""
    done = subprocess.run(["imagebind", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"evaluate: imagebind {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def rows(work: Path, manifest: str) -> list[dict[str, Any]]:
    """A manifest's rows, or a row for each name of a list or table of names."""
    path = work / "data" / manifest
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.open()]
    names = json.loads(path.read_text())
    table = names if isinstance(names, dict) else {name: name for name in names}
    return [{"id": key, "text": text, "label": key, "name": key} for key, text in table.items()]


def store(work: Path, run: str, modality: str, manifest: str, options: Iterable[str] = (), known: Container[str] | None = None) -> Path:
    """A run's vectors of a manifest, kept in WORK/scores. A recording that stands in several rows counts once. known: labels that are wanted."""
    folder = work / "scores" / run
    path = folder / f"{modality}-{Path(manifest).with_suffix('').as_posix().replace('/', '-')}.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        own, once = path.with_suffix(".jsonl"), {}
        for row in rows(work, manifest):
            if known is not None and row["label"] not in known:
                continue
            place = row["text"] if modality == "text" else str((work / "data" / manifest).parent / row[modality])
            once.setdefault(place, row | {modality: place})
        own.write_text("".join(json.dumps(row) + "\n" for row in once.values()))
        imagebind("embed", modality, "--manifest", own, "--model", work / "runs" / run, "-o", path, *options)
    return path


def classified(work: Path, test: Test, run: str) -> dict[str, Any]:
    """One run's scores on one test."""
    vectors = store(work, run, test.modality, test.manifest, test.options)
    report = vectors.with_name(f"{vectors.stem}-by-{Path(test.names).stem}.json")
    if not report.exists():
        imagebind(
            "zeroshot", test.modality, vectors, "--labels", work / "data" / test.names, "--templates", TEMPLATES, "--truth", "label",
            "--model", work / "runs" / run, "--report", report, "--plot", report.with_suffix(".png"),
        )  # fmt: skip
    scores: dict[str, Any] = json.loads(report.read_text())["scores"]
    return scores


def probed(work: Path, test: Test, run: str) -> float | None:
    """Top-1 of a linear classifier of a run's vectors, trained with labels: what is in them, whether or not words find it."""
    if not test.train:
        return None
    vectors = store(work, run, test.modality, test.manifest, test.options)
    report = vectors.with_name(f"{vectors.stem}-probe.json")
    if not report.exists():
        known = {row["label"] for row in rows(work, test.manifest)}
        counts: dict[str, set[str]] = defaultdict(set)
        for row in rows(work, test.train):
            if row["label"] in known:
                counts[row["label"]].add(row[test.modality])
        examples = store(work, run, test.modality, test.train, test.options, known)
        imagebind(
            "zeroshot", test.modality, vectors, "--truth", "label", "--shots", str(min(map(len, counts.values()))), "--shots-from", examples,
            "--report", report,
        )  # fmt: skip
    value: float = json.loads(report.read_text())["scores"]["top1"]["value"]
    return value


def found(work: Path, search: Search, run: str) -> dict[str, Any]:
    """One run's recall in both directions."""
    (first, one, _), (second, other, _) = search.sides
    stores = [store(work, run, *side) for side in search.sides]
    report = stores[0].with_name(f"{stores[0].stem}-to-{stores[1].stem}.json")
    if not report.exists():
        partners = defaultdict(list)
        for row in rows(work, other):
            partners[row[search.key]].append(row["id"])
        pairs = report.with_suffix(".jsonl")
        lines = ({first: row["id"], second: partners[row[search.key]]} for row in rows(work, one) if row[search.key] in partners)
        pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
        report.write_text(imagebind("retrieve", *stores, "--pairs", pairs))
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def shown(values: Iterable[float | None]) -> str:
    """A mean and, of several, the spread between them, in per cent."""
    several = [100 * value for value in values if value is not None]
    if not several:
        return ""
    return f"{mean(several):.1f}" + (f" ± {stdev(several):.1f}" if len(several) > 1 else "")


def interval(score: dict[str, float]) -> str:
    """A score's 95 % interval, in per cent."""
    return f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"


def table(head: list[str], lines: Iterable[list[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def classification(work: Path, some: Iterable[Test], figures: Path) -> list[str]:
    """A row for each test: the mean of its runs, the interval over items of the first run, chance, and what was asked for."""
    lines = []
    for test in some:
        scores = [classified(work, test, run) for run in test.runs]
        if not scores:
            lines.append([test.title, "not run", *[""] * 7])
            continue
        first = scores[0]["top1"]
        lines.append(
            [
                test.title,
                str(len(scores)),
                shown(one["top1"]["value"] for one in scores),
                interval(first),
                f"{100 * first['chance']:.2f}",
                "" if test.bar is None else f"{100 * test.bar:.0f}",
                shown(one["mean_per_class"]["value"] for one in scores),
                shown(probed(work, test, run) for run in test.runs),
                test.claim,
            ]
        )
        if len(rows(work, test.names)) <= FEW:
            plot = next(
                (work / "scores" / test.runs[0]).glob(
                    f"{test.modality}-{test.manifest[:-6].replace('/', '-')}-by-{Path(test.names).stem}.png"
                )
            )
            figures.mkdir(exist_ok=True)
            shutil.copy(plot, figures / f"{test.runs[0]}-{plot.name}")
    head = ["test", "runs", "top-1, %", "95 % over items", "chance", "asked for", "balanced", "probe", "what it can claim"]
    return table(head, lines)


def retrieval(work: Path, some: Iterable[Search]) -> list[str]:
    """Two rows for each search, one each way."""
    lines = []
    for search in some:
        done = [found(work, search, run) for run in search.runs]
        for way in done[0]["directions"] if done else ():
            query, target = way["query"]["modality"], way["target"]["modality"]
            scores = [other for one in done for other in one["directions"] if other["query"]["modality"] == query]
            lines.append(
                [
                    f"{search.title}: {query} to {target}",
                    "trained" if search.trained else "emergent",
                    str(len(scores)),
                    *(shown(one[f"R@{count}"]["value"] for one in scores) for count in (1, 5, 10)),
                    interval(way["R@1"]),
                    "" if search.bar is None else f"{100 * search.bar:.0f}",
                ]
            )
    return table(["search", "pair", "runs", "R@1, %", "R@5", "R@10", "95 % of R@1", "asked for"], lines)


def main(work: Path, place: Path) -> None:
    """Measure whatever has been trained, and write the report."""
    prompts = ", ".join(f"`{line}`" for line in TEMPLATES.read_text().splitlines())
    figures = place.with_suffix("")
    shutil.rmtree(figures, ignore_errors=True)  # of runs that are no more
    lines = [
        "# imagebind-mini, measured",
        "",
        f"By `recipes/mini/mini.sh evaluate`. Prompts: {prompts}; a name's vector is the mean of theirs. ± is the spread between runs. Probe: a",
        "linear classifier of the same vectors, trained with labels. Intervals are over items, of the first run. What was not run says so.",
        "",
        "## By names",
        "",
        *classification(work, tests(work), figures),
        "",
        "What the picture side reaches on the same names. A modality bound to pictures can hardly go far beyond; by some points it can, for the",
        "pictures here are others than it was bound to: drawings of unseen sets, and views in colours, which depth has none of.",
        "",
        *classification(work, ceilings(), figures),
        "",
        "Controls: encoders trained on the same pairs shuffled. They are aligned with nothing, so this is what chance looks like; below it, too,",
        "where a class as a whole lies by a wrong name.",
        "",
        *classification(work, controls(work), figures),
        "",
        "What other settings give, three seeds each (`mini.sh ablate`); motion by other words, depth by 14 names:",
        "",
        *classification(work, ablations(work), figures),
        "",
        "## By each other",
        "",
        "Trained: the two modalities met in training. Emergent: they never did. Sound, motion, depth and thermal pictures have nothing in common",
        "to be found by in these data, so no pair of those is measured; thermal pictures have no names. Names are searched with as they are, not in",
        "three prompts, and of each piece of furniture one view takes part, so these differ a little from the figures above.",
        "",
        *retrieval(work, searches(work)),
        "",
        "## Confusion matrices",
        "",
        *(f"![{path.stem}]({figures.name}/{path.name})" for path in sorted(figures.glob("*.png"))),
    ]
    place.write_text("\n".join(lines) + "\n")
    print(f"evaluate: {place}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE.parents[1] / "docs" / "mini-report.md")
