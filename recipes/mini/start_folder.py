"""A model folder of some encoders, for others to begin from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from imagebind_cli.checkpoint import write_tensors
from imagebind_cli.model_config import ModelConfig

CONFIG = Path(__file__).with_name("mini.json")
"""What imagebind-mini is made of."""


def write_model(folder: Path, config: ModelConfig, encoders: Mapping[str, Mapping[str, Tensor]], about: str) -> None:
    """Write encoders' tensors, by name, into a folder that `imagebind train` can begin from; its config last, so that a cut leaves no model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in encoders.items():
        write_tensors({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    shapes = {name: config.encoders[name] for name in encoders}
    own = replace(config, name=f"mini-{folder.name}", encoders=shapes, about=about)
    (folder / "config.json").write_text(own.to_json())
