"""Find the weights behind a name, folder, file or address, and the inputs of their encoders; no weights are read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError, nearest_hint
from imagebind_cli.weights import checkpoint, download, foreign_config, model_config, rule, run_folder
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.foreign_config import ForeignConfig
from imagebind_cli.weights.model_config import ModelConfig, is_bundled
from imagebind_cli.weights.published import PublishedModel, is_place, published_models

BUNDLED, UNTRAINED = "mini", "tiny"
ModelLike = str | os.PathLike[str] | Mapping[str, Tensor]
ConfigLike = ModelConfig | Mapping[str, Any] | str | os.PathLike[str]


class NotFetched(UserError):
    """A model whose weights are published and not on this machine yet."""


def default_name() -> str:
    """Return the model that is used when none is named: `IMAGEBIND_MODEL`, else the trained one in the package, else the untrained `tiny`."""
    return os.environ.get("IMAGEBIND_MODEL") or (BUNDLED if is_bundled(BUNDLED) else UNTRAINED)


def find_checkpoint(model: ModelLike | None = None, config: ConfigLike | None = None) -> Checkpoint:
    """Find the checkpoint for any form of `--model`; nothing is read from it yet.

    Args:
        model: a name (`huge`, `tiny`, one that a family publishes), a folder, a weight file, `hf://owner/repo`, or published-format tensors
            by name. By default that of `default_name`.
        config: describes weights that do not describe themselves: a `ModelConfig`, the published constructor's arguments, or a JSON file.
    Raises:
        UserError: no such model, or one that is not on this machine yet, with the command that fetches it.
    """
    given: ModelConfig | ForeignConfig | None
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        given = foreign_config.open_config(path) if os.path.isfile(path) else foreign_config.named_config(str(config))
    else:
        given = ForeignConfig(config, "published config") if isinstance(config, Mapping) else config
    if isinstance(model, Mapping):
        return checkpoint.from_tensors(model, given, "state dict")
    name = os.fspath(model) if model is not None else default_name()
    if name.startswith("hf://"):
        return _pulled(name, given)
    path = Path(name)
    if os.path.isdir(path) and is_place(name):
        return _folder(path, given)
    if os.path.isfile(path):
        return checkpoint.open_file(path, given)
    return _named(name, given)


def _named(name: str, config: ModelConfig | ForeignConfig | None) -> Checkpoint:
    if is_bundled(name):
        return _folder(Path(str(model_config.CONFIGS / name)), config)
    if name not in model_config.packaged_names():
        published = published_models()
        if name in published:
            return _published(published[name], config)
        known = [*dict.fromkeys([*filter(is_bundled, [BUNDLED]), *model_config.packaged_names(), *published])]
        hint = nearest_hint(name.lower(), known) or f", and not one of {', '.join(known)}"
        raise UserError(f"no model {name!r}: not a folder, not a file, not hf://owner/repo{hint}")
    named = model_config.packaged_config(name)
    if named.rule_seed is not None:
        return rule.checkpoint_by_rule(named)
    if named.address is None:
        raise UserError(f"{name} is a config to train from; no weights are published for it")
    pulled = _pulled(name, config or named)
    return dataclasses.replace(pulled, config=pulled.config if config else named)


def _published(model: PublishedModel, config: ModelConfig | ForeignConfig | None) -> Checkpoint:
    """Open a model that its family publishes; it has the name, the licence and the description that the family gives it."""
    pulled = _pulled(model.place, config, model.name)
    named = dataclasses.replace(pulled.config, name=model.name, about=model.about, licence=model.licence, address=model.address)
    return dataclasses.replace(pulled, config=named)


def _pulled(place: str, config: ModelConfig | ForeignConfig | None, name: str | None = None) -> Checkpoint:
    folder = download.pulled_folder(place)
    if folder is None:
        name = name or place
        raise NotFetched(f"{name} is not on this machine; fetch it with: imagebind weights pull {name}")
    return _folder(folder, config)


def leads_to(name: str, place: str) -> bool:
    """Check whether a model's name alone, without a folder, leads to the weights at a place."""
    if is_bundled(name):
        return _is_same(Path(str(model_config.CONFIGS / name)), place)
    if name in model_config.packaged_names():
        return _is_same(download.folder_of(name), place)
    model = published_models().get(name)
    return model is not None and _is_same(download.folder_of(model.place), place)


def _is_same(folder: Path, place: str) -> bool:
    return any(os.path.realpath(part) == os.path.realpath(folder) for part in (place, os.path.dirname(place)))


def _folder(folder: Path, config: ModelConfig | ForeignConfig | None) -> Checkpoint:
    unfinished = run_folder.unfinished_state(folder)
    if unfinished and not (folder / "config.json").exists():
        raise UserError(f"{folder}: {unfinished}, and no model yet; the same `imagebind train` command continues it")
    opened = dataclasses.replace(checkpoint.open_folder(folder, config), unfinished=unfinished)
    return run_folder.with_base_weights(opened, folder, find_checkpoint)


def shape_of(model: str) -> ModelConfig:
    """Return the config of a model, without its weights: a config JSON is enough, and a named model need not be on this machine.

    Raises:
        UserError: no such model, or no config.
    """
    path = Path(model)
    if path.suffix == ".json" and os.path.isfile(path):
        return foreign_config.read_config(path)
    if model in model_config.packaged_names() and not is_place(model):
        return model_config.packaged_config(model)
    return find_checkpoint(model).config


def input_configs(model: str | None, modalities: Sequence[str]) -> dict[str, EncoderConfig]:
    """Return the inputs that a model's encoders take, by modality; like `shape_of`, without weights."""
    name = model or default_name()
    encoders = shape_of(name).encoders
    faces = [registry.face(modality) for modality in modalities]
    missing = [face.name for face in faces if face.encoder not in encoders]
    if missing:
        raise UserError(f"{name}: this model has no encoder for {missing[0]}; it has {', '.join(encoders)}")
    return {face.name: encoders[face.encoder] for face in faces}
