"""The regions of pictures and maps, from a file: COCO's JSON, a list of detections beside it, or a manifest with a row for each box.

COCO: `images` (`id`, `file_name`), `annotations` (`image_id`, `bbox`, `category_id`, `segmentation`, `score`), `categories` (`id`, `name`). A list
of detections holds `{"image_id", "bbox", "score", "category_id"}`, and another file of that form holds the pictures.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from imagebind_cli.documents import read_json
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.files import leaves_folder
from imagebind_cli.media.masks import PictureMask, parse_segmentation
from imagebind_cli.media.regions import Region
from imagebind_cli.registry import face
from imagebind_cli.sources.items import Failure, Item, Regions, whole_source
from imagebind_cli.tabular import BadRow, read_rows

LARGEST = 1 << 30  # bytes of a JSON file: COCO's own has 450 MB
TABLES = (".jsonl", ".csv", ".tsv")
FIELDS = {  # of the JSON's objects, that are used
    *("images", "annotations", "categories", "id", "file_name", "name"),
    *("image_id", "category_id", "bbox", "score", "segmentation", "counts", "size"),
}


@dataclass
class BoxedPicture:
    """A picture that a file of boxes names. fault: why its boxes cannot be used, in words."""

    id: str
    name: str
    regions: list[Region] = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True)
class BoxFile:
    """The regions of pictures, by the names that a file has for these. Get one from `read_boxes`.

    folder: where relative names start. pictures: in the file's order. failures: rows that name no picture. notes: what was left out, in words.
    """

    path: Path
    folder: str
    pictures: list[BoxedPicture]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def items(self) -> Iterator[Item | Failure]:
        """Yield the pictures themselves, each with its regions. One without any is left out."""
        yield from self.failures
        for picture in self.pictures:
            if picture.regions or picture.fault:
                yield self._boxed(Item(picture.id, os.path.join(self.folder, picture.name)), picture)

    def left_out(self) -> Iterator[str]:
        """Say how many pictures `items` leaves out."""
        if without := len(self.pictures) - len(self):
            yield f"{self.path}: left out, since they have no box: {without:,} of {len(self.pictures):,} pictures"

    def attach(self, items: Iterable[Item | Failure]) -> Iterator[Item | Failure]:
        """Give inputs their regions. An input is the picture of which a name is the end of its path; one without boxes is a failure."""
        yield from self.failures
        by_name: dict[str, list[BoxedPicture]] = {}
        for picture in self.pictures:
            by_name.setdefault(PurePosixPath(picture.name).name, []).append(picture)
        for item in items:
            if isinstance(item, Failure):
                yield item
                continue
            path = whole_source(item.payload)
            place = PurePosixPath(Path(os.path.abspath(path)).as_posix() if isinstance(path, str) else item.id)
            named = [picture for picture in by_name.get(place.name, []) if _is_end(PurePosixPath(picture.name), place)]
            longest = max((len(PurePosixPath(picture.name).parts) for picture in named), default=0)
            same = [picture for picture in named if len(PurePosixPath(picture.name).parts) == longest]
            faults = [picture.fault for picture in same if picture.fault]
            all_of_it = BoxedPicture(item.id, "", [region for picture in same for region in picture.regions], *faults[:1])
            yield self._boxed(item, all_of_it)

    def _boxed(self, item: Item, picture: BoxedPicture) -> Item | Failure:
        if picture.fault:
            return Failure(item.id, f"{self.path}: {picture.fault}")
        if not picture.regions:
            return Failure(item.id, f"{self.path} has no box for it")
        return replace(item, payload=Regions(item.payload, picture.regions))

    def __len__(self) -> int:
        """The number of pictures with regions."""
        return sum(bool(picture.regions or picture.fault) for picture in self.pictures)


def _is_end(name: PurePosixPath, path: PurePosixPath) -> bool:
    parts = [part for part in name.parts if part != "/"]
    return path == name if name.is_absolute() else list(path.parts[-len(parts) :]) == parts


def read_boxes(path: Path | str, modality: str, pictures: Path | str | None = None, columns: Mapping[str, str] | None = None) -> BoxFile:
    """Read a file of boxes.

    Args:
        path: JSON of COCO's form or a list of detections; or JSON Lines, CSV or TSV with the column of the modality and `box` or `mask`, a row for
            each region, whose other columns are kept. modality: of the pictures, `image`, `depth` or `thermal`.
        pictures: JSON of COCO's form that has the pictures of a list of detections.
        columns: names to give to a table's columns, as `tabular.read_rows` takes them.
    Raises:
        UserError: the file cannot be read, is of another form, or names pictures outside its folder. UsageError: the modality has no regions; a list
            without its pictures.
    """
    path = Path(path)
    named = face(modality)
    if not named.drawn or named.timed:
        raise UsageError(f"{modality} has no regions; boxes are of image, depth or thermal")
    if path.suffix.lower() in TABLES:
        if pictures is not None:
            raise UsageError("--pictures goes with a list of detections; a table of boxes names its own")
        return _read_table(path, modality, columns)
    document = read_json(path, LARGEST, _used)
    if not isinstance(document, list):
        if pictures is not None:
            raise UsageError(f"--pictures goes with a list of detections; {path} has pictures of its own")
        return _read_coco(path, path, document, _list_of(path, document, "annotations"))
    if pictures is None:
        raise UsageError(
            f"{path} is a list of detections, which give their pictures by number; name the JSON that lists these with --pictures"
        )
    return _read_coco(path, Path(pictures), read_json(Path(pictures), LARGEST, _used), document)


def _used(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of the JSON without what is not used, and with polygons packed: a file may have millions of corners."""
    used = {key: value for key, value in pairs if key in FIELDS}
    if isinstance(polygons := used.get("segmentation"), list):
        used["segmentation"] = [_packed(polygon) for polygon in polygons]
    return used


def _packed(polygon: Any) -> Any:
    """Return a list of numbers as an array; anything else as it is, which `parse_segmentation` judges."""
    try:
        return array("d", polygon) if isinstance(polygon, list) else polygon
    except (TypeError, OverflowError):
        return polygon


def _list_of(path: Path, document: Any, key: str) -> list[Any]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{path}: no list of {key!r} in it, which JSON of COCO's form has; a table of boxes ends in {', '.join(TABLES)}")
    return found


def _read_coco(path: Path, place: Path, document: Any, annotations: list[Any]) -> BoxFile:
    """Join annotations with the pictures and categories of a document at `place`."""
    pictures: dict[Any, BoxedPicture] = {}
    by_name: dict[str, BoxedPicture] = {}
    for number, entry in enumerate(_list_of(place, document, "images")):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not isinstance(entry.get("id"), int | str):
            raise UserError(f"{place}: image {number} has no id or no file_name")
        if leaves_folder(name):
            raise UserError(f"{place}: names the picture {name!r}, which is outside its folder; it is refused")
        pictures[entry["id"]] = by_name.setdefault(name, BoxedPicture(name, name))
    names = {
        entry["id"]: entry["name"]
        for entry in document.get("categories") or ()
        if isinstance(entry, dict) and entry.keys() >= {"id", "name"}
    }
    elsewhere = 0
    for number, entry in enumerate(annotations):
        of = entry.get("image_id") if isinstance(entry, dict) else None
        picture = pictures.get(of) if isinstance(of, int | str) else None
        if picture is None:
            elsewhere += 1
            continue
        try:
            picture.regions.append(_annotated(entry, names))
        except ValueError as error:
            picture.fault = picture.fault or f"annotation {entry.get('id', number)}: {error}"
    notes = (
        [f"{path}: left out, as of pictures that {place} does not have: {elsewhere:,} of {len(annotations):,} boxes"] if elsewhere else []
    )
    return BoxFile(path, os.path.dirname(place), list(by_name.values()), (), tuple(notes))


def _annotated(entry: Mapping[str, Any], names: Mapping[Any, Any]) -> Region:
    """Return the region of one annotation or detection.

    Raises:
        ValueError: neither a box nor a mask, or a broken one.
    """
    mask = parse_segmentation(entry.get("segmentation"))
    box = entry.get("bbox")
    if box is None and mask is None:
        raise ValueError("neither bbox nor segmentation")
    about: dict[str, Any] = {}
    if "id" in entry:
        about["annotation"] = entry["id"]
    category = entry.get("category_id")
    if isinstance(category, int | str):
        about["label"] = names.get(category, category)
    if "score" in entry:
        about["score"] = entry["score"]
    return Region(box, mask, about)


def _read_table(path: Path, modality: str, columns: Mapping[str, str] | None) -> BoxFile:
    """Read a region from each row; those of one picture, or one `id`, are together."""
    pictures: dict[str, BoxedPicture] = {}
    failures: list[Failure] = []
    folder = os.path.dirname(path)
    for number, row in read_rows(path, (modality,), columns):
        cells = row.cells if isinstance(row, BadRow) else row
        name = cells.get(modality)
        if not isinstance(name, str):
            why = row.reason if isinstance(row, BadRow) else f"no {modality!r} in this row; it has {', '.join(cells) or 'nothing'}"
            failures.append(Failure(f"{path}:{number}", why))
            continue
        id = str(cells.get("id", name))
        picture = pictures.setdefault(id, BoxedPicture(id, name))
        if isinstance(row, BadRow) or name != picture.name:
            why = row.reason if isinstance(row, BadRow) else f"the id {id!r} belongs to {picture.name!r} in an earlier row"
            picture.fault = picture.fault or f"line {number}: {why}"
            continue
        try:
            picture.regions.append(_region_of(row, modality, folder))
        except ValueError as error:
            picture.fault = picture.fault or f"line {number}: {error}"
    return BoxFile(path, folder, list(pictures.values()), tuple(failures))


def _region_of(row: Mapping[str, Any], modality: str, folder: str) -> Region:
    box, mask = row.get("box"), row.get("mask")
    if mask is not None and not isinstance(mask, str):
        raise ValueError(f"mask {mask!s:.60} is not the name of a file")
    if box is None and mask is None:
        raise ValueError(f"neither box nor mask; it has {', '.join(row)}")
    about = {key: value for key, value in row.items() if key not in ("id", "box", "mask", modality)}
    if isinstance(about.get("score"), str):
        about["score"] = _number(about["score"])
    return Region(box, None if mask is None else PictureMask(os.path.join(folder, mask)), about)


def _number(text: str) -> float | str:
    try:
        return float(text) if math.isfinite(float(text)) else text
    except ValueError:
        return text
