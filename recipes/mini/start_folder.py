"""A model folder of one encoder, for others to begin from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from imagebind_cli.encoder import Encoder
from imagebind_cli.model_config import ModelConfig


def write_model(folder: Path, config: ModelConfig, name: str, encoder: Encoder, about: str) -> None:
    """Write the encoder of this name into a folder that `imagebind train` can begin from; its config last, so that a cut leaves no model."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in encoder.state_dict().items()}, folder / f"{name}.safetensors")
    own = replace(config, name=f"mini-{folder.name}", licence="Apache-2.0", encoders={name: config.encoders[name]}, about=about)
    (folder / "config.json").write_text(own.to_json())
