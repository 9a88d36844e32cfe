"""Where the unit vectors of a command come from: stores, or inputs through a model that is loaded when the first must be embedded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer

from imagebind_cli import registry
from imagebind_cli.cli.memory import keep_freed_memory
from imagebind_cli.cli.talk import Talk, say
from imagebind_cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from imagebind_cli.evaluation.classify import Batch
    from imagebind_cli.model import Model
    from imagebind_cli.sources import Failure, Item
    from imagebind_cli.store import StoreReader


def load_model(name: str | None, device: str, dtype: str, config: str | None) -> Model:
    """The model of a command that encodes; if it is untrained, stderr says so."""
    from imagebind_cli.model import load

    keep_freed_memory()
    model = load(name, device=device, dtype=dtype, config=config)
    if model.checkpoint.untrained:
        say(f"model {model.name} is untrained: its weights are made by rule, and nearness means little. --model huge is the published one")
    return model


@dataclass
class Vectors:
    """The vectors of one joint space: stores are checked against each other and against the model.

    model: None for that of the first store, else the default one.
    """

    model: str | None
    config: str | None
    device: str
    dtype: str
    batch_size: int | None
    workers: int | None
    made: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)  # of what has come so far, by place

    def admit(self, reader: StoreReader, modality: str | None = None) -> StoreReader:
        """Take in a store.

        Raises:
            UserError: it holds another modality, or vectors of another model than what came before.
        """
        if modality is not None and registry.encoder_name(reader.modality) != registry.encoder_name(modality):
            raise UserError(f"{reader.path}: holds {reader.modality} vectors; {modality} is asked for")
        self._check(str(reader.path), reader.made)
        if "loaded" in self.__dict__:
            self._check_weights(self.loaded, str(reader.path), reader.made)
        return reader

    @cached_property
    def loaded(self) -> Model:
        """The model."""
        name = self.model or next((str(made["model"]) for _, made in self.made), None)
        loaded = load_model(name, self.device, self.dtype, self.config)
        for place, made in self.made:
            self._check_weights(loaded, place, made)
        return loaded

    def sentences(self, sentences: list[str], talk: Talk) -> Iterator[np.ndarray]:
        """Sentences through the model, in order.

        Raises:
            UserError: one of them cannot be embedded.
        """
        from imagebind_cli.sources import Item

        for result in self.loaded.embed_items("text", (Item(text, text) for text in sentences), batch_size=self.batch_size):
            if not isinstance(result, list):
                raise UserError(f"{result.id}: {result.reason}")
            talk.remarks(result[0].id, (), result[0].warnings)
            yield result[0].vector

    def made_of(self, modality: str, pool: str = "mean", options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """How the model makes vectors of a modality, checked against the stores."""
        made = self.loaded.made(modality, pool, **(options or {}))
        self._check(f"model {self.loaded.name}", made)
        return made

    def _check(self, place: str, made: Mapping[str, Any]) -> None:
        for before_place, before in self.made:
            same_encoder = registry.encoder_name(before["modality"]) == registry.encoder_name(made["modality"])
            for key in ("model", "dim", *(["weights"] if same_encoder else [])):
                if before.get(key) != made.get(key):
                    if key == "weights":
                        from imagebind_cli.store.made import refuse_earlier

                        refuse_earlier((place, made), (before_place, before))
                    raise UserError(f"{place}: vectors of {key} {made.get(key)!r}; those of {before_place} are of {before.get(key)!r}")
        self.made.append((place, made))

    def _check_weights(self, loaded: Model, place: str, made: Mapping[str, Any]) -> None:
        """Another run of training has the same name and other weights."""
        from imagebind_cli import checkpoint
        from imagebind_cli.store.made import refuse_earlier

        own = checkpoint.fingerprint(loaded.checkpoint, registry.encoder_name(made["modality"]))
        if own != made.get("weights"):
            refuse_earlier((place, made))
            raise UserError(
                f"{place}: made with weights {made.get('weights')!r} of {made['model']!r}; model {loaded.name!r} has {own!r}; "
                "--model must name the one that made them"
            )


class Inputs:
    """What a command works on: stores of one modality, or items to be embedded in it.

    readers: opened stores; if there are none, `items` are embedded. options: for the modality's reader. weights: of each modality in an
    item's payload, where it has several. failed: is given the id of each item that could not be embedded.
    """

    def __init__(
        self,
        vectors: Vectors,
        modality: str,
        readers: Sequence[StoreReader],
        items: Iterable[Item | Failure],
        pool: str = "mean",
        options: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.vectors, self.modality, self.pool, self.options, self.weights = vectors, modality, pool, dict(options or {}), weights
        self._readers = [vectors.admit(reader, modality) for reader in readers]
        self._items = items
        self._assumed: dict[str, None] = {}

    @property
    def stored(self) -> bool:
        """Whether it is stores that it reads."""
        return bool(self._readers)

    def of(self, items: Iterable[Item | Failure]) -> Inputs:
        """Other items, embedded as these are."""
        return Inputs(self.vectors, self.modality, [], items, self.pool, self.options, self.weights)

    def made(self) -> list[dict[str, Any]]:
        """How its vectors were made: a record for each store, or for each modality."""
        if self._readers:
            return [dict(reader.made) for reader in self._readers]
        modalities = list(self.weights or [self.modality])
        return [self.vectors.made_of(name, self.pool, self._options_of(name)) | {"assumptions": list(self._assumed)} for name in modalities]

    def _options_of(self, modality: str) -> dict[str, Any]:
        return self.options if modality == self.modality else {}

    def batches(self, talk: Talk, failed: Callable[[str], None], metas: bool = False) -> Iterator[Batch]:
        """Its items in order, as soon as they are known. One that cannot be read is said, and `failed` gets its id.

        metas: whether what a store's manifest said is wanted.
        """
        from imagebind_cli.evaluation.classify import stored

        for reader in self._readers:
            yield from stored(reader, self.pool == "none", metas)
        if not self._readers:
            yield from self._weighted(talk, failed) if self.weights else self._embedded(self.modality, self._items, talk, failed)

    def _embedded(self, modality: str, items: Iterable[Item | Failure], talk: Talk, failed: Callable[[str], None]) -> Iterator[Batch]:
        import numpy as np

        from imagebind_cli.evaluation.classify import Batch

        metas: deque[Mapping[str, Any]] = deque()  # of items under way: each has its one result, in order

        def remembered() -> Iterator[Item | Failure]:
            for item in items:
                metas.append(getattr(item, "meta", {}))
                yield item

        settings: dict[str, Any] = {"pool": self.pool, "batch_size": self.vectors.batch_size, "workers": self.vectors.workers}
        for result in self.vectors.loaded.embed_items(modality, remembered(), **settings, **self._options_of(modality)):
            meta = metas.popleft()
            if not isinstance(result, list):
                talk.failure(result.id, result.reason)
                failed(result.id)
                continue
            talk.remarks(result[0].id, result[0].notes, result[0].warnings)
            self._assumed |= dict.fromkeys(result[0].notes)
            yield Batch(
                [part.id for part in result],
                [meta] * len(result),
                np.stack([part.vector for part in result]),
                [part.span for part in result],
            )

    def _weighted(self, talk: Talk, failed: Callable[[str], None]) -> Iterator[Batch]:
        """Each item as the weighted sum of its vectors in several modalities. One that fails in any of them fails."""
        import numpy as np

        from imagebind_cli.evaluation.classify import Batch
        from imagebind_cli.similarity import combine
        from imagebind_cli.sources import Item

        assert self.weights is not None
        items = [item for item in self._items if isinstance(item, Item)]
        parts = []
        for modality in self.weights:
            given = [Item(item.id, item.payload[modality]) for item in items]
            parts.append({batch.ids[0]: batch.vectors[0] for batch in self._embedded(modality, given, talk, failed)})
            items = [item for item in items if item.id in parts[-1]]
        for item in items:
            vector = combine(np.stack([part[item.id] for part in parts]), list(self.weights.values()))
            yield Batch([item.id], [item.meta], vector[None].astype(np.float32), [None])


def store_readers(inputs: Sequence[str]) -> list[StoreReader]:
    """The inputs as opened stores, if that is what they are; an empty list if they are none.

    Raises:
        typer.BadParameter: stores and other inputs together.
    """
    from imagebind_cli.store import is_store, open_store

    stores = [path for path in inputs if path != "-" and is_store(path)]
    if stores and len(stores) < len(inputs):
        other = next(path for path in inputs if path not in stores)
        raise typer.BadParameter(f"{stores[0]} is a store and {other} is none; give one or the other")
    return [open_store(path) for path in stores]
