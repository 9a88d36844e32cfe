"""The options of sounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imagebind_cli.options import CLIPS, HOP, PER_ITEM, TRACK, ReadingOptions, choice


@dataclass(frozen=True)
class AudioOptions(ReadingOptions):
    """Sounds."""

    augmentations = ("frequency_mask",)

    clips: int | None = choice(None, CLIPS, minimum=1, windows=True)
    hop: float | None = choice(None, HOP, minimum=0.01, windows=True)
    channels: str = choice("first", "Use the first channel, or all channels mixed.", choices=("first", "mix"))
    track: int | None = choice(None, TRACK, minimum=1)
    moment: Any = field(default=None, metadata=PER_ITEM)
    stretch: Any = field(default=None, metadata=PER_ITEM)
