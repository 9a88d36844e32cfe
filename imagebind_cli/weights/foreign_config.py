"""Configs that others write, and the layout of files that they describe; `read_config` reads these and ours."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.documents import read_object
from imagebind_cli.errors import UserError
from imagebind_cli.weights.family import WeightLayout
from imagebind_cli.weights.model_config import ModelConfig, from_json


@dataclass(frozen=True)
class ForeignConfig:
    """A config as others write it: its values, and where they are from, for messages."""

    values: Mapping[str, Any]
    place: str


def open_config(path: Path) -> ModelConfig | ForeignConfig:
    """Read a config file: one of ours is checked, another one is for `model_config_of`.

    Raises:
        UserError: not JSON, or not a config of ours that can be used.
    """
    values = read_object(path)
    return from_json(path.read_bytes(), str(path)) if "format" in values else ForeignConfig(values, str(path))


def read_config(path: Path) -> ModelConfig:
    """Read a config file of any kind: our format, the published constructor's arguments, or another family's.

    Raises:
        UserError: it is none of these.
    """
    config = open_config(path)
    return config if isinstance(config, ModelConfig) else model_config_of(config)


def named_config(name: str) -> ForeignConfig:
    """Read the config that an installed package has under a name, as open_clip has `ViT-H-14`.

    Raises:
        UserError: no package has it.
    """
    if os.path.isfile(name):
        return ForeignConfig(read_object(Path(name)), name)
    for family in registry.families():
        if path := family.named_config(name):
            return ForeignConfig(read_object(path), str(path))
    raise UserError(f"{name}: neither an OpenCLIP JSON file nor a config name of the open_clip package")


def model_config_of(config: ForeignConfig, tensors: Mapping[str, Tensor] | None = None) -> ModelConfig:
    """Make a config of others' values, and refuse what would be refused in one of ours.

    Args:
        tensors: the model's, where they are at hand; their shapes say more than some configs do.
    Raises:
        UserError: the values describe no model that these encoders can be.
    """
    return config_by(layout_of(tensors or (), config.values), config, tensors or {})


def config_by(layout: WeightLayout, config: ForeignConfig, tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Make a config of the values and tensors of a layout; see `model_config_of`."""
    try:
        text = layout.config(config.values, tensors, config.place).to_json()
    except UserError:
        raise
    except Exception as error:  # whatever arithmetic makes of values of another type
        raise UserError(f"{config.place}: a value that no such model has: {error}") from error
    return from_json(text, config.place)


def layout_of(names: Collection[str], values: Mapping[str, Any] | None = None) -> WeightLayout:
    """Return the layout of a weight file, by the names of its tensors and the values of its config; ImageBind's if nothing decides.

    Two families may publish under the same names: then the values decide.
    """
    layouts = [layout for family in registry.families() for layout in family.layouts]
    fitting = [layout for layout in layouts if any(name.startswith(layout.prefixes) for name in names)] if names else layouts
    described = [layout for layout in fitting if values and layout.describes(values)]
    return (described or (fitting if names else []) or layouts)[0]


def published_folder(folder: Path) -> tuple[ForeignConfig, WeightLayout] | None:
    """Return the config that lies in a folder as a family publishes it, and its layout; None where there is none."""
    for family in registry.families():
        for layout in family.layouts:
            path = folder / layout.config_file
            if path.is_file() and layout.describes(values := read_object(path)):
                return ForeignConfig(values, str(path)), layout
    return None
