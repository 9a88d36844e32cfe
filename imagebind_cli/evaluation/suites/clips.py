"""Clips cut from YouTube videos, found by the names that AudioSet's authors and common downloaders give them.

Videos disappear from YouTube, so that no copy is complete: missing clips are counted and reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.tree import Tree


class Segment(NamedTuple):
    """A video's id, and the start and end of the clip in seconds."""

    id: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.id}_{self.start:.10g}"

    def stems(self) -> Iterator[str]:
        """Yield the names its file may have, without the ending; the video's bare id, which has no time, comes last."""
        for scale in (1000, 1):
            start, end = round(self.start * scale), round(self.end * scale)
            yield f"{self.id}_{start}_{end}"
            yield f"{self.id}_{start}"
        yield f"{self.id}_{round(self.start):06d}_{round(self.end):06d}"
        yield f"{self.id}_{round(self.start):06d}"
        yield f"{self.id}_{self.start:.3f}_{self.end:.3f}"
        yield f"{self.id}_{self.start:.3f}"
        yield f"Y{self.id}"
        yield self.id


def find_clips(tree: Tree, segments: Sequence[Segment], folder: str) -> tuple[dict[Segment, Path], list[str]]:
    """Find the files of segments; return them with a note about the segments without one.

    Args:
        folder: where to look, from the root; empty for all below it.
    Raises:
        UserError: no segment has a file.
    """
    files = tree.clips(folder)
    files_of: dict[Segment, Path] = {}
    for segment in segments:
        stem = next((stem for stem in segment.stems() if stem in files), None)
        if stem is not None:
            files_of[segment] = files[stem]
    missing = [segment for segment in dict.fromkeys(segments) if segment not in files_of]
    if missing and not files_of:
        names = " or ".join(dict.fromkeys(missing[0].stems()))
        raise UserError(
            f"{tree.suite}: none of its {len(missing):,} clips is below {tree.root / folder}; the first would be called {names}"
        )
    return files_of, [f"{len(missing):,} of {len(missing) + len(files_of):,} clips are missing, as {missing[0]}"] if missing else []
