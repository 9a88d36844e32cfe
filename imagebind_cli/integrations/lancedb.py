"""Models as embedding functions of LanceDB: `get_registry().get("imagebind-cli")`, and in place of its built-in `imagebind` where that cannot work.

The built-in function imports a package `imagebind` that does not install any more, so that tables made with it cannot be opened: LanceDB
creates a table's function when it opens the table. Importing this file registers a function under that name, too, unless a package
`imagebind` is installed. Its vectors are those of the built-in: the published outputs, which are not of length 1.

Imports lancedb, of the extra of that name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from pydantic import Field

from imagebind_cli import registry
from imagebind_cli.errors import UserError
from imagebind_cli.events import log_note
from imagebind_cli.file_kinds import PICTURE, SOUND, VIDEO
from imagebind_cli.integrations import not_installed
from imagebind_cli.sources import Failure, Item
from imagebind_cli.weights.find import shape_of

try:
    from lancedb.embeddings import EmbeddingFunction, get_registry, register
except ImportError:
    raise not_installed("lancedb", "lancedb") from None

BUILT_IN = "imagebind"
PUBLISHED = {"imagebind_huge": "huge"}  # its name for the model, and ours
PUBLISHED_CLIPS = 3  # of a sound, in the published code


@register("imagebind-cli")  # type: ignore[no-untyped-call]
class ImageBindFunction(EmbeddingFunction):  # type: ignore[misc]
    """Embed a column to unit vectors. A value that cannot be read gives null and a line in the log, and is not tried again.

    name: a model, as `load` takes it. modality: of the column; by default text, and pictures, videos and sounds by the ending of a path.
    device: as `load` takes it. options: reading options of the modality.
    """

    name: str = "mini"
    modality: str | None = None
    device: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict)
    max_retries: int = 0  # type: ignore[assignment]  # of LanceDB, which would repeat what fails seven times, with longer and longer waits

    def __hash__(self) -> int:
        """Hash what a table records of it."""
        return hash(json.dumps(self.model_dump(), sort_keys=True, default=str))

    def ndims(self) -> int:
        """Return the length of the vectors, without loading weights where the model is known by name."""
        return shape_of(self._model_name()).dim

    def compute_source_embeddings(self, source: Any, *_: Any, **__: Any) -> list[np.ndarray | None]:
        """Embed the values of a column: paths, sentences, bytes or rows `{"bytes": …, "path": …}`; null for null and for what cannot be read."""
        values = list(self.sanitize_input(source))
        vectors: list[np.ndarray | None] = [None] * len(values)
        for number, outcome in self._embed([(number, value) for number, value in enumerate(values) if value is not None], self.modality):
            if isinstance(outcome, str):
                log_note(f"null vector: {outcome}")
            else:
                vectors[number] = outcome
        return vectors

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[np.ndarray | None]:
        """Embed one query: a sentence; a path with the ending of a picture, video or sound; or an input of the column's modality.

        Raises:
            UserError: it cannot be read.
        """
        is_sentence = isinstance(query, str) and not os.path.isfile(query)
        (outcome,) = (each for _, each in self._embed([(0, query)], registry.TEXT if is_sentence else self.modality))
        if isinstance(outcome, str):
            raise UserError(outcome)
        return [outcome]

    def _embed(self, values: Sequence[tuple[int, Any]], modality: str | None) -> Iterator[tuple[int, np.ndarray | str]]:
        """Yield for each numbered value its vector, or in words why it has none."""
        model = load_once(self._model_name(), self.device)
        named = [(number, value, modality or modality_by_ending(value)) for number, value in values]
        for name in dict.fromkeys(name for _, _, name in named):
            face = registry.face(name)
            options = face.read_options(self._options(name))
            items = (Item(str(number), value) for number, value, own in named if own == name)
            for item, result in model.embed_items(name, items, options=options):
                number = int(item.id)
                if isinstance(result, Failure):
                    yield number, f"{_shown(item.payload, number)}: {result.reason.removeprefix(f'{item.payload}: ')}"
                else:
                    (embedding,) = result.embeddings
                    yield number, self._vector(embedding.vector, embedding.length, model.scale(name))

    def _model_name(self) -> str:
        return self.name

    def _options(self, modality: str) -> dict[str, Any]:
        return self.options

    def _vector(self, unit: np.ndarray, length: float, scale: float) -> np.ndarray:
        return unit


class BuiltInFunction(ImageBindFunction):
    """The function of tables made with LanceDB's own `imagebind`, with its settings and its vectors.

    normalize: make unit vectors; by default they have the lengths of the published outputs: the logit scale, times less than 1 for the mean
    of several clips.
    """

    name: str = "imagebind_huge"
    device: str = "cpu"
    normalize: bool = False

    def _model_name(self) -> str:
        return PUBLISHED.get(self.name, self.name)

    def _options(self, modality: str) -> dict[str, Any]:
        return {"clips": PUBLISHED_CLIPS} if modality == "audio" else {}

    def _vector(self, unit: np.ndarray, length: float, scale: float) -> np.ndarray:
        return unit if self.normalize else unit * np.float32(length * scale)


def modality_by_ending(value: Any) -> str:
    """Return the modality of a value by its ending: of a picture, a video or a sound; text for any other string.

    Raises:
        UserError: it is not a string.
    """
    if not isinstance(value, str):
        raise UserError(f"a column of {type(value).__name__}: give the function its modality, as modality='image'")
    ending = os.path.splitext(value)[1][1:].lower()
    kinds = {"image": PICTURE, "video": VIDEO, "audio": SOUND}
    return next((name for name, endings in kinds.items() if ending in endings.split()), registry.TEXT)


def _shown(value: Any, number: int) -> str:
    path = value.get("path") if isinstance(value, dict) else value
    return path if isinstance(path, str) else f"row {number}"


@lru_cache(2)
def load_once(name: str, device: str) -> Any:
    """Load a model, or return it if it was one of the last two."""
    from imagebind_cli.model import load

    return load(name, device=device)


def replace_built_in() -> bool:
    """Register `BuiltInFunction` under the built-in's name where that cannot import its package; return whether it did."""
    if find_spec(BUILT_IN) is not None:
        return False
    get_registry().register(BUILT_IN)(BuiltInFunction)
    return True


replace_built_in()
