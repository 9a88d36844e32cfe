"""Stores and a model of one joint space: what is compared must belong together, and the model is loaded only when it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.events import Listener

if TYPE_CHECKING:
    import numpy as np

    from imagebind_cli.evaluation.classify import Batch
    from imagebind_cli.model import Model
    from imagebind_cli.sources import Failure, Item
    from imagebind_cli.store import StoreReader


PACKAGE = Path(__file__).parent


def _give(made: Mapping[str, Any]) -> str:
    """Return a hint which `--model` made some vectors."""
    folder = made.get("folder")
    return f"--model {folder}, or where it is now, names it" if folder else "--model must name the one that made them"


def load_model(name: str | None, device: str, dtype: str, config: str | None, note: Callable[[str], None]) -> Model:
    """Load a model as `model.load` does. note: called with a line of text where it is untrained or its training has not ended."""
    from imagebind_cli.model import load

    model = load(name, device=device, dtype=dtype, config=config)
    if model.checkpoint.untrained:
        note(f"model {model.name} is untrained: its weights are made by rule, and nearness means little. --model huge is the published one")
    if unfinished := model.checkpoint.unfinished:
        note(f"{model.checkpoint.place}: {unfinished}; its model is that of step {model.checkpoint.config.origin.get('steps', 0):,}")
    return model


@dataclass
class Space:
    """One joint space: stores are checked against each other and against the model.

    model: one that is loaded, or a name; by default that of the first store, else the default model. config, device, dtype: as `model.load`
    takes them. batch_size, workers: as `Model.embed_items`. note: called with a line of text, as where stores were
    computed in different precisions. prepare: called before a model is loaded, and not where stores alone are read.
    """

    model: Model | str | None = None
    config: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    note: Callable[[str], None] = lambda text: None
    prepare: Callable[[], object] = lambda: None
    made: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)  # place and provenance of all that was admitted

    def admit(self, reader: StoreReader, modality: str | None = None) -> StoreReader:
        """Check that a store belongs to the space, and return it.

        Args:
            modality: what it must hold, if given.
        Raises:
            UserError: it holds another modality, or vectors of another model than what was admitted before.
        """
        if modality is not None and registry.encoder_name(reader.modality) != registry.encoder_name(modality):
            raise UserError(f"{reader.path}: holds {reader.modality} vectors; {modality} is asked for")
        other = next(((place, made) for place, made in self.made if made.get("dtype") != reader.provenance.get("dtype")), None)
        if other is not None:
            place, made = other
            self.note(
                f"{reader.path}: vectors computed in {reader.provenance.get('dtype')}; those of {place} in {made.get('dtype')}, which moves cosines "
                "between them a little: `imagebind weights verify --dtype` measures how far"
            )
        self._check(str(reader.path), reader.provenance)
        if "loaded" in self.__dict__:
            self._check_weights(self.loaded, str(reader.path), reader.provenance)
        return reader

    @cached_property
    def loaded(self) -> Model:
        """The model, loaded when it is first asked for."""
        loaded = self._load(self.model) if self.model is None or isinstance(self.model, str) else self.model
        for place, made in self.made:
            self._check_weights(loaded, place, made)
        return loaded

    def _load(self, chosen: str | None) -> Model:
        first, made = next(iter(self.made), ("", {}))
        name = chosen or made.get("model")
        self.prepare()
        try:
            return load_model(name, self.device, self.dtype, self.config, self.note)
        except UserError as error:
            if chosen is None and "folder" in made:
                raise UserError(
                    f"{first}: its vectors are of model {name!r}, which was in {made['folder']}: {_give(made)} ({error})"
                ) from None
            raise

    def sentences(self, sentences: list[str], listener: Listener) -> Iterator[np.ndarray]:
        """Embed sentences, in order.

        Raises:
            UserError: one of them cannot be embedded.
        """
        from imagebind_cli.sources import Failure, Item

        for item, result in self.loaded.embed_items("text", (Item(text, text) for text in sentences), batch_size=self.batch_size):
            if isinstance(result, Failure):
                raise UserError(f"{item.id}: {result.reason}")
            listener.remarks(item.id, (), result.warnings)
            yield result.embeddings[0].vector

    def made_of(self, modality: str, pool: str = "mean", options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return how the model makes vectors of a modality, checked against the stores."""
        made = self.loaded.made(modality, pool, **(options or {}))
        self._check(f"model {self.loaded.name}", made)
        return made

    def _check(self, place: str, made: Mapping[str, Any]) -> None:
        from imagebind_cli.store.provenance import refuse_earlier

        for before_place, before in self.made:
            same_encoder = registry.encoder_name(before["modality"]) == registry.encoder_name(made["modality"])
            for key in ("model", "dim", *(["weights"] if same_encoder else [])):
                if before.get(key) != made.get(key):
                    if key == "weights":
                        refuse_earlier((place, made), (before_place, before))
                    raise UserError(f"{place}: vectors of {key} {made.get(key)!r}; those of {before_place} are of {before.get(key)!r}")
        self.made.append((place, made))

    def _check_weights(self, loaded: Model, place: str, made: Mapping[str, Any]) -> None:
        """Compare weights: another run of training has the same name and other weights."""
        from imagebind_cli.store.provenance import refuse_earlier

        own = loaded.checkpoint.fingerprint(registry.encoder_name(made["modality"]))
        if own != made.get("weights"):
            refuse_earlier((place, made))
            raise UserError(
                f"{place}: made with weights {made.get('weights')!r} of {made['model']!r}; model {loaded.name!r} has {own!r}; {_give(made)}"
            )

    def trained_on(self) -> Mapping[str, Mapping[str, str]]:
        """Return `ModelConfig.trained_on` of the model; {} where vectors are of a model that is not on this machine."""
        if "loaded" in self.__dict__:
            return self.loaded.checkpoint.config.trained_on
        for _, made in self.made:  # without torch
            for folder in (made.get("folder"), PACKAGE / "models" / str(made.get("model"))):
                if folder is not None and (config := Path(folder) / "config.json").is_file():
                    return json.loads(config.read_text()).get("trained_on", {})
        return {}


class Inputs:
    """What a command works on: stores of one modality, or items to be embedded in it.

    readers: opened stores; if there are none, `items` are embedded. options: for the modality's reader. weights: of each modality in an
    item's payload, where it has several. failed: is given the id of each item that could not be embedded.
    """

    def __init__(
        self,
        space: Space,
        modality: str,
        readers: Sequence[StoreReader],
        items: Iterable[Item | Failure],
        pool: str = "mean",
        options: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.space, self.modality, self.pool, self.options, self.weights = space, modality, pool, dict(options or {}), weights
        self._readers = [space.admit(reader, modality) for reader in readers]
        self._items = items
        self._assumed: dict[str, None] = {}

    @property
    def stored(self) -> bool:
        """Whether it is stores that it reads."""
        return bool(self._readers)

    def of(self, items: Iterable[Item | Failure]) -> Inputs:
        """Other items, embedded as these are."""
        return Inputs(self.space, self.modality, [], items, self.pool, self.options, self.weights)

    def made(self) -> list[dict[str, Any]]:
        """How its vectors were made: a record for each store, or for each modality."""
        if self._readers:
            return [dict(reader.provenance) for reader in self._readers]
        modalities = list(self.weights or [self.modality])
        return [self.space.made_of(name, self.pool, self._options_of(name)) | {"assumptions": list(self._assumed)} for name in modalities]

    def _options_of(self, modality: str) -> dict[str, Any]:
        return self.options if modality == self.modality else {}

    def batches(self, listener: Listener, failed: Callable[[str], None], metas: bool = False) -> Iterator[Batch]:
        """Its items in order, as soon as they are known. One that cannot be read is said, and `failed` gets its id.

        metas: whether what a store's manifest said is wanted.
        """
        from imagebind_cli.evaluation.classify import stored

        for reader in self._readers:
            yield from stored(reader, self.pool == "none", metas)
        if not self._readers:
            yield from self._weighted(listener, failed) if self.weights else self._embedded(self.modality, self._items, listener, failed)

    def _embedded(
        self, modality: str, items: Iterable[Item | Failure], listener: Listener, failed: Callable[[str], None]
    ) -> Iterator[Batch]:
        import numpy as np

        from imagebind_cli.evaluation.classify import Batch
        from imagebind_cli.sources import Failure

        settings: dict[str, Any] = {"pool": self.pool, "batch_size": self.space.batch_size, "workers": self.space.workers}
        for item, result in self.space.loaded.embed_items(modality, items, **settings, **self._options_of(modality)):
            if isinstance(result, Failure):
                listener.failure(item.id, result.reason)
                failed(item.id)
                continue
            listener.remarks(item.id, result.notes, result.warnings)
            self._assumed |= dict.fromkeys(result.notes)
            parts = result.embeddings
            vectors, spans = np.stack([part.vector for part in parts]), [part.span for part in parts]
            yield Batch([item.id] * len(parts), [item.meta] * len(parts), vectors, spans)

    def _weighted(self, listener: Listener, failed: Callable[[str], None]) -> Iterator[Batch]:
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
            parts.append({batch.ids[0]: batch.vectors[0] for batch in self._embedded(modality, given, listener, failed)})
            items = [item for item in items if item.id in parts[-1]]
        for item in items:
            vector = combine(np.stack([part[item.id] for part in parts]), list(self.weights.values()))
            yield Batch([item.id], [item.meta], vector[None].astype(np.float32), [None])


def store_readers(inputs: Sequence[str]) -> list[StoreReader]:
    """The inputs as opened stores, if that is what they are; an empty list if they are none.

    Raises:
        UsageError: stores and other inputs together.
    """
    from imagebind_cli.store import is_store, open_store

    stores = [path for path in inputs if path != "-" and is_store(path)]
    if stores and len(stores) < len(inputs):
        other = next(path for path in inputs if path not in stores)
        raise UsageError(f"{stores[0]} is a store and {other} is none; give one or the other")
    return [open_store(path) for path in stores]
