"""What a run is going to do, in lines, before it does it: data, steps, what trains, and the memory that takes.

The memory is an estimate for one process: weights, gradients and AdamW's two averages exactly, activations by what a block keeps for its
backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.training.data import leaks
from imagebind_cli.training.gather import world
from imagebind_cli.training.precision import finer, precision
from imagebind_cli.training.recipe import Encoder as Section
from imagebind_cli.training.recipe import Pair, Run
from imagebind_cli.training.setup import Design
from imagebind_cli.training.trainable import choose, counts

FLOAT = 4
KEPT = {"fp32": 72, "bf16": 50}
"""Bytes that a block keeps for its backward pass, for each token and unit of width: the inputs of two norms (float32), of four linear layers and the
activation, and attention's queries, keys, values and result."""
PASSING = {"fp32": 40, "bf16": 28}
"""The same while a block only computes."""


def lines(plan: Design, device: torch.device) -> list[str]:
    """The plan on a device, a line each."""
    steps = [*_steps(plan), *_optimizer(plan, device), *finer(plan.recipe.run, device)]
    return [f"model {plan.recipe.model}", *plan.data.lines(), *_validation(plan), *_encoders(plan), *steps, *_memory(plan, device)]


def _validation(plan: Design) -> Iterator[str]:
    if plan.val:
        yield from (f"validation: {line}" for line in (*plan.val.lines(), *leaks(plan.data, plan.val)))
    for test in plan.tests:
        yield f"validation: zero-shot {test.modality}, {len(test.items):,} items of {len(test.classes):,} classes"


def _encoders(plan: Design) -> Iterator[str]:
    for name, section in plan.sections.items():
        sizes = counts(shaped(name, plan.config.encoders[name], section))
        trained, all_of_it = sizes["trained"], sizes["trained"] + sizes["frozen"]
        start = section.init or plan.recipe.model
        begins = "fresh" if start == "random" else f"from {start}"
        how = {"all": "trains", "head": "its head trains", "lora": "adapters train", "last": "its last blocks train", "none": "is frozen"}
        share = f", {trained:,} of {all_of_it:,} parameters" if trained else f", {all_of_it:,} parameters"
        yield f"{name} {how[section.train or 'none']}{share}, {begins}{_rate(plan, section) if trained else ''}"


def _rate(plan: Design, section: Section) -> str:
    """The learning rate of an encoder that trains."""
    below = f", {section.layer_decay:g} of it for each block further down" if section.layer_decay < 1 else ""
    return f", learning rate {section.lr or plan.recipe.optimizer.lr:g}{below}"


def _steps(plan: Design) -> Iterator[str]:
    run = plan.recipe.run
    epochs = plan.steps / plan.data.steps_per_epoch(world())
    warmup = (
        f"{plan.warmup:,} of them warm-up" if plan.warmup < plan.steps else "all of them warm-up: the run is shorter than optimizer.warmup"
    )
    yield f"{plan.steps:,} steps ({epochs:.3g} epochs), {warmup}, on {world()} process{'es' if world() > 1 else ''}"
    for pair in plan.recipe.pairs:
        micro = f" in micro-batches of {run.micro_batch:,}" if run.micro_batch and run.micro_batch < pair.batch // world() else ""
        temperature = f"temperature {'from ' if pair.learn_temperature else ''}{pair.temperature:g}"
        yield f"{pair.name}: batch {pair.batch:,}{micro}, {pair.loss}, {temperature}"
        yield f"{pair.name}: {_augmentation(pair)}"


def _augmentation(pair: Pair) -> str:
    """Return what is varied of each modality, as the recipe has it."""
    varied = {name: augment.model_dump(exclude_defaults=True) for name, augment in pair.augment.items()}
    told = [f"{name} by {', '.join(f'{key} {value}' for key, value in changes.items())}" for name, changes in varied.items() if changes]
    return f"augmentation of {', of '.join(told)}" if told else "no augmentation"


def _optimizer(plan: Design, device: torch.device) -> Iterator[str]:
    made = plan.recipe.optimizer
    fall = f"then a cosine to {made.final * made.lr:g}" if made.schedule == "cosine" else "constant"
    yield f"{made.name}, learning rate {made.lr:g}, {fall}, weight decay {made.weight_decay:g}, computed in {precision(plan.recipe.run, device)}"


def _memory(plan: Design, device: torch.device) -> Iterator[str]:
    run = plan.recipe.run
    weights = optimizer = 0
    for name, section in plan.sections.items():
        sizes = counts(shaped(name, plan.config.encoders[name], section))
        share = world() if run.sharding == "fsdp" and section.train != "none" else 1
        weights += FLOAT * (sizes["trained"] + sizes["frozen"]) // share
        optimizer += 3 * FLOAT * sizes["trained"] // share
    activations = max(_step_bytes(plan, number, device) for number in range(len(plan.recipe.pairs)))
    parts = {"weights": weights, "gradients and optimizer": optimizer, "activations": activations}
    told = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    yield f"about {sum(parts.values()) / 1e9:.2f} GB of memory a process: {told}; beside PyTorch and the reading of files"


def _step_bytes(plan: Design, number: int, device: torch.device) -> int:
    """Activations of one micro-batch, embeddings and scores of the whole."""
    run, pair = plan.recipe.run, plan.recipe.pairs[number]
    own = pair.batch // world()
    at_once = min(run.micro_batch or own, own)
    plain = at_once == own  # then both towers keep theirs until the loss is known
    towers = []
    for modality in pair.modalities:
        name = registry.encoder_name(modality)
        config = plan.config.encoders[name]
        trained = plan.sections[name].train != "none"
        towers.append(at_once * (kept(config, run, device) if trained else _passing(config, run, device)))
    embeddings = 4 * FLOAT * (own + pair.batch) * plan.config.dim
    scores = 4 * FLOAT * min(run.chunk, own) * pair.batch
    return (sum(towers) if plain else max(towers)) + embeddings + scores


def kept(config: EncoderConfig, run: Run, device: torch.device) -> int:
    """Bytes of activations that one sample keeps for the backward pass."""
    token = config.trunk.width * config.tokens
    if run.checkpointing:  # each block's input, and one block whole
        return token * (FLOAT * config.trunk.layers + KEPT[precision(run, device)])
    return token * KEPT[precision(run, device)] * config.trunk.layers


def _passing(config: EncoderConfig, run: Run, device: torch.device) -> int:
    return config.trunk.width * config.tokens * PASSING[precision(run, device)]


def shaped(name: str, config: EncoderConfig, section: Section) -> Encoder:
    """An encoder as it trains, without memory for its weights."""
    encoder = build_encoder(registry.get(name), config)
    choose(encoder, section, seed=0)
    return encoder
