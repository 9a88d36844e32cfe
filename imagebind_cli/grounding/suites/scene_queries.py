"""The queries of each scene of a suite, and the wrong ones beside it, which tell whether a map is of the query or of the picture.

Of sounds these are another scene's sound (`swapped`), white noise, and silence; of classes, another scene's class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagebind_cli.evaluation.labels import Label
from imagebind_cli.evaluation.prompts import read_templates
from imagebind_cli.evaluation.prototypes import Prototypes, from_prompts
from imagebind_cli.evaluation.vectors import VectorSource
from imagebind_cli.events import KeptFailures, Listener
from imagebind_cli.grounding.locator import Asked, Locator
from imagebind_cli.grounding.suites.scenes import LocationSuite, Scene
from imagebind_cli.options import ReadingOptions
from imagebind_cli.registry import TEXT, face
from imagebind_cli.retrieval.search import Query
from imagebind_cli.retrieval.stored_items import Exhibit
from imagebind_cli.sources import Item

AUDIO = "audio"
SWAPPED, NOISE, SILENCE = "swapped", "noise", "silence"
NOISE_SAMPLES, NOISE_LEVEL = 32_000, 0.1  # 2 s at 16 kHz, and their deviation


@dataclass(frozen=True)
class SceneQueries:
    """The queries of a scene: first its own, then wrong ones, whose ids are `swapped`, `noise` and `silence`."""

    asked: Asked | None
    fault: str = ""  # why there is none


class SoundQueries:
    """Queries that are sounds.

    Args:
        suite: all of its scenes, among which other sounds are found. locator: decides the model.
    """

    def __init__(self, suite: LocationSuite, locator: Locator, listener: Listener) -> None:
        self._locator, self._listener = locator, listener
        self._other = scenes_of_another_kind(suite.scenes)
        self._options = face(AUDIO).read_options({})
        self._vectors: dict[str, np.ndarray] = {}
        self._faults: dict[str, str] = {}
        self._noise: np.ndarray | None = None

    def of(self, scenes: Sequence[Scene]) -> dict[str, SceneQueries]:
        """Return the queries of some scenes by their ids."""
        others = [self._other[scene.id] for scene in scenes]
        self._embed(list(dict.fromkeys([scene.query for scene in scenes] + [scene.query for scene in others if scene is not None])))
        return {scene.id: self._queries(scene, other) for scene, other in zip(scenes, others, strict=True)}

    def record(self) -> dict[str, Any]:
        """Return how the queries' vectors are made."""
        return self._locator.space.made_of(AUDIO, options=self._options)

    def _queries(self, scene: Scene, other: Scene | None) -> SceneQueries:
        if scene.query in self._faults:
            return SceneQueries(None, f"{scene.query}: {self._faults[scene.query]}")
        queries = [Query(scene.query, self._vectors[scene.query], (Exhibit(AUDIO, scene.query),))]
        if other is not None and other.query in self._vectors:
            queries.append(Query(SWAPPED, self._vectors[other.query]))
        queries += [Query(NOISE, self._noise_vector()), Query(SILENCE, self._locator.empty_vector(AUDIO))]
        return SceneQueries(self._locator.asked(queries))

    def _embed(self, paths: Sequence[str]) -> None:
        items = [Item(path, path) for path in paths if path not in self._vectors and path not in self._faults]
        kept = KeptFailures(self._listener)
        for batch in VectorSource(self._locator.space, AUDIO, [], items, options=self._options).batches(kept, lambda id: None):
            self._vectors |= dict(zip(batch.ids, batch.vectors, strict=True))
        self._faults |= kept.reasons

    def _noise_vector(self) -> np.ndarray:
        if self._noise is None:
            model = self._locator.space.local
            samples = NOISE_LEVEL * np.random.default_rng(0).standard_normal(NOISE_SAMPLES)
            clips = next(model.read(AUDIO, samples.astype(np.float32))).tensor
            self._noise = model.encode(AUDIO, clips)[0].cpu().numpy()
        return self._noise


class ClassQueries:
    """Queries that are names of classes: of each picture the class that the model takes it for, less the mean of all classes.

    So do Gandelsman et al., arXiv 2310.05916, on ImageNet-Segmentation.

    Args:
        suite: has the names and the templates. locator: decides the model. options: how pictures are read.
    """

    def __init__(self, suite: LocationSuite, locator: Locator, options: ReadingOptions, listener: Listener) -> None:
        self._locator, self._options, self._listener = locator, options, listener
        templates = read_templates(str(suite.options["templates"]))
        space = locator.space
        numbered = [Label(str(number), (name,)) for number, name in enumerate(suite.classes)]  # two classes may share a name
        made = space.made_of(TEXT) | {"templates": templates.record()}
        self._names, self._modality = suite.classes, suite.modality
        self._classes: Prototypes = from_prompts(numbered, templates, lambda sentences: space.sentences(sentences, listener), made)
        self._mean = self._classes.vectors.mean(axis=0)

    def of(self, scenes: Sequence[Scene]) -> dict[str, SceneQueries]:
        """Return the queries of some scenes by their ids."""
        kept = KeptFailures(self._listener)
        items = [Item(scene.id, scene.picture) for scene in scenes]
        classes: dict[str, int] = {}
        source = VectorSource(self._locator.space, self._modality, [], items, options=self._options)
        for batch in source.batches(kept, lambda id: None):
            classes |= dict(zip(batch.ids, self._classes.scores(batch.vectors).argmax(axis=1).tolist(), strict=True))
        numbers = list(classes.values())
        queries: dict[str, SceneQueries] = {id: SceneQueries(None, reason) for id, reason in kept.reasons.items()}
        for place, (id, number) in enumerate(classes.items()):
            other = next((other for other in numbers[place + 1 :] + numbers[:place] if other != number), None)
            asked = [Query(self._names[number], self._less_mean(number))]
            asked += [] if other is None else [Query(SWAPPED, self._less_mean(other))]
            queries[id] = SceneQueries(self._locator.asked(asked))
        return queries

    def record(self) -> dict[str, Any]:
        """Return how the queries' vectors are made."""
        return self._classes.made

    def _less_mean(self, number: int) -> np.ndarray:
        difference: np.ndarray = self._classes.vectors[number] - self._mean
        return difference


def scenes_of_another_kind(scenes: Sequence[Scene]) -> Mapping[str, Scene | None]:
    """Return for each scene the next one of another kind, the first of all following the last; None where all are of one kind."""
    others: dict[str, Scene | None] = {}
    following: Scene | None = next((scene for scene in scenes if scene.kind != scenes[-1].kind), None)  # of the last one
    for number in range(len(scenes) - 1, -1, -1):
        scene = scenes[number]
        if number + 1 < len(scenes) and scenes[number + 1].kind != scene.kind:
            following = scenes[number + 1]
        others[scene.id] = following
    return others
