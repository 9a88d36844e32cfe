"""Pictures with masks: AVSBench (Zhou et al. 2022), and ImageNet-Segmentation (Guillaumin et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.pictures import imagenet_class_names
from imagebind_cli.evaluation.suites.recipe import SuiteRecipe
from imagebind_cli.evaluation.suites.tree import Tree
from imagebind_cli.grounding.suites.scenes import MaskTruth, Scene, SceneContents, nearest
from imagebind_cli.media.hdf5 import check_dataset, find_dataset, open_hdf5

if TYPE_CHECKING:
    import h5py

AVS_FRAMES = 5  # of each video, one a second


def avsbench_scenes(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> SceneContents:
    """Read the frames of one split: with a single source (s4), or several (ms3), whose folders have no categories."""
    single = options["setting"] == "s4"
    part, folder = ("s4", "Single-source") if single else ("ms3", "Multi-sources")
    table = tree.find(f"{folder}/{part}_meta_data.csv", f"{part}_meta_data.csv")
    data, split = table.parent / f"{part}_data", str(options["split"])
    scenes = []
    for place, row in tree.rows(table, ["split"]):
        if row["split"] != split:
            continue
        cells = list(row.values())  # the authors' code takes the name and the category by their places
        if single and len(cells) < 3:
            raise UserError(f"{place}: a name, a split and a category are needed")
        name = Path(cells[0]).name
        kind = Path(cells[2]).name if single else name
        below = Path(split, kind) if single else Path(split)
        frames = data / "visual_frames" / below / name if single else data / "visual_frames" / name
        for number in range(1, AVS_FRAMES + 1):
            picture = frames / f"{name}{'' if single else '.mp4'}_{number}.png"
            mask = data / "gt_masks" / below / name / f"{name}_{number}.png"
            sound = data / "audio_wav" / below / f"{name}.wav"
            scenes.append(Scene(f"{name}_{number}", str(picture), str(sound), kind, MaskTruth(mask)))
    tree.all_there(Path(scene.picture) for scene in scenes)
    tree.all_there(scene.truth.path for scene in scenes if isinstance(scene.truth, MaskTruth))
    tree.all_there(Path(sound) for sound in dict.fromkeys(scene.query for scene in scenes))
    return SceneContents(scenes)


def imagenet_seg_scenes(tree: Tree, recipe: SuiteRecipe, options: Mapping[str, Any]) -> SceneContents:
    """Read the pictures of `gtsegs_ijcv.mat`, a MATLAB 7.3 file; which class to ask for, the model decides."""
    path = tree.find("gtsegs_ijcv.mat")
    tree.files.append(path)
    try:
        with open_hdf5(path) as file:
            counts = [find_dataset(file, f"value/{name}").shape for name in ("img", "gt")]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a MATLAB 7.3 file with value/img and value/gt: {error}") from None
    if any(len(shape) != 2 for shape in counts) or counts[0][0] != counts[1][0]:
        raise UserError(f"{path}: value/img and value/gt have {counts[0]} and {counts[1]} entries; one of each for a picture is needed")
    names = imagenet_class_names(tree, str(options["names"]))
    scenes = [
        Scene(f"{index + 1:04d}", OutlinedPicture(path, index), "", f"{index + 1:04d}", OutlinedForeground(path, index))
        for index in range(counts[0][0])
    ]
    return SceneContents(scenes, names)


@dataclass(frozen=True)
class OutlinedPicture:
    """A picture of `gtsegs_ijcv.mat`. index: its number, from 0."""

    path: Path
    index: int

    def __call__(self) -> np.ndarray:
        """Read it, (h, w, 3) uint8.

        Raises:
            OSError, ValueError: it cannot be read, or is not a picture.
        """
        with open_hdf5(self.path) as file:
            values = _target(file, find_dataset(file, "value/img"), self.index)[()]
        return np.ascontiguousarray(values.T)  # MATLAB's axes are the other way round


@dataclass(frozen=True)
class OutlinedForeground:
    """The mask beside a picture of `gtsegs_ijcv.mat`: of several, the first."""

    path: Path
    index: int

    def __call__(self) -> np.ndarray:
        """Read it.

        Raises:
            OSError, ValueError: it cannot be read, or is not a mask.
        """
        with open_hdf5(self.path) as file:
            values = _target(file, _target(file, find_dataset(file, "value/gt"), self.index), 0)[()]
        if values.ndim != 2:
            raise ValueError(f"a mask of shape {values.shape}; two axes are needed")
        return nearest(values.T > 0)


def _target(file: h5py.File, cells: h5py.Dataset, index: int) -> h5py.Dataset:
    """Return what an entry of a cell array refers to."""
    if cells.dtype.kind != "O" or not 0 <= index < cells.shape[0]:
        raise ValueError(f"{cells.name} is not a cell array with an entry {index + 1}")
    target = file[cells[index].ravel()[0]]
    check_dataset(target)
    return target
