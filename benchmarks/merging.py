"""Token merging: the published image encoder with R tokens merged in each block beside itself, in float32 and in int8, and what it costs.

    python -m benchmarks.merging [--turns 3] [--batch 4] [--merge 4 8]

The encoder has the published shape and weights made by rule, so that its cosines say little; those of `mini` are of the demo's samples. All ways
run in one process, in turns. Processor time is that of all cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import machine
from imagebind_cli.demo import SAMPLES
from imagebind_cli.int8 import narrow
from imagebind_cli.merging import MergingTransformer
from imagebind_cli.model import load
from imagebind_cli.number_types import generated
from imagebind_cli.weights.checkpoint import load_encoder
from imagebind_cli.weights.model_config import packaged_config
from imagebind_cli.weights.rule import checkpoint_by_rule

ENDINGS = {"image": (".png", ".jpg"), "audio": (".wav", ".mp3", ".flac", ".ogg")}


def mini_cosines(merge: int, dtype: str) -> dict[str, Any]:
    """Return the mean and lowest cosine of `mini`'s vectors of the demo's pictures and sounds to exact ones."""
    exact, other = load("mini", device="cpu"), load("mini", device="cpu", dtype=dtype, merge=merge)
    found: dict[str, Any] = {}
    for modality, endings in ENDINGS.items():
        files = sorted(path for path in SAMPLES.rglob("*") if path.suffix in endings)
        near = F.cosine_similarity(*(torch.from_numpy(model.embed(modality, files)) for model in (exact, other)))
        found[modality] = {"files": len(files), "mean": float(near.mean()), "lowest": float(near.min())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--merge", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = replace(packaged_config("huge"), rule_seed=arguments.seed)
    weights = checkpoint_by_rule(config)
    inputs = generated(config.encoders["vision"], arguments.batch)[:, :, 0]  # stills
    encoder = load_encoder(weights, "vision", torch.device("cpu"), torch.float32)
    rows, exact = [], Tensor()
    with torch.inference_mode():
        for dtype in ("fp32", "int8"):
            encoder = narrow(encoder) if dtype == "int8" else encoder
            whole = encoder.trunk
            trunks = {0: whole} | {count: MergingTransformer(whole, count) for count in arguments.merge}
            vectors: dict[int, Tensor] = {}
            seconds: dict[int, list[tuple[float, float]]] = {count: [] for count in trunks}
            for turn in range(arguments.turns + 1):
                for count, trunk in trunks.items():
                    encoder.trunk = trunk
                    began = time.perf_counter(), time.process_time()
                    vectors[count] = encoder(inputs)
                    if turn:  # the first warms memory and threads
                        seconds[count].append((time.perf_counter() - began[0], time.process_time() - began[1]))
            encoder.trunk = whole
            exact = vectors[0] if dtype == "fp32" else exact
            for count, spent in seconds.items():
                wall, processor = (statistics.median(times) for times in zip(*spent, strict=True))
                near = F.cosine_similarity(vectors[count], exact)
                rows.append(
                    {"dtype": dtype, "merge": count, "seconds": wall, "processor seconds": processor, "cosine by rule": float(near.mean())}
                    | {"mini": mini_cosines(count, dtype)}
                )
    base = rows[0]
    print(f"{'':<14}{'s':>8}{'times faster':>14}{'by processor':>14}{'cosine':>10}{'mini, image':>13}{'mini, audio':>13}")
    for row in rows:
        row |= {"faster": base["seconds"] / row["seconds"], "faster by processor": base["processor seconds"] / row["processor seconds"]}
        print(
            f"{row['dtype'] + ' merge ' + str(row['merge']):<14}{row['seconds']:>8.2f}{row['faster']:>14.2f}{row['faster by processor']:>14.2f}"
            f"{row['cosine by rule']:>10.5f}{row['mini']['image']['mean']:>13.5f}{row['mini']['audio']['mean']:>13.5f}"
        )
    result = {"machine": machine("torch"), "batch": arguments.batch, "rows": rows}
    (Path(__file__).parent / "merging.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
