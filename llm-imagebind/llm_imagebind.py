"""Embedding models for `llm`: sentences, pictures, videos and sounds in one space, by imagebind-cli."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import click
import llm

if TYPE_CHECKING:
    from imagebind_cli.model import Model
    from imagebind_cli.sources import Failure, Item

MODELS = ("mini", "huge")


class UnreadableContent(click.ClickException, ValueError):
    """Content that cannot be embedded, or a model that is not here. `llm` prints the message as one line."""


class ImageBindEmbeddings(llm.EmbeddingModel):  # type: ignore[misc, name-defined]
    """A model of `MODELS`. Text is a sentence; of bytes, the content shows whether they are a picture, a video or a sound."""

    supports_text = True
    supports_binary = True
    batch_size = 32

    def __init__(self, name: str) -> None:
        """Read no weights yet."""
        self.model_id = f"imagebind-{name}"
        self._name = name

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        """Yield the unit vector of each item, in order.

        Raises:
            UnreadableContent: an item is an empty sentence or not a readable file, or the model's weights are not here.
        """
        from imagebind_cli.errors import UserError

        batch = list(items)
        modalities = [modality_of(item) for item in batch]
        vectors: dict[int, list[float]] = {}
        for modality in dict.fromkeys(modalities):
            places = [place for place, each in enumerate(modalities) if each == modality]
            try:
                vectors |= zip(places, self._vectors(modality, [batch[place] for place in places]), strict=True)
            except UserError as error:
                raise UnreadableContent(f"{self.model_id}: {error}") from error
        yield from (vectors[place] for place in range(len(batch)))

    def _vectors(self, modality: str, inputs: list[str | bytes]) -> Iterator[list[float]]:
        from imagebind_cli.events import log_note
        from imagebind_cli.printable import printable
        from imagebind_cli.sources import Failure

        for item, result in self._model.embed_items(modality, map(_item, inputs)):
            if isinstance(result, Failure):
                raise UnreadableContent(f"{self.model_id}: {printable(item.id)}: {result.reason}")
            for warning in result.warnings:
                log_note(f"{item.id}: {warning}")
            yield result.embeddings[0].vector.tolist()

    @cached_property
    def _model(self) -> Model:
        from imagebind_cli.model import load

        return load(self._name)


def modality_of(item: str | bytes) -> str:
    """Return `text` for a sentence, `audio` for content with sound and no moving pictures, and `vision` for any other content."""
    from imagebind_cli.media.decoding import decoding
    from imagebind_cli.media.tracks import open_tracks

    if isinstance(item, str):
        return "text"
    try:
        with decoding("file"):
            container, pictures = open_tracks(io.BytesIO(item))
            with container:
                return "audio" if container.streams.audio and not pictures else "vision"
    except (OSError, ValueError):  # a picture that FFmpeg does not know; the picture's reader says what is wrong with any other
        return "vision"


def _item(content: str | bytes) -> Item | Failure:
    from imagebind_cli.sources import Item, as_sentence

    return as_sentence(content) if isinstance(content, str) else Item(f"content of {len(content):,} bytes", io.BytesIO(content))


@llm.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """Register a model for each of `MODELS`."""
    for name in MODELS:
        register(ImageBindEmbeddings(name))
