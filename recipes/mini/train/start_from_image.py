"""Start the encoders of depth, thermal pictures and sound from the image encoder's blocks, since all three are pictures of a kind.

    python recipes/mini/train/start_from_image.py VISION FOLDER

VISION is the run or model folder of the image encoder. An encoder takes over every tensor that it shares with it by name, as many blocks as it
has; its stem sees grey as the image encoder sees a grey picture, and where patches differ in size or number, weights and positions are resized.
Tensors that the image encoder does not have stay as fresh encoders have them. Writes the model folder FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from model_folder import CONFIG, write_model
from torch import Tensor
from torch.nn import functional as F

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.training import encoder_with, fresh_weights
from imagebind_cli.weights import foreign_config
from imagebind_cli.weights.find import find_checkpoint

BOUND = ("audio", "depth", "thermal")
SEED = 0


def grey_kernels(weight: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Reduce a stem's kernels (d, 3, t, h, w) to one channel and one frame, (d, 1, *patch), for equal colours and equal frames."""
    kernel = weight.sum((1, 2))[:, None]
    scale = kernel.shape[-2] * kernel.shape[-1] / (patch[0] * patch[1])  # a larger patch sums more
    return F.interpolate(kernel, patch, mode="bilinear", antialias=True) * scale


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize learned positions (1, 1 + n, d) of the class token and an old grid to a new grid."""
    grid = positions[:, 1:].unflatten(1, old).permute(0, 3, 1, 2)
    return torch.cat([positions[:, :1], F.interpolate(grid, new, mode="bilinear").flatten(2).transpose(1, 2)], dim=1)


def initial_tensors(name: str, shape: EncoderConfig, vision: dict[str, Tensor], vision_shape: EncoderConfig) -> dict[str, Tensor]:
    """Return the tensors that one encoder starts with."""
    tensors = fresh_weights(name, shape, SEED)
    shared = {key: value.float() for key, value in vision.items() if key in tensors}
    shared["stem.proj.weight"] = grey_kernels(shared["stem.proj.weight"], shape.patch)
    shared["stem.pos"] = resize_positions(shared["stem.pos"], vision_shape.grid[-2:], shape.grid[-2:])
    for key, value in shared.items():
        if value.shape != tensors[key].shape:
            sys.exit(f"start_from_image: {name}: {key} is {tuple(tensors[key].shape)}, the image encoder's {tuple(value.shape)}")
    return tensors | shared


def main(vision: Path, folder: Path) -> None:
    if (folder / "config.json").exists():
        return
    config, source = foreign_config.read_config(CONFIG), find_checkpoint(vision)
    tensors = dict(source.read("vision"))
    encoders = {
        name: encoder_with(
            name, config.encoders[name], initial_tensors(name, config.encoders[name], tensors, source.config.encoders["vision"])
        ).state_dict()
        for name in BOUND
    }
    write_model(folder, config, encoders, "encoders for what is bound to pictures, begun as the image encoder")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
