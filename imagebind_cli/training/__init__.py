"""Training on pairs of modalities: data and augmentation, contrastive loss, the loop, and what a run leaves behind.

What a training program of one's own builds on stands here by name (docs/python.md): fresh weights, encoders that hold given weights, towers,
optimizers and their rates. Its settings are those of a recipe, `imagebind_cli.training.recipe`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebind_cli.training.optimizer import Optimizers, clip_gradients, make_optimizer, rate_at, set_rate
    from imagebind_cli.training.parallel import Tower, make_tower
    from imagebind_cli.training.start import encoder_with, fresh_weights
    from imagebind_cli.training.state import Progress, read_progress

__all__ = [
    "Optimizers", "Progress", "Tower", "clip_gradients", "encoder_with", "fresh_weights", "make_optimizer", "make_tower", "rate_at",
    "read_progress", "set_rate",
]  # fmt: skip

_PLACES = {
    "optimizer": ("Optimizers", "clip_gradients", "make_optimizer", "rate_at", "set_rate"),
    "parallel": ("Tower", "make_tower"),
    "start": ("encoder_with", "fresh_weights"),
    "state": ("Progress", "read_progress"),
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used (PEP 562): reading a recipe needs no torch."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
