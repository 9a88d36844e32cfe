"""A training recipe: validated TOML, one section for each thing a run has to decide (ImageBind table 9 names most of them).

Every key has its default here and nowhere else. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from imagebind_cli.errors import UsageError, UserError

RECIPES = resources.files("imagebind_cli") / "recipes"

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of a recipe: frozen, and no key beyond its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Augment(Section):
    """How one modality's samples are varied, every time anew; nothing is, where this is left out.

    crop: smallest share of the area a random crop keeps (RandomResizedCrop's scale; its aspect ratio goes from 3/4 to 4/3); 1 for the middle.
    flip: chance of a mirror image. colour_jitter: brightness, contrast, saturation, hue. randaugment: [magnitude, deviation] of two
    random operations. erase: chance that a rectangle is erased. frequency_mask: widest band of mel bins that is masked (audio).
    turn: deviation, in degrees, of a random turn of the sensors' axes (IMU).
    """

    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: Share = 0.0
    colour_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    randaugment: tuple[float, float] | None = None
    erase: Share = 0.0
    frequency_mask: Annotated[int, Field(ge=0)] = 0
    turn: Annotated[float, Field(ge=0, le=180)] = 0.0


class Pair(Section):
    """Two modalities that are bound, the anchor first.

    data: manifests (JSONL, CSV, TSV), tar shards or prepared `.h5`, as paths or patterns. weight: share of the mini-batches, over all pairs'.
    batch: pairs in a mini-batch, over all processes. replicate: how often each pair comes in an epoch (ImageBind's sample replication).
    temperature: fixed, or what it starts from where it is learnt; no lower than 0.01. clip: largest norm of the gradient in this pair's steps,
    in place of the optimizer's. aligned: one crop, mirror and moment for both samples of a pair.
    views: 0 for fresh augmentation every time; K for K fixed views of each pair, which an anchor cache can hold.
    augment: by modality. options: how its files are read, by modality, as the flags of `embed`.
    """

    modalities: tuple[str, str]
    data: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    weight: Positive = 1.0
    batch: Count = 64
    replicate: Positive = 1.0
    temperature: Annotated[float, Field(ge=0.01)] = 0.07
    learn_temperature: bool = False
    clip: Positive | None = None
    loss: Literal["infonce", "sigmoid", "regression"] = "infonce"
    aligned: bool = True
    views: Annotated[int, Field(ge=0)] = 0
    augment: Mapping[str, Augment] = {}
    options: Mapping[str, Mapping[str, Any]] = {}

    @field_validator("modalities")
    @classmethod
    def _two(cls, modalities: tuple[str, str]) -> tuple[str, str]:
        if modalities[0] == modalities[1]:
            raise ValueError(f"two different modalities are bound to each other, not {modalities[0]} twice")
        return modalities

    @property
    def name(self) -> str:
        """As on the command line: `image-depth`."""
        return "-".join(self.modalities)


class Encoder(Section):
    """What of one encoder trains.

    train: the whole encoder, its head, low-rank adapters, the last `blocks` blocks with head, or nothing; where it is left out, nothing of an
    anchor, and all of what is bound to one.
    blocks: how many of the last blocks train or carry adapters; None for one with `last`, all with `lora`.
    lr, weight_decay: of this encoder, in place of the optimizer's.
    layer_decay: learning rate of a block over that of the block behind it. head: linear as published, or an MLP (the paper's ablation).
    rank, alpha, targets: of the adapters. init: weights to start from; fresh ones if `random`.
    drop_path, patch_dropout: over the model config's own.
    """

    train: Literal["all", "head", "lora", "last", "none"] | None = None
    blocks: Count | None = None
    lr: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    rank: Count = 8
    alpha: Positive = 16.0
    targets: tuple[str, ...] = ("qkv", "out")
    init: str | None = None
    drop_path: Share | None = None
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    head: Literal["linear", "mlp"] = "linear"


class ZeroShot(Section):
    """Classification by names, as a test of what was never paired: items of a modality with a `label` each, told apart by the names as text.

    data: a manifest with a column for the modality and `label`. templates: sentences with `{}` for the name; their vectors are averaged.
    """

    modality: str
    data: str
    templates: tuple[str, ...] = ("{}",)


class Optimizer(Section):
    """Peak learning rate, after `warmup` epochs from 0, then a cosine to `final` times the peak.

    name: `adamw`, or `muon` for the blocks' matrices with `momentum`, and AdamW for the rest.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 5e-4
    beta1: Share = 0.9
    beta2: Share = 0.95
    eps: Positive = 1e-8
    momentum: Share = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.2
    clip: Positive = 1.0
    warmup: Annotated[float, Field(ge=0)] = 2.0
    schedule: Literal["cosine", "constant"] = "cosine"
    final: Share = 0.0


class Run(Section):
    """How long, how, and what is written.

    epochs: passes over the first pair's replicated data. steps: in place of epochs. micro_batch: samples in memory at once (gradient
    caching); None for the whole batch. anchor_cache: store the frozen anchor's embeddings of a pair's fixed views and read them.
    checkpoint_minutes: by the clock. validate_every: steps; 0 for the end only. best: the metric that chooses the best checkpoint.
    """

    epochs: Positive = 10.0
    steps: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    micro_batch: Count | None = None
    chunk: Count = 1024
    anchor_cache: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = False
    compile: bool = False
    sharding: Literal["ddp", "fsdp"] = "ddp"
    workers: Annotated[int, Field(ge=0)] = 2
    checkpoint_minutes: Positive = 10.0
    validate_every: Annotated[int, Field(ge=0)] = 0
    best: str | None = None
    keep: Count = 1


class Recipe(Section):
    """A whole run. `model`: whose encoders and input sizes; `encoders`: by registry name, `none` trained for those left out but the non-anchors."""

    model: str = "huge"
    about: str = ""
    pairs: tuple[Pair, ...] = ()
    encoders: Mapping[str, Encoder] = {}
    zeroshot: tuple[ZeroShot, ...] = ()
    optimizer: Optimizer = Optimizer()
    run: Run = Run()

    @model_validator(mode="after")
    def _pairs_once(self) -> Recipe:
        names = [pair.name for pair in self.pairs]
        if len(set(names)) < len(names):
            raise ValueError("a pair stands twice; give it all its data at once")
        return self

    @model_validator(mode="after")
    def _whole_matrices(self) -> Recipe:
        if self.optimizer.name == "muon" and self.run.sharding == "fsdp":
            raise ValueError("optimizer.name = muon needs whole matrices, which run.sharding = fsdp cuts up; use ddp")
        return self


def names() -> list[str]:
    """The recipes in the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in RECIPES.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str | None, changes: Iterable[str] = (), **given: Any) -> Recipe:
    """A recipe from a TOML file, or one of `names()`, with changes laid over it.

    Args:
        changes: `optimizer.lr=1e-4`, `pairs.0.batch=512`: the path of a key, and a TOML value (a bare word is a string).
        given: top-level keys in place of the recipe's own.
    Raises:
        UserError: no such recipe, not TOML, an unknown key (with the nearest), a value that does not fit.
    """
    values: dict[str, Any] = {}
    if name is not None:
        path = Path(name)
        is_file, is_packaged = os.path.isfile(name), name in names()
        if not is_file and not is_packaged:
            near = difflib.get_close_matches(name, names(), n=1)
            raise UserError(
                f"no recipe {name!r}: no file, and none of {', '.join(names())}" + (f"; did you mean {near[0]}?" if near else "")
            )
        try:
            values = tomllib.loads((path if is_file else RECIPES / f"{name}.toml").read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{name}: not TOML: {error}") from None
    values |= {key: value for key, value in given.items() if value is not None}
    for change in changes:
        _change(values, change)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{name or 'recipe'}: {_told(error)}") from None


def _change(values: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    if not equals:
        raise UsageError(f"--set {change!r}: KEY=VALUE is needed, as in optimizer.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.split(".")
    place: Any = values
    try:
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (IndexError, ValueError, AttributeError, TypeError):
        raise UsageError(f"--set {change!r}: the recipe has no {path}") from None


def _told(error: ValidationError) -> str:
    """The first thing wrong, with the nearest known key where one is unknown."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg'].removeprefix('Value error, ')}" if place else first["msg"].removeprefix("Value error, ")
    last = str(first["loc"][-1])
    elsewhere = [f"{section}.{last}" for section, kind in (("run", Run), ("optimizer", Optimizer)) if last in kind.model_fields]
    known = {name for kind in (Recipe, Pair, Augment, Encoder, ZeroShot, Optimizer, Run) for name in kind.model_fields}
    near = elsewhere or difflib.get_close_matches(last, sorted(known), n=1, cutoff=0.5)  # as rl is to lr
    return f"unknown key {place!r}" + (f"; did you mean {near[0]!r}?" if near else "")
