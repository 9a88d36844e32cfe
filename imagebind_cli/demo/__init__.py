"""The demo: six searches in which the bundled model finds pictures by sounds, movements by words and films by a picture and a sound.

The samples are in `samples/`, made by rule by `recipes/demo/make_samples.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagebind_cli.events import Listener
from imagebind_cli.similarity import combine, top_k

if TYPE_CHECKING:
    from imagebind_cli.model import Model

SAMPLES = Path(__file__).parent / "samples"
MODEL = "mini"
# The modality of each part of a query, and its sentence or its path below `SAMPLES`.
QueryParts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answer:
    """A sample that was found. file: its path below `SAMPLES`. score: the cosine with the query."""

    modality: str
    file: str
    score: float

    @property
    def name(self) -> str:
        """The sample's name in words."""
        return Path(self.file).stem.replace("-", " ")


@dataclass(frozen=True)
class Chapter:
    """One search of the story.

    query: its parts. answers: all samples of the modality that is searched, best first. expected: the names of the right ones.
    words: what the chapter shows.
    """

    title: str
    query: QueryParts
    answers: tuple[Answer, ...]
    expected: tuple[str, ...]
    words: str

    @property
    def is_right(self) -> bool:
        """Whether the best answer is one of those expected."""
        return self.answers[0].name in self.expected


class _Gallery:
    """The samples of one modality and their vectors, to be searched."""

    def __init__(self, model: Model, modality: str) -> None:
        self.model, self.modality = model, modality
        self.files = [f"{modality}/{path.name}" for path in sorted((SAMPLES / modality).iterdir())]
        self.vectors = model.embed(modality, [SAMPLES / file for file in self.files], listener=Listener())  # (n, dim)

    def search(self, query: QueryParts) -> tuple[Answer, ...]:
        """Return all samples, the nearest to the combined query first."""
        parts = [self.model.embed(kind, [given if kind == "text" else SAMPLES / given], listener=Listener())[0] for kind, given in query]
        (rows,), (scores,) = top_k([self.vectors], combine(np.stack(parts))[None], len(self.files))
        return tuple(Answer(self.modality, self.files[row], float(score)) for row, score in zip(rows, scores, strict=True))


def chapters(model: Model) -> Iterator[Chapter]:
    """Search the samples, chapter by chapter.

    Args:
        model: `load("mini")`, whose answers the chapters explain.
    """
    pictures, recordings, films = (_Gallery(model, modality) for modality in ("image", "imu", "video"))

    def chapter(title: str, gallery: _Gallery, query: QueryParts, expected: tuple[str, ...], words: str) -> Chapter:
        return Chapter(title, query, gallery.search(query), expected, words)

    yield chapter(
        "Play a melody, find its instrument",
        pictures,
        (("audio", "audio/guitar.mp3"),),
        ("guitar",),
        "A formula plucked the strings, and a script drew the pictures. The model never sees the file names.",
    )
    yield chapter(
        "Let it rain",
        pictures,
        (("audio", "audio/rain.mp3"),),
        ("umbrella", "rain"),
        "The umbrella and the cloud: the two pictures with drops in them.",
    )
    yield chapter(
        "Hear a cry, find who is crying",
        pictures,
        (("audio", "audio/baby.mp3"),),
        ("baby",),
        "Three cries that rise and fall, made of sine waves. No other picture comes near.",
    )
    yield chapter(
        "Say it in words, find the movement",
        recordings,
        (("text", "a person walking"),),
        ("walking",),
        "Words and movements never met in training. Both met pictures, and through pictures they find each other.",
    )
    walker, rain, surf = ("image", "image/walking.png"), ("audio", "audio/rain.mp3"), ("audio", "audio/wave.mp3")
    first, second = films.search((walker,))[:2]
    by_surf = films.search((walker, surf))[0]
    yield chapter(
        "Add a sound to a picture, find both",
        films,
        (walker, rain),
        ("walk in the rain",),
        f"The picture alone finds both walks ({first.score:.2f} and {second.score:.2f}). The rain decides; "
        f"with surf instead, it is the {by_surf.name}.",
    )
    yield chapter(
        "And a wrong answer",
        pictures,
        (("audio", "audio/violin.mp3"),),
        ("violin",),
        "It was a violin, played by a formula: steady notes rich in overtones, as a trumpet's are. The small model is misled.",
    )
