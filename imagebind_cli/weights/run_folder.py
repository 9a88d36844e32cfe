"""A training run's folder as a model: what training changed, laid over the weights it began from.

`config.json` names a file of changed tensors for each encoder that trained, and for every encoder the model underneath with its fingerprint.
It is replaced last and at once, so that the folder is one model or the one before it. Adapters lie in the files as `NAME.lora_a` and
`NAME.lora_b` and are added to their layer's weight when it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.files import write_text
from imagebind_cli.fingerprint import fingerprint, is_earlier
from imagebind_cli.weights.checkpoint import Checkpoint, file_hash, read_tensors, write_tensors
from imagebind_cli.weights.model_config import ModelConfig

RUN, CHECKPOINTS = "run.json", "checkpoints"
"""Of a run: what it is, and the states it can go on from."""


def unfinished(folder: Path) -> str:
    """Return what to say of a run that has not come to its end; nothing of one that has, and of a folder that is no run's."""
    if not (folder / RUN).is_file():
        return ""
    states = sorted((folder / CHECKPOINTS).glob("step-*.safetensors"), reverse=True)
    progress = next((progress for path in states if (progress := _progress(path))), None)
    if progress is None:
        return "an unfinished run that has saved nothing yet"
    return "" if progress["finished"] else f"an unfinished run, saved after step {progress['step']:,}"


def _progress(path: Path) -> dict[str, Any]:
    """Return how far a run was when it saved a state; nothing where that cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            progress: dict[str, Any] = json.loads(file.metadata()["progress"])
            return progress
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return {}


def completed(found: Checkpoint, folder: Path, find: Callable[[str], Checkpoint]) -> Checkpoint:
    """A model folder's checkpoint with what a run left out of it; the same one where the folder is no run's.

    Args:
        find: the checkpoint behind a model's name.
    Raises (when an encoder is read):
        UserError: the model underneath is not there, or is another than it was.
    """
    files = {record["encoder"]: folder / name for name, record in found.config.files.items() if "encoder" in record}
    if not files:
        return found

    def read(encoder: str) -> Mapping[str, Tensor]:
        if encoder in files and not files[encoder].exists() and found.unfinished:
            raise UserError(f"{folder}: the run that is at work there wrote a later model while this one was read; try again")
        changed = read_tensors(files[encoder]) if encoder in files else {}
        base = found.config.bases.get(encoder)
        return laid_over(_underneath(base, encoder, folder, find), changed) if base else changed

    return replace(found, read=read)


def laid_over(base: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the changed ones in their place, and adapters added. A changed head replaces all of the other."""
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
    """weight + lora_b @ lora_a, in float32, the same to the bit on every machine, because its fingerprint must be.

    A matrix product adds in an order that differs by processor, build and threads. Here one rank is added after the other, in float64,
    which holds a product of two float32 numbers exactly.
    """
    total = weight.double()
    for column, row in zip(lora_b.double().T, lora_a.double(), strict=True):
        total.addcmul_(column[:, None], row)
    return total.float()


def _underneath(base: Mapping[str, str], encoder: str, folder: Path, find: Callable[[str], Checkpoint]) -> Mapping[str, Tensor]:
    """The tensors of the model that a run began from."""
    beside = folder / base["model"]
    if beside.exists() and beside.samefile(folder):
        raise UserError(f"{folder}: its {encoder} encoder lies over this same folder; if it was renamed, mend `bases` in its config.json")
    try:
        found = find(str(beside) if beside.exists() else base["model"])
    except UserError as error:
        raise UserError(f"{folder}: its {encoder} encoder lies over the weights of {base['model']}: {error}") from None
    tensors = found.read(encoder)
    came = fingerprint(tensors)  # of what was read: each run of a chain would read all below it twice
    if is_earlier(base["weights"]):
        raise UserError(
            f"{folder}: trained over {base['model']} by an earlier version of imagebind, whose fingerprints of weights cannot be compared; "
            f"if {base['model']} is still the same, write {came!r} for {base['weights']!r} into its config.json"
        )
    if came != base["weights"]:
        raise UserError(f"{folder}: trained over {base['model']} with {encoder} weights {base['weights']}; here it has {came}")
    return tensors


def reference(model: str, folder: Path) -> str:
    """How a run folder names a model underneath: a path as seen from the folder, any other name as it is."""
    return os.path.relpath(model, folder) if os.path.exists(model) else model


def write(folder: Path, config: ModelConfig, changed: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
    """Make a run folder the model of this step: files first, `config.json` last, then away with the files of the step before."""
    files = {}
    for encoder, tensors in changed.items():
        path = folder / f"{encoder}-{step:06d}.safetensors"
        write_tensors(tensors, path)
        files[path.name] = {"size": path.stat().st_size, "sha256": file_hash(path), "encoder": encoder}
    write_text(folder / "config.json", replace(config, files=files).to_json())
    for old in folder.glob("*-[0-9]*.safetensors"):
        if old.name not in files:
            old.unlink()
