"""Train the mask network on mixtures of the recordings that are not held out.

    python recipes/separate/train.py FOLDER [--steps N] [--seed N] [--threads N]

FOLDER holds `data.safetensors` of prepare.py. The run keeps a checkpoint there and continues from it, to the bit; when all steps are done, it
writes `network.safetensors`, the mean of its latest weights. One thread needs the least processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mixtures import Batch, Drawing
from network import MaskNetwork, Shape, masks, read_tensor_file, save_network
from prepare import load
from torch import Tensor

from imagebind_cli import UserError
from imagebind_cli.files import locked
from imagebind_cli.training import OptimizerRecipe, rate_at
from imagebind_cli.weights.tensor_files import write_tensors

CHECKPOINT_EVERY = 100  # steps
AVERAGED = 0.998  # share of the mean weights that a step keeps; less in the first steps
FLOOR = 1e-3  # of the mixture's energy: errors 30 dB below it count no more
ABSENT_WEIGHT = 0.5  # of queries for what is not in the mixture
LARGEST_GRADIENT = 5.0


@dataclass(frozen=True)
class Settings:
    """The settings that the result depends on, besides the data."""

    steps: int = 4000
    batch: int = 16
    rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 100
    seed: int = 0
    width: int = 24


class Run:
    """A training run: the network, the mean of its weights, the optimizer, and how far it has come."""

    def __init__(self, settings: Settings, dim: int) -> None:
        torch.manual_seed(settings.seed)
        shape = Shape(dim, settings.width)
        self.settings, self.step, self.seconds, self.history = settings, 0, 0.0, list[dict[str, float]]()
        self.network, self.mean = MaskNetwork(shape), MaskNetwork(shape)
        self.mean.load_state_dict(self.network.state_dict())
        self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay)

    def learn(self, batch: Batch) -> float:
        """Take a step and return its loss: the mean over queries of the error's level in dB, below what they name."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate * rate_at(self.step, settings.steps, settings.warmup, OptimizerRecipe(final=0.01))
        shares = masks(self.network, batch.mixtures.abs().square(), batch.queries, torch.bfloat16)
        loss = error_level(shares * batch.mixtures[:, None], batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.step += 1
        self._average()
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        kept = min(AVERAGED, (1 + self.step) / (20 + self.step))
        for mean, now in zip(self.mean.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - kept)
            else:
                mean.copy_(now)

    def save(self, path: Path) -> None:
        """Write a checkpoint, all or nothing."""
        tensors = {f"network {name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"mean {name}": value for name, value in self.mean.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            tensors |= {f"{kind} {name}": value for kind, value in self.optimizer.state[parameter].items()}
        about = {"settings": asdict(self.settings), "step": self.step, "seconds": self.seconds, "history": self.history}
        write_tensors({name: value.contiguous().clone() for name, value in tensors.items()}, path, about)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            UserError: it is damaged, or of a run with other settings.
        """
        tensors, about = read_tensor_file(path)
        if about.get("settings") != asdict(self.settings):
            raise UserError(f"{path}: is of a run with other settings: {about.get('settings')}; delete it to begin anew")
        for name, network in (("network", self.network), ("mean", self.mean)):
            network.load_state_dict({key.removeprefix(f"{name} "): value for key, value in tensors.items() if key.startswith(f"{name} ")})
        for name, parameter in self.network.named_parameters():
            state = {kind: tensors[f"{kind} {name}"] for kind in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {
                kind: torch.empty_like(parameter).copy_(value) if value.dim() else value for kind, value in state.items()
            }
        self.step, self.seconds, self.history = about["step"], about["seconds"], about["history"]


def error_level(estimates: Tensor, batch: Batch) -> Tensor:
    """Compute the level of the estimates' error in dB: below the target's, or where the target is absent below the mixture's; the mean of all."""
    error = (estimates - batch.targets).abs().square().sum(dim=(2, 3))  # (b, 2)
    target = batch.targets.abs().square().sum(dim=(2, 3))
    mixture = batch.mixtures.abs().square().sum(dim=(1, 2))[:, None].expand_as(target)
    absent = target == 0
    level = 10 * torch.log10((error + FLOOR * mixture + 1e-6) / (torch.where(absent, mixture, target) + 1e-6))
    return (level * torch.where(absent, ABSENT_WEIGHT, 1.0)).mean()


def train(folder: Path, settings: Settings, report: Callable[[dict[str, Any]], None] = lambda record: None) -> Path:
    """Train, or continue, in a folder with data; return the network's file, which a finished run already has.

    Args:
        report: receives a record of each checkpoint: step, loss since the last one, processor minutes so far.
    Raises:
        UserError: there are no data, another run is at work in the folder, or its checkpoint is of other settings.
    """
    checkpoint, result = folder / "checkpoint.safetensors", folder / "network.safetensors"
    data = load(folder / "data.safetensors")
    with locked(folder / ".training.lock", f"{folder}: another training is at work there"):
        run = Run(settings, data.train.vectors.shape[1])
        if checkpoint.exists():
            run.restore(checkpoint)
        drawing, losses, began = Drawing(data, settings.batch, settings.seed), list[float](), time.process_time()
        while run.step < settings.steps:
            losses.append(run.learn(drawing.draw(run.step)))
            if run.step % CHECKPOINT_EVERY == 0 or run.step == settings.steps:
                run.seconds += time.process_time() - began
                began = time.process_time()
                run.history.append({"step": run.step, "loss": round(sum(losses) / len(losses), 4), "minutes": round(run.seconds / 60, 2)})
                run.save(checkpoint)
                report(run.history[-1])
                losses.clear()
        save_network(run.mean.eval(), result, {**data.about, "settings": asdict(settings), "history": run.history})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    def report(record: dict[str, Any]) -> None:
        progress = f"step {record['step']} of {given.steps}: loss {record['loss']:.2f} dB, {record['minutes']:.1f} processor minutes"
        print(f"train: {progress}", file=sys.stderr)

    try:
        print(train(given.folder, Settings(steps=given.steps, seed=given.seed), report))
    except UserError as error:
        sys.exit(f"train: {error}")
    except KeyboardInterrupt:
        print("train: stopped; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
