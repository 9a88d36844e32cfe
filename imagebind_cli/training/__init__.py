"""Training on pairs of modalities. The files, in the order of a run:

    dataset_manifests  rows for the recipes' datasets, from the folders in which their authors distribute them
    recipe             the settings of a run, validated
    recipe_files       a recipe read from a file or the package, and the recipes of its rounds
    overrides          the flags of `imagebind train`, applied to a recipe
    inputs             how each modality of a pair is read and augmented
    packed_rows        rows as JSON in memory that processes share
    rows               the rows of a pair's data, and their groups
    augment            the random view and time of a sample
    samples            a row to its two samples
    workers            processes that read ahead
    blindness          what an anchor is made blind to
    anchors            the cache of a frozen anchor's embeddings, or a teacher's
    data               which rows a step takes, and the mini-batch made of them
    zeroshot           labelled items that a validation classifies
    distributed        the processes of a run
    compute            precision and threads
    towers             encoders as a run trains them
    teachers           the teachers of distillations, and their vectors as targets
    plan               all that a run will do, before weights are read
    plan_lines         the plan in words, with memory and arithmetic
    loss               InfoNCE and others
    pruning            a smaller encoder's tensors from those of a larger one
    start              the initial weights, and everything built from them
    optimizer          AdamW or Muon, learning rates, clipping
    step               the gradients of a mini-batch
    validate           retrieval and zero-shot scores
    folder             what a run folder holds: the run, its checkpoints, its model
    log                metrics, unreadable samples, warnings
    report             the curves as a page
    interruption       signals while a run trains
    run                the run itself
    trials             `--overfit` and `--profile`

The names below are for programs that train, by a recipe or with their own loss or teacher (docs/python.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebind_cli.training.folder import Progress, read_progress
    from imagebind_cli.training.optimizer import Optimizers, clip_gradients, make_optimizer, rate_at, set_rate
    from imagebind_cli.training.overrides import resolve_recipe
    from imagebind_cli.training.recipe import EncoderRecipe, OptimizerRecipe, RunRecipe
    from imagebind_cli.training.run import train
    from imagebind_cli.training.start import encoder_with, fresh_weights
    from imagebind_cli.training.towers import Tower, make_tower

__all__ = [
    "EncoderRecipe", "OptimizerRecipe", "Optimizers", "Progress", "RunRecipe", "Tower", "clip_gradients", "encoder_with", "fresh_weights",
    "make_optimizer", "make_tower", "rate_at", "read_progress", "resolve_recipe", "set_rate", "train",
]  # fmt: skip

_MODULES = {
    "folder": ("Progress", "read_progress"),
    "optimizer": ("Optimizers", "clip_gradients", "make_optimizer", "rate_at", "set_rate"),
    "overrides": ("resolve_recipe",),
    "recipe": ("EncoderRecipe", "OptimizerRecipe", "RunRecipe"),
    "run": ("train",),
    "start": ("encoder_with", "fresh_weights"),
    "towers": ("Tower", "make_tower"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): reading a recipe needs no torch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
