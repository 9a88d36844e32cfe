"""The plan of a run: decided from its recipe and data before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.training.data import PairData
from imagebind_cli.training.distributed import world
from imagebind_cli.training.recipe import EncoderRecipe, Recipe, RecipeError
from imagebind_cli.training.teachers import check_teacher
from imagebind_cli.training.zeroshot import ZeroShotTest, read_zeroshot_test
from imagebind_cli.weights.find import shape_of
from imagebind_cli.weights.model_config import ModelConfig

RANDOM = "random"  # as `init`: fresh weights


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
    for number, pair in enumerate(recipe.pairs):
        if pair.teacher:
            check_teacher(pair, data, number, config.dim)
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
        if table.init_blocks is not None and (table.init or recipe.model) == RANDOM:
            key = f"encoders.{name}.init_blocks"
            raise RecipeError(key, f"{key}: fresh weights have no blocks to choose from; name a model by encoders.{name}.init")
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
    for number, pair in enumerate(recipe.pairs):
        if not pair.anchor.blind or pair.teacher:
            continue
        if encoders[registry.face(pair.modalities[0]).encoder].train != "none":
            raise RecipeError(
                f"pairs.{pair.name}.anchor", f"{pair.name}: anchor.blind needs a frozen anchor; here {pair.modalities[0]} trains"
            )
        if not (recipe.run.anchor_cache and pair.views):
            needed = f"set run.anchor_cache = true and pairs.{number}.views to a number"
            raise RecipeError(f"pairs.{pair.name}.anchor", f"{pair.name}: anchor.blind needs cached anchors; {needed}")
    if not recipe.run.anchor_cache:
        return
    for pair in recipe.pairs:
        if pair.views and encoders[registry.face(pair.modalities[0]).encoder].train != "none":
            raise RecipeError("run.anchor_cache", f"{pair.name}: run.anchor_cache needs a frozen anchor; here {pair.modalities[0]} trains")
    if not any(pair.views for pair in recipe.pairs):
        raise RecipeError("run.anchor_cache", "run.anchor_cache holds fixed views; set pairs.0.views to their number")
