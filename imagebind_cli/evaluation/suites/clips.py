"""Clips cut out of YouTube videos, found by the names that AudioSet's authors and the usual downloaders give them.

Videos leave YouTube, so a copy is never whole: what is missing is counted and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imagebind_cli.errors import UserError
from imagebind_cli.evaluation.suites.tree import Tree


class Segment(NamedTuple):
    """A video's id, and where the clip starts and ends in seconds."""

    id: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.id}_{self.start:.10g}"

    def stems(self) -> Iterator[str]:
        """Names its file may have, without the ending; a video's bare name last, which tells no time."""
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
    """The files of the segments that have one, and what there is to say about the others.

    folder: where to look, from the root; empty for all below it.
    Raises:
        UserError: not one is there.
    """
    files = tree.clips(folder)
    found: dict[Segment, Path] = {}
    for segment in segments:
        stem = next((stem for stem in segment.stems() if stem in files), None)
        if stem is not None:
            found[segment] = files[stem]
    missing = [segment for segment in dict.fromkeys(segments) if segment not in found]
    if missing and not found:
        names = " or ".join(dict.fromkeys(missing[0].stems()))
        raise UserError(
            f"{tree.suite}: none of its {len(missing):,} clips is below {tree.root / folder}; the first would be called {names}"
        )
    return found, [f"{len(missing):,} of {len(missing) + len(found):,} clips are not there, as {missing[0]}"] if missing else []
