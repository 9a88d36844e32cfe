"""Everything a run needs before its first step, in the order in which it can go wrong: recipe, data, plan, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.training.data import PairData, open_pairs
from imagebind_cli.training.gather import world
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.parallel import Tower, make_tower
from imagebind_cli.training.recipe import Encoder as Section
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.training.start import Start, begin, config_of, sections
from imagebind_cli.training.trainable import choose
from imagebind_cli.training.zeroshot import Labelled, read_test
from imagebind_cli.weights.model_config import ModelConfig


@dataclass(frozen=True)
class Design:
    """A run as the recipe and its data have it; no weights are read.

    config: of the recipe's model, as this run builds its encoders. steps, warmup: in all, and how many of them warm up.
    """

    recipe: Recipe
    config: ModelConfig
    sections: Mapping[str, Section]
    data: PairData
    val: PairData | None
    tests: tuple[Labelled, ...]
    steps: int
    warmup: int


@dataclass(frozen=True)
class Machinery:
    """What a run works with. encoders: those that train. losses: by the pair's number."""

    towers: Mapping[str, Tower]
    starts: Mapping[str, Start]
    encoders: nn.ModuleDict
    losses: nn.ModuleList

    def loss(self, pair: int) -> PairLoss:
        """The loss of a pair."""
        return cast(PairLoss, self.losses[pair])

    @property
    def trained(self) -> nn.Module:
        """All that trains, by the names a checkpoint has them under."""
        return nn.ModuleDict({"encoders": self.encoders, "losses": self.losses})

    def sides(self, recipe: Recipe, pair: int) -> tuple[Tower, Tower]:
        """The anchor's and the other's tower of a pair."""
        anchor, other = (self.towers[registry.encoder_name(modality)] for modality in recipe.pairs[pair].modalities)
        return anchor, other


def design(recipe: Recipe) -> Design:
    """Look at everything but the weights.

    Raises:
        UserError: the first thing that is wrong.
    """
    if not recipe.pairs:
        raise UserError("the recipe has no pairs; name one with --pairs image-depth")
    own = sections(recipe)
    for pair in recipe.pairs:
        if all(own[registry.encoder_name(modality)].train == "none" for modality in pair.modalities):
            raise UserError(f"{pair.name}: nothing trains: both of its encoders are frozen")
    _check_anchor_cache(recipe, own)
    config = config_of(recipe)
    data = open_pairs(recipe, config.encoders)
    val = open_pairs(recipe, config.encoders, "val") if any(pair.val for pair in recipe.pairs) else None
    per_epoch = data.steps_per_epoch(world())
    steps = recipe.run.steps or max(1, round(recipe.run.epochs * per_epoch))
    warmup = min(steps, round(recipe.optimizer.warmup * per_epoch))
    return Design(recipe, config, own, data, val, tuple(read_test(test) for test in recipe.zeroshot), steps, warmup)


def _check_anchor_cache(recipe: Recipe, own: Mapping[str, Section]) -> None:
    """Whether there is a pair whose anchors can be kept."""
    if not recipe.run.anchor_cache:
        return
    for pair in recipe.pairs:
        if pair.views and own[registry.encoder_name(pair.modalities[0])].train != "none":
            raise UserError(f"{pair.name}: run.anchor_cache keeps embeddings of an anchor that is frozen; here {pair.modalities[0]} trains")
    if not any(pair.views for pair in recipe.pairs):
        raise UserError("run.anchor_cache keeps fixed views: set pairs.0.views to how many")


def build(plan: Design, device: torch.device) -> Machinery:
    """Read weights, choose what trains, and put the encoders on their device."""
    recipe = plan.recipe
    starts = {name: begin(recipe, name, plan.config.encoders[name]) for name in plan.sections}
    for name, section in plan.sections.items():
        choose(starts[name].encoder, section, recipe.run.seed)
    towers = {name: make_tower(name, starts[name].encoder, section, recipe.run, device) for name, section in plan.sections.items()}
    losses = nn.ModuleList(PairLoss(pair, recipe.run.chunk) for pair in recipe.pairs).to(device)
    encoders = nn.ModuleDict({name: tower.encoder for name, tower in towers.items() if tower.trained})
    return Machinery(towers, starts, encoders, losses)
