"""A training step: gradient caching beside the plain large batch, ours beside a loop written by hand, and the anchor cache at published sizes.

    python -m benchmarks.training [--rounds 3] [--batch 2048] [--micro-batch 64]

Every kind of step runs in a process of its own, in turn, so that peak memory is its own: what is counted is what comes on top of weights and
inputs. Times are processor seconds on one thread, which what else runs on the machine changes little. Pictures are small, so that a batch of 2,048
takes seconds on a CPU; the anchor cache is timed at the published shapes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.training.data import Batch
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.optimizer import Optimizers, clip_gradients, make_optimizer
from imagebind_cli.training.recipe import EncoderRecipe, OptimizerRecipe, PairRecipe, RunRecipe
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.training.step import compute_gradients
from imagebind_cli.training.towers import Tower, make_tower, set_trainable
from imagebind_cli.transformer import TrunkConfig
from imagebind_cli.weights import model_config

DIM = 256
ANCHORS = 4
"""Pairs in a step at the published sizes."""
SMALL = EncoderConfig(
    dim=DIM, shape=(1, 64, 64), patch=(16, 16), stride=(16, 16), stem_norm_eps=1e-5, scale=1.0,
    trunk=TrunkConfig(width=256, layers=3, heads=4, bias_kv=True),
)  # fmt: skip
Step = Callable[[int | None], None]
"""One step on the first so many rows of its batch; None for all."""

KINDS = (
    "plain small", "plain large", "cached large", "by hand large",
    "anchors live", "anchors live, bf16", "anchors by hand", "anchors cached",
)  # fmt: skip
RATIOS = {
    "time, cached over plain large batch": ("cached large", "plain large", 0),
    "operations, cached over plain large batch": ("cached large", "plain large", 2),
    "time, plain over a loop by hand": ("plain large", "by hand large", 0),
    "memory, plain large batch over cached": ("plain large", "cached large", 1),
    "time, anchors live over from their cache": ("anchors live", "anchors cached", 0),
    "time, a loop by hand over ours, anchors live": ("anchors by hand", "anchors live", 0),
    "time, a loop by hand over ours in bf16, anchors live": ("anchors by hand", "anchors live, bf16", 0),
    "operations, anchors live over from their cache": ("anchors live", "anchors cached", 2),
}
"""Name to the two kinds of step, and the column of their figures."""
MEMORY = "memory, cached over plain micro-batch and embeddings"


def tower_of(name: str, config: EncoderConfig, train: str, precision: Literal["fp32", "bf16"] = "fp32", device: str = "cpu") -> Tower:
    """An encoder with fresh weights, ready for steps."""
    encoder = encoder_with(name, config, fresh_weights(name, config, 0))
    section = EncoderRecipe(train=train)
    set_trainable(encoder, section, 0)
    return make_tower(name, encoder, section, RunRecipe(precision=precision), torch.device(device))


def take(
    towers: tuple[Tower, Tower],
    loss: PairLoss,
    inputs: tuple[Tensor, Tensor],
    adamw: Optimizers,
    parameters: list[nn.Parameter],
    *,
    embedded: bool = False,
    micro_batch: int | None = None,
) -> None:
    """One step as `imagebind train` takes it. parameters: what trains. embedded: the anchors are vectors already."""
    ids = tuple(map(str, range(len(inputs[0]))))
    compute_gradients(towers, loss, Batch(0, ids, torch.arange(len(ids)), inputs, embedded=embedded), 0, 0, micro_batch)
    clip_gradients([parameters], 1.0)
    adamw.step()
    adamw.zero_grad()


def pair_steps(kind: str, batch: int, micro_batch: int) -> Step:
    """A step of two small encoders that both train."""
    towers = tower_of("depth", SMALL, "all"), tower_of("thermal", SMALL, "all")
    loss = PairLoss(PairRecipe(modalities=("depth", "thermal")), 1024)
    size = micro_batch if kind == "plain small" else batch
    inputs = torch.randn(size, *SMALL.shape), torch.randn(size, *SMALL.shape)
    sections = {tower.name: tower.recipe for tower in towers}
    adamw = make_optimizer({tower.name: tower.encoder for tower in towers}, sections, nn.ModuleList([loss]), OptimizerRecipe())
    parameters = [parameter for tower in towers for parameter in tower.encoder.parameters()]
    if kind == "by hand large":
        return lambda rows: _by_hand(towers, (inputs[0][:rows], inputs[1][:rows]), adamw)

    def step(rows: int | None = None) -> None:
        some = inputs[0][:rows], inputs[1][:rows]
        take(towers, loss, some, adamw, parameters, micro_batch=micro_batch if kind == "cached large" else None)

    return step


def _by_hand(towers: tuple[Tower, Tower], inputs: tuple[Tensor, Tensor], adamw: torch.optim.Optimizer) -> None:
    """What one would write in twenty lines: nothing of `imagebind_cli.training` but its encoders and AdamW's groups."""
    rows = []
    for tower, own in zip(towers, inputs, strict=True):
        with torch.set_grad_enabled(tower.trained):
            rows.append(tower.encoder(own))
    scores = rows[0] @ rows[1].T / 0.07
    truth = torch.arange(len(scores))
    ((F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2).backward()
    nn.utils.clip_grad_norm_([parameter for tower in towers if tower.trained for parameter in tower.encoder.parameters()], 1.0)
    adamw.step()
    adamw.zero_grad()


def anchor_steps(kind: str) -> Step:
    """A step at the published sizes: vision (ViT-H) frozen, depth (ViT-S) trains; anchors embedded live, or from their cache.

    By hand a picture is two equal frames, as in the published code.
    """
    huge, size = model_config.packaged_config("huge").encoders, ANCHORS
    precision: Literal["fp32", "bf16"] = "bf16" if kind.endswith("bf16") else "fp32"
    depth = tower_of("depth", huge["depth"], "all", precision)
    live = kind != "anchors cached"
    vision = tower_of("vision", huge["vision"], "none", precision) if live else depth  # not called with a cache
    anchors = torch.randn(size, 3, 224, 224) if live else F.normalize(torch.randn(size, 1024), dim=1)
    depths = torch.randn(size, *huge["depth"].shape)
    loss = PairLoss(PairRecipe(modalities=("image", "depth")), 1024)
    adamw = make_optimizer({"depth": depth.encoder}, {"depth": depth.recipe}, nn.ModuleList([loss]), OptimizerRecipe())
    if kind == "anchors by hand":
        frames = anchors[:, :, None].expand(-1, -1, 2, -1, -1)
        return lambda rows: _by_hand((vision, depth), (frames[:rows], depths[:rows]), adamw)

    def step(rows: int | None = None) -> None:
        some = anchors[:rows], depths[:rows]
        take((vision, depth), loss, some, adamw, [*depth.encoder.parameters()], embedded=not live)

    return step


def resident() -> float:
    """Memory of this process now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def child(kind: str, batch: int, micro_batch: int) -> None:
    """One kind of step: its processor seconds, its peak memory in MB, its floating-point operations for a pair."""
    torch.set_num_threads(1)
    anchored = kind.startswith("anchors")
    step = anchor_steps(kind) if anchored else pair_steps(kind, batch, micro_batch)
    some = 1 if anchored else micro_batch if kind == "plain small" else 2 * micro_batch
    before = resident()
    with FlopCounterMode(display=False) as counter:
        step(some)  # which warms up, too
    operations = counter.get_total_flops() / some
    started = time.process_time()
    step(None)
    seconds = time.process_time() - started
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before, operations]))


def measured(kind: str, arguments: argparse.Namespace) -> list[float]:
    """What `child` finds in a new process."""
    command = [sys.executable, "-m", "benchmarks.training", "--child", kind, "--batch", str(arguments.batch)]
    done = subprocess.run([*command, "--micro-batch", str(arguments.micro_batch)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.batch, arguments.micro_batch)
        return
    rows: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            rows[kind].append(measured(kind, arguments))
    print(f"{'a step':<18}{'seconds':>10}{'from':>9}{'to':>9}{'peak MB':>10}{'GFLOP a pair':>14}")
    median = {kind: [statistics.median(values) for values in zip(*own, strict=True)] for kind, own in rows.items()}
    for kind, own in rows.items():
        times = [row[0] for row in own]
        print(
            f"{kind:<18}{median[kind][0]:>10.2f}{min(times):>9.2f}{max(times):>9.2f}{median[kind][1]:>10.0f}{median[kind][2] / 1e9:>14.2f}"
        )
    ratio = {name: median[one][column] / median[other][column] for name, (one, other, column) in RATIOS.items()}
    embeddings = 2 * 2 * arguments.batch * DIM * 4 / 1e6  # both sides, and their gradients
    ratio[MEMORY] = median["cached large"][1] / (median["plain small"][1] + embeddings)
    for name, value in ratio.items():
        print(f"{name:<56}{value:.3g}")
    described = machine("torch")
    result = {"machine": described, "batch": arguments.batch, "micro-batch": arguments.micro_batch, **ratio, "rounds": rows}
    (Path(__file__).parent / "training.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
