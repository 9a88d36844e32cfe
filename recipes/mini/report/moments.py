"""Measure moment retrieval with imagebind-mini on HAPT's continuous recordings of people that nothing is trained on, and print a table.

    python recipes/mini/report/moments.py WORK [MODEL]

WORK/sources is what `data/fetch.py` left. Recordings go to WORK/data/moments as CSV files, vectors of their windows to WORK/scores. Every recording
is asked for four activities by name, with the defaults of `imagebind moments`; the control asks for another of the names. Two ways to count:
as labelled, and without the seconds that HAPT leaves unlabelled (people turn, wait, walk back), where stretches of one activity with nothing
labelled between them are one.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import motion

from imagebind_cli import load
from imagebind_cli.grounding.curves import MomentOptions
from imagebind_cli.grounding.moments import MomentFinder, MomentHit
from imagebind_cli.metrics import interval, overlaps
from imagebind_cli.retrieval.requests import QueryRequest
from imagebind_cli.space import Space

LABELS = {number: activity for number, activity in motion.ACTIVITIES.items() if activity in motion.NAMES["names"]}
UNLABELLED = -1
LEAST = 0.5  # intersection over union that counts as found


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


def measure(finder: MomentFinder, labelled: dict[str, Labelled], names: dict[str, str]) -> list[np.ndarray]:
    """Return, for each activity of each recording, whether it is found, (n, 2), and how often by another name, (n, 2)."""
    firsts: dict[tuple[str, str], MomentHit] = {}
    for activity, name in names.items():
        (answer,) = finder.answer(
            [QueryRequest(name, (("text", name),))], MomentOptions(k=1000 * len(labelled))
        )  # all; the first of each recording counts
        for hit in answer.hits:
            firsts.setdefault((hit.item.id, activity), hit)
    found, others = [], []
    for id, recording in labelled.items():
        for label, activity in LABELS.items():
            if not len(recording.stretches(label)):
                continue
            found.append(is_found(firsts.get((id, activity)), recording, label))
            wrong = [is_found(firsts.get((id, other)), recording, label) for other in names if other != activity]
            others.append(np.mean(wrong, axis=0))
    return [np.array(found, float), np.array(others, float)]


def row(kind: str, found: np.ndarray, others: np.ndarray) -> str:
    cells = []
    for column in range(2):
        low, high = interval(found[:, column])
        cells.append(f"{100 * found[:, column].mean():.1f} % ({100 * low:.0f} to {100 * high:.0f})")
    return f"| {kind} | {cells[0]} | {cells[1]} | {100 * others[:, 0].mean():.1f} % |"


def main(work: Path, model: str = "mini") -> None:
    labelled = {str(recording.path): recording for recording in recordings(work)}
    scores = work / "scores"
    scores.mkdir(exist_ok=True)
    print("| names | R@1, IoU 0.5 | labelled time alone | another name |\n|---|---|---|---|")
    with MomentFinder(list(labelled), space=Space(load(model)), keep=scores / "moments.h5") as finder:
        for names in motion.NAMES.values():
            print(row(", ".join(names.values()), *measure(finder, labelled, names)))
    print(f"moments: {len(labelled)} recordings of {len(motion.TEST_PEOPLE)} people", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
