"""The initial weights of a run's encoders, a model's or fresh ones, and the components built from them.

Fresh trunks are initialised as in the released code: linear layers Xavier-uniform, biases zero; class token and positions normal with
deviation 1 / sqrt(width), or 0.01 for text and IMU. Stems and heads keep PyTorch's defaults. Each tensor is drawn from the seed and its name.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, PatchStem, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.readers import prepares_alike
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.plan import RANDOM, Plan, encoder_recipes, run_config
from imagebind_cli.training.pruning import check_pruning, prune_encoder
from imagebind_cli.training.recipe import EncoderRecipe, Recipe, RecipeError
from imagebind_cli.training.towers import Tower, make_tower, set_trainable
from imagebind_cli.weights import checkpoint
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.find import BUNDLED, find_checkpoint
from imagebind_cli.weights.model_config import is_bundled, packaged_names


@dataclass(frozen=True)
class InitialEncoder:
    """An encoder before its first step, on the CPU in float32.

    base: `model` and `weights` (a fingerprint) of the model its weights came from; None for fresh ones. fresh: names of the tensors that are in
    no model, as those of fewer blocks are not.
    """

    encoder: Encoder
    base: Mapping[str, str] | None
    fresh: frozenset[str]

    @property
    def is_fresh(self) -> bool:
        """Check whether no tensor is one of another model."""
        return self.fresh == self.encoder.state_dict().keys()


@dataclass(frozen=True)
class Components:
    """The modules of a run.

    towers, initial: by encoder name. encoders: those that train. losses: by the pair's number.
    """

    towers: Mapping[str, Tower]
    initial: Mapping[str, InitialEncoder]
    encoders: nn.ModuleDict
    losses: nn.ModuleList

    def loss(self, pair: int) -> PairLoss:
        """Return the loss of a pair."""
        return cast(PairLoss, self.losses[pair])

    @property
    def trained(self) -> nn.Module:
        """Everything that trains, under the names of a checkpoint."""
        return nn.ModuleDict({"encoders": self.encoders, "losses": self.losses})

    def pair_towers(self, recipe: Recipe, pair: int) -> tuple[Tower, Tower]:
        """Return the anchor's and the other's tower of a pair."""
        anchor, other = (self.towers[registry.face(modality).encoder] for modality in recipe.pairs[pair].modalities)
        return anchor, other


def build_components(plan: Plan, device: torch.device) -> Components:
    """Read the weights, choose what trains, and put the encoders on their device.

    Raises:
        UserError: weights are missing or do not fit.
    """
    recipe = plan.recipe
    initial = {name: initial_encoder(recipe, name, plan.config.encoders[name]) for name in plan.encoders}
    for name, table in plan.encoders.items():
        set_trainable(initial[name].encoder, table, recipe.run.seed)
    towers = {name: make_tower(name, initial[name].encoder, table, recipe.run, device) for name, table in plan.encoders.items()}
    losses = nn.ModuleList(PairLoss(pair, recipe.run.chunk) for pair in recipe.pairs).to(device)
    encoders = nn.ModuleDict({name: tower.encoder for name, tower in towers.items() if tower.trained})
    return Components(towers, initial, encoders, losses)


def initial_encoder(recipe: Recipe, name: str, config: EncoderConfig) -> InitialEncoder:
    """Build one encoder with the weights that the recipe asks for.

    Raises:
        UserError: the weights are not here, or do not fit.
    """
    table = encoder_recipes(recipe)[name]
    source, blocks = table.init or recipe.model, table.init_blocks
    if source == RANDOM:
        tensors = fresh_weights(name, config, recipe.run.seed)
        return InitialEncoder(encoder_with(name, config, tensors), None, frozenset(tensors))
    found = _find_weights(source, name)
    if not prepares_alike(found.config.family, config.family):
        raise UserError(
            f"encoders.{name}.init = {source!r} is of the family {found.config.family}, and the {name} encoder of this run's model of the family "
            f"{config.family}, which prepares its inputs in another way"
        )
    larger = checkpoint.encoder_config(found, name)
    _check_blocks(table, name, larger, config)
    read = found.read(name) if blocks is None else prune_encoder(found.read(name), larger, config, blocks)
    new = fresh_weights(name, config, recipe.run.seed) if larger.head != config.head else {}
    new = {key: tensor for key, tensor in new.items() if key.startswith("head.")}
    tensors = {key: tensor for key, tensor in read.items() if not (new and key.startswith("head."))} | new
    adjusted = replace(found, config=replace(found.config, encoders={**found.config.encoders, name: config}), read=lambda _: tensors)
    encoder = checkpoint.load_encoder(adjusted, name, torch.device("cpu"), torch.float32)
    base = {"model": source, "weights": found.fingerprint(name)}
    return InitialEncoder(_unmapped(encoder), base, frozenset(tensors if blocks else new))


def check_weights(recipe: Recipe) -> None:
    """Check that the initial weights of every encoder are on this machine, and that blocks chosen of them are there.

    Raises:
        UserError: some are not.
    """
    for name, table in encoder_recipes(recipe).items():
        if (table.init or recipe.model) != RANDOM:
            larger = checkpoint.encoder_config(_find_weights(table.init or recipe.model, name), name)
            _check_blocks(table, name, larger, run_config(recipe).encoders[name])


def _check_blocks(table: EncoderRecipe, name: str, larger: EncoderConfig, config: EncoderConfig) -> None:
    """Check that the blocks that an encoder starts from, if a recipe chooses some, can begin it."""
    if table.init_blocks is None:
        return
    try:
        check_pruning(larger, config, table.init_blocks)
    except ValueError as error:
        key = f"encoders.{name}.init_blocks"
        raise RecipeError(key, f"{key}: {error}") from None


def _find_weights(source: str, name: str) -> Checkpoint:
    try:
        found = find_checkpoint(source)
    except UserError as error:
        small = f"; {BUNDLED} is here: --model {BUNDLED}" if source in packaged_names() and is_bundled(BUNDLED) else ""
        raise UserError(f"{error}; for fresh weights: --set encoders.{name}.init={RANDOM}{small}") from None
    if found.unfinished:
        advice = f"finish it first, or copy its present state: imagebind weights convert {source} FOLDER"
        raise UserError(f"{source}: {found.unfinished}; weights trained on top of it will not fit once it continues: {advice}")
    return found


def _unmapped(encoder: Encoder) -> Encoder:
    """Copy the weights into memory: those of a file are mapped, and training writes to them."""
    for parameter in encoder.parameters():
        parameter.data = parameter.data.clone()
    return encoder


def encoder_with(name: str, config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
    """Build an encoder that holds these tensors themselves, not copies.

    Args:
        name: the encoder's name, such as `vision`.
        config: its size and input shape.
        tensors: all of its tensors by name, as `fresh_weights` draws them and `Checkpoint.read` reads them.
    Returns:
        The encoder in training mode, on the device and in the type of its tensors.
    Raises:
        RuntimeError: a tensor is missing, unknown or of another shape.
    """
    encoder = build_encoder(registry.modality(name, config), config)
    encoder.load_state_dict(dict(tensors), strict=True, assign=True)
    return encoder


def fresh_weights(name: str, config: EncoderConfig, seed: int) -> dict[str, Tensor]:
    """Draw every tensor of an encoder by the published initialisation.

    Args:
        name: the encoder's name, such as `vision`.
        config: its size and input shape.
        seed: each tensor is drawn from it and the tensor's name, so that none depends on another.
    Returns:
        Tensors by name, float32 on the CPU; `log_scale`, where there is one, holds log(config.scale).
    Raises:
        UserError: there is no encoder of this name.
    """
    encoder = build_encoder(registry.modality(name, config), config)
    modules = dict(encoder.named_modules())
    tensors = {}
    for key, empty in encoder.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}.{key}".encode()))
        owner, _, kind = key.rpartition(".")
        tensor = torch.zeros(empty.shape)
        if key == "log_scale":
            tensor.fill_(math.log(config.scale or 1.0))
        else:
            _initialise(tensor, kind, modules[owner], generator, trunk=owner.startswith("trunk."))
        tensors[key] = tensor
    return tensors


def _initialise(tensor: Tensor, kind: str, owner: nn.Module, generator: torch.Generator, trunk: bool) -> None:
    """Fill one tensor of a module, zero so far; biases of the trunk stay zero."""
    width = tensor.shape[-1]
    if isinstance(owner, nn.LayerNorm):
        tensor.fill_(1.0 if kind == "weight" else 0.0)
    elif isinstance(owner, nn.Embedding):
        nn.init.normal_(tensor, std=0.02, generator=generator)  # CLIP's
    elif kind in ("cls", "pos"):
        nn.init.normal_(tensor, std=width**-0.5 if isinstance(owner, PatchStem) else 0.01, generator=generator)
    elif kind in ("bias_k", "bias_v"):
        nn.init.xavier_normal_(tensor, generator=generator)
    elif trunk and kind == "weight":
        nn.init.xavier_uniform_(tensor, generator=generator)
    elif not trunk:
        weight = owner.weight
        bound = 1 / math.sqrt(math.prod(weight.shape[1:])) if isinstance(weight, Tensor) else 0.0
        nn.init.uniform_(tensor, -bound, bound, generator=generator)
