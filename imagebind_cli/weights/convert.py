"""Write a checkpoint as a model folder: exactly, or rounded to a smaller number type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.encoder import build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.weights.checkpoint import Checkpoint, checked, encoder_config
from imagebind_cli.weights.model_config import ModelConfig, RoundedRecord, Rounding
from imagebind_cli.weights.origin import file_record
from imagebind_cli.weights.rounding import from_int8, rounded
from imagebind_cli.weights.tensor_files import write_tensors


def convert(checkpoint: Checkpoint, folder: Path, origin: Mapping[str, Any], rounding: RoundedRecord | None = None) -> ModelConfig:
    """Write a checkpoint as a model folder, `config.json` and one safetensors file per encoder, all or nothing.

    Args:
        origin: where its weights are from, for the record.
        rounding: the number type to round to, as `round_checkpoint` describes it; by default every tensor is written as it is.
    Raises:
        UserError: the folder exists already, or the weights do not fit their config or the number type.
    """
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as building:
        building.mkdir()
        files = {}
        for name in checkpoint.config.encoders:
            path = building / f"{name}.safetensors"
            write_tensors(_stored(checkpoint, name, rounding["dtype"] if rounding else None), path)
            files[path.name] = file_record(path)
        rounding = rounding or checkpoint.config.rounded
        # Rounded weights are the same model: its stores can still be searched.
        name = checkpoint.config.name if rounding else folder.name
        config = replace(checkpoint.config, name=name, origin=dict(origin), files=files, bases={}, rounded=rounding)
        (building / "config.json").write_text(config.to_json(), encoding="utf-8", newline="\n")
    return config


def refuse_existing(folder: Path) -> None:
    """Refuse to write a model over something that exists.

    Raises:
        UserError: the folder exists already.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; choose a new folder")


def _stored(checkpoint: Checkpoint, name: str, dtype: Rounding | None) -> dict[str, Tensor]:
    """Return the tensors of an encoder as its file stores them."""
    encoder = checkpoint.config.encoders[name]
    tensors = checked(checkpoint, name, build_encoder(registry.modality(name, encoder), encoder).state_dict())
    if dtype is None:
        return {key: tensor.contiguous() for key, tensor in tensors}
    stored: dict[str, Tensor] = {}
    for key, tensor in tensors:
        try:
            stored |= rounded(key, tensor, dtype)
        except UserError as error:
            raise UserError(f"{checkpoint.place}, {name}: {error}") from None
    return stored


def round_checkpoint(checkpoint: Checkpoint, dtype: Rounding) -> Checkpoint:
    """Return the checkpoint that a folder rounded to `bf16`, `fp16` or `int8` would be read as, to measure what rounding does.

    Raises:
        UserError: the weights are rounded already.
    """
    if checkpoint.config.rounded is not None:
        already = checkpoint.config.rounded["dtype"]
        raise UserError(f"{checkpoint.place}: its weights are rounded to {already} already; convert the weights that they were made from")
    weights = {name: checkpoint.fingerprint(name) for name in checkpoint.config.encoders}
    config = replace(checkpoint.config, rounded=RoundedRecord(dtype=dtype, weights=weights))
    return replace(checkpoint, config=config, read=lambda name: from_int8(_stored(checkpoint, name, dtype)))


def only(checkpoint: Checkpoint, modalities: Collection[str]) -> Checkpoint:
    """Return a checkpoint with only the encoders of some modalities.

    Raises:
        UserError: an unknown modality, or one that it has no encoder for.
    """
    for modality in modalities:
        encoder_config(checkpoint, modality)
    names = {registry.face(modality).encoder for modality in modalities}
    config = checkpoint.config
    kept = {name: encoder for name, encoder in config.encoders.items() if name in names}
    trained_on = {name: suites for name, suites in config.trained_on.items() if name in names}
    return replace(checkpoint, config=replace(config, encoders=kept, trained_on=trained_on))
