"""AdamW over parameter groups, with a learning rate for each layer, warm-up and cosine (ImageBind table 9).

Biases, norms, class token, positions and temperatures have no weight decay. With layer decay, a block learns at `layer_decay` times the rate
of the next block, and the stem at that of a block before the first (BEiT's rule). On request Muon trains the matrices of the blocks: its
steps are orthogonal and as large as AdamW's, so that both take the same rates (Liu et al. 2025, "Muon is scalable for LLM training").
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from imagebind_cli.training.compute import avoid_emulated_bfloat16
from imagebind_cli.training.recipe import EncoderRecipe, OptimizerRecipe

UNDECAYED = ("bias", "cls", "pos", "bias_k", "bias_v", "log_scale")


class Optimizers:
    """Several optimizers of different parameters, used as one. state: of every parameter. param_groups: of all optimizers."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for optimizer in optimizers:
            optimizer.state = self.state  # type: ignore[assignment]
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """Update all parameters from their gradients."""
        device = self.param_groups[0]["params"][0].device
        with avoid_emulated_bfloat16(device):
            for optimizer in self._optimizers:
                optimizer.step()

    def zero_grad(self) -> None:
        """Release all gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()


def make_optimizer(
    encoders: Mapping[str, nn.Module], recipes: Mapping[str, EncoderRecipe], losses: nn.Module, settings: OptimizerRecipe
) -> Optimizers:
    """Make the optimizer of every parameter that requires a gradient.

    Args:
        encoders: by name.
        recipes: of each encoder, by the same names: its learning rate, weight decay and layer decay.
        losses: a module whose parameters train as well, without weight decay, such as learnt temperatures; an empty one if there are none.
        settings: the recipe's optimizer.
    Returns:
        AdamW, with Muon for the blocks' matrices where the settings ask for it. Give each step its rate with `set_rate`.
    """
    groups: dict[tuple[bool, float, float], list[Tensor]] = {}
    for name, encoder in encoders.items():
        for key, parameter in encoder.named_parameters():
            if parameter.requires_grad:
                orthogonal = settings.name == "muon" and parameter.ndim == 2 and key.startswith("trunk.blocks.")
                groups.setdefault((orthogonal, *_rates(key, encoder, recipes[name], settings)), []).append(parameter)
    if temperatures := [parameter for parameter in losses.parameters() if parameter.requires_grad]:
        groups.setdefault((False, settings.lr, 0.0), []).extend(temperatures)
    tables: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (orthogonal, peak, decay), parameters in groups.items():
        tables[orthogonal].append({"params": parameters, "peak": peak, "weight_decay": decay})
    optimizers: list[torch.optim.Optimizer] = []
    if tables[False]:
        optimizers.append(torch.optim.AdamW(tables[False], lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps))
    if tables[True]:
        optimizers.append(torch.optim.Muon(tables[True], lr=settings.lr, momentum=settings.momentum, adjust_lr_fn="match_rms_adamw"))
    return Optimizers(optimizers)


def _rates(key: str, encoder: nn.Module, recipe: EncoderRecipe, settings: OptimizerRecipe) -> tuple[float, float]:
    """Return the peak learning rate and weight decay of a parameter."""
    blocks = len(encoder.trunk.blocks)  # type: ignore[union-attr, arg-type]
    place = key.split(".")
    if place[0] == "head":
        below = 0
    elif place[:2] == ["trunk", "blocks"]:
        below = blocks - int(place[2])
    else:
        below = blocks + 1
    owner = encoder.get_submodule(key.rpartition(".")[0])
    undecayed = place[-1] in UNDECAYED or isinstance(owner, nn.LayerNorm)
    decay = settings.weight_decay if recipe.weight_decay is None else recipe.weight_decay
    return (recipe.lr or settings.lr) * recipe.layer_decay**below, 0.0 if undecayed else decay


def rate_at(step: int, steps: int, warmup: int, settings: OptimizerRecipe) -> float:
    """Return the learning rate of a step as a fraction of its peak, in [0, 1].

    It rises linearly to 1 at the end of the warm-up, then falls as a cosine to `settings.final`, or stays where the schedule is constant.

    Args:
        step: 0 for the first.
        steps: of the whole training.
        warmup: steps that the rise takes.
        settings: the recipe's optimizer.
    """
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return settings.final + (1 - settings.final) * (1 + math.cos(math.pi * done)) / 2


def set_rate(optimizer: Optimizers, rate: float) -> None:
    """Set the learning rate of every group to `rate`, a fraction in [0, 1], of the group's own peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate


def clip_gradients(groups: Iterable[Iterable[Tensor]], largest: float) -> float:
    """Scale all gradients so that their joint norm is at most `largest`.

    Args:
        groups: groups of parameters; those whose gradients are sharded among processes form a group of their own.
        largest: the largest norm allowed.
    Returns:
        The norm before scaling. Where it is not finite, gradients are not changed.
    """
    with_gradients = [[parameter for parameter in group if parameter.grad is not None] for group in groups]
    with_gradients = [group for group in with_gradients if group]
    norms = [_full(get_total_norm([parameter.grad for parameter in group if parameter.grad is not None])) for group in with_gradients]
    norm = torch.stack(norms).norm()
    if norm.isfinite():
        for group in with_gradients:
            clip_grads_with_norm_(group, largest, norm)
    return float(norm)


def _full(norm: Tensor) -> Tensor:
    full: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return full
