"""Draw weights made by rule once in a process: half of what a command on the tiny model takes, and it always gives the same."""

from __future__ import annotations

import functools

from torch import Tensor

from imagebind_cli.weights import rule
from imagebind_cli.weights.model_config import ModelConfig


@functools.cache
def draw_once() -> None:
    """Keep each tensor that is drawn from now on, and give a copy of it wherever it is asked for."""
    draw = rule._draw
    kept: dict[tuple[object, ...], Tensor] = {}

    def draw_or_copy(name: str, shape: tuple[int, ...], config: ModelConfig, encoder: str) -> Tensor:
        key = (name, shape, config.rule_seed, config.encoders[encoder].scale)
        if key not in kept:
            kept[key] = draw(name, shape, config, encoder)
        return kept[key].clone()

    rule._draw = draw_or_copy
