"""The description of a family of models: how its files are published, and where its inputs and stems differ from ImageBind's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from imagebind_cli.encoder import InputConfig, Modality
from imagebind_cli.weights.model_config import ModelConfig

Values = Mapping[str, Any]


def _as_it_is(name: str, names: Collection[str]) -> str:
    return name


def _unchanged(tensors: Mapping[str, Tensor], values: Values, place: str) -> Mapping[str, Tensor]:
    return tensors


@dataclass(frozen=True)
class WeightLayout:
    """One way in which a family's weights are published.

    prefixes: what names of tensors begin with; a file that has one of them is of this layout. table: our names of its tensors, the rows of
    which `tensor_names` explains, for a model of this config.
    config: makes the config of a model from its published values, {} where a weight file stands alone, and its tensors, {} where there is
    only a config; the third argument names the file in messages. describes: checks whether values are a config of this layout.
    config_file, weight_files: in a published folder, the name of the config, and patterns of weight files without their suffix, with spaces
    between several.
    prepare: makes other tensors of the file's before their names are looked up, as where LoRA is folded in. It must not read them yet.
    spelling: returns, for messages, how a file that has these names spells a name of the table, where `prepare` changes names.
    """

    prefixes: tuple[str, ...]
    table: Callable[[ModelConfig], str]
    config: Callable[[Values, Mapping[str, Tensor], str], ModelConfig]
    describes: Callable[[Values], bool] = lambda values: False
    config_file: str = "config.json"
    weight_files: str = "*"
    prepare: Callable[[Mapping[str, Tensor], Values, str], Mapping[str, Tensor]] = _unchanged
    spelling: Callable[[str, Collection[str]], str] = _as_it_is


@dataclass(frozen=True)
class Publication:
    """Where a model is published under a name of its own: the address, as `weights pull` takes it, the licence, and a line for people."""

    address: str
    licence: str
    about: str


@dataclass(frozen=True)
class Family:
    """A published system of encoders. A family's file assigns one to `FAMILY`.

    name: as in `registry.FAMILIES`. about: a line for people. layouts: in which its weights are published, the most telling first.
    modality: how inputs are read and stems are built for an encoder and its config; None where all is as in ImageBind.
    named_config: finds the config of a name that an installed package of its authors knows.
    prepares_as: the family whose preprocessing it has, so that what is prepared for one is as good for the other; "" for its own.
    publications: models that can be fetched, by the name that `--model` takes.
    """

    name: str
    about: str
    layouts: tuple[WeightLayout, ...]
    modality: Callable[[str, InputConfig], Modality | None] = lambda encoder, config: None
    named_config: Callable[[str], Path | None] = lambda name: None
    publications: Mapping[str, Publication] = field(default_factory=dict)
    prepares_as: str = ""
