"""What imagebind-mini can do and cannot: every measure with its interval, chance beside it, and what it can claim.

    python evaluate.py WORK [REPORT.md]

Uses `imagebind embed`, `zeroshot` and `retrieve` alone. Names and prompts were fixed before: the names by the data programs, the prompts in
templates.txt. Vectors and scores stay in WORK/scores, so that a second run only writes the report anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates.txt"


@dataclass(frozen=True)
class Test:
    """Classification of held-out items by names in words.

    runs: run folders, one a seed or fold; `{}` in the manifest is the fold of a run's name. bar: what was asked for, as a share. claim: what
    a reader may conclude. options: how the files are read.
    """

    title: str
    modality: str
    manifest: str
    names: str
    runs: tuple[str, ...]
    bar: float | None
    claim: str
    options: tuple[str, ...] = ()


PICTURES = ("image-text",)
DEPTH = ("--depth-format", "mm", "--focal", "150")


def tests(work: Path) -> list[Test]:
    """All tests whose data and runs are there."""

    def made(pattern: str) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (work / "runs").glob(pattern) if (path / "config.json").exists()))

    def folds(number: int) -> tuple[str, ...]:
        return made(f"audio-without-esc10-{number}-*")

    emergent = "emergent over names that pictures were seen with: {} never met a word in training"
    depth_names = "furniture/names-short.json", "furniture/names-all.json"
    found = [
        Test(
            "image to text, an unseen set of drawings (fxemoji), 1,502 names",
            "image",
            "drawings/fxemoji.jsonl",
            "drawings/seen.json",
            PICTURES,
            0.60,
            "trained on pictures and words; the set is new",
        ),
        Test(
            "image to text, an unseen set of drawings (openmoji), 1,502 names",
            "image",
            "drawings/openmoji.jsonl",
            "drawings/seen.json",
            PICTURES,
            0.20,
            "trained on pictures and words; the set, outlined, is new",
        ),
        Test(
            "image to text, 161 unseen concepts",
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
                folds(number),
                0.70,
                emergent.format("sound") + "; real recordings",
            )
            for number in (1, 2, 3, 4)
        ),
        Test(
            "audio to text, instruments of another soundfont, 11 names",
            "audio",
            "sounds/test-soundfont.jsonl",
            "sounds/names-instruments.json",
            made("audio-without-*"),
            0.60,
            emergent.format("sound") + "; played by a program",
        ),
        Test(
            "audio to text, recordings of real instruments, 11 names",
            "audio",
            "sounds/test-real.jsonl",
            "sounds/names-instruments.json",
            made("audio-without-*"),
            0.30,
            emergent.format("sound") + "; learnt from played notes",
        ),
        Test(
            "IMU to text, other people, 4 names",
            "imu",
            "motion/test.jsonl",
            "motion/names.json",
            made("imu-[0-9]"),
            0.92,
            emergent.format("motion"),
        ),
        Test(
            "IMU to text, other people, in other words",
            "imu",
            "motion/test.jsonl",
            "motion/names-other-words.json",
            made("imu-[0-9]"),
            0.80,
            emergent.format("motion"),
        ),
        Test(
            "depth to text, held-out models, 14 names",
            "depth",
            "furniture/test-named.jsonl",
            depth_names[0],
            made("depth-[0-9]"),
            0.65,
            emergent.format("depth") + "; rendered",
            DEPTH,
        ),
        Test(
            "depth to text, held-out models, 612 names",
            "depth",
            "furniture/test-names.jsonl",
            depth_names[1],
            made("depth-[0-9]"),
            0.12,
            emergent.format("depth") + "; rendered",
            DEPTH,
        ),
    ]
    return [test for test in found if test.runs and (work / "data" / test.manifest).exists()]


def ceilings() -> list[Test]:
    """The picture side on the same names: what a modality bound to pictures can hardly exceed."""
    return [
        Test(
            "image to text, held-out models, 14 names",
            "image",
            "furniture/test-named.jsonl",
            "furniture/names-short.json",
            PICTURES,
            None,
            "the ceiling of depth",
        ),
        Test(
            "image to text, held-out models, 612 names",
            "image",
            "furniture/test-names.jsonl",
            "furniture/names-all.json",
            PICTURES,
            None,
            "the ceiling of depth",
        ),
        Test(
            "image to text, drawings of the instruments, 11 names",
            "image",
            "sounds/ceiling-instruments.jsonl",
            "sounds/names-instruments.json",
            PICTURES,
            None,
            "the ceiling of sound",
        ),
        Test(
            "image to text, drawings of ESC-10's classes, 10 names",
            "image",
            "sounds/ceiling-esc10.jsonl",
            "sounds/names-esc10.json",
            PICTURES,
            None,
            "the ceiling of sound",
        ),
        Test(
            "image to text, drawings of the movements, 4 names",
            "image",
            "motion/ceiling.jsonl",
            "motion/names.json",
            PICTURES,
            None,
            "the ceiling of motion",
        ),
    ]


def imagebind(*arguments: str | Path) -> None:
    """Run a command; its talk is shown only if it fails."""
    done = subprocess.run(["imagebind", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"evaluate: imagebind {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def score(work: Path, test: Test, run: str) -> dict[str, Any]:
    """One run's report on one test, kept in WORK/scores."""
    folder = work / "scores" / run
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{test.modality}-{test.manifest.removesuffix('.jsonl').replace('/', '-')}"
    store, report = folder / f"{stem}.h5", folder / f"{stem}-by-{Path(test.names).stem}.json"
    if not report.exists():
        imagebind(
            "embed", test.modality, "--manifest", work / "data" / test.manifest, "--model", work / "runs" / run, "-o", store, *test.options
        )
        imagebind(
            "zeroshot", test.modality, store, "--labels", work / "data" / test.names, "--templates", TEMPLATES, "--truth", "label",
            "--model", work / "runs" / run, "--report", report, "--plot", report.with_suffix(".png"),
        )  # fmt: skip
    return json.loads(report.read_text())


def recall(work: Path, run: str, first: str, second: str, manifest: str, options: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """R@1, 5 and 10 both ways between two modalities of a manifest's rows, by one run, kept in WORK/scores."""
    folder = work / "scores" / run
    folder.mkdir(parents=True, exist_ok=True)
    stem = manifest.removesuffix(".jsonl").replace("/", "-")
    report = folder / f"{stem}-{first}-{second}.json"
    if not report.exists():
        for modality in (first, second):
            imagebind(
                "embed", modality, "--manifest", work / "data" / manifest, "--model", work / "runs" / run,
                "-o", folder / f"{stem}-{modality}.h5", *options.get(modality, ()),
            )  # fmt: skip
        done = subprocess.run(
            ["imagebind", "retrieve", folder / f"{stem}-{first}.h5", folder / f"{stem}-{second}.h5", "--pairs", "ids"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        report.write_text(done.stdout)
    return json.loads(report.read_text().splitlines()[0])


def shown(values: Iterable[float]) -> str:
    """A mean and, of several, the spread between them, in per cent."""
    several = [100 * value for value in values]
    return f"{mean(several):.1f}" + (f" ± {stdev(several):.1f}" if len(several) > 1 else "")


def table(work: Path, some: list[Test]) -> list[str]:
    """A row for each test: the mean of its runs, the interval over items of the first run, chance, and what was asked for."""
    head = ["test", "runs", "top-1, %", "95 % over items", "chance", "asked for", "balanced", "what it can claim"]
    lines = [head, ["---"] * len(head)]
    for test in some:
        scores = [score(work, test, run)["scores"] for run in test.runs]
        first = scores[0]["top1"]
        cells = [
            test.title,
            str(len(scores)),
            shown(one["top1"]["value"] for one in scores),
            f"{100 * first['low']:.1f} to {100 * first['high']:.1f}",
            f"{100 * first['chance']:.2f}",
            "" if test.bar is None else f"{100 * test.bar:.0f}",
            shown(one["mean_per_class"]["value"] for one in scores),
            test.claim,
        ]
        lines.append(cells)
    return [f"| {' | '.join(cells)} |" for cells in lines]


def main(work: Path, place: Path) -> None:
    """Measure whatever has been trained, and write the report."""
    prompts = ", ".join(f"`{line}`" for line in TEMPLATES.read_text().splitlines())
    lines = [
        "# imagebind-mini, measured",
        "",
        f"By `recipes/mini/mini.sh evaluate`. Prompts: {prompts}; a name's vector is the mean of theirs. ± is the spread between runs.",
        "",
        *table(work, tests(work)),
        "",
        "## What the picture side reaches on the same names",
        "",
        *table(work, [test for test in ceilings() if (work / "runs" / test.runs[0] / "config.json").exists()]),
    ]
    place.write_text("\n".join(lines) + "\n")
    print(f"evaluate: {place}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE.parents[1] / "docs" / "mini-report.md")
