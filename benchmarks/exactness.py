"""Exactness: every encoder of configs drawn at random, and of the published size, beside the published code on the same weights and inputs.

    python -m benchmarks.exactness [--configs 4] [--huge] [--work DIR]

Prints, per config and modality, the largest difference and the smallest cosine of the unit vectors. The peer is set up as in `cold_start`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import imagebind_cli as ib
from benchmarks.cold_start import peer_environment
from benchmarks.published_weights import published_shapes, published_weights
from imagebind_cli.families import imagebind

HUGE = dict(
    vision_embed_dim=1280, vision_num_blocks=32, vision_num_heads=16, text_embed_dim=1024, text_num_blocks=24,
    text_num_heads=16, out_embed_dim=1024, audio_drop_path=0.1, imu_drop_path=0.7,
)  # fmt: skip

PEER = """
import sys, types, json
sys.modules["imagebind.data"] = types.ModuleType("imagebind.data")  # its imports are gone from today's packages
import numpy as np, torch
from imagebind.models.imagebind_model import ImageBindModel
config, weights, inputs, outputs = sys.argv[1:]
model = ImageBindModel(**json.loads(config))
model.load_state_dict(torch.load(weights))
model.eval()
inputs, results = np.load(inputs), {}
with torch.no_grad():
    for name in inputs:
        modality = name.split("-")[0]
        results[name] = model({modality: torch.from_numpy(inputs[name])})[modality].numpy()
np.savez(outputs, **results)
"""


def random_config(random: np.random.Generator) -> dict[str, Any]:
    """The published constructor's arguments, drawn at random within what it can build."""
    config: dict[str, Any] = {"out_embed_dim": int(random.choice([24, 40, 96]))}
    for modality in ("vision", "text", "audio", "depth", "thermal", "imu"):
        heads = int(random.choice([2, 3, 4, 8]))
        config |= {
            f"{modality}_num_heads": heads,
            f"{modality}_embed_dim": heads * int(random.choice([8, 12, 16])),
            f"{modality}_num_blocks": int(random.integers(1, 5)),
        }
    patch = int(random.choice([14, 16, 28, 32]))
    config |= {
        "kernel_size": [2, patch, patch],
        "audio_kernel_size": int(random.choice([8, 16])),
        "audio_stride": int(random.choice([8, 10])),
    }
    config |= {"audio_num_mel_bins": int(random.choice([64, 128])), "audio_target_len": int(random.choice([112, 204]))}
    return config | {"depth_kernel_size": int(random.choice([14, 16])), "thermal_kernel_size": int(random.choice([16, 32]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=4)
    parser.add_argument("--huge", action="store_true", help="the published size as well")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-benchmark")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    python = peer_environment(arguments.work / "peer")
    random = np.random.default_rng(0)
    configs = [random_config(random) for _ in range(arguments.configs)] + ([HUGE] if arguments.huge else [])
    for number, arguments_of in enumerate(configs):
        config = imagebind.from_published(arguments_of)
        weights, inputs, outputs = (arguments.work / f"exactness{ending}" for ending in (".pth", ".in.npz", ".out.npz"))
        torch.save(published_weights(published_shapes(config), seed=number), weights)
        _, bins, frames = config.encoders["audio"].shape
        normal = {
            "vision-image": (2, 3, 224, 224), "vision-video": (1, 2, 3, 2, 224, 224), "audio-clips": (2, 3, 1, bins, frames),
            "depth-": (2, 1, 224, 224), "thermal-": (2, 1, 224, 224), "imu-": (2, 6, 2000),
        }  # fmt: skip
        given = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in normal.items()}
        tokens = [next(ib.load("tiny").read("text", text)).tensor for text in ("A dog.", "", "the quick brown fox " * 40)]
        np.savez(inputs, **given, **{"text-": torch.cat(tokens).numpy()})
        subprocess.run([python, "-c", PEER, json.dumps(arguments_of), weights, inputs, outputs], check=True, stderr=subprocess.DEVNULL)
        model = ib.load(weights, config=arguments_of, device="cpu")
        print(f"config {number}: {'published size' if arguments_of is HUGE else json.dumps(arguments_of)}")
        for name, theirs in np.load(outputs).items():
            theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)  # noqa: PLW2901
            ours = model.encode(name.split("-")[0], torch.from_numpy(np.load(inputs)[name])).numpy()
            cosine = (ours.astype(np.float64) * theirs).sum(axis=1).min()
            print(f"  {name:<14} largest difference {np.abs(ours - theirs).max():.1e}   smallest cosine {cosine:.8f}")


if __name__ == "__main__":
    main()
