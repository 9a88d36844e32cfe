"""LoRA (arXiv 2106.09685) as PEFT publishes it, folded into the weights that it changes: `fold_adapters`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from imagebind_cli.errors import UserError
from imagebind_cli.families.languagebind.fields import ConfigFields
from imagebind_cli.weights.family import Values
from imagebind_cli.weights.tensor_files import release_pages

WRAPPED, PLAIN = "vision_model.encoder.base_model.model.", "vision_model.encoder."  # the tower's blocks with PEFT around them, and without
ADAPTER = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class FoldedTensors(Mapping[str, Tensor]):
    """Tensors by their plain names, with the products of low-rank matrices added to the weights that have some, when they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], keys: Mapping[str, str], adapters: Mapping[str, tuple[str, str, float]]) -> None:
        """keys: plain name to the file's. adapters: plain name of a weight to the file's names of A and B, and the factor of B A."""
        self._tensors, self._keys, self._adapters = tensors, keys, adapters

    def __getitem__(self, name: str) -> Tensor:
        weight = self._tensors[self._keys[name]]
        if name not in self._adapters:
            return weight
        down, up, factor = self._adapters[name]
        change = self._tensors[up].float() @ self._tensors[down].float()  # (out, r) (r, in)
        folded = torch.add(weight.float(), change, alpha=factor).to(weight.dtype)
        release_pages(weight)
        return folded

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def fold_adapters(tensors: Mapping[str, Tensor], values: Values, place: str) -> Mapping[str, Tensor]:
    """Return tensors without PEFT's names, LoRA (arXiv 2106.09685) to be folded in as W + alpha / r B A; those without it unchanged.

    Both namings are read: until PEFT 0.6 an adapted weight keeps its name, since 0.7 it is `base_layer.weight`.

    Raises:
        UserError: a file with adapters lacks some, or their shapes do not fit the weight or the config's rank.
    """
    if not any(name.startswith(WRAPPED) for name in tensors):
        return tensors
    keys: dict[str, str] = {}
    pairs: dict[str, dict[str, str]] = {}
    for key in tensors:
        if match := ADAPTER.fullmatch(key):
            pairs.setdefault(_plain(match[1]) + ".weight", {})[match[2]] = key
            continue
        name = _plain(key)
        if name in keys:
            raise UserError(f"{place}: {keys[name]} and {key} are the same tensor")
        keys[name] = key
    vision = ConfigFields.of(values, "vision_config", place)
    alpha = vision.number("lora_alpha", 16.0)
    rank = vision.whole("lora_r", 2, least=0)
    attention = "temporal_attn" if any(".temporal_attn." in name for name in keys) else "self_attn"
    layers = {name.removeprefix(f"{PLAIN}layers.").split(".")[0] for name in keys if name.startswith(f"{PLAIN}layers.")}
    expected = [f"{PLAIN}layers.{layer}.{attention}.{part}.weight" for layer in sorted(layers) for part in PROJECTIONS]
    missing = [
        f"{_wrapped(name).removesuffix('.weight')}.lora_{side}.default.weight"
        for name in dict.fromkeys((*expected, *pairs))
        for side in "AB"
        if side not in pairs.get(name, {})
    ]
    missing += [published_spelling(name, tensors) for name in pairs if name not in keys]
    if missing:
        raise UserError(f"{place}: tensors missing: {', '.join(missing[:5])}" + f" and {len(missing) - 5} more" * (len(missing) > 5))
    adapters = {}
    for name, pair in pairs.items():
        (out, inner), down, up = tensors[keys[name]].shape, tensors[pair["A"]].shape, tensors[pair["B"]].shape
        if len(down) != 2 or down[0] != rank:
            raise vision.fault("lora_r", f"is {rank}; {pair['A']} has shape {tuple(down)}")
        if (tuple(down), tuple(up)) != ((rank, inner), (out, rank)):
            wrong = "A" if tuple(down) != (rank, inner) else "B"
            needed = (rank, inner) if wrong == "A" else (out, rank)
            shapes = tuple(tensors[pair[wrong]].shape), (out, inner)
            raise UserError(f"{place}: {pair[wrong]} has shape {shapes[0]}; {keys[name]} {shapes[1]}, which needs {needed}")
        adapters[name] = pair["A"], pair["B"], alpha / rank
    return FoldedTensors(tensors, keys, adapters)


def _plain(key: str) -> str:
    """Return a tensor's name without what PEFT puts around it."""
    return key.replace(WRAPPED, PLAIN).replace(".base_layer.", ".")


def _wrapped(name: str) -> str:
    return name.replace(PLAIN, WRAPPED, 1)


def published_spelling(name: str, names: Any) -> str:
    """Return how a file that has these names spells a plain one."""
    if not name.startswith(PLAIN) or not any(key.startswith(WRAPPED) for key in names):
        return name
    module, _, kind = _wrapped(name).rpartition(".")
    is_adapted = f"{module}.lora_A.default.weight" in names and any(".base_layer." in key for key in names)
    return f"{module}.base_layer.{kind}" if is_adapted else f"{module}.{kind}"
