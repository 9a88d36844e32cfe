"""Measure how often `imagebind locate` finds a drawing in made scenes, asked by its name and by recordings of its sound.

    python recipes/mini/report/scenes.py WORK [MODEL [FOLD]]

WORK is the folder of mini.sh, with its sources fetched, and for sounds with its ESC-10 prepared. A scene is three drawings of a set that no
training picture is of, at random places on white. MODEL is a name or a folder, `mini` if it is not given. The packaged model has heard all folds
of ESC-10; a folder that joins its pictures and words with the sounds of WORK/runs/audio-without-esc10-N-0 has not heard fold N, and with FOLD
only recordings of that fold ask. The table is in Markdown; its rows go to WORK/scores/locate.json for the report, too.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))

import numpy as np
from drawings import concepts, drawings, is_held_out, render_svg
from measured import Measured, measured, write_rows
from PIL import Image

import imagebind_cli as ib
from imagebind_cli.grounding.locate import locate
from imagebind_cli.grounding.located import Located
from imagebind_cli.retrieval.requests import combined_request

SET = "fxemoji"  # of the sets that are for tests
SIDE, DRAWING, OBJECTS, SCENES = 192, 64, 3, 100
SOUNDING = {  # codes of the drawings of ESC-10's classes, by the words in its folders' and labels' names
    "dog": "1F415", "rain": "1F327", "waves": "1F30A", "baby": "1F476", "clock": "23F0", "sneez": "1F927", "helicopter": "1F681",
    "chainsaw": "1FA9A", "rooster": "1F413", "fire": "1F525",
}  # fmt: skip

Box = tuple[int, int, int, int]


def make_scene(codes: list[str], svgs: dict[str, str], numbers: random.Random) -> tuple[Image.Image, dict[str, Box]]:
    """Paste drawings at random places on white, none over another; return the picture and the box of each code."""
    while True:
        places = [(numbers.randrange(SIDE - DRAWING + 1), numbers.randrange(SIDE - DRAWING + 1)) for _ in codes]
        pairs = ((one, other) for number, one in enumerate(places) for other in places[:number])
        if all(max(abs(one[0] - other[0]), abs(one[1] - other[1])) >= DRAWING for one, other in pairs):
            break
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    for code, place in zip(codes, places, strict=True):
        drawing = render_svg(svgs[code]).resize((DRAWING, DRAWING), Image.Resampling.LANCZOS)
        picture.paste(drawing, place, drawing)
    return picture, {code: (x, y, x + DRAWING, y + DRAWING) for code, (x, y) in zip(codes, places, strict=True)}


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over the union of two boxes."""
    across, down = (max(0.0, min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])) for axis in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down)


def contains(box: Box, found: Located) -> bool:
    """Check whether the peak is in a box."""
    x, y = found.spots[0].peak
    return box[0] <= x < box[2] and box[1] <= y < box[3]


def recordings(work: Path, codes: set[str], fold: str = "?") -> dict[str, list[str]]:
    """Return the files of each drawing's sounds, by code, from the manifests of ESC-10's folds, or of one; {} where there are none."""
    found: dict[str, list[str]] = {}
    for manifest in sorted((work / "data" / "sounds").glob(f"test-esc10-{fold}.jsonl")):
        for row in map(json.loads, manifest.read_text().splitlines()):
            code = next((code for word, code in SOUNDING.items() if word in f"{row['label']} {row.get('name', '')}".lower()), None)
            if code in codes:
                found.setdefault(str(code), []).append(str(manifest.parent / row["audio"]))
    return found


@dataclass(frozen=True)
class Found:
    """Figures of scenes (n,): shares of peaks in the right drawing and in another one, mean overlaps of the boxes; and the seconds of each scene."""

    right: np.ndarray
    wrong: np.ndarray
    overlaps: np.ndarray
    seconds: float

    def row(self) -> Measured:
        """Summarise, in per cent. The floor is a random point, the control the same peaks counted in another drawing."""
        return measured(100 * self.right, 100 * DRAWING**2 / SIDE**2, 100 * self.wrong.mean(), OBJECTS * len(self.right))


def measure(model: ib.Model, method: str, codes: list[str], svgs: dict[str, str], queries: dict[str, list[tuple[str, str]]]) -> Found:
    """Locate every drawing of `SCENES` scenes by one of its queries, each a modality and its source."""
    numbers = random.Random(5)
    right, wrong, overlaps = [], [], []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SCENES):
            picture, boxes = make_scene(numbers.sample(codes, OBJECTS), svgs, numbers)
            path = Path(folder) / f"{number}.png"
            picture.save(path)
            asked = [queries[code][0] if len(queries[code]) == 1 else numbers.choice(queries[code]) for code in boxes]
            requests = [combined_request([part]) for part in asked]
            answers = list(zip(locate([path], model=model, method=method, requests=requests), boxes.items(), strict=True))
            right.append(np.mean([contains(box, found) for found, (_, box) in answers]))
            wrong.append(np.mean([contains(other, found) for found, (code, _) in answers for name, other in boxes.items() if name != code]))
            overlaps.append(np.mean([overlap(found.spots[0].box, box) for found, (_, box) in answers]))
    return Found(np.array(right), np.array(wrong), np.array(overlaps), (time.monotonic() - began) / SCENES)


def table(work: Path, model: ib.Model, fold: str = "?") -> Iterator[str]:
    """Yield the lines of the table, and write its rows."""
    known, names = concepts(work / "sources")
    svgs = drawings(work / "sources", SET, names)
    yield f"| asked by | method | peak in the right drawing, % | in another one, % | IoU of the box | seconds a scene ({SCENES} scenes) |"
    yield "|---|---|---|---|---|---|"
    named = {code: [("text", known[code].name)] for code in sorted(svgs) if not is_held_out(code)}
    heard = {code: [("audio", file) for file in files] for code, files in sorted(recordings(work, set(svgs), fold).items())}
    rows = {}
    for kind, queries in (("name", named), ("sound", heard)):
        if len(queries) < OBJECTS:
            continue
        for method in ("shares", "both"):
            found = measure(model, method, list(queries), svgs, queries)
            rows[f"{kind}, {method}"] = found.row()
            figures = f"{100 * found.right.mean():.1f} | {100 * found.wrong.mean():.1f} | {found.overlaps.mean():.2f}"
            yield f"| {kind} | {method} | {figures} | {found.seconds:.2f} |"
    write_rows(rows, work / "scores" / "locate.json", model=model.folder or model.name, fold=fold)


if __name__ == "__main__":
    for line in table(Path(sys.argv[1]), ib.load(sys.argv[2] if len(sys.argv) > 2 else "mini"), *sys.argv[3:4]):
        print(line, flush=True)
