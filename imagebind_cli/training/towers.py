"""Encoders as a run trains them: which parameters train, and how a step calls them on its device and processes.

Trained are a whole encoder, its head, its last blocks, or low-rank adapters (LoRA, arXiv 2106.09685, by `peft`). The rest is frozen and in
eval mode. The logit scale never trains here: the loss holds the pair's temperature. Processes share encoders by DDP or FSDP2's
`fully_shard`; a single process calls the encoder itself.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from imagebind_cli import libraries
from imagebind_cli.encoder import Encoder, text_lengths
from imagebind_cli.errors import UserError
from imagebind_cli.training.compute import actual_precision
from imagebind_cli.training.distributed import world
from imagebind_cli.training.recipe import EncoderRecipe, RecipeError, RunRecipe

ADAPTED = re.compile(r"(.+)\.lora_(A|B)\.default\.weight")
FEW_TOKENS = 64  # up to this many, on a CPU, plain matrix products take less than half the time of PyTorch's fused attention


@dataclass(frozen=True)
class Tower:
    """One encoder as a step calls it.

    call: turns inputs (b, *shape), on any device, into unit vectors (b, e) in float32. local: returns a context in which backward passes
    keep their gradients to this process, until one outside it exchanges them.
    """

    name: str
    encoder: Encoder
    recipe: EncoderRecipe
    device: torch.device
    call: Callable[[Tensor], Tensor]
    local: Callable[[], Any]

    @property
    def trained(self) -> bool:
        """Whether any of it trains."""
        return self.recipe.train != "none"

    def train(self) -> None:
        """Put the parts that train into training mode."""
        set_training(self.encoder, self.recipe, True)

    def eval(self) -> None:
        """Put the whole encoder into eval mode."""
        set_training(self.encoder, self.recipe, False)


def make_tower(name: str, encoder: Encoder, recipe: EncoderRecipe, run: RunRecipe, device: torch.device) -> Tower:
    """Move an encoder to its device, share it among the processes, and wrap it as a training step calls it.

    Args:
        name: the encoder's name, such as `vision`.
        encoder: parameters that train require gradients already.
        recipe: of this encoder; `train` other than "none" puts what trains into training mode.
        run: precision, compilation, checkpointing and sharding.
        device: of this process.
    Returns:
        The tower. `call` takes inputs (b, *shape) from any device and returns unit vectors (b, dim) in float32 on `device`.
    """
    encoder = encoder.to(device)
    if run.checkpointing and recipe.train != "none":
        for block in encoder.trunk.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if run.compile:
        for block in encoder.trunk.blocks:
            block.compile()
    inner: Callable[[Tensor], Tensor] = encoder
    local: Callable[[], Any] = nullcontext
    if world() > 1 and run.sharding == "fsdp":
        _shard(encoder, device)
        local = partial(_without_sync, encoder)
    elif world() > 1 and recipe.train != "none":
        inner = DistributedDataParallel(encoder, gradient_as_bucket_view=True)
        local = inner.no_sync
    bf16 = actual_precision(run, device) == "bf16"
    tokens = encoder.config.tokens * (1 - (recipe.patch_dropout or 0))
    plain = device.type == "cpu" and recipe.train != "none" and tokens <= FEW_TOKENS and not run.checkpointing and not run.compile

    def call(inputs: Tensor) -> Tensor:
        if (
            encoder.config.trunk.causal and encoder.config.vocabulary
        ):  # under the causal mask, nothing after the end token, which has the highest id, affects it
            inputs = inputs[:, : int(text_lengths(inputs, encoder.config).max())]
        inputs = inputs.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16), sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            return inner(inputs)

    tower = Tower(name, encoder, recipe, device, call, local)
    tower.train()
    return tower


def _shard(encoder: Encoder, device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (world(),))
    unsharded = {encoder.log_scale} if hasattr(encoder, "log_scale") else set()  # a single number cannot be sharded
    for block in encoder.trunk.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh, ignored_params=unsharded)


@contextmanager
def _without_sync(encoder: Any) -> Iterator[None]:
    encoder.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        encoder.set_requires_gradient_sync(True)


def set_trainable(encoder: Encoder, recipe: EncoderRecipe, seed: int) -> None:
    """Freeze an encoder except for what its recipe trains, and add its adapters.

    Raises:
        UserError: adapters for layers that it does not have, or `peft` is not installed.
    """
    encoder.requires_grad_(False)
    if recipe.train == "lora":
        _add_adapters(encoder, recipe, seed)
        return
    for part in trainable_parts(encoder, recipe):
        part.requires_grad_(True)
    if hasattr(encoder, "log_scale"):
        encoder.log_scale.requires_grad_(False)


def trainable_parts(encoder: Encoder, recipe: EncoderRecipe) -> list[nn.Module]:
    """Return the modules that are in training mode while the others are in eval mode."""
    last = list(encoder.trunk.blocks)[-_block_count(encoder, recipe) :]
    parts: dict[str, list[nn.Module]] = {"all": [encoder], "head": [encoder.head], "last": [*last, encoder.head], "lora": last, "none": []}
    return parts[recipe.train or "none"]


def _block_count(encoder: Encoder, recipe: EncoderRecipe) -> int:
    """Return how many of the last blocks train or carry adapters."""
    return recipe.blocks or (1 if recipe.train == "last" else len(encoder.trunk.blocks))


def set_training(encoder: Encoder, recipe: EncoderRecipe, training: bool) -> None:
    """Put what trains into training or eval mode; the rest is in eval mode in both cases."""
    encoder.eval()
    for part in trainable_parts(encoder, recipe):
        part.train(training)


def changed_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """Return the tensors that training may have changed, under the names of a model folder.

    Adapters are `NAME.lora_a` (rank, in) and `NAME.lora_b` (out, rank). `lora_b` includes alpha / rank, so that the layer's weight is its old
    one + lora_b @ lora_a.
    """
    modules = dict(encoder.named_modules())
    tensors = {}
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        tensor = gather_tensor(parameter)
        adapter = ADAPTED.fullmatch(name)
        if adapter is None:
            tensors[name] = tensor
        elif adapter[2] == "A":
            tensors[f"{adapter[1]}.lora_a"] = tensor
        else:
            tensors[f"{adapter[1]}.lora_b"] = tensor * modules[adapter[1]].scaling["default"]
    return tensors


def gather_tensor(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU; one that is sharded among processes is gathered first. All processes must call."""
    tensor = tensor.detach()
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.to("cpu", copy=True).contiguous()


def _add_adapters(encoder: Encoder, recipe: EncoderRecipe, seed: int) -> None:
    layers = {name: module for name, module in encoder.trunk.named_modules() if isinstance(module, nn.Linear)}
    ends = {target: f".{target}" for target in recipe.targets}
    if missing := [target for target, end in ends.items() if not any(name.endswith(end) for name in layers)]:
        known = dict.fromkeys(name.split(".", 2)[2] for name in layers)  # blocks.N.time.attn.qkv: time.attn.qkv
        raise RecipeError("encoders", f"adapters for {missing[0]!r}: a block has {', '.join(known)}")
    first = len(encoder.trunk.blocks) - _block_count(encoder, recipe)
    targets = [f"trunk.{name}" for name in layers if int(name.split(".")[1]) >= first and name.endswith(tuple(ends.values()))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own and transformers', about versions
        if fault := libraries.import_fault("peft"):  # it imports torchaudio, whose library may be built for another PyTorch
            if find_spec("peft") is None:
                raise UserError("adapters need peft: pip install 'imagebind-cli[train]'")
            raise UserError(f"adapters need peft, but {fault}; run `imagebind doctor` to see which packages do not fit")
        from peft import LoraConfig, inject_adapter_in_model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, bias="none")  # type: ignore[arg-type]
        inject_adapter_in_model(config, encoder)


def parameter_counts(encoder: nn.Module) -> Mapping[str, int]:
    """Count the parameters that are `trained` and those that are `frozen`."""
    sizes = {True: 0, False: 0}
    for parameter in encoder.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    return {"trained": sizes[True], "frozen": sizes[False]}
