"""A training step: gradient caching beside the plain large batch, ours beside a loop written by hand, and the anchor cache at published sizes.

    python -m benchmarks.training [--rounds 3] [--batch 2048] [--micro-batch 64] [--skip-anchor]

Every kind of step runs in a process of its own, in turn, so that peak memory is its own: what is counted is what comes on top of weights and
inputs. Pictures are small, so that a batch of 2,048 takes seconds on a CPU; the anchor cache is timed at the published shapes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imagebind_cli import model_config
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.training.batch import Batch
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.optimizer import clip, make_optimizer
from imagebind_cli.training.parallel import Tower, raise_tower
from imagebind_cli.training.recipe import Encoder as Section
from imagebind_cli.training.recipe import Optimizer, Pair, Run
from imagebind_cli.training.start import fresh, with_weights
from imagebind_cli.training.step import gradients
from imagebind_cli.training.trainable import choose
from imagebind_cli.transformer import TrunkConfig

DIM = 256
SMALL = EncoderConfig(
    dim=DIM, shape=(1, 64, 64), patch=(16, 16), stride=(16, 16), stem_norm_eps=1e-5, scale=1.0,
    trunk=TrunkConfig(width=384, layers=4, heads=6, bias_kv=True),
)  # fmt: skip
KINDS = ("plain small", "plain large", "cached large", "by hand large")


def tower_of(name: str, config: EncoderConfig, train: str) -> Tower:
    """An encoder with fresh weights, ready for steps."""
    encoder = with_weights(name, config, fresh(name, config, 0))
    section = Section(train=train)
    choose(encoder, section, 0)
    return raise_tower(name, encoder, section, Run(), torch.device("cpu"))


def pair_steps(kind: str, batch: int, micro_batch: int) -> Callable[[], None]:
    """One step of two small encoders that both train."""
    towers = tower_of("depth", SMALL, "all"), tower_of("thermal", SMALL, "all")
    loss = PairLoss(Pair(modalities=("depth", "thermal")), 1024)
    size = micro_batch if kind == "plain small" else batch
    inputs = torch.randn(size, *SMALL.shape), torch.randn(size, *SMALL.shape)
    sections = {tower.name: tower.section for tower in towers}
    adamw = make_optimizer({tower.name: tower.encoder for tower in towers}, sections, nn.ModuleList([loss]), Optimizer())
    parameters = [parameter for tower in towers for parameter in tower.encoder.parameters()]
    if kind == "by hand large":
        return lambda: _by_hand(towers, inputs, adamw)
    mini_batch = Batch(0, tuple(map(str, range(size))), torch.arange(size), inputs)

    def step() -> None:
        gradients(towers, loss, mini_batch, 0, 0, micro_batch if kind == "cached large" else None)
        clip([parameters], 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def _by_hand(towers: tuple[Tower, Tower], inputs: tuple[Tensor, Tensor], adamw: torch.optim.Optimizer) -> None:
    """What one would write in twenty lines: nothing of `imagebind_cli.training` but its encoders and AdamW's groups."""
    rows = [tower.encoder(own) for tower, own in zip(towers, inputs, strict=True)]
    scores = rows[0] @ rows[1].T / 0.07
    truth = torch.arange(len(scores))
    ((F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2).backward()
    nn.utils.clip_grad_norm_([parameter for tower in towers for parameter in tower.encoder.parameters()], 1.0)
    adamw.step()
    adamw.zero_grad()


def anchor_steps(kind: str) -> Callable[[], None]:
    """One step at the published sizes: vision (ViT-H) frozen, depth (ViT-S) trains; anchors embedded live, or from their cache."""
    huge, size = model_config.named("huge").encoders, 8
    depth = tower_of("depth", huge["depth"], "all")
    live = kind == "anchors live"
    vision = tower_of("vision", huge["vision"], "none") if live else depth  # not called with a cache
    anchors = torch.randn(size, 3, 224, 224) if live else F.normalize(torch.randn(size, 1024), dim=1)
    batch = Batch(
        0, tuple(map(str, range(size))), torch.arange(size), (anchors, torch.randn(size, *huge["depth"].shape)), embedded=not live
    )
    loss = PairLoss(Pair(modalities=("image", "depth")), 1024)
    adamw = make_optimizer({"depth": depth.encoder}, {"depth": depth.section}, nn.ModuleList([loss]), Optimizer())

    def step() -> None:
        gradients((vision, depth), loss, batch, 0, 0)
        clip([[*depth.encoder.parameters()]], 1.0)
        adamw.step()
        adamw.zero_grad()

    return step


def resident() -> float:
    """Memory of this process now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def child(kind: str, batch: int, micro_batch: int) -> None:
    """One kind of step: the seconds of the second one, and the peak memory beyond what lay there before the first."""
    step = anchor_steps(kind) if kind.startswith("anchors") else pair_steps(kind, batch, micro_batch)
    before = resident()
    step()
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before]))


def measured(kind: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds and MB of one step in a new process."""
    command = [sys.executable, "-m", "benchmarks.training", "--child", kind, "--batch", str(arguments.batch)]
    done = subprocess.run([*command, "--micro-batch", str(arguments.micro_batch)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--skip-anchor", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.batch, arguments.micro_batch)
        return
    kinds = [*KINDS, *([] if arguments.skip_anchor else ["anchors live", "anchors cached"])]
    rows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        for kind in kinds:
            rows[kind].append(measured(kind, arguments))
    seconds = {kind: statistics.median(row[0] for row in own) for kind, own in rows.items()}
    megabytes = {kind: statistics.median(row[1] for row in own) for kind, own in rows.items()}
    print(f"{'a step':<18}{'seconds':>10}{'from':>9}{'to':>9}{'peak MB':>10}")
    for kind, own in rows.items():
        times = [row[0] for row in own]
        print(f"{kind:<18}{seconds[kind]:>10.2f}{min(times):>9.2f}{max(times):>9.2f}{megabytes[kind]:>10.0f}")
    embeddings = 2 * 2 * arguments.batch * DIM * 4 / 1e6  # both sides, and their gradients
    per_round = list(zip(*(rows[kind] for kind in KINDS), strict=True))
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "time, cached over plain large batch": statistics.median(cached[0] / plain[0] for _, plain, cached, _ in per_round),
        "time, plain over a loop by hand": statistics.median(plain[0] / hand[0] for _, plain, _, hand in per_round),
        "memory, cached over plain micro-batch and embeddings": megabytes["cached large"] / (megabytes["plain small"] + embeddings),
        "memory, plain large over cached": megabytes["plain large"] / megabytes["cached large"],
    }
    if not arguments.skip_anchor:
        pairs = zip(rows["anchors live"], rows["anchors cached"], strict=True)
        result["samples a second, anchors cached over live"] = statistics.median(live[0] / cached[0] for live, cached in pairs)
    for name in list(result)[1:]:
        print(f"{name:<56}{result[name]:.3g}")
    (Path(__file__).parent / "training.json").write_text(json.dumps(result | {"rounds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
