"""ONE-PEACE's files and inputs by the rules of the recorded figures; see tests/data/README.md."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data" / "onepeace"
META = json.loads((DATA / "model_seed11.json").read_text())
RELEASED, FINETUNED = "state_dict", "state_dict_finetuned_al"

# The first that fits a name says how its standard normals z are scaled; all others are divided by the root of their inputs.
RULES = [
    (r"(layer_norm|self_attn\.ln|_ffn\.2|\.2\.1|embed_audios\.2)\.weight", lambda z: 1 + 0.1 * z),
    (r"gamma_[12]", lambda z: 0.5 + 0.2 * z),
    (r"bias", lambda z: 0.05 * z),
    (r"rel_pos_table_list\.\d+\.weight", lambda z: 0.5 * z),
    (
        r"cls_embedding|cls_pos_embed|mask_embedding|image_adapter\.pos_embed|text_adapter\.embed_(tokens|positions)\.weight",
        lambda z: 0.3 * z,
    ),
    (r"", lambda z: z / np.sqrt(np.prod(z.shape[1:]))),
]


def weights(shapes: Mapping[str, Any] = META[RELEASED], seed: int = META["seed"]) -> dict[str, Tensor]:
    """Tensors by published name. What is no weight is left at zero: nothing reads it."""
    tensors = {}
    for number, (name, (shape, kind)) in enumerate(sorted(shapes.items())):
        if kind == "int64" or name.endswith("version"):
            tensors[name] = torch.zeros(shape, dtype=getattr(torch, kind))
        elif name == "logit_scale":
            tensors[name] = torch.tensor(math.log(1 / 0.07))
        else:
            z = np.random.default_rng([seed, number]).standard_normal(shape, dtype=np.float32)
            scaled = next(scale for pattern, scale in RULES if re.search(rf"({pattern})$", name))
            tensors[name] = torch.from_numpy(np.ascontiguousarray(scaled(z), dtype=np.float32))
    return tensors


def config(**task: Any) -> dict[str, Any]:
    """The `cfg` of a published file, as far as it says something of the encoders, for the sizes of the recorded figures."""
    sizes = META["config"]
    channels = sizes["audio_channels"]
    sound = {
        "feature_encoder_spec": f"[({channels}, 10, 5)] + [({channels}, 3, 2)] * 4 + [({channels},2,2)] + [({channels},2,2)]",
        "conv_pos_depth": sizes["conv_pos_depth"], "conv_pos_width": sizes["conv_pos_width"], "conv_pos_groups": sizes["conv_pos_groups"],
        "bucket_size": sizes["audio_buckets"],
    }  # fmt: skip
    encoder = {
        "embed_dim": sizes["width"], "ffn_embed_dim": sizes["ffn"], "layers": sizes["layers"], "attention_heads": sizes["heads"],
        "activation_fn": "gelu", "text_adapter": {"bucket_size": sizes["text_buckets"]}, "audio_adapter": sound,
    }  # fmt: skip
    task = {"_name": "audio_text_pretrain", "head_type": "val", "patch_image_size": sizes["image_size"], "max_duration": 15, **task}
    return {"model": {"_name": "one_piece_pretrain", "encoder": encoder}, "task": task}


def write_released(path: Path) -> Path:
    """Write a file as the pretrained model is published."""
    torch.save({"cfg": config(), "model": weights()}, path)
    return path


def write_finetuned(path: Path) -> Path:
    """Write a file as a model fine-tuned on sounds and text is published, with a meter that holds NumPy's numbers."""
    meters = [(0, "loss", "AverageMeter", {"val": np.float64(0.5), "sum": np.float32(2), "count": np.int64(4), "round": 3})]
    values = {
        "args": None,
        "cfg": config(_name="audio_text_retrieval", head_type="al", max_duration=20),
        "model": weights(META[FINETUNED]),
        "criterion": None,
        "optimizer_history": [{"optimizer_name": "AdjustAdam", "num_updates": 7}],
        "task_state": {},
        "extra_state": {"metrics": {"train": meters}, "best": np.float64(0.75)},
    }
    torch.save(values, path)
    return path


def inputs() -> dict[str, Tensor]:
    """What the published encoders were given: pictures, and a sound of each length, already normalised."""
    random, side = np.random.default_rng(META["seed"] + 1), META["config"]["image_size"]
    made = {"image": random.standard_normal((2, 3, side, side), dtype=np.float32)}
    made |= {f"audio_{count}": random.standard_normal((1, count), dtype=np.float32) for count in META["audio_samples"]}
    return {name: torch.from_numpy(array) for name, array in made.items()}


def waveform(seconds: float, rate: int, seed: int) -> np.ndarray:
    """A sweep with noise, float32 in [-1, 1]."""
    time = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return np.clip(0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.05 * noise, -1, 1).astype(np.float32)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Stripes with noise, (h, w, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    stripes = [127 + 100 * np.sin(x / (7 + 3 * channel) + y / (11 - 2 * channel)) for channel in range(3)]
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    return np.clip(np.stack(stripes, axis=-1) + 10 * noise, 0, 255).astype(np.uint8)
