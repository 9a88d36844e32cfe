"""Render pictures and depth maps of Sweet Home 3D's furniture, each view in a room corner of its own.

    python recipes/mini/data/furniture.py WORK

Reads WORK/sources/sweethome3d-furniture and writes WORK/data/furniture. Depth is the scene's own, in millimetres, from a pinhole camera with a
focal length of 150 px at 128 px: read it with `--depth-format mm --focal 150`. Models larger or smaller than `SIZES` are shown at the nearest
of these sizes, so that a cup is not seen from nearer than a depth camera can. Nothing here is a photo.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meshes
import numpy as np
from pairing import write_rows
from PIL import Image
from render import Camera, Rendering, plane_depth, render
from shading import holes, shade

CAMERA = Camera(128, 150.0)
VIEWS = 8
SIZES = (0.4, 3.0)  # metres: the smallest and largest extent at which a model is shown
MOST_TRIANGLES = 500_000
NAMES = 14  # classes of the short test
HELD_OUT = 0.2
SAME = 0.012  # models whose unit-box depths differ by less, in metres on the mean of what either shows, are one model's variants
SYNONYMS = {"couch": "sofa"} | dict.fromkeys(("male", "female", "boy", "girl"), "person")
CAPTIONS = (
    "{name}",
    "{article} {name}",
    "a picture of {article} {name}",
    "{name}, {category}",
    "a rendering of {article} {name}",
    "the {name}",
    "{name}, {tags}",
    "one {name}",
)


@dataclass(frozen=True)
class View:
    """One view of a model against a wall, rendered at twice `CAMERA`'s resolution.

    turn: world to camera. eye: the camera's place in the world. corners: of the model, in the camera's coordinates.
    wall, floor: their depths (256, 256) in metres.
    """

    mesh: meshes.Mesh
    turn: np.ndarray
    eye: np.ndarray
    corners: np.ndarray
    seen: Rendering
    wall: np.ndarray
    floor: np.ndarray

    @property
    def room(self) -> np.ndarray:
        """Depth (256, 256) in metres of the room without the model."""
        return np.minimum(self.wall, self.floor)

    @property
    def depth(self) -> np.ndarray:
        """(128, 128) in metres, along one of each pixel's four rays."""
        return np.minimum(self.room, self.seen.depth)[::2, ::2]


FINE = Camera(2 * CAMERA.size, 2 * CAMERA.focal)


def view(mesh: meshes.Mesh, elevation: float, draw: np.random.Generator) -> View:
    """Render a model against a wall at a random distance, from a random side of its front; on the wall if it hangs."""
    turn, eye = viewpoint(mesh, draw)
    corners = (mesh.corners - eye) @ turn.T
    extent = np.ptp(mesh.corners.reshape(-1, 3), 0)
    behind = extent[2] / 2 + (0.01 if elevation else draw.uniform(0.02, 0.8) * extent.max())
    wall = plane_depth(FINE, turn @ [0, 0, 1], -behind - eye[2])
    floor = plane_depth(FINE, turn @ [0, 1, 0], -elevation - eye[1])
    return View(mesh, turn, eye, corners, render(corners, FINE, holes(mesh)), wall, floor)


def picture(view: View, draw: np.random.Generator) -> np.ndarray:
    """Colour a view (128, 128, 3) uint8: a light wall, a light floor with a soft shadow, and the model under one lamp."""
    extent = np.ptp(view.mesh.corners.reshape(-1, 3), 0)
    place = FINE.rays() * np.where(np.isfinite(view.room), view.room, 0)[..., None] @ view.turn + view.eye
    wall_colour, floor_colour = 1 - draw.uniform(0, [0.12, 0.12, 0.14]), 1 - draw.uniform(0.02, [0.25, 0.3, 0.35])
    floor = view.floor < view.wall
    colour = np.where(floor[..., None], floor_colour, wall_colour)
    away = np.hypot(place[..., 0] / (extent[0] + 0.1), place[..., 2] / (extent[2] + 0.1))
    colour = colour * (1 - 0.25 * np.exp(-4 * away**2) * floor)[..., None]
    light = view.turn @ np.array([draw.uniform(-0.6, 0.6), 1.0, draw.uniform(0.6, 1.2)])
    front = view.seen.depth < view.room
    colour[front] = shade(view.mesh, view.corners, view.seen, front, light / np.linalg.norm(light))
    return to_bytes(halve(colour))


def halve(fine: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels: (2n, 2n, ...) to (n, n, ...)."""
    half = len(fine) // 2
    return fine.reshape(half, 2, half, 2, *fine.shape[2:]).mean((1, 3))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Round values in [0, 1] to uint8."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def viewpoint(mesh: meshes.Mesh, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a rotation from the world to the camera, and a place of the camera from which the model fills 75 to 95 % of the picture."""
    extent = np.ptp(mesh.corners.reshape(-1, 3), 0)
    flat = extent[1] < 0.15 * max(extent[0], extent[2])
    azimuth, height = np.radians(draw.uniform(-65, 65)), np.radians(draw.uniform(35, 60) if flat else draw.uniform(5, 35))
    back = np.array([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)])  # from the model to the camera
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    turn = np.stack([right, np.cross(right, back), -back])  # rows: right, down, forward
    middle = np.array([0, extent[1] / 2, 0])
    points = (mesh.corners.reshape(-1, 3) - middle) @ turn.T
    half = CAMERA.size / 2 * draw.uniform(0.75, 0.95)
    distance = (np.abs(points[:, :2]).max(1) * CAMERA.focal / half - points[:, 2]).max()
    return turn, middle + back * distance


def signature(mesh: meshes.Mesh) -> np.ndarray:
    """Render the depth (32, 32) of a model stretched into a cube of 1 m, 0 beside it: variants of one model look alike there."""
    extent = np.ptp(mesh.corners.reshape(-1, 3), 0)
    forward = np.array([-0.5, -0.4, -1.0]) / np.linalg.norm([0.5, 0.4, 1.0])
    right = np.cross(forward, [0, 1, 0]) / np.linalg.norm(np.cross(forward, [0, 1, 0]))
    turn = np.stack([right, np.cross(forward, right), forward])
    corners = (mesh.corners / np.maximum(extent, 1e-9) - [0, 0.5, 0]) @ turn.T + [0, 0, 4]
    depth = render(corners, Camera(32, 75.0)).depth
    return np.where(np.isfinite(depth), depth, 0)


def at_shown_size(mesh: meshes.Mesh, entry: meshes.Entry) -> meshes.Mesh:
    """Scale a model to the size at which it is rendered."""
    return mesh.scale(np.clip(max(entry.size), *SIZES) / max(entry.size))


def view_random(entry: meshes.Entry, number: int) -> np.random.Generator:
    """Return the generator of a view's random choices, which are the same in every run."""
    return np.random.default_rng(list(hashlib.sha256(f"{entry.id} {number}".encode()).digest()))


def render_views(job: tuple[meshes.Entry, Path], out: Path) -> np.ndarray | str:
    """Write the views of a model and return its signature, or the reason why it has none."""
    entry, path = job
    try:
        with zipfile.ZipFile(path) as archive:
            mesh = meshes.read_mesh(archive, entry, MOST_TRIANGLES)
    except (ValueError, KeyError, IndexError) as error:
        return f"{entry.id}: {error}"
    mesh = at_shown_size(mesh, entry)
    for number in range(VIEWS):
        draw = view_random(entry, number)
        scene = view(mesh, entry.elevation, draw)
        Image.fromarray(picture(scene, draw)).save(out / "image" / f"{entry.id}-{number}.png")
        Image.fromarray(np.round(scene.depth * 1000).clip(0, 65535).astype(np.uint16)).save(out / "depth" / f"{entry.id}-{number}.png")
    return signature(mesh)


def find_families(signatures: np.ndarray) -> np.ndarray:
    """Group signatures (n, 32, 32) that look alike, directly or through others, into families; return each one's family number (n,)."""
    flat = signatures.reshape(len(signatures), -1)
    family = np.arange(len(flat))
    for i, one in enumerate(flat[:-1]):
        rest = flat[i + 1 :]
        either = ((rest > 0) | (one > 0)).sum(1)
        alike = np.flatnonzero(np.abs(rest - one).sum(1) < SAME * np.maximum(either, 1)) + i + 1
        for j in alike:
            family[family == family[j]] = family[i]
    return family


def noun(name: str) -> str:
    """Return what a thing is by the last word of its name: a "coffee table" is a table."""
    last = name.lower().split()[-1]
    return SYNONYMS.get(last, last)


def choose_test(models: list[meshes.Entry], family: np.ndarray) -> tuple[set[int], list[str]]:
    """Choose the test's families and the short test's classes, by names and numbers alone."""
    order = sorted(set(family.tolist()), key=lambda number: hashlib.sha256(models[number].id.encode()).hexdigest())
    families = Counter(noun(models[number].name) for number in order)
    classes = sorted(families, key=lambda word: (-families[word], word))[:NAMES]
    size = Counter(family.tolist())
    test: set[int] = set()

    def hold_out(members: list[int], share: float) -> None:
        wanted, held = round(share * sum(size[n] for n in members)), sum(size[n] for n in members if n in test)
        for number in members:
            if number not in test and held + size[number] <= wanted:
                test.add(number)
                held += size[number]

    for word in classes:
        hold_out([number for number in order if noun(models[number].name) == word], HELD_OUT)
    hold_out(order, HELD_OUT)
    return test, sorted(classes)


def caption(entry: meshes.Entry, view: int) -> str:
    """Return the caption of one of a model's views."""
    tags = ", ".join(entry.tags) or entry.category
    name = entry.name.lower()
    article = "an" if name[0] in "aeiou" else "a"
    return CAPTIONS[view % len(CAPTIONS)].format(name=name, article=article, category=entry.category.lower(), tags=tags.lower())


def text_pairs(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a view's pairs with text: its caption, its name, and its noun. Views of one name are not negatives of each other."""
    for ending, text in (("", row["text"]), ("-name", row["name"]), ("-noun", noun(row["name"]))):
        yield {key: row[key] for key in ("image", "name", "source")} | {"id": row["id"] + ending, "text": text, "group": row["name"]}


def main() -> None:
    work = Path(sys.argv[1])
    out = work / "data" / "furniture"
    if (out / "names-all.json").exists():
        return
    for kind in ("image", "depth"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    jobs = [(entry, path) for path in meshes.catalogues(work / "sources" / "sweethome3d-furniture") for entry in meshes.entries(path)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(render_views, jobs, [out] * len(jobs), chunksize=4))
    for result in results:
        if isinstance(result, str):
            print(f"left out: {result}", file=sys.stderr)
    kept = [(entry, result) for (entry, _), result in zip(jobs, results, strict=True) if not isinstance(result, str)]
    models = [entry for entry, _ in kept]
    family = find_families(np.stack([result for _, result in kept]))
    test, classes = choose_test(models, family)
    write_manifests(out, models, family, test, classes)


def write_manifests(out: Path, models: list[meshes.Entry], family: np.ndarray, test: set[int], classes: list[str]) -> None:
    """Write the manifests and lists of names, and report the counts on stderr."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for entry, number in zip(models, family, strict=True):
        word = noun(entry.name)
        for view in range(VIEWS):
            row: dict[str, Any] = {
                "id": f"{entry.id}-{view}",
                "image": f"image/{entry.id}-{view}.png",
                "depth": f"depth/{entry.id}-{view}.png",
            }
            row |= {"text": caption(entry, view), "label": word if word in classes else None, "name": entry.name.lower()}
            rows["test" if number in test else "train"].append(row | {"group": entry.id, "source": entry.source, "licence": entry.licence})
    depths = [row["depth"] for row in rows["train"]]
    np.random.default_rng(0).shuffle(depths)
    manifests = rows | {
        "test-named": [row for row in rows["test"] if row["label"]],
        "test-names": [row | {"label": row["name"]} for row in rows["test"]],
        "test-one": [row for row in rows["test"] if row["id"].endswith("-0")],
        "train-shuffled": [row | {"depth": depth} for row, depth in zip(rows["train"], depths, strict=True)],
        "image-text": [pair for row in rows["train"] for pair in text_pairs(row)],
    }
    for name, lines in manifests.items():
        write_rows(out / f"{name}.jsonl", lines)
    for split in ("train", "test"):
        for (source, licence, split_name), count in sorted(Counter((r["source"], r["licence"], split) for r in rows[split]).items()):
            print(f"furniture {split_name}: {source} ({licence}): {count // VIEWS} models, {count} views", file=sys.stderr)
        words = Counter(row["label"] for row in rows[split] if row["label"])
        print(f"furniture {split}: " + ", ".join(f"{word} {count // VIEWS}" for word, count in sorted(words.items())), file=sys.stderr)
    print(
        f"furniture: {len(models)} models in {len(set(family.tolist()))} families, {len({e.name.lower() for e in models})} names",
        file=sys.stderr,
    )
    (out / "names-short.json").write_text(json.dumps(classes, indent=1))
    (out / "names-all.json").write_text(json.dumps(sorted({entry.name.lower() for entry in models}), indent=1))


if __name__ == "__main__":
    main()
