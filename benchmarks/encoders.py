"""Encoders alone, at the published size: ours in float32, int8 and bfloat16 beside the published code, and as shares of the machine's matrix peak.

    python -m benchmarks.encoders [--turns 5] [--modalities vision text audio depth thermal imu] [--names 50] [--work DIR]

All of them run in one process, in turns: the published code's environment with this folder in front (`cold_start` says how it is made).
Images are stills, which the published code shows as two equal frames. Texts are CLIP's 80 templates of `--names` class names; the published
code, whose time does not depend on what a text says, encodes those of five names, and cosines are of these. For images OpenCLIP's tower of the
same size is a second peer. The peak is a float32 product of 2,048 x 1,280 by 1,280 x 5,120, timed in every turn; what an encoder needs is
counted by torch's FlopCounterMode on the published code's shapes, so that what ours leaves out counts for it. Modalities that were not asked
for keep their figures in the JSON file, if they are of this machine.
"""

from __future__ import annotations

import argparse
import json
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
from benchmarks.machine import machine
from imagebind_cli.cli.memory import keep_freed_memory

HERE = Path(__file__).parent
CHOSEN = ("int8", "bf16")
GLIBC = 32 << 20, 64 << 20
"""What glibc keeps of freed memory at most, where a command does not say otherwise, as ours do: `keep_freed_memory`."""
BATCHES = {"vision": 4, "audio": 8, "depth": 8, "thermal": 8, "imu": 8}
NAMES = (
    "dog",
    "rain",
    "crying baby",
    "door knock",
    "helicopter",
    "rooster",
    "sea waves",
    "sneezing",
    "mouse click",
    "chainsaw",
    "pig",
    "crackling fire",
    "clapping",
    "keyboard typing",
    "siren",
    "cow",
    "crickets",
    "breathing",
    "door creak",
    "car horn",
    "frog",
    "chirping birds",
    "coughing",
    "can opening",
    "engine",
    "cat",
    "water drops",
    "footsteps",
    "washing machine",
    "train",
    "hen",
    "wind",
    "laughing",
    "vacuum cleaner",
    "church bells",
    "insects",
    "pouring water",
    "brushing teeth",
    "clock alarm",
    "airplane",
    "sheep",
    "toilet flush",
    "snoring",
    "clock tick",
    "fireworks",
    "crow",
    "thunderstorm",
    "drinking",
    "glass breaking",
    "hand saw",
)
"""Class names of ESC-50."""
SHARE = 5
"""Class names whose texts the published code encodes."""


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def settled(name: str, call: Callable[[], Any], modality: str) -> float:
    """How long a call takes that is not the first after another's, with freed memory kept as it would be in a process of its own."""
    keep_freed_memory(*() if name.startswith("ours") else GLIBC)
    if modality != "text":  # whose many batches settle by themselves
        call()
    return seconds(call)


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
    from imagebind_cli.number_types import generated

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

        few = inputs[: 80 * SHARE]

        def theirs(modality: str = modality, inputs: Tensor = few) -> Tensor:
            with torch.no_grad():
                return torch.cat([published({modality: some})[modality] for some in inputs.split(64)])

        calls["published"] = theirs
        if modality == "vision" and (tower := openclip_tower()) is not None:
            calls["OpenCLIP"] = torch.no_grad()(lambda tower=tower, inputs=inputs: tower(inputs))
        for name, model in models.items():
            calls[name] = lambda model=model, modality=modality, inputs=inputs: model.encode(modality, inputs)
        with FlopCounterMode(display=False) as counted:
            exact = torch.nn.functional.normalize(theirs(), dim=-1)
        needed = counted.get_total_flops() / len(few)  # of one input
        near = {name: (exact * model.encode(modality, few)).sum(-1) for name, model in models.items()}
        counts = {name: len(few) if name == "published" else len(inputs) for name in calls}
        taken = [{"peak": peak()} | {name: settled(name, call, modality) for name, call in calls.items()} for _ in range(turns)]
        print(f"\n| {modality}, {len(inputs)} at once | a second | over published, from and to | share of the peak | cosine, lowest |")
        print("|---|---|---|---|---|")
        for name in calls:
            rates = [counts[name] / turn[name] for turn in taken]
            rate = statistics.median(rates)
            ratios = sorted(own * turn["published"] / counts["published"] for own, turn in zip(rates, taken, strict=True))
            share = statistics.median(needed * own / turn["peak"] for own, turn in zip(rates, taken, strict=True))
            cosine = f"{near[name].min():.6f}" if name in near else ""
            span = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"| {name} | {rate:.2f} | {span} | {share:.2f} | {cosine} |", flush=True)
        found[modality] = {
            "counts": counts,
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
    parser.add_argument("--names", type=int, default=len(NAMES))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "imagebind-benchmark", help="10 GB are needed")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    weights = huge_weights(arguments.work)
    if not arguments.inside:
        run_beside_peer("benchmarks.encoders", arguments.work)
    described = machine("torch")
    print(described)
    found = compare(weights, arguments.modalities, arguments.turns, arguments.names)
    table = HERE / "encoders.json"
    before = json.loads(table.read_text()) if table.exists() else {}
    kept = before["modalities"] if before.get("machine") == described else {}
    table.write_text(json.dumps({"machine": described, "modalities": kept | found}) + "\n")


if __name__ == "__main__":
    main()
