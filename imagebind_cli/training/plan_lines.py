"""Describe a plan, a line for each fact, with the memory and the arithmetic that its run takes.

The memory is an estimate for one process: weights, gradients and AdamW's two averages exactly, activations by what a block keeps for its
backward pass. The arithmetic is that of the blocks alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.printable import duration_in_words
from imagebind_cli.training.anchors import AT_ONCE
from imagebind_cli.training.compute import actual_precision, precision_lines
from imagebind_cli.training.data import CHUNK, PairData
from imagebind_cli.training.distributed import world
from imagebind_cli.training.inputs import is_vector_file
from imagebind_cli.training.plan import RANDOM, Plan
from imagebind_cli.training.recipe import EncoderRecipe, PairRecipe, RunRecipe
from imagebind_cli.training.rows import MODALITY_KEYS
from imagebind_cli.training.teachers import reduction, teacher_dim
from imagebind_cli.training.towers import parameter_counts, set_trainable
from imagebind_cli.weights.find import shape_of

FLOAT = 4  # bytes
# Bytes that a block keeps for its backward pass, for each token and unit of width: the inputs of two norms (float32), of four linear layers
# and of the activation, and attention's queries, keys, values and result.
BACKWARD_BYTES = {"fp32": 72, "bf16": 50}
GPU_OPERATIONS = 30e12  # a second, in bf16: what a consumer GPU of 24 GB sustains of its 71e12
FORWARD_BYTES = {"fp32": 40, "bf16": 28}  # the same in a forward pass alone


def plan_lines(plan: Plan, device: torch.device) -> list[str]:
    """Describe a plan on a device, a line for each fact."""
    steps = [*_step_lines(plan), *_optimizer_lines(plan, device), *precision_lines(plan.recipe.run, device)]
    return [
        f"model {plan.recipe.model}",
        *data_lines(plan.data),
        *_validation_lines(plan),
        *_anchor_lines(plan),
        *_encoder_lines(plan),
        *steps,
        *_memory_lines(plan, device),
        *_arithmetic_lines(plan, device),
    ]


def data_lines(data: PairData) -> list[str]:
    """Describe the rows of all pairs in one split, and how their files are read."""
    lines = []
    for number, pair in enumerate(data.recipe.pairs):
        if data.counts[number]:
            lines += [f"{pair.name}: {line}" for line in (*_row_lines(data, number), *data.notes(number))]
    return lines


def _row_lines(data: PairData, number: int) -> Iterator[str]:
    """Count a pair's rows, those that cannot be used, and the groups."""
    pair, rows, split = data.recipe.pairs[number], data.reader(number).rows, data.split
    what = "samples" if pair.teacher else "pairs"
    if pair.val_fraction is None:
        yield f"{len(rows):,} {what} from {', '.join(pair.data if split == 'data' else pair.val)}"
    elif split == "data":
        yield f"{len(rows):,} pairs from {', '.join(pair.data)}, without those held out for validation"
    else:
        yield f"{len(rows):,} pairs held out of {', '.join(pair.data)}: {pair.val_fraction:g} of them, whole groups, by run.seed"
    if rows.first_unusable is not None and not (split == "val" and pair.val_fraction):
        yield f"{rows.unusable:,} left out, the first {rows.first_unusable.id}: {rows.first_unusable.reason}"
    sizes = rows.groups.bincount()
    groups, largest = int(sizes.count_nonzero()), int(sizes.max())
    if groups == len(rows):
        return
    counted = f"{groups:,} group{'s' if groups > 1 else ''}, the largest of {largest:,} {what}"
    names = f"id, group, {' or '.join(dict.fromkeys(pair.modalities))}"
    if split == "val":
        yield f"{counted}: R@1 counts any pair of the same {names} as correct; `retrieve --pairs ids` counts only the same id"
    elif pair.teacher:
        yield f"{counted}: samples of the same {names} share their neighbours in infonce"
    else:
        yield f"{counted}: pairs of the same {names} are not negatives of each other"
    if 2 * largest > len(rows) and pair.loss_traits.negatives:
        yield f"{largest / len(rows):.0%} of the pairs are in one group: few pairs are negatives, so little can be learnt or measured"


def leak_lines(data: PairData, val: PairData) -> Iterator[str]:
    """Yield how many validation pairs share a file with a training pair. Sentences do not count: many pairs may have the same."""
    for number in range(len(data.counts)):
        reader = data.reader(number)
        keys, trained = val.reader(number).rows.keys, reader.rows.keys
        for source, column in zip(reader.inputs, MODALITY_KEYS, strict=True):
            shared = int(torch.isin(keys[:, column], trained[:, column]).sum())
            if shared and not source.face.text:
                name = "-".join(each.modality for each in reader.inputs)
                yield f"{name}: {shared:,} of {len(keys):,} have the {source.modality} of a training pair; their scores are too high"


def _validation_lines(plan: Plan) -> Iterator[str]:
    if plan.val:
        yield from (f"validation: {line}" for line in (*data_lines(plan.val), *leak_lines(plan.data, plan.val)))
    for test in plan.tests:
        yield f"validation: zero-shot {test.modality}, {len(test.items):,} items of {len(test.classes):,} classes"


def _anchor_lines(plan: Plan) -> Iterator[str]:
    for pair in plan.recipe.pairs:
        if pair.teacher:
            length, kind = teacher_dim(pair.teacher), reduction(pair, plan.config.dim)
            space = f"{length:,} numbers, along {plan.config.dim:,} {kind} directions" if kind else f"{length:,} numbers"
            seen = "stored vectors" if is_vector_file(pair.teacher.model) else f"sees {_sight(pair)}"
            yield f"{pair.name}: taught by {pair.teacher.model}, {space}; {seen}; its vectors are computed once"
        if pair.anchor.blind:
            names = ", ".join(sorted(pair.anchor.blind))
            yield f"{pair.name}: targets are blind to {names}: the mean of {pair.anchor.variants} variants of each sample"


def _sight(pair: PairRecipe) -> str:
    assert pair.teacher is not None
    return "whole samples" if pair.teacher.sees == "whole" else f"the student's {pair.views:,} views of each sample"


def _encoder_lines(plan: Plan) -> Iterator[str]:
    for name, table in plan.encoders.items():
        sizes = parameter_counts(weightless_encoder(name, plan.config.encoders[name], table))
        trained, total = sizes["trained"], sizes["trained"] + sizes["frozen"]
        start = table.init or plan.recipe.model
        blocks = "" if table.init_blocks is None else f"blocks {', '.join(map(str, table.init_blocks))} of "
        origin = "fresh" if start == RANDOM else f"from {blocks}{start}"
        how = {"all": "trains", "head": "its head trains", "lora": "adapters train", "last": "its last blocks train", "none": "is frozen"}
        size = f", {trained:,} of {total:,} parameters" if trained else f", {total:,} parameters"
        yield f"{name} {how[table.train or 'none']}{size}, {origin}{_learning_rate(plan, table) if trained else ''}"


def _learning_rate(plan: Plan, table: EncoderRecipe) -> str:
    below = f", {table.layer_decay:g} of it for each block further down" if table.layer_decay < 1 else ""
    return f", learning rate {table.lr or plan.recipe.optimizer.lr:g}{below}"


def _step_lines(plan: Plan) -> Iterator[str]:
    run = plan.recipe.run
    epochs = plan.steps / plan.data.steps_per_epoch(world())
    if plan.warmup < plan.steps:
        warmup = f"{plan.warmup:,} of them warm-up"
    else:
        warmup = "all of them warm-up: the run is shorter than optimizer.warmup"
    yield f"{plan.steps:,} steps ({epochs:.3g} epochs), {warmup}, on {world()} process{'es' if world() > 1 else ''}"
    for pair in plan.recipe.pairs:
        micro = f" in micro-batches of {run.micro_batch:,}" if run.micro_batch and run.micro_batch < pair.batch // world() else ""
        temperature = f"temperature {'from ' if pair.learn_temperature else ''}{pair.temperature:g}"
        loss = " + ".join(f"{weight:g} {name}" for name, weight in pair.teacher.weights.items()) if pair.teacher else pair.loss
        yield f"{pair.name}: batch {pair.batch:,}{micro}, {loss}, {temperature}"
        yield f"{pair.name}: {_augmentation(pair)}"


def _augmentation(pair: PairRecipe) -> str:
    tables = {name: augment.model_dump(exclude_defaults=True) for name, augment in pair.augment.items()}
    parts = [f"{name} by {', '.join(f'{key} {value}' for key, value in table.items())}" for name, table in tables.items() if table]
    return f"augmentation of {', of '.join(parts)}" if parts else "no augmentation"


def _optimizer_lines(plan: Plan, device: torch.device) -> Iterator[str]:
    table = plan.recipe.optimizer
    schedule = f"then a cosine to {table.final * table.lr:g}" if table.schedule == "cosine" else "constant"
    precision = actual_precision(plan.recipe.run, device)
    yield f"{table.name}, learning rate {table.lr:g}, {schedule}, weight decay {table.weight_decay:g}, computed in {precision}"


def _memory_lines(plan: Plan, device: torch.device) -> Iterator[str]:
    run = plan.recipe.run
    weights = optimizer = 0
    for name, table in plan.encoders.items():
        sizes = parameter_counts(weightless_encoder(name, plan.config.encoders[name], table))
        shards = world() if run.sharding == "fsdp" and table.train != "none" else 1
        weights += FLOAT * (sizes["trained"] + sizes["frozen"]) // shards
        optimizer += 3 * FLOAT * sizes["trained"] // shards
    activations = max(_step_bytes(plan, number, device) for number in range(len(plan.recipe.pairs)))
    parts = {"weights": weights, "gradients and optimizer": optimizer, "activations": activations}
    sizes_text = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    yield f"about {sum(parts.values()) / 1e9:.2f} GB of memory a process: {sizes_text}; PyTorch and the reading of files not counted"


def _arithmetic_lines(plan: Plan, device: torch.device) -> Iterator[str]:
    """Yield what a distillation takes on a consumer's GPU: the steps, and before them the teacher's vectors."""
    if not any(pair.teacher for pair in plan.recipe.pairs):
        return
    run = plan.recipe.run
    shares = [pair.weight for pair in plan.recipe.pairs]
    steps = teaching = memory = 0.0
    for number, (pair, share) in enumerate(zip(plan.recipe.pairs, shares, strict=True)):
        name = registry.face(pair.modalities[1]).encoder
        passes = 3 + (run.micro_batch is not None and run.micro_batch < pair.batch) + run.checkpointing
        steps += (
            plan.steps * share / sum(shares) * pair.batch * passes * forward_operations(plan.config.encoders[name], plan.encoders[name])
        )
        if pair.teacher and not is_vector_file(pair.teacher.model):
            config = shape_of(pair.teacher.model).encoders[name]
            views = 1 if pair.teacher.sees == "whole" else pair.views
            variants = pair.anchor.variants if pair.anchor.blind else 1
            teaching += plan.data.counts[number] * views * variants * forward_operations(config)
            parameters = parameter_counts(weightless_encoder(name, config, EncoderRecipe(train="none")))["frozen"]
            memory = max(memory, FLOAT * parameters + CHUNK * AT_ONCE * _forward_bytes(config, run, device))
    times = [duration_in_words(operations / GPU_OPERATIONS) for operations in (steps, teaching)]
    amounts = f"the steps {_metric(steps)}FLOP, {times[0]}; the teacher's vectors {_metric(teaching)}FLOP, {times[1]}"
    yield f"on one consumer GPU of 24 GB at {_metric(GPU_OPERATIONS)}FLOP/s, the reading of files not counted: {amounts}, in {memory / 1e9:.2f} GB"


def forward_operations(config: EncoderConfig, table: EncoderRecipe | None = None) -> float:
    """Count the floating-point operations of the blocks for one sample: those of four linear layers and of attention."""
    tokens, width = config.tokens * (1 - (table.patch_dropout or 0 if table else 0)), config.trunk.width
    return config.trunk.layers * (24 * width**2 * tokens + 4 * width * tokens**2)


def _metric(number: float) -> str:
    """Return a number as `1.5 P`."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e9:.3g} G"


def _step_bytes(plan: Plan, number: int, device: torch.device) -> int:
    """Estimate the activations of one micro-batch, and the embeddings and scores of the whole batch."""
    run, pair = plan.recipe.run, plan.recipe.pairs[number]
    share = pair.batch // world()
    at_once = min(run.micro_batch or share, share)
    towers: list[int] = []
    for modality in pair.modalities:
        name = registry.face(modality).encoder
        config, trained = plan.config.encoders[name], plan.encoders[name].train != "none"
        if pair.teacher and towers:  # its vectors are read, not computed
            continue
        towers.append(at_once * (activation_bytes(config, run, device) if trained else _forward_bytes(config, run, device)))
    embeddings = 4 * FLOAT * (share + pair.batch) * plan.config.dim
    scores = 4 * FLOAT * min(run.chunk, share) * pair.batch
    both = at_once == share  # then both towers keep their activations until the loss is computed
    return (sum(towers) if both else max(towers)) + embeddings + scores


def activation_bytes(config: EncoderConfig, run: RunRecipe, device: torch.device) -> int:
    """Estimate the bytes of activations that one sample keeps for the backward pass."""
    per_byte = config.trunk.width * config.tokens
    if run.checkpointing:  # each block's input, and all of one block
        return per_byte * (FLOAT * config.trunk.layers + BACKWARD_BYTES[actual_precision(run, device)])
    return per_byte * BACKWARD_BYTES[actual_precision(run, device)] * config.trunk.layers


def _forward_bytes(config: EncoderConfig, run: RunRecipe, device: torch.device) -> int:
    return config.trunk.width * config.tokens * FORWARD_BYTES[actual_precision(run, device)]


def weightless_encoder(name: str, config: EncoderConfig, table: EncoderRecipe) -> Encoder:
    """Build an encoder as it trains, without memory for its weights (on PyTorch's meta device)."""
    encoder = build_encoder(registry.modality(name, config), config)
    set_trainable(encoder, table, seed=0)
    return encoder
