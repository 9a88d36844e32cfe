"""A training recipe: validated TOML, one table for each thing a run has to decide (ImageBind table 9 names most of them).

Every key has its default here and nowhere else. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from imagebind_cli.errors import UserError

ROW_COLUMNS = ("id", "group", "start", "end")  # of a manifest, besides one column for each modality

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class RecipeError(UserError):
    """A setting that does not fit the others or the model. key: where it is, with a pair by its name: `pairs.image-depth.augment`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class LossTraits:
    """The properties of a training loss that other files need. `loss.PairLoss` computes the loss.

    `PairLoss` has a case for a loss that has parameters of its own or needs no other pairs, and one where it scores rows.

    negatives: it compares a pair with the other pairs of its batch. guessing: it is near ln(batch) where nothing is learnt.
    """

    negatives: bool = True
    guessing: bool = False


LOSSES = {"infonce": LossTraits(guessing=True), "sigmoid": LossTraits(), "regression": LossTraits(negatives=False)}
DISTILLATION = LossTraits(negatives=False)  # of a pair with a teacher, whatever its weights
# What an anchor can be made blind to; `blindness` has a function for each.
BLIND = ("colour", "scale", "mirror", "background")
NO_EFFECT = "no effect on the result"  # marks a key that another run of the same folder may change
MOVES_PIXELS = "moves pixels"  # marks an augmentation that must be the same for both pictures of an aligned pair
STUDENT_ALONE = "the student alone"  # marks an augmentation that a teacher does not see, although it sees the student's views


def _check_loss(name: str) -> str:
    if name not in LOSSES:
        *others, last = map(repr, LOSSES)
        raise ValueError(f"Input should be {', '.join(others)} or {last}")
    return name


def _check_blind(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in BLIND:
            raise ValueError(f"unknown {name!r}; choose from {', '.join(BLIND)}")
    if len(set(names)) < len(names):
        raise ValueError("a name is listed twice")
    return names


class RecipeTable(BaseModel):
    """One table of a recipe: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentRecipe(RecipeTable):
    """The augmentation of one modality's samples, drawn again for each sample; the defaults change nothing.

    crop: smallest fraction of the area that a random crop keeps (RandomResizedCrop's scale; aspect ratio 3/4 to 4/3); 1 for the centre crop.
    interpolation: how a crop is resized. flip: probability of mirroring. colour_jitter: for brightness, contrast, saturation and hue.
    randaugment: [magnitude, deviation] of two random operations. erase: probability of erasing a rectangle.
    recolour: probability of random colours: mixed channels or grey, another contrast and brightness (colour pictures).
    frequency_mask: largest number of mel bins to mask (audio).
    turn: standard deviation, in degrees, of a random rotation of the sensor axes (IMU).
    Mark a new one with `MOVES_PIXELS` or `STUDENT_ALONE` where that is so.
    """

    crop: Annotated[float, Field(gt=0, le=1), MOVES_PIXELS] = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: Annotated[Fraction, MOVES_PIXELS] = 0.0
    colour_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    randaugment: Annotated[tuple[float, float] | None, MOVES_PIXELS] = None
    erase: Fraction = 0.0
    recolour: Annotated[Fraction, STUDENT_ALONE] = 0.0
    frequency_mask: Annotated[int, Field(ge=0)] = 0
    turn: Annotated[float, Field(ge=0, le=180)] = 0.0

    @classmethod
    def marked(cls, mark: str) -> tuple[str, ...]:
        """Return the names of the augmentations with a mark."""
        return tuple(name for name, entry in cls.model_fields.items() if mark in entry.metadata)


class AnchorRecipe(RecipeTable):
    """The part of a frozen, cached anchor that the other modality cannot perceive (docs/blind-anchor.md).

    blind: names of `BLIND`; a target is the mean of the anchor's own unit vectors over such changes, made unit again. variants: how many
    vectors are averaged, that of the unchanged sample among them.
    """

    blind: Annotated[tuple[str, ...], AfterValidator(_check_blind)] = ()
    variants: Annotated[int, Field(ge=2)] = 9


class TeacherRecipe(RecipeTable):
    """The teacher that takes the place of a pair's anchor (docs/distil.md).

    model: a model of any family, or vectors by id: a store, or an array `.npy` with its ids in `.txt`, a line each.
    sees: the `whole` sample, once, or its fixed `views`, the same as the student.
    cosine, relational, infonce: weights of the losses. directions: how its vectors become as short as the student's: along their
    `principal` directions, each divided by the root of its deviation (`balanced`) or by its deviation (`whitened`). None for no change, or
    `principal` where the student's space is smaller.
    """

    model: str
    sees: Literal["whole", "views"] = "whole"
    cosine: Annotated[float, Field(ge=0)] = 1.0
    relational: Annotated[float, Field(ge=0)] = 0.0
    infonce: Annotated[float, Field(ge=0)] = 0.0
    directions: Literal["principal", "balanced", "whitened"] | None = None

    @model_validator(mode="after")
    def _some_loss(self) -> TeacherRecipe:
        if not self.weights:
            raise ValueError("all of its losses have weight 0; give cosine, relational or infonce a weight")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The losses with a weight above 0, with their weights."""
        return {name: weight for name in ("cosine", "relational", "infonce") if (weight := getattr(self, name))}


class PairRecipe(RecipeTable):
    """Two modalities to bind, the anchor first, with their data, loss and augmentation; or one modality, twice, to distil from a teacher.

    teacher: takes the place of the anchor. modalities: the anchor and the other. label: the pair's name in place of its modalities', where
    two pairs have the same. anchor: what of it the other cannot know.
    data: manifests (JSONL, CSV, TSV), tar shards or prepared `.h5`, as paths or patterns.
    val: the same for validation. val_fraction: hold out this fraction of `data` for validation, whole groups at a time, in place of `val`.
    columns: in manifests, the column that holds a modality, `id`, `group`, `start` or `end`, where its name differs.
    weight: relative number of this pair's mini-batches. batch: pairs in a mini-batch, over all processes.
    replicate: how often each row is used in an epoch (ImageBind's sample replication). temperature: at least 0.01.
    learn_temperature: learn it, from `temperature` on. loss: one of `LOSSES`. clip: largest gradient norm in this pair's steps, in place of
    the optimizer's. aligned: use the same crop, mirroring and time for both samples of a pair.
    views: 0 to augment differently every time; K to use K fixed views of each row, which an anchor cache can hold.
    augment: by modality. options: how to read the files, by modality, named as the flags of `embed`.
    """

    teacher: TeacherRecipe | None = None
    modalities: tuple[str, str]
    label: Annotated[str, Field(pattern="^[a-z0-9-]*$")] = ""
    anchor: AnchorRecipe = AnchorRecipe()
    data: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    columns: Mapping[str, str] = {}
    weight: Positive = 1.0
    batch: Count = 64
    replicate: Positive = 1.0
    temperature: Annotated[float, Field(ge=0.01)] = 0.07
    learn_temperature: bool = False
    clip: Positive | None = None
    loss: Annotated[str, AfterValidator(_check_loss)] = "infonce"
    aligned: bool = True
    views: Annotated[int, Field(ge=0)] = 0
    augment: Mapping[str, AugmentRecipe] = {}
    options: Mapping[str, Mapping[str, Any]] = {}

    @field_validator("modalities")
    @classmethod
    def _differ(cls, modalities: tuple[str, str], info: ValidationInfo) -> tuple[str, str]:
        if info.data.get("teacher") is not None:
            if modalities[0] != modalities[1]:
                raise ValueError(f"a teacher teaches one modality, listed twice, not {' and '.join(modalities)}")
        elif modalities[0] == modalities[1]:
            raise ValueError(f"a pair binds two different modalities, not {modalities[0]} twice")
        return modalities

    @model_validator(mode="after")
    def _fits_teacher(self) -> PairRecipe:
        if self.teacher is None:
            return self
        if self.is_validated:
            raise ValueError("val and val_fraction are for two modalities; validate a distillation by zeroshot")
        if self.teacher.sees == "views" and not self.views:
            raise ValueError("teacher.sees = views needs fixed views; set views to their number")
        return self

    @model_validator(mode="after")
    def _one_validation(self) -> PairRecipe:
        if self.val and self.val_fraction is not None:
            raise ValueError("val names validation files and val_fraction holds out training rows; give one of them")
        return self

    @model_validator(mode="after")
    def _known_columns(self) -> PairRecipe:
        known = (*self.modalities, *ROW_COLUMNS)
        for name in self.columns:
            if name not in known:
                raise ValueError(f"columns.{name}: not a column of this pair's rows; it has {', '.join(known)}")
        return self

    @property
    def name(self) -> str:
        """The pair's name on the command line, such as `image-depth`."""
        return self.label or "-".join(dict.fromkeys(self.modalities))

    @property
    def loss_traits(self) -> LossTraits:
        """Look up the description of its loss."""
        return DISTILLATION if self.teacher else LOSSES[self.loss]

    @property
    def is_validated(self) -> bool:
        """Whether the pair has validation rows."""
        return bool(self.val) or self.val_fraction is not None


class EncoderRecipe(RecipeTable):
    """What to train of one encoder, and what to start from.

    train: the whole encoder, its head, low-rank adapters, the last `blocks` blocks with the head, or nothing. By default anchors are
    frozen and encoders bound to an anchor are trained in full.
    blocks: number of last blocks that train or carry adapters; None for one with `last` and all with `lora`.
    lr, weight_decay: for this encoder, in place of the optimizer's.
    layer_decay: ratio of a block's learning rate to that of the next block. head: linear as published, or an MLP (the paper's ablation).
    rank, alpha: of the adapters. targets: the layers of a block that carry them, by the end of their names, as `qkv` or `time.attn.qkv`.
    init: the model whose weights to start from, or `random`. init_blocks: the numbers of its blocks to start from, counted from 1, where this
    encoder has fewer; its MLPs may be narrower, too. None for the same blocks.
    drop_path, patch_dropout: in place of the model config's.
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
    init_blocks: tuple[Count, ...] | None = None
    drop_path: Fraction | None = None
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    head: Literal["linear", "mlp"] = "linear"


class ZeroShotRecipe(RecipeTable):
    """A zero-shot classification test: labelled items of one modality, classified by the text embeddings of the label names.

    data: a manifest with a column for the modality and one named `label`. columns: the columns that hold the modality, `id` or `label`, where
    their names differ. templates: sentences with `{}` for the name; their embeddings are averaged.
    """

    modality: str
    data: str
    columns: Mapping[str, str] = {}
    templates: tuple[str, ...] = ("{}",)


class OptimizerRecipe(RecipeTable):
    """The optimizer and its learning rate, which rises linearly to its peak.

    name: `adamw`, or `muon` for the matrices of the blocks and AdamW for everything else. lr: the peak. beta1, beta2, eps: of AdamW.
    momentum: of Muon. weight_decay: of both. clip: largest norm of the gradient. warmup: epochs until the peak. schedule: after it, `cosine`
    down to the end or `constant`. final: the cosine's end, as a fraction of the peak.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 5e-4
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    eps: Positive = 1e-8
    momentum: Fraction = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.2
    clip: Positive = 1.0
    warmup: Annotated[float, Field(ge=0)] = 2.0
    schedule: Literal["cosine", "constant"] = "cosine"
    final: Fraction = 0.0


class RunRecipe(RecipeTable):
    """The length of a run, how it computes, and what it saves.

    epochs: passes over the first pair's replicated rows. steps: in place of epochs. seed: of everything drawn at random.
    micro_batch: samples in memory at once (gradient caching); None for the whole batch. chunk: rows scored at once by the loss.
    anchor_cache: store the frozen anchor's embeddings of a pair's fixed views and read them from there. precision: `bf16` for autocast.
    checkpointing: compute the activations of a block again for its gradient, instead of keeping them in memory; the checkpoints on disk are
    those of checkpoint_minutes, the time between two, and keep, how many stay. compile: the blocks, by `torch.compile`.
    sharding: keep all weights in each process, or with `fsdp` a part. workers: processes that read samples.
    validate_every: in steps; 0 for the end only. best: the score that selects the published weights.
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
    workers: Annotated[int, Field(ge=0), NO_EFFECT] = 2
    checkpoint_minutes: Annotated[Positive, NO_EFFECT] = 10.0
    validate_every: Annotated[int, Field(ge=0)] = 0
    best: str | None = None
    keep: Annotated[Count, NO_EFFECT] = 1


class Recipe(RecipeTable):
    """A whole run.

    model: whose encoders and input sizes to use. about: what the recipe is for. pairs: at least one. zeroshot: tests for the validation.
    optimizer, run: settings of the run. encoders: by encoder name; an encoder without a table has the defaults of `EncoderRecipe`.
    rounds: runs that follow each other, each from the weights of the one before; keys that each changes, as `optimizer.lr = 1e-4`.
    """

    model: str = "huge"
    about: Annotated[str, NO_EFFECT] = ""
    pairs: tuple[PairRecipe, ...] = ()
    encoders: Mapping[str, EncoderRecipe] = {}
    zeroshot: tuple[ZeroShotRecipe, ...] = ()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    run: RunRecipe = RunRecipe()
    rounds: tuple[Mapping[str, Any], ...] = ()

    @model_validator(mode="after")
    def _unique_pairs(self) -> Recipe:
        names = [pair.name for pair in self.pairs]
        if len(set(names)) < len(names):
            raise ValueError("the same pair is listed twice; list it once, with all its data, or give one a label")
        return self

    @model_validator(mode="after")
    def _unsharded_muon(self) -> Recipe:
        if self.optimizer.name == "muon" and self.run.sharding == "fsdp":
            raise ValueError("optimizer.name = muon needs whole matrices, which run.sharding = fsdp splits; use ddp")
        return self


def keys_without_effect() -> set[str]:
    """Return the keys that do not change a run's result, as `run.workers`."""
    tables = (("", Recipe), ("run.", RunRecipe))
    return {f"{place}{name}" for place, table in tables for name, entry in table.model_fields.items() if NO_EFFECT in entry.metadata}
