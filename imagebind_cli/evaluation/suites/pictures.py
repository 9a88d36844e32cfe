"""Classes of pictures: ImageNet-1k (Russakovsky et al. 2015) and Places365 (Zhou et al. 2017), their validation sets."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Classes, Contents, LabelledItem
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.sources import Item


def imagenet_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the validation pictures: a folder for each synset, or all in one folder with `LOC_val_solution.csv`."""
    folder = tree.find("ILSVRC/Data/CLS-LOC/val", "val")
    folders = sorted(path.name for path in folder.glob("n????????") if path.is_dir())
    synonyms = _synonyms(tree) if tree.has("LOC_synset_mapping.txt") or not folders else {}
    synsets = list(synonyms) or folders
    numbers = {synset: number for number, synset in enumerate(synsets)}
    if folders:
        paths = [(path, synset) for synset in folders for path in sorted((folder / synset).iterdir())]
    else:
        rows = tree.rows(tree.find("LOC_val_solution.csv"), ["ImageId", "PredictionString"])
        paths = [(tree.named(folder, f"{row['ImageId']}.JPEG"), row["PredictionString"].split()[0]) for _, row in rows]
        tree.all_there(path for path, _ in paths)
    unknown = [synset for _, synset in paths if synset not in numbers]
    if unknown:
        raise UserError(f"{tree.suite}: synset {unknown[0]} is not in LOC_synset_mapping.txt")
    items: list[LabelledItem] = [(Item(path.name, str(path)), (numbers[synset],), None) for path, synset in paths]
    return Contents(items, _imagenet_names(tree, options["names"], synsets, synonyms))


def places365_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the validation pictures of `places365_val.txt`."""
    folder = tree.find("val_256", "val_large")
    categories = dict(_pairs(tree, tree.find("categories_places365.txt")))
    classes = [(name, [" ".join(name.split("/")[2:]).replace("_", " ")]) for name in sorted(categories, key=categories.__getitem__)]
    if sorted(categories.values()) != list(range(len(categories))):
        raise UserError(f"{tree.files[-1]}: the numbers must be 0 to {len(categories) - 1}")
    items: list[LabelledItem] = []
    for name, number in _pairs(tree, tree.find("places365_val.txt")):
        if number >= len(classes):
            raise UserError(f"{tree.files[-1]}: {name} is of class {number}; there are {len(classes)}")
        items.append((Item(name, str(tree.named(folder, name))), (number,), None))
    tree.all_there(Path(item.payload) for item, _, _ in items)
    return Contents(items, classes)


def _pairs(tree: Tree, path: Path) -> list[tuple[str, int]]:
    """Read the lines of a file that has a name and a number on each."""
    pairs = []
    for count, line in enumerate(tree.text(path).splitlines(), start=1):
        name, _, number = line.strip().rpartition(" ")
        if not name or not number.isdecimal():
            raise UserError(f"{path}:{count}: a name and a number are needed; it has {line[:40]!r}")
        pairs.append((name, int(number)))
    return pairs


def _synonyms(tree: Tree) -> dict[str, list[str]]:
    """Read the names of each synset, in the order of the file."""
    lines = tree.text(tree.find("LOC_synset_mapping.txt")).splitlines()
    pairs = (line.partition(" ") for line in lines if line.strip())
    return {synset: list(dict.fromkeys(name.strip() for name in names.split(","))) for synset, _, names in pairs}


def _imagenet_names(tree: Tree, chosen: str, synsets: list[str], synonyms: Mapping[str, list[str]]) -> Classes:
    """Name each synset: as in OpenCLIP, by its first synonym, by all of them, or as in a file with a name a line, or JSON."""
    if chosen in ("first", "synonyms"):
        if not synonyms:
            tree.find("LOC_synset_mapping.txt")
        return [(synset, synonyms[synset] if chosen == "synonyms" else synonyms[synset][:1]) for synset in synsets]
    names = imagenet_class_names(tree, chosen)
    if len(names) != len(synsets):
        raise UserError(
            f"names {chosen}: {len(names):,} of them; this ImageNet has {len(synsets):,} classes, in the order of their synsets"
        )
    return [(synset, [name]) for synset, name in zip(synsets, names, strict=True)]


def imagenet_class_names(tree: Tree, chosen: str) -> list[str]:
    """Return the names of the thousand classes in the order of their synsets: OpenCLIP's, or those of a file, a name a line, or JSON."""
    return _openclip_names() if chosen == "openclip" else _names_of(tree, Path(chosen))


def _names_of(tree: Tree, path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"names {str(path)!r}: no such file, and not one of openclip, first, synonyms")
    if path.suffix == ".json":
        names = tree.json(path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: a list of names is needed")
        return names
    return [line.strip() for line in tree.text(path).splitlines() if line.strip()]


def _openclip_names() -> list[str]:
    """Read OpenCLIP's names of the thousand classes from its package, without importing it."""
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        raise UserError(
            "OpenCLIP's names come with open-clip-torch, which is not installed: pip install open-clip-torch, or choose other names"
        )
    tree = ast.parse((Path(package.origin).parent / "zero_shot_metadata.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "IMAGENET_CLASSNAMES":
            return list(ast.literal_eval(node.value))
    raise UserError("this version of open-clip-torch has no list of ImageNet's names; choose other names")
