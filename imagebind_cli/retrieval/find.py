"""Find what in stores is nearest to a query: what `imagebind retrieve` does with one, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagebind_cli.errors import UserError
from imagebind_cli.events import Listener
from imagebind_cli.retrieval.queries import QueryEncoder
from imagebind_cli.retrieval.requests import Request, named
from imagebind_cli.retrieval.search import Hit, search
from imagebind_cli.space import Space
from imagebind_cli.store import open_store

if TYPE_CHECKING:
    from imagebind_cli.model import Model


class _Strict(Listener):
    """Raises what a query fails with."""

    def failure(self, id: str, reason: str) -> None:
        raise UserError(f"{id}: {reason}")


def find(
    stores: Sequence[str | Path],
    *,
    k: int = 10,
    weights: Sequence[float] | None = None,
    per_modality: bool = False,
    model: Model | str | None = None,
    **query: str | Path,
) -> list[Hit]:
    """The rows of some stores that are nearest to a query, best first, exactly.

    Args:
        query: by modality a sentence or a file (`text="snow"`, `image="dog.jpg"`), `like=` the id of a row, `vector=` a file of one vector.
            Several are combined: each made a unit vector, their weighted sum, made one again. weights: a number for each, in their order.
        per_modality: k of each modality. model: what encodes sentences and files; that of the stores if not given.
    Raises:
        UserError: no such store, stores of different models, or a query that cannot be read.
    """
    space = Space(model)
    opened = [space.admit(open_store(store)) for store in stores]
    parts = tuple((kind, str(value)) for kind, value in query.items())
    if not parts:
        raise UserError("a query is needed, as in text='a dog'")
    request = Request(named(parts, weights), parts, tuple(weights) if weights is not None else None)
    queries = QueryEncoder(space, opened, {}, _Strict()).queries([request])
    return search(opened, queries, k, per_modality=per_modality)[0]
