"""One of several processes of tests/training/test_distributed.py: everything that is compared with a single process, in one start of PyTorch.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=29500 python -m tests.ranks FOLDER

Each process writes what it has to FOLDER/RANK.safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.training import distributed
from imagebind_cli.training import folder as run_folder
from imagebind_cli.training.data import Batch
from imagebind_cli.training.distributed import join_processes
from imagebind_cli.training.loss import PairLoss, has_negatives
from imagebind_cli.training.optimizer import clip_gradients, make_optimizer
from imagebind_cli.training.recipe import EncoderRecipe, OptimizerRecipe, PairRecipe, RunRecipe
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.training.step import compute_gradients
from imagebind_cli.training.towers import Tower, gather_tensor, make_tower, set_trainable
from imagebind_cli.transformer import TrunkConfig

ROWS = 12  # two and three processes share them evenly
GROUPS = torch.tensor([0, 1, 2, 0, 4, 5, 6, 7, 8, 1, 2, 11])
KINDS = ("infonce", "sigmoid", "regression")
STEPS = 2
TRUNK = TrunkConfig(width=16, layers=2, heads=2, bias_kv=True)
CONFIGS = {
    "depth": EncoderConfig(dim=8, shape=(1, 32, 32), trunk=TRUNK, patch=(16, 16), stride=(16, 16), stem_norm_eps=1e-5, scale=5.0),
    "imu": EncoderConfig(dim=8, shape=(6, 64), trunk=TRUNK, patch=(8,), stride=(8,), stem_norm_eps=1e-5, scale=5.0),
}


def part(tensor: Tensor) -> Tensor:
    """This process's rows."""
    return tensor.chunk(distributed.world())[distributed.rank()]


def unit_rows(seed: int) -> Tensor:
    rows = torch.randn(ROWS, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(rows, dim=1)


def make_loss(kind: str = "infonce", chunk: int = 1024) -> PairLoss:
    return PairLoss(PairRecipe(modalities=("depth", "imu"), loss=kind, learn_temperature=kind != "regression"), chunk).double()


def make_towers(run: RunRecipe, **choices: object) -> tuple[Tower, Tower]:
    """In float64: what differs by more than rounding is another algorithm."""
    towers = []
    for name, config in CONFIGS.items():
        encoder = encoder_with(name, config, fresh_weights(name, config, seed=3)).double()
        section = EncoderRecipe(train="all", **choices)
        set_trainable(encoder, section, seed=0)
        towers.append(make_tower(name, encoder, section, run, torch.device("cpu")))
    return towers[0], towers[1]


def make_batch(step: int = 0) -> Batch:
    random = torch.Generator().manual_seed(step)
    inputs = (torch.randn(ROWS, *config.shape, dtype=torch.float64, generator=random) for config in CONFIGS.values())
    anchor, other = (part(tensor) for tensor in inputs)
    numbers = part(torch.arange(ROWS)).tolist()
    return Batch(0, tuple(f"sample {number}" for number in numbers), part(GROUPS), (anchor, other))


def of_losses() -> dict[str, Tensor]:
    """The gradient of the whole batch's mean loss: this process's rows, and the temperature's."""
    found = {}
    for kind in KINDS:
        for chunk in (2, 1024):
            anchor, other = (part(unit_rows(seed)).requires_grad_() for seed in (0, 1))
            loss = make_loss(kind, chunk)
            value = loss(anchor, other, part(GROUPS))
            value.backward()
            place = f"{kind} in chunks of {chunk}"
            found[f"{place}: loss"] = distributed.mean_over_processes(value)
            found[f"{place}: anchor"], found[f"{place}: other"] = anchor.grad / distributed.world(), other.grad / distributed.world()
            if kind != "regression":
                found[f"{place}: log_scale"] = distributed.mean_over_processes(loss.log_scale.grad)
    found["negatives"] = torch.tensor(
        [
            has_negatives(part(GROUPS)),
            has_negatives(part(torch.arange(distributed.world()).repeat_interleave(ROWS // distributed.world()))),
            has_negatives(part(torch.zeros(ROWS, dtype=torch.int64))),
        ]
    )
    return found


def of_steps(run: RunRecipe, micro_batch: int | None, folder: Path | None = None) -> dict[str, Tensor]:
    """Gradients of a first step, and weights after some; a checkpoint of them, if asked."""
    towers, loss = make_towers(run), make_loss()
    encoders = nn.ModuleDict({tower.name: tower.encoder for tower in towers})
    losses = nn.ModuleList([loss])
    adamw = make_optimizer(encoders, {tower.name: tower.recipe for tower in towers}, losses, OptimizerRecipe(lr=1e-3))
    found = {}
    for step in range(STEPS):
        outcome = compute_gradients(towers, loss, make_batch(step), 7, step, micro_batch)
        if step == 0:
            trained = [*encoders.named_parameters(), ("log_scale", loss.log_scale)]
            found |= {f"gradient {name}": gather_tensor(own.grad) for name, own in trained if own.grad is not None}
            found |= {
                "loss": torch.tensor(outcome.loss),
                "alignment": torch.tensor(outcome.alignment),
                "spread": torch.tensor(outcome.spread),
            }
        found[f"norm {step}"] = torch.tensor(clip_gradients(([*encoders.parameters()], [*losses.parameters()]), 1.0))
        adamw.step()
        adamw.zero_grad()
    found |= {f"weight {name}": gather_tensor(own) for name, own in encoders.named_parameters()} | {"scale": loss.log_scale.detach()}
    if folder is not None:
        folder.mkdir(exist_ok=True)
        run_folder.save_checkpoint(folder, run_folder.Progress(step=STEPS), nn.ModuleDict({"encoders": encoders, "losses": losses}), adamw)
        distributed.barrier()
        again, other_loss = make_towers(run), make_loss()
        restored = nn.ModuleDict(
            {"encoders": nn.ModuleDict({tower.name: tower.encoder for tower in again}), "losses": nn.ModuleList([other_loss])}
        )
        adamw = make_optimizer(
            restored["encoders"], {tower.name: tower.recipe for tower in again}, restored["losses"], OptimizerRecipe(lr=1e-3)
        )
        run_folder.restore_checkpoint(folder, restored, adamw)
        compute_gradients(again, other_loss, make_batch(STEPS), 7, STEPS, micro_batch)
        adamw.step()
        found |= {f"went on {name}": gather_tensor(own) for name, own in restored["encoders"].named_parameters()}
    return found


def not_finite() -> list[str]:
    """The ids that a step names when the last process's last sample has no numbers."""
    batch = make_batch()
    if distributed.rank() == distributed.world() - 1:
        batch.inputs[1][-1] = torch.nan
    return list(compute_gradients(make_towers(RunRecipe()), make_loss(), batch, 7, 0, 2).not_finite)


def everything(folder: Path) -> dict[str, Tensor]:
    found = of_losses()
    for name, run, micro_batch in (
        ("ddp", RunRecipe(), None),
        ("ddp cached", RunRecipe(), 2),
        ("fsdp cached", RunRecipe(sharding="fsdp"), 2),
    ):
        own = of_steps(run, micro_batch, folder / name if micro_batch else None)
        found |= {f"{name}: {key}": tensor for key, tensor in own.items()}
    assert not_finite() == [f"sample {ROWS - 1}"]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join_processes(torch.device("cpu")):
        tensors = everything(Path(sys.argv[1]))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, Path(sys.argv[1]) / f"{distributed.rank()}.safetensors")
