"""A training run's folder as a model: the tensors that training changed, and for all others the model that it began from.

`config.json` names a file of changed tensors for each encoder that was trained, and for every encoder its base model with a fingerprint. It is
written last, so that the folder is always one whole model. Adapters are in the files as `NAME.lora_a` and `NAME.lora_b`, and are added to
their layer's weight when it is read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.files import write_text
from imagebind_cli.fingerprint import fingerprint, is_earlier
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.model_config import BaseRecord, ModelConfig
from imagebind_cli.weights.origin import FileRecord, file_record
from imagebind_cli.weights.published import is_place
from imagebind_cli.weights.tensor_files import read_about, read_tensors, write_tensors
from imagebind_cli.weights.verified import check_weight_file

RUN, CHECKPOINTS = "run.json", "checkpoints"  # in a run folder: what the run is, and the states it can continue from


def unfinished_state(folder: Path) -> str:
    """Return the progress of an unfinished run, in words; "" for a finished one, and for a folder that is not a run's."""
    if not (folder / RUN).is_file():
        return ""
    progress = next((progress for path in checkpoints(folder) if (progress := _progress(path))), None)
    if progress is None:
        return "an unfinished run that has saved nothing yet"
    return "" if progress["finished"] else f"an unfinished run, saved after step {progress['step']:,}"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / CHECKPOINTS / f"step-{step:08d}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, the newest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*.safetensors"), reverse=True)


def saved_progress(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return how far a run was, by the metadata of a state that it saved.

    Raises:
        KeyError, TypeError, ValueError: that is not there, or damaged.
    """
    about = read_about(metadata)
    progress: dict[str, Any] = about["progress"] if about else json.loads(metadata["progress"])  # the latter of an earlier version
    return progress


def _progress(path: Path) -> dict[str, Any]:
    """Return how far a run was when it saved a state; {} where that cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return saved_progress(file.metadata())
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return {}


def with_base_weights(found: Checkpoint, folder: Path, find: Callable[[str], Checkpoint]) -> Checkpoint:
    """Complete a run folder's checkpoint by the weights of its base models; any other folder's checkpoint is returned unchanged.

    Reading an encoder raises a UserError where its base model is missing or has other weights than when the run began.

    Args:
        find: returns the checkpoint behind a model's name.
    """
    files = {record["encoder"]: folder / name for name, record in found.config.files.items() if "encoder" in record}
    if not files:
        return found

    def read(encoder: str) -> Mapping[str, Tensor]:
        if encoder in files and not files[encoder].exists() and found.unfinished:
            raise UserError(f"{folder}: a running training wrote a newer model while this one was read; try again")
        if encoder in files:
            check_weight_file(files[encoder], found.config.files)
        changed = read_tensors(files[encoder]) if encoder in files else {}
        base = found.config.bases.get(encoder)
        return apply_changes(_underneath(base, encoder, folder, find), changed) if base else changed

    return replace(found, read=read)


def apply_changes(base: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the changed tensors of a base model, and add adapters. A changed head replaces the whole head."""
    new_head = "head.proj.weight" in changed
    tensors = {name: tensor for name, tensor in base.items() if not (new_head and name.startswith("head."))}
    for name, tensor in changed.items():
        if name.endswith(".lora_a"):
            layer = name.removesuffix(".lora_a")
            tensors[f"{layer}.weight"] = _adapted(tensors[f"{layer}.weight"], changed[f"{layer}.lora_b"], tensor)
        elif not name.endswith(".lora_b"):
            tensors[name] = tensor
    return tensors


def _adapted(weight: Tensor, lora_b: Tensor, lora_a: Tensor) -> Tensor:
    """Compute weight + lora_b @ lora_a in float32, bit for bit the same on every machine, because its fingerprint must be.

    A matrix product adds in an order that differs by processor, build and threads. Here one rank is added after the other, in float64,
    which holds a product of two float32 numbers exactly.
    """
    total = weight.double()
    for column, row in zip(lora_b.double().T, lora_a.double(), strict=True):
        total.addcmul_(column[:, None], row)
    return total.float()


def _underneath(base: BaseRecord, encoder: str, folder: Path, find: Callable[[str], Checkpoint]) -> Mapping[str, Tensor]:
    """Read the tensors of the model that a run began from."""
    beside = folder / base["model"]
    if beside.exists() and beside.samefile(folder):
        raise UserError(
            f"{folder}: the base of its {encoder} encoder is this same folder; if it was renamed, correct `bases` in its config.json"
        )
    try:
        found = find(str(beside) if beside.exists() else base["model"])
    except UserError as error:
        raise UserError(f"{folder}: its {encoder} encoder needs the weights of {base['model']}: {error}") from None
    tensors = found.read(encoder)
    current = fingerprint(tensors)  # not by `Checkpoint.fingerprint`, which would read all bases of a chain of runs again
    if is_earlier(base["weights"]):
        raise UserError(
            f"{folder}: trained over {base['model']} by an earlier version of imagebind, whose fingerprints of weights cannot be compared; "
            f"if {base['model']} is still the same, write {current!r} for {base['weights']!r} into its config.json"
        )
    if current != base["weights"]:
        raise UserError(f"{folder}: trained over {base['model']} with {encoder} weights {base['weights']}; here it has {current}")
    return tensors


def base_reference(model: str, folder: Path) -> str:
    """Return how a run folder names its base model: a path relative to the folder, any other name unchanged."""
    return os.path.relpath(model, folder) if is_place(model) else model


def write_run_model(folder: Path, config: ModelConfig, changed: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    """Make a run folder the model of a step: write its files, then `config.json`, then remove the files of the model before.

    Args:
        changed: the tensors that training changed, by encoder.
    """
    files: dict[str, FileRecord] = {}
    for encoder, tensors in changed.items():
        path = folder / f"{encoder}-{step:06d}.safetensors"  # `own` below matches this name
        write_tensors(tensors, path)
        files[path.name] = {**file_record(path), "encoder": encoder}
    write_text(folder / "config.json", replace(config, files=files).to_json())
    own = re.compile(rf"({'|'.join(map(re.escape, config.encoders))})-\d{{6,}}\.safetensors")  # not a file that the user keeps there
    for path in folder.iterdir():
        if own.fullmatch(path.name) and path.name not in files:
            path.unlink()
