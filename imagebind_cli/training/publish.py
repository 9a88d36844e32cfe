"""A run's weights of now as a model that the other commands take: only what training changed, in the run's own folder."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

from torch import Tensor

from imagebind_cli import registry
from imagebind_cli.training.gather import rank
from imagebind_cli.training.setup import Design, Machinery
from imagebind_cli.training.start import licences, untouched
from imagebind_cli.training.trainable import changed, whole
from imagebind_cli.weights import run_folder
from imagebind_cli.weights.find import find_checkpoint


def publish(folder: Path, plan: Design, machinery: Machinery, step: int) -> None:
    """Make the run folder the model of this step. All processes must call; the first one writes."""
    tensors = {name: _tensors(name, plan, machinery) for name in machinery.towers}
    if rank():
        return
    recipe = plan.recipe
    others = untouched(recipe)
    bases = {name: start.base for name, start in machinery.starts.items() if start.base} | {
        name: base for name, (_, base) in others.items()
    }
    config = replace(
        plan.config,
        name=folder.resolve().name,
        about=f"{', '.join(pair.name for pair in recipe.pairs)} trained for {step:,} steps from {recipe.model}",
        licence=licences(base["model"] for base in bases.values()),
        address=None,
        rule_seed=None,
        origin={"trained": [pair.name for pair in recipe.pairs], "steps": step, "version": metadata.version("imagebind-cli")},
        encoders={name: plan.config.encoders[name] for name in machinery.towers} | {name: encoder for name, (encoder, _) in others.items()},
        bases={name: {**base, "model": run_folder.base_reference(base["model"], folder)} for name, base in bases.items()},
        trained_on={name: seen for name, base in bases.items() if (seen := find_checkpoint(base["model"]).config.trained_on.get(name))},
    )
    run_folder.write_run_model(folder, config, {name: own for name, own in tensors.items() if own}, step)


def _tensors(name: str, plan: Design, machinery: Machinery) -> dict[str, Tensor]:
    """What of an encoder is in no model: what trains, what began fresh, and the temperature it was bound with."""
    tower = machinery.towers[name]
    state = {key.replace(".base_layer.", "."): tensor for key, tensor in tower.encoder.state_dict().items()}
    found = {key: whole(state[key]) for key in sorted(machinery.starts[name].fresh)}
    found |= changed(tower.encoder)
    bound = [
        loss for pair, loss in zip(plan.recipe.pairs, machinery.losses, strict=True) if registry.encoder_name(pair.modalities[1]) == name
    ]
    if tower.trained and bound and "log_scale" in state:
        found["log_scale"] = whole(bound[0].log_scale)  # type: ignore[arg-type]
    return found
