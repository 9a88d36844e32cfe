"""Write encoders into a model folder for others to start from; the other programs of this folder use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from imagebind_cli.weights.model_config import ModelConfig
from imagebind_cli.weights.tensor_files import write_tensors

CONFIG = Path(__file__).with_name("mini.json")  # the config of imagebind-mini


def write_model(folder: Path, config: ModelConfig, encoders: Mapping[str, Mapping[str, Tensor]], about: str) -> None:
    """Write encoders' tensors, by name, into a folder that `imagebind train` can start from.

    The config comes last, so that an interrupted write leaves no model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in encoders.items():
        write_tensors({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    shapes = {name: config.encoders[name] for name in encoders}
    folder_config = replace(config, name=f"mini-{folder.name}", encoders=shapes, about=about)
    (folder / "config.json").write_text(folder_config.to_json())
