"""Frames of overlapping clips, each read once and in order, so that no reader has to go back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np


def read_clips(wanted: Sequence[Sequence[int]], read: Callable[[int], np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield the frames of each clip. A frame is kept until the last clip that shows it has been yielded.

    Args:
        wanted: for each clip, its frames' numbers or time stamps. read: one to its frame; called in rising order.
    """
    last = {frame: clip for clip, frames in enumerate(wanted) for frame in frames}
    ahead = iter(sorted(last))
    held: dict[int, np.ndarray] = {}
    for clip, frames in enumerate(wanted):
        while not held.keys() >= set(frames):
            frame = next(ahead)
            held[frame] = read(frame)
        yield [held[frame] for frame in frames]
        held = {frame: pixels for frame, pixels in held.items() if last[frame] > clip}
