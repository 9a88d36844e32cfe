"""The weights behind a model: our folder of safetensors, or files as a family publishes them. Encoders are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.documents import read_object
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.files import replacing
from imagebind_cli.fingerprint import fingerprint
from imagebind_cli.weights import foreign_config, model_config, tensor_names
from imagebind_cli.weights.foreign_config import ForeignConfig
from imagebind_cli.weights.model_config import ModelConfig
from imagebind_cli.weights.origin import file_record
from imagebind_cli.weights.tensor_files import JoinedTensors, from_int8, read_tensors, read_weight_file, release_pages, write_tensors
from imagebind_cli.weights.verified import check_weight_file


@dataclass(frozen=True)
class Checkpoint:
    """A model whose weights can be read.

    config: what it consists of. place: where it is, for messages and records. read: encoder name to its tensors under our names.
    unfinished: the progress of a training run that has not ended, in words.
    """

    config: ModelConfig
    place: str
    read: Callable[[str], Mapping[str, Tensor]]
    unfinished: str = ""

    @property
    def untrained(self) -> bool:
        """Whether the weights are made by rule, so that nearness between modalities means nothing."""
        return self.config.rule_seed is not None

    def fingerprint(self, encoder: str) -> str:
        """Return the fingerprint of one encoder's weights, which is the same for every file format.

        It identifies models, and finds no flipped bit: `read` does, by the SHA-256 in the file's record.
        """
        return fingerprint(self.read(encoder))


def open_file(path: Path, config: ModelConfig | ForeignConfig | None = None) -> Checkpoint:
    """Open a single file of a family's tensors (.pth, .pt, .bin, .safetensors), memory-mapped.

    Args:
        config: what it holds; by default what the file says itself, the `.json` of the same name beside it, or a published `config.json`
            there, else the published model's.
    Raises:
        UserError: the file cannot be read, holds anything but tensors, or has names that no family knows.
    """
    check_weight_file(path)
    tensors, values = read_weight_file(path)
    if config is None:
        config = ForeignConfig(values, str(path)) if values else _config_beside(path)
    return from_tensors(tensors, config, str(path))


def from_tensors(tensors: Mapping[str, Tensor], config: ModelConfig | ForeignConfig | None, place: str) -> Checkpoint:
    """Make a checkpoint from tensors under a family's names. All names are checked before any tensor is read.

    Raises:
        UserError: names that no table knows, parts of a tensor that are missing, or tensors that need a config and have none.
    """
    foreign = config if isinstance(config, ForeignConfig) else ForeignConfig({}, place)
    layout = foreign_config.layout_of(tensors, foreign.values)
    tensors = layout.prepare(tensors, foreign.values, place)
    if not isinstance(config, ModelConfig):
        config = foreign_config.config_by(layout, foreign, tensors)
    table = layout.table(config)
    ours: dict[str, dict[int, tuple[str, str]]] = {}  # our name to its parts: the foreign name and the change
    held, unknown = set(), []
    for key in tensors:
        try:
            targets = tensor_names.rename(key, table)
        except KeyError:
            unknown.append(key)
            continue
        if len({target.name.partition(".")[0] for target in targets}) == 1:  # a tensor that several encoders share does not make one
            held.add(targets[0].name.partition(".")[0])
        for target in targets:
            ours.setdefault(target.name, {})[target.part] = key, target.change
    if unknown:
        raise UserError(f"{place}: tensors that are not part of this model: {_some(unknown)}")
    _check_parts(ours, held, table, place)

    def read(encoder: str) -> Mapping[str, Tensor]:
        prefix = f"{encoder}."
        mine = {name.removeprefix(prefix): sorted(parts.items()) for name, parts in ours.items() if name.startswith(prefix)}
        return JoinedTensors({name: partial(_parts, tensors, [part for _, part in parts]) for name, parts in mine.items()})

    config = replace(config, encoders={name: encoder for name, encoder in config.encoders.items() if name in held})
    return Checkpoint(config, place, read)


def _check_parts(ours: Mapping[str, Mapping[int, Any]], held: Collection[str], table: str, place: str) -> None:
    """Refuse tensors of which some parts are in a file and others are not.

    Raises:
        UserError: names the tensors that are missing, as the file would.
    """
    missing = []
    for name, parts in ours.items():
        if name.partition(".")[0] in held and set(parts) != {0}:
            missing += [key for part, key in tensor_names.published_names(name, table).items() if part not in parts]
        elif name.partition(".")[0] in held and len(needed := tensor_names.published_names(name, table)) > 1:
            missing += [key for part, key in needed.items() if part not in parts]
    if missing:
        raise UserError(f"{place}: tensors missing: {_some(missing)}")


def _parts(tensors: Mapping[str, Tensor], wanted: Sequence[tuple[str, str]]) -> list[Tensor]:
    """Return tensors of a foreign file. wanted: their names, and the change that each undergoes; "" for none."""
    return [tensor_names.CHANGES[change](tensors[key]) if change else tensors[key] for key, change in wanted]


def open_folder(folder: Path, config: ModelConfig | ForeignConfig | None = None) -> Checkpoint:
    """Open a model folder: ours (`config.json` and a safetensors file per encoder), as a family publishes it, or one foreign file.

    Raises:
        UserError: it is none of these, or its config cannot be used.
    """
    ours = folder / "config.json"
    if config is None and ours.is_file() and "format" in read_object(ours):
        config = model_config.from_json(ours.read_bytes(), str(ours))
        records = config.files

        def read(encoder: str) -> Mapping[str, Tensor]:
            path = folder / f"{encoder}.safetensors"
            check_weight_file(path, records)
            return from_int8(read_tensors(path))

        return Checkpoint(config, str(folder), read)
    stem = "*"
    if (published := foreign_config.published_folder(folder)) is not None:
        stem = published[1].weight_files
        config = config or published[0]
    files = [path for ending in ("safetensors", "pth", "bin", "pt") for path in sorted(folder.glob(f"{stem}.{ending}"))]
    if not files:
        raise UserError(f"{folder}: no model here: neither config.json with format {model_config.FORMAT} nor a weight file")
    return open_file(files[0], config)


def encoder_config(checkpoint: Checkpoint, modality: str) -> EncoderConfig:
    """Return the config of the encoder behind a modality.

    Raises:
        UserError: an unknown modality, or one that this model has no encoder for.
    """
    name = registry.face(modality).encoder
    if name not in checkpoint.config.encoders:
        raise UserError(f"{checkpoint.place}: this model has no {name} encoder; it has {', '.join(checkpoint.config.encoders)}")
    return checkpoint.config.encoders[name]


def load_encoder(checkpoint: Checkpoint, modality: str, device: torch.device, dtype: torch.dtype | None = None) -> Encoder:
    """Load one encoder with its weights, in eval mode. Device and dtype are decided here and nowhere else.

    Args:
        dtype: by default float32 on CPU, and the weights' own type elsewhere.
    Raises:
        UserError: the model lacks this encoder, or tensors are missing, unknown or of another shape; they are named.
    """
    name = registry.face(modality).encoder
    config = encoder_config(checkpoint, modality)
    encoder = build_encoder(registry.modality(name, config), config)
    if dtype is None and device.type == "cpu":
        dtype = torch.float32
    tensors = {}
    for key, tensor in _checked(checkpoint.read(name), encoder.state_dict(), f"{checkpoint.place}, {name}"):
        # Half precision would move the temperature.
        tensors[key] = tensor.to(device=device, dtype=torch.float32 if key == "log_scale" else dtype)
        if tensors[key] is not tensor:
            release_pages(tensor)
    encoder.load_state_dict(tensors, strict=True, assign=True)
    return encoder.to(device=device)


def _checked(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], place: str) -> Iterator[tuple[str, Tensor]]:
    """Yield an encoder's tensors, each read when its turn comes.

    Raises:
        UserError: some are missing or unknown, or one is of another shape or type than the encoder's own; they are named.
    """
    if missing := [name for name in wanted if name not in given]:
        raise UserError(f"{place}: tensors missing: {_some(missing)}")
    if unknown := [name for name in given if name not in wanted]:
        raise UserError(f"{place}: tensors that are not part of this encoder: {_some(unknown)}")
    for name in given:
        tensor = given[name]
        if tensor.shape != wanted[name].shape:
            raise UserError(f"{place}: {name} has shape {tuple(tensor.shape)}; the config says {tuple(wanted[name].shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"{place}: {name} holds {tensor.dtype}; floating-point numbers are needed")
        yield name, tensor


def convert(checkpoint: Checkpoint, folder: Path, origin: Mapping[str, Any]) -> ModelConfig:
    """Write a checkpoint as a model folder, `config.json` and one safetensors file per encoder, all or nothing.

    Raises:
        UserError: the folder exists already, or the weights do not fit their config.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as building:
        building.mkdir()
        files = {}
        for name, encoder in checkpoint.config.encoders.items():
            wanted = build_encoder(registry.modality(name, encoder), encoder).state_dict()
            tensors = _checked(checkpoint.read(name), wanted, f"{checkpoint.place}, {name}")
            path = building / f"{name}.safetensors"
            write_tensors({key: tensor.contiguous() for key, tensor in tensors}, path)
            files[path.name] = file_record(path)
        config = replace(checkpoint.config, name=folder.name, origin=dict(origin), files=files, bases={})
        (building / "config.json").write_text(config.to_json())
    return config


def _config_beside(path: Path) -> ModelConfig | ForeignConfig | None:
    """Return the config in a `.json` of the same name, or in a published `config.json` beside a file, if there is one."""
    beside = path.with_suffix(".json")
    if beside.is_file():
        return foreign_config.open_config(beside)
    published = foreign_config.published_folder(path.parent)
    return published[0] if published else None


def _some(names: list[str]) -> str:
    """Return the first of many names, for a message of one line."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
