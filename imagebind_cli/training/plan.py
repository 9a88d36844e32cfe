"""What a run will do: decided from its recipe and data before any weights are read, and printed as lines.

The memory is an estimate for one process: weights, gradients and AdamW's two averages exactly, activations by what a block keeps for its
backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.training.compute import actual_precision, precision_lines
from imagebind_cli.training.data import PairData
from imagebind_cli.training.distributed import world
from imagebind_cli.training.recipe import EncoderRecipe, PairRecipe, Recipe, RecipeError, RunRecipe
from imagebind_cli.training.rows import MODALITY_KEYS
from imagebind_cli.training.towers import parameter_counts, set_trainable
from imagebind_cli.training.zeroshot import ZeroShotTest, read_zeroshot_test
from imagebind_cli.weights.find import shape_of
from imagebind_cli.weights.model_config import ModelConfig

RANDOM = "random"  # as `init`: fresh weights
FLOAT = 4  # bytes
# Bytes that a block keeps for its backward pass, for each token and unit of width: the inputs of two norms (float32), of four linear layers
# and of the activation, and attention's queries, keys, values and result.
BACKWARD_BYTES = {"fp32": 72, "bf16": 50}
FORWARD_BYTES = {"fp32": 40, "bf16": 28}  # the same while a block only computes


@dataclass(frozen=True)
class Plan:
    """A run as its recipe and data define it.

    config: of the recipe's model, as this run builds its encoders. encoders: the recipe of each encoder that the run needs. val: None
    where no pair is validated. steps: in all. warmup: how many of them warm up.
    """

    recipe: Recipe
    config: ModelConfig
    encoders: Mapping[str, EncoderRecipe]
    data: PairData
    val: PairData | None
    tests: tuple[ZeroShotTest, ...]
    steps: int
    warmup: int


def make_plan(recipe: Recipe) -> Plan:
    """Check everything except the weights, and read the rows of the data.

    Raises:
        UserError: the first mistake.
    """
    if not recipe.pairs:
        raise UserError("the recipe has no pairs; name one with --pairs image-depth")
    encoders = encoder_recipes(recipe)
    for pair in recipe.pairs:
        if all(encoders[registry.face(modality).encoder].train == "none" for modality in pair.modalities):
            raise RecipeError("encoders", f"{pair.name}: nothing trains: both of its encoders are frozen")
    _check_anchor_cache(recipe, encoders)
    config = run_config(recipe)
    data = PairData(recipe, config.encoders)
    val = PairData(recipe, config.encoders, "val") if any(pair.is_validated for pair in recipe.pairs) else None
    per_epoch = data.steps_per_epoch(world())
    steps = recipe.run.steps or max(1, round(recipe.run.epochs * per_epoch))
    warmup = min(steps, round(recipe.optimizer.warmup * per_epoch))
    return Plan(recipe, config, encoders, data, val, tuple(read_zeroshot_test(test) for test in recipe.zeroshot), steps, warmup)


def encoder_recipes(recipe: Recipe) -> dict[str, EncoderRecipe]:
    """Return the recipe of every encoder that a run needs. By default anchors are frozen, and encoders bound to an anchor are trained in full.

    Raises:
        UserError: a modality or encoder does not exist, or nothing needs an encoder of the recipe.
    """
    anchors, others = ([registry.face(pair.modalities[number]).encoder for pair in recipe.pairs] for number in (0, 1))
    tested = [name for test in recipe.zeroshot for name in (registry.face(test.modality).encoder, registry.TEXT)]
    needed = dict.fromkeys([*anchors, *others, *tested])
    for name in recipe.encoders:
        if name not in needed:
            raise RecipeError(f"encoders.{name}", f"encoders.{name}: nothing in this recipe needs it; it needs {', '.join(needed)}")
    tables = {name: recipe.encoders.get(name, EncoderRecipe()) for name in needed}
    return {
        name: table.model_copy(update={"train": table.train or ("all" if name in others else "none")}) for name, table in tables.items()
    }


def run_config(recipe: Recipe) -> ModelConfig:
    """Return the config of the recipe's model, as this run builds its encoders. A named model need not be on this machine.

    Raises:
        UserError: the model does not exist, lacks an encoder, or has one whose inputs differ in length.
    """
    config = shape_of(recipe.model)
    encoders = dict(config.encoders)
    for name, table in encoder_recipes(recipe).items():
        if name not in encoders:
            raise UserError(f"{recipe.model}: this model has no {name} encoder; it has {', '.join(encoders)}")
        trunk = encoders[name].trunk
        if encoders[name].shortest is not None:  # and a batch is one tensor
            raise UserError(f"{recipe.model}: its {name} encoder takes inputs of their own length, which cannot be batched in training")
        if table.drop_path is not None:
            trunk = replace(trunk, drop_path=table.drop_path)
        patch_dropout = encoders[name].patch_dropout if table.patch_dropout is None else table.patch_dropout
        if patch_dropout and not encoders[name].patch:
            raise RecipeError(f"encoders.{name}.patch_dropout", f"encoders.{name}.patch_dropout: this encoder has no patches")
        encoders[name] = replace(encoders[name], trunk=trunk, head=table.head, patch_dropout=patch_dropout)
    return replace(config, encoders=encoders)


def _check_anchor_cache(recipe: Recipe, encoders: Mapping[str, EncoderRecipe]) -> None:
    """Check that there is a pair whose anchors can be cached, and that all such anchors are frozen."""
    if not recipe.run.anchor_cache:
        return
    for pair in recipe.pairs:
        if pair.views and encoders[registry.face(pair.modalities[0]).encoder].train != "none":
            raise RecipeError("run.anchor_cache", f"{pair.name}: run.anchor_cache needs a frozen anchor; here {pair.modalities[0]} trains")
    if not any(pair.views for pair in recipe.pairs):
        raise RecipeError("run.anchor_cache", "run.anchor_cache holds fixed views; set pairs.0.views to their number")


# -- in words


def plan_lines(plan: Plan, device: torch.device) -> list[str]:
    """Describe a plan on a device, a line for each fact."""
    steps = [*_step_lines(plan), *_optimizer_lines(plan, device), *precision_lines(plan.recipe.run, device)]
    return [
        f"model {plan.recipe.model}",
        *data_lines(plan.data),
        *_validation_lines(plan),
        *_encoder_lines(plan),
        *steps,
        *_memory_lines(plan, device),
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
    if pair.val_fraction is None:
        yield f"{len(rows):,} pairs from {', '.join(pair.data if split == 'data' else pair.val)}"
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
    counted = f"{groups:,} group{'s' if groups > 1 else ''}, the largest of {largest:,} pairs"
    names = f"id, group, {' or '.join(pair.modalities)}"
    if split == "val":
        yield f"{counted}: R@1 counts any pair of the same {names} as correct; `retrieve --pairs ids` counts only the same id"
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


def _encoder_lines(plan: Plan) -> Iterator[str]:
    for name, table in plan.encoders.items():
        sizes = parameter_counts(weightless_encoder(name, plan.config.encoders[name], table))
        trained, total = sizes["trained"], sizes["trained"] + sizes["frozen"]
        start = table.init or plan.recipe.model
        origin = "fresh" if start == RANDOM else f"from {start}"
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
        yield f"{pair.name}: batch {pair.batch:,}{micro}, {pair.loss}, {temperature}"
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
    yield f"about {sum(parts.values()) / 1e9:.2f} GB of memory a process: {sizes_text}; beside PyTorch and the reading of files"


def _step_bytes(plan: Plan, number: int, device: torch.device) -> int:
    """Estimate the activations of one micro-batch, and the embeddings and scores of the whole batch."""
    run, pair = plan.recipe.run, plan.recipe.pairs[number]
    share = pair.batch // world()
    at_once = min(run.micro_batch or share, share)
    towers = []
    for modality in pair.modalities:
        name = registry.face(modality).encoder
        config, trained = plan.config.encoders[name], plan.encoders[name].train != "none"
        towers.append(at_once * (activation_bytes(config, run, device) if trained else _forward_bytes(config, run, device)))
    embeddings = 4 * FLOAT * (share + pair.batch) * plan.config.dim
    scores = 4 * FLOAT * min(run.chunk, share) * pair.batch
    both = at_once == share  # then both towers keep their activations until the loss is known
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
