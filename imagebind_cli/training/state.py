"""A run's state on disk: everything the next step depends on, in one safetensors file that is whole or not there.

Randomness needs no state: it follows from the seed and the step. What was written to `metrics.jsonl` after a checkpoint is cut off when the run
goes on from it, and written again, the same.

A file holds `weights/NAME` of what trains and AdamW's `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`, or Muon's `momentum_buffer/NAME`, whole
even where processes share them out, so that a run goes on with another number of processes; its metadata is the `Progress`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagebind_cli.errors import UserError
from imagebind_cli.training import gather
from imagebind_cli.training.optimizer import Optimizers
from imagebind_cli.training.trainable import whole
from imagebind_cli.weights.run_folder import CHECKPOINTS
from imagebind_cli.weights.tensor_files import write_tensors


@dataclass
class Progress:
    """How far a run is.

    step: steps done. broken: of them, how many at the end in a row were skipped. validated: steps after which the last validation was.
    best, best_step: of the metric that is followed. metrics_bytes: length of `metrics.jsonl`. finished: whether nothing is left to do.
    """

    step: int = 0
    broken: int = 0
    validated: int = -1
    best: float | None = None
    best_step: int | None = None
    metrics_bytes: int = 0
    finished: bool = False


def save(folder: Path, progress: Progress, trained: nn.Module, optimizer: Optimizers, keep: int = 1) -> None:
    """Write a checkpoint, then delete all but the newest `keep`. All processes must call; the first one writes."""
    tensors = {}
    for name, parameter in _trained(trained):
        tensors[f"weights/{name}"] = whole(parameter)
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = whole(tensor)
    if gather.rank():
        return
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    path = folder / CHECKPOINTS / f"step-{progress.step:08d}.safetensors"
    write_tensors(tensors, path, {"progress": json.dumps(asdict(progress))})
    for old in _checkpoints(folder)[keep:]:
        if old != path:
            old.unlink()


def restore(folder: Path, trained: nn.Module, optimizer: Optimizers) -> Progress:
    """Take weights and optimizer back to the newest checkpoint; the beginning where there is none.

    Raises:
        UserError: a checkpoint is there and none can be read, or it is not of these weights.
    """
    found = _checkpoints(folder)
    for path in found:
        read = _read(path)
        if read is not None:
            progress, tensors = read
            _take(path, tensors, trained, optimizer)
            return progress
    if found:
        raise UserError(f"{folder / CHECKPOINTS}: no checkpoint in it can be read; delete it to begin anew")
    return Progress()


def read_progress(folder: Path) -> Progress:
    """Return how far the run in `folder` is, by its newest checkpoint that can be read; step 0 where there is none."""
    return next((read[0] for path in _checkpoints(folder) if (read := _read(path)) is not None), Progress())


def _checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*.safetensors"), reverse=True)


def _read(path: Path) -> tuple[Progress, dict[str, Tensor]] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return Progress(**json.loads(file.metadata()["progress"])), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return None


def _take(path: Path, tensors: dict[str, Tensor], trained: nn.Module, optimizer: Optimizers) -> None:
    parameters = dict(_trained(trained))
    named = {name.partition("/")[2] for name in tensors}
    if named != set(parameters):
        differ = sorted(named ^ set(parameters))
        raise UserError(f"{path}: made with other weights: {differ[0]} is not in both")
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        if kind == "weights":
            with torch.no_grad():
                parameter.copy_(_shared(tensor, parameter))
        else:
            optimizer.state[parameter][kind] = tensor if kind == "step" else _shared(tensor, parameter)


def _shared(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor, on the device of another and shared out among the processes as that one is."""
    if not hasattr(like, "device_mesh"):
        return tensor.to(like.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _trained(trained: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in trained.named_parameters() if parameter.requires_grad)
