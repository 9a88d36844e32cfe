"""Scenes by their depth maps: NYU Depth v2 (Silberman et al. 2012) and SUN RGB-D (Song et al. 2015)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.payloads import Frame
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.suite import Contents, LabelledItem
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.media.hdf5 import check_dataset, find_dataset
from imagebind_cli.sources import Item

NYU_SPLITS = {"train": "trainNdxs", "test": "testNdxs"}
SUN_SPLITS = {"train": "alltrain", "test": "alltest"}


def nyud_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the in-filled depth maps of one split of `nyu_depth_v2_labeled.mat`, whose 27 scene types make ten classes."""
    path = tree.find("nyu_depth_v2_labeled.mat")
    scenes = _scene_types(tree, path)
    numbers = {name.replace(" ", "_"): number for number, names in enumerate(recipe.classes.values()) for name in names}
    items: list[LabelledItem] = []
    split = _matlab(tree, tree.find("splits.mat"), NYU_SPLITS[options["split"]])
    for index in sorted(int(index) for index in split.ravel()):
        if not 1 <= index <= len(scenes):
            raise UserError(f"{tree.root / 'splits.mat'}: picture {index}; {path.name} has {len(scenes):,}")
        if scenes[index - 1] not in numbers:
            raise UserError(f"{path}: picture {index} is of an unknown scene type {scenes[index - 1]!r}")
        items.append((Item(f"{index:04d}", Frame(path, "depths", index - 1)), (numbers[scenes[index - 1]],), None))
    return Contents(items)


def sunrgbd_contents(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> Contents:
    """Read the in-filled depth maps of one split whose `scene.txt` names one of the 19 scenes."""
    numbers = {name: number for number, name in enumerate(recipe.classes)}
    samples, names = sun_samples(tree, options["split"])
    items: list[LabelledItem] = []
    for name in names:
        scene = (samples / name / "scene.txt").read_text(encoding="utf-8", errors="replace").strip()
        if scene in numbers:
            maps = sorted((samples / name / "depth_bfx").glob("*.png"))
            if not maps:
                raise UserError(f"{tree.suite}: no depth map in {samples / name / 'depth_bfx'}")
            items.append((Item(name, str(maps[0])), (numbers[scene],), None))
    left = len(names) - len(items)
    return Contents(items, notes=[f"{left:,} of {len(names):,} samples are of none of the 19 scenes and left out"] if left else [])


def sun_samples(tree: Tree, split: str) -> tuple[Path, list[str]]:
    """Return the folder of SUN RGB-D's samples, and the names of the samples of a split."""
    samples = tree.find("SUNRGBD")
    cells = _matlab(tree, tree.find("SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"), SUN_SPLITS[split])
    names = [str(cell.item()).rpartition("SUNRGBD/")[2].strip("/") for cell in cells.ravel()]  # the list has paths of the authors' machine
    tree.all_there(tree.named(samples, name) / "scene.txt" for name in names)
    return samples, names


def _scene_types(tree: Tree, path: Path) -> list[str]:
    """Read the scene type of each picture. MATLAB 7.3 stores a cell array of strings as references to arrays of character codes."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "sceneTypes" not in file or "depths" not in file:
                raise UserError(f"{path}: no sceneTypes or depths; it has {', '.join(file)}")
            texts = [file[reference] for reference in find_dataset(file, "sceneTypes")[()].ravel()]
            for text in texts:
                check_dataset(text)
            return ["".join(chr(code) for code in text[()].ravel()) for text in texts]
    except (OSError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: not a MATLAB 7.3 file with scene types") from None


def _matlab(tree: Tree, path: Path, name: str) -> Any:
    """Read an array of a MATLAB 5 file."""
    tree.files.append(path)
    try:
        matlab = importlib.import_module("scipy.io")
    except ImportError:
        raise UserError(f"{path}: a MATLAB file, which scipy reads: pip install scipy") from None
    try:
        values = matlab.loadmat(path, variable_names=[name])
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path}: not a readable MATLAB 5 file: {error}") from None
    if name not in values:
        raise UserError(f"{path}: no {name}; it has {', '.join(entry for entry, _, _ in matlab.whosmat(path)) or 'nothing'}")
    return values[name]
