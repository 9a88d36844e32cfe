"""Encoders alone, at the published size: ours in float32, int8 and bfloat16 beside the published code, and as shares of the machine's matrix peak.

    python -m benchmarks.encoders [--turns 5] [--modalities vision text audio depth thermal imu] [--names 5] [--work DIR]

All of them run in one process, in turns: the published code's environment with this folder in front (`cold_start` says how it is made).
Images are stills, which the published code shows as two equal frames. Texts are CLIP's 80 templates of `--names` class names. For images
OpenCLIP's tower of the same size is a second peer. The peak is a float32 product of 2,048 x 1,280 by 1,280 x 5,120, timed in every turn; what
an encoder needs is counted by torch's FlopCounterMode on the published code's shapes, so that what ours leaves out counts for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cold_start import huge_weights, run_beside_peer
from benchmarks.exactness import HUGE

HERE = Path(__file__).parent
CHOSEN = ("int8", "bf16")
BATCHES = {"vision": 4, "audio": 8, "depth": 8, "thermal": 8, "imu": 8}
NAMES = (
    "dog",
    "sea waves",
    "crying baby",
    "washing machine",
    "hand saw",
    "church bells",
    "clock tick",
    "mouse click",
    "rooster",
    "vacuum cleaner",
)


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak() -> float:
    """Operations a second of a large float32 product."""
    a, b = torch.randn(2048, 1280), torch.randn(1280, 5120)
    return 3 * 2 * 2048 * 1280 * 5120 / seconds(lambda: [a @ b for _ in range(3)])


def tokens_of(count: int) -> Tensor:
    """Every template of every name, (80 * count, 77)."""
    import imagebind_cli as ib
    from imagebind_cli.evaluation.prompts import read_templates

    model, templates = ib.load("tiny", device="cpu"), read_templates("clip")
    return torch.cat([next(model.read("text", sentence)).tensor for name in NAMES[:count] for sentence in templates.fill(name)])


def openclip_tower() -> Callable[[Tensor], Tensor] | None:
    """OpenCLIP's ViT-H-14 image tower with random weights, where OpenCLIP is there."""
    try:
        from open_clip.transformer import VisionTransformer
    except ImportError:
        return None
    tower = VisionTransformer(image_size=224, patch_size=14, width=1280, layers=32, heads=16, mlp_ratio=4.0, output_dim=1024)
    return tower.eval()  # type: ignore[no-any-return]


def published_model(weights: Path) -> Any:
    """The published code's model; only where it can be imported."""
    sys.modules["imagebind.data"] = types.ModuleType("imagebind.data")  # its imports are gone from today's packages
    from imagebind.models.imagebind_model import ImageBindModel

    published = ImageBindModel(**HUGE)
    published.load_state_dict(torch.load(weights, mmap=True, weights_only=True), assign=True)
    return published.eval()


def compare(weights: Path, modalities: list[str], turns: int, names: int) -> dict[str, Any]:
    """The table of every modality, as it is printed, too."""
    from torch.utils.flop_counter import FlopCounterMode

    import imagebind_cli as ib
    from imagebind_cli.evaluation.precision import generated

    published = published_model(weights)
    found: dict[str, Any] = {}
    for modality in modalities:
        models = {"ours": ib.load(weights, device="cpu")}
        models |= {f"ours, {dtype}": ib.load(weights, device="cpu", dtype=dtype) for dtype in CHOSEN}
        config = models["ours"].config(modality)
        inputs = tokens_of(names) if modality == "text" else generated(config, BATCHES[modality])
        if modality == "vision":
            inputs = inputs[:, :, 0]  # stills
        calls: dict[str, Callable[[], Any]] = {}

        def theirs(modality: str = modality, inputs: Tensor = inputs) -> Tensor:
            with torch.no_grad():
                return torch.cat([published({modality: some})[modality] for some in inputs.split(64)])

        calls["published"] = theirs
        if modality == "vision" and (tower := openclip_tower()) is not None:
            calls["OpenCLIP"] = torch.no_grad()(lambda tower=tower, inputs=inputs: tower(inputs))
        for name, model in models.items():
            calls[name] = lambda model=model, modality=modality, inputs=inputs: model.encode(modality, inputs)
        with FlopCounterMode(display=False) as counted:
            exact = torch.nn.functional.normalize(theirs(), dim=-1)
        needed = counted.get_total_flops()
        near = {name: (exact * calls[name]()).sum(-1) for name in models}
        taken = [{"peak": peak()} | {name: seconds(call) for name, call in calls.items()} for _ in range(turns)]
        print(f"\n| {modality}, {len(inputs)} at once | a second | ours over it, from and to | share of the peak | cosine, lowest |")
        print("|---|---|---|---|---|")
        for name in calls:
            ratios = sorted(turn[name] / turn["ours"] for turn in taken)
            rate = statistics.median(len(inputs) / turn[name] for turn in taken)
            share = statistics.median(needed / turn[name] / turn["peak"] for turn in taken)
            cosine = f"{near[name].min():.6f}" if name in near else ""
            span = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"| {name} | {rate:.2f} | {span} | {share:.2f} | {cosine} |", flush=True)
        found[modality] = {
            "batch": len(inputs),
            "operations": needed,
            "turns": taken,
            "cosines": {name: one.tolist() for name, one in near.items()},
        }
        del models, calls
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--modalities", nargs="+", default=["vision", "text", "audio", "depth", "thermal", "imu"])
    parser.add_argument("--names", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-benchmark", help="10 GB are needed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    weights = huge_weights(arguments.work)
    if not arguments.inside:
        run_beside_peer("benchmarks.encoders", arguments.work)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(machine)
    found = compare(weights, arguments.modalities, arguments.turns, arguments.names)
    (HERE / "encoders.json").write_text(json.dumps({"machine": machine, "modalities": found}) + "\n")


if __name__ == "__main__":
    main()
