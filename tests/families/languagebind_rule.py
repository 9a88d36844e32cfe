"""Weights, inputs and media by the rules behind `tests/data/languagebind`, and small models as published folders hold them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data" / "languagebind"
GOLDEN = json.loads((DATA / "encoders.json").read_text())
CASES = GOLDEN["cases"]


def _normal(seed: int, name: str, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(tuple(shape), dtype=np.float32)


def tensor(name: str, shape: Sequence[int], seed: int = GOLDEN["seed"]) -> Tensor:
    """A tensor, which depends on its name and the seed alone."""
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(tuple(shape))
    values = _normal(seed, name, shape)
    spread = np.float32(math.sqrt(math.prod(shape[1:])))
    if name == "logit_scale":
        values = np.float32(math.log(1 / 0.07)) + np.float32(0.2) * values
    elif "norm" in name and name.endswith(".weight"):
        values = 1 + np.float32(0.1) * values
    elif name.endswith(".bias"):
        values = np.float32(0.05) * values
    elif "class_embedding" in name or "position_embedding" in name or "token_embedding" in name:
        values = np.float32(0.01) * values
    elif name.endswith("temporal_embedding"):
        values = np.float32(0.3) * values
    elif "patch_embedding" in name:
        values = np.float32(0.01) * values / spread
    elif ".lora_B." in name:
        values = np.float32(0.1) * values
    else:
        values = values / spread
    return torch.from_numpy(np.asarray(values, np.float32))


def weights(case: str) -> dict[str, Tensor]:
    """All tensors of a case, as its file has them."""
    shapes = GOLDEN["text_tensors"] | CASES[case]["tensors"]
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def config(case: str, **vision: Any) -> dict[str, Any]:
    """The `config.json` of a case, with some fields of its `vision_config` changed."""
    entry, base = CASES[case], GOLDEN["config"]
    changed = {**base["vision_config"], **entry["vision_config"], **vision}
    return {**base, "architectures": [entry["model_type"]], "model_type": entry["model_type"], "vision_config": changed}


def inputs(case: str) -> Tensor:
    """What the encoder of a case is given."""
    return torch.from_numpy(_normal(GOLDEN["seed"], "input." + CASES[case]["input_name"], CASES[case]["input"]))


def folder(path: Path, case: str, tensors: Mapping[str, Tensor] | None = None, values: Mapping[str, Any] | None = None) -> Path:
    """Write a model as the hub has it: `config.json` and `pytorch_model.bin`."""
    path.mkdir(parents=True)
    torch.save(dict(weights(case) if tensors is None else tensors), path / "pytorch_model.bin")
    (path / "config.json").write_text(json.dumps(config(case) if values is None else values))
    return path


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """A picture (h, w, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.stack([127 + 100 * np.sin(x / (7 + 3 * c) + y / (11 - 2 * c)) for c in range(3)], axis=-1)
    return np.clip(waves + 10 * np.random.default_rng(seed).standard_normal((height, width, 3)), 0, 255).astype(np.uint8)


def depth_map(seed: int, height: int, width: int) -> np.ndarray:
    """A depth map (h, w) uint16 in millimetres, with a hole."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    values = 5500 + 5000 * np.sin(x / 31 + y / 17) + 30 * np.random.default_rng(seed).standard_normal((height, width))
    values[: height // 8, : width // 8] = 0
    return np.clip(values, 0, 65535).astype(np.uint16)


def waveform(seed: int, rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """A sound (samples, channels) float32."""
    time = np.arange(round(rate * seconds)) / rate
    rows = [
        0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time)
        + 0.05 * np.random.default_rng(seed + 1000 * k).standard_normal(len(time))
        + 0.02 * k
        for k in range(channels)
    ]
    return np.clip(np.stack(rows, axis=1), -1, 1).astype(np.float32)
