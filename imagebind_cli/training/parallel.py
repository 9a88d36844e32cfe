"""The processes of a run, started by `torchrun`, and an encoder as they share it: DDP, or FSDP2's `fully_shard`; compiled, checkpointed if asked.

Nothing here is home-made: one process calls the encoder itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from imagebind_cli.encoder import Encoder
from imagebind_cli.training.gather import world
from imagebind_cli.training.precision import precision
from imagebind_cli.training.recipe import Encoder as Section
from imagebind_cli.training.recipe import Run
from imagebind_cli.training.trainable import set_training

FEW_TOKENS = 64
"""Up to so many, and on a CPU, attention as plain matrix products takes less than half the time of PyTorch's fused one, backwards above all."""


@contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes of a `torchrun`, if there are any; this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Tower:
    """One encoder as a step calls it.

    call: inputs (b, *shape), wherever they lie, to unit vectors (b, e) in float32, computed in `precision`. local: a context in which
    backward passes keep their gradients to this process, until one outside it exchanges them.
    """

    name: str
    encoder: Encoder
    section: Section
    device: torch.device
    call: Callable[[Tensor], Tensor]
    local: Callable[[], Any]

    @property
    def trained(self) -> bool:
        """Whether any of it trains."""
        return self.section.train != "none"

    def train(self) -> None:
        """Training mode, for what trains."""
        set_training(self.encoder, self.section, True)

    def eval(self) -> None:
        """Eval mode, for all of it."""
        set_training(self.encoder, self.section, False)


def make_tower(name: str, encoder: Encoder, section: Section, run: Run, device: torch.device) -> Tower:
    """Move an encoder to its device, share it among the processes, and wrap it as a training step calls it.

    Args:
        name: the encoder's name, such as `vision`.
        encoder: parameters that train require gradients already.
        section: what the recipe says of this encoder; `train` other than "none" puts what trains into training mode.
        run: precision, compilation, checkpointing and sharding.
        device: of this process.
    Returns:
        The tower. `call` takes inputs (b, *shape) from any device and gives unit vectors (b, dim) in float32 on `device`.
    """
    encoder = encoder.to(device)
    if run.checkpointing and section.train != "none":
        for block in encoder.trunk.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if run.compile:
        for block in encoder.trunk.blocks:
            block.compile()
    inner: Callable[[Tensor], Tensor] = encoder
    local: Callable[[], Any] = nullcontext
    if world() > 1 and run.sharding == "fsdp":
        _shard(encoder, device)
        local = partial(_unexchanged, encoder)
    elif world() > 1 and section.train != "none":
        inner = DistributedDataParallel(encoder, gradient_as_bucket_view=True)
        local = inner.no_sync
    bf16 = precision(run, device) == "bf16"
    kept = encoder.config.tokens * (1 - (section.patch_dropout or 0))
    plain = device.type == "cpu" and section.train != "none" and kept <= FEW_TOKENS and not run.checkpointing and not run.compile

    def call(inputs: Tensor) -> Tensor:
        if encoder.config.vocabulary:  # under the causal mask nothing behind the end token, which has the highest id, reaches it
            inputs = inputs[:, : int(inputs.argmax(dim=1).max()) + 1]
        inputs = inputs.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16), sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            return inner(inputs)

    tower = Tower(name, encoder, section, device, call, local)
    tower.train()
    return tower


def _shard(encoder: Encoder, device: torch.device) -> None:
    mesh = init_device_mesh(device.type, (world(),))
    alone = {encoder.log_scale} if hasattr(encoder, "log_scale") else set()  # a single number cannot be shared out
    for block in encoder.trunk.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh, ignored_params=alone)


@contextmanager
def _unexchanged(encoder: Any) -> Iterator[None]:
    encoder.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        encoder.set_requires_gradient_sync(True)
