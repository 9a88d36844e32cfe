"""LLVIP (Jia et al. 2021): people and background at night, in crops of thermal pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.payloads import Box, PictureCrop
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Contents, LabelledItem
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.sources import Item

PERSON, BACKGROUND = 0, 1  # the recipe's order
TRIES = 100


def llvip_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read every box around a person in the test pictures, and for each a random box of the same size in the same picture."""
    folder, annotations = tree.find("infrared/test"), tree.find("Annotations")
    pictures = sorted(folder.glob("*.jpg"))
    tree.all_there(annotations / f"{picture.stem}.xml" for picture in pictures)
    items: list[LabelledItem] = []
    unplaced = empty = 0
    for picture in pictures:
        size, boxes = _annotation(tree, annotations / f"{picture.stem}.xml")
        people = [box for box in (_padded(box, options["padding"], size) for box in boxes) if box[0] < box[2] and box[1] < box[3]]
        empty += len(boxes) - len(people)
        random = Random(f"{options['seed']}/{picture.stem}")  # one for each picture, so that its boxes do not depend on other pictures
        for number, box in enumerate(people):
            items.append((Item(f"{picture.stem}/person/{number}", PictureCrop(picture, box)), (PERSON,), None))
            other = _elsewhere(box, size, [] if options["overlap"] == "yes" else people, random)
            if other is None:
                unplaced += 1
            else:
                items.append((Item(f"{picture.stem}/background/{number}", PictureCrop(picture, other)), (BACKGROUND,), None))
    return Contents(items, notes=list(_counts(items, unplaced, empty)))


def _counts(items: Sequence[LabelledItem], unplaced: int, empty: int) -> Iterator[str]:
    people = sum(truth == (PERSON,) for _, truth, _ in items)
    yield f"{people:,} people and {len(items) - people:,} boxes of background; the paper has 7,931 and 7,878"
    if unplaced:
        yield f"people without a box of background: {unplaced:,}; in {TRIES} tries none of their size missed all people"
    if empty:
        yield f"empty boxes around people, left out: {empty:,}"


def _annotation(tree: Tree, path: Path) -> tuple[tuple[int, int], list[Box]]:
    """Read the width and height of a picture and the boxes around people from a PASCAL VOC annotation."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
        size = _integer(root, "size/width"), _integer(root, "size/height")
        people = [entry for entry in root.iter("object") if entry.findtext("name") == "person"]
        boxes = [
            (_integer(box, "bndbox/xmin"), _integer(box, "bndbox/ymin"), _integer(box, "bndbox/xmax"), _integer(box, "bndbox/ymax"))
            for box in people
        ]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise UserError(f"{path}: not an annotation of PASCAL VOC: {error}") from None
    return size, boxes


def _integer(entry: ElementTree.Element, name: str) -> int:
    text = entry.findtext(name)
    if text is None:
        raise ValueError(f"no {name}")
    return round(float(text))


def _padded(box: Box, share: float, size: tuple[int, int]) -> Box:
    """Grow a box on each side by a share of its width or height, within the picture."""
    across, down = (round(share * (box[side + 2] - box[side])) for side in (0, 1))
    return max(box[0] - across, 0), max(box[1] - down, 0), min(box[2] + across, size[0]), min(box[3] + down, size[1])


def _elsewhere(box: Box, size: tuple[int, int], avoided: Sequence[Box], random: Random) -> Box | None:
    """Draw a box of the same size at a random place that overlaps none of the avoided boxes; None if there is none."""
    width, height = box[2] - box[0], box[3] - box[1]
    for _ in range(TRIES):
        left, top = random.randint(0, size[0] - width), random.randint(0, size[1] - height)
        drawn = left, top, left + width, top + height
        if not any(drawn[0] < other[2] and other[0] < drawn[2] and drawn[1] < other[3] and other[1] < drawn[3] for other in avoided):
            return drawn
    return None
