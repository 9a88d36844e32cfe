"""Measure how imagebind-mini reads motion of a telephone that is turned, on windows of people that nothing is trained on, and print a table.

    python recipes/mini/report/turns.py WORK [MODEL]

Every window of WORK/data/motion/test.jsonl is turned about a random axis by one angle, and in the last row at random, all ways alike probable.
Columns: how often the first of the four names is right; and how well walking is told from standing, sitting and lying, as the mean of the share of
walks found among walks and the share of still windows that are not called walking. The rows go to WORK/scores/turns.json for the report, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from measured import Measured, measured, write_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import motion

from imagebind_cli import load

ANGLES = (0, 15, 30, 45, 60, 90, 135, 180)  # degrees
ANY = "any"
MOVES = "walking"
RESAMPLES = 1000


def turn_by(degrees: float, numbers: np.random.Generator) -> np.ndarray:
    """Draw a rotation (3, 3) by an angle about a random axis."""
    x, y, z = (axis := numbers.normal(size=3)) / np.linalg.norm(axis)
    across, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.radians(degrees)
    return np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across  # type: ignore[no-any-return]


def test_windows(work: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Read the test windows, (t, 6) each, and their labels."""
    folder = work / "data" / "motion"
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    return [np.loadtxt(folder / row["imu"], delimiter=",", skiprows=1)[:, 1:] for row in rows], np.array([row["label"] for row in rows])


def walking_from_stillness(given: np.ndarray, labels: np.ndarray) -> Measured:
    """Return the mean of the shares of walks and of still windows that are on the right side, %; the interval is over windows of either."""
    right, walks = (given == MOVES) == (labels == MOVES), labels == MOVES
    numbers, sides = np.random.default_rng(0), (right[walks], right[~walks])
    drawn = [np.mean([side[numbers.integers(len(side), size=len(side))].mean() for side in sides]) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measured(100 * float(np.mean([side.mean() for side in sides])), 100 * float(low), 100 * float(high), 50, 50, len(labels))


def main(work: Path, model: str = "mini") -> None:
    windows, labels = test_windows(work)
    loaded, numbers, names_of = load(model), np.random.default_rng(0), motion.NAMES["names"]
    by_name = loaded.embed("text", list(names_of.values()))
    rows: dict[str, Measured] = {}
    print("| turned by | four names, % | walking from stillness, % |\n|---|---|---|")
    for angle in (*ANGLES, ANY):
        turns = [motion.random_turn(numbers) if angle == ANY else turn_by(float(angle), numbers) for _ in windows]
        turned = [motion.turned(window, turn).T for window, turn in zip(windows, turns, strict=True)]
        given = np.array(list(names_of))[(loaded.embed("imu", turned, rate=motion.RATE) @ by_name.T).argmax(axis=1)]
        rows[f"{angle}, names"] = names = measured(100.0 * (given == labels), 25, 25)
        rows[f"{angle}, moves"] = moves = walking_from_stillness(given, labels)
        cells = [f"{row.value:.1f} ({row.low:.1f} to {row.high:.1f})" for row in (names, moves)]
        print(f"| {'any way' if angle == ANY else f'{angle}°'} | {' | '.join(cells)} |")
    write_rows(rows, work / "scores" / "turns.json", model=model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
