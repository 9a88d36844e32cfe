"""The run folder: what the run is, its checkpoints, and the model it publishes.

`run.json` names the recipe, data and weights of the run; a folder continues only with the same. A checkpoint holds everything the next step
depends on, in one safetensors file that is complete or absent: `weights/NAME` of what trains, and AdamW's `exp_avg/NAME`, `exp_avg_sq/NAME`,
`step/NAME` or Muon's `momentum_buffer/NAME`. Tensors are whole even where processes shard them, so that a run may continue with another
number of processes. Its metadata is the `Progress`. Randomness needs no state: it follows from the seed and the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from imagebind_cli import registry
from imagebind_cli.checksums import DAMAGE
from imagebind_cli.documents import read_sealed_object
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.files import write_sealed_json
from imagebind_cli.fingerprint import is_earlier
from imagebind_cli.training.augment import RULES
from imagebind_cli.training.distributed import rank
from imagebind_cli.training.inputs import is_vector_file
from imagebind_cli.training.optimizer import Optimizers
from imagebind_cli.training.plan import Plan, encoder_recipes
from imagebind_cli.training.recipe import Recipe, keys_without_effect
from imagebind_cli.training.start import Components
from imagebind_cli.training.teachers import shares_space, teacher_record
from imagebind_cli.training.towers import changed_tensors, gather_tensor
from imagebind_cli.weights import run_folder
from imagebind_cli.weights.find import find_checkpoint
from imagebind_cli.weights.run_folder import CHECKPOINTS, RUN, checkpoint_path, checkpoints
from imagebind_cli.weights.tensor_files import differing_tensors, read_about, write_tensors

# -- what the run is


def check_folder(folder: Path, plan: Plan) -> None:
    """Check that a folder can take this run: it is new or empty, or holds the same run.

    Raises:
        UserError: it holds another run, whose difference is named, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a run needs a folder")
    if (folder / RUN).exists():
        _compare(folder, _description(plan))
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and is not a run folder; choose another --out")


def record_run(folder: Path, plan: Plan, components: Components) -> None:
    """Write `run.json`, or compare recipe, data and initial weights with it.

    Raises:
        UserError: they differ.
    """
    weights = {name: dict(initial.base) if initial.base else "fresh" for name, initial in components.initial.items()}
    teachers = {
        pair.name: teacher_record(pair, plan.data, number) for number, pair in enumerate(plan.recipe.pairs) if pair.teacher is not None
    }
    description = _description(plan) | {"weights": weights} | ({"teachers": teachers} if teachers else {})
    if (folder / RUN).exists():
        _compare(folder, description)
    elif rank() == 0:
        write_sealed_json(folder / RUN, description)


def recorded_threads(folder: Path) -> int | None:
    """Return the number of threads a run on a CPU was begun with, if it is recorded."""
    threads = read_sealed_object(folder / RUN).get("threads")
    if threads is not None and not (isinstance(threads, int) and 0 < threads < 1 << 16):
        raise UserError(f"{folder / RUN}: threads is {threads!r}, which is not a number of threads")
    return threads


def record_threads(folder: Path, count: int) -> None:
    """Record the number of threads of a run on a CPU."""
    write_sealed_json(folder / RUN, read_sealed_object(folder / RUN) | {"threads": count})


def _description(plan: Plan) -> dict[str, Any]:
    data = {
        pair.name: {
            "pairs": plan.data.counts[number],
            "groups": int(plan.data.groups(number).bincount().count_nonzero()),
            "rows": plan.data.reader(number).rows.digest(),
        }
        for number, pair in enumerate(plan.recipe.pairs)
    }
    augmented = any(pair.augment or pair.anchor.blind for pair in plan.recipe.pairs)
    return {"recipe": plan.recipe.model_dump(mode="json"), "data": data, "augmentation": RULES if augmented else None}


def _compare(folder: Path, description: Mapping[str, Any]) -> None:
    recorded = read_sealed_object(folder / RUN)
    recorded["recipe"] = _with_defaults(recorded.get("recipe"))
    saved = bool(checkpoints(folder))
    remedy = "choose another --out" if saved else "it has saved no step yet: delete it, or choose another --out"
    before, now = (dict(_flat({key: values[key] for key in description if key in values}, "")) for values in (recorded, description))
    irrelevant = {f"recipe.{key}" for key in keys_without_effect()}
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) != now.get(key) and key not in irrelevant:
            if key == "augmentation":
                raise UserError(f"{folder} was begun by a version of imagebind with other augmentations; {remedy}")
            had, has = before.get(key, "nothing"), now.get(key, "nothing")
            if key.startswith("weights.") and is_earlier(had):
                raise UserError(
                    f"{folder} was begun by an earlier version of imagebind, whose fingerprints of weights cannot be compared; "
                    f"if the weights are still the same, replace {had!r} with {has!r} in its {RUN}, else {remedy}"
                )
            raise UserError(f"{folder} was begun with {key.removeprefix('recipe.')} = {had}, not {has}; {remedy}")


def _with_defaults(recipe: Any) -> Any:
    """Add the keys that recipes have gained since this one was recorded, with their defaults."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:  # recorded by a version with other keys: the comparison names the first
        return recipe


def _flat(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield `a.0.b` and its value, for every value in nested tables and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        yield place, value
        return
    for key, below in entries:
        yield from _flat(below, f"{place}.{key}" if place else str(key))


# -- checkpoints


@dataclass
class Progress:
    """The progress of a run.

    step: steps done. broken: number of steps skipped in a row up to now. validated: step of the last validation. best, best_step: of the
    score that `run.best` names. metrics_bytes: length of `metrics.jsonl`; metrics_crc32: its checksum, 0 in one of an earlier version.
    finished: nothing is left to do.
    """

    step: int = 0
    broken: int = 0
    validated: int = -1
    best: float | None = None
    best_step: int | None = None
    metrics_bytes: int = 0
    metrics_crc32: int = 0
    finished: bool = False


def save_checkpoint(folder: Path, progress: Progress, trained: nn.Module, optimizer: Optimizers, keep: int = 1) -> None:
    """Write a checkpoint, then delete all but the newest `keep`. All processes must call; the first one writes."""
    tensors = {}
    for name, parameter in _trained_parameters(trained):
        tensors[f"weights/{name}"] = gather_tensor(parameter)
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = gather_tensor(tensor)
    if rank():
        return
    path = checkpoint_path(folder, progress.step)
    path.parent.mkdir(exist_ok=True)
    write_tensors(tensors, path, {"progress": asdict(progress)})
    for old in checkpoints(folder)[keep:]:
        if old != path:
            old.unlink()


def restore_checkpoint(folder: Path, trained: nn.Module, optimizer: Optimizers) -> Progress:
    """Restore weights and optimizer from the newest checkpoint that can be read, and return its progress; step 0 without checkpoints.

    Raises:
        UserError: there are checkpoints and none can be read, or it is damaged, or of other weights.
    """
    paths = checkpoints(folder)
    for path in paths:
        read = _read_checkpoint(path)
        if read is not None:
            progress, tensors = read
            _apply(path, tensors, trained, optimizer)
            return progress
    if paths:
        raise UserError(f"{folder / CHECKPOINTS}: none of its checkpoints can be read; delete it to start again")
    return Progress()


def read_progress(folder: Path) -> Progress:
    """Return the progress of the run in `folder`, by its newest checkpoint that can be read; step 0 without one."""
    return next((read[0] for path in checkpoints(folder) if (read := _read_checkpoint(path)) is not None), Progress())


def _read_checkpoint(path: Path) -> tuple[Progress, dict[str, Tensor]] | None:
    """Read a checkpoint; None for one that is torn.

    Raises:
        UserError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress, damaged = Progress(**run_folder.saved_progress(metadata)), differing_tensors(tensors, read_about(metadata))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        if not str(error).startswith(DAMAGE):
            return None
        damaged = ["its metadata"]
    if damaged:
        advice = "delete it to continue from the one before it, or from the start"
        raise UserError(f"{path}: damaged: {damaged[0]} does not match its checksum; {advice}")
    return progress, tensors


def _apply(path: Path, tensors: dict[str, Tensor], trained: nn.Module, optimizer: Optimizers) -> None:
    parameters = dict(_trained_parameters(trained))
    names = {name.partition("/")[2] for name in tensors}
    if names != set(parameters):
        difference = sorted(names ^ set(parameters))
        raise UserError(f"{path}: saved with other weights: {difference[0]} is not in both")
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        if kind == "weights":
            with torch.no_grad():
                parameter.copy_(_distributed_like(tensor, parameter))
        else:
            optimizer.state[parameter][kind] = tensor if kind == "step" else _distributed_like(tensor, parameter)


def _distributed_like(tensor: Tensor, like: Any) -> Tensor:
    """Move a whole tensor to the device of another, and shard it among the processes like that one."""
    if not hasattr(like, "device_mesh"):
        return tensor.to(like.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _trained_parameters(trained: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in trained.named_parameters() if parameter.requires_grad)


# -- the published model


def publish_model(folder: Path, plan: Plan, components: Components, step: int) -> None:
    """Make the run folder the model of this step: only what training changed. All processes must call; the first one writes."""
    tensors = {name: _model_tensors(name, plan, components) for name in components.towers}
    if rank():
        return
    recipe = plan.recipe
    others = companion_encoders(recipe, plan.config.dim)
    teachers = {pair.name: pair.teacher.model for pair in recipe.pairs if pair.teacher}
    bases = {name: initial.base for name, initial in components.initial.items() if initial.base}
    bases |= {name: base for name, (_, base) in others.items()}
    sources = [*(name for name in teachers.values() if not is_vector_file(name)), *(base["model"] for base in bases.values())]
    configs = {name: plan.config.encoders[name] for name in components.towers} | {name: encoder for name, (encoder, _) in others.items()}
    config = replace(
        plan.config,
        name=folder.resolve().name,
        about=f"{', '.join(pair.name for pair in recipe.pairs)} {_how(teachers)} for {step:,} steps from {recipe.model}",
        licence=combined_licence(sources),
        address=None,
        rule_seed=None,
        origin={"trained": [pair.name for pair in recipe.pairs], "steps": step, "version": metadata.version("imagebind-cli")}
        | ({"teachers": teachers} if teachers else {}),
        encoders=configs,
        bases={
            name: {"model": run_folder.base_reference(base["model"], folder), "weights": base["weights"]}
            for name, base in bases.items()
            if name not in components.initial or not components.initial[name].is_fresh  # else all of its tensors are here
        },
        trained_on={name: seen for name, base in bases.items() if (seen := find_checkpoint(base["model"]).config.trained_on.get(name))},
    )
    run_folder.write_run_model(folder, config, {name: changed for name, changed in tensors.items() if changed}, step)


def _model_tensors(name: str, plan: Plan, components: Components) -> dict[str, Tensor]:
    """Return the tensors of an encoder that are in no other model: what trains, what was fresh, and the temperature of its pair."""
    tower = components.towers[name]
    state = {key.replace(".base_layer.", "."): tensor for key, tensor in tower.encoder.state_dict().items()}
    tensors = {key: gather_tensor(state[key]) for key in sorted(components.initial[name].fresh)}
    tensors |= changed_tensors(tower.encoder)
    bound = [number for number, pair in enumerate(plan.recipe.pairs) if registry.face(pair.modalities[1]).encoder == name]
    if tower.trained and bound and plan.recipe.pairs[bound[0]].teacher is None and "log_scale" in state:
        tensors["log_scale"] = gather_tensor(components.loss(bound[0]).log_scale)
    return tensors


def _how(teachers: Mapping[str, str]) -> str:
    return f"taught by {', '.join(dict.fromkeys(Path(name).name for name in teachers.values()))}" if teachers else "trained"


def companion_encoders(recipe: Recipe, dim: int) -> dict[str, tuple[EncoderConfig, Mapping[str, str]]]:
    """Return the encoders that share the run's space without being needed by it: config, and model with fingerprint.

    The space is that of the frozen encoders, so the other encoders of their models belong to it; with none frozen, those of the recipe's
    model. A student shares its teacher's space, unless the teacher's vectors were made shorter. A model without trained weights has none.
    dim: of the space.
    """
    encoders = encoder_recipes(recipe)
    models = {table.init or recipe.model for table in encoders.values() if table.train == "none"}
    students = [pair for pair in recipe.pairs if pair.teacher]
    models |= {pair.teacher.model for pair in students if pair.teacher and shares_space(pair, dim)}
    models = models or (set() if students else {recipe.model})
    companions: dict[str, tuple[EncoderConfig, Mapping[str, str]]] = {}
    for name in sorted(models):
        try:
            found = find_checkpoint(name)
        except UserError:
            continue
        if not found.untrained:
            for other, config in found.config.encoders.items():
                if other not in encoders:
                    companions[other] = config, {"model": name, "weights": found.fingerprint(other)}
    return companions


def combined_licence(models: Iterable[str]) -> str | None:
    """Return the licences of all models that a run began from; None where none is stated."""
    licences = dict.fromkeys(find_checkpoint(name).config.licence for name in models)
    return " and ".join(licence for licence in licences if licence) or None
