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
from imagebind_cli.fingerprint import fingerprint
from imagebind_cli.weights import foreign_config, model_config, tensor_names
from imagebind_cli.weights.foreign_config import ForeignConfig
from imagebind_cli.weights.model_config import ModelConfig
from imagebind_cli.weights.rounding import from_int8
from imagebind_cli.weights.tensor_files import (
    JoinedTensors,
    read_shards,
    read_tensors,
    read_weight_file,
    release_pages,
)
from imagebind_cli.weights.verified import check_weight_file

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A model whose weights can be read.

    config: what it consists of. place: where it is, for messages and records. read: encoder name to its tensors under our names.
    unfinished: the progress of a training run that has not ended, in words. filed: a tensor's name, with its encoder's in front, to the names
    and shapes of what its file makes it of; a shape is None where the file has no such tensor.
    """

    config: ModelConfig
    place: str
    read: Callable[[str], Mapping[str, Tensor]]
    unfinished: str = ""
    filed: Callable[[str], Mapping[str, Shape | None]] = lambda name: {name.partition(".")[2]: None}

    @property
    def untrained(self) -> bool:
        """Check whether the weights are generated and not trained, so that nearness between modalities means nothing."""
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
    names = tensors.keys()
    tensors = layout.prepare(tensors, foreign.values, foreign.place)
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
        raise UserError(f"{place}: tensors that are not part of this model: {_some([layout.spelling(key, names) for key in unknown])}")
    _check_parts(ours, held, table, place, lambda key: layout.spelling(key, names))

    def filed(name: str) -> Mapping[str, Shape | None]:
        try:
            keys = tensor_names.published_names(name, table)
        except KeyError:  # no file of this layout has it
            return {name.partition(".")[2]: None}
        return {layout.spelling(key, names): tuple(tensors[key].shape) if key in tensors else None for key in keys.values()}

    def read(encoder: str) -> Mapping[str, Tensor]:
        prefix = f"{encoder}."

        def parts_of(name: str, parts: Sequence[tuple[str, str]]) -> list[Tensor]:
            changed = [tensor_names.CHANGES[change](tensors[key]) if change else tensors[key] for key, change in parts]
            if len(changed) > 1 and (len({part.shape[1:] for part in changed}) > 1 or not all(part.dim() for part in changed)):
                raise UserError(f"{place}: shapes that do not go together: {_shapes(filed(name))}")
            if len({part.dtype for part in changed}) > 1:  # joined, they would all be of the wider type
                types = ", ".join(f"{key} {part.dtype}" for key, part in zip(filed(name), changed, strict=True))
                raise UserError(f"{place}: types that do not go together: {types}")
            return changed

        mine = {name: [part for _, part in sorted(parts.items())] for name, parts in ours.items() if name.startswith(prefix)}
        return JoinedTensors({name.removeprefix(prefix): partial(parts_of, name, parts) for name, parts in mine.items()})

    config = replace(config, encoders={name: encoder for name, encoder in config.encoders.items() if name in held})
    return Checkpoint(config, place, read, filed=filed)


def _check_parts(
    ours: Mapping[str, Mapping[int, Any]], held: Collection[str], table: str, place: str, spelling: Callable[[str], str]
) -> None:
    """Refuse tensors of which some parts are in a file and others are not.

    Raises:
        UserError: names the tensors that are missing, as the file would.
    """
    missing = []
    for name, parts in ours.items():
        if name.partition(".")[0] in held:
            missing += [key for part, key in tensor_names.published_names(name, table).items() if part not in parts]
    if missing:
        raise UserError(f"{place}: tensors missing: {_some([spelling(key) for key in missing])}")


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
    layout = None
    if (published := foreign_config.published_folder(folder)) is not None:
        config, layout = config or published[0], published[1]
    files = _published_files(folder, layout.weight_files if layout else "*")
    if not files:
        raise UserError(f"{folder}: no model here: neither config.json with format {model_config.FORMAT} nor a weight file")
    if files[0].suffix == ".json":
        tensors = read_shards(files[0], check_weight_file)
        return from_tensors(tensors, config or _config_beside(files[0]), str(folder))
    if published is None and config is None:
        _refuse_foreign(folder)
    return open_file(files[0], config)


def _published_files(folder: Path, patterns: str) -> list[Path]:
    """Return the weight files in a folder, the preferred one first: safetensors before pickles, whole files before lists of parts."""
    return [
        path
        for ending in ("safetensors", "pth", "bin", "pt")
        for suffix in (ending, f"{ending}.index.json")
        for pattern in patterns.split()
        for path in sorted(folder.glob(f"{pattern}.{suffix}"))
    ]


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder whose config.json is of a kind that no family knows, which would only be seen by the names of its tensors.

    Raises:
        UserError: names that kind.
    """
    path = folder / "config.json"
    kind = read_object(path).get("model_type") if path.is_file() else None
    if kind is not None:
        raise UserError(f"{path}: model_type {kind!r} is of no family that is known here: {', '.join(f.name for f in registry.families())}")


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
        dtype: by default float32 on CPU, and the weights' own type elsewhere, which is that of the head: int8 rows are read as float32.
    Raises:
        UserError: the model lacks this encoder, or tensors are missing, unknown or of another shape; they are named.
    """
    name = registry.face(modality).encoder
    config = encoder_config(checkpoint, modality)
    encoder = build_encoder(registry.modality(name, config), config)
    if dtype is None:
        head = checkpoint.read(name).get("head.proj.weight")
        dtype = torch.float32 if device.type == "cpu" or head is None else head.dtype
    tensors = {}
    for key, tensor in checked(checkpoint, name, encoder.state_dict()):
        # Half precision would move the temperature.
        tensors[key] = tensor.to(device=device, dtype=torch.float32 if key == "log_scale" else dtype)
        if tensors[key] is not tensor:
            release_pages(tensor)
    encoder.load_state_dict(tensors, strict=True, assign=True)
    return encoder.to(device=device)


def checked(checkpoint: Checkpoint, encoder: str, wanted: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield an encoder's tensors by our names, each read when its turn comes.

    Raises:
        UserError: some are missing or unknown, or one is of another shape or type than the encoder's own, by their names in the file.
    """
    place, given = f"{checkpoint.place}, {encoder}", checkpoint.read(encoder)

    def filed(names: list[str]) -> str:
        return _some([key for name in names for key in checkpoint.filed(f"{encoder}.{name}")])

    if missing := [name for name in wanted if name not in given]:
        raise UserError(f"{place}: tensors missing: {filed(missing)}")
    if unknown := [name for name in given if name not in wanted]:
        raise UserError(f"{place}: tensors that are not part of this encoder: {filed(unknown)}")
    for name in given:
        tensor = given[name]
        shape, needed = tuple(tensor.shape), tuple(wanted[name].shape)
        if shape != needed:
            parts = checkpoint.filed(f"{encoder}.{name}")
            has = f"{filed([name])} has shape {shape}" if len(parts) == 1 else f"{_shapes(parts)}: together {shape}"
            raise UserError(f"{place}: {has}; the config says {needed}")
        if not tensor.is_floating_point():
            raise UserError(f"{place}: {filed([name])} holds {tensor.dtype}; floating-point numbers are needed")
        yield name, tensor


def _shapes(parts: Mapping[str, Shape | None]) -> str:
    """Return names with their shapes, for a message."""
    return ", ".join(f"{name} {shape}" for name, shape in parts.items())


def join(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Join the encoders of several models into one, which must have one space: be of one family, with equal vectors of text.

    An encoder that several have is taken from the first; they may differ in the logit scale alone.

    Raises:
        UserError: they are of several families or sizes, or an encoder that two have differs.
    """
    first, owners = checkpoints[0], dict[str, Checkpoint]()
    for found in checkpoints:
        for what, own, others in (("family", found.config.family, first.config.family), ("dim", found.config.dim, first.config.dim)):
            if own != others:
                raise UserError(f"{found.place}: its {what} is {own}, that of {first.place} {others}; their vectors have no common space")
        for name in found.config.encoders:
            owner = owners.setdefault(name, found)
            if owner is not found and _without_scale(owner, name) != _without_scale(found, name):
                why = "their vectors have no common space" if name == registry.TEXT else "one model has one of each"
                raise UserError(f"{found.place}: its {name} encoder differs from that of {owner.place}; {why}")
    configs = [found.config for found in checkpoints]
    config = replace(
        first.config,
        encoders={name: owner.config.encoders[name] for name, owner in owners.items()},
        about="; ".join(dict.fromkeys(config.about for config in configs if config.about)),
        licence=" and ".join(dict.fromkeys(config.licence for config in configs if config.licence)) or None,
        address=None,
        rule_seed=next((config.rule_seed for config in configs if config.rule_seed is not None), None),
        trained_on={name: owner.config.trained_on[name] for name, owner in owners.items() if name in owner.config.trained_on},
        files={},
        bases={},
    )
    place = ", ".join(found.place for found in checkpoints)
    return Checkpoint(config, place, lambda name: owners[name].read(name), filed=lambda name: owners[name.partition(".")[0]].filed(name))


def _without_scale(checkpoint: Checkpoint, name: str) -> tuple[EncoderConfig, str]:
    """Return what an encoder's vectors depend on: its config and the fingerprint of its weights, both without the logit scale."""
    tensors = {key: tensor for key, tensor in checkpoint.read(name).items() if key != "log_scale"}
    return replace(checkpoint.config.encoders[name], scale=None), fingerprint(tensors)


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
