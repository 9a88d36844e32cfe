"""Measure moment retrieval with imagebind-mini on HAPT's continuous recordings of people that nothing is trained on, and print a table.

    python recipes/mini/report/moments.py WORK [MODEL]

WORK/sources is what `data/fetch.py` left. Recordings go to WORK/data/moments as CSV files, vectors of their windows to WORK/scores. Every recording
is asked for four activities by name, with the defaults of `imagebind moments`; the control asks for another of the names. Two ways to count:
as labelled, and without the seconds that HAPT leaves unlabelled (people turn, wait, walk back), where stretches of one activity with nothing
labelled between them are one. The floor is a moment as long as the one found, at a random place of its recording. The table's rows go to
WORK/scores/moments.json for the report, too.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measured import Measured, measured, write_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import motion

from imagebind_cli import load
from imagebind_cli.grounding.curves import MomentOptions
from imagebind_cli.grounding.moments import MomentFinder, MomentHit
from imagebind_cli.metrics import overlaps
from imagebind_cli.retrieval.requests import QueryRequest
from imagebind_cli.space import Space

LABELS = {number: activity for number, activity in motion.ACTIVITIES.items() if activity in motion.NAMES["names"]}
UNLABELLED = -1
LEAST = 0.5  # intersection over union that counts as found
PLACES = 50  # random places for the floor


@dataclass(frozen=True)
class Labelled:
    """A recording: its CSV file, and the label of each of its readings (t,) at 50 Hz."""

    path: Path
    labels: np.ndarray

    def stretches(self, label: int, joined: bool = False) -> np.ndarray:
        """Return start and end in seconds of a label's stretches, (n, 2). joined: over readings without a label."""
        places = np.arange(len(self.labels))
        if joined:
            places = np.flatnonzero(self.labels != UNLABELLED)
        is_label = np.concatenate([[False], self.labels[places] == label, [False]])
        edges = np.flatnonzero(np.diff(is_label.astype(np.int8))).reshape(-1, 2)
        return np.array([(places[first], places[stop - 1] + 1) for first, stop in edges], float).reshape(-1, 2) / motion.RATE

    def labelled(self, times: np.ndarray) -> np.ndarray:
        """Return seconds (…) as seconds of labelled time before them."""
        before = np.concatenate([[0], np.cumsum(self.labels != UNLABELLED)])
        return before[np.clip(np.round(times * motion.RATE).astype(int), 0, len(self.labels))] / motion.RATE


def recordings(work: Path) -> Iterator[Labelled]:
    """Write the recordings of HAPT's test people as CSV files, and yield them with their labels."""
    path = next((work / "sources" / motion.HAPT).rglob("HAPT.pkl.gz"))
    with gzip.open(path) as file:
        people = motion.ClosedUnpickler(file, encoding="latin1").load()
    folder = work / "data" / "moments"
    for person in motion.TEST_PEOPLE:
        for number, frame in enumerate(people[person]):
            columns = motion.table(frame)
            readings = np.stack([columns[f"{sensor}-{axis}"] for sensor in ("acc", "gyro") for axis in "xyz"], axis=1).astype(float)
            readings[:, :3] *= motion.GRAVITY
            file_of = folder / f"{person:02d}-{number}.csv"
            if not file_of.exists():
                motion.save_csv(readings, motion.RATE, file_of)
            yield Labelled(file_of, np.asarray(columns["label"]).astype(int))


def is_found(hit: MomentHit | None, recording: Labelled, label: int) -> tuple[bool, bool]:
    """Check whether a moment is one of a label's stretches: as labelled, and by labelled time alone."""
    if hit is None:
        return False, False
    span = np.array([(hit.start, hit.end)])
    strictly = overlaps(span, recording.stretches(label))
    leniently = overlaps(recording.labelled(span), recording.labelled(recording.stretches(label, joined=True)))
    return bool(strictly.max() >= LEAST), bool(leniently.max() >= LEAST)


@dataclass(frozen=True)
class Answers:
    """For each activity of each recording, whether its moment is found, as labelled and by labelled time alone: shares (n, 2).

    found: by its name. others: by another name, the mean of all. chance: by a moment as long, at random places.
    """

    found: np.ndarray
    others: np.ndarray
    chance: np.ndarray

    def row(self, column: int) -> Measured:
        """Summarise one way of counting, in per cent."""
        return measured(100 * self.found[:, column], 100 * self.chance[:, column].mean(), 100 * self.others[:, column].mean())


def at_random_places(hit: MomentHit | None, recording: Labelled, label: int, numbers: np.random.Generator) -> np.ndarray:
    """Return how often a moment as long as `hit`, at a random place of its recording, is one of a label's stretches, (2,)."""
    if hit is None:
        return np.zeros(2)
    seconds, length = len(recording.labels) / motion.RATE, hit.end - hit.start
    starts = numbers.uniform(0, max(0.0, seconds - length), PLACES)
    return np.mean([is_found(replace(hit, start=start, end=start + length), recording, label) for start in starts], axis=0)


def measure(finder: MomentFinder, labelled: dict[str, Labelled], names: dict[str, str]) -> Answers:
    """Ask for each activity by its name in all recordings."""
    firsts: dict[tuple[str, str], MomentHit] = {}
    for activity, name in names.items():
        (answer,) = finder.answer(
            [QueryRequest(name, (("text", name),))], MomentOptions(k=1000 * len(labelled))
        )  # all; the first of each recording counts
        for hit in answer.hits:
            firsts.setdefault((hit.item.id, activity), hit)
    found, others, chance = [], [], []
    numbers = np.random.default_rng(0)
    for id, recording in labelled.items():
        for label, activity in LABELS.items():
            if not len(recording.stretches(label)):
                continue
            hit = firsts.get((id, activity))
            found.append(is_found(hit, recording, label))
            wrong = [is_found(firsts.get((id, other)), recording, label) for other in names if other != activity]
            others.append(np.mean(wrong, axis=0))
            chance.append(at_random_places(hit, recording, label, numbers))
    return Answers(np.array(found, float), np.array(others, float), np.array(chance, float))


def line(kind: str, strictly: Measured, leniently: Measured) -> str:
    """Return a line of the table."""
    cells = [f"{row.value:.1f} % ({row.low:.0f} to {row.high:.0f})" for row in (strictly, leniently)]
    return f"| {kind} | {' | '.join(cells)} | {strictly.control:.1f} % | {strictly.floor:.1f} % |"


def main(work: Path, model: str = "mini") -> None:
    labelled = {str(recording.path): recording for recording in recordings(work)}
    scores, rows = work / "scores", {}
    scores.mkdir(exist_ok=True)
    print("| names | R@1, IoU 0.5 | labelled time alone | another name | a random place |\n|---|---|---|---|---|")
    with MomentFinder(list(labelled), space=Space(load(model)), keep=scores / "moments.h5") as finder:
        for kind, names in motion.NAMES.items():
            answers = measure(finder, labelled, names)
            rows[kind], rows[f"{kind}, labelled time"] = answers.row(0), answers.row(1)
            print(line(", ".join(names.values()), answers.row(0), answers.row(1)))
    write_rows(rows, scores / "moments.json", model=model)
    print(f"moments: {len(labelled)} recordings of {len(motion.TEST_PEOPLE)} people", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
