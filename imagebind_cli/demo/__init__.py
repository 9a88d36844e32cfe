"""The demo: the bundled model finds pictures by sounds, movements by words, a place in a picture by a sound, and a moment by a picture.

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
    from imagebind_cli.grounding.located import Located
    from imagebind_cli.grounding.moments import MomentAnswer, MomentHit
    from imagebind_cli.model import Model

SAMPLES = Path(__file__).parent / "samples"
MODEL = "mini"
# The modality of each part of a query, and its sentence or its path below `SAMPLES`.
QueryParts = tuple[tuple[str, str], ...]

# The drawings in `scene/garden.png`, each with its box: left, top, right, bottom in pixels.
SCENE = {"baby": (4, 20, 114, 130), "guitar": (120, 90, 230, 200), "umbrella": (250, 10, 360, 120)}
SCENE_SIZE = 364, 220
DAY, DAY_SECONDS = ("guitar", "baby", "rain", "trumpet"), 4  # the sounds in `scene/day.mp3`, of so many seconds each


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
    """A part of the story. query: its parts. words: what it shows."""

    title: str
    query: QueryParts
    words: str


@dataclass(frozen=True)
class SearchChapter(Chapter):
    """A search. answers: all samples of the modality that is searched, best first. expected: the names of the right ones."""

    answers: tuple[Answer, ...]
    expected: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether the best answer is one of those expected."""
        return self.answers[0].name in self.expected


@dataclass(frozen=True)
class SceneChapter(Chapter):
    """A place in a picture of several things. file: the picture, below `SAMPLES`. expected: the name of the right thing."""

    file: str
    located: Located
    expected: str

    @property
    def name(self) -> str:
        """The name of the thing at the peak of the heat map, "nothing" where none is."""
        x, y = self.located.spots[0].peak
        inside = (name for name, (left, top, right, bottom) in SCENE.items() if left <= x < right and top <= y < bottom)
        return next(inside, "nothing")

    @property
    def is_right(self) -> bool:
        """Check whether the peak lies in the box of the right thing."""
        return self.name == self.expected


@dataclass(frozen=True)
class TimelineChapter(Chapter):
    """Moments of a recording. file: the recording, below `SAMPLES`. expected: the first and last second of the right one."""

    file: str
    answer: MomentAnswer
    expected: tuple[float, float]

    @property
    def best(self) -> MomentHit:
        """The best moment."""
        return self.answer.hits[0]

    @property
    def is_right(self) -> bool:
        """Check whether the best moment lies within the right one, and fills half of it or more."""
        start, end = self.expected
        return start <= self.best.start < self.best.end <= end and self.best.end - self.best.start >= (end - start) / 2


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


def chapters(model: Model) -> Iterator[SearchChapter | SceneChapter | TimelineChapter]:
    """Yield the chapters of the demo.

    Args:
        model: `load("mini")`, whose answers the chapters explain.
    """
    pictures, recordings, films = (_Gallery(model, modality) for modality in ("image", "imu", "video"))

    def search(title: str, gallery: _Gallery, query: QueryParts, expected: tuple[str, ...], words: str) -> SearchChapter:
        return SearchChapter(title, query, words, gallery.search(query), expected)

    yield search(
        "Play a melody, find its instrument",
        pictures,
        (("audio", "audio/guitar.mp3"),),
        ("guitar",),
        "A formula plucked the strings, and a script drew the pictures. The model never sees the file names.",
    )
    yield search(
        "Let it rain",
        pictures,
        (("audio", "audio/rain.mp3"),),
        ("umbrella", "rain"),
        "The umbrella and the cloud: the two pictures with drops in them.",
    )
    yield _scene(model)
    yield search(
        "Say it in words, find the movement",
        recordings,
        (("text", "a person walking"),),
        ("walking",),
        "Words and movements never met in training. Both met pictures, and through pictures they find each other.",
    )
    walker, rain, surf = ("image", "image/walking.png"), ("audio", "audio/rain.mp3"), ("audio", "audio/wave.mp3")
    first, second = films.search((walker,))[:2]
    by_surf = films.search((walker, surf))[0]
    yield search(
        "Add a sound to a picture, find both",
        films,
        (walker, rain),
        ("walk in the rain",),
        f"The picture alone finds both walks ({first.score:.2f} and {second.score:.2f}). The rain decides; "
        f"with surf instead, it is the {by_surf.name}.",
    )
    yield _timeline(model)
    yield search(
        "And a wrong answer",
        pictures,
        (("audio", "audio/violin.mp3"),),
        ("violin",),
        "It was a violin, played by a formula: steady notes rich in overtones, as a trumpet's are. The small model is misled.",
    )


def _scene(model: Model) -> SceneChapter:
    from imagebind_cli.grounding.locate import locate
    from imagebind_cli.grounding.locator import BOTH

    cry, file = "audio/baby.mp3", "scene/garden.png"
    (located,) = locate([SAMPLES / file], model=model, method=BOTH, ground=True, listener=Listener(), audio=SAMPLES / cry)
    words = "Three cries made of sine waves, and their place in a picture. Another sound would find another thing: the rain, the umbrella."
    return SceneChapter("Hear a cry, point at who is crying", (("audio", cry),), words, file, located, "baby")


def _timeline(model: Model) -> TimelineChapter:
    from imagebind_cli.grounding.curves import MomentOptions
    from imagebind_cli.grounding.moments import MomentFinder
    from imagebind_cli.retrieval.requests import combined_request
    from imagebind_cli.space import Space

    umbrella, file = "image/umbrella.png", "scene/day.mp3"
    options = MomentOptions(k=1)
    with MomentFinder([SAMPLES / file], space=Space(model), hop=0.5, listener=Listener()) as finder:
        (answer,) = finder.answer([combined_request([("image", str(SAMPLES / umbrella))])], options)
    start = float(DAY.index("rain") * DAY_SECONDS)
    words = "Four sounds in a row, and a picture that asks when. No umbrella can be heard: it is the rain that the picture is near."
    return TimelineChapter(
        "Show an umbrella, find when it rains", (("image", umbrella),), words, file, answer, (start, start + DAY_SECONDS)
    )
