"""Stores and a model of one joint space: their vectors must be comparable, and the model is loaded only when needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebind_cli import registry
from imagebind_cli.documents import read_object
from imagebind_cli.engine.item_timeout import ITEM_SECONDS
from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener, log_note

if TYPE_CHECKING:
    import numpy as np

    from imagebind_cli.model import Model
    from imagebind_cli.options import ReadingOptions
    from imagebind_cli.remote import RemoteModel
    from imagebind_cli.store import StoreReader


PACKAGE = Path(__file__).parent


def _give(made: Mapping[str, Any]) -> str:
    """Return a hint to give the `--model` that made some vectors."""
    folder = made.get("folder")
    return f"--model {folder}, or where it is now, names it" if folder else "--model must name the one that made them"


def _present_folder(made: Mapping[str, Any]) -> str | None:
    """Return the folder or file of the weights that made some vectors, where their name does not lead to it and it is on this machine.

    A store may be a stranger's: a device, or a share of another machine, is not opened because it names one.
    """
    folder = made.get("folder")
    is_share = str(folder).startswith(("//", "\\\\"))
    return folder if folder and not is_share and (os.path.isdir(folder) or os.path.isfile(folder)) else None


def _precision(made: Mapping[str, Any]) -> str:
    """Return the number type in which vectors were computed, and to which the weights had been rounded."""
    from imagebind_cli.store.provenance import weights_in_words

    rounded = f" with {weights_in_words(made['rounded'])}" if made.get("rounded") else ""
    return f"{made.get('dtype')}{rounded}" + (f" and --merge {made['merge']}" if made.get("merge") else "")


@dataclass
class Space:
    """One joint space: stores are checked against each other and against the model.

    model: one that is loaded, of a server, or a name; by default that of the first store, else the default model. config, device, dtype,
    merge: as `model.load` takes them. batch_size, workers, item_timeout: as `Model.embed_items`. note: called with a line of text, as where stores
    were computed in different precisions; logged by default. prepare: called before a model is loaded, and not where stores alone are read.
    """

    model: Model | RemoteModel | str | None = None
    config: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    note: Callable[[str], None] = log_note
    prepare: Callable[[], object] = lambda: None
    item_timeout: float = ITEM_SECONDS
    merge: int = 0
    made: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)  # place and provenance of all that was admitted

    @classmethod
    def of(cls, model: Space | Model | RemoteModel | str | None, listener: Listener) -> Space:
        """Return a space as it is, or that of a model, whose notes a listener receives."""
        return model if isinstance(model, Space) else cls(model, note=listener.note)

    def admit(self, reader: StoreReader, modality: str | None = None) -> StoreReader:
        """Check that a store belongs to the space, and return the store.

        Args:
            modality: what it must hold, if given.
        Raises:
            UserError: it holds another modality, or vectors of another model than what was admitted before.
        """
        if modality is not None and registry.face(reader.modality).encoder != registry.face(modality).encoder:
            raise UserError(f"{reader.path}: holds {reader.modality} vectors; {modality} is asked for")
        self._check(str(reader.path), reader.provenance)
        if "loaded" in self.__dict__:
            self._check_weights(self.loaded, str(reader.path), reader.provenance)
        return reader

    @cached_property
    def loaded(self) -> Model | RemoteModel:
        """The model, loaded when it is first used; or that of a server."""
        loaded = self._load(self.model) if self.model is None or isinstance(self.model, str) else self.model
        for place, made in self.made:
            self._check_weights(loaded, place, made)
        return loaded

    @property
    def local(self) -> Model:
        """The model, in this process.

        Raises:
            UserError: it is that of a server.
        """
        from imagebind_cli.model import Model

        if not isinstance(self.loaded, Model):
            raise UserError(f"{self.loaded.address}: this needs access to the encoder, which a server does not give; leave --server out")
        return self.loaded

    def forget(self) -> None:
        """Drop a model that was loaded by its name, and its memory; it is loaded again when it is next asked for."""
        if self.model is None or isinstance(self.model, str):
            self.__dict__.pop("loaded", None)

    def _load(self, chosen: str | None) -> Model:
        """Load a model, and note if it is untrained or its training has not ended."""
        from imagebind_cli.model import load

        first, made = next(iter(self.made), ("", {}))
        name = chosen or made.get("model")
        if chosen is None and (folder := _present_folder(made)) is not None:
            name = folder
            self.note(f"model {folder}, by which {first} says that it was made")
        self.prepare()
        try:
            model = load(name, device=self.device, dtype=self.dtype, merge=self.merge, config=self.config)
        except UserError as error:
            if chosen is None and "folder" in made:
                raise UserError(
                    f"{first}: its vectors are of model {name!r}, which was in {made['folder']}: {_give(made)} ({error})"
                ) from None
            raise
        if model.checkpoint.untrained:
            hint = "its weights are generated, not trained, so nearness means little. --model huge is the published model"
            self.note(f"model {model.name} is untrained: {hint}")
        if unfinished := model.checkpoint.unfinished:
            steps = model.checkpoint.config.origin.get("steps", 0)
            self.note(f"{model.checkpoint.place}: {unfinished}; its model is that of step {steps:,}")
        return model

    def sentences(self, sentences: list[str], listener: Listener, lengths: bool = False) -> Iterator[np.ndarray]:
        """Embed sentences, in order.

        lengths: give vectors the length that the encoder gave them, in place of unit vectors.
        Raises:
            UserError: one of them cannot be embedded.
        """
        from imagebind_cli.sources import Failure, Item

        items = (Item(text, text) for text in sentences)
        for item, result in self.loaded.embed_items(registry.TEXT, items, batch_size=self.batch_size, lengths=lengths):
            if isinstance(result, Failure):
                raise UserError(f"{item.id}: {result.reason}")
            listener.remarks(item.id, (), result.warnings)
            (embedding,) = result.embeddings
            yield embedding.vector * embedding.length if lengths else embedding.vector

    def made_of(self, modality: str, pool: str = "mean", options: ReadingOptions | None = None) -> dict[str, Any]:
        """Return how the model makes vectors of a modality, checked against the stores."""
        made = self.loaded.record(modality, options, pool)
        self._check(f"model {self.loaded.name}", made)
        return made

    def _check(self, place: str, made: Mapping[str, Any]) -> None:
        from imagebind_cli.store.provenance import refuse_earlier, refuse_other_family

        for before_place, before in self.made:
            refuse_other_family((place, made), (before_place, before))
            same_encoder = registry.face(before["modality"]).encoder == registry.face(made["modality"]).encoder
            for key in ("model", "dim", *(["weights"] if same_encoder else [])):
                if before.get(key) != made.get(key):
                    if key == "weights":
                        refuse_earlier((place, made), (before_place, before))
                    raise UserError(f"{place}: vectors of {key} {made.get(key)!r}; those of {before_place} are of {before.get(key)!r}")
        if (place, made) in self.made:
            return
        if other := next((entry for entry in self.made if _precision(entry[1]) != _precision(made)), None):
            merged = made.get("merge", 0) or other[1].get("merge", 0)
            differing = "--dtype" if made.get("merge") == other[1].get("merge") else f"--merge {merged}"
            self.note(
                f"{place}: vectors computed in {_precision(made)}; those of {other[0]} in {_precision(other[1])}, which moves cosines "
                f"between them a little: `imagebind weights verify {differing}` measures how far"
            )
        self.made.append((place, made))

    def _check_weights(self, loaded: Model | RemoteModel, place: str, made: Mapping[str, Any]) -> None:
        """Compare weights: two training runs may have the same name but different weights."""
        from imagebind_cli.store.provenance import refuse_earlier, refuse_other_family, weights_in_words

        refuse_other_family((place, made), (f"model {loaded.name}", {"family": loaded.family}))
        own = loaded.fingerprint(made["modality"])
        if own != made.get("weights"):
            refuse_earlier((place, made))
            raise UserError(
                f"{place}: made with weights {made.get('weights')!r} of {made.get('model')!r}; model {loaded.name!r} has {own!r}; {_give(made)}"
            )
        if loaded.rounded != made.get("rounded"):
            own, others = weights_in_words(loaded.rounded), weights_in_words(made.get("rounded"))
            self.note(f"model {loaded.name} has {own}; the vectors of {place} are of {others}, which moves cosines between them a little")

    def trained_on(self) -> Mapping[str, Mapping[str, str]]:
        """Return `ModelConfig.trained_on` of the model; {} if that model is not on this machine."""
        if "loaded" in self.__dict__:
            return self.loaded.trained_on
        for _, made in self.made:  # without torch
            for folder in (made.get("folder"), PACKAGE / "models" / str(made.get("model"))):
                if folder is not None and (config := Path(folder) / "config.json").is_file():
                    with suppress(UserError):  # a damaged config is reported where the model is needed
                        seen = read_object(config).get("trained_on")
                        return {name: suites for name, suites in seen.items() if isinstance(suites, dict)} if isinstance(seen, dict) else {}
        return {}
