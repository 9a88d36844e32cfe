"""What each encoder of a run begins as: a model's weights, or fresh ones by the published initialisation.

Fresh trunks are the released code's: Xavier-uniform linear layers, no biases; class token and positions normal with deviation 1 / sqrt(width), or
0.01 for text and IMU. Stems and heads keep PyTorch's own. Each tensor is drawn from the seed and its own name.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from imagebind_cli import registry
from imagebind_cli.encoder import Encoder, EncoderConfig, PatchStem, build_encoder
from imagebind_cli.errors import UserError
from imagebind_cli.training import recipe as recipes
from imagebind_cli.training.recipe import Recipe
from imagebind_cli.weights import checkpoint
from imagebind_cli.weights.checkpoint import Checkpoint
from imagebind_cli.weights.find import find_checkpoint, shape_of
from imagebind_cli.weights.model_config import ModelConfig

RANDOM = "random"


@dataclass(frozen=True)
class Start:
    """An encoder before its first step, on the CPU in float32.

    base: the model its weights came from and their fingerprint; None for fresh ones. fresh: names of the tensors that came from no model.
    """

    encoder: Encoder
    base: Mapping[str, str] | None
    fresh: frozenset[str]


def sections(recipe: Recipe) -> dict[str, recipes.Encoder]:
    """What the recipe says of every encoder it needs; where it does not say what trains, anchors are frozen and what is bound to them trains.

    Raises:
        UserError: a modality or encoder that does not exist, or a section for one that nothing needs.
    """
    anchors, others = ([registry.encoder_name(pair.modalities[side]) for pair in recipe.pairs] for side in (0, 1))
    tested = [name for test in recipe.zeroshot for name in (registry.encoder_name(test.modality), "text")]
    needed = dict.fromkeys([*anchors, *others, *tested])
    for name in recipe.encoders:
        if name not in needed:
            raise UserError(f"encoders.{name}: nothing in this recipe needs it; it needs {', '.join(needed)}")
    given = {name: recipe.encoders.get(name, recipes.Encoder()) for name in needed}
    usual = {name: "all" if name in others else "none" for name in needed}
    return {name: section.model_copy(update={"train": section.train or usual[name]}) for name, section in given.items()}


def config_of(recipe: Recipe) -> ModelConfig:
    """The config of the recipe's model, as this run builds its encoders. A named model need not be on this machine.

    Raises:
        UserError: no such model, or an encoder it does not have.
    """
    config = shape_of(recipe.model)
    built = dict(config.encoders)
    for name, section in sections(recipe).items():
        if name not in built:
            raise UserError(f"{recipe.model}: this model has no {name} encoder; it has {', '.join(built)}")
        trunk = built[name].trunk
        if section.drop_path is not None:
            trunk = replace(trunk, drop_path=section.drop_path)
        dropped = built[name].patch_dropout if section.patch_dropout is None else section.patch_dropout
        if dropped and not built[name].patch:
            raise UserError(f"encoders.{name}.patch_dropout: this encoder has no patches")
        built[name] = replace(built[name], trunk=trunk, head=section.head, patch_dropout=dropped)
    return replace(config, encoders=built)


def untouched(recipe: Recipe) -> dict[str, tuple[EncoderConfig, Mapping[str, str]]]:
    """Encoders that the run does not need and that share its space: their config, model and fingerprint.

    The space is that of the frozen encoders, so the others of the models these come from belong to it; with none frozen, those of the recipe's
    model. None where a model has no trained weights here.
    """
    own = sections(recipe)
    models = {section.init or recipe.model for section in own.values() if section.train == "none"} or {recipe.model}
    kept: dict[str, tuple[EncoderConfig, Mapping[str, str]]] = {}
    for name in sorted(models):
        try:
            found = find_checkpoint(name)
        except UserError:
            continue
        if not found.untrained:
            others = [encoder for encoder in found.config.encoders if encoder not in own]
            kept |= {other: (found.config.encoders[other], {"model": name, "weights": found.fingerprint(other)}) for other in others}
    return kept


def licences(models: Iterable[str]) -> str | None:
    """Of all weights that a run began from; None where none is stated."""
    found = dict.fromkeys(find_checkpoint(name).config.licence for name in models)
    return " and ".join(licence for licence in found if licence) or None


def begin(recipe: Recipe, name: str, config: EncoderConfig) -> Start:
    """One encoder with the weights its section asks for.

    Raises:
        UserError: no such weights here, or they do not fit.
    """
    source = sections(recipe)[name].init or recipe.model
    if source == RANDOM:
        tensors = fresh_weights(name, config, recipe.run.seed)
        return Start(encoder_with(name, config, tensors), None, frozenset(tensors))
    found = _weights(source, name)
    theirs = checkpoint.encoder_config(found, name)
    new = fresh_weights(name, config, recipe.run.seed) if theirs.head != config.head else {}
    new = {key: tensor for key, tensor in new.items() if key.startswith("head.")}
    tensors = {key: tensor for key, tensor in found.read(name).items() if not (new and key.startswith("head."))} | new
    adjusted = replace(found, config=replace(found.config, encoders={**found.config.encoders, name: config}), read=lambda _: tensors)
    encoder = checkpoint.load_encoder(adjusted, name, torch.device("cpu"), torch.float32)
    base = {"model": source, "weights": found.fingerprint(name)}
    return Start(_apart(encoder), base, frozenset(new))


def check_weights(recipe: Recipe) -> None:
    """Whether the weights that every encoder begins with are on this machine.

    Raises:
        UserError: some are not.
    """
    for name, section in sections(recipe).items():
        if (section.init or recipe.model) != RANDOM:
            checkpoint.encoder_config(_weights(section.init or recipe.model, name), name)


def _weights(source: str, name: str) -> Checkpoint:
    try:
        found = find_checkpoint(source)
    except UserError as error:
        raise UserError(f"{error}; for fresh weights: --set encoders.{name}.init={RANDOM}") from None
    if found.unfinished:
        copy = f"finish it first, or copy what it has: imagebind weights convert {source} FOLDER"
        raise UserError(f"{source}: {found.unfinished}; what is trained over it would not fit once it goes on: {copy}")
    return found


def _apart(encoder: Encoder) -> Encoder:
    """Weights in memory of their own: those of a file are mapped, and training writes to them."""
    for parameter in encoder.parameters():
        parameter.data = parameter.data.clone()
    return encoder


def encoder_with(name: str, config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
    """Build an encoder that holds these tensors: the very ones, not copies.

    Args:
        name: the encoder's name, such as `vision`.
        config: its size and input shape.
        tensors: every tensor of it by name, as `fresh_weights` draws them and `Checkpoint.read` reads them.
    Returns:
        The encoder in training mode, on the device and in the type of its tensors.
    Raises:
        RuntimeError: a tensor is missing, too many or of another shape.
    """
    encoder = build_encoder(registry.get(name), config)
    encoder.load_state_dict(dict(tensors), strict=True, assign=True)
    return encoder


def fresh_weights(name: str, config: EncoderConfig, seed: int) -> dict[str, Tensor]:
    """Draw every tensor of an encoder by the published initialisation.

    Args:
        name: the encoder's name, such as `vision`.
        config: its size and input shape.
        seed: each tensor is drawn from it and the tensor's own name, so that one does not depend on another.
    Returns:
        Tensors by name, float32 on the CPU; `log_scale`, where there is one, holds log(config.scale).
    Raises:
        UserError: there is no encoder of this name.
    """
    encoder = build_encoder(registry.get(name), config)
    modules = dict(encoder.named_modules())
    tensors = {}
    for key, empty in encoder.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}.{key}".encode()))
        owner, _, kind = key.rpartition(".")
        tensor = torch.zeros(empty.shape)
        if key == "log_scale":
            tensor.fill_(math.log(config.scale or 1.0))
        else:
            _fill(tensor, kind, modules[owner], generator, trunk=owner.startswith("trunk."))
        tensors[key] = tensor
    return tensors


def _fill(tensor: Tensor, kind: str, owner: nn.Module, generator: torch.Generator, trunk: bool) -> None:
    """One tensor of a module, which is zero so far; biases of the trunk stay so."""
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
