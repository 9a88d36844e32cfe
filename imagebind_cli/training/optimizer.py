"""AdamW over parameter groups, a rate for each layer, warm-up and cosine (ImageBind table 9; what it leaves open stands in the recipe's defaults).

No weight decay on biases, norms, class token, positions and temperatures. With layer decay, a block learns at `layer_decay` times the rate of
the block behind it, the stem at that of a block before the first (BEiT's rule). On request Muon for the matrices of the blocks: their steps
are made orthogonal, and as large as AdamW's, so that both take the same rates (Liu et al. 2025, "Muon is scalable for LLM training").
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from imagebind_cli.training.precision import natural
from imagebind_cli.training.recipe import Encoder as Section
from imagebind_cli.training.recipe import Optimizer as Settings

UNDECAYED = ("bias", "cls", "pos", "bias_k", "bias_v", "log_scale")


class Optimizers:
    """Optimizers of different parameters, as one. `state`: of every parameter; `param_groups`: of all."""

    def __init__(self, some: Sequence[torch.optim.Optimizer]) -> None:
        self._some = some
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for one in some:
            one.state = self.state  # type: ignore[assignment]
        self.param_groups = [group for one in some for group in one.param_groups]

    def step(self) -> None:
        """Change all parameters by their gradients."""
        device = self.param_groups[0]["params"][0].device
        with natural(device):
            for one in self._some:
                one.step()

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for one in self._some:
            one.zero_grad()


def make_optimizer(encoders: Mapping[str, nn.Module], sections: Mapping[str, Section], losses: nn.Module, settings: Settings) -> Optimizers:
    """Make the optimizer of every parameter that requires a gradient.

    Args:
        encoders: by name.
        sections: what the recipe says of each encoder, by the same names: its own rate, weight decay and layer decay.
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
                groups.setdefault((orthogonal, *_rates(key, encoder, sections[name], settings)), []).append(parameter)
    if temperatures := [parameter for parameter in losses.parameters() if parameter.requires_grad]:
        groups.setdefault((False, settings.lr, 0.0), []).extend(temperatures)
    tables: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for (orthogonal, peak, decay), some in groups.items():
        tables[orthogonal].append({"params": some, "peak": peak, "weight_decay": decay})
    made: list[torch.optim.Optimizer] = []
    if tables[False]:
        made.append(torch.optim.AdamW(tables[False], lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps))
    if tables[True]:
        made.append(torch.optim.Muon(tables[True], lr=settings.lr, momentum=settings.momentum, adjust_lr_fn="match_rms_adamw"))
    return Optimizers(made)


def _rates(key: str, encoder: nn.Module, section: Section, settings: Settings) -> tuple[float, float]:
    """Peak learning rate and weight decay of a parameter."""
    blocks = len(encoder.trunk.blocks)  # type: ignore[union-attr, arg-type]
    place = key.split(".")
    if place[0] == "head":
        below = 0
    elif place[:2] == ["trunk", "blocks"]:
        below = blocks - int(place[2])
    else:
        below = blocks + 1
    owner = encoder.get_submodule(key.rpartition(".")[0])
    still = place[-1] in UNDECAYED or isinstance(owner, nn.LayerNorm)
    decay = settings.weight_decay if section.weight_decay is None else section.weight_decay
    return (section.lr or settings.lr) * section.layer_decay**below, 0.0 if still else decay


def rate_at(step: int, steps: int, warmup: int, settings: Settings) -> float:
    """Return the learning rate of a step as a share of its peak, in [0, 1].

    It rises in even parts to 1 at the end of the warm-up, then falls as a cosine to `settings.final`, or stays where the schedule is constant.

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
    """Set the learning rate of every group to `rate`, a share in [0, 1], of the group's own peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate


def clip_gradients(groups: Iterable[Iterable[Tensor]], largest: float) -> float:
    """Scale all gradients so that their common norm is at most `largest`.

    Args:
        groups: groups of parameters; those whose gradients are shared out among processes form a group of their own.
        largest: the norm allowed.
    Returns:
        The norm before scaling. Where it is not finite, gradients stay as they are.
    """
    some = [own for group in groups if (own := [parameter for parameter in group if parameter.grad is not None])]
    norms = [_whole(get_total_norm([parameter.grad for parameter in own if parameter.grad is not None])) for own in some]
    norm = torch.stack(norms).norm()
    if norm.isfinite():
        for own in some:
            clip_grads_with_norm_(own, largest, norm)
    return float(norm)


def _whole(norm: Tensor) -> Tensor:
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
