"""A model that looks for queries in the inputs of one modality: by the shares that patches have, by cosines of squares, or by both.

Dimensions: b clips, q queries, p patches, e size of the joint space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from imagebind_cli import pipeline, registry
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UsageError
from imagebind_cli.events import KeptFailures, Listener
from imagebind_cli.grounding.enlarged import with_size
from imagebind_cli.grounding.pieces import SOUND, kind_of
from imagebind_cli.grounding.shares import check_dense, dense
from imagebind_cli.retrieval.queries import QueryEncoder
from imagebind_cli.retrieval.requests import QueryRequest
from imagebind_cli.retrieval.search import Query
from imagebind_cli.similarity import combine
from imagebind_cli.sources import Failure
from imagebind_cli.space import Space
from imagebind_cli.store import StoreReader

SHARES, CROPS, BOTH = METHODS = ("shares", "crops", "both")
DIVISORS = {SHARES: (1,), CROPS: (1, 2, 3), BOTH: (1, 2, 3)}  # of the short side: the squares that a map is made of


@dataclass(frozen=True)
class Asked:
    """Queries of an input, and the vectors (q, e) that it is compared with: those of the queries, then those of their empty queries.

    floors: for each query the number of its empty query's vector; None where it has none.
    """

    queries: tuple[Query, ...]
    vectors: Tensor
    floors: tuple[int | None, ...]


class Locator:
    """A model that looks for queries in the inputs of one modality.

    Args:
        stores: where queries by `like` are looked up; the space has admitted them. The other arguments are those of `locate`.
    Raises:
        UsageError: as `locate`.
    """

    def __init__(
        self, space: Space, modality: str, method: str, size: int | None, listener: Listener, stores: Sequence[StoreReader] = ()
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
        self.space, self.face, self.method = space, registry.face(modality), method
        kind_of(self.face, space.local.config(modality))
        self.encoder = space.local.encoder(modality)
        self.kind = kind_of(self.face, self.config)
        if self.kind == SOUND and (method != SHARES or size is not None):
            raise UsageError(f"{modality} is located by shares, at the size of its spectrograms; leave the method and the size out")
        if size is not None:
            self.encoder = with_size(self.encoder, size)
        if method != CROPS:
            try:
                check_dense(self.encoder)
            except UsageError as error:
                raise UsageError(f"{error}{'' if self.kind == SOUND else '; --method crops does without shares'}") from None
        self._listener, self._stores = listener, stores
        self._empty: dict[str, np.ndarray] = {}
        self._batch = space.batch_size or max(1, self._tokens // self.config.tokens)

    @property
    def config(self) -> EncoderConfig:
        """The shape of the encoder, at the chosen size."""
        return self.encoder.config

    @property
    def _tokens(self) -> int:
        """Tokens to encode at once."""
        model = self.space.local
        return model.batch_size(self.face.name) * model.config(self.face.name).tokens

    def queries(self, requests: Sequence[QueryRequest | Failure]) -> Asked:
        """Embed requests. One that cannot be embedded is reported and left out."""
        return self.asked(QueryEncoder(self.space, self._stores, {}, self._listener).encode(requests))

    def own_queries(self, requests: Mapping[int, QueryRequest]) -> tuple[dict[int, Asked], dict[int, str]]:
        """Embed the requests of some rows together; return the query of each, and why others have none, by the row's number."""
        kept = KeptFailures(self._listener)
        numbered = [replace(request, id=str(number)) for number, request in requests.items()]
        queries = QueryEncoder(self.space, self._stores, {}, kept).encode(numbered)
        asked = {int(query.id): self.asked([replace(query, id=requests[int(query.id)].id)]) for query in queries}
        return asked, {int(number): why for number, why in kept.reasons.items()}

    def asked(self, queries: Sequence[Query]) -> Asked:
        """Put the vectors of queries and of their empty queries together. A query that shows nothing, or a vector, has no empty query."""
        vectors, floors, places = [query.vector for query in queries], [], dict[tuple[str, ...], int]()
        for query in queries:
            kinds = tuple(dict.fromkeys(exhibit.kind for exhibit in query.exhibits))
            if kinds and kinds not in places and all(kind in registry.MODALITIES for kind in kinds):
                places[kinds] = len(vectors)
                vectors.append(combine(np.stack([self.empty_vector(kind) for kind in kinds])))
            floors.append(places.get(kinds))
        model = self.space.local
        stacked = np.stack(vectors).astype(np.float32) if vectors else np.empty((0, model.dim), np.float32)
        return Asked(tuple(queries), torch.from_numpy(stacked).to(model.device), tuple(floors))

    def empty_vector(self, modality: str) -> np.ndarray:
        """Return the vector (e,) of an empty query: a sentence without words, silence, or a picture or recording that is the same everywhere."""
        if modality not in self._empty:
            model, face = self.space.local, registry.face(modality)
            config = model.config(modality)
            if face.text:
                clips = next(model.read(modality, "")).tensor
            elif registry.modality(face.encoder, config).preview == "spectrogram":
                clips = next(model.read(modality, np.zeros(32_000, np.float32))).tensor
            else:
                clips = torch.zeros(1, *config.shape)
            self._empty[modality] = model.encode(modality, clips)[0].cpu().numpy()
        return self._empty[modality]

    def look(self, clips: Tensor, vectors: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Compare clips (b, *shape) with vectors (q, e).

        Returns:
            The clips' unit vectors (b, e), their cosines (b, q), and the shares (b, q, gh, gw), each times the number of patches, so that their
            mean over a clip is the cosine but for what is not of patches; None for `crops`.
        """
        results = []
        start = 0
        while start < len(clips):
            try:
                results.append(self._look_at_once(clips[start : start + self._batch], vectors))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if self._batch == 1 or not pipeline.out_of_memory(error):
                    raise
                self._batch //= 2
                continue
            start += len(results[-1][0])
        units, cosines, shares = zip(*results, strict=True)
        return np.concatenate(units), np.concatenate(cosines), None if shares[0] is None else np.concatenate(shares)

    @torch.inference_mode()
    def _look_at_once(self, clips: Tensor, vectors: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        x = clips.to(self.space.local.device, self.encoder.head.proj.weight.dtype)
        if self.method == CROPS:
            units = self.encoder(x)
            return units.cpu().numpy(), (units @ vectors.T).cpu().numpy(), None
        shares, rest = (part.float() for part in dense(self.encoder, x))  # (b, p, e), (b, e)
        output = shares.sum(dim=1) + rest
        length = output.norm(dim=1, keepdim=True)
        units = output / length
        parts = shares @ vectors.T / length[:, None] * shares.shape[1]  # (b, p, q)
        maps = parts.unflatten(1, (-1, *self.config.grid[-2:])).mean(dim=1)  # over the times of a clip
        return units.cpu().numpy(), (units @ vectors.T).cpu().numpy(), maps.permute(0, 3, 1, 2).cpu().numpy()
