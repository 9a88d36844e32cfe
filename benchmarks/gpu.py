"""On a GPU, in bfloat16 at the published size: encoders as shares of the card's matrix peak, JPEG files to vectors, and a training step.

    python -m benchmarks.gpu [--turns 5] [--pictures 2000] [--batch 2048] [--micro-batch 128]

Encoders: inputs on the card, one batch of `Model.batch_size`; the peak is a product of 8,192 x 8,192 matrices in the same type, timed in every
turn, and what an encoder needs is counted by torch's FlopCounterMode. Files: JPEGs of 1,024 x 768 to vectors as `imagebind embed` makes them,
decoded by a process a core, beside decoding alone. Training: the audio encoder against vision vectors from their cache, gradients cached in
micro-batches, and the same with vision live; operations a second, peak memory. Without a GPU all of it runs on the CPU, small and in
float32, which shows that the script works and no more: its figures are not written down.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import imagebind_cli as ib
from benchmarks.files import make_pictures
from benchmarks.machine import machine
from benchmarks.published_weights import published_shapes, published_weights
from benchmarks.training import take, tower_of
from imagebind_cli import pipeline
from imagebind_cli.engine import open_engine
from imagebind_cli.engine.processes import Processes
from imagebind_cli.model import Model
from imagebind_cli.number_types import generated
from imagebind_cli.readers import read_source
from imagebind_cli.registry import face
from imagebind_cli.sources import Item
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.optimizer import make_optimizer
from imagebind_cli.training.recipe import OptimizerRecipe, PairRecipe
from imagebind_cli.weights import model_config

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPE = "bf16" if GPU else "fp32"
SIZE = "huge" if GPU else "tiny"
EDGE = 8192 if GPU else 1024
"""Rows and columns of the matrices whose product is the peak."""


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes, until the device has done all of it."""
    if GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak() -> float:
    """Operations a second of a large product."""
    a, b = (torch.randn(EDGE, EDGE, device=DEVICE).to(torch.bfloat16 if GPU else torch.float32) for _ in range(2))
    return 10 * 2 * EDGE**3 / seconds(lambda: [a @ b for _ in range(10)])


def model_of_rule(modalities: list[str]) -> Model:
    """A model of the size with weights made by rule, of these modalities' encoders alone."""
    config = model_config.packaged_config(SIZE)
    config = model_config.ModelConfig(SIZE, config.dim, {name: config.encoders[name] for name in [*modalities, "text"]})
    return ib.load(published_weights(published_shapes(config), seed=7), config=config, device=str(DEVICE), dtype=DTYPE)


def encoders(model: Model, modalities: list[str], turns: int) -> dict[str, Any]:
    """Inputs on the device to vectors."""
    found = {}
    for modality in modalities:
        count = model.batch_size(modality) if GPU else 4
        inputs = generated(model.config(modality), count)
        inputs = (inputs[:, :, 0] if modality == "vision" else inputs).to(DEVICE)
        call = partial(model.encode, modality, inputs)
        with FlopCounterMode(display=False) as counted:
            call()
        rows = []
        for _ in range(turns):
            product, taken = peak(), seconds(call)
            rows.append((count / taken, counted.get_total_flops() / taken / product, product / 1e12))
        rate, share, product = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{modality:<10}{count:>6} at once{rate:>12.1f} a second{share:>8.2f} of the peak of {product:.2f} TFLOP/s", flush=True)
        found[modality] = {"count": count, "a second": rate, "share": share, "peak TFLOP/s": product, "turns": rows}
    return found


def files(model: Model, count: int, turns: int) -> dict[str, Any]:
    """JPEG files to vectors, beside decoding alone."""
    workers = len(os.sched_getaffinity(0))
    read = partial(read_source, face("image"), config=model.config("image"), options=face("image").options())
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), min(count, 200))
        items = [Item(str(number), str(paths[number % len(paths)])) for number in range(count)]

        def decode() -> None:
            with Processes(["image"]) as processes:
                processes.launch()
                for _ in pipeline.decode(items, open_engine(read, workers, processes), ahead=model.batch_size("image")):
                    pass

        def embed() -> None:
            with Processes(["image"]) as processes:
                processes.launch()
                for _ in model.embed_items("image", items, workers=workers, processes=processes):
                    pass

        taken = [(seconds(decode), seconds(embed)) for _ in range(turns + 1)][1:]
    alone, whole = (count / statistics.median(column) for column in zip(*taken, strict=True))
    print(
        f"{count} JPEGs, {workers} processes: {alone:.0f} a second decoded, {whole:.0f} to vectors, {whole / alone:.2f} of it", flush=True
    )
    return {"processes": workers, "decoded a second": alone, "embedded a second": whole}


def training(batch: int, micro_batch: int, turns: int) -> dict[str, Any]:
    """A step of the audio encoder in bfloat16, anchors from their cache and live."""
    config = model_config.packaged_config(SIZE).encoders
    precision: Literal["fp32", "bf16"] = "bf16" if GPU else "fp32"
    audio = tower_of("audio", config["audio"], "all", precision, DEVICE.type)
    sounds = torch.randn(batch, *config["audio"].shape)
    loss = PairLoss(PairRecipe(modalities=("image", "audio")), 1024).to(DEVICE)
    adamw = make_optimizer({"audio": audio.encoder}, {"audio": audio.recipe}, nn.ModuleList([loss]), OptimizerRecipe())
    found = {}
    for kind in ("cached", "live"):
        live = kind == "live"
        vision = tower_of("vision", config["vision"], "none", precision, DEVICE.type) if live else audio  # not called with a cache
        anchors: Tensor = (
            torch.randn(batch, 3, *config["vision"].shape[-2:]) if live else F.normalize(torch.randn(batch, config["vision"].dim))
        )

        def step(vision: Any = vision, anchors: Tensor = anchors, live: bool = live) -> None:
            parameters = [*audio.encoder.parameters()]
            take((vision, audio), loss, (anchors, sounds), adamw, parameters, embedded=not live, micro_batch=micro_batch)

        with FlopCounterMode(display=False) as counted:
            step()
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        rows = [(seconds(step), peak()) for _ in range(turns)]
        taken, product = (statistics.median(column) for column in zip(*rows, strict=True))
        memory = torch.cuda.max_memory_allocated() / 1e9 if GPU else 0.0
        share = counted.get_total_flops() / taken / product
        print(f"step of {batch}, anchors {kind}: {taken:.2f} s, {share:.2f} of the peak, {memory:.1f} GB at most", flush=True)
        found[kind] = {"seconds": taken, "share": share, "peak GB": memory}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--micro-batch", type=int, default=128)
    arguments = parser.parse_args()
    if not GPU:
        print("no GPU here: small sizes on the CPU, to show that it works; no figure of it is kept", file=sys.stderr)
        arguments.turns, arguments.pictures, arguments.batch, arguments.micro_batch = 1, 40, 8, 4
    described = f"{torch.cuda.get_device_name()}, {machine('torch')}" if GPU else machine("torch")
    print(described)
    modalities = ["vision", "audio"]
    model = model_of_rule(modalities)
    found = {"machine": described, "encoders": encoders(model, modalities, arguments.turns)}
    found["files"] = files(model, arguments.pictures, arguments.turns)
    del model
    found["training"] = training(arguments.batch, arguments.micro_batch, arguments.turns)
    if GPU:
        (Path(__file__).parent / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
