"""What of an encoder trains: all of it, its head, its last blocks, or low-rank adapters (LoRA, arXiv 2106.09685, by `peft`).

The rest is frozen and in eval mode. The logit scale never trains here: it is the pair's temperature, which the loss holds.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from imagebind_cli.encoder import Encoder
from imagebind_cli.errors import UserError
from imagebind_cli.training.recipe import Encoder as Section

ADAPTED = re.compile(r"(.+)\.lora_(A|B)\.default\.weight")


def choose(encoder: Encoder, section: Section, seed: int) -> None:
    """Freeze an encoder but for what its section trains, and give it its adapters.

    Raises:
        UserError: adapters for layers it does not have, or `peft` is not installed.
    """
    encoder.requires_grad_(False)
    if section.train == "lora":
        _adapt(encoder, section, seed)
        return
    for part in parts(encoder, section):
        part.requires_grad_(True)
    if hasattr(encoder, "log_scale"):
        encoder.log_scale.requires_grad_(False)


def parts(encoder: Encoder, section: Section) -> list[nn.Module]:
    """The modules that are in training mode while the others are in eval mode."""
    last = list(encoder.trunk.blocks)[-_blocks(encoder, section) :]
    chosen: dict[str, list[nn.Module]] = {"all": [encoder], "head": [encoder.head], "last": [*last, encoder.head], "lora": last, "none": []}
    return chosen[section.train or "none"]


def _blocks(encoder: Encoder, section: Section) -> int:
    """How many of the last blocks train or carry adapters."""
    return section.blocks or (1 if section.train == "last" else len(encoder.trunk.blocks))


def set_training(encoder: Encoder, section: Section, training: bool) -> None:
    """Switch what trains between its two modes; the rest is in eval mode in both."""
    encoder.eval()
    for part in parts(encoder, section):
        part.train(training)


def changed(encoder: Encoder) -> dict[str, Tensor]:
    """What training may have moved, under the names of a model folder; adapters as `NAME.lora_a` (rank, in) and `NAME.lora_b` (out, rank).

    `lora_b` has alpha / rank in it, so that the layer's weight is its old one + lora_b @ lora_a.
    """
    modules = dict(encoder.named_modules())
    found = {}
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        tensor = whole(parameter)
        adapter = ADAPTED.fullmatch(name)
        if adapter is None:
            found[name] = tensor
        elif adapter[2] == "A":
            found[f"{adapter[1]}.lora_a"] = tensor
        else:
            found[f"{adapter[1]}.lora_b"] = tensor * modules[adapter[1]].scaling["default"]
    return found


def whole(tensor: Tensor) -> Tensor:
    """A copy on the CPU; of a tensor that is shared out among processes, gathered. All processes must ask."""
    tensor = tensor.detach()
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.to("cpu", copy=True).contiguous()


def _adapt(encoder: Encoder, section: Section, seed: int) -> None:
    blocks = {name: module for name, module in encoder.trunk.named_modules() if isinstance(module, nn.Linear)}
    known = dict.fromkeys(name.rpartition(".")[2] for name in blocks)
    if missing := [target for target in section.targets if target not in known]:
        raise UserError(f"adapters for {missing[0]!r}: a block has {', '.join(known)}")
    first = len(encoder.trunk.blocks) - _blocks(encoder, section)
    names = [f"trunk.{name}" for name in blocks if int(name.split(".")[1]) >= first and name.rpartition(".")[2] in section.targets]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own and transformers' talk of versions
            from peft import LoraConfig, inject_adapter_in_model
    except (ImportError, OSError, RuntimeError) as error:  # it imports torchaudio, whose library may be built for another torch
        if find_spec("peft") is None:
            raise UserError("adapters need peft: pip install 'imagebind-cli[train]'") from None
        why = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(f"adapters need peft, whose import fails: {why[0]}; imagebind doctor says what does not fit") from None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=section.rank, lora_alpha=section.alpha, target_modules=names, bias="none")  # type: ignore[arg-type]
        inject_adapter_in_model(config, encoder)


def counts(encoder: nn.Module) -> Mapping[str, int]:
    """Parameters that train, and those that are frozen."""
    sizes = {True: 0, False: 0}
    for parameter in encoder.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    return {"trained": sizes[True], "frozen": sizes[False]}
