"""Render pictures and thermal pictures of one scene, both synthetic: streets of 3-D models, and the furniture's views.

    python recipes/mini/data/thermal.py WORK

Reads WORK/sources/sweethome3d-furniture and WORK/data/furniture (run furniture.py first), and writes WORK/data/thermal. Nothing here was
measured by a camera. A surface radiates its emissivity times its temperature, and reflects the rest: the cold sky above, the surroundings
elsewhere. Temperatures are offsets from the air's, drawn anew for each scene, thing and material: people and lamps are warm, metal mirrors, the
sun warms what faces it and is dark. The camera blurs, adds noise and sets its own gain, as in the 8-bit grey pictures of thermal cameras. Streets
come by day, dusk and night, since a thermal picture must not tell which.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import furniture
import meshes
import numpy as np
from furniture import halve, to_bytes
from meshes import Material, Mesh
from pairing import write_rows
from PIL import Image
from render import Camera, plane_depth, render
from shading import colours, holes, normals

STREETS = {"train": 1000, "test": 100}
ROOM_VIEWS = (0,)  # views of furniture that get a thermal picture
STREET = Camera(2 * 128, 2 * 185.0)  # halved afterwards
MOST = 12_000  # triangles of one thing in a street: a tree keeps this many of its leaves
FAR = 300.0  # metres
WARM = ("lamp", "light", "candle", "lantern", "tv", "television", "oven", "stove", "cooker", "fridge", "refrigerator", "radiator", "laptop",
        "boiler", "fireplace", "toaster", "computer", "screen", "imac", "ibook", "microwave", "kettle", "coffee", "dryer", "machine")  # fmt: skip
METAL = ("metal", "chrome", "steel", "alu", "iron", "silver", "gold", "glass", "mirror", "window")


@dataclass(frozen=True)
class Heat:
    """Temperature over the air's in kelvin, and emissivity, of each material (k,)."""

    temperature: np.ndarray
    emissivity: np.ndarray


def heat(mesh: Mesh, kind: str, draw: np.random.Generator) -> Heat:
    """Draw temperature and emissivity of a thing's materials."""
    count = len(mesh.materials)
    names = [material.name.lower() for material in mesh.materials]
    metal = np.array([any(word in name for word in METAL) for name in names])
    mirror = {"vehicle": draw.uniform(0.0, 0.5), "thing": draw.uniform(0.0, 0.15)}.get(kind, 0.03)
    emissivity = np.clip(np.where(metal, draw.uniform(0.3, 0.9, count), 1 - mirror * draw.uniform(0.5, 1, count)), 0.2, 0.98)
    base, spread = {
        "person": (draw.uniform(4, 14), 3.0),
        "vehicle": (draw.normal(1, 3), 2.5),
        "plant": (draw.normal(1, 1.5), 0.7),
        "lamp": (draw.choice([0.0, draw.uniform(3, 20)]), 2.0),
        "warm": (draw.uniform(2, 15), 3.0),
        "building": (draw.normal(2, 3), 1.5),
    }.get(kind, (draw.normal(0, 1), 1.0))
    return Heat(base + draw.normal(0, spread, count), emissivity)


def camera_picture(radiation: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Turn radiation (256, 256) in kelvin into a thermal camera's picture (128, 128) uint8: blur, noise, lines and gain."""
    kelvin = blur(halve(radiation), draw.uniform(0.3, 1.0))
    kelvin = kelvin + draw.normal(0, draw.uniform(0.02, 0.3), kelvin.shape) + draw.normal(0, draw.uniform(0, 0.1), kelvin.shape[1])
    kelvin = kelvin + draw.uniform(0, 1.5) * (kelvin - blur(kelvin, draw.uniform(3, 10)))  # the detail that makers' gain brings out
    low, high = np.percentile(kelvin, draw.uniform(0, 2)), np.percentile(kelvin, 100 - draw.uniform(0, 2))
    return to_bytes(np.clip((kelvin - low) / max(high - low, 1.0), 0, 1) ** draw.uniform(0.7, 1.4))


def blur(values: np.ndarray, deviation: float) -> np.ndarray:
    """Blur a square (n, n) by a Gaussian, normalised at its edges."""
    place = np.arange(len(values))
    kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * deviation**2))
    kernel /= kernel.sum(1, keepdims=True)
    return kernel @ values @ kernel.T


def noise(draw: np.random.Generator, shape: tuple[int, int], cells: Sequence[int]) -> np.ndarray:
    """Draw smooth noise (h, w) about 0, of several sizes."""
    total = np.zeros(shape)
    for count in cells:
        coarse = Image.fromarray(draw.normal(size=(count, count)).astype(np.float32))
        total += np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)) / len(cells)
    return total


@dataclass(frozen=True)
class Thing:
    """A thing in a street: its mesh in the world, how warm it is, and its kind."""

    mesh: Mesh
    heat: Heat
    kind: str


@dataclass(frozen=True)
class Stock:
    """The meshes that streets are made of, by kind."""

    meshes: dict[str, list[Mesh]]


def kind_of(entry: meshes.Entry) -> str | None:
    """Return the kind of thing that a catalogue's model is in a street; None if it has no place there."""
    if entry.category == "Vehicles" and entry.size[2] > 1.2:
        return "vehicle"
    if "People" in entry.tags and entry.size[1] > 1.5:
        return "person"
    if entry.category == "Exterior" and ("Tree" in entry.tags or "palm" in entry.name.lower() or "coconut" in entry.name.lower()):
        return "plant"
    if entry.name in ("Street light", "Park light", "Street lamp", "Classic lamppost"):
        return "lamp"
    outside = {"Mailbox", "Bench", "Concrete bench", "Pedestrian railing", "Fire hydrant", "Park trashcan", "Rail crossing", "Fence"}
    return "thing" if entry.name in outside else None


@cache
def stock(work: Path, split: str) -> Stock:
    """Read the meshes for streets of a split, from the models of that split alone."""
    ours = {json.loads(line)["group"] for line in (work / "data" / "furniture" / f"{split}.jsonl").open()}
    meshes_of: dict[str, list[Mesh]] = {}
    for path in meshes.catalogues(work / "sources" / "sweethome3d-furniture"):
        with zipfile.ZipFile(path) as archive:
            for entry in meshes.entries(path):
                kind = kind_of(entry)
                if kind and entry.id in ours:
                    mesh = meshes.read_mesh(archive, entry, furniture.MOST_TRIANGLES)
                    if kind == "plant" and len(mesh.corners) > MOST:
                        mesh = thin(mesh)
                    if len(mesh.corners) <= 3 * MOST:
                        meshes_of.setdefault(kind, []).append(mesh)
    return Stock(meshes_of)


def thin(mesh: Mesh) -> Mesh:
    """Keep `MOST` of a tree's leaves, enlarged to cover as much as all did."""
    kept = mesh.part(np.random.default_rng(0).choice(len(mesh.corners), MOST, replace=False))
    middle = kept.corners.mean(1, keepdims=True)
    return replace(kept, corners=middle + (kept.corners - middle) * np.sqrt(len(mesh.corners) / MOST))


def building(draw: np.random.Generator) -> Mesh:
    """Draw a building: a box with windows and a roof."""
    width, height, depth = draw.uniform(6, 20), draw.uniform(3.5, 12), draw.uniform(6, 20)
    wall = np.ones((96, 96, 4), np.float32)
    wall[..., :3] = draw.uniform(0.3, 0.95) * draw.uniform(0.8, 1, 3)
    wall[..., :3] += noise(draw, (96, 96), (4, 24))[..., None] * 0.05
    rows, columns = draw.integers(1, 5), draw.integers(2, 8)
    for row in range(rows):
        for column in range(columns):
            top, left = int((row + 0.25) * 96 / rows), int((column + 0.25) * 96 / columns)
            wall[top : top + int(48 / rows), left : left + int(48 / columns), :3] = draw.choice([0.1, 0.2, 0.9]) * draw.uniform(0.7, 1, 3)
    x, z = width / 2, depth / 2
    feet = np.array([[-x, z], [x, z], [x, -z], [-x, -z]])
    corners, places = [], []
    for number in range(4):
        (ax, az), (bx, bz) = feet[number], feet[(number + 1) % 4]
        quad = [[ax, 0, az], [bx, 0, bz], [bx, height, bz], [ax, height, az]]
        flat = [[0, 0], [1, 0], [1, 1], [0, 1]]
        for triangle in ((0, 1, 2), (0, 2, 3)):
            corners.append([quad[i] for i in triangle])
            places.append([flat[i] for i in triangle])
    gable = draw.uniform(0, 3)
    ridge = [[0, height + gable, z], [0, height + gable, -z]]
    for side in (-x, x):
        corners += [[[side, height, z], ridge[0], ridge[1]], [[side, height, z], ridge[1], [side, height, -z]]]
    corners += [[[-x, height, end], [x, height, end], [0, height + gable, end]] for end in (z, -z)]
    places += [[[0.5, 0.02]] * 3] * 6
    material = np.array([0] * 8 + [1] * 4 + [0] * 2)
    roof = Material("roof", draw.uniform(0.2, 0.6) * draw.uniform(0.7, 1, 3), None, 1.0)
    return Mesh(np.array(corners, float), np.array(places, float), material, (Material("wall", wall[0, 0, :3], wall, 1.0), roof))


def street(models: Stock, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street as a camera (128, 128, 3) and as a thermal camera (128, 128) see it, both uint8."""
    half_road = draw.uniform(3.5, 6)
    things = _things(models, half_road, draw)
    tilt, yaw = draw.normal(-0.01, 0.03), draw.normal(0, 0.08)
    eye = np.array([draw.uniform(-0.5, 0.5) * half_road, draw.uniform(1.2, 1.9), 0])
    forward = np.array([np.sin(yaw) * np.cos(tilt), np.sin(tilt), -np.cos(yaw) * np.cos(tilt)])
    right = np.cross(forward, [0, 1, 0]) / np.hypot(forward[0], forward[2])
    turn = np.stack([right, np.cross(forward, right), forward])

    whole = meshes.join([thing.mesh for thing in things])
    temperature = np.concatenate([thing.heat.temperature for thing in things])
    emissivity = np.concatenate([thing.heat.emissivity for thing in things])
    corners = (whole.corners - eye) @ turn.T
    seen = render(corners, STREET, holes(whole), nearest=0.5)
    ground = plane_depth(STREET, turn @ [0, 1, 0], -eye[1])
    rays = STREET.rays() @ turn
    hills = _hills(rays, draw)
    depth = np.minimum(seen.depth, np.where(ground < FAR, ground, np.inf))
    front = seen.depth <= depth
    front &= np.isfinite(seen.depth)
    below = ~front & np.isfinite(depth)

    night = draw.choice([0.0, 0.0, draw.uniform(0.4, 0.8), draw.uniform(0.85, 1.0)])
    sun = np.array([draw.normal(), draw.uniform(0.3, 1.5), draw.normal()])
    sun /= np.linalg.norm(sun)
    colour = _sky(rays, night, draw)
    colour[hills] = draw.uniform(0.15, 0.5, 3) * [0.8, 1, 0.8]
    sky = -draw.uniform(6, 25) * (0.4 + 0.6 * np.clip(rays[..., 1] / np.linalg.norm(rays, axis=-1) * 4, 0, 1))
    sky += draw.uniform(0, 3) * noise(draw, sky.shape, (4, 8, 16))
    radiation = np.where(hills, draw.normal(0, 1.5) + 0.5 * noise(draw, sky.shape, (32, 64)), sky)

    place = rays * np.where(below, ground, 0)[..., None] + eye
    colour[below], radiation[below] = _ground(place[below], half_road, draw)

    triangle = seen.triangle[front]
    normal = normals(whole.corners[triangle])
    normal *= np.where((normal * rays[front]).sum(1) > 0, -1, 1)[:, None]  # towards the camera
    surface_colour = colours(whole, triangle, seen.weights[front])[:, :3]
    lit = np.clip(normal @ sun, 0, 1)
    colour[front] = surface_colour * (0.5 + 0.6 * lit)[:, None]
    kind = whole.material[triangle]
    surface = temperature[kind] + draw.uniform(0, 6) * (1 - night) * lit * (1.2 - surface_colour.mean(1))
    surface += draw.uniform(-4, 2) * (surface_colour.mean(1) - 0.5)  # paint, print and weave show a little
    mirrored = np.where(normal[:, 1] > 0.3, sky.mean() * normal[:, 1], 0.0)
    radiation[front] = emissivity[kind] * surface + (1 - emissivity[kind]) * mirrored

    air = np.exp(-np.where(np.isfinite(depth), depth, FAR) / draw.uniform(150, 2000))[..., None]
    colour = colour * air + _haze(night) * (1 - air)
    return _night(colour, things, eye, turn, depth, night, draw), camera_picture(radiation, draw)


def _things(models: Stock, half_road: float, draw: np.random.Generator) -> list[Thing]:
    """Draw the things that stand in a street. The road runs to -z."""
    things: list[Thing] = []

    def place_thing(mesh: Mesh, kind: str, x: float, z: float, turned: float) -> None:
        things.append(Thing(mesh.turn_and_move(turned, (x, 0, z)), heat(mesh, kind, draw), kind))

    def side() -> float:
        return float(draw.choice([-1.0, 1.0]))

    def choose(kind: str) -> Mesh:
        choice = models.meshes[kind]
        return choice[draw.integers(len(choice))]

    for _ in range(draw.integers(0, 6)):
        place_thing(building(draw), "building", side() * (half_road + draw.uniform(11, 22)), -draw.uniform(10, 70), draw.normal(0, 0.1))
    for kind, most, near, far, least_out, most_out in (
        ("vehicle", 7, 6, 50, -3.0, 0.0),
        ("plant", 14, 6, 50, 0.5, 9),
        ("person", 4, 5, 25, -2.5, 3),
        ("lamp", 4, 6, 40, 0.3, 1.5),
        ("thing", 3, 5, 20, 0.5, 3),
    ):
        if kind not in models.meshes:
            continue
        for _ in range(draw.integers(0, most + 1)):
            turned = draw.normal(0, 0.1) + draw.choice([0, np.pi]) if kind == "vehicle" else draw.uniform(0, 2 * np.pi)
            place_thing(choose(kind), kind, side() * (half_road + draw.uniform(least_out, most_out)), -draw.uniform(near, far), turned)
    if not things:
        place_thing(building(draw), "building", side() * (half_road + 14), -30, 0)
    return things


def _hills(rays: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Draw where far trees, houses or hills (256, 256) stand over the horizon."""
    skyline = draw.uniform(-0.02, 0.1) + draw.uniform(0, 0.15) * noise(draw, (1, rays.shape[1]), (4, 9, 25, 60))[0]
    return (rays[..., 1] > 0) & (rays[..., 1] < skyline)


def _haze(night: float) -> np.ndarray:
    return (1 - night) * np.array([0.8, 0.85, 0.9])


def _sky(rays: np.ndarray, night: float, draw: np.random.Generator) -> np.ndarray:
    """Draw the sky (256, 256, 3) with clouds."""
    up = np.clip(rays[..., 1:2] * 3, 0, 1)
    zenith, horizon = np.array([0.45, 0.65, 0.95]) * draw.uniform(0.8, 1.1), np.array([0.9, 0.92, 0.95])
    if 0.2 < night < 0.85:
        horizon = np.array([0.95, draw.uniform(0.55, 0.85), draw.uniform(0.4, 0.8)])
    clouds = np.clip(noise(draw, rays.shape[:2], (3, 6, 12, 24)) * 2 + draw.uniform(-1, 1), 0, 1)[..., None]
    return horizon + (zenith - horizon) * up * (1 - clouds)


def _ground(place: np.ndarray, half_road: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw colours (k, 3) and radiation (k,) at places (k, 3) of the ground: road, pavement, what lies beyond, and lines."""
    x, z = place[:, 0], place[:, 2]
    road, pavement = np.abs(x) < half_road, np.abs(x) < half_road + draw.uniform(1, 3)
    beyond = np.array([0.35, 0.45, 0.25]) if draw.random() < 0.6 else np.full(3, 0.5)
    colour = np.where(road[:, None], draw.uniform(0.25, 0.6), np.where(pavement[:, None], draw.uniform(0.5, 0.8), beyond))
    radiation = np.where(road, draw.normal(0, 4), np.where(pavement, draw.normal(0, 3), draw.normal(0, 2)))
    dashes = (np.abs(x) < 0.08) & ((z % 6 < 3) | (draw.random() < 0.5))
    edges = (np.abs(np.abs(x) - half_road * 0.93) < 0.07) & (draw.random() < 0.6)
    crossing = (np.abs(z + draw.uniform(8, 40)) < 0.3) & road & (draw.random() < 0.4)
    lines = dashes | edges | crossing
    colour[lines] = draw.choice([0.95, 0.85])
    radiation[lines] += draw.normal(0, 1.5)
    texture = 0.03 * np.sin(x * draw.uniform(1, 4) + 0.7 * np.sin(z * draw.uniform(0.3, 2))) + 0.02 * draw.normal(size=len(x))
    tracks = np.exp(-(((np.abs(np.abs(x) - half_road / 2) - 0.8) / 0.3) ** 2)) * road  # where wheels run
    return colour + texture[:, None] - 0.05 * tracks[:, None], radiation + draw.uniform(-10, 10) * texture + draw.uniform(0, 1.2) * tracks


def _night(
    colour: np.ndarray, things: list[Thing], eye: np.ndarray, turn: np.ndarray, depth: np.ndarray, night: float, draw: np.random.Generator
) -> np.ndarray:
    """Darken a picture to a time of day and switch its lamps on; return it as (128, 128, 3) uint8."""
    left = 1 - 0.75 * night
    tint = 1 + night * (draw.uniform([0.7, 0.6, 0.3], [1.0, 0.9, 0.8]) - 1)
    out = colour * left * tint * draw.uniform(0.75, 1.15)
    if night > 0.3:
        rows, columns = np.mgrid[: STREET.size, : STREET.size]
        for thing in things:
            if thing.kind not in ("lamp", "vehicle"):
                continue
            points = thing.mesh.corners.reshape(-1, 3)
            low, high = points.min(0), points.max(0)
            if thing.kind == "lamp":
                lights = [((low + high) / 2 * [1, 0, 1] + [0, high[1] - 0.2, 0], draw.uniform([0.9, 0.6, 0.3], 1))]
            else:
                shade = draw.choice([[1.0, 1.0, 0.9], [1.0, 0.15, 0.1]])
                lights = [(np.array([x, low[1] + 0.7, high[2]]), shade) for x in (low[0] + 0.25, high[0] - 0.25)]
            for place, shade in lights:
                x, y, z = turn @ (place - eye)
                if z > 1:
                    column, row = x / z * STREET.focal + STREET.size / 2, y / z * STREET.focal + STREET.size / 2
                    wide = 6 + 60 / z
                    away = ((rows - row) ** 2 + (columns - column) ** 2) / wide**2
                    out += (night * np.exp(-away) + 0.25 * night / (1 + 3 * away))[..., None] * shade
    return to_bytes(halve(out + draw.normal(0, 0.03 * night, out.shape)))


def room(view: furniture.View, kind: str, draw: np.random.Generator) -> np.ndarray:
    """Draw a view of furniture as a thermal camera sees it, (128, 128) uint8."""
    warmth = heat(view.mesh, kind, draw)
    floor = view.floor < view.wall
    radiation = np.where(floor, draw.normal(0, 1.5), draw.normal(0, 1.5)) + draw.uniform(0, 0.6) * noise(draw, floor.shape, (4, 8))
    front = view.seen.depth < view.room
    triangle = view.seen.triangle[front]
    material = view.mesh.material[triangle]
    brightness = colours(view.mesh, triangle, view.seen.weights[front])[:, :3].mean(1)
    up = np.abs(normals(view.corners[triangle] @ view.turn)[:, 1])
    surface = warmth.temperature[material] + draw.uniform(-1.5, 1.5) * (brightness - 0.5) + draw.uniform(0, 1.5) * up
    radiation[front] = warmth.emissivity[material] * surface + (1 - warmth.emissivity[material]) * draw.normal(0, 1.5)
    return camera_picture(radiation, draw)


def streets(work: Path, split: str, numbers: Sequence[int]) -> None:
    """Write the streets of a split that have these numbers."""
    out = work / "data" / "thermal"
    for number in numbers:
        if not (out / "thermal" / f"{split}-{number}.png").exists():
            picture, thermal = street(stock(work, split), np.random.default_rng([number, len(split)]))
            Image.fromarray(picture).save(out / "image" / f"{split}-{number}.png")
            Image.fromarray(thermal).save(out / "thermal" / f"{split}-{number}.png")


def rooms(work: Path, entry: meshes.Entry, path: Path) -> None:
    """Write a model's thermal views; their pictures are those of furniture.py."""
    out = work / "data" / "thermal" / "thermal"
    if all((out / f"{entry.id}-{number}.png").exists() for number in ROOM_VIEWS):
        return
    with zipfile.ZipFile(path) as archive:
        mesh = furniture.at_shown_size(meshes.read_mesh(archive, entry, furniture.MOST_TRIANGLES), entry)
    words = entry.name.lower().split()
    kind = "person" if "People" in entry.tags else "warm" if set(words) & set(WARM) else "thing"
    for number in ROOM_VIEWS:
        draw = furniture.view_random(entry, number)
        thermal = room(furniture.view(mesh, entry.elevation, draw), kind, draw)
        Image.fromarray(thermal).save(out / f"{entry.id}-{number}.png")


def main() -> None:
    work = Path(sys.argv[1])
    out = work / "data" / "thermal"
    if (out / "test.jsonl").exists():
        return
    for kind in ("image", "thermal"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    rows = {split: [json.loads(line) for line in (work / "data" / "furniture" / f"{split}.jsonl").open()] for split in ("train", "test")}
    known = {row["group"] for split in rows for row in rows[split]}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(streets, work, split, range(start, min(start + 50, count)))
            for split, count in STREETS.items()
            for start in range(0, count, 50)
        ]
        for path in meshes.catalogues(work / "sources" / "sweethome3d-furniture"):
            jobs += [pool.submit(rooms, work, entry, path) for entry in meshes.entries(path) if entry.id in known]
        for job in jobs:
            job.result()
    for split, count in STREETS.items():
        lines = [
            {"id": f"street-{split}-{n}", "image": f"image/{split}-{n}.png", "thermal": f"thermal/{split}-{n}.png", "source": "street"}
            for n in range(count)
        ]
        room_rows = [row for row in rows[split] if int(row["id"].rpartition("-")[2]) in ROOM_VIEWS]
        lines += [
            {key: row[key] for key in ("id", "label", "name", "group")}
            | {"image": f"../furniture/{row['image']}", "thermal": f"thermal/{row['id']}.png", "source": row["source"]}
            for row in room_rows
        ]
        write_rows(out / f"{split}.jsonl", lines)
        print(f"thermal {split}: {count} streets, {len(room_rows)} views of furniture, all synthetic", file=sys.stderr)


if __name__ == "__main__":
    main()
