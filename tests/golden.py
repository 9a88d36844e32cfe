"""What the published code computes, and the inputs made by rule that it computed it from; `benchmarks/published_weights.py` has the weights."""

import json
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
META = json.loads((DATA / "small_seed7.json").read_text())
OUTPUTS = dict(np.load(DATA / "small_seed7.npz"))
PREPROCESS = json.loads((DATA / "preprocess.json").read_text())
SLICES = dict(np.load(DATA / "preprocess.npz"))
INPUTS = {
    "vision": (2, 3, 224, 224),
    "vision_video": (1, 2, 3, 2, 224, 224),
    "audio": (2, 3, 1, 128, 204),
    "audio_single": (2, 1, 128, 204),
    "depth": (2, 1, 224, 224),
    "thermal": (2, 1, 224, 224),
    "imu": (2, 6, 2000),
}


def published_inputs():
    """The tensors of `INPUTS`, float32 by name; texts are in `META`."""
    random = np.random.default_rng(META["seed"] + 1)
    return {name: torch.from_numpy(random.standard_normal(shape, dtype=np.float32)) for name, shape in INPUTS.items()}


def sound(entry):
    count = round(entry["sample_rate"] * entry["seconds"])
    t = np.arange(count) / entry["sample_rate"]
    noise = np.random.default_rng(entry["seed"]).standard_normal(count)
    return np.clip(0.4 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.05 * noise, -1, 1).astype(np.float32)


def picture(seed, height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.stack([127 + 100 * np.sin(x / (7 + 3 * c) + y / (11 - 2 * c)) for c in range(3)], axis=-1)
    return np.clip(waves + 10 * np.random.default_rng(seed).standard_normal((height, width, 3)), 0, 255).astype(np.uint8)
