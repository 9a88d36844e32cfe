"""Read Sweet Home 3D's furniture catalogues (`.sh3f`): names and meshes with colours and textures, for furniture.py and thermal.py."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

CATALOGUE = "PluginFurnitureCatalog.properties"
TEXTURE_SIDE = 256
SEEN_THROUGH = 0.5  # opacity; glass below it is left out, since a depth camera looks through it


@dataclass(frozen=True)
class Entry:
    """A model of a catalogue. size: width, height, depth in metres; elevation: of its base over the floor, in metres."""

    id: str
    name: str
    category: str
    tags: tuple[str, ...]
    source: str
    licence: str
    creator: str
    file: str
    size: tuple[float, float, float]
    elevation: float
    rotation: tuple[float, ...] | None


@dataclass(frozen=True)
class Material:
    """A surface: name, colour (3,) in [0, 1], texture (h, w, 4) in [0, 1] or None, opacity."""

    name: str
    colour: np.ndarray
    texture: np.ndarray | None
    opacity: float


@dataclass(frozen=True)
class Mesh:
    """Triangles. corners (n, 3, 3): x right, y up, z to the front, in metres, the middle of the base at the origin.

    places: of the corners on the texture (n, 3, 2). material: of each triangle (n,), by its number.
    """

    corners: np.ndarray
    places: np.ndarray
    material: np.ndarray
    materials: tuple[Material, ...]

    def scale(self, factor: float) -> Mesh:
        """Scale the mesh about the origin."""
        return replace(self, corners=self.corners * factor)

    def part(self, triangles: np.ndarray) -> Mesh:
        """Keep some of the triangles, by number or mask."""
        return replace(self, corners=self.corners[triangles], places=self.places[triangles], material=self.material[triangles])

    def turn_and_move(self, turned: float, place: tuple[float, float, float]) -> Mesh:
        """Turn the mesh around its upright axis by an angle in radians, then move it."""
        turn = np.array([[np.cos(turned), 0, np.sin(turned)], [0, 1, 0], [-np.sin(turned), 0, np.cos(turned)]])
        return replace(self, corners=self.corners @ turn.T + place)


def join(several: Sequence[Mesh]) -> Mesh:
    """Join several meshes into one; each keeps its materials."""
    starts = np.cumsum([0, *(len(mesh.materials) for mesh in several)])
    return Mesh(
        np.concatenate([mesh.corners for mesh in several]),
        np.concatenate([mesh.places for mesh in several]),
        np.concatenate([mesh.material + start for mesh, start in zip(several, starts, strict=False)]),
        tuple(material for mesh in several for material in mesh.materials),
    )


def catalogues(folder: Path) -> list[Path]:
    """Return the catalogues under a folder."""
    return sorted(folder.glob("**/*.sh3f"))


def entries(path: Path) -> list[Entry]:
    """Read the entries of a catalogue, in its order."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read(CATALOGUE).decode("unicode_escape")  # Latin-1 with \uXXXX, as Java writes properties
    keys: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            name, _, number = key.strip().partition("#")
            keys.setdefault(number, {})[name] = value.strip()
    licence = keys.pop("")["license"]
    return [_entry(path.stem, licence.partition("  ")[0], values) for values in keys.values()]


def _entry(source: str, licence: str, values: dict[str, str]) -> Entry:
    rotation = tuple(map(float, values["modelRotation"].split())) if "modelRotation" in values else None
    tags = (tag.strip() for tag in values["tags"].split(","))
    return Entry(
        id=f"{source}-{posixpath.basename(values['model']).rpartition('.')[0]}",
        name=" ".join(values["name"].split()),
        category=values["category"],
        tags=tuple(tag for tag in tags if tag and tag != "Blend Swap"),
        source=source,
        licence=licence,
        creator=values["creator"],
        file=values["model"].lstrip("/"),
        size=(float(values["width"]) / 100, float(values["height"]) / 100, float(values["depth"]) / 100),
        elevation=float(values.get("elevation", 0)) / 100,
        rotation=rotation,
    )


def read_mesh(archive: zipfile.ZipFile, entry: Entry, limit: int) -> Mesh:
    """Read an entry's mesh, turned and stretched as the catalogue says.

    Raises:
        ValueError: it does not parse, has no surface, or has more than `limit` triangles.
    """
    lines = archive.read(entry.file).splitlines()
    vertices = np.array(b" ".join(b" ".join(line.split()[1:4]) for line in lines if line.startswith(b"v ")).split(), np.float64).reshape(
        -1, 3
    )
    places = np.array(b" ".join(b" ".join(line.split()[1:3]) for line in lines if line.startswith(b"vt ")).split(), np.float64).reshape(
        -1, 2
    )
    places = np.concatenate([places, [[np.nan, np.nan]]])  # the last row is for corners without one
    materials = {"": Material("", np.full(3, 0.7), None, 1.0)}
    points: list[int] = []
    texture_indices: list[int] = []
    triangle_materials: list[int] = []
    material_number = vertices_read = places_read = 0
    for line in lines:
        start = line[:2]
        if start == b"v ":
            vertices_read += 1
        elif start == b"vt":
            places_read += 1
        elif start == b"f ":
            face_points, face_texture_indices = [], []
            for token in line.split()[1:]:
                index = token.split(b"/")
                at = int(index[0])
                face_points.append(at - 1 if at > 0 else vertices_read + at)
                at = int(index[1]) if len(index) > 1 and index[1] else 0
                face_texture_indices.append(at - 1 if at > 0 else places_read + at if at else -1)
            for corner in range(1, len(face_points) - 1):
                points += (face_points[0], face_points[corner], face_points[corner + 1])
                texture_indices += (face_texture_indices[0], face_texture_indices[corner], face_texture_indices[corner + 1])
                triangle_materials.append(material_number)
        elif start == b"us":
            name = line.split(None, 1)[1].decode("latin-1").strip()
            material_number = list(materials).index(name) if name in materials else 0
        elif start == b"mt":
            library = posixpath.join(posixpath.dirname(entry.file), line.split(None, 1)[1].decode("latin-1").strip())
            materials |= _materials(archive, library)
    if not triangle_materials or len(triangle_materials) > limit:
        raise ValueError(f"{len(triangle_materials)} triangles")
    if max(points) >= len(vertices) or max(texture_indices) >= len(places) - 1:
        raise ValueError("a face names a corner that is not there")
    used = np.unique(points)
    if entry.rotation:
        vertices = vertices @ np.reshape(entry.rotation, (3, 3)).T
    low, high = vertices[used].min(0), vertices[used].max(0)
    extent = np.maximum(high - low, 1e-9)
    vertices = (vertices - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) / extent * entry.size
    material = np.array(triangle_materials)
    opacity = np.array([m.opacity for m in materials.values()])[material]
    opaque = opacity >= SEEN_THROUGH if (opacity >= SEEN_THROUGH).any() else np.ones(len(opacity), bool)
    corners = vertices[np.reshape(points, (-1, 3))[opaque]]
    return Mesh(corners, places[np.reshape(texture_indices, (-1, 3))[opaque]], material[opaque], tuple(materials.values()))


def _materials(archive: zipfile.ZipFile, library: str) -> dict[str, Material]:
    materials: dict[str, Material] = {}
    try:
        text = archive.read(library).decode("latin-1")
    except KeyError:
        return materials
    name, colour, texture, opacity = "", np.full(3, 0.7), None, 1.0
    for line in [*text.splitlines(), "newmtl"]:
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if key == "newmtl":
            if name:
                materials[name] = Material(name, colour, texture, opacity)
            name, colour, texture, opacity = value, np.full(3, 0.7), None, 1.0
        elif key == "Kd":
            colour = np.clip(np.array(value.split()[:3], float), 0, 1)
        elif key == "d":
            opacity = float(value.split()[-1])
        elif key == "map_Kd":
            texture = _texture(archive, posixpath.join(posixpath.dirname(library), value.split()[-1]))
    return materials


def _texture(archive: zipfile.ZipFile, path: str) -> np.ndarray | None:
    try:
        picture = Image.open(io.BytesIO(archive.read(path))).convert("RGBA")
    except (KeyError, OSError):
        return None
    picture.thumbnail((TEXTURE_SIDE, TEXTURE_SIDE))
    return np.asarray(picture, np.float32) / 255
