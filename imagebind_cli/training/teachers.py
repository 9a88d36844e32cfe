"""Teachers of a distillation: a model of any family, or vectors by id; and their vectors as targets in the student's space (docs/distil.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli import registry
from imagebind_cli.checksums import check_appended
from imagebind_cli.errors import UserError
from imagebind_cli.store import is_store, open_store
from imagebind_cli.training.anchors import ROWS, Targets, write_array
from imagebind_cli.training.data import PairData
from imagebind_cli.training.distributed import barrier, rank, world
from imagebind_cli.training.inputs import is_vector_file
from imagebind_cli.training.recipe import EncoderRecipe, PairRecipe, Recipe, RecipeError, RunRecipe, TeacherRecipe
from imagebind_cli.training.towers import make_tower
from imagebind_cli.weights import checkpoint
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.find import find_checkpoint, shape_of

SMALLEST_SPREAD = 1e-12  # of a direction, as a fraction of the largest: below it, there are fewer directions than asked for


@dataclass(frozen=True)
class StoredTargets:
    """A teacher's vectors that were computed elsewhere, (n, dim) float32 in the order of the pair's rows."""

    vectors: np.ndarray
    views: int = 1
    unreadable: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Return the vectors of rows; a row has the same in every view."""
        return torch.from_numpy(self.vectors[np.asarray(rows, np.int64)])


@dataclass(frozen=True)
class ProjectedTargets:
    """A teacher's vectors along fewer directions. mean: (dim,). directions: (size, dim)."""

    source: Targets
    mean: Tensor
    directions: Tensor

    @property
    def views(self) -> int:
        """The source's number of views."""
        return self.source.views

    @property
    def unreadable(self) -> Mapping[tuple[int, int], str]:
        """The source's failures."""
        return self.source.unreadable

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """Return unit vectors (b, size) float32."""
        return F.normalize((self.source.read(rows, views) - self.mean) @ self.directions.T, dim=-1)


# -- what a teacher is


def teacher_dim(teacher: TeacherRecipe) -> int:
    """Return the length of a teacher's vectors.

    Raises:
        UserError: no such model, store or array.
    """
    if not is_vector_file(teacher.model):
        return shape_of(teacher.model).dim
    return open_store(teacher.model).dim if is_store(teacher.model) else _read_array(teacher.model)[1].shape[1]


def reduction(pair: PairRecipe, dim: int) -> str | None:
    """Return how a teacher's vectors become those of a student's space of `dim`; None where both spaces are the same.

    Raises:
        RecipeError: the student's space is larger.
    """
    assert pair.teacher is not None
    length = teacher_dim(pair.teacher)
    if length < dim:
        why = f"its vectors have {length:,} numbers, and the student's {dim:,}; choose a student of at most {length:,}"
        raise RecipeError(f"pairs.{pair.name}.teacher", f"{pair.name}: {pair.teacher.model}: {why}")
    return pair.teacher.directions or (None if length == dim else "principal")


def shares_space(pair: PairRecipe, dim: int) -> bool:
    """Check whether a student's vectors are comparable with those of its teacher's other encoders."""
    return pair.teacher is not None and not is_vector_file(pair.teacher.model) and reduction(pair, dim) is None


def check_teacher(pair: PairRecipe, data: PairData, number: int, dim: int) -> None:
    """Check a pair's teacher before its weights are read.

    Raises:
        UserError: its vectors are too short, a row has none, or there are too few rows for as many directions as the student's space has.
    """
    kind, ids = reduction(pair, dim), data.ids(number)
    assert pair.teacher is not None
    if kind is not None and (count := len(set(ids))) <= dim:  # centred, they spread along one direction fewer
        raise UserError(
            f"{pair.name}: {count:,} samples spread along at most {max(count - 1, 0):,} directions, and the student's space has {dim:,}; "
            f"give at least {dim + 1:,} samples, or a student of a smaller space"
        )
    if is_vector_file(pair.teacher.model):
        _stored_vectors(pair.teacher.model, ids)


def teacher_record(pair: PairRecipe, data: PairData, number: int) -> dict[str, str]:
    """Return the record of a teacher in `run.json`: `model`, and the fingerprint of its weights or the SHA-256 of its vectors."""
    assert pair.teacher is not None
    if is_vector_file(pair.teacher.model):
        digest = hashlib.sha256(_stored_vectors(pair.teacher.model, data.ids(number)).tobytes()).hexdigest()
    else:
        digest = find_teacher(pair.teacher.model).fingerprint(registry.face(pair.modalities[0]).encoder)
    return {"model": pair.teacher.model, "weights": digest}


def find_teacher(model: str) -> Checkpoint:
    """Find a teacher's weights.

    Raises:
        UserError: they are not here, or of an unfinished run.
    """
    teacher = find_checkpoint(model)
    if teacher.unfinished:
        raise UserError(f"{model}: {teacher.unfinished}; a teacher must not change while it teaches: finish it first")
    return teacher


def check_teacher_weights(recipe: Recipe) -> None:
    """Check that the weights of every teacher are on this machine.

    Raises:
        UserError: some are not.
    """
    for pair in recipe.pairs:
        if pair.teacher and not is_vector_file(pair.teacher.model):
            checkpoint.encoder_config(find_teacher(pair.teacher.model), registry.face(pair.modalities[0]).encoder)


def _stored_vectors(path: str, ids: Sequence[str]) -> np.ndarray:
    """Read the unit vectors (n, dim) float32 of ids; the mean of those that share one, such as the windows of a sound."""
    known, vectors = (store.ids, store.vectors()) if (store := open_store(path) if is_store(path) else None) else _read_array(path)
    numbers = {id: number for number, id in enumerate(dict.fromkeys(known))}
    if missing := [id for id in ids if id not in numbers]:
        raise UserError(
            f"{path}: no vector for {len(missing):,} of {len(ids):,} rows, the first {missing[0]}; a teacher's file needs every id"
        )
    sums = np.zeros((len(numbers), vectors.shape[1]), np.float64)
    np.add.at(sums, [numbers[id] for id in known], vectors)
    wanted = sums[[numbers[id] for id in ids]]
    lengths = np.linalg.norm(wanted, axis=1, keepdims=True)
    if not (lengths > 0).all():  # also NaN
        raise UserError(f"{path}: the vector of {ids[int((~(lengths > 0)).argmax())]} is zero or not a number; compute it again")
    return (wanted / lengths).astype(np.float32)


def _read_array(path: str) -> tuple[list[str], np.ndarray]:
    """Read a plain array (n, dim) and the ids of its rows, a line each in the `.txt` beside it."""
    beside = Path(path).with_suffix(".txt")
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        ids = beside.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{getattr(error, 'filename', None) or path}: {getattr(error, 'strerror', None) or error}") from None
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(ids):
        raise UserError(
            f"{path}: {vectors.dtype} of shape {vectors.shape}, and {len(ids):,} ids in {beside.name}; (n, dim) floats and n ids are needed"
        )
    return ids, vectors


# -- its vectors as targets


def open_targets(
    pair: PairRecipe,
    data: PairData,
    number: int,
    dim: int,
    folder: Path,
    run: RunRecipe,
    device: torch.device,
    note: Callable[[str], None],
    report: Callable[[int, int], None],
) -> Targets:
    """Return a teacher's vectors as targets of a student's space, computed now if they are not in their folder yet.

    Args:
        data, number: the pair's rows. dim: of the student's space. folder: of the vectors; a suffix that identifies them is added to its name.
        note: receives a line before they are computed. report: receives their number so far and the total.
    Raises:
        UserError: the weights are missing, or a file is damaged.
    """
    assert pair.teacher is not None
    if is_vector_file(pair.teacher.model):
        vectors = _stored_vectors(pair.teacher.model, data.ids(number))
        place = folder.with_name(f"{folder.name}-{hashlib.sha256(vectors.tobytes()).hexdigest()[:12]}")
        source: Targets = StoredTargets(vectors)
    else:
        name = registry.face(pair.modalities[0]).encoder
        teacher = find_teacher(pair.teacher.model)
        cache = data.anchor_cache(number, folder, teacher.fingerprint(name), apart=True)
        place, source = cache.folder, cache
        if missing := cache.missing():
            note(f"{pair.name}: {missing:,} vectors of {pair.teacher.model} to compute, once")
            encoder = checkpoint.load_encoder(teacher, name, torch.device("cpu"), torch.float32)
            alone = run.model_copy(update={"sharding": "ddp", "compile": False})
            with torch.no_grad():
                cache.fill(
                    make_tower(name, encoder, EncoderRecipe(train="none"), alone, device).call, rank=rank(), world=world(), report=report
                )
        barrier()
    kind = reduction(pair, dim)
    return source if kind is None else _projected(source, place / f"{kind}-{dim}.npy", len(data.ids(number)), kind, dim)


def _projected(source: Targets, path: Path, count: int, kind: str, size: int) -> Targets:
    """Project vectors along directions that are computed once, and kept: a continued run must use the same to the bit."""
    if rank() == 0 and not path.exists():
        blocks = (source.read(rows, [0] * len(rows)).numpy() for rows in (range(at, min(at + ROWS, count)) for at in range(0, count, ROWS)))
        directions = principal_directions(blocks, size, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, directions)
    barrier()
    try:
        check_appended(path)
        stored = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}; delete it to compute it again") from None
    return ProjectedTargets(source, stored[0], stored[1:])


def principal_directions(blocks: Iterator[np.ndarray], size: int, kind: str) -> np.ndarray:
    """Return the mean and the directions of largest spread of vectors, (1 + size, dim) float32.

    Args:
        blocks: vectors (k, dim); rows of zeros, which could not be read, do not count.
        kind: `principal` for unit directions, `balanced` divides each by the root of its standard deviation, `whitened` by the latter.
    Raises:
        UserError: the vectors spread along fewer directions.
    """
    count = 0
    total: Any = 0.0  # arrays from the first block on
    products: Any = 0.0
    for block in blocks:
        rows = block[block.any(axis=1)].astype(np.float64)
        count, total, products = count + len(rows), total + rows.sum(axis=0), products + rows.T @ rows
    mean = total / max(count, 1)
    spread, directions = np.linalg.eigh(products / max(count, 1) - np.outer(mean, mean))  # ascending
    spread, directions = spread[::-1][:size], directions.T[::-1][:size]
    if (number := int((spread > SMALLEST_SPREAD * spread[0]).sum())) < size:
        raise UserError(
            f"the teacher's vectors of {count:,} rows spread along {number:,} directions, and {size:,} are needed; give more data"
        )
    signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1, keepdims=True), axis=1))
    power = {"principal": 0.0, "balanced": 0.25, "whitened": 0.5}[kind]
    return np.concatenate([mean[None], directions * signs / spread[:, None] ** power]).astype(np.float32)
